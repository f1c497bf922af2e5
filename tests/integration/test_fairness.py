"""Who is served when more is asked for than there is: the others of a pool, of a cluster, and those with a guarantee."""

from __future__ import annotations

import asyncio
import select
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.tables import with_cluster, with_limits
from tests.rawclient import RawClient, query, rows
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy
    from tests.integration.test_workers import Fleet

Tables = dict[str, dict[str, Any]]


class Crowd:
    """Clients that ask again as soon as they are answered."""

    def __init__(self, proxy: Proxy, login: str, count: int, seconds: float) -> None:
        self.request = query(f"SELECT pg_sleep({seconds})")
        self.clients = [proxy.raw(login) for _ in range(count)]
        for client in self.clients:
            client.send(self.request)

    def go_on(self) -> int:
        """How many were answered since the last time."""
        answered = select.select([client.sock for client in self.clients], [], [], 0.0)[0]
        for client in self.clients:
            if client.sock not in answered:
                continue
            client.read_ready()
            client.send(self.request)
        return len(answered)

    def leave(self) -> None:
        for client in self.clients:
            client.close()


def busy(proxy: Proxy, *crowds: Crowd) -> None:
    """Until most of them wait."""
    most = sum(len(crowd.clients) for crowd in crowds) / 2

    def waits() -> bool:
        for crowd in crowds:
            crowd.go_on()
        return sum(int(row["cl_waiting"] or 0) for row in proxy.console("SHOW POOLS")) > most

    wait_until(waits)


def asked_beside(client: RawClient, crowd: Crowd, times: int) -> list[int]:
    """How many of the crowd's are answered while a query waits, each time."""
    answered = []
    for number in range(times):
        crowd.go_on()
        client.send(query(f"SELECT {number}"))
        answered.append(0)
        while client.nothing_to_read(0.001):
            answered[-1] += crowd.go_on()
        assert rows(client.read_ready()) == [[str(number)]]
    return answered


@pytest.mark.parametrize("layout", ["one pool", "a pool for each"])
def test_one_client_beside_the_crowd_of_another_tenant(
    start_proxy: StartProxy, all_tiers: Tables, layout: str
) -> None:
    """Forty clients of the other tenant wait; by turns of transactions it would wait for ten of theirs."""
    login = "app@std_1" if layout == "one pool" else "other@std_1"
    proxy = start_proxy(with_cluster(all_tiers, pool_size=4, max_connections=4))
    crowd = Crowd(proxy, "app@std_2", 40, 0.05)
    busy(proxy, crowd)
    answered = sorted(asked_beside(proxy.raw(login), crowd, 10))
    assert answered[5] < 16, "those of four connections, and what ends while one is opened"
    crowd.leave()


def test_server_time_is_shared_and_not_the_number_of_transactions(
    start_proxy: StartProxy, all_tiers: Tables
) -> None:
    proxy = start_proxy(with_cluster(all_tiers, pool_size=2, max_connections=2))
    slow, fast = Crowd(proxy, "app@std_2", 8, 0.1), Crowd(proxy, "app@std_1", 8, 0.02)
    counts = [0, 0]
    until = time.monotonic() + 2.0
    while time.monotonic() < until:
        counts[0] += slow.go_on()
        counts[1] += fast.go_on()
        time.sleep(0.001)
    assert 0.5 < counts[0] * 0.1 / (counts[1] * 0.02) < 2.5, "five where transactions were counted"
    slow.leave()
    fast.leave()


@pytest.mark.parametrize("layout", ["one pool", "a pool for each"])
def test_what_is_guaranteed_is_free_for_who_has_asked_of_late(
    start_proxy: StartProxy, all_tiers: Tables, layout: str
) -> None:
    login = "app@std_1" if layout == "one pool" else "other@std_1"
    tables = with_cluster(all_tiers, pool_size=4, max_connections=4)
    proxy = start_proxy(with_limits(tables, "std_1", guaranteed_connections="25%"))
    crowd = Crowd(proxy, "app@std_2", 20, 0.4)
    busy(proxy, crowd)
    client = proxy.raw(login)
    asked_beside(client, crowd, 1)
    wait_until(lambda: crowd.go_on() == 0 and client.value("SELECT 1") == "1")
    answered = sorted(asked_beside(client, crowd, 8))
    assert answered[4] == 0, "it waits for none of the crowd's transactions"
    crowd.leave()


