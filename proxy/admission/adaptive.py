"""How many transactions a cluster runs at once where that follows their latency: a limit that is lowered while it grows.

Theory. A server that has room answers in the same time however many ask. Beyond its knee each one more only makes all
the others slower, and past that contention makes it do less in all. So latency tells where the knee is, if it is known
what it is without a crowd. As in TCP Vegas and in Netflix's gradient limits, a long memory (the baseline) is compared
with what was measured just now (a window of a second or more):

    gradient = TOLERANCE * baseline / latency, at most 1        limit' = limit * gradient + allowance

The allowance, half the square root of the limit, keeps a short queue at the server, and lets the limit rise by as
much where the gradient is 1. It rises only while it is really used: otherwise it would be no limit when the crowd comes.
Until latency has grown for the first time it rises by half, so that a server of a thousand cores is soon found out.

What latency is. Tenants do different things, and one does different things at different times. Each has its own
baseline, a median that follows its transactions by a percent or so a window (no sums: one that took a minute
counts as any other). A transaction counts by how much longer it took than its tenant's baseline, and a window by the median
of that over all. So it changes nothing that tenants of slow queries come and go. Baselines rest while latency is
grown: they would get used to it, and the limit would follow them up. And who comes first while all others are slowed is
thought to be slowed as much.

Is it the crowd? Latency grows as well because queries have become slower: a table has grown, an index is gone, somebody
began his reports. Then a lower limit helps nobody, and a limit that knew latency alone would fall to its minimum. So each
time that it has been lowered by a quarter it is asked what that was good for: beyond the knee latency falls as the
limit does (the elasticity, the ratio of their logarithms, is 1), below it does not (0). Where it did not fall,
baselines are set to what is measured and the limit goes back to where it was. The other way round, a limit that is used
is lowered by a quarter, and again for as long as that helps, once in a while (ever less often while nothing is learned
from it). Where it helps no more the limit is below the knee, and what is measured there is the baseline, whatever
it was thought to be.

Of several processes each has a Strain, which knows the baselines and counts; one of them decides for all (Limit) by the
sum of what they counted, so that a cap of the host is one number.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import log2, sqrt
from statistics import median
from typing import NamedTuple

TOLERANCE = 1.5  # times the baseline that latency may be
MIN_SAMPLES = 40  # transactions that a window has at least
JUDGING = 300  # if something is to be told from it
_GROWN = 1.2  # times the baseline from which on latency counts as grown
_FIRST = 8  # where the limit begins
_STEEPEST = 0.7  # of the limit that is left at least, by one decision
_USED = 0.8  # of the limit
_NEWS = 0.5  # how much a window counts in the latency that decides
_TRIED = 0.75  # of the limit: what lowering it that far was good for can be told
_HELPED = 0.3  # the elasticity from which on a lower limit has helped
_TRY_AFTER = 10  # decisions
_WRONG = 0.25  # octaves that a baseline may be corrected by without a try soon
_TRY_AT_MOST = 600
_TRIES = "tries whether fewer at once are faster"
_PATIENCE = 10.0  # looks

_OCTAVES = 4  # times 2 either way that are told apart
_STEPS = 8  # in each
BUCKETS = 2 * _OCTAVES * _STEPS
_MIDDLE, _HIGHEST, _AN_OCTAVE = BUCKETS // 2, BUCKETS - _STEPS, _STEPS  # numbers of C where this is compiled
_WITHIN = [2.0 ** (step / _STEPS) for step in range(_STEPS)]  # where the steps of an octave begin
_SHORTEST = 1e-6  # seconds
_KINDS = 512
_LEARNT = 128  # transactions of a kind before it counts
_KNOWN = 10  # of others, by which it can be told how much all of them are slowed
_STEP = 0.02  # octaves that a baseline moves in one window


class _Kind:
    """What one tenant's transactions take: the logarithm of the median of their seconds (`baseline`), and the median."""

    __slots__ = ("balance", "baseline", "counted", "first", "usual")

    def __init__(self) -> None:
        self.first: list[float] | None = []  # the last ones, which it learns from before it counts
        self.counted = 0  # in this window
        self.balance = 0  # of them, those above the baseline less those below
        self.move(0.0)

    def move(self, baseline: float) -> None:
        self.baseline = baseline
        self.usual = 2.0**baseline

    def begin(self, slowed: float) -> None:
        """With what it has learned while the others took so many octaves longer than usual."""
        assert self.first is not None
        self.move(log2(median(self.first)) - slowed)
        self.first = None
        self.counted = 0

    def learn(self) -> None:
        self.move(self.baseline + _STEP * self.balance / self.counted)
        self.counted = self.balance = 0


