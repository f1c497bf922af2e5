"""Whose wait has taken too long, found without a look at those whose has not.

Whoever waits stands in a line of those with the same number of seconds to wait, the one of the NOTICE and the one of the
limit; as each line is in the order of arrival, only its first may be due. It leaves both when its wait is over. A
limit that is changed meanwhile holds at the latest when the old one would have.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Protocol

from proxy.server.link import Link


class Pool(Protocol):
    def leave(self, waiter: Link) -> None: ...


Line = OrderedDict[Link, Pool | None]
_Lines = dict[float, Line]


class Deadlines:
    """A wait that is for no pool (None) has a limit elsewhere."""

    __slots__ = ("_limits", "_notices")

    def __init__(self) -> None:
        self._limits: _Lines = {}
        self._notices: _Lines = {}

    def begin(self, waiter: Link, pool: Pool | None) -> None:
        """It waits since its `waiting_since`, which is later than that of whoever has begun before."""
        notify = waiter.limits.query_wait_notify
        if notify:
            waiter.lines = (_enter(self._notices, notify, waiter, pool),)
        if pool is not None and waiter.wait_limit:
            waiter.lines = (*waiter.lines, _enter(self._limits, waiter.wait_limit, waiter, pool))

    def end(self, waiter: Link) -> None:
        if waiter.lines:
            for line in waiter.lines:
                line.pop(waiter, None)
            waiter.lines = ()

    def to_tell(self, now: float) -> Iterator[Link]:
        """Each once."""
        for waiter, _ in _due(self._notices, now):
            yield waiter

    def expired(self, now: float) -> Iterator[tuple[Link, Pool]]:
        for waiter, pool in _due(self._limits, now):
            limit = waiter.wait_limit
            if pool is None or not limit:
                continue
            if now - waiter.waiting_since > limit:
                yield waiter, pool
            else:  # it was changed; the others of that line are younger
                line = _enter(self._limits, limit, waiter, pool)
                line.move_to_end(waiter, last=False)
                waiter.lines = (*waiter.lines, line)

    def __len__(self) -> int:
        return sum(len(line) for lines in (self._limits, self._notices) for line in lines.values())


def _enter(lines: _Lines, seconds: float, waiter: Link, pool: Pool | None) -> Line:
    line = lines.get(seconds)
    if line is None:
        line = lines[seconds] = OrderedDict()
    line[waiter] = pool
    return line


def _due(lines: _Lines, now: float) -> Iterator[tuple[Link, Pool | None]]:
    for seconds, line in list(lines.items()):
        while line:
            waiter = next(iter(line))
            if now - waiter.waiting_since <= seconds:
                break
            yield waiter, line.pop(waiter)
        if not line:
            del lines[seconds]
