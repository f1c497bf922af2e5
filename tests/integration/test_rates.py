"""Rates: what is over them waits a little or is refused, the session goes on, and a transaction is never broken off."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import asyncpg  # type: ignore[import-untyped]
import psycopg
import pytest

from proxy.control import counts as counting
from proxy.control import metrics
from tests.integration.running import configuration
from tests.rawclient import SYNC, ask, copy_data, errors, kinds, query, rows, sqlstates
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy

Tables = dict[str, dict[str, Any]]
TRICKLE = {"max_qps": 0.01, "burst": 3, "rate_wait": 0}  # three queries, and no more within a test
NAMES = ("simple", "extended", "block", "pipeline", "psycopg", "asyncpg", "copy", "other", "several", "pool")


@pytest.fixture(scope="module", params=["transaction", "session"])
def proxy(request: pytest.FixtureRequest, start_module_proxy: StartProxy, all_tiers: Tables) -> Proxy:
    """A tenant a test, as each has what it spends."""
    tenants = {f"tenant.{name}": {"tier": "standard", "limits": TRICKLE} for name in NAMES}
    tenants["tenant.steady"] = {
        "tier": "standard",
        "limits": {"max_qps": 100, "burst": 1, "rate_wait": "10s"},
    }
    line = {"max_qps": 0.1, "burst": 1, "rate_wait": "1h", "query_wait_timeout": 0}
    tenants["tenant.line"] = {"tier": "standard", "limits": line}
    tenants["tenant.daily"] = {"tier": "free", "limits": {"max_queries_per_day": 2}}
    bulky = {"max_bytes_per_second": "100kB", "query_wait_notify": "50ms"}
    tenants["tenant.bulky"] = {"tier": "standard", "limits": bulky}
    return start_module_proxy(all_tiers | tenants, pool_mode=request.param, default_pool_size=60)


def told(proxy: Proxy, tenant: str) -> dict[str, str | None]:
    return next(row for row in proxy.console("SHOW TENANTS") if row["name"] == tenant)


def test_simple_queries(proxy: Proxy) -> None:
    one, two = proxy.raw("app@simple"), proxy.raw("app@simple")
    assert [client.value("SELECT 1") for client in (one, two, one)] == ["1"] * 3
    for client in (one, two):
        (error,) = errors(frames := client.query("SELECT 2"))
        assert kinds(frames) == "EZ"
        assert error["S"] == "ERROR"
        assert error["C"] == "53400"
        assert error["M"] == 'tenant "simple" asks more queries than its rate allows'
        assert error["D"].startswith("max_qps is 0.01 with a burst of 3. Retry in ")
    neighbour = proxy.raw("app@other")
    assert neighbour.value("SELECT 1") == "1", "another's rate is nobody else's concern"


def test_extended_queries_are_skipped_to_the_sync(proxy: Proxy) -> None:
    client = proxy.raw("app@extended")
    for _ in range(3):
        assert rows(client.ask(ask("SELECT 1") + SYNC)) == [["1"]]
    frames = client.ask(ask("SELECT 1") + SYNC + ask("SELECT 2") + SYNC, ready=2)
    assert kinds(frames) == "EZEZ"
    assert sqlstates(frames) == ["53400"] * 2


def test_within_a_block_nothing_is_refused(proxy: Proxy) -> None:
    client = proxy.raw("app@block")
    client.query("BEGIN")
    for number in range(10):
        assert client.value(f"SELECT {number}") == str(number)
    assert rows(client.ask(ask("SELECT 'x'") + SYNC)) == [["x"]]
    assert kinds(client.query("COMMIT")) == "CZ"
    assert sqlstates(client.query("BEGIN")) == ["53400"]
    assert kinds(client.query("ROLLBACK")) == "NCZ", "with PostgreSQL's own warning"
    assert kinds(client.query("SELECT 1")) == "EZ"


def test_a_block_that_is_sent_at_once_goes_through(proxy: Proxy) -> None:
    client = proxy.raw("app@several")
    texts = ["SELECT 0", "SELECT 0", "BEGIN", "SELECT 1", "SELECT 2", "ROLLBACK", "SELECT 3"]
    frames = client.ask(b"".join(query(text) for text in texts), ready=len(texts))
    assert rows(frames) == [["0"], ["0"], ["1"], ["2"]]
    assert sqlstates(frames) == ["53400"]


def test_copy(proxy: Proxy) -> None:
    client = proxy.raw("app@copy")
    client.query("CREATE TEMP TABLE lines (line text)")
    client.send(query("COPY lines FROM STDIN") + copy_data(b"a\n") + copy_data(b"b\n"))
    client.send(b"c\0\0\0\4" + query("SELECT count(*) FROM lines") + query("SELECT 1"))
    frames = client.read_ready(3)
    assert rows(frames) == [["2"]]
    assert sqlstates(frames) == ["53400"]


def test_a_pipeline_counts_each_execute(proxy: Proxy) -> None:
    client = proxy.raw("app@pipeline")
    batch = ask("SELECT 1")
    frames = client.ask(batch * 6 + SYNC)
    assert rows(frames) == [["1"]] * 6
    (error,) = errors(client.ask(batch + SYNC))
    assert float(error["D"].split("Retry in ")[1].split()[0]) > 300, "three more than were there, and one"


def test_psycopg_in_a_pipeline(proxy: Proxy) -> None:
    connection = proxy.connect("app@psycopg")
    for _ in range(3):
        with connection.pipeline():
            assert connection.execute("SELECT %s::int", (1,)).fetchone() == (1,)
    with pytest.raises(psycopg.errors.ConfigurationLimitExceeded) as refused, connection.pipeline():
        connection.execute("SELECT %s::int", (1,)).fetchone()
    assert "Retry in" in (refused.value.diag.message_detail or "")
    assert not connection.closed
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_asyncpg(proxy: Proxy) -> None:
    async def go() -> None:
        connection = await asyncpg.connect(
            host=proxy.host, port=proxy.port, user="app@asyncpg", password="app-secret", database="appdb"
        )
        try:
            for _ in range(3):
                assert await connection.fetchval("SELECT $1::int", 1) == 1
            with pytest.raises(asyncpg.ConfigurationLimitExceededError):
                await connection.fetchval("SELECT $1::int", 1)
            with pytest.raises(asyncpg.ConfigurationLimitExceededError):
                await connection.execute("SELECT 1")
            assert not connection.is_closed()
        finally:
            await connection.close()

    asyncio.run(go())


def test_how_pools_ask_whether_a_connection_lives(proxy: Proxy) -> None:
    """With a text that asks nothing: it is no query, and passes when all is used up."""
    connection = proxy.connect("app@pool")

    def all_ask() -> None:
        for text in ("", ";", "-- ping"):
            connection.execute(text)
            connection.execute(text, binary=True)

    all_ask()
    for _ in range(3):
        connection.execute("SELECT 1")
    with pytest.raises(psycopg.errors.ConfigurationLimitExceeded):
        connection.execute("SELECT 1")
    all_ask()
    tenant = told(proxy, "pool")
    assert (tenant["throttled"], tenant["refused_rate"]) == ("0", "1")


def test_what_may_wait_is_let_through_at_the_rate(proxy: Proxy) -> None:
    clients = [proxy.raw("app@steady") for _ in range(4)]
    began = time.monotonic()

    def asks(client: Any) -> None:
        for _ in range(10):
            assert client.value("SELECT 1") == "1"

    threads = [threading.Thread(target=asks, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began >= 0.38


def test_the_line_for_a_rate_is_seen(proxy: Proxy) -> None:
    """How many wait, for which limit and how long, and each one's place."""
    clients = [proxy.raw("app@line") for _ in range(4)]
    assert clients[0].value("SELECT 1") == "1"
    for number, client in enumerate(clients[1:], 1):
        client.send(query("SELECT 1"))
        wait_until(lambda n=number: [row["waiting"] for row in line(proxy)] == [str(n)])  # type: ignore[misc]
    (row,) = line(proxy)
    assert (row["place"], row["tier"], row["cluster"]) == (None, "standard", "shared")
    assert (row["why"] or "").startswith("over its max_qps; the next goes in ")
    ports = [str(client.sock.getsockname()[1]) for client in clients]
    places = {row["port"]: row["place"] for row in proxy.console("SHOW CLIENTS")}
    assert [places[port] for port in ports] == [None, "1", "2", "3"]
    for client in clients:
        client.close()
    wait_until(lambda: not line(proxy))


