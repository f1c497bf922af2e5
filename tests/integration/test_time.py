"""Limits of time: a query's, a transaction's, an idle transaction's and an idle client's."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.servers import backends
from tests.rawclient import (
    SYNC,
    Closed,
    RawClient,
    ask,
    errors,
    kinds,
    query,
    rows,
    sqlstates,
)
from tests.waiting import wait_until

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy

Tables = dict[str, dict[str, Any]]
SLEEP = "SELECT pg_sleep(30)"
PID = "SELECT pg_backend_pid()"
MODES = ["transaction", "session"]


def limited(tables: Tables, mode: str = "transaction", **limits: Any) -> Tables:
    return tables | {
        "tenant.std_1": {"tier": "standard", "limits": limits, "pool_mode": mode},
        "cluster.shared": tables["cluster.shared"] | {"pool_size": 1},
    }


def busy_for_ever(client: RawClient) -> None:
    while True:
        client.query("SELECT pg_sleep(0.02)")


def goes_on(client: RawClient, pid: str | None) -> None:
    """Both connections live: the same backend answers."""
    assert client.status == "I"
    assert client.value(PID) == pid


@pytest.mark.parametrize("mode", MODES)
def test_query_timeout_keeps_both_connections(start_proxy: StartProxy, all_tiers: Tables, mode: str) -> None:
    proxy = start_proxy(limited(all_tiers, mode, query_timeout="300ms"))
    client = proxy.raw()
    pid = client.value(PID)
    began = time.monotonic()
    answer = client.query(SLEEP)
    assert 0.25 < time.monotonic() - began < 10
    assert sqlstates(answer) == ["57014"]
    assert errors(answer)[0]["S"] == "ERROR"
    assert kinds(answer)[-2:] == "EZ"
    goes_on(client, pid)
    # Nobody else is concerned, and the limit holds again.
    assert sqlstates(client.query(SLEEP)) == ["57014"]
    goes_on(client, pid)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("escape", ["SET statement_timeout = 0", "SET SESSION statement_timeout TO DEFAULT"])
def test_a_client_cannot_switch_it_off(
    start_proxy: StartProxy, all_tiers: Tables, mode: str, escape: str
) -> None:
    proxy = start_proxy(limited(all_tiers, mode, query_timeout="300ms"))
    client = proxy.raw()
    assert sqlstates(client.query(escape)) == []
    assert sqlstates(client.query(SLEEP)) == ["57014"]
    assert sqlstates(client.query(f"SET statement_timeout = 0; {SLEEP}")) == ["57014"]
    client.query("BEGIN")
    client.query("SET LOCAL statement_timeout = 0")
    assert sqlstates(client.query(SLEEP)) == ["57014"]
    assert client.status == "E"
    client.query("ROLLBACK")
    assert client.value("SELECT 1") == "1"


def test_in_extended_and_pipelined(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(limited(all_tiers, query_timeout="300ms"))
    client = proxy.raw()
    pid = client.prepared(PID)[0][0]
    assert sqlstates(client.ask(ask(SLEEP) + SYNC)) == ["57014"]
    goes_on(client, pid)
    # An error skips to the Sync; what comes behind it is answered.
    answer = client.ask(
        ask("SELECT 1") + ask(SLEEP) + ask("SELECT 2") + SYNC + ask("SELECT 3") + SYNC, ready=2
    )
    assert sqlstates(answer) == ["57014"]
    assert rows(answer) == [["1"], ["3"]]
    goes_on(client, pid)


def test_each_query_of_a_pipeline_has_its_own_time(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(limited(all_tiers, query_timeout="800ms"))
    client = proxy.raw()
    answer = client.ask((ask("SELECT 1 FROM pg_sleep(0.2)") + SYNC) * 5, ready=5)
    assert sqlstates(answer) == []
    assert len(rows(answer)) == 5


def test_in_a_transaction(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(limited(all_tiers, query_timeout="300ms"))
    client = proxy.raw()
    client.query("BEGIN")
    pid = client.value(PID)
    answer = client.query(SLEEP)
    assert sqlstates(answer) == ["57014"]
    assert client.status == "E"
    assert sqlstates(client.query("SELECT 1")) == ["25P02"]
    client.query("ROLLBACK")
    goes_on(client, pid)
    client.query("BEGIN; SAVEPOINT s")
    assert sqlstates(client.query(SLEEP)) == ["57014"]
    client.query("ROLLBACK TO s")
    assert client.status == "T"
    assert client.value(PID) == pid
    client.query("COMMIT")


def test_the_time_in_a_transaction_between_queries_is_not_a_querys(
    start_proxy: StartProxy, all_tiers: Tables
) -> None:
    proxy = start_proxy(limited(all_tiers, query_timeout="500ms"))
    client = proxy.raw()
    client.query("BEGIN")
    for _ in range(2):
        assert client.nothing_to_read(0.3)
        assert client.value("SELECT 1") == "1"
    client.query("COMMIT")


def test_the_server_is_the_tenants_neighbours_again(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(limited(all_tiers, query_timeout="500ms"))
    slow, neighbour = proxy.raw(), proxy.raw("app@std_2")
    pid = neighbour.value(PID)
    slow.send(query(SLEEP))
    wait_until(lambda: proxy.console("SHOW TENANTS")[0]["name"] and _active(proxy))
    assert neighbour.value(PID) == pid
    assert sqlstates(slow.read_ready()) == ["57014"]
    # A neighbour without the limit runs as long as it likes.
    assert neighbour.value("SELECT 1 FROM pg_sleep(0.7)") == "1"


def _active(proxy: Proxy) -> bool:
    return any(row["sv_active"] != "0" for row in proxy.console("SHOW POOLS"))


@pytest.mark.parametrize("place", ["proxy", "tier", "tenant", "user"])
def test_where_the_limit_may_stand(start_proxy: StartProxy, all_tiers: Tables, place: str) -> None:
    limits = {"query_timeout": "300ms"}
    tables = dict(all_tiers)
    more: dict[str, Any] = {}
    if place == "proxy":
        more = limits
    elif place == "tier":
        tables["tier.standard"] = {"limits": limits}
    elif place == "tenant":
        tables["tenant.std_1"] = {"tier": "standard", "limits": limits}
    else:
        tables["user.app"] = tables["user.app"] | {"limits": limits}
    proxy = start_proxy(tables, **more)
    assert sqlstates(proxy.raw().query(SLEEP)) == ["57014"]


@pytest.mark.parametrize("mode", MODES)
def test_transaction_timeout(start_proxy: StartProxy, all_tiers: Tables, mode: str) -> None:
    proxy = start_proxy(limited(all_tiers, mode, transaction_timeout="400ms"))
    client = proxy.raw()
    client.query("BEGIN")
    with pytest.raises(Closed) as closed:
        busy_for_ever(client)
    assert sqlstates(closed.value.frames)[-1:] == ["25P04"]
    assert errors(closed.value.frames)[-1]["S"] == "FATAL"
    # The server's work is gone, and its connection or another one serves the next.
    assert proxy.raw().value("SELECT 1") == "1"


def test_transaction_timeout_while_a_query_runs(
    start_proxy: StartProxy, all_tiers: Tables, shared: EmbeddedServer
) -> None:
    proxy = start_proxy(limited(all_tiers, transaction_timeout="400ms"))
    client = proxy.raw()
    client.query("BEGIN")
    client.send(query("SELECT pg_sleep(29)"))
    frames = client.read_to_eof()
    assert sqlstates(frames) in (["25P04"], ["57014", "25P04"])
    wait_until(lambda: not backends(shared, "query = 'SELECT pg_sleep(29)' AND state = 'active'"))
    assert proxy.raw().value("SELECT 1") == "1"


def test_short_transactions_do_not_meet_it(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(limited(all_tiers, transaction_timeout="600ms"))
    client = proxy.raw()
    for _ in range(4):
        client.query("BEGIN")
        assert client.value("SELECT 1 FROM pg_sleep(0.2)") == "1"
        client.query("COMMIT")


@pytest.mark.parametrize("mode", MODES)
def test_idle_transaction_timeout(
    start_proxy: StartProxy, all_tiers: Tables, shared: EmbeddedServer, mode: str
) -> None:
    proxy = start_proxy(limited(all_tiers, mode, idle_transaction_timeout="400ms"))
    client = proxy.raw()
    # Work is not idleness.
    client.query("BEGIN")
    for _ in range(5):
        assert client.value("SELECT 1 FROM pg_sleep(0.1)") == "1"
    assert client.value("SELECT 1 FROM pg_sleep(0.6)") == "1"
    client.query("INSERT INTO notes VALUES (25, 'idle')")
    frames = client.read_to_eof()
    assert sqlstates(frames) == ["25P03"]
    assert errors(frames)[0]["S"] == "FATAL"
    other = proxy.raw()
    assert other.rows("SELECT * FROM notes WHERE id = 25") == []
    wait_until(lambda: not backends(shared, "state LIKE 'idle in transaction%'"))


def test_idle_transaction_timeout_in_a_failed_transaction(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(limited(all_tiers, idle_transaction_timeout="400ms"))
    client = proxy.raw()
    client.query("BEGIN")
    assert sqlstates(client.query("SELECT 1/0")) == ["22012"]
    assert sqlstates(client.read_to_eof()) == ["25P03"]
    assert proxy.raw().value("SELECT 1") == "1"


def test_idle_transaction_timeout_in_a_block_that_no_server_has(
    start_proxy: StartProxy, all_tiers: Tables
) -> None:
    limits = {"idle_transaction_timeout": "800ms", "client_idle_timeout": "400ms"}
    proxy = start_proxy(all_tiers, default_tenant="std_1", limits=limits)
    opened = []
    for opening in (query("BEGIN"), ask("BEGIN") + SYNC, query("BEGIN") + query("RELEASE nothing")):
        opened.append(proxy.raw("app"))
        opened[-1].send(opening)
    for client in opened:
        frames = client.read_to_eof()
        assert sqlstates(frames)[-1] == "25P03"
    client = proxy.raw("app")
    client.query("BEGIN")
    client.query("COMMIT")
    assert sqlstates(client.read_to_eof()) == ["57P05"]


@pytest.mark.parametrize("mode", MODES)
def test_client_idle_timeout(start_proxy: StartProxy, all_tiers: Tables, mode: str) -> None:
    proxy = start_proxy(limited(all_tiers, mode, client_idle_timeout="400ms"))
    client, quiet = proxy.raw(), proxy.raw("app@std_2")
    for _ in range(3):
        assert client.nothing_to_read(0.15)
        assert client.value("SELECT 1") == "1"
    # Neither a running query nor an open transaction is an idle client.
    assert client.value("SELECT 1 FROM pg_sleep(0.5)") == "1"
    client.query("BEGIN")
    assert client.nothing_to_read(0.5)
    client.query("COMMIT")
    frames = client.read_to_eof()
    assert sqlstates(frames) == ["57P05"]
    assert errors(frames)[0]["S"] == "FATAL"
    assert quiet.value("SELECT 1") == "1"


def test_zero_is_no_limit(start_proxy: StartProxy, all_tiers: Tables) -> None:
    tables = limited(all_tiers, query_timeout=0, transaction_timeout="0", idle_transaction_timeout="0s")
    proxy = start_proxy(tables, query_timeout="200ms", transaction_timeout="200ms")
    client = proxy.raw()
    client.query("BEGIN")
    assert client.value("SELECT 1 FROM pg_sleep(0.4)") == "1"
    client.query("COMMIT")


def test_new_limits_reach_running_sessions(start_proxy: StartProxy, all_tiers: Tables) -> None:
    from tests.integration.running import configuration

    proxy = start_proxy(all_tiers)
    client = proxy.raw()
    assert client.value("SELECT 1 FROM pg_sleep(0.4)") == "1"
    proxy.reload(configuration(limited(all_tiers, query_timeout="300ms"), listen_port=proxy.port))
    assert sqlstates(client.query(SLEEP)) == ["57014"]
    assert client.value("SELECT 1") == "1"
