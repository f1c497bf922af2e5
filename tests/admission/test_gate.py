"""Who may come in, who waits how long, and who is told at once that it would be too long."""

from __future__ import annotations

import pytest

from proxy.admission.gate import Gate, rated
from proxy.errors import RateExceeded, TiergateError
from proxy.model import UNLIMITED, Limits
from proxy.stats import TenantStats


class Someone:
    def __init__(self) -> None:
        self.told: list[TiergateError | None] = []

    def admitted(self) -> None:
        self.told.append(None)

    def turned_away(self, error: TiergateError) -> None:
        self.told.append(error)


class Line:
    def __init__(self, **limits: float) -> None:
        self.stats = TenantStats()
        self.gate = Gate("acme", self.stats)
        self.gate.update(Limits(**limits).over(UNLIMITED))  # type: ignore[arg-type]

    def wait(self, now: float) -> Someone:
        assert not self.gate.ask(now)
        who = Someone()
        self.gate.join(who, now)
        return who


def line(qps: float = 10, burst: int = 1, wait: float = 0.25) -> Line:
    return Line(max_qps=qps, burst=burst, rate_wait=wait)


def test_without_a_rate_there_is_nothing_to_hold() -> None:
    assert not rated(UNLIMITED)
    assert not Gate("acme", TenantStats()).update(UNLIMITED)
    assert Gate("acme", TenantStats()).update(Limits(max_qps=1).over(UNLIMITED))


def test_who_comes_too_early_waits_in_turn() -> None:
    gate = (held := line()).gate
    assert gate.ask(0.0)
    first, second = held.wait(0.0), held.wait(0.0)
    assert not gate.take(0.3), "nobody goes past those who wait"
    assert gate.next(0.05) is None
    assert gate.due(0.05) == pytest.approx(0.05)
    assert gate.next(0.1) == (first, None)
    assert gate.next(0.1) is None
    assert gate.next(0.21) == (second, None)
    assert held.stats.throttled == 2
    assert held.stats.throttled_seconds == pytest.approx(0.31)


def test_a_wait_that_is_too_long_is_known_at_once() -> None:
    gate = (held := line()).gate
    gate.ask(0.0)
    held.wait(0.0)
    held.wait(0.0)
    with pytest.raises(RateExceeded) as refused:
        gate.ask(0.0)
    assert refused.value.sqlstate == "53400"
    assert refused.value.detail == "max_qps is 10 with a burst of 1. Retry in 0.30 seconds."
    assert (held.stats.throttled, held.stats.refused_rate) == (2, 1)


def test_who_leaves_the_line_costs_nobody_anything() -> None:
    gate = (held := line()).gate
    gate.ask(0.0)
    first, second = held.wait(0.0), held.wait(0.0)
    gate.leave(first)
    assert gate.next(0.1) == (second, None)


def test_what_could_not_be_refused_is_made_up_for() -> None:
    gate = (held := line()).gate
    gate.ask(0.0)
    waits = held.wait(0.0)
    gate.spend(30, 0.05)
    found = gate.next(0.1)
    assert found is not None
    assert found[0] is waits
    assert isinstance(found[1], RateExceeded), "the wait can no longer be met"
    with pytest.raises(RateExceeded, match="asks more queries"):
        gate.ask(2.0)
    assert gate.ask(3.5)


def test_a_rate_that_is_lifted_lets_all_in() -> None:
    gate = (held := line()).gate
    gate.ask(0.0)
    first, second = held.wait(0.0), held.wait(0.0)
    assert not gate.update(UNLIMITED)
    assert [gate.next(0.0), gate.next(0.0), gate.next(0.0)] == [(first, None), (second, None), None]


def test_another_rate_holds_for_those_who_wait_already() -> None:
    gate = (held := line()).gate
    gate.ask(0.0)
    first = held.wait(0.0)
    gate.update(Limits(max_qps=1000, burst=1, rate_wait=0.25).over(UNLIMITED))
    assert gate.next(0.002) == (first, None)


def test_the_last_who_leaves_silences_the_bell() -> None:
    class Bell:
        rings = True

        def cancel(self) -> None:
            self.rings = False

    gate = (held := line()).gate
    gate.ask(0.0)
    first, second = held.wait(0.0), held.wait(0.0)
    bell = gate.bell = Bell()
    gate.leave(first)
    assert bell.rings
    gate.leave(second)
    assert not bell.rings
    assert gate.bell is None


