"""One decision for all workers, by the sum of what they have measured."""

from __future__ import annotations

from typing import Any

from proxy.admission.adaptive import BUCKETS, Decision, Window
from proxy.supervisor.concurrency import Concurrency


def told(octave: int, count: int, running: int = 4, highest: int = 40) -> list[Any]:
    octaves = [0] * BUCKETS
    octaves[BUCKETS // 2 + 8 * octave] = count
    return ["shared", 2, highest, *Window(octaves, -7.0 * count, running, True)]


def decided(concurrency: Concurrency) -> Decision:
    ((name, *decision),) = concurrency.look()
    assert name == "shared"
    return Decision(*decision)


def test_what_workers_have_measured_is_added_up() -> None:
    concurrency = Concurrency()
    concurrency.hear(1, [told(0, 30)])
    assert decided(concurrency).why == "nothing was measured yet", "that was too little"
    concurrency.hear(1, [told(0, 10)])
    concurrency.hear(2, [told(0, 10)])
    decision = decided(concurrency)
    assert decision.limit > 8
    assert decision.baseline == 2**-7.0
    for _ in range(3):
        concurrency.hear(1, [told(2, 20)])
        concurrency.hear(2, [told(2, 20)])
        decision = decided(concurrency)
    assert decision.resting
    assert decision.limit < 12


def test_a_worker_that_tells_twice_between_two_looks_runs_no_more_for_it() -> None:
    concurrency = Concurrency()
    concurrency.hear(1, [told(0, 30, running=3)])
    concurrency.hear(1, [told(0, 30, running=5)])
    assert concurrency._clusters["shared"].told[1].running == 5
    assert concurrency._clusters["shared"].told[1].samples == 60


def test_where_workers_disagree_the_lowest_maximum_holds() -> None:
    concurrency = Concurrency()
    concurrency.hear(1, [told(0, 30, highest=6)])
    concurrency.hear(2, [told(0, 30)])
    assert decided(concurrency).limit == 6
    concurrency.hear(1, [told(0, 30)])
    concurrency.hear(2, [told(0, 30)])
    assert decided(concurrency).limit > 6


def test_a_cluster_of_which_nobody_tells_is_forgotten() -> None:
    concurrency = Concurrency()
    concurrency.hear(1, [told(0, 30)])
    for _ in range(61):
        assert len(concurrency.look()) == 1
    assert concurrency.look() == []
