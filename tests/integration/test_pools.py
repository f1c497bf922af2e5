"""Pools of server connections: who shares them, how long they live, what happens when servers do not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.integration.running import waiting
from tests.integration.servers import backends, connect
from tests.integration.tables import with_cluster
from tests.rawclient import SYNC, ServerError, ask, query, rows, sqlstates
from tests.waiting import wait_until

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy

Tables = dict[str, dict[str, Any]]
PID = "SELECT pg_backend_pid()"


def own(server: EmbeddedServer, **more: Any) -> Tables:
    """A configuration whose one cluster is `server`."""
    return {
        "cluster.shared": {"kind": "shared", "coordinators": [f"{server.host}:{server.port}"], **more},
        "tenant.std_1": {"tier": "standard"},
        "tenant.std_2": {"tier": "standard"},
        "user.app": {"tenants": "*"},
        "user.builder": {"tenants": "*"},
        "user.admin": {"password": "admin-secret", "tenants": "*"},
    }


def refused(proxy: Proxy, user: str = "app@std_1", **more: Any) -> dict[str, str]:
    with pytest.raises(ServerError) as error:
        proxy.raw(user, **more)
    return error.value.fields


# --- sharing ----------------------------------------------------------------------------------------


def test_tenants_of_a_shared_cluster_share_connections(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(all_tiers)
    assert proxy.console("SHOW POOLS") == []
    pids = {proxy.raw(f"app@{tenant}").value(PID) for tenant in ("std_1", "std_2", "free_1", "std_1")}
    assert len(pids) == 1
    assert [row["sv_idle"] for row in proxy.console("SHOW POOLS")] == ["1"]
    assert proxy.raw("other@std_1").value(PID) not in pids
    assert proxy.raw("postgres@std_1", "postgres").value(PID) not in pids
    assert len(proxy.console("SHOW POOLS")) == 3


def test_a_pool_goes_when_unused(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(all_tiers, server_idle_timeout="500ms", pool_idle_timeout="500ms")
    client = proxy.raw()
    client.value(PID)
    wait_until(lambda: not proxy.console("SHOW SERVERS"), what="idle connections closed")
    client.close()
    wait_until(lambda: not proxy.console("SHOW POOLS"), what="the pool forgotten")
    assert proxy.raw().value("SELECT 1") == "1"


def test_several_coordinators_are_spread_over(
    start_proxy: StartProxy, all_tiers: Tables, vip: EmbeddedServer, shared: EmbeddedServer
) -> None:
    both = [f"{server.host}:{server.port}" for server in (vip, shared)]
    proxy = start_proxy(with_cluster(all_tiers, coordinators=both, pool_size=6))
    clients = [proxy.raw() for _ in range(6)]
    for client in clients:
        client.query("BEGIN")
    names = [client.value("SELECT name FROM where_am_i") for client in clients]
    assert sorted(names) == ["shared"] * 3 + ["vip"] * 3  # type: ignore[type-var]


def test_a_dead_coordinator_is_skipped(
    start_proxy: StartProxy, all_tiers: Tables, shared: EmbeddedServer, victim: EmbeddedServer
) -> None:
    both = [f"{server.host}:{server.port}" for server in (victim, shared)]
    proxy = start_proxy(with_cluster(all_tiers, coordinators=both), server_login_retry="1s")
    proxy.raw().value("SELECT 1")
    victim.kill()
    wait_until(lambda: all(r["port"] != str(victim.port) for r in proxy.console("SHOW SERVERS")))
    clients = [proxy.raw() for _ in range(4)]
    for client in clients:
        client.query("BEGIN")
        assert client.value("SELECT name FROM where_am_i") == "shared"
    health = {row["endpoint"]: row["healthy"] for row in proxy.console("SHOW CLUSTERS")}
    assert health[f"{victim.host}:{victim.port}"] == "0"
    victim.start()
    more = [proxy.raw() for _ in range(6)]

    def back() -> bool:
        for client in more:
            client.query("BEGIN")
        homes = [client.value("SELECT inet_server_port()") for client in more]
        for client in more:
            client.query("ROLLBACK")
        proxy.console("RECONNECT")
        return str(victim.port) in homes

    wait_until(back, what="the coordinator to be used again")


# --- lives ------------------------------------------------------------------------------------------


def test_server_lifetime(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(all_tiers, server_lifetime="400ms")
    client = proxy.raw()
    pid = client.value(PID)
    assert client.value(PID) == pid
    wait_until(lambda: client.value(PID) != pid)
    client.query("BEGIN")
    within = client.value(PID)
    assert client.value("SELECT pg_backend_pid() FROM pg_sleep(0.8)") == within
    client.query("COMMIT")
    assert client.value(PID) != within


def test_min_pool_size(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(with_cluster(all_tiers, min_pool_size=3), server_idle_timeout="300ms")
    proxy.raw().value("SELECT 1")
    wait_until(lambda: [row["sv_idle"] for row in proxy.console("SHOW POOLS")] == ["3"])


def test_a_stale_connection_is_checked_first(
    start_proxy: StartProxy, all_tiers: Tables, shared: EmbeddedServer
) -> None:
    proxy = start_proxy(all_tiers, server_check_delay="100ms")
    client = proxy.raw()
    pid = client.value(PID)
    assert client.nothing_to_read(0.3)
    assert client.value(PID) == pid
    shared.sql(f"SELECT pg_terminate_backend({pid})")
    wait_until(lambda: not proxy.console("SHOW SERVERS"))
    assert client.value(PID) != pid


# --- modes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["proxy", "tier", "tenant", "cluster", "user"])
def test_where_the_pool_mode_may_stand(start_proxy: StartProxy, all_tiers: Tables, place: str) -> None:
    tables, more = dict(all_tiers), {}
    said: dict[str, Any] = {"pool_mode": "session"}
    if place == "proxy":
        more = said
    elif place == "tier":
        tables["tier.standard"] = said
    else:
        table = {"tenant": "tenant.std_1", "cluster": "cluster.shared", "user": "user.app"}[place]
        tables[table] = tables[table] | said
    proxy = start_proxy(tables, **more)
    one, two = proxy.raw(), proxy.raw()
    assert one.value(PID) != two.value(PID), "a connection each"
    assert one.value(PID) == str(one.pid)


def test_statement_mode(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(all_tiers, pool_mode="statement")
    client = proxy.raw()
    for text in ("BEGIN", "START TRANSACTION", "begin; SELECT 1", "/* x */ BEGIN"):
        assert sqlstates(client.query(text)) == ["0A000"]
        assert client.status == "I"
        assert sqlstates(client.ask(ask(text.partition(";")[0]) + SYNC)) == ["0A000"]
    assert client.value("SELECT 1") == "1"
    assert client.prepared("SELECT 2") == [["2"]]


# --- what PostgreSQL says ---------------------------------------------------------------------------


def test_missing_database_and_bad_parameters(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(all_tiers)
    began = time.monotonic()
    fields = refused(proxy, database="nowhere")
    assert (fields["C"], fields["M"]) == ("3D000", 'database "nowhere" does not exist')
    for parameters, sqlstate in (
        ({"options": "-c work_mem=much"}, "22023"),
        ({"options": "-c no_such_parameter=1"}, "42704"),
        ({"DateStyle": "nonsense"}, "22023"),
        ({"options": "-c max_connections=5"}, "55P02"),
    ):
        fields = refused(proxy, parameters=parameters)
        assert (fields["S"], fields["C"]) == ("FATAL", sqlstate)
    assert time.monotonic() - began < 12, "at once, no retry"
    assert proxy.raw().value("SELECT 1") == "1"


# --- servers that are down --------------------------------------------------------------------------


def test_server_down_and_up_again(start_proxy: StartProxy, victim: EmbeddedServer) -> None:
    proxy = start_proxy(own(victim), server_login_retry="1.2s")
    client = proxy.raw()
    client.value("SELECT 1")
    victim.kill()
    wait_until(lambda: not proxy.console("SHOW SERVERS"))
    began = time.monotonic()
    for _ in range(5):
        assert sqlstates(client.query("SELECT 1")) == ["57P03"]
        assert client.status == "I"
    assert sqlstates(client.ask(ask("SELECT 1") + SYNC)) == ["57P03"]
    assert time.monotonic() - began < 6, "fails at once"
    assert refused(proxy, parameters={"application_name": "new"})["C"] == "57P03"
    victim.start()
    wait_until(lambda: sqlstates(client.query("SELECT 1")) == [], what="the same session to work again")


def test_in_a_transaction_the_loss_is_said(start_proxy: StartProxy, victim: EmbeddedServer) -> None:
    proxy = start_proxy(own(victim))
    client, idle = proxy.raw(), proxy.raw("app@std_2")
    client.query("BEGIN")
    pid = client.value(PID)
    victim.sql(f"SELECT pg_terminate_backend({pid})")
    frames = client.read_to_eof()
    assert sqlstates(frames) == ["57P01"]
    assert idle.value("SELECT 1") == "1"


def test_those_who_wait_hear_the_servers_own_error(start_proxy: StartProxy, victim: EmbeddedServer) -> None:
    proxy = start_proxy(own(victim), server_login_retry="300ms")
    one, two = proxy.raw(), proxy.raw()
    one.query("BEGIN")
    victim.sql("ALTER ROLE app CONNECTION LIMIT 1")
    two.send(query("SELECT 2"))
    # The first holds the only connection there may be: the second waits for it.
    assert two.nothing_to_read(0.3)
    one.query("COMMIT")
    assert rows(two.read_ready()) == [["2"]]
    victim.sql("ALTER ROLE app NOLOGIN")
    proxy.console("RECONNECT")
    answer = wait_until(lambda: sqlstates(two.query("SELECT 3")))
    assert answer == ["28000"]
    victim.sql("ALTER ROLE app LOGIN CONNECTION LIMIT -1")
    wait_until(lambda: not sqlstates(two.query("SELECT 3")))


# --- databases --------------------------------------------------------------------------------------


@pytest.mark.parametrize("extended", [False, True])
def test_idle_connections_are_not_in_the_way_of_databases(
    start_proxy: StartProxy, shared: EmbeddedServer, extended: bool
) -> None:
    name = f"made_{int(extended)}"
    proxy = start_proxy(own(shared))

    def run(text: str) -> list[str]:
        return sqlstates(builder.ask(ask(text) + SYNC) if extended else builder.query(text))

    builder = proxy.raw("builder@std_1", "postgres")
    assert run(f"CREATE DATABASE {name}") == []
    proxy.raw("builder@std_1", name).value("SELECT 1")
    proxy.raw("app@std_1", name).value("SELECT 1")
    assert backends(shared, f"datname = '{name}'") == 2
    assert run(f"CREATE DATABASE {name}_copy TEMPLATE {name}") == []
    proxy.raw("app@std_1", f"{name}_copy").value("SELECT 1")
    assert run(f"DROP DATABASE {name}_copy") == []
    proxy.raw("app@std_2", name).value("SELECT 1")
    assert run(f"ALTER DATABASE {name} RENAME TO {name}_renamed") == []
    assert run(f"DROP DATABASE {name}_renamed") == []


# --- operators --------------------------------------------------------------------------------------


def test_pause_and_resume(start_proxy: StartProxy, all_tiers: Tables, shared: EmbeddedServer) -> None:
    proxy = start_proxy(all_tiers)
    client, elsewhere = proxy.raw(), proxy.raw("app@vip_1")
    client.value(PID)
    proxy.console("PAUSE shared")
    wait_until(lambda: not backends(shared, "usename = 'app'"))
    client.send(query("SELECT 'later'"))
    waiting(proxy, 1)
    assert client.nothing_to_read(0.1)
    assert elsewhere.value("SELECT 1") == "1"
    proxy.console("RESUME shared")
    assert rows(client.read_ready()) == [["later"]]
    with pytest.raises(ServerError):
        proxy.console("RESUME shared")
    with pytest.raises(ServerError):
        proxy.console("PAUSE nowhere")


def test_reconnect(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(all_tiers)
    client, busy = proxy.raw(), proxy.raw()
    busy.query("BEGIN")
    held = busy.value(PID)
    pid = client.value(PID)
    proxy.console("RECONNECT")
    assert client.value(PID) != pid
    assert busy.value(PID) == held
    busy.query("COMMIT")
    assert busy.value(PID) != held


def test_kill(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(all_tiers)
    mine, other = proxy.raw(), proxy.raw("app@std_2")
    mine.query("BEGIN")
    proxy.console("KILL std_1")
    assert sqlstates(mine.read_to_eof()) == ["57P01"]
    assert other.value("SELECT 1") == "1"
    proxy.console("KILL shared")
    assert sqlstates(other.read_to_eof()) == ["57P01"]


def test_disable_and_enable(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(all_tiers)
    mine, other = proxy.raw(), proxy.raw("app@std_2")
    proxy.console("DISABLE std_1")
    assert refused(proxy)["C"] in ("28000", "57P01")
    assert sqlstates(mine.read_to_eof()) == ["57P01"]
    assert other.value("SELECT 1") == "1"
    proxy.console("ENABLE std_1")
    assert proxy.raw().value("SELECT 1") == "1"
    proxy.console("DISABLE shared")
    assert refused(proxy, "app@free_1")["C"] == "57P03"
    proxy.console("ENABLE shared")
    assert proxy.raw("app@free_1").value("SELECT 1") == "1"


def test_reload_keeps_sessions(start_proxy: StartProxy, all_tiers: Tables) -> None:
    from tests.integration.running import configuration

    proxy = start_proxy(with_cluster(all_tiers, pool_size=1))
    one, two = proxy.raw(), proxy.raw()
    one.query("BEGIN")
    two.send(query("SELECT 'waited'"))
    waiting(proxy, 1)
    proxy.reload(configuration(with_cluster(all_tiers, pool_size=2), listen_port=proxy.port))
    assert rows(two.read_ready()) == [["waited"]]
    assert one.value("SELECT 1") == "1"
    one.query("COMMIT")
    proxy.console("RELOAD")
    assert one.value("SELECT 2") == "2"


def test_direct_and_through_the_proxy_agree(
    start_proxy: StartProxy, all_tiers: Tables, shared: EmbeddedServer
) -> None:
    proxy = start_proxy(all_tiers)
    with connect(shared, user="app") as direct, proxy.connect() as through:
        for name in ("server_version", "server_encoding", "client_encoding", "TimeZone", "integer_datetimes"):
            assert through.info.parameter_status(name) == direct.info.parameter_status(name)
    with pytest.raises(psycopg.OperationalError):
        proxy.connect("app@std_1", "nowhere")
