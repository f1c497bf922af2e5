"""Writes what tenants have used to the registry, day by day: queries, their average latency, errors.

What a process has counted of a day stands in a row of its own, which each writing replaces; a tenant's day is the sum of
those rows. So a writing that is done twice, because nobody knows whether it was done, counts once, and a process that
begins anew, or another proxy, adds its own. Days are those of UTC.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from uuid import UUID, uuid4

from proxy import log
from proxy.control.counts import Counts
from proxy.errors import TiergateError

_log = log.get("metering")
_LAST = 2.0  # seconds that the last writing may take
_OFF = 5.0  # seconds after which one that is switched off looks again


class Used(NamedTuple):
    """What one tenant has used."""

    queries: int = 0
    seconds: float = 0.0
    errors: int = 0

    def plus(self, other: Used) -> Used:
        return Used(self.queries + other.queries, self.seconds + other.seconds, self.errors + other.errors)


Record = Callable[[UUID, date, Sequence[tuple[str, Used]]], Awaitable[None]]


class Day:
    """What this process has counted of one day, by tenant; `changed` are those that have not been written."""

    def __init__(self, day: date) -> None:
        self.date = day
        self.used: dict[str, Used] = {}
        self.changed: set[str] = set()

    def add(self, name: str, more: Used) -> None:
        self.used[name] = self.used.get(name, Used()).plus(more)
        self.changed.add(name)


class Metering:
    """`stop` writes the rest. `interval` (0: off) is asked for at each turn. What a `fresh` process has counted is all
    to be written; of another it is not known what has been, so it counts from the start on."""

    def __init__(
        self,
        counts: Callable[[], Awaitable[Counts]],
        record: Record,
        interval: Callable[[], float],
        *,
        fresh: bool = True,
    ) -> None:
        self._counts = counts
        self._record = record
        self._interval = interval
        self._process = uuid4()
        self._last: dict[str, Used] | None = {} if fresh else None
        self._days: list[Day] = []
        self._said = ""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        if self._interval() and self._last is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST):
                    await self.turn(datetime.now(UTC))

    async def _run(self) -> None:
        while True:
            interval = self._interval()
            now = datetime.now(UTC)
            if not interval:
                self._last = None
            elif self._last is None:
                await self._begin()
            else:
                await self.turn(now)
            midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
            await asyncio.sleep(min(interval or _OFF, (midnight - now).total_seconds()))

    async def _begin(self) -> None:
        with contextlib.suppress(TiergateError):
            self._last = _used(await self._counts())

    async def turn(self, now: datetime) -> None:
        """Counts what has come since the last turn to the day of that time, and writes what has changed."""
        try:
            self.count(_used(await self._counts()), now)
            for day in list(self._days):
                await self._write(day)
                if day is not self._days[-1]:
                    self._days.remove(day)
        except TiergateError as error:
            if error.message != self._said:  # it may be so for long
                _log.warning(
                    "usage not written", error=error.message, hint=error.hint, internal=error.internal
                )
            self._said = error.message
        except Exception as error:  # or nothing would be written any more, and nobody told
            _log.exception("usage not written", error)
        else:
            self._said = ""

    def count(self, counted: dict[str, Used], now: datetime) -> None:
        """What came before midnight is told at the first turn after it: it is of the day before."""
        last, self._last = self._last or {}, counted
        day = self._days[-1] if self._days else Day(now.date())
        for name, used in counted.items():
            before = last.get(name, Used())
            if used.queries < before.queries or used.errors < before.errors:
                before = Used()  # its counts began anew
            more = Used(
                used.queries - before.queries, max(0.0, used.seconds - before.seconds), used.errors - before.errors
            )  # fmt: skip
            if more.queries or more.errors:
                day.add(name, more)
        if not self._days:
            self._days.append(day)
        if now.date() != day.date:
            self._days.append(Day(now.date()))

    async def _write(self, day: Day) -> None:
        changed = sorted(day.changed)
        if changed:
            await self._record(self._process, day.date, [(name, day.used[name]) for name in changed])
            day.changed.difference_update(changed)


def _used(counts: Counts) -> dict[str, Used]:
    return {
        name: Used(counted["queries"], counted["seconds"], sum(counted["errors"].values()))
        for name, counted in counts["counters"].get("tenants", {}).items()
    }
