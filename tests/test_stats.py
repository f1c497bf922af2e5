"""Counters add up, and buckets hold what belongs into them."""

from __future__ import annotations

import pytest

from proxy.stats import DURATION_BOUNDS, Histogram, PoolStats, ProcessStats, TenantStats


@pytest.mark.parametrize(("at", "bound"), list(enumerate(DURATION_BOUNDS)))
def test_a_bound_belongs_to_its_bucket(at: int, bound: float) -> None:
    histogram = Histogram()
    histogram.add(bound)
    histogram.add(bound * 1.0001)
    assert histogram.buckets[at] == histogram.buckets[at + 1] == 1
    assert histogram.count == 2


def test_bounds_grow() -> None:
    assert list(DURATION_BOUNDS) == sorted(set(DURATION_BOUNDS))


def test_the_last_bucket_is_open() -> None:
    histogram = Histogram()
    histogram.add(1e9)
    assert histogram.buckets[-1] == 1


def test_a_tenant_that_makes_up_sqlstates_does_not_fill_the_memory() -> None:
    tenant = TenantStats()
    for number in range(1_000):
        tenant.error(f"Z{number:04}")
    tenant.error("Z0000")
    assert tenant.errors["Z0000"] == 2
    assert len(tenant.errors) == 51
    assert tenant.errors["other"] == 950


def test_errors_timeouts_and_pins_are_counted_by_name() -> None:
    tenant, process = TenantStats(), ProcessStats()
    for sqlstate in ("57014", "57014", "53300"):
        tenant.error(sqlstate)
    process.timeout("query_timeout")
    process.timeout("query_timeout")
    process.pin("LISTEN")
    assert tenant.errors == {"57014": 2, "53300": 1}
    assert process.timeouts == {"query_timeout": 2}
    assert process.pins == {"LISTEN": 1}


def test_averages_are_over_the_last_period_and_the_one_of_now() -> None:
    pool = PoolStats(100.0)
    pool.queries, pool.bytes_sent, pool.wait_seconds = 10, 500, 0.5
    assert pool.of_late(100.0) == (1.0, [0, 0, 10, 0, 500, 0.0, 0.0, 0.5]), "no division by nothing"
    assert pool.of_late(120.0)[0] == 20.0
    pool.turn(160.0)
    pool.queries += 6
    seconds, more = pool.of_late(170.0)
    assert (seconds, more[2]) == (70.0, 16)
    pool.turn(220.0)
    seconds, more = pool.of_late(220.0)
    assert (seconds, more[2], more[4]) == (60.0, 6, 0), "what is older than a period counts no more"
    pool.turn(280.0)
    assert pool.of_late(280.0)[1] == [0.0] * 8


def test_a_query_within_a_transaction_ends_none() -> None:
    pool = PoolStats(0.0)
    pool.add_query(0.5, 0.0)
    pool.add_query(0.25, 2.0)
    assert (pool.queries, pool.query_seconds) == (2, 0.75)
    assert (pool.transactions, pool.xact_seconds) == (1, 2.0)
