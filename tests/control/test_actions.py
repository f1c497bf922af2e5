"""What operators do takes effect, on whom it is meant for and on nobody else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests import rawclient
from tests.integration.servers import backends, connect
from tests.rawclient import ServerError, errors, sqlstates
from tests.waiting import wait_until

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy

Tables = dict[str, dict[str, Any]]


@pytest.fixture
def proxy(start_proxy: StartProxy, all_tiers: Tables) -> Proxy:
    return start_proxy(all_tiers)


def failure(proxy: Proxy, command: str) -> str:
    with pytest.raises(ServerError) as refused:
        proxy.console(command)
    return refused.value.sqlstate


def test_pause_waits_for_transactions_and_holds_new_ones_until_resume(proxy: Proxy) -> None:
    busy, other, elsewhere = proxy.raw(), proxy.raw(), proxy.raw("app@vip_1")
    busy.query("BEGIN")
    console = proxy.raw("admin", "tiergate", "admin-secret")
    console.send(rawclient.query("PAUSE shared"))
    wait_until(lambda: proxy.call(lambda: proxy.worker.pools.paused("shared")))
    other.send(rawclient.query("SELECT 2"))
    assert console.nothing_to_read(0.1)
    assert busy.value("SELECT 1") == "1"
    busy.query("COMMIT")
    assert rawclient.kinds(console.read_ready()) == "CZ"
    assert elsewhere.value("SELECT 3") == "3"
    assert other.nothing_to_read(0.1)
    proxy.console("RESUME shared")
    assert rawclient.rows(other.read_ready()) == [["2"]]
    assert failure(proxy, "RESUME shared") == "22023"


def test_pause_of_all_is_ended_by_resume(proxy: Proxy) -> None:
    proxy.console("PAUSE")
    assert {row["paused"] for row in proxy.console("SHOW DATABASES")} == {"1"}
    proxy.console("RESUME")
    assert {row["paused"] for row in proxy.console("SHOW DATABASES")} == {"0"}
    assert proxy.raw("app@vip_1").value("SELECT 1") == "1"
    assert failure(proxy, "RESUME") == "22023"


def test_reconnect_replaces_connections_when_they_are_free(proxy: Proxy) -> None:
    client = proxy.raw()
    before = client.value("SELECT pg_backend_pid()")
    client.query("BEGIN")
    proxy.console("RECONNECT shared")
    assert client.value("SELECT pg_backend_pid()") == before
    client.query("COMMIT")
    assert client.value("SELECT pg_backend_pid()") != before


def test_wait_close_answers_when_those_told_to_go_are_gone(proxy: Proxy) -> None:
    client = proxy.raw()
    client.query("BEGIN")
    proxy.console("RECONNECT")
    console = proxy.raw("admin", "tiergate", "admin-secret")
    proxy.console("WAIT_CLOSE vip-1")
    console.send(rawclient.query("WAIT_CLOSE shared"))
    assert console.nothing_to_read(0.1)
    client.query("COMMIT")
    assert rawclient.kinds(console.read_ready()) == "CZ"
    proxy.console("WAIT_CLOSE")


def test_kill_ends_a_tenants_sessions_only(proxy: Proxy) -> None:
    mine, other = proxy.raw("app@std_1"), proxy.raw("app@std_2")
    mine.query("BEGIN")
    proxy.console("KILL std_1")
    frames = mine.read_to_eof()
    assert (sqlstates(frames), errors(frames)[0]["S"]) == (["57P01"], "FATAL")
    assert other.value("SELECT 1") == "1"
    assert proxy.raw("app@std_1").value("SELECT 1") == "1"


@pytest.mark.parametrize(("command", "column"), [("KILL_CLIENT", "id"), ("kill client", "ptr")])
def test_kill_one_client(proxy: Proxy, command: str, column: str) -> None:
    client = proxy.raw()
    (row,) = proxy.console("SHOW CLIENTS")
    proxy.console(f"{command} {row[column]}")
    assert sqlstates(client.read_to_eof()) == ["57P01"]
    assert failure(proxy, f"{command} {row[column]}") == "22023"


def test_kill_of_a_cluster_drops_all_its_connections_and_leaves_it_paused(
    proxy: Proxy, dedicated: EmbeddedServer
) -> None:
    idle, busy, elsewhere = proxy.raw("app@ent_1"), proxy.raw("app@ent_1"), proxy.raw()
    walsender = proxy.replicator()
    busy.query("BEGIN")
    proxy.console("KILL ent")
    for client in (idle, busy):
        assert sqlstates(client.read_to_eof()) == ["57P01"]
    walsender.read_to_eof()
    wait_until(lambda: backends(dedicated, "usename IN ('app', 'replicator')") == 0)
    assert elsewhere.value("SELECT 1") == "1"
    assert [row["paused"] for row in proxy.console("SHOW DATABASES") if row["name"] == "ent"] == ["1"]
    assert failure(proxy, "KILL ent") == "22023"
    late = proxy.raw("app@ent_1")
    late.send(rawclient.query("SELECT 2"))
    assert late.nothing_to_read(0.1)
    proxy.console("RESUME ent")
    assert rawclient.rows(late.read_ready()) == [["2"]]


def test_kill_of_all(proxy: Proxy) -> None:
    clients = [proxy.raw("app@ent_1"), proxy.raw("app@vip_1"), proxy.raw(), proxy.replicator()]
    proxy.console("KILL")
    for client in clients:
        client.read_to_eof()
    wait_until(lambda: proxy.console("SHOW SERVERS") == [])
    assert {row["paused"] for row in proxy.console("SHOW DATABASES")} == {"1"}
    assert failure(proxy, "KILL") == "22023"
    proxy.console("RESUME")
    assert proxy.raw().value("SELECT 1") == "1"


def test_kill_reaches_a_login_that_a_server_keeps_waiting(proxy: Proxy, shared: EmbeddedServer) -> None:
    slow = proxy.unnamed()
    with connect(shared) as direct, direct.transaction():
        direct.execute("LOCK TABLE pg_catalog.pg_tablespace")  # the check of default_tablespace waits for it
        options = "-c default_tablespace=pg_default"
        slow.send(rawclient.startup({"user": "app@std_1", "database": "appdb", "options": options}))
        wait_until(lambda: any(row["state"] == "active" for row in proxy.console("SHOW SERVERS")))
        proxy.console("KILL shared")
        assert sqlstates(slow.read_to_eof()) == ["57P01"]


def test_a_cluster_that_is_called_as_a_tenant(start_proxy: StartProxy, all_tiers: Tables) -> None:
    tables = {key: value for key, value in all_tiers.items() if key != "tenant.std_2"}
    names = {
        "cluster.std_2": all_tiers["cluster.shared"],
        "tenant.std_2": {"tier": "standard", "cluster": "shared"},
        "tenant.std_3": {"tier": "standard", "cluster": "std_2"},
        **{
            f"tenant.{name}": all_tiers[f"tenant.{name}"] | {"cluster": "shared"}
            for name in ("std_1", "free_1")
        },
    }
    proxy = start_proxy(tables | names)
    tenants, clusters = proxy.raw("app@std_2"), proxy.raw("app@std_3")
    proxy.console("KILL TENANT std_2")
    assert sqlstates(tenants.read_to_eof()) == ["57P01"]
    assert clusters.value("SELECT 1") == "1"
    proxy.console("KILL cluster std_2")
    assert sqlstates(clusters.read_to_eof()) == ["57P01"]
    assert proxy.raw("app@std_2").value("SELECT 1") == "1"
    proxy.console("DISABLE CLUSTER std_2")
    assert [row["disabled"] for row in proxy.console("SHOW DATABASES") if row["name"] == "std_2"] == ["1"]
    proxy.console("ENABLE CLUSTER std_2")
    assert failure(proxy, "ENABLE TENANT shared") == "22023"


@pytest.mark.parametrize("name", ["std_1", "shared"])
def test_disable_refuses_logins_until_enable(proxy: Proxy, name: str) -> None:
    proxy.console(f"DISABLE {name}")
    with pytest.raises(ServerError) as refused:
        proxy.raw("app@std_1").value("SELECT 1")
    assert refused.value.sqlstate in ("28000", "57P03")
    assert proxy.raw("app@vip_1").value("SELECT 1") == "1"
    proxy.console(f"ENABLE {name}")
    assert proxy.raw("app@std_1").value("SELECT 1") == "1"
    assert failure(proxy, f"ENABLE {name}") == "22023"


@pytest.mark.parametrize(
    "command", ["KILL", "DISABLE", "ENABLE", "PAUSE", "RESUME", "RECONNECT", "WAIT_CLOSE"]
)
def test_an_unknown_name_is_refused(proxy: Proxy, command: str) -> None:
    assert failure(proxy, f"{command} nobody") == "22023"


def test_set_takes_effect_and_is_shown(proxy: Proxy) -> None:
    client = proxy.raw()
    proxy.console("SET query_timeout = '100ms'")
    config = {row["key"]: row["value"] for row in proxy.console("SHOW CONFIG")}
    assert config["query_timeout"] == "100ms"
    assert sqlstates(client.query("SELECT pg_sleep(20)")) == ["57014"]
    assert client.value("SELECT 1") == "1"
    with pytest.raises(ServerError, match="query_timeout"):
        proxy.console("SET query_timeuot = 1")
    with pytest.raises(ServerError):
        proxy.console("SET query_timeout = nonsense")
    assert {row["key"]: row["value"] for row in proxy.console("SHOW CONFIG")}["query_timeout"] == "100ms"
