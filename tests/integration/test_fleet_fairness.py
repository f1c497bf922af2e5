"""Shares by weight and guarantees hold over the proxies of a fleet, also where tenants have their clients at one each."""

from __future__ import annotations

import time

import pytest

from tests.integration.test_fairness import Crowd, busy, server_times
from tests.integration.test_fleet_caps import Start, joined, start
from tests.integration.test_workers import Fleet
from tests.waiting import wait_until

__all__ = ["start"]

CAP = 9


def test_shares_are_those_of_weights_and_of_what_is_guaranteed(start: Start) -> None:
    """A proxy alone would be given half of what is scarce, whoever asks it."""
    tables = {
        "proxy": {"fleet_reserve": 20, "fleet_ttl": "5s"},
        "cluster__shared": {"pool_size": CAP, "max_connections": CAP},
        "tenant__gold": {"tier": "vip", "cluster": "shared"},
        "tenant__std_2": {"tier": "standard", "limits": {"guaranteed_connections": 6}},
    }
    first, second = start(1, **tables), start(1, **tables)
    joined(first, second)
    crowd = Crowd(first, "app@std_1", 20, 0.02)
    gold = Crowd(second, "app@gold", 20, 0.02)
    busy(first, crowd)
    busy(second, gold)
    wait_until(lambda: share([first, second], "gold", crowd, gold) == pytest.approx(2 / 3, abs=0.08), 40)
    gold.leave()
    entitled = Crowd(second, "app@std_2", 20, 0.02)
    busy(second, entitled)
    wait_until(lambda: share([first, second], "std_2", crowd, entitled) == pytest.approx(2 / 3, abs=0.08), 40)
    crowd.leave()
    entitled.leave()


def share(fleets: list[Fleet], tenant: str, *crowds: Crowd) -> float:
    """Of all server time, that of the tenant within half a second."""
    before = [server_times(fleet) for fleet in fleets]
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        for crowd in crowds:
            crowd.go_on()
    after = [server_times(fleet) for fleet in fleets]
    used = [
        {name: now[name] - was.get(name, 0.0) for name in now} for was, now in zip(before, after, strict=True)
    ]
    return sum(each.get(tenant, 0.0) for each in used) / max(1e-6, sum(sum(each.values()) for each in used))
