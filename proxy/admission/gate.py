"""The one question ahead of a tenant's transaction: is it within its rates?

Theory. Queries are counted against a bucket (`max_qps`, `burst`), one at a time. The question is asked where a
transaction begins and nowhere else: what a transaction block, a pipeline or a text of several statements goes on to
ask is spent from the bucket whether or not it is there, for a transaction is never broken off by a rate; the next one
waits until that has been made up for.

Whoever comes while nothing is there waits in one line, first come, first served. How long that takes is known at once:
the tokens that are missing for all who are ahead, by the rate. More than `rate_wait` is refused without a wait.
Leaving the line costs nothing, and all behind move up.

A tenant without rates has no gate.
"""

from __future__ import annotations

from math import ceil
from typing import Protocol

from proxy.admission.bucket import Bucket
from proxy.errors import RateExceeded, TiergateError
from proxy.model import Limits
from proxy.stats import TenantStats

_GRACE = 0.01  # seconds that looking late may cost


class Waiter(Protocol):
    """Who stands in the line; compared by identity. It has left the line before it is told."""

    def admitted(self) -> None: ...
    def turned_away(self, error: TiergateError) -> None: ...


class Timer(Protocol):
    def cancel(self) -> None: ...


def rated(limits: Limits) -> bool:
    return bool(limits.max_qps)


class Gate:
    """`waiting` has since when each waits; `bell` is set while somebody will look when the next may go."""

    __slots__ = ("_name", "_patience", "_queries", "_stats", "bell", "waiting")

    def __init__(self, name: str, stats: TenantStats) -> None:
        self._name = name
        self._stats = stats
        self._queries: Bucket | None = None
        self._patience = 0.0
        self.waiting: dict[Waiter, float] = {}
        self.bell: Timer | None = None

    def update(self, limits: Limits) -> bool:
        """False where there is nothing to hold any more; whoever waits is let in when somebody looks."""
        self._patience = limits.rate_wait or 0.0
        rate, burst = limits.max_qps or 0.0, limits.burst or 0
        if not rate:
            self._queries = None
        elif self._queries is None:
            self._queries = Bucket(rate, burst)
        else:
            self._queries.change(rate, burst)
        return rated(limits)

    def spend(self, count: int, now: float) -> None:
        """Queries that are not to be refused."""
        if self._queries is not None:
            self._queries.spend(count, now)

    def take(self, now: float) -> bool:
        """One query, if it may come in at once."""
        return not self.waiting and (self._queries is None or self._queries.take(now))

    def ask(self, now: float) -> bool:
        """The same of one that would wait: False where it is to join the line. Raises RateExceeded."""
        if self.take(now):
            return True
        delay = self._delay(now, len(self.waiting) + 1)
        if delay > self._patience:
            self._stats.refused_rate += 1
            raise self._exceeded(delay)
        return False

    def join(self, waiter: Waiter, now: float) -> None:
        self._stats.throttled += 1
        self.waiting[waiter] = now

    def leave(self, waiter: Waiter) -> None:
        self.waiting.pop(waiter, None)
        if not self.waiting and self.bell is not None:
            self.bell.cancel()
            self.bell = None

    def next(self, now: float) -> tuple[Waiter, RateExceeded | None] | None:
        """The first in the line, if its wait is over, and why if it was in vain; it has left the line."""
        if not self.waiting:
            return None
        waiter, since = next(iter(self.waiting.items()))
        refused = None
        delay = self._delay(now, 1)
        if delay:
            if now - since + delay <= self._patience + _GRACE:
                return None
            self._stats.refused_rate += 1
            refused = self._exceeded(delay)
        else:
            self.spend(1, now)
        self._stats.throttled_seconds += now - since
        del self.waiting[waiter]
        return waiter, refused

    def due(self, now: float) -> float:
        """When to look again, in seconds."""
        return self._delay(now, 1)

    def _delay(self, now: float, count: int) -> float:
        return self._queries.wait(now, count) if self._queries is not None else 0.0

    def _exceeded(self, delay: float) -> RateExceeded:
        queries = self._queries
        assert queries is not None
        return RateExceeded(
            f'tenant "{self._name}" asks more queries than its rate allows',
            detail=f"max_qps is {queries.rate:g} with a burst of {queries.burst:g}. Retry in {_seconds(delay)} seconds.",
        )


def _seconds(delay: float) -> str:
    """Rounded up: whoever comes back then is let in."""
    return f"{ceil(delay * 100 - 1e-4) / 100:.2f}" if delay < 10 else str(ceil(delay))
