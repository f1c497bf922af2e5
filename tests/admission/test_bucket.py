"""Token buckets: what is there, against a reference that keeps exact fractions."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.admission.bucket import Bucket


def test_it_is_full_at_first_and_again_after_a_time() -> None:
    bucket = Bucket(2.0, 3)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(100.4)
    assert bucket.take(100.5)
    assert [bucket.take(1000.0) for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("rate", "burst", "least"), [(50.0, 0, 50.0), (0.1, 0, 1.0), (50.0, 3, 3.0), (1000.0, 1, 10.0)]
)
def test_without_a_burst_it_holds_a_second_and_never_less_than_a_hundredth(
    rate: float, burst: int, least: float
) -> None:
    assert Bucket(rate, burst).burst == least


def test_the_wait_is_the_time_in_which_what_is_missing_comes() -> None:
    bucket = Bucket(10.0, 1)
    assert bucket.wait(5.0) == 0.0
    bucket.spend(1, 5.0)
    assert bucket.wait(5.0) == pytest.approx(0.1)
    assert bucket.wait(5.0, 4) == pytest.approx(0.4)
    bucket.spend(10, 5.0)
    assert bucket.wait(5.0) == pytest.approx(1.1), "what was spent without being there is made up for"
    assert not bucket.take(6.0)
    assert bucket.take(5.0 + bucket.wait(5.0))


def test_another_rate_holds_from_when_it_was_last_looked_at() -> None:
    bucket = Bucket(10.0, 10)
    bucket.spend(10, 50.0)
    bucket.change(100.0, 20)
    assert bucket.level(50.1) == pytest.approx(10.0)
    bucket.change(1.0, 5)
    assert bucket.level(50.1) == pytest.approx(5.0), "no more than it holds now"
    never = Bucket(1.0, 1)
    never.change(2.0, 7)
    assert never.level(0.0) == 7.0


class Exact:
    """The same with fractions, a step at a time."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst = Fraction(rate), Fraction(burst)
        self.level, self.at = self.burst, Fraction(0)

    def look(self, now: float) -> Fraction:
        self.level = min(self.burst, self.level + (Fraction(now) - self.at) * self.rate)
        self.at = Fraction(now)
        return self.level


@given(
    rate=st.floats(0.01, 100_000.0),
    burst=st.integers(1, 10_000),
    steps=st.lists(
        st.tuples(st.floats(0.0, 20.0), st.sampled_from(["take", "spend"]), st.integers(1, 50)), max_size=200
    ),
)
def test_it_holds_what_the_reference_holds_and_lets_through_no_more(
    rate: float, burst: int, steps: list[tuple[float, str, int]]
) -> None:
    bucket = Bucket(rate, burst)
    exact = Exact(rate, bucket.burst)
    now, spent = 0.0, 0
    for pause, what, count in steps:
        now += pause
        there = exact.look(now)
        assert bucket.level(now) == pytest.approx(float(there), rel=1e-9, abs=1e-5)
        if what == "spend":
            bucket.spend(count, now)
            exact.level -= count
        elif bucket.take(now, count):
            assert there >= count - Fraction(1, 100_000)
            exact.level -= count
            spent += count
        else:
            assert there < count
        assert spent <= bucket.burst + rate * now + 1e-3


def test_a_long_time_does_not_make_it_drift() -> None:
    bucket = Bucket(3.0, 2)
    taken, now = 0, 1_000_000.0
    for _ in range(100_000):
        taken += bucket.take(now)
        now += 0.1
    # Never full in between: what 10,000 seconds bring, and the first.
    assert taken == pytest.approx(30_000, abs=2)
