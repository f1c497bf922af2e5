"""Puts together what the process that hosts the control plane has besides: the HTTP face, the registry's store behind it,
and what records usage."""

from __future__ import annotations

from collections.abc import Callable

from proxy.control.api import Companion, Desk, Http
from proxy.control.fleet import Control
from proxy.control.metering import Metering
from proxy.control.storage import Storage
from proxy.control.tenancy import Tenancy
from proxy.net import tls
from proxy.registry.store import Store
from proxy.settings import Settings


def http_face(control: Control, config: Callable[[], Settings], *, fresh: bool = True) -> Http:
    """The HTTP face over `control`; `config` is the configuration of now. `fresh`: nothing was counted before."""
    process = config().process
    store = Store(process.registry_dsn) if process.registry_dsn else None
    tenancy = Tenancy(store, lambda: config().directory, lambda: config().server)
    storage = Storage(
        tenancy,
        lambda: config().server,
        lambda: tls.server_tls(config().tls.side("server")),
        lambda: config().client.tenant_guc,
    )
    desk = Desk(control, lambda: config().api_tokens, tenancy, storage)
    companions: list[Companion] = []
    if store is not None:
        metering = Metering(
            control.counts, store.record, lambda: config().process.usage_interval, fresh=fresh
        )
        companions = [metering, storage]
    return Http(desk, process.http_tls_cert_file, process.http_tls_key_file, companions)