class Window(NamedTuple):
    """What was counted in a second or so. `octaves`: by how much longer than the baseline, `baseline` the sum of the
    baselines' logarithms. `running` is the most at once, `pressed` that somebody waited."""

    octaves: list[int]
    baseline: float
    running: int
    pressed: bool

    def plus(self, other: Window) -> Window:
        """Of another process, at the same time."""
        octaves = [a + b for a, b in zip(self.octaves, other.octaves, strict=True)]
        baseline, running = self.baseline + other.baseline, self.running + other.running
        return Window(octaves, baseline, running, self.pressed or other.pressed)

    def then(self, later: Window) -> Window:
        """The same processes some time later."""
        return self.plus(later)._replace(running=max(self.running, later.running))

    @property
    def samples(self) -> int:
        return sum(self.octaves)


NOTHING = Window([0] * BUCKETS, 0.0, 0, False)


class Strain:
    """How much longer than usual the transactions of one cluster take. `resting`: baselines are left as they are."""

    __slots__ = (
        "_baselines", "_counted", "_kind", "_kinds", "_learnt", "_octaves", "_running", "_whose", "pressed", "resting",
    )  # fmt: skip

    def __init__(self) -> None:
        self._kinds: dict[Hashable, _Kind] = {}
        self._whose: Hashable = None  # the last transaction was; the next is most often theirs, too
        self._kind = _Kind()
        self._counted: list[_Kind] = []  # in this window
        self._learnt: list[_Kind] = []  # in this window, and do not count yet
        octaves: list[int] = [0] * BUCKETS
        self._octaves = octaves  # an array where this is compiled
        self._baselines = 0.0
        self._running = 0
        self.pressed = False
        self.resting = False

    def record(self, whose: Hashable, seconds: float) -> None:
        """A transaction is over."""
        kind = self._kind if whose is self._whose else self._of(whose)
        if kind.first is not None:
            self._learn(kind, seconds)
            return
        ratio = (seconds if seconds > _SHORTEST else _SHORTEST) / kind.usual
        if not kind.counted:
            self._counted.append(kind)
        kind.counted += 1
        kind.balance += 1 if ratio > 1.0 else -1
        at = _MIDDLE
        while ratio >= 2.0 and at < _HIGHEST:
            ratio *= 0.5
            at += _AN_OCTAVE
        while ratio < 1.0 and at > 0:
            ratio *= 2.0
            at -= _AN_OCTAVE
        step = 4 if ratio >= _WITHIN[4] else 0
        step += 2 if ratio >= _WITHIN[step + 2] else 0
        step += 1 if ratio >= _WITHIN[step + 1] else 0
        self._octaves[at + step] += 1
        self._baselines += kind.baseline

    def _learn(self, kind: _Kind, seconds: float) -> None:
        assert kind.first is not None
        seconds = max(seconds, _SHORTEST)
        if kind.counted < _LEARNT:
            kind.first.append(seconds)
        else:  # those of a burst's beginning say little of what the window was like
            kind.first[kind.counted % _LEARNT] = seconds
        kind.counted += 1
        if kind.counted == _LEARNT:
            self._learnt.append(kind)

    def _of(self, whose: Hashable) -> _Kind:
        kind = self._kinds.get(whose)
        if kind is None:
            if len(self._kinds) >= _KINDS:
                del self._kinds[next(iter(self._kinds))]
            kind = self._kinds[whose] = _Kind()
        self._whose, self._kind = whose, kind
        return kind

    def seen(self, running: int, pressed: bool) -> None:
        """To be called several times a window."""
        if running > self._running:
            self._running = running
        self.pressed = self.pressed or pressed

    def take(self) -> Window:
        """What was counted since the last one."""
        if self._learnt:
            slowed = max(0.0, _median(self._octaves)) if sum(self._octaves) >= _KNOWN else 0.0
            for kind in self._learnt:
                kind.begin(slowed)
            self._learnt.clear()
        window = Window(self._octaves, self._baselines, self._running, self.pressed)
        octaves: list[int] = [0] * BUCKETS
        self._octaves, self._baselines = octaves, 0.0
        self._running, self.pressed = 0, False
        for kind in self._counted:
            if self.resting:
                kind.counted = kind.balance = 0
            else:
                kind.learn()
        self._counted.clear()
        return window

    def obey(self, decision: Decision) -> None:
        self.resting = decision.resting
        if decision.shift:
            for kind in self._kinds.values():
                kind.move(kind.baseline + decision.shift)


class Decision(NamedTuple):
    """`shift`: by how many octaves all baselines are to be corrected, once. Latencies in seconds."""

    limit: int
    resting: bool
    shift: float
    baseline: float
    latency: float
    gradient: float
    why: str


