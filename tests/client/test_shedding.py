"""Who is ended where this process may have fewer permits than it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from proxy.admission.accounts import Counter
from proxy.client.shedding import shed
from proxy.errors import TiergateError

if TYPE_CHECKING:
    from proxy.client.plane import Plane

NAME = "tenant acme max_connections"


class Holder:
    """A session with one permit of each counter, which comes back at once or is on its way."""

    def __init__(self, *counters: Counter, rests: bool, at_once: bool = True) -> None:
        self.rests = rests
        self.told: list[TiergateError] = []
        self._counters = counters
        self._at_once = at_once
        for counter in counters:
            counter.used += 1

    def counters(self) -> tuple[Counter, ...]:
        return self._counters

    def end(self, error: TiergateError) -> None:
        self.told.append(error)
        for counter in self._counters:
            if self._at_once:
                counter.used -= 1
            else:
                counter.leaving += 1


class House:
    def __init__(self, *holders: Holder) -> None:
        self.sessions = holders


def shed_to(house: House, *rows: tuple[str, int]) -> int:
    return shed(cast("Plane", house), rows)


@pytest.mark.parametrize("at_once", [True, False])
def test_those_who_rest_leave_first_and_no_more_than_must(at_once: bool) -> None:
    counter = Counter(NAME)
    busy = [Holder(counter, rests=False, at_once=at_once) for _ in range(3)]
    resting = [Holder(counter, rests=True, at_once=at_once) for _ in range(2)]
    house = House(busy[0], resting[0], busy[1], resting[1], busy[2])
    assert shed_to(house, (NAME, 4)) == 1
    assert [len(each.told) for each in busy] == [0, 0, 0]
    assert sum(len(each.told) for each in resting) == 1
    assert counter.used - counter.leaving == 4


def test_who_is_busy_leaves_where_those_who_rest_are_not_enough() -> None:
    counter = Counter(NAME)
    busy = [Holder(counter, rests=False) for _ in range(3)]
    resting = Holder(counter, rests=True)
    assert shed_to(House(*busy, resting), (NAME, 1)) == 3
    (error,) = resting.told
    assert error.sqlstate == "53300"
    assert NAME in str(error)
    assert counter.used == 1


def test_others_are_left_alone() -> None:
    counter, other = Counter(NAME), Counter("tenant globex max_connections")
    stranger = Holder(other, rests=True)
    holder = Holder(counter, rests=True)
    house = House(stranger, holder)
    assert shed_to(house, (NAME, 1), ("tenant nobody max_connections", 0)) == 0
    assert shed_to(house, (NAME, 0)) == 1
    assert (len(stranger.told), len(holder.told)) == (0, 1)
