"""Guarantees and shares hold over all workers of a host, wherever their tenants' clients are."""

from __future__ import annotations

from collections.abc import Callable

from tests.integration.test_fairness import Crowd, asked_beside, busy
from tests.integration.test_worker_caps import start
from tests.integration.test_workers import Fleet
from tests.waiting import wait_until

__all__ = ["start"]

Start = Callable[..., Fleet]
SMALL = {"pool_size": 4, "max_connections": 4}


def test_what_is_guaranteed_is_free_at_the_worker_where_it_is_asked_for(start: Start) -> None:
    """As in one process: beside a crowd on all workers, whose transactions take 0.2 s."""
    fleet = start(2, cluster__shared=SMALL, tenant__std_1={"limits": {"guaranteed_connections": 1}})
    crowd = Crowd(fleet, "app@std_2", 20, 0.2)
    busy(fleet, crowd)
    client = fleet.client("other@std_1")
    first = asked_beside(client, crowd, 1)
    assert first[0] < 0.6, "one of the crowd's transactions, wherever, and opening a connection"
    wait_until(lambda: crowd.go_on() == 0 and client.value("SELECT 1") == "1")
    took = sorted(asked_beside(client, crowd, 8))
    assert took[4] < 0.1, "it waits for none of the crowd's transactions"
    crowd.leave()
