"""Where tenants are looked up: memory, then Redis, then PostgreSQL; and what follows when one of them changes.

One flight a name: whoever asks for a name that is being asked for waits for the same answer, and all names that are
wanted at one moment are asked for in one batch. A name that is doubted while it flies is asked for again.

A change that is heard doubts its names at once, makes the copies in Redis void, and only then reads those anew that
somebody uses; until then what was known is served. When the feed was lost nobody can say what has changed: all is
doubted once. An outage doubts nothing: what is known is served, what is not is unasked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable
from itertools import islice
from time import monotonic, time

from proxy import log
from proxy.registry.cache import Cache, canonical
from proxy.registry.memory import Registry
from proxy.registry.rows import Row
from proxy.registry.sources import Near, Source, SourceDown, StoreState, Ticket

_log = log.get("registry")
_BATCH = 500  # names
_MANY = 500  # names at once, for which all copies are made void: one by one they would keep the process for seconds
_TICK = 0.25  # seconds
_STALE_EVERY = 8  # ticks
_LONGEST = 255  # characters of a name that any registry could have


class Ladder:
    """Of one process. `changed` is called with the codes of tenants in use that are not what they were; `used` names
    those that are in use."""

    def __init__(
        self,
        registry: Registry,
        rows: Cache,
        changed: Callable[[frozenset[str]], None],
        used: Callable[[], Iterable[str]],
    ) -> None:
        self.source: Source
        self.near: Near | None = None
        self.from_time_to_time: Callable[[], None] = lambda: None
        self._asked = {"postgresql": 0, "redis": 0}  # names
        self._found = {"postgresql": 0, "redis": 0}
        self._registry = registry
        self._rows = rows
        self._changed = changed
        self._used = used
        self._wanted: dict[str, asyncio.Future[None]] = {}
        self._flying: dict[str, asyncio.Future[None]] = {}
        self._doubted: set[str] = set()  # while it flies
        self._untold: set[str] = set()  # copies in Redis that are to be made void
        self._telling: set[str] = set()
        self._voiding: asyncio.Task[None] | None = None
        self._renewing = 0
        self._begun = False  # the feed, and copies have been made void that nobody has watched
        self._flight: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._ticks = 0

    def start(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_TICK, self._tick)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        tasks = [*self._tasks, *([self._flight] if self._flight is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for future in (*self._wanted.values(), *self._flying.values()):
            future.cancel()

    # --- look-ups -------------------------------------------------------------------------------------

    @property
    def up(self) -> bool:
        return self.source.worth_asking

    def stores(self) -> list[StoreState]:
        states = {"redis": self.near.state} if self.near is not None else {}
        states["postgresql"] = self.source.state
        return [
            StoreState(name, state, self._asked[name], self._found[name]) for name, state in states.items()
        ]

    async def find(self, name_or_id: str) -> None:
        if _possible(name_or_id):
            await asyncio.shield(self._want(canonical(name_or_id)))
        else:
            self._rows.put_absent(name_or_id, monotonic())

    def _want(self, name: str) -> asyncio.Future[None]:
        future = self._flying.get(name) or self._wanted.get(name)
        if future is None:
            future = self._wanted[name] = asyncio.get_running_loop().create_future()
            if self._flight is None:
                self._launch()
        return future

    def _launch(self) -> None:
        self._flight = asyncio.get_running_loop().create_task(self._fly())
        self._flight.add_done_callback(self._landed)

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._flight = None
        if not flight.cancelled() and self._wanted:
            self._launch()

    async def _fly(self) -> None:
        while self._wanted:
            batch = dict(islice(self._wanted.items(), _BATCH))
            for name in batch:
                del self._wanted[name]
            self._flying = batch
            self._doubted.clear()
            again: set[str] = set()
            copies: dict[str, Row] = {}
            try:
                rows, unasked, copies, ticket = await self._ask(list(batch))
                again = self._doubted & batch.keys()
                self._land(batch.keys() - again, rows, unasked)
            except Exception as error:
                _log.exception("registry look-up broke", error)
                self._land(batch.keys(), [], set(batch))
            finally:
                self._flying = {}
                for name, future in batch.items():
                    if name in again:
                        self._wanted[name] = future
                    elif not future.done():
                        future.set_result(None)
            copies = {name: row for name, row in copies.items() if name not in again}
            if copies and self.near is not None:
                await self.near.put(copies, ticket)

    async def _ask(self, names: list[str]) -> tuple[list[Row], set[str], dict[str, Row], Ticket]:
        """The rows, the names nobody could be asked about, and of what Redis should have copies."""
        rows: dict[str, Row] = {}
        ticket = Ticket("", {})
        near = self.near
        sure = self._begun or not self.source.worth_asking  # in an outage what there is has to do
        if near is not None and near.state.up and not self._renewing and sure:
            while self._voiding is not None and not (self._untold | self._telling).isdisjoint(names):
                await asyncio.wait({self._voiding})
            rows, ticket = await near.get(names)
            self._asked["redis"] += len(names)
            self._found["redis"] += len(rows)
        rest = [name for name in names if name not in rows]
        if not rest:
            return list(rows.values()), set(), {}, ticket
        self._asked["postgresql"] += len(rest)
        try:
            found = await self.source.rows(rest)
        except SourceDown:
            return list(rows.values()), set(rest), {}, ticket
        self._found["postgresql"] += len(found)
        by_name = _by_name(found)
        copies = {name: by_name[name] for name in rest if name in by_name and name in ticket.stamps}
        return [*rows.values(), *found], set(), copies, ticket

    def _land(self, names: Collection[str], rows: list[Row], unasked: set[str]) -> None:
        by_name = _by_name(rows)
        changed: set[str] = set()
        for name in names:
            row = by_name.get(name)
            if row is not None:
                if self._registry.take(row):
                    changed.add(row.tenant_code)
            elif name in unasked:
                self._rows.put_unasked(name, monotonic())
            else:
                old = self._rows.find(name)
                if self._registry.take_absence(name) and old is not None:
                    changed.add(old.row.tenant_code)
        self._tell(changed)

    def _tell(self, changed: set[str]) -> None:
        in_use = frozenset(name for name in changed if self._rows.in_use(name))
        if in_use:
            self._changed(in_use)

    # --- changes --------------------------------------------------------------------------------------

    def heard(self, names: Collection[str]) -> None:
        self._doubt(names)
        self._untold.update(canonical(name) for name in names)
        if self._voiding is None:
            self._voiding = self._spawn(self._make_void())

    def heard_from_others(self, names: Collection[str]) -> None:
        """Another proxy has heard of changes, which matters where our own feed is lost."""
        if not self.source.state.up:
            self._doubt(names)
            self._refresh(names)

    def heard_all(self, *, begins: bool = False) -> None:
        self._doubted.update(self._flying)
        self._rows.doubt_all()
        self._renewing += 1
        self._spawn(self._renew(begins=begins))

    async def _renew(self, *, begins: bool) -> None:
        try:
            if self.near is not None:
                await self.near.renew(begins=begins)
            self._begun = True
        finally:
            self._renewing -= 1
        self._refresh(self._used())

    async def _make_void(self) -> None:
        try:
            while self._untold:
                names, self._untold = self._untold, set()
                self._telling = names
                many = len(names) > _MANY
                if self.near is not None and many:
                    await self.near.renew(begins=False)
                elif self.near is not None:
                    await self.near.invalidate(names)
                self._telling = set()
                self._refresh(self._used() if many else names)
        finally:
            self._voiding, self._telling = None, set()

    async def made_void(self) -> None:
        """Waits until the copies of all that has been heard are void, or can not be made so."""
        while self._voiding is not None:
            await asyncio.wait({self._voiding})

    def _doubt(self, names: Collection[str]) -> None:
        if self._flying:
            self._doubted.update(name for name in map(canonical, names) if name in self._flying)
        self._rows.doubt(names)

    def _refresh(self, names: Iterable[str]) -> None:
        """Reads anew what somebody uses."""
        for name in names:
            if self._rows.in_use(name) and not self._rows.settled(name, monotonic()) and _possible(name):
                self._want(canonical(name))

    # --- from time to time ----------------------------------------------------------------------------

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_TICK, self._tick)
        self._ticks += 1
        ended = self._rows.expired(time())
        self._tell({entry.row.tenant_code for entry in ended if self._registry.take(entry.row)})
        if self._ticks % _STALE_EVERY == 0 and self.up:
            self._refresh(self._rows.stale(monotonic()))
            self.from_time_to_time()

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _by_name(rows: Iterable[Row]) -> dict[str, Row]:
    """A code goes before an id."""
    rows = list(rows)
    return {row.tenant_id: row for row in rows} | {canonical(row.tenant_code): row for row in rows}


def _possible(name: str) -> bool:
    return 0 < len(name) <= _LONGEST and "\0" not in name and not any("\ud800" <= c <= "\udfff" for c in name)
