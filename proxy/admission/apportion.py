"""How many permits of a counter are each tenant's at each worker, so that it gets its share wherever its clients are.

Theory. Workers say which tenants want how many connections there (`Wish`). All are looked at together: each tenant gets
as much as its weight is worth among those that want more, no less than what is guaranteed to it, and no more than it
wants (`Division`). A tenant that has clients at several workers gets it where these are, by their number. What a worker
is due is the sum over its tenants; permits are whole, so it has a little more or less.

Inside a worker tenants are served by weight, and there one that has clients elsewhere, too, would get too much. So each
worker is told which part of a tenant's weight is its (`parts`), of the permits that it has: found by scaling what is
wanted, by turns so that it adds up to what each worker has, and to what each tenant is to get.

A worker names its tenants of most weight only, and adds up the others. These are taken to be at as many workers as the
named are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

_HALVINGS = 40
_SCALINGS = 100  # at most, and where many are to be scaled
_FEWEST_SCALINGS, _WORK = 8, 20_000
_NEAR = 0.002  # of what it is to be: near enough
_LEAST = 0.02  # part of a weight

Key = str | int  # a tenant's name, or the number of the worker whose others they are


class Wish(NamedTuple):
    """`wanted`: connections that the tenant uses or waits for; "" are all that are not named."""

    tenant: str
    weight: float
    wanted: int
    floor: float  # what is guaranteed of them


class Division:
    """Of `limit` permits, by the wishes of each worker."""

    __slots__ = ("_columns", "_copies", "_counts", "_limited", "_rows", "_weights", "floors")

    def __init__(self, wishes: Mapping[int, Sequence[Wish]], limit: int) -> None:
        self._rows: dict[int, dict[Key, int]] = {}
        self._weights: dict[Key, float] = {}
        self._counts: dict[Key, int] = {}
        floors: dict[Key, float] = {}
        self.floors = {worker: sum(wish.floor for wish in own) for worker, own in wishes.items()}
        named = [wish.tenant for own in wishes.values() for wish in own if wish.tenant]
        self._copies = copies = len(named) / len(set(named)) if named else 1.0
        for worker, own in wishes.items():
            row = self._rows[worker] = {}
            for wish in own:
                key: Key = wish.tenant or worker
                weight = wish.weight if wish.tenant else wish.weight / copies
                count = max(1, wish.wanted)
                row[key] = count
                self._weights[key] = max(weight, self._weights.get(key, 0.0))
                self._counts[key] = self._counts.get(key, 0) + count
                floors[key] = floors.get(key, 0.0) + wish.floor
        self._columns = self._divide(limit, floors)
        self._limited = {key for key, count in self._columns.items() if count >= self._counts[key]}

    def _divide(self, limit: int, floors: Mapping[Key, float]) -> dict[Key, float]:
        """To each tenant as its weight is, between what is guaranteed and what is wanted."""

        def at(level: float) -> dict[Key, float]:
            return {
                key: min(count, max(floors[key], self._weights[key] * level))
                for key, count in self._counts.items()
            }

        low, high = 0.0, limit / min(self._weights.values(), default=1.0)
        if sum(at(high).values()) <= limit:
            return at(high)
        for _ in range(_HALVINGS):
            level = (low + high) / 2
            if sum(at(level).values()) > limit:
                high = level
            else:
                low = level
        return at(low)

    def due(self) -> dict[int, float]:
        """How many permits each worker is to have: one at least, as long as there are enough."""
        due = {
            worker: sum(self._columns[key] * count / self._counts[key] for key, count in row.items())
            for worker, row in self._rows.items()
        }
        total = sum(due.values())
        few: set[int] = set()
        while fewer := {worker for worker, count in due.items() if count < 1.0} - few:
            few |= fewer
            others = sum(count for worker, count in due.items() if worker not in few)
            if others <= 0.0 or total <= len(few):
                break
            ratio = (total - len(few)) / others
            due = {worker: 1.0 if worker in few else count * ratio for worker, count in due.items()}
        return due

    def parts(self, held: Mapping[int, float], *, just_now: bool = False) -> dict[int, dict[str, float]]:
        """The part of its weight that a tenant has at each worker, where it is not all of it. Who gets all that it wants
        has it everywhere. `just_now`: so many whole ones a worker has for the moment, and not on the average. These
        are only come near to: that one tenant has all of its share elsewhere would leave its clients here with nothing."""
        table = {
            worker: {key: float(count) for key, count in row.items() if key not in self._limited}
            for worker, row in self._rows.items()
        }
        due = self.due()
        rows = {}
        for worker in table:
            satisfied = sum(
                self._columns[key] * count / self._counts[key]
                for key, count in self._rows[worker].items()
                if key in self._limited
            )
            rows[worker] = max(held.get(worker, 0) - satisfied, 0.1 * due[worker])
        columns = {
            key: [row for row in table.values() if key in row]
            for key in self._columns
            if key not in self._limited
        }
        size = sum(map(len, table.values()))
        most = _FEWEST_SCALINGS if just_now else _SCALINGS
        for _ in range(min(most, max(_FEWEST_SCALINGS, _WORK // max(1, size)))):
            for worker, row in table.items():
                _scale_row(row, rows[worker])
            furthest = 0.0
            for key, among in columns.items():
                furthest = max(furthest, _scale_column(among, key, self._columns[key]))
            if furthest < _NEAR:
                break
        found: dict[int, dict[str, float]] = {}
        for worker, row in table.items():
            parts = {key: value / self._weights[key] for key, value in row.items()}
            if worker in parts:
                parts[worker] /= self._copies  # each of them has its weight here and elsewhere
            whole = parts.get(worker) or max(parts.values(), default=1.0)  # the others have all of theirs
            found[worker] = {
                key: min(1 / _LEAST, max(_LEAST, round(part / whole, 3)))
                for key, part in parts.items()
                if isinstance(key, str) and part != whole
            }
        return found


def _scale_row(row: dict[Key, float], total: float) -> None:
    """What one worker's tenants have becomes so much in all."""
    now = sum(row.values())
    if now > 0.0:
        ratio = total / now
        for key in row:
            row[key] *= ratio


def _scale_column(rows: Sequence[dict[Key, float]], key: Key, total: float) -> float:
    """What a tenant has everywhere becomes so much in all. Which part of it was missing, or too much."""
    now = sum([row[key] for row in rows])
    if now <= 0.0:
        return 0.0
    ratio = total / now
    for row in rows:
        row[key] *= ratio
    return abs(ratio - 1.0)