def line(proxy: Proxy) -> list[dict[str, str | None]]:
    return [row for row in proxy.console("SHOW QUEUE") if row["tenant"] == "line"]


def test_a_days_quota(proxy: Proxy) -> None:
    client = proxy.raw("app@daily")
    client.query("BEGIN")
    assert client.value("SELECT 1") == client.value("SELECT 1") == "1"
    client.query("COMMIT")
    (error,) = errors(client.query("SELECT 1"))
    assert (error["C"], error["M"]) == ("53400", 'tenant "daily" has used up its queries of today')
    assert error["D"].startswith("max_queries_per_day is 2. Retry in ")
    tenant = told(proxy, "daily")
    assert (tenant["max_queries_per_day"], tenant["refused_quota"], tenant["refused_rate"]) == ("2", "1", "0")


def test_a_big_result_comes_at_once_and_what_follows_waits(proxy: Proxy) -> None:
    client = proxy.raw("app@bulky")
    began = time.monotonic()
    assert len(client.value("SELECT repeat('x', 160000)") or "") == 160_000
    frames = client.query("SELECT 1")
    assert time.monotonic() - began >= 0.5
    assert kinds(frames) == "NTDCZ", "and its client is told so"
    assert b"The tenant is over its rate, query being queued" in frames[0].body
    assert not len(proxy.worker.pools.deadlines), "it waits no more"
    tenant = told(proxy, "bulky")
    assert (tenant["throttled"], tenant["refused_rate"], tenant["errors"]) == ("1", "0", "0")
    text = proxy.call(lambda: metrics.exposition(counting.take(proxy.worker.plane))).decode()
    assert 'tiergate_throttled_queries_total{tenant_id="bulky",tier="standard"} 1.0' in text
    assert 'tiergate_refused_queries_total{limit="quota",tenant_id="daily",tier="free"} 1.0' in text


def test_a_reload_changes_the_rate_of_those_who_are_connected(
    start_proxy: StartProxy, all_tiers: Tables
) -> None:
    def tables(**limits: Any) -> Tables:
        return all_tiers | {"tenant.std_1": all_tiers["tenant.std_1"] | {"limits": limits}}

    proxy = start_proxy(tables())
    client = proxy.raw()
    assert client.value("SELECT 1") == "1"

    def reload(**limits: Any) -> None:
        keys = {"listen_port": proxy.port, "http_addr": ""}
        proxy.reload(configuration(tables(**limits), **keys))

    reload(max_qps=0.01, burst=1, rate_wait=0)
    assert client.value("SELECT 1") == "1"
    assert sqlstates(client.query("SELECT 1")) == ["53400"]
    reload()
    assert client.value("SELECT 1") == "1"
