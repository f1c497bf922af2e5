"""Rates hold over all workers of a host together, and are all used, also when a worker has been killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from proxy.cli.embedded import EmbeddedServer
from tests.integration.test_worker_caps import text
from tests.integration.test_workers import Fleet, running
from tests.rawclient import RawClient, errors, sqlstates
from tests.waiting import wait_until

QPS, BURST = 50, 10
SECONDS = 1.2


@pytest.fixture(scope="module")
def fleet(shared: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    limits = {"max_qps": QPS, "burst": BURST, "rate_wait": "20ms"}
    config = text(
        shared, 3, tenant__std_1={"limits": limits}, tenant__std_2={"limits": {"max_queries_per_day": 40}}
    )
    with running(tmp_path_factory.mktemp("rates") / "tiergate.toml", config) as fleet:
        yield fleet


def let_in(clients: list[RawClient], seconds: float) -> tuple[int, float]:
    """How many queries of clients that ask without a pause, and in which time."""
    counts = [0] * len(clients)
    began = time.monotonic()

    def asks(number: int) -> None:
        while time.monotonic() - began < seconds:
            states = sqlstates(clients[number].query("SELECT 1"))
            assert states in ([], ["53400"])
            counts[number] += not states

    threads = [threading.Thread(target=asks, args=(number,)) for number in range(len(clients))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts), time.monotonic() - began


def all_is_used(clients: list[RawClient]) -> None:
    """Never more than the rate, and nearly all of it where the machine lets the clients ask so fast."""

    def nearly() -> bool:
        count, took = let_in(clients, SECONDS)
        assert count <= BURST + QPS * took + 1
        return count >= 0.8 * QPS * took

    wait_until(nearly, 20)


def test_a_rate_over_workers_one_of_which_dies(fleet: Fleet) -> None:
    by_worker = fleet.spread()
    all_is_used([of_one[0] for of_one in by_worker.values()])
    victim, *others = by_worker
    pid = fleet.workers()[victim]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pid not in fleet.workers().values(), what="its end")
    all_is_used([by_worker[worker][0] for worker in others])
    assert fleet.metric("tiergate_refused_queries_total") > 0
    tenant = next(row for row in fleet.console("SHOW TENANTS") if row["name"] == "std_1")
    assert int(tenant["refused_rate"] or 0) > 0


def test_a_days_quota_over_workers(fleet: Fleet) -> None:
    wait_until(lambda: len(fleet.workers()) == 3)
    clients = [fleet.client("app@std_2") for _ in range(6)]
    outcomes = [errors(client.query("SELECT 1")) for _ in range(15) for client in clients]
    assert sum(not outcome for outcome in outcomes) == 40
    refused = [outcome[0]["D"] for outcome in outcomes if outcome]
    assert all(detail.startswith("max_queries_per_day is 40. Retry in ") for detail in refused)