class Limit:
    """Decides for one cluster. `lowest` and `highest` may be changed at any time."""

    __slots__ = (
        "_before", "_calm", "_grown_once", "_looks", "_octaves", "_since", "_try_after", "_trying", "highest", "last",
        "limit", "lowest",
    )  # fmt: skip

    def __init__(self, lowest: int, highest: int) -> None:
        self.lowest = lowest
        self.highest = highest
        self.limit = float(min(highest, max(lowest, _FIRST)))
        self._since = NOTHING  # since the last decision
        self._looks = 0
        self._octaves = 0.0  # above the baseline, of late
        self._grown_once = False
        self._before: tuple[float, float] | None = None  # limit and octaves that lowering it started from
        self._trying = False
        self._calm = 0  # decisions since anything was tried
        self._try_after = _TRY_AFTER
        self.last = Decision(int(self.limit), False, 0.0, 0.0, 0.0, 1.0, "nothing was measured yet")

    def decide(self, window: Window) -> Decision:
        """To be called about once a second with what was counted in it."""
        since = self._since = self._since.then(window)
        self._looks += 1
        latency = self.last.latency
        self.limit = min(max(self.limit, self.lowest), self.highest)
        if since.samples < (JUDGING if self._judgeable else MIN_SAMPLES) or self._looks < 2.0 * latency:
            if self._looks > max(_PATIENCE, 4.0 * latency):  # what was measured long ago says nothing
                self._since, self._looks = NOTHING, 0
                if self._trying:
                    self._back_from_try()
            self.last = self.last._replace(limit=int(self.limit), shift=0.0)
            return self.last
        self._since, self._looks = NOTHING, 0
        return self._decide(since)

    @property
    def _judgeable(self) -> bool:
        return self._before is not None and self.limit <= _TRIED * self._before[0]

    def _decide(self, window: Window) -> Decision:
        now = _median(window.octaves)
        self._octaves += (now - self._octaves) * _NEWS
        used = window.pressed or window.running >= _USED * self.limit
        shift, why = 0.0, ""
        if self._judgeable and used:
            shift, why = self._judge(now)
        ratio = 2.0**self._octaves
        gradient = min(1.0, TOLERANCE / ratio)
        if not why:
            why = self._move(window.running, now, gradient, used)
        self.limit = min(max(self.limit, self.lowest), self.highest)
        baseline = 2.0 ** (window.baseline / window.samples)
        resting = ratio > _GROWN or self._trying
        self.last = Decision(
            int(self.limit), resting, shift, baseline, baseline * 2.0**now, gradient, why
        )  # fmt: skip
        return self.last

    def _move(self, running: int, now: float, gradient: float, used: bool) -> str:
        """By the gradient, or down for a try."""
        ratio = 2.0**self._octaves
        if self._trying:  # and it was not used: nothing can be told
            self._back_from_try()
        before, allowance = self.limit, max(1.0, sqrt(self.limit) / 2)
        start = min(before, max(running, self.lowest))
        if used:
            self._calm += 1
            if self._calm >= self._try_after and start * _TRIED >= self.lowest:
                self._try(start, self._octaves)
                return _TRIES
        if ratio > TOLERANCE:
            self._grown_once = True
            if self._before is None:
                self._before = (start, now)
            wanted = start * max(gradient, _STEEPEST) + allowance
            self.limit = wanted if used else min(wanted, before)
        elif used:
            self.limit += allowance if self._grown_once or ratio > _GROWN else before / 2
        if ratio <= _GROWN:
            self._before = None
        if self.limit < before:
            return f"latency is {ratio:.1f} times its baseline"
        if not used:
            return "is not used up"
        return "at its maximum" if before >= self.highest else "is used up, and latency allows more"

    def _judge(self, now: float) -> tuple[float, str]:
        """What the lower limit was good for: by how much baselines have to be corrected, and why, if at all."""
        assert self._before is not None
        limit, octaves = self._before
        helped = (octaves - now) / log2(limit / self.limit) >= _HELPED
        if self._trying and helped and self.limit * _TRIED >= self.lowest:
            self._try(self.limit, now)
            return 0.0, "fewer at once are faster"
        if self._trying:
            if abs(now) > _WRONG:
                self._try_after = _TRY_AFTER // 2  # doubled now
                self._grown_once = False  # or it had not
            self._back_from_try()
            self._octaves = 0.0
            return now, "fewer at once are no faster: this is the baseline"
        if helped:
            self._before = (self.limit, now)
            return 0.0, ""
        self.limit, self._before, self._octaves = limit, None, 0.0
        self._calm, self._try_after, self._grown_once = 0, _TRY_AFTER, False
        return now, "latency has grown for another reason: the baseline follows"

    def _try(self, limit: float, octaves: float) -> None:
        self._trying = True
        self._before = (limit, octaves)
        self.limit = limit * _TRIED
        self._octaves = octaves

    def _back_from_try(self) -> None:
        assert self._before is not None
        self.limit, self._octaves = self._before
        self._before, self._trying, self._calm = None, False, 0
        self._try_after = min(2 * self._try_after, _TRY_AT_MOST)


def _median(octaves: list[int]) -> float:
    """In octaves, from -4 to 4; within a bucket as if all were spread over it."""
    half, below = sum(octaves) / 2, 0
    for at, count in enumerate(octaves):
        if count and below + count >= half:
            return (at + (half - below) / count) / _STEPS - _OCTAVES
        below += count
    return 0.0
