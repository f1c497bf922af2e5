"""Texts beyond what can be held and parsed: they pass in pieces, and cannot speak for another tenant."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from proxy.wire import encode
from tests.integration import servers

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.integration.running import Proxy

PADDING = b"/*" + b"x" * 1_500_000 + b"*/ "


@pytest.fixture
def proxy(shared: EmbeddedServer, start_proxy: Callable[..., Proxy]) -> Proxy:
    return start_proxy(
        {
            "cluster.shared": {"kind": "shared", "coordinators": [f"{shared.host}:{shared.port}"]},
            "tenant.std_1": {"tier": "standard"},
            "tenant.std_2": {"tier": "standard"},
            "user.app": {"password": servers.APP_PASSWORD, "auth_type": "trust", "tenants": "*"},
        }
    )


@pytest.mark.parametrize(
    "text", [b"SET app.tenant_id = 'std_2'", b"SELECT set_config('app.' || 'x', 'y', false)"]
)
@pytest.mark.parametrize("kind", ["simple", "extended"])
def test_a_change_of_tenant_behind_a_megabyte_is_refused(proxy: Proxy, text: bytes, kind: str) -> None:
    client = proxy.raw(user="app@std_1")
    if kind == "simple":
        client.send(encode.query(PADDING + text))
    else:
        client.send(
            encode.parse(b"", PADDING + text) + encode.bind(b"", b"", []) + encode.execute() + encode.SYNC
        )
    answer = client.read_to_eof()
    assert answer[-1].kind == "E"
    assert b"VFATAL\0C42501\0" in answer[-1].body


def test_a_long_text_without_it_runs(proxy: Proxy) -> None:
    client = proxy.raw(user="app@std_1")
    client.send(encode.query(PADDING + b"SELECT current_setting('app' || '.' || 'tenant' || '_id')"))
    answer = client.read_ready()
    assert [frame.kind for frame in answer] == ["T", "D", "C", "Z"]
    assert b"std_1" in answer[1].body
