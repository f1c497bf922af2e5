"""Who has waited too long, against a reference that looks at everybody, and what finding them costs."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proxy.server.deadlines import Deadlines
from tests.server.recording import Waiter, account


class Pool:
    def leave(self, waiter: Any) -> None:
        """Nothing to do."""


ACCOUNT, POOL = account("a"), Pool()


def waiter(limit: float, notify: float, since: float) -> Waiter:
    made = Waiter(ACCOUNT, wait_limit=limit)
    made.wait_notice = notify
    made.waiting_since = since
    return made


_steps = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.sampled_from([0.0, 1.0, 5.0]), st.sampled_from([0.0, 2.0])),
        st.tuples(st.just("end"), st.integers(0, 20), st.just(0)),
        st.tuples(st.just("pass"), st.floats(0.1, 3.0), st.just(0)),
    ),
    max_size=60,
)


@given(_steps)
def test_those_are_found_who_are_due(script: list[tuple[str, float, float]]) -> None:
    deadlines, now = Deadlines(), 100.0
    waiting: list[Waiter] = []
    told: list[Waiter] = []
    for what, one, other in script:
        if what == "begin":
            waiting.append(waiter(one, other, now))
            deadlines.begin(waiting[-1], POOL)
        elif what == "end" and waiting:
            deadlines.end(waiting.pop(int(one) % len(waiting)))
        elif what == "pass":
            now += one
            due = [w for w in waiting if w.wait_notice and w not in told]
            due = [w for w in due if now - w.waiting_since > w.wait_notice]
            found = list(deadlines.to_tell(now))
            assert sorted(map(id, found)) == sorted(map(id, due))
            told += found
            over = [w for w in waiting if w.wait_limit and now - w.waiting_since > w.wait_limit]
            gone = [found for found, pool in deadlines.expired(now) if pool is POOL]
            assert sorted(map(id, gone)) == sorted(map(id, over))
            for each in over:
                deadlines.end(each)
                waiting.remove(each)
    for each in waiting:
        deadlines.end(each)
    assert len(deadlines) == 0


def test_a_limit_that_has_changed_holds_when_the_old_one_would_have() -> None:
    deadlines = Deadlines()
    longer, shorter, none = (waiter(5.0, 0.0, 0.0) for _ in range(3))
    for each in (longer, shorter, none):
        deadlines.begin(each, POOL)
    deadlines.begin(waiter(8.0, 0.0, 3.0), POOL)
    longer.wait_limit, shorter.wait_limit, none.wait_limit = 8.0, 1.0, 0.0
    assert [found for found, _ in deadlines.expired(5.1)] == [shorter]
    assert [found for found, _ in deadlines.expired(7.9)] == []
    assert [found for found, _ in deadlines.expired(8.1)] == [longer]
    deadlines.end(longer)
    assert len(deadlines) == 1


@given(
    st.lists(st.tuples(st.integers(0, 8), st.booleans(), st.booleans()), max_size=12),
    st.sampled_from([0.0, 2.0, 6.0, 12.0]),
)
def test_whoever_has_changed_to_another_line_is_told_once_and_in_time(
    script: list[tuple[int, bool, bool]], notice: float
) -> None:
    """Those with five seconds may get ten meanwhile, and then stand among those who have had ten before."""
    deadlines, now = Deadlines(), 100.0
    waiting: list[Waiter] = []
    told: list[Waiter] = []
    expired: list[Waiter] = []
    for pauses, short, changed in [*script, (40, False, False)]:
        for _ in range(pauses):
            now += 0.5
            told += deadlines.to_tell(now)
            expired += [each for each, _ in deadlines.expired(now)]
            for each in waiting:
                since = now - each.waiting_since
                assert (each in expired) is (since > each.wait_limit)
                assert (each in told) is (bool(notice) and since > notice and notice < each.wait_limit)
        waiting.append(waiter(5.0 if short else 10.0, notice, now))
        deadlines.begin(waiting[-1], POOL)
        if changed:
            waiting[-1].wait_limit = 10.0
    assert len(set(told)) == len(told)
    assert len(set(expired)) == len(expired)
    assert len(deadlines) == 1  # the last


def test_a_wait_that_is_for_no_pool_is_only_told_of() -> None:
    deadlines = Deadlines()
    throttled = waiter(1.0, 1.0, 0.0)
    deadlines.begin(throttled, None)
    assert list(deadlines.expired(9.0)) == []
    assert list(deadlines.to_tell(9.0)) == [throttled]
    assert list(deadlines.to_tell(10.0)) == []


def test_whoever_is_not_due_is_not_looked_at() -> None:
    class Counting(Waiter):
        looks = 0

        def __getattribute__(self, name: str) -> Any:
            if name == "waiting_since":
                Counting.looks += 1
            return super().__getattribute__(name)

    deadlines = Deadlines()
    for _ in range(1000):
        made = Counting(ACCOUNT, wait_limit=120.0)
        made.wait_notice = 5.0
        made.waiting_since = 0.0
        deadlines.begin(made, POOL)
    Counting.looks = 0
    for _ in range(20):
        assert not list(deadlines.to_tell(4.0))
        assert not list(deadlines.expired(4.0))
    assert Counting.looks <= 40
