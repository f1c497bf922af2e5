"""The one question ahead of a tenant's transaction: is it within its rates and its quota?

Theory. Queries are counted, one at a time, against a bucket (`max_qps`, `burst`) and against the day's quota
(`max_queries_per_day`); bytes, in both directions, against a bucket of their own (`max_bytes_per_second`). The question
is asked where a transaction begins and nowhere else: what a transaction block, a pipeline or a text of several
statements goes on to ask, and what a result takes, is spent whether or not it is there, for a transaction is never
broken off by a rate; the next one waits until that has been made up for.

Whoever comes while nothing is there waits in one line, first come, first served. How long that takes is known at once:
the tokens that are missing for all who are ahead, by the rate. A wait for queries of more than `rate_wait` is refused
without a wait, and so is one for bytes of more than `query_wait_timeout`: who has had a big result is slowed down, not
failed. A quota is not waited for. Leaving the line costs nothing, and all behind move up.

In a process that is alone the gate has the buckets itself. Where several share the rates it has slices of them, and
it may take a moment to hear how long a wait will be: for that long everybody waits.

A tenant without any of these has no gate.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, inf
from typing import Protocol

from proxy.admission.bucket import Bucket, Quota
from proxy.admission.slices import UNKNOWN, Slice, Slices
from proxy.errors import RateExceeded, TiergateError
from proxy.model import Limits
from proxy.stats import TenantStats

_GRACE = 0.01  # seconds that looking late may cost
_ANSWER = 1.0  # seconds for which it is waited to hear how long to wait

Meter = Bucket | Quota | Slice


class Waiter(Protocol):
    """Who stands in the line; compared by identity. It has left the line before it is told."""

    def admitted(self) -> None: ...
    def turned_away(self, error: TiergateError) -> None: ...


class Timer(Protocol):
    def cancel(self) -> None: ...


def rated(limits: Limits) -> bool:
    return bool(limits.max_qps or limits.max_bytes_per_second or limits.max_queries_per_day)


class Gate:
    """`waiting` has since when each waits; `bell` is set while somebody will look when the next may go, by `ring`."""

    __slots__ = (
        "_alone", "_bytes", "_bytes_seen", "_name", "_patience", "_queries", "_quota", "_quota_kept", "_shared", "_slices",
        "_slow_at", "_stats", "_utc", "_wait_limit", "bell", "ring", "waiting",
    )  # fmt: skip

    def __init__(self, name: str, stats: TenantStats, utc: float = 0.0, slices: Slices | None = None) -> None:
        self._name = name
        self._stats = stats
        self._utc = utc
        self._slices = slices
        self._shared: list[Slice] = []
        self._alone: Bucket | None = None  # that of the queries, if there is nothing else to ask, as of most
        self._queries: Meter | None = None
        self._bytes: Meter | None = None
        self._quota: Meter | None = None
        self._quota_kept: Meter | None = None  # which knows what has been asked today
        self._bytes_seen = 0
        self._patience = 0.0
        self._wait_limit = inf
        self._slow_at = -inf  # when bytes were last waited for
        self.waiting: dict[Waiter, float] = {}
        self.bell: Timer | None = None
        self.ring: Callable[[], None] | None = None

    def update(self, limits: Limits) -> bool:
        """False where there is nothing to hold any more; whoever waits is let in when somebody looks."""
        self._patience = limits.rate_wait or 0.0
        self._wait_limit = limits.query_wait_timeout or inf
        rate, burst = limits.max_qps or 0.0, float(limits.burst or 0)
        self._queries = self._changed(self._queries, "queries", rate, burst) if rate else None
        if self._bytes is None:
            self._bytes_seen = self._stats.bytes
        rate = float(limits.max_bytes_per_second or 0)
        self._bytes = self._changed(self._bytes, "bytes", rate, 0.0) if rate else None
        daily = float(limits.max_queries_per_day or 0)
        if daily:
            self._quota_kept = self._changed(self._quota_kept, "queries a day", 0.0, daily)
        self._quota = self._quota_kept if daily else None
        queries = self._queries
        self._alone = None
        if isinstance(queries, Bucket) and self._bytes is None and self._quota_kept is None:
            self._alone = queries
        meters = (self._queries, self._bytes, self._quota)
        self._shared = [meter for meter in meters if isinstance(meter, Slice)]
        return rated(limits)

    def _changed(self, meter: Meter | None, what: str, rate: float, burst: float) -> Meter:
        if meter is None:
            if self._slices is not None:
                name = f"tenant {self._name} {what}"
                meter = self._slices.slice(name, self, each=what != "bytes", daily=not rate)
            else:
                meter = Bucket(rate, burst) if rate else Quota(burst, self._utc)
        meter.change(rate, burst)
        return meter

    # --- a session asks -----------------------------------------------------------------------------

    def spend(self, count: int, now: float) -> None:
        """Queries that are not to be refused."""
        if self._queries is not None:
            self._queries.spend(count, now)
        if self._quota_kept is not None:
            self._quota_kept.spend(count, now)

    def take(self, now: float) -> bool:
        """One query, if it may come in at once."""
        if self.waiting:
            return False
        if self._alone is not None:
            return self._alone.take(now)
        if self._by_queries(now, 1) or self._by_bytes(now) or self._by_quota(now):
            return False
        self.spend(1, now)
        return True

    def ask(self, now: float) -> bool:
        """The same of one that would wait: False where it is to join the line. Raises RateExceeded."""
        if self.take(now):
            return True
        if (delay := self._by_quota(now)) > UNKNOWN:
            raise self._used_up(delay)
        if slow := self._by_bytes(now):
            if slow > self._wait_limit:
                raise self._too_much(slow)
        elif (delay := self._by_queries(now, len(self.waiting) + 1)) > max(self._patience, UNKNOWN):
            raise self._too_many(delay)
        return False

    # --- the line -----------------------------------------------------------------------------------

    def join(self, waiter: Waiter, now: float) -> None:
        self._stats.throttled += 1
        self.waiting[waiter] = now
        self._tell()

    def _tell(self) -> None:
        """Others are to know how many wait."""
        for part in self._shared:
            part.awaited()

    def hurry(self) -> None:
        """There may be more."""
        if self.waiting and self.ring is not None:
            self.ring()

    def leave(self, waiter: Waiter) -> None:
        self.waiting.pop(waiter, None)
        if not self.waiting:
            self._tell()
            if self.bell is not None:
                self.bell.cancel()
                self.bell = None

    def next(self, now: float) -> tuple[Waiter, RateExceeded | None] | None:
        """The first in the line, if its wait is over, and why if it was in vain; it has left the line."""
        if not self.waiting:
            return None
        waiter, since = next(iter(self.waiting.items()))
        refused = None
        waited = now - since
        if delay := self._by_quota(now):
            limit, why_not = 0.0, self._used_up
        elif delay := self._by_bytes(now):
            self._slow_at = now
            limit, why_not = self._wait_limit, self._too_much
        elif delay := self._by_queries(now, 1):
            waited = now - max(since, self._slow_at)
            limit, why_not = self._patience, self._too_many
        if not delay:
            self.spend(1, now)
        elif waited + delay <= (limit if delay > UNKNOWN else max(limit, _ANSWER)) + _GRACE:
            return None
        else:
            refused = why_not(delay)
        self._stats.throttled_seconds += now - since
        del self.waiting[waiter]
        if refused is not None and not self.waiting:
            self._tell()
        return waiter, refused

    def due(self, now: float) -> float:
        """When to look again, in seconds."""
        return self._by_bytes(now) or self._by_queries(now, 1)

    def held_by(self, now: float) -> tuple[str, float]:
        """The limit for which the first in the line waits, and how long it will."""
        if delay := self._by_quota(now):
            return "max_queries_per_day", delay
        if delay := self._by_bytes(now):
            return "max_bytes_per_second", delay
        return "max_qps", self._by_queries(now, 1)

    # --- how long -----------------------------------------------------------------------------------

    def _by_queries(self, now: float, count: int) -> float:
        return self._queries.wait(now, count) if self._queries is not None else 0.0

    def _by_bytes(self, now: float) -> float:
        if self._bytes is None:
            return 0.0
        carried = self._stats.bytes
        if carried != self._bytes_seen:
            self._bytes.spend(carried - self._bytes_seen, now)
            self._bytes_seen = carried
        return self._bytes.wait(now, 0.0)

    def _by_quota(self, now: float) -> float:
        return self._quota.wait(now) if self._quota is not None else 0.0

    # --- why not ------------------------------------------------------------------------------------

    def _too_many(self, delay: float) -> RateExceeded:
        assert self._queries is not None
        self._stats.refused_rate += 1
        return RateExceeded(
            f'tenant "{self._name}" asks more queries than its rate allows',
            detail=f"max_qps is {self._queries.rate:g} with a burst of {self._queries.burst:g}. {_again(delay)}",
        )

    def _too_much(self, delay: float) -> RateExceeded:
        assert self._bytes is not None
        self._stats.refused_rate += 1
        return RateExceeded(
            f'tenant "{self._name}" moves more bytes than its rate allows',
            detail=f"max_bytes_per_second is {self._bytes.rate:.0f}. {_again(delay)}",
        )

    def _used_up(self, delay: float) -> RateExceeded:
        assert self._quota is not None
        self._stats.refused_quota += 1
        return RateExceeded(
            f'tenant "{self._name}" has used up its queries of today',
            detail=f"max_queries_per_day is {self._quota.burst:.0f}. {_again(delay)}",
        )


def _again(delay: float) -> str:
    """Rounded up: whoever comes back then is let in."""
    return (
        f"Retry in {ceil(delay * 100 - 1e-4) / 100:.2f} seconds."
        if delay < 10
        else f"Retry in {ceil(delay)} seconds."
    )


class Gates:
    """Makes the gates of a process. `utc` added to a moment of its clock is the seconds of UTC; `slices` of the rates are
    there where others share them."""

    __slots__ = ("_slices", "_utc")

    def __init__(self, utc: float = 0.0, slices: Slices | None = None) -> None:
        self._utc = utc
        self._slices = slices

    def gate(self, name: str, stats: TenantStats) -> Gate:
        return Gate(name, stats, self._utc, self._slices)
