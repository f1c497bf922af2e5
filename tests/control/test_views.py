"""The views tell what is so: PgBouncer's columns by name, and the numbers of what runs now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests import rawclient
from tests.integration.running import column_names
from tests.rawclient import ServerError
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy

Tables = dict[str, dict[str, Any]]

PGBOUNCER = {
    "POOLS": (
        "database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active sv_active_cancel"
        " sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait maxwait_us pool_mode"
    ),
    "CLIENTS": (
        "type user database state addr port local_addr local_port connect_time request_time wait wait_us close_needed"
        " ptr link remote_pid tls application_name prepared_statements id"
    ),
    "SERVERS": (
        "type user database state addr port local_addr local_port connect_time request_time wait wait_us close_needed"
        " ptr link remote_pid tls application_name prepared_statements id"
    ),
    "DATABASES": (
        "name host port database force_user pool_size pool_mode max_connections current_connections paused disabled"
    ),
    "STATS": (
        "database total_xact_count total_query_count total_received total_sent total_xact_time total_query_time"
        " total_wait_time avg_xact_count avg_query_count avg_recv avg_sent avg_xact_time avg_query_time avg_wait_time"
    ),
    "USERS": (
        "name pool_mode max_user_connections current_connections max_user_client_connections current_client_connections"
    ),
    "CONFIG": "key value default changeable",
    "LISTS": "list items",
    "VERSION": "version",
}  # fmt: skip


@pytest.fixture
def proxy(start_proxy: StartProxy, all_tiers: Tables) -> Proxy:
    tiers = {"tier.standard.limits": {"max_connections": 1}}
    return start_proxy(all_tiers | tiers, default_pool_size=3)


def only(rows: list[dict[str, str | None]], **where: str) -> dict[str, str | None]:
    found = [row for row in rows if all(row[key] == value for key, value in where.items())]
    assert len(found) == 1, rows
    return found[0]


@pytest.mark.parametrize("view", PGBOUNCER)
def test_pgbouncers_columns_are_there_in_its_order(
    start_proxy: StartProxy, all_tiers: Tables, view: str
) -> None:
    proxy = start_proxy(all_tiers)
    client = proxy.raw("admin", "tiergate", "admin-secret")
    description = next(f for f in client.query(f"SHOW {view}") if f.kind == "T")
    names = column_names(description.body)
    assert [name for name in names if name in PGBOUNCER[view].split()] == PGBOUNCER[view].split()


def test_pools_clients_and_servers_agree(proxy: Proxy) -> None:
    client = proxy.raw(parameters={"application_name": "views"})
    client.query("BEGIN")
    pool = only(proxy.console("SHOW POOLS"), user="app")
    assert (pool["database"], pool["cluster"], pool["pool_mode"]) == ("appdb", "shared", "transaction")
    assert (pool["cl_active"], pool["cl_waiting"], pool["sv_active"], pool["sv_idle"]) == ("1", "0", "1", "0")
    shown, server = only(proxy.console("SHOW CLIENTS")), only(proxy.console("SHOW SERVERS"))
    assert (shown["type"], server["type"]) == ("C", "S")
    assert (shown["state"], server["state"]) == ("active", "active")
    assert (shown["link"], server["link"]) == (server["ptr"], shown["ptr"])
    assert shown["application_name"] == "views"
    assert (shown["tenant"], shown["tier"], server["tenant"]) == ("std_1", "standard", "std_1")
    assert server["remote_pid"] == client.value("SELECT pg_backend_pid()")
    assert shown["addr"] == "127.0.0.1"
    assert shown["port"] == str(client.sock.getsockname()[1])
    client.query("COMMIT")
    pool = only(proxy.console("SHOW POOLS"), user="app")
    assert (pool["sv_active"], pool["sv_idle"]) == ("0", "1")
    assert only(proxy.console("SHOW SERVERS"))["link"] == ""


def test_who_waits_is_seen(proxy: Proxy) -> None:
    first, second = proxy.raw(), proxy.raw()
    first.query("BEGIN")
    second.send(rawclient.query("SELECT 1"))
    wait_until(lambda: only(proxy.console("SHOW POOLS"), user="app")["cl_waiting"] == "1")
    pool = only(proxy.console("SHOW POOLS"), user="app")
    assert (pool["cl_active"], pool["sv_active"]) == ("1", "1")
    assert int(pool["maxwait_us"] or 0) + int(pool["maxwait"] or 0) > 0
    assert only(proxy.console("SHOW CLIENTS"), state="waiting")["tenant"] == "std_1"
    assert only(proxy.console("SHOW TENANTS"), name="std_1")["waiting"] == "1"
    first.query("COMMIT")
    second.read_ready()
    tenant = only(proxy.console("SHOW TENANTS"), name="std_1")
    assert (tenant["clients"], tenant["waiting"], tenant["max_connections"]) == ("2", "0", "1")


def test_stats_count_queries_and_transactions(proxy: Proxy) -> None:
    client = proxy.raw()
    client.query("SELECT 1")
    before = only(proxy.console("SHOW STATS"), user="app")
    client.query("BEGIN")
    client.query("SELECT repeat('x', 100000)")
    client.query("COMMIT")
    after = only(proxy.console("SHOW STATS"), user="app")

    def grown(column: str) -> int:
        return int(after[column] or 0) - int(before[column] or 0)

    assert (grown("total_xact_count"), grown("total_query_count")) == (1, 3)
    assert grown("total_server_assignment_count") == 1
    assert 100_000 < grown("total_sent") < 110_000
    assert 30 < grown("total_received") < 200
    assert grown("total_xact_time") > 0


def test_tenants_count_errors(proxy: Proxy) -> None:
    client = proxy.raw("app@vip_1")
    client.query("SELECT 1/0")
    tenant = only(proxy.console("SHOW TENANTS"), name="vip_1")
    assert (tenant["errors"], tenant["queries"], tenant["tier"], tenant["cluster"]) == (
        "1",
        "1",
        "vip",
        "vip-1",
    )


def test_clusters_databases_tiers_and_users(proxy: Proxy) -> None:
    proxy.raw().value("SELECT 1")
    cluster = only(proxy.console("SHOW CLUSTERS"), name="shared")
    assert (cluster["kind"], cluster["role"], cluster["healthy"]) == ("shared", "coordinator", "1")
    assert cluster["connections"] == "1"
    database = only(proxy.console("SHOW DATABASES"), name="shared")
    assert f"{database['host']}:{database['port']}" == cluster["endpoint"]
    assert (database["current_connections"], database["paused"], database["disabled"]) == ("1", "0", "0")
    tier = only(proxy.console("SHOW TIERS"), name="standard")
    assert (tier["tenants"], tier["clients"], tier["tenant_max_connections"]) == ("2", "1", "1")
    assert only(proxy.console("SHOW USERS"), name="other")["tenants"] == "std_1"
    assert only(proxy.console("SHOW USERS"), name="app")["tenants"] == "*"


def test_lists_and_config(proxy: Proxy) -> None:
    items = {row["list"]: row["items"] for row in proxy.console("SHOW LISTS")}
    assert items["databases"] == "3"
    config = {row["key"]: row for row in proxy.console("SHOW CONFIG")}
    assert config["default_pool_size"]["value"] == "3"
    assert config["default_pool_size"]["default"] == "20"
    assert config["listen_port"]["changeable"] == "no"
    assert not any("secret" in str(row) for row in config.values())


def test_route_says_what_would_happen_and_why(proxy: Proxy) -> None:
    steps = proxy.console("SHOW ROUTE vip_1 USER app DATABASE appdb")
    said = {row["step"]: row["value"] for row in steps}
    assert said["tenant"] == "vip_1"
    assert said["tier"] == "vip"
    assert said["cluster"] == "vip-1"
    assert all(row["reason"] for row in steps)
    proxy.console("DISABLE vip-1")
    assert any(row["step"] == "refused" for row in proxy.console("SHOW ROUTE vip_1"))
    with pytest.raises(ServerError) as unknown:
        proxy.console("SHOW ROUTE nobody")
    assert unknown.value.sqlstate == "22023"
