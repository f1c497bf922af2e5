"""The demo's servers: a primary with a replica, a VIP shard and a shared cluster, with tenants and their data."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from proxy.cli.embedded import EmbeddedServer

DATABASE = "erp"
APP_PASSWORD = "app-secret"  # noqa: S105
SHOPS = tuple(f"shop{n}" for n in range(1, 9))
# Where each tenant lives; the marker table of that server says the same name.
HOMES = {
    "acme": "acme",
    "globex": "vip-1",
    "initech": "vip-1",
    **dict.fromkeys((*SHOPS, "capped", "slow", "trial1"), "shared"),
}

_SERVER_SETTINGS = {
    "max_connections": "60",
    "shared_buffers": "32MB",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_wal_senders": "4",
}
_HBA = ("host all all 127.0.0.1/32 scram-sha-256", "local all all scram-sha-256")
_ROLE = f"CREATE ROLE app LOGIN NOSUPERUSER NOBYPASSRLS PASSWORD '{APP_PASSWORD}'"


@dataclass(frozen=True)
class Servers:
    acme: EmbeddedServer
    replica: EmbeddedServer
    vip: EmbeddedServer
    shared: EmbeddedServer


@contextlib.asynccontextmanager
async def running_servers(home: Path) -> AsyncIterator[Servers]:
    """Started side by side. A replica is made anew: an old one looks for its primary where that was."""
    started: dict[str, EmbeddedServer] = {}

    def primary(name: str, *, shared: bool) -> EmbeddedServer:
        server = EmbeddedServer(home / name, settings=_SERVER_SETTINGS, hba=_HBA)
        started[name] = server.start()
        _seed(server, name, shared=shared)
        return server

    def acme_with_replica() -> None:
        acme = primary("acme", shared=False)
        shutil.rmtree(home / "acme-replica", ignore_errors=True)
        started["acme-replica"] = acme.base_backup(home / "acme-replica")

    starting = [
        asyncio.ensure_future(asyncio.to_thread(acme_with_replica)),
        asyncio.ensure_future(asyncio.to_thread(primary, "vip-1", shared=True)),
        asyncio.ensure_future(asyncio.to_thread(primary, "shared", shared=True)),
    ]
    try:
        await asyncio.shield(asyncio.gather(*starting))
        acme, replica, vip, shared = (started[name] for name in ("acme", "acme-replica", "vip-1", "shared"))
        yield Servers(acme, replica, vip, shared)
    finally:
        # Interrupted or failed: a thread that is starting a server cannot be stopped, so it ends first.
        await asyncio.wait(starting)
        for server in reversed(started.values()):
            await asyncio.to_thread(server.stop)


def _seed(server: EmbeddedServer, name: str, *, shared: bool) -> None:
    if (DATABASE,) in server.sql("SELECT datname FROM pg_database"):
        return
    tenants = ",".join(tenant for tenant, home in HOMES.items() if home == name)
    said = {"cluster": name, "tenants": tenants, "shared": "on" if shared else "off"}
    settings_sql = "".join(
        f"SELECT set_config('demo.{key}', '{value}', false);" for key, value in said.items()
    )
    # Under another name until it is whole: what a demo that was interrupted left is not taken for seeded.
    server.sql("DROP DATABASE IF EXISTS seeding")
    server.sql("DROP ROLE IF EXISTS app")
    server.sql(_ROLE)
    server.sql("CREATE DATABASE seeding")
    server.sql(settings_sql + files("proxy.cli").joinpath("demo.sql").read_text(), "seeding")
    server.sql(f"ALTER DATABASE seeding RENAME TO {DATABASE}")