def test_what_who_has_a_guarantee_asks_is_read_before_what_a_crowd_has_asked(
    start_proxy: StartProxy, all_tiers: Tables
) -> None:
    """There are connections for all, so that the order is the one in which they are read."""
    tables = with_cluster(all_tiers, pool_size=16, min_pool_size=16, max_connections=16)
    proxy = start_proxy(with_limits(tables, "std_1", guaranteed_connections=1))
    crowd = [proxy.raw("app@std_2") for _ in range(12)]
    client = proxy.raw("app@std_1")
    assert client.value("SELECT 1") == "1"
    wait_until(
        lambda: (
            [row["sv_idle"] for row in proxy.console("SHOW POOLS") if row["database"] == "appdb"] == ["16"]
        )
    )
    holding, released = threading.Event(), threading.Event()

    def hold() -> None:
        holding.set()
        released.wait(20)

    proxy.call(lambda: asyncio.get_running_loop().call_later(0.02, hold))
    assert holding.wait(20)
    for each in (*crowd, client):
        each.send(query("SELECT pg_sleep(0.5)"))
    released.set()

    def begun() -> dict[float, str]:
        """When, and whose."""
        sessions = [session for session in proxy.worker.plane.sessions if session.server is not None]
        return {session.server.query_since: session.tenant.name for session in sessions}

    wait_until(lambda: len(proxy.call(begun)) == 13)
    found = proxy.call(begun)
    assert "std_1" in [found[at] for at in sorted(found)][:3], "it was the last to ask"
    for each in (*crowd, client):
        each.read_ready()


def test_tenants_of_four_tiers_have_shares_as_their_weights(
    start_proxy: StartProxy, all_tiers: Tables
) -> None:
    """Long and short queries, and all want more than there is. Exact shares are those of tests/admission/test_turns.py."""
    weights = {"enterprise": 8, "vip": 4, "standard": 2, "free": 1}
    tables = with_cluster(all_tiers, pool_size=4, max_connections=4) | {
        f"tenant.a_{tier}": {"tier": tier, "cluster": "shared"} for tier in weights
    }
    proxy = start_proxy(tables)
    crowds = [
        Crowd(proxy, f"app@a_{tier}", count, seconds)
        for tier, count, seconds in zip(weights, (16, 12, 8, 8), (0.03, 0.02, 0.04, 0.01), strict=True)
    ]
    busy(proxy, *crowds)
    share_by(proxy, crowds, {f"a_{tier}": weight for tier, weight in weights.items()}, rel=0.2)
    for crowd in crowds:
        crowd.leave()


def share_by(proxy: Proxy | Fleet, crowds: list[Crowd], weights: dict[str, int], rel: float) -> None:
    """Until the tenants' parts of two seconds are as their weights."""
    seen = []

    def as_weights() -> bool:
        before, until = server_times(proxy), time.monotonic() + 2.0
        while time.monotonic() < until:
            for crowd in crowds:
                crowd.go_on()
        after = server_times(proxy)
        used = {name: after[name] - before[name] for name in weights}
        seen.append({name: time / sum(used.values()) for name, time in used.items()})
        due = {name: weight / sum(weights.values()) for name, weight in weights.items()}
        return seen[-1] == pytest.approx(due, rel=rel)

    try:
        wait_until(as_weights, 12)
    finally:
        print(seen)


def server_times(proxy: Proxy | Fleet) -> dict[str, int]:
    return {str(row["name"]): int(row["server_time"] or 0) for row in proxy.console("SHOW TENANTS")}
