"""Guarantees and shares hold over all workers of a host, wherever their tenants' clients are."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.integration.test_fairness import Crowd, asked_beside, busy, share_by
from tests.integration.test_worker_caps import start
from tests.integration.test_workers import Fleet
from tests.waiting import wait_until

__all__ = ["start"]

Start = Callable[..., Fleet]
SMALL = {"pool_size": 4, "max_connections": 4}


def test_what_is_guaranteed_is_free_at_the_worker_where_it_is_asked_for(start: Start) -> None:
    """As in one process: beside a crowd on all workers, whose transactions take 0.4 s."""
    fleet = start(2, cluster__shared=SMALL, tenant__std_1={"limits": {"guaranteed_connections": 1}})
    crowd = Crowd(fleet, "app@std_2", 40, 0.4)
    busy(fleet, crowd)
    client = fleet.client("other@std_1")
    first = asked_beside(client, crowd, 1)
    assert first[0] < 16, "those of four connections, wherever, and what ends while one is opened"
    wait_until(lambda: crowd.go_on() == 0 and client.value("SELECT 1") == "1")
    answered = sorted(asked_beside(client, crowd, 8))
    assert answered[4] == 0, "it waits for none of the crowd's transactions"
    crowd.leave()


def test_shares_are_those_of_the_tenants_weights_wherever_their_clients_are(start: Start) -> None:
    """One tenant has its clients on one worker; of the other's, most are there where it would get half of all."""
    fleet = start(
        2, cluster__shared={"pool_size": 8, "max_connections": 8}, tenant__std_3={"tier": "standard"}
    )
    crowds = [Crowd(fleet, "app@std_1", 24, 0.04), Crowd(fleet, "app@std_2", 16, 0.08)]
    somewhere = Crowd(fleet, "app@std_3", 0, 0.03)
    place = None
    while len(somewhere.clients) < 16:
        client = fleet.client("app@std_3")
        worker = fleet.worker_of(client)
        place = place or worker
        if worker == place:
            somewhere.clients.append(client)
            client.send(somewhere.request)
    crowds.append(somewhere)
    busy(fleet, *crowds)
    names = ("std_1", "std_2", "std_3")
    share_by(fleet, crowds, dict.fromkeys(names, 1), rel=0.1)

    def each_is_due_a_third() -> bool:
        _go_on(crowds, 0.1)
        due = {row["name"]: float(row["share_due"] or 0) for row in fleet.console("SHOW TENANTS")}
        return [due[name] for name in names] == pytest.approx([8 / 3] * 3, rel=0.2)

    wait_until(each_is_due_a_third)
    for crowd in crowds:
        crowd.leave()


def _go_on(crowds: list[Crowd], seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for crowd in crowds:
            crowd.go_on()