@pytest.mark.parametrize(("wait", "said"), [(0.0, "0.10"), (5.0, "5.10"), (50.0, "51"), (5000.0, "5001")])
def test_who_comes_back_when_told_is_let_in(wait: float, said: str) -> None:
    gate = line(wait=0.0).gate
    gate.ask(0.0)
    gate.spend(int(wait * 10), 0.0)
    with pytest.raises(RateExceeded) as refused:
        gate.ask(0.0)
    assert f"Retry in {said} seconds." in refused.value.detail
    assert gate.ask(float(said))


def test_of_a_quota_what_is_left_may_be_asked_until_midnight() -> None:
    stats = TenantStats()
    gate = Gate("acme", stats, utc=86_400.0 * 3 - 100.0)  # at 100 it is midnight
    limits = Limits(max_queries_per_day=3).over(UNLIMITED)
    gate.update(limits)
    assert gate.ask(0.0)
    gate.spend(1, 1.0)
    assert gate.take(2.0)
    gate.spend(4, 3.0)  # within a block
    assert not gate.take(40.0)
    with pytest.raises(RateExceeded) as refused:
        gate.ask(40.0)
    assert refused.value.detail == "max_queries_per_day is 3. Retry in 60 seconds."
    assert (stats.refused_quota, stats.refused_rate) == (1, 0)
    gate.update(Limits(max_queries_per_day=8).over(UNLIMITED))
    assert gate.ask(41.0), "one more of today's"
    with pytest.raises(RateExceeded):
        gate.ask(42.0)
    assert not gate.update(UNLIMITED)
    assert gate.ask(43.0)
    gate.update(limits)
    with pytest.raises(RateExceeded):
        gate.ask(99.9)
    assert gate.ask(100.0), "another day"


def test_who_has_moved_too_many_bytes_is_slowed_down_not_failed() -> None:
    stats = TenantStats()
    stats.bytes = 5_000_000  # before there was a rate
    gate = Gate("acme", stats)
    gate.update(Limits(max_bytes_per_second=1000, query_wait_timeout=60).over(UNLIMITED))
    assert gate.ask(0.0)
    stats.bytes += 11_000
    assert not gate.ask(0.0)
    who = Someone()
    gate.join(who, 0.0)
    assert gate.due(0.0) == pytest.approx(10.0)
    assert gate.next(9.9) is None
    assert gate.next(10.0) == (who, None)
    stats.bytes += 100_000
    with pytest.raises(RateExceeded) as refused:
        gate.ask(10.0)
    assert refused.value.detail == "max_bytes_per_second is 1000. Retry in 100 seconds."
    gate.update(Limits(max_bytes_per_second=1000, query_wait_timeout=0).over(UNLIMITED))
    assert not gate.ask(10.0), "no bound"


def test_a_wait_for_bytes_does_not_count_as_one_for_queries() -> None:
    stats = TenantStats()
    gate = Gate("acme", stats)
    limits = Limits(max_bytes_per_second=1000, max_qps=10, burst=1, rate_wait=0.25, query_wait_timeout=60)
    gate.update(limits.over(UNLIMITED))
    assert gate.ask(0.0)
    stats.bytes += 3_000
    first, second, third = Someone(), Someone(), Someone()
    for who in (first, second, third):
        assert not gate.ask(0.0)
        gate.join(who, 0.0)
    assert gate.next(1.99) is None
    assert gate.next(2.0) == (first, None)
    assert gate.next(2.0) is None
    assert gate.next(2.1) == (second, None)
    assert gate.next(2.2) == (third, None)


def test_what_waits_when_the_quota_is_used_up_waits_in_vain() -> None:
    gate = Gate("acme", TenantStats())
    gate.update(Limits(max_qps=10, burst=1, max_queries_per_day=2, rate_wait=1).over(UNLIMITED))
    assert gate.ask(1.0)
    who = Someone()
    assert not gate.ask(1.0)
    gate.join(who, 1.0)
    gate.spend(1, 1.05)
    found = gate.next(1.1)
    assert found is not None
    assert found[0] is who
    assert isinstance(found[1], RateExceeded)
