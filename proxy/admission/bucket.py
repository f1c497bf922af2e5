"""Rights that grow with time and are spent: a token bucket, and a quota for each day.

A bucket grows by `rate` a second, up to `burst`.

What is there is reckoned from the last moment at which that was known for certain (when it was full, or its rate was
changed) and from what has been spent since: nothing is added up that could drift. It may be overdrawn, by what could
not be refused; what comes after that pays for it.
"""

from __future__ import annotations

_SLACK = 1e-6  # tokens that rounding may have taken
_DAY = 86_400.0
_LEAST_BURST = 0.01  # seconds' worth: what comes while nobody looks is not lost


class Bucket:
    """`burst` 0: what comes in a second, but one at least. Full when it is first looked at. Times are in seconds."""

    __slots__ = ("_base", "_seen", "_since", "_spent", "burst", "rate")

    def __init__(self, rate: float, burst: float = 0.0) -> None:
        self._base = 0.0
        self._since = self._seen = float("-inf")
        self._spent = 0.0
        self.rate = rate
        self.burst = burst_of(rate, burst)

    def change(self, rate: float, burst: float = 0.0) -> None:
        """Another rate from the moment on at which it was last looked at."""
        burst = burst_of(rate, burst)
        if (rate, burst) == (self.rate, self.burst):
            return
        if self._seen > float("-inf"):
            self._base, self._since, self._spent = min(self.level(self._seen), burst), self._seen, 0.0
        self.rate, self.burst = rate, burst

    def level(self, now: float) -> float:
        """The tokens that are there; below 0 where it is overdrawn."""
        self._seen = now
        level = self._base + (now - self._since) * self.rate - self._spent
        if level < self.burst:
            return level
        self._base, self._since, self._spent = self.burst, now, 0.0
        return self.burst

    def spend(self, count: float, now: float) -> None:
        """Whether or not they are there."""
        self.level(now)
        self._spent += count

    def take(self, now: float, count: float = 1.0) -> bool:
        """Spends them if they are there."""
        if self.level(now) < count - _SLACK:
            return False
        self._spent += count
        return True

    def wait(self, now: float, count: float = 1.0) -> float:
        """How long until there are so many, if nothing is spent meanwhile; more than `burst` come of nothing."""
        missing = count - self.level(now)
        return missing / self.rate if missing > _SLACK else 0.0


def burst_of(rate: float, burst: float) -> float:
    """What a bucket holds that is told so."""
    return max(burst or max(rate, 1.0), rate * _LEAST_BURST)


class Quota:
    """`burst` a day, of UTC. `utc` is what makes a moment that is given the seconds of UTC. What has been spent today
    stays spent when the quota is changed."""

    __slots__ = ("_day", "_spent", "_utc", "burst", "rate")

    def __init__(self, burst: float, utc: float) -> None:
        self.rate = 0.0
        self.burst = burst
        self._utc = utc
        self._day = 0
        self._spent = 0.0

    def change(self, rate: float, burst: float) -> None:
        self.burst = burst

    def level(self, now: float) -> float:
        """What is left of today's; below 0 where it is overdrawn."""
        day = int((now + self._utc) // _DAY)
        if day != self._day:
            self._day, self._spent = day, 0.0
        return self.burst - self._spent

    def spend(self, count: float, now: float) -> None:
        self.level(now)
        self._spent += count

    def take(self, now: float) -> bool:
        if self.level(now) < 1:
            return False
        self._spent += 1
        return True

    def wait(self, now: float, count: float = 1.0) -> float:
        """How long until there are so many."""
        return 0.0 if self.level(now) >= count else _DAY - (now + self._utc) % _DAY
