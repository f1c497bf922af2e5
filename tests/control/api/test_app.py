"""The HTTP face: health, readiness, the scrape, and a port that is taken."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.cli.embedded import free_port
from proxy.errors import ConfigError
from tests import rawclient
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy

Tables = dict[str, dict[str, Any]]


@pytest.fixture
def proxy(start_proxy: StartProxy, all_tiers: Tables) -> Proxy:
    return start_proxy(all_tiers, http_addr=f"127.0.0.1:{free_port()}")


def get(proxy: Proxy, path: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{proxy.http_port}{path}", timeout=10, verify=False, trust_env=False)


def test_healthy_and_ready(proxy: Proxy) -> None:
    assert get(proxy, "/healthz").status_code == 200
    for path in ("/healthz", "/readyz"):  # as load balancers like to ask
        answer = httpx.head(f"http://127.0.0.1:{proxy.http_port}{path}", timeout=10, trust_env=False)
        assert (answer.status_code, answer.content) == (200, b"")
    ready = get(proxy, "/readyz")
    assert (ready.status_code, ready.json()) == (
        200,
        {"status": "ready", "problems": [], "warnings": []},
    )
    assert get(proxy, "/nothing").status_code == 404


def test_the_scrape_parses(proxy: Proxy) -> None:
    proxy.raw().query("SELECT 1")
    answer = get(proxy, "/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    names = {s.name for family in text_string_to_metric_families(answer.text) for s in family.samples}
    assert {"db_query_count", "tenant_active_connections", "tiergate_servers"} <= names


def test_not_ready_while_draining_but_still_healthy(proxy: Proxy) -> None:
    client = proxy.raw()
    client.query("BEGIN")
    draining = asyncio.run_coroutine_threadsafe(proxy.worker.drain(20), proxy._loop)
    wait_until(lambda: get(proxy, "/readyz").status_code == 503)
    assert get(proxy, "/readyz").json()["problems"] == ["draining"]
    assert get(proxy, "/healthz").status_code == 200
    client.send(rawclient.query("COMMIT"))
    client.read_to_eof()
    assert draining.result(20) is True


def test_not_ready_without_a_healthy_endpoint(start_proxy: StartProxy) -> None:
    tables: Tables = {
        "cluster.shared": {"kind": "shared", "primary": f"127.0.0.1:{free_port()}"},
        "tenant.std_1": {"tier": "standard"},
        "user.app": {"password": "app-secret", "tenants": "*"},
        "user.admin": {"password": "admin-secret"},
    }
    proxy = start_proxy(tables, http_addr=f"127.0.0.1:{free_port()}")
    assert get(proxy, "/readyz").status_code == 200
    with pytest.raises(rawclient.ServerError) as refused:
        proxy.raw()
    assert refused.value.sqlstate in ("08006", "57P03")
    assert get(proxy, "/readyz").status_code == 503
    assert get(proxy, "/healthz").status_code == 200


def test_a_port_that_is_taken(start_proxy: StartProxy, all_tiers: Tables) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot listen on 127\.0\.0\.1:{port} \(http_addr\)"):
            start_proxy(all_tiers, http_addr=f"127.0.0.1:{port}")
