"""Whose wait has taken too long, found without a look at those whose has not.

Whoever waits stands in a line of those with the same times to wait, the one of the NOTICE and the one of the limit.
As a line is in the order of arrival, only its first may be over the limit, and those who have been told are its first
part: a mark stands at the first who has not been. It is linked through those who stand in it, so that it costs no
memory of its own and anybody may leave it at once. A limit that is changed meanwhile holds at the latest when the old
one would have.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from proxy.server.link import Link


class Pool(Protocol):
    def leave(self, waiter: Link) -> None: ...


class Line:
    """`untold` is the first who has not been told; a time of 0 is none."""

    __slots__ = ("first", "last", "limit", "notice", "untold")

    def __init__(self, notice: float, limit: float) -> None:
        self.notice = notice
        self.limit = limit
        self.first: Link | None = None
        self.last: Link | None = None
        self.untold: Link | None = None

    def push(self, waiter: Link) -> None:
        self._link(waiter, self.last, None)
        if self.untold is None:
            self.untold = waiter

    def insert(self, waiter: Link, told: bool) -> None:
        """One who has waited in another line, among those who began to wait when it did."""
        untold = self.untold
        behind, end = (self.first, untold) if told else (untold, None)
        while behind is not end and behind is not None and behind.waiting_since <= waiter.waiting_since:
            behind = behind.behind
        ahead = self.last if behind is None else behind.ahead
        self._link(waiter, ahead, behind)
        if not told and behind is untold:
            self.untold = waiter

    def _link(self, waiter: Link, ahead: Link | None, behind: Link | None) -> None:
        """It stands between these."""
        waiter.line, waiter.ahead, waiter.behind = self, ahead, behind
        if ahead is None:
            self.first = waiter
        else:
            ahead.behind = waiter
        if behind is None:
            self.last = waiter
        else:
            behind.ahead = waiter

    def remove(self, waiter: Link) -> None:
        ahead, behind = waiter.ahead, waiter.behind
        if ahead is None:
            self.first = behind
        else:
            ahead.behind = behind
        if behind is None:
            self.last = ahead
        else:
            behind.ahead = ahead
        if self.untold is waiter:
            self.untold = behind
        waiter.line = waiter.ahead = waiter.behind = None


class Deadlines:
    """A wait that is for no pool (None) has a limit elsewhere."""

    __slots__ = ("_latest", "_lines")

    def __init__(self) -> None:
        self._lines: dict[tuple[float, float], Line] = {}
        self._latest = Line(0.0, 0.0)  # that somebody has entered; the next most often does, too

    def begin(self, waiter: Link, pool: Pool | None) -> None:
        """It waits since its `waiting_since`, which is later than that of whoever has begun before."""
        notice, limit = waiter.wait_notice, waiter.wait_limit
        if pool is None:
            limit = 0.0
        if notice or limit:
            line = self._latest
            if line.notice != notice or line.limit != limit:
                line = self._latest = self._line(notice, limit)
            line.push(waiter)
            waiter.awaited = pool

    def _line(self, notice: float, limit: float) -> Line:
        line = self._lines.get((notice, limit))
        if line is None:
            line = self._lines[notice, limit] = Line(notice, limit)
        return line

    def end(self, waiter: Link) -> None:
        line: Any = waiter.line
        if line is not None:
            line.remove(waiter)
            waiter.awaited = None

    def to_tell(self, now: float) -> Iterator[Link]:
        """Each once."""
        for line in list(self._lines.values()):
            while line.notice:
                waiter = line.untold
                if waiter is None or now - waiter.waiting_since <= line.notice:
                    break
                line.untold = waiter.behind
                if not line.limit:
                    self.end(waiter)
                yield waiter

    def expired(self, now: float) -> Iterator[tuple[Link, Pool]]:
        for line in list(self._lines.values()):
            while line.limit:
                waiter = line.first
                if waiter is None or now - waiter.waiting_since <= line.limit:
                    break
                pool, limit, told = waiter.awaited, waiter.wait_limit, line.untold is not waiter
                line.remove(waiter)
                if limit and now - waiter.waiting_since > limit:
                    waiter.awaited = None
                    yield waiter, pool
                elif limit or (line.notice and not told):  # it was changed
                    self._line(line.notice, limit).insert(waiter, told)
                else:
                    waiter.awaited = None
            if line.first is None and line is not self._latest:
                del self._lines[line.notice, line.limit]

    def __len__(self) -> int:
        """How many stand in a line."""
        count = 0
        for line in self._lines.values():
            waiter = line.first
            while waiter is not None:
                waiter, count = waiter.behind, count + 1
        return count
