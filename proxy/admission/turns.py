"""Whose turn it is at something that is scarce: weighted deficit round robin, by server time used.

Theory. Time is counted in rounds. A round gives every tenant a millisecond of server time times its weight; what a
transaction takes beyond that the tenant owes, and it sits out the rounds in which the debt is paid. A plain deficit
round robin looks at a tenant in each of these; here `due`, the round in which it is out of debt, is computed when
it is charged, and whoever waits stands in that round's list (`Turns`). So the next is found without a look at
the others, however many they are. Inside a round it is first come, first served.

What is scarce has a Rota, and each tenant a Standing there. `now` is the round of who was served last. A tenant that
begins to wait is due now at the earliest: what it did not use while it had no wish for it is no credit. One that
waits keeps its round, however far the others get.

A transaction is charged what the tenant's last ones took when it is begun, so that many that begin together count at
once, and corrected as it goes on and when it is over. A debt is never more than MAX_DEBT rounds from now, so that
one long query costs its tenant seconds and not the day; and it is forgotten while nobody waits (`rest`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Any, Generic, TypeVar

ROUNDS = 1000.0  # in a second of server time, for a weight of one
MAX_DEBT = 2000.0
_SHORTEST = 0.0001  # seconds: what a transaction is charged at least when it is begun
_NEWS = 0.25  # how much a transaction counts in what the next is expected to take


class Place:
    """Something that waits. It is in one `turns` or, while that is None, in none."""

    __slots__ = ("round", "turns")

    def __init__(self) -> None:
        self.round = 0
        self.turns: Turns[Any] | None = None

    def free(self) -> None:
        """What it waited for may be had; it is in no turns any more."""

    def due_at(self, number: int) -> None:
        """Its tenant has been charged."""
        if self.turns is not None:
            self.turns.move(self, number)


P = TypeVar("P", bound=Place)


class Turns(Generic[P]):
    """Places by their rounds. A round that has become empty is kept until it would be the first."""

    __slots__ = ("_lists", "_order", "size")

    def __init__(self) -> None:
        self._lists: dict[int, OrderedDict[P, None]] = {}
        self._order: list[int] = []  # a heap of the keys of `_lists`
        self.size = 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[P]:
        for number in sorted(self._lists):
            yield from self._lists[number]

    def add(self, place: P, number: int, *, first: bool = False) -> None:
        """`first`: before the others of its round."""
        places = self._lists.get(number)
        if places is None:
            places = self._lists[number] = OrderedDict()
            heappush(self._order, number)
        places[place] = None
        if first:
            places.move_to_end(place, last=False)
        place.turns, place.round = self, number
        self.size += 1

    def remove(self, place: P) -> None:
        del self._lists[place.round][place]
        place.turns = None
        self.size -= 1

    def move(self, place: P, number: int) -> None:
        if number != place.round:
            self.remove(place)
            self.add(place, number)

    def put_last(self, place: P) -> None:
        """Behind the others of its round."""
        self._lists[place.round].move_to_end(place)

    def first(self) -> P | None:
        order, lists = self._order, self._lists
        while order:
            places = lists[order[0]]
            if places:
                return next(iter(places))
            del lists[heappop(order)]
        return None


class Crowd:
    """How many wait for whatever it be in this process: nobody is charged anything while nobody does."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting = 0


class Standing:
    """What one tenant has had of one thing. `due` is a round and what has gone of it."""

    __slots__ = ("due", "places", "rota")

    def __init__(self, rota: Rota) -> None:
        self.rota = rota
        self.due = rota.now
        self.places: dict[Place, None] = {}  # what waits here by its round

    @property
    def round(self) -> int:
        return int(self.due)

    def begin(self) -> None:
        """It wants something, and did not before."""
        if self.due < self.rota.now:
            self.due = self.rota.now

    def charge(self, seconds: float, weight: int) -> None:
        """Less than no seconds: it was charged too much before."""
        self.due = min(self.due + seconds * ROUNDS / weight, self.rota.now + MAX_DEBT)
        number = int(self.due)
        for place in list(self.places):
            place.due_at(number)


class Rota:
    """Who has had how much of one thing. `waiting`: how many transactions want something of it, in all queues."""

    __slots__ = ("_standings", "crowd", "guarantees", "name", "now", "waiting")

    def __init__(self, crowd: Crowd | None = None, name: str = "") -> None:
        self.name = name
        self._standings: dict[Any, Standing] = {}
        self.guarantees: dict[Any, Any] = {}  # by whom they are given to (see guarantees.py)
        self.crowd = crowd or Crowd()
        self.now = 0.0
        self.waiting = 0

    def standing(self, whose: Any) -> Standing:
        standing = self._standings.get(whose)
        if standing is None:
            standing = self._standings[whose] = Standing(self)
        return standing

    def serve(self, standing: Standing) -> None:
        """It has its turn."""
        if standing.due > self.now:
            self.now = standing.due

    def rest(self) -> None:
        """Where nobody waits all debts are forgotten, and who has had something."""
        if not self.waiting:
            self._standings.clear()
            if self.guarantees:
                self.guarantees = {whose: each for whose, each in self.guarantees.items() if each.in_use}


def expected(before: float, seconds: float) -> float:
    """What a tenant's next transaction will take if its last took `seconds`."""
    return max(_SHORTEST, before + (seconds - before) * _NEWS if before else seconds)
