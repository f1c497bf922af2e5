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

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Any

ROUNDS = 1000.0  # in a second of server time, for a weight of one
MAX_DEBT = 2000.0
_ROUNDS, _MAX_DEBT = ROUNDS, MAX_DEBT  # the same as numbers of C
_SHORTEST = 0.0001  # seconds: what a transaction is charged at least when it is begun
_NEWS = 0.25  # how much a transaction counts in what the next is expected to take


class Place:
    """Something that waits. It is in one `turns` or, while that is None, in none; there it stands between two others of
    its round, if it is in a ring at all."""

    __slots__ = ("after", "before", "round", "turns")

    def __init__(self) -> None:
        self.round = 0
        self.turns: Turns | None = None
        self.after: Place | None = None
        self.before: Place | None = None

    def free(self) -> None:
        """What it waited for may be had; it is in no turns any more."""

    def due_at(self, number: int) -> None:
        """Its tenant has been charged."""
        if self.turns is not None:
            self.turns.move(self, number)


class Turns:
    """Places by their rounds. Those of a round are a ring, which begins and ends at a place that is nobody's, so that
    each may leave it at once. A round that has become empty is kept until it would be the first. One that waits alone,
    as where one tenant has all of a pool's clients, stands in no ring, and is moved by a number."""

    __slots__ = ("_alone", "_order", "_rings", "size")

    def __init__(self) -> None:
        self._rings: dict[int, Place] = {}
        self._order: list[int] = []  # a heap of the keys of `_rings`
        self._alone: Place | None = None
        self.size = 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Any]:
        if self._alone is not None:
            yield self._alone
        for number in sorted(self._rings):
            ring = self._rings[number]
            place = ring.after
            while place is not None and place is not ring:
                yield place
                place = place.after

    def add(self, place: Place, number: int, first: bool = False) -> None:
        """`first`: before the others of its round."""
        place.turns, place.round = self, number
        self.size += 1
        if self.size == 1:
            self._alone = place
            return
        alone = self._alone
        if alone is not None:
            self._alone = None
            self._put(alone, False)
        self._put(place, first)

    def _put(self, place: Place, first: bool) -> None:
        """Into the ring of its round."""
        number = place.round
        ring = self._rings.get(number)
        if ring is None:
            ring = self._rings[number] = Place()
            ring.after = ring.before = ring
            heappush(self._order, number)
        after = ring.after if first else ring
        assert after is not None
        before = after.before
        assert before is not None
        place.before, place.after = before, after
        before.after = after.before = place

    def _pull(self, place: Place) -> None:
        """Out of its ring, if it is in one."""
        if place is self._alone:
            self._alone = None
            return
        before, after = place.before, place.after
        assert before is not None
        assert after is not None
        before.after, after.before = after, before
        place.before = place.after = None

    def remove(self, place: Place) -> None:
        self._pull(place)
        place.turns = None
        self.size -= 1

    def move(self, place: Place, number: int) -> None:
        if number == place.round:
            return
        if self.size == 1:
            if self._alone is None:  # the others have left
                self._pull(place)
                self._alone = place
            place.round = number
            return
        self._pull(place)
        place.round = number
        self._put(place, False)

    def put_last(self, place: Place) -> None:
        """Behind the others of its round."""
        if place is not self._alone:
            self._pull(place)
            self._put(place, False)

    def first(self) -> Any:
        """The Place whose turn it is, or None."""
        if self._alone is not None:
            return self._alone
        order, rings = self._order, self._rings
        while order:
            ring = rings[order[0]]
            place = ring.after
            if place is not ring:
                return place
            ring.after = ring.before = None
            del rings[heappop(order)]
        return None


class Crowd:
    """How many wait for whatever it be in this process: nobody is charged anything while nobody does."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting = 0


class Standing:
    """What one tenant has had of one thing. `due` is a round and what has gone of it. `part`: of its weight, where the
    thing is shared with other processes and the tenant wants some there, too."""

    __slots__ = ("due", "part", "places", "rota")

    def __init__(self, rota: Rota) -> None:
        self.rota = rota
        self.due = rota.now
        self.part = 1.0
        self.places: dict[Place, None] = {}  # what waits here by its round; who was served last is the last

    @property
    def round(self) -> int:
        return int(self.due)

    def begin(self) -> None:
        """It wants something, and did not before."""
        if self.due < self.rota.now:
            self.due = self.rota.now

    def served(self, place: Place) -> None:
        """Those that wait elsewhere come before it where all of them are due in one round."""
        if len(self.places) > 1:
            del self.places[place]
            self.places[place] = None

    def charge(self, seconds: float, weight: int) -> None:
        """Less than no seconds: it was charged too much before."""
        before = int(self.due)
        due, most = self.due + seconds * _ROUNDS / (weight * self.part), self.rota.now + _MAX_DEBT
        self.due = most if due > most else due
        number = int(self.due)
        if number == before:  # and each of the places is there
            return
        if len(self.places) > 1:
            for place in list(self.places):
                place.due_at(number)
            return
        for place in self.places:
            place.due_at(number)


class Rota:
    """Who has had how much of one thing. `waiting`: how many transactions want something of it, in all queues."""

    __slots__ = ("_last", "_standings", "_whose", "crowd", "guarantees", "name", "now", "waiting")

    def __init__(self, crowd: Crowd | None = None, name: str = "") -> None:
        self.name = name
        self._standings: dict[Any, Standing] = {}
        self._whose: Any = None  # whose was asked for last; it is most often the next
        self._last: Standing | None = None
        self.guarantees: dict[Any, Any] = {}  # by whom they are given to (see guarantees.py)
        self.crowd = crowd or Crowd()
        self.now = 0.0
        self.waiting = 0

    def standing(self, whose: Any) -> Standing:
        standing = self._last
        if standing is None or whose is not self._whose:
            standing = self._standings.get(whose)
            if standing is None:
                standing = self._standings[whose] = Standing(self)
            self._whose, self._last = whose, standing
        return standing

    def serve(self, standing: Standing) -> None:
        """It has its turn."""
        if standing.due > self.now:
            self.now = standing.due

    def rest(self) -> None:
        """Where nobody waits all debts are forgotten, and who has had something."""
        if not self.waiting:
            self._standings.clear()
            self._whose = self._last = None
            if self.guarantees:
                self.guarantees = {whose: each for whose, each in self.guarantees.items() if each.in_use}


def expected(before: float, seconds: float) -> float:
    """What a tenant's next transaction will take if its last took `seconds`."""
    if before:
        seconds = before + (seconds - before) * _NEWS
    return _SHORTEST if seconds < _SHORTEST else seconds
