"""The views tell what is so: PgBouncer's columns by name, and the numbers of what runs now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests import rawclient
from tests.integration.running import column_names, configuration, table, waiting
from tests.integration.tables import with_cluster
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
        "name host port database force_user pool_size min_pool_size reserve_pool pool_mode max_connections"
        " current_connections paused disabled"
    ),
    "SOCKETS": (
        "type user database replication state addr port local_addr local_port connect_time request_time wait wait_us"
        " close_needed ptr link remote_pid tls application_name prepared_statements id recv_pos pkt_pos pkt_remain"
        " send_pos send_remain pkt_avail send_avail"
    ),
    "STATS_TOTALS": (
        "database server_assignment_count xact_count query_count bytes_received bytes_sent xact_time query_time wait_time"
    ),
    "STATS_AVERAGES": (
        "database server_assignment_count xact_count query_count bytes_received bytes_sent xact_time query_time wait_time"
    ),
    "TOTALS": "name value",
    "STATE": "key value",
    "STATS": (
        "database total_xact_count total_query_count total_received total_sent total_xact_time total_query_time"
        " total_wait_time avg_xact_count avg_query_count avg_recv avg_sent avg_xact_time avg_query_time avg_wait_time"
    ),
    "USERS": (
        "name pool_mode max_user_connections current_connections max_user_client_connections current_client_connections"
    ),
    "CONFIG": "key value default changeable",
    "LISTS": "list items",
    "PEERS": "peer_id host port pool_size",
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


def test_totals_and_averages_agree_with_stats(proxy: Proxy) -> None:
    for user in ("app@std_1", "app@vip_1"):
        client = proxy.raw(user)
        for _ in range(3):
            client.query("SELECT pg_sleep(0.01)")
    stats = proxy.console("SHOW STATS")
    totals, averages = proxy.console("SHOW STATS_TOTALS"), proxy.console("SHOW STATS_AVERAGES")
    whole = {str(row["name"]): int(row["value"] or 0) for row in proxy.console("SHOW TOTALS")}
    assert len(stats) == len(totals) == len(averages) == 2
    for row, total, average in zip(stats, totals, averages, strict=True):
        assert row["cluster"] == total["cluster"] == average["cluster"]
        for name in ("query_count", "xact_count", "server_assignment_count", "query_time"):
            assert row[f"total_{name}"] == total[name]
        assert (row["total_sent"], row["total_received"]) == (total["bytes_sent"], total["bytes_received"])
        assert int(total["query_count"] or 0) == 3
        assert int(average["query_time"] or 0) == int(row["avg_query_time"] or 0) > 9_000
    assert whole["total_query_count"] == 6
    assert whole["total_server_bytes"] == sum(int(row["total_sent"] or 0) for row in stats)
    assert whole["avg_query_time"] > 9_000
    assert set(whole) >= {"total_client_bytes", "avg_client_bytes", "avg_server_bytes"}


def test_averages_forget_what_is_older_than_the_period(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(all_tiers, stats_period="100ms")
    client = proxy.raw()
    client.query("SELECT repeat('x', 1000000)")
    assert only(proxy.console("SHOW STATS"))["total_query_count"] == "1"
    wait_until(lambda: only(proxy.console("SHOW STATS"))["avg_sent"] == "0")
    assert int(only(proxy.console("SHOW STATS"))["total_sent"] or 0) > 1_000_000


def as_pgbouncer(proxy: Proxy, command: str) -> list[dict[str, str | None]]:
    console = proxy.raw("admin", "pgbouncer", "admin-secret")
    return table(console.checked(console.query(command)))


def test_exporters_find_one_row_for_each_of_pgbouncers_keys(proxy: Proxy) -> None:
    clients = [proxy.raw(user) for user in ("app@std_1", "app@vip_1", "app@ent_1", "builder@std_2")]
    clients.append(proxy.raw(parameters={"ignore_system_indexes": "on"}))
    for client in clients[:-1]:
        client.query("BEGIN")
    clients[-1].send(rawclient.query("SELECT 1"))  # over the tenant's cap
    wait_until(lambda: only(as_pgbouncer(proxy, "SHOW POOLS"), user="app")["cl_waiting"] == "1")
    found = as_pgbouncer(proxy, "SHOW POOLS")
    assert [(row["database"], row["user"]) for row in found].count(("appdb", "app")) == 1
    app = only(found, user="app")
    assert (app["cl_active"], app["sv_active"], app["cluster"]) == ("3", "3", "ent, shared, vip-1")
    assert int(app["maxwait_us"] or 0) > 0
    for command in ("SHOW STATS", "SHOW STATS_TOTALS", "SHOW STATS_AVERAGES"):
        row = only(as_pgbouncer(proxy, command))
        assert row["database"] == "appdb"
    stats = only(as_pgbouncer(proxy, "SHOW STATS"))
    separate = proxy.console("SHOW STATS")
    assert len(separate) == 5
    for column in ("total_query_count", "total_sent", "total_server_assignment_count"):
        assert int(stats[column] or 0) == sum(int(row[column] or 0) for row in separate)


def test_sockets_and_state(proxy: Proxy) -> None:
    busy, idle = proxy.raw(), proxy.raw("app@vip_1")
    assert idle.value("SELECT 1") == "1"
    busy.query("BEGIN")
    replica = proxy.replicator()
    states = sorted(str(row["state"]) for row in proxy.console("SHOW SOCKETS"))
    assert states == ["cl_active", "cl_active", "cl_idle", "sv_active", "sv_active", "sv_idle"]
    active = proxy.console("SHOW ACTIVE_SOCKETS")
    assert sorted(str(row["state"]) for row in active) == ["cl_active", "cl_active", "sv_active", "sv_active"]
    walsender = only(active, type="S", replication="logical")
    client = only(active, type="C", replication="logical")
    assert (client["link"], walsender["link"]) == (walsender["ptr"], client["ptr"])
    assert walsender["remote_pid"] == str(replica.pid)
    assert only(proxy.console("SHOW CLIENTS"), replication="logical")["tenant"] == "ent_1"
    proxy.console(f"KILL CLIENT {client['ptr']}")
    replica.read_to_eof()

    def state() -> dict[str | None, str | None]:
        return {row["key"]: row["value"] for row in proxy.console("SHOW STATE")}

    assert state() == {"active": "yes", "paused": "no", "suspended": "no", "draining": "no"}
    busy.query("COMMIT")
    proxy.console("PAUSE")
    assert state() == {"active": "no", "paused": "yes", "suspended": "no", "draining": "no"}
    proxy.console("RESUME")


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


def test_the_queue_tells_who_is_next_and_why(start_proxy: StartProxy, all_tiers: Tables) -> None:
    tables = with_cluster(all_tiers, pool_size=2, max_connections=2)
    tables["tier.free"] = {"caps": {"guaranteed_connections": 1}, "cluster": "shared"}
    tables["tenant.std_2"] = tables["tenant.std_2"] | {"limits": {"max_connections": 1}}
    proxy = start_proxy(tables)
    holders = [proxy.raw(f"app@{tenant}") for tenant in ("std_2", "std_1")]
    for holder in holders:
        holder.query("BEGIN")
    clients = [proxy.raw(f"app@{tenant}") for tenant in ("std_2", "std_1", "std_1", "free_1")]
    for number, client in enumerate(clients, 1):
        client.send(rawclient.query("SELECT 1"))
        waiting(proxy, number)
    wait_until(lambda: only(proxy.console("SHOW QUEUE"), tenant="std_1")["owes_ms"] != "0")
    rows = proxy.console("SHOW QUEUE")
    assert [(row["place"], row["tenant"], row["waiting"]) for row in rows] == [
        ("1", "free_1", "1"), ("2", "std_1", "2"), (None, "std_2", "1"),
    ]  # fmt: skip
    assert rows[0]["why"] == "entitled: has 0 of 1 that are guaranteed"
    assert str(rows[1]["why"]).startswith("has used "), "it is charged while it goes on"
    assert int(rows[1]["owes_ms"] or 0) > 0
    assert rows[2]["why"] == "at its cap: tenant std_2 max_connections"
    own = [row["place"] for row in proxy.console("SHOW CLIENTS") if row["tenant"] == "std_1"]
    assert sorted(own, key=str) == ["1", "2", None]
    tenants = {row["name"]: row for row in proxy.console("SHOW TENANTS")}
    shares = [tenants["std_1"][f"share_{what}"] for what in ("asked", "due", "given")]
    assert shares == ["3", "0.8", "1"], "two of five weights, of two connections"
    tables["tenant.std_2"] = {key: value for key, value in tables["tenant.std_2"].items() if key != "limits"}
    tables["tier.free"] = {"caps": {"guaranteed_connections": 0}, "cluster": "shared", "weight": 4}
    proxy.reload(configuration(tables, listen_port=proxy.port))
    for client in holders:
        client.query("COMMIT")
    for client in clients:
        client.read_ready()
    assert proxy.console("SHOW QUEUE") == []
    told = {row["name"]: int(row["server_time"] or 0) for row in proxy.console("SHOW TENANTS")}
    assert told["std_1"] > told["free_1"] > 0
    assert told["vip_1"] == 0


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


def lists(proxy: Proxy) -> dict[str, int]:
    return {str(row["list"]): int(row["items"] or 0) for row in proxy.console("SHOW LISTS")}


def test_peers(start_proxy: StartProxy, all_tiers: Tables) -> None:
    peers = {"peers": {"2": "proxy2:6433", "1": "127.0.0.1"}}
    proxy = start_proxy(all_tiers | peers, peer_id=1)
    assert proxy.console("SHOW PEERS") == [
        {"peer_id": "1", "host": "127.0.0.1", "port": "6432", "pool_size": "0"},
        {"peer_id": "2", "host": "proxy2", "port": "6433", "pool_size": "0"},
    ]
    assert lists(proxy)["peers"] == 2


def test_lists_and_config(proxy: Proxy) -> None:
    client = proxy.raw()
    client.query("BEGIN")
    _logging_in = proxy.unnamed()
    wait_until(lambda: lists(proxy)["login_clients"] == 1)
    items = lists(proxy)
    assert (items["databases"], items["used_clients"], items["used_servers"], items["idle_servers"]) == (
        3,
        1,
        1,
        0,
    )
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
