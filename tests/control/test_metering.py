"""Usage by day: what is counted when, and that the registry has it once whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
import pytest

from proxy.cli.embedded import free_port
from proxy.control import counts as counting
from proxy.control.metering import Metering, Used
from proxy.errors import RegistryUnavailable
from proxy.registry.store import Store
from tests.control.api import calling
from tests.waiting import wait_until

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
LATE = datetime(2026, 5, 2, 0, 0, 1, tzinfo=UTC)
Written = list[tuple[date, dict[str, Used]]]


class Counted:
    """What a process has counted, and a registry that may refuse it."""

    def __init__(self, *, fresh: bool = True) -> None:
        self.tenants: dict[str, Any] = {}
        self.written: Written = []
        self.down = False
        self.metering = Metering(self.counts, self.record, lambda: 60.0, fresh=fresh)

    async def counts(self) -> counting.Counts:
        found = counting.empty()
        found["counters"]["tenants"] = self.tenants
        return found

    async def record(self, process: UUID, day: date, used: Sequence[tuple[str, Used]]) -> None:
        if self.down:
            raise RegistryUnavailable("down")
        self.written.append((day, dict(used)))

    def set(self, name: str, queries: int, seconds: float = 0.0, **errors: int) -> None:
        self.tenants[name] = {"queries": queries, "seconds": seconds, "errors": errors}

    def turn(self, now: datetime) -> None:
        asyncio.run(self.metering.turn(now))


def test_each_writing_has_the_whole_day_of_those_that_have_changed() -> None:
    process = Counted()
    process.set("a", 5, 0.5, XX000=1)
    process.set("idle", 0)
    process.turn(NOON)
    process.set("a", 8, 0.75, XX000=1, other=2)
    process.set("b", 1)
    process.turn(NOON)
    process.turn(NOON)
    assert process.written == [
        (NOON.date(), {"a": Used(5, 0.5, 1)}),
        (NOON.date(), {"a": Used(8, 0.75, 3), "b": Used(1)}),
    ]


def test_what_is_told_first_after_midnight_is_of_the_day_before() -> None:
    process = Counted()
    process.set("a", 5)
    process.turn(NOON)
    process.set("a", 7)
    process.turn(LATE)
    process.set("a", 8)
    process.turn(LATE)
    assert process.written == [
        (NOON.date(), {"a": Used(5)}), (NOON.date(), {"a": Used(7)}), (LATE.date(), {"a": Used(1)})
    ]  # fmt: skip


def test_what_could_not_be_written_is_written_later_under_its_day() -> None:
    process = Counted()
    process.down = True
    process.set("a", 5)
    process.turn(NOON)
    process.set("a", 6)
    process.turn(LATE)
    process.set("a", 8)
    process.turn(LATE)
    assert process.written == []
    process.down = False
    process.turn(LATE)
    assert process.written == [(NOON.date(), {"a": Used(6)}), (LATE.date(), {"a": Used(2)})]


def test_a_bug_does_not_end_it() -> None:
    process = Counted()
    process.tenants["a"] = {"queries": 1}
    process.turn(NOON)
    assert process.written == []
    process.set("a", 3)
    process.turn(NOON)
    assert process.written == [(NOON.date(), {"a": Used(3)})]


def test_counts_that_began_anew_are_added() -> None:
    process = Counted()
    process.set("a", 5)
    process.turn(NOON)
    process.set("a", 2)
    process.turn(NOON)
    assert process.written[-1][1] == {"a": Used(7)}


def test_another_process_has_written_what_was_counted_before() -> None:
    process = Counted(fresh=False)
    process.set("a", 5)
    asyncio.run(process.metering._begin())
    process.set("a", 6)
    process.turn(NOON)
    assert process.written == [(NOON.date(), {"a": Used(1)})]


# --- with a registry --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dsn(shared: EmbeddedServer) -> Iterator[str]:
    with calling.registry(shared) as found:
        yield found


def insert(dsn: str, code: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO tenant_registry (tenant_id, tenant_code, tenant_name, tier, cluster_endpoint_type)"
            " VALUES (gen_random_uuid(), %s, 'x', 'standard', 'shared_pool')",
            [code],
        )


def days(dsn: str, code: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(
            "SELECT db_query_count, db_avg_latency_ms, db_errors FROM tenant_metrics_daily m"
            " JOIN tenant_registry t USING (tenant_id) WHERE tenant_code = %s ORDER BY metric_date",
            [code],
        ).fetchall()


def test_the_day_is_the_sum_of_what_processes_have_told_last(dsn: str) -> None:
    insert(dsn, "acme")
    one, other = uuid4(), uuid4()

    async def record() -> None:
        store = Store(dsn)
        try:
            for _ in range(2):  # told twice, it counts once
                await store.record(one, NOON.date(), [("acme", Used(10, 0.5, 1)), ("of the file", Used(1))])
            await asyncio.gather(
                *(store.record(uuid4(), LATE.date(), [("acme", Used(1, 0.002))]) for _ in range(8))
            )
            await store.record(other, NOON.date(), [("acme", Used(30, 1.5, 2))])
            await store.record(one, NOON.date(), [("acme", Used(20, 1.0, 1))])
        finally:
            await store.close()

    asyncio.run(record())
    assert days(dsn, "acme") == [(50, 50.0, 3), (8, pytest.approx(2.0), 0)]


def test_two_proxies_and_one_that_comes_later(
    start_proxy: StartProxy, shared: EmbeddedServer, dsn: str
) -> None:
    insert(dsn, "metered")

    def start(interval: str = "50ms") -> Any:
        address = f"127.0.0.1:{free_port()}"
        return start_proxy(
            calling.tables(shared), registry_dsn=dsn, http_addr=address, usage_interval=interval
        )

    def use(proxy: Any, times: int) -> None:
        client = proxy.raw("app@metered")
        for _ in range(times):
            client.query("SELECT 1")
        client.query("SELECT 1/0")
        client.close()

    one, other = start(), start()
    use(one, 3)
    use(other, 5)
    wait_until(lambda: [day[:1] + day[2:] for day in days(dsn, "metered")] == [(10, 2)])
    assert days(dsn, "metered")[0][1] > 0
    later = start("1h")
    use(later, 1)
    later.run(later.worker.http.stop())  # what is not written yet is written at the end
    assert [day[:1] + day[2:] for day in days(dsn, "metered")] == [(12, 3)]
