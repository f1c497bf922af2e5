"""What administrators do by HTTP reaches those who are connected: API, registry and proxy, all of them real."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from proxy.cli.embedded import free_port
from tests.cli.running import Serve, serving
from tests.control.api import calling
from tests.control.api.calling import call
from tests.integration.running import Proxy, configuration
from tests.rawclient import RawClient, ServerError, error_fields
from tests.waiting import wait_until

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy

WHERE = "SELECT name FROM where_am_i"
SOON = 4.0  # also on a busy machine; without being told it would ask again after five seconds, or minutes
Tables = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def dsn(shared: EmbeddedServer) -> Iterator[str]:
    with calling.registry(shared) as found:
        yield found


@pytest.fixture(scope="module")
def tables(shared: EmbeddedServer, vip: EmbeddedServer) -> Tables:
    vip_1 = {"kind": "vip", "coordinators": [f"{vip.host}:{vip.port}"]}
    return calling.tables(shared) | {"cluster.vip-1": vip_1}


@pytest.fixture(scope="module")
def proxy(start_module_proxy: StartProxy, tables: Tables, dsn: str) -> Proxy:
    return start_module_proxy(tables, registry_dsn=dsn, http_addr=f"127.0.0.1:{free_port()}")


def create(proxy: Proxy | Serve, code: str, **said: Any) -> None:
    body = {"tenant_code": code, "tenant_name": code, "tier": "standard", **said}
    answer = call(proxy, "POST", "/v1/tenants", json=body)
    assert answer.status_code == 201, answer.text


def change(proxy: Proxy, path: str, method: str = "POST", **said: Any) -> None:
    answer = call(proxy, method, f"/v1/tenants/{path}", json=said or None, headers={"If-Match": "*"})
    assert answer.status_code in (200, 204), answer.text


def login(proxy: Proxy | Serve, user: str) -> str:
    """The server it came to, or the SQLSTATE of the refusal."""
    with RawClient(proxy.port) as client:
        try:
            return str(client.log_in(user, "appdb", "app-secret").value(WHERE))
        except ServerError as error:
            return error.sqlstate


def test_the_life_of_a_tenant_as_its_clients_see_it(proxy: Proxy) -> None:
    assert login(proxy, "app@acme") == "3D000"
    create(proxy, "acme")
    wait_until(lambda: login(proxy, "app@acme") == "shared", SOON)
    client = proxy.raw("app@acme")
    change(proxy, "acme/tier", tier="vip")
    wait_until(lambda: client.value(WHERE) == "vip", SOON)
    change(proxy, "acme", "PATCH", query_timeout_ms=50)
    wait_until(lambda: "57014" in sleep(client), SOON)
    change(proxy, "acme/suspend")
    told = error_fields(next(frame.body for frame in client.read_to_eof() if frame.kind == "E"))
    assert (told["C"], "suspended" in told["M"]) == ("57P01", True)
    assert login(proxy, "app@acme") == "28000"
    change(proxy, "acme/resume")
    wait_until(lambda: login(proxy, "app@acme") == "vip", SOON)
    change(proxy, "acme", "DELETE")
    wait_until(lambda: login(proxy, "app@acme") == "3D000", SOON)


def sleep(client: RawClient) -> str:
    return str(client.query("SELECT pg_sleep(0.3)"))


def test_of_tenants_that_nobody_has_asked_for_yet(proxy: Proxy) -> None:
    create(proxy, "quiet", tier="vip")
    steps = call(proxy, "GET", "/v1/tenants/quiet/route", "viewer").json()["items"]
    assert {step["step"]: step["value"] for step in steps}["cluster"] == "vip-1"
    assert call(proxy, "POST", "/v1/tenants/quiet/kill", "operator").status_code == 200
    assert call(proxy, "GET", "/v1/tenants/nobody/route", "viewer").status_code == 404


def test_with_several_workers(tables: Tables, dsn: str, tmp_path: Path) -> None:
    config = tmp_path / "tiergate.toml"
    config.write_text(
        configuration(
            tables,
            registry_dsn=dsn,
            http_addr=f"127.0.0.1:{free_port()}",
            workers=2,
            log_format="json",
            log_level="info",
            usage_interval="1h",
        )
    )
    with serving(config) as proxy:
        create(proxy, "many")
        wait_until(lambda: login(proxy, "app@many") == "shared", SOON)
        assert len(call(proxy, "GET", "/v1/workers").json()["items"]) == 2
        steps = call(proxy, "GET", "/v1/tenants/many/route", "viewer").json()["items"]
        assert {step["step"]: step["value"] for step in steps}["cluster"] == "shared"
        clients = [RawClient(proxy.port).log_in("app@many", "appdb", "app-secret") for _ in range(4)]
        shown = call(proxy, "GET", "/v1/clients").json()["items"]
        assert len([row for row in shown if row["tenant"] == "many"]) == 4
        (active,) = [
            row for row in call(proxy, "GET", "/v1/activity").json()["items"] if row["name"] == "many"
        ]
        assert active["clients"] == 4
        ptr = next(row["ptr"] for row in shown if row["tenant"] == "many")
        assert call(proxy, "DELETE", f"/v1/clients/{ptr}", "operator").status_code == 200
        assert call(proxy, "POST", "/v1/tenants/many/kill", "operator").status_code == 200
        for client in clients:
            client.read_to_eof()
            client.close()
        assert call(proxy, "POST", "/v1/clusters/shared/pause", "operator").status_code == 200
        assert call(proxy, "POST", "/v1/clusters/shared/resume", "operator").status_code == 200
        assert call(proxy, "POST", "/v1/reload", "operator").json()["needs_restart"] == []
        use(proxy, 3)
        proxy.signal(signal.SIGUSR2)
        proxy.event("upgraded")
        assert counted(proxy) == 4  # with the first login's
        use(proxy, 2)
        assert call(proxy, "POST", "/v1/drain", "operator").status_code == 202
        assert proxy.wait() == 0
    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            "SELECT sum(db_query_count) FROM tenant_metrics_daily JOIN tenant_registry USING (tenant_id)"
            " WHERE tenant_code = 'many'"
        ).fetchone()
    assert found == (6,)


def use(proxy: Serve, times: int) -> None:
    with RawClient(proxy.port) as client:
        client.log_in("app@many", "appdb", "app-secret")
        for _ in range(times):
            client.query("SELECT 1")


def counted(proxy: Serve) -> int:
    items = call(proxy, "GET", "/v1/tenants/many/usage", "viewer").json()["items"]
    return sum(int(day["db_query_count"]) for day in items)
