"""A worker's side of the rates of a host: what it holds of each bucket, what it has spent, what it needs.

A Slice stands in a gate for the bucket that all workers share (`shares.py`). What it holds it may spend without asking
anybody; what is spent is told a little later, together with what is wanted for the next while, so that under a steady
load nobody waits for an answer. Who finds nothing waits in the gate's line until the answer is there: tokens, or when
there will be some. A debt (what could not be refused) is handed on with what was spent.

All that is to be said at one time is said in one message (`settle`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from math import ceil
from typing import NamedTuple, Protocol

from proxy.admission.bucket import burst_of

_SLACK = 1e-6
UNKNOWN = 1e-9  # a wait of which nobody can tell the length yet
_LATER = 0.05  # seconds after which it is told what has been spent
_AHEAD = 8  # tokens that are asked for ahead of their use, at least, where the burst has room for it
_DOUBT = 5.0  # seconds after which it is asked again whether a quota is used up: other hosts may have given some back
_PART = 4  # of the burst one worker holds no more than this part ahead


class Told(NamedTuple):
    """What the shares are told of one slice.

    `spent` has been spent, `left` is no longer held (spent or given back), `needs` is what the line waits for, `likes`
    what would be used soon. `asks`: it wants to know when. `daily`: it is a quota, `burst` each day.
    """

    name: str
    rate: float
    burst: float
    daily: bool
    spent: float
    left: float
    needs: int
    likes: int
    asks: bool


class Grant(NamedTuple):
    """What a worker is told: `granted` more are its own; the next may come after `eta` seconds, and then one each
    `pace`. `pending`: nobody knows, more is to be heard. `recall`: others need what it holds."""

    worker: int
    name: str
    granted: int
    eta: float
    pace: float
    pending: bool
    recall: bool


class Held(NamedTuple):
    """What a worker holds of a bucket, for shares that know nothing."""

    name: str
    rate: float
    burst: float
    daily: bool
    held: float


class Line(Protocol):
    """Those who wait, and who looks whether they may go."""

    @property
    def waiting(self) -> Sized: ...
    def hurry(self) -> None: ...


class Slice:
    """Has a bucket's face. `each` of those in the line needs a token of its own."""

    __slots__ = (
        "_asked", "_each", "_line", "_pace", "_promised", "_recalled", "_recent", "_slices", "_spent", "_told_at",
        "_told_needs",
        "burst", "daily", "held", "name", "rate",
    )  # fmt: skip

    def __init__(self, slices: Slices, name: str, line: Line, *, each: bool, daily: bool) -> None:
        self._slices = slices
        self._line = line
        self._each = each
        self._asked = False
        self._recalled = False
        self._promised = float("-inf")  # when there may be more
        self._told_at = float("-inf")
        self._pace = 0.0
        self._spent = 0.0  # and not told yet
        self._recent = 0.0  # spent when it was last told
        self._told_needs = 0
        self.name = name
        self.daily = daily
        self.rate = self.burst = 0.0
        self.held = 0.0

    def change(self, rate: float, burst: float) -> None:
        if not self.daily:
            burst = burst_of(rate, burst)
        if (rate, burst) != (self.rate, self.burst):
            self.rate, self.burst = rate, burst
            self._promised = float("-inf")

    def spend(self, count: float, now: float) -> None:
        before = self.held
        self.held -= count
        if before >= 1 > self.held:  # the last: there is nothing more to put together
            self._slices.touch(self, at_once=True)
        elif not self._spent:
            self._slices.touch(self, at_once=False)
        self._spent += count

    def take(self, now: float) -> bool:
        if self.wait(now):
            return False
        self.spend(1.0, now)
        return True

    def wait(self, now: float, count: float = 1.0) -> float:
        missing = max(count, 1.0) - self.held
        if missing <= _SLACK:
            return 0.0
        if now < self._promised and (not self.daily or now < self._told_at + _DOUBT):
            return self._promised - now + max(0.0, missing - 1.0) * self._pace
        if not self._asked:
            self._asked = True
            self._slices.touch(self, at_once=True)
        return UNKNOWN

    def awaited(self) -> None:
        """The line is longer, or gone."""
        self._slices.touch(self, at_once=True)

    # --- what is said and heard -----------------------------------------------------------------------

    def obey(self, grant: Grant, now: float) -> None:
        self.held += grant.granted
        self._told_needs = max(0, self._told_needs - grant.granted)
        self._promised, self._pace, self._told_at = now + grant.eta, grant.pace, now
        self._asked = grant.pending
        if grant.recall:
            self._recalled = True
            self._slices.touch(self, at_once=True)
        self._line.hurry()

    def settle(self) -> Told | None:
        needs = self._needs()
        debt = max(0.0, -self.held)
        back = 0.0
        likes = 0
        if self._recalled:
            back = float(max(0, int(self.held + _SLACK) - self._wanted()))
        elif self._spent or self._asked:
            ahead = min(max(_AHEAD, 2 * max(self._spent, self._recent)), self.burst / _PART)
            likes = max(0, int(ahead - max(self.held, 0.0)))
        asks = self._asked
        if not (self._spent or back or self._recalled or asks or needs != self._told_needs):
            return None
        left = self._spent - debt + back
        told = Told(self.name, self.rate, self.burst, self.daily, self._spent, left, needs, likes, asks)
        self.held += debt - back
        self._recent, self._spent = self._spent, 0.0
        self._told_needs = needs
        self._recalled = False
        return told

    def _wanted(self) -> int:
        waiting = len(self._line.waiting)
        return waiting if self._each else min(1, waiting)

    def _needs(self) -> int:
        return max(0, ceil(self._wanted() - max(self.held, 0.0) - _SLACK))

    def report(self) -> Held:
        """What it holds; all that was said or heard before is void."""
        self._spent = self._recent = 0.0
        self.held = max(self.held, 0.0)
        self._asked = self._recalled = False
        self._told_needs = 0
        self._promised = float("-inf")
        return Held(self.name, self.rate, self.burst, self.daily, self.held)


class Slices:
    """`later(seconds)` is to see to it that `settle` is called then (0: when the present callback is over)."""

    __slots__ = ("_later", "_slices", "_soon", "_touched")

    def __init__(self, later: Callable[[float], None]) -> None:
        self._later = later
        self._slices: dict[str, Slice] = {}
        self._touched: dict[Slice, None] = {}
        self._soon = False  # they will be told at once

    def slice(self, name: str, line: Line, *, each: bool = True, daily: bool = False) -> Slice:
        found = self._slices.get(name)
        if found is None:
            found = self._slices[name] = Slice(self, name, line, each=each, daily=daily)
        return found

    def touch(self, which: Slice, *, at_once: bool) -> None:
        if at_once and not self._soon:
            self._soon = True
            self._later(0.0)
        elif not at_once and not self._touched:
            self._later(_LATER)
        self._touched[which] = None

    def settle(self) -> list[Told]:
        """All that there is to say."""
        touched, self._touched, self._soon = self._touched, {}, False
        return [told for which in touched if (told := which.settle()) is not None]

    def obey(self, grants: Iterable[Grant], now: float) -> None:
        for grant in grants:
            which = self._slices.get(grant.name)
            if which is not None:
                which.obey(grant, now)

    def report(self) -> list[Held]:
        held = [which.report() for which in self._slices.values()]
        for which in self._slices.values():
            which.awaited()
        return held
