"""The registry's database: one connection a process, on which rows are looked up and changes are heard.

CONNECTING until an attempt has had an outcome, UP while the connection lives and listens, DOWN until an attempt
succeeds, with pauses that grow. Who asks while it is CONNECTING waits for the outcome; who asks while it is DOWN is
told so at once. The feed begins before anything is looked up, so that no change falls between.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, TypeVar
from uuid import UUID

import asyncpg

from proxy import log
from proxy.registry.rows import CHANNEL, TABLE, Row
from proxy.registry.sources import Ear, SourceDown, State, Stored

T = TypeVar("T")
Query = tuple[str, list[Any], list[Any]]
_log = log.get("registry")
_ROWS = f"""
SELECT pg_catalog.row_to_json(t)::pg_catalog.text FROM {TABLE} AS t
WHERE t.tenant_code OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text[])
    OR t.tenant_id OPERATOR(pg_catalog.=) ANY ($2::pg_catalog.uuid[])
"""  # noqa: S608
_USERS = """
SELECT t.tenant_code::pg_catalog.text, u.user_name::pg_catalog.text, u.verifier
FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) AS wanted (tenant, name)
JOIN public.tenant_registry AS t ON t.tenant_code OPERATOR(pg_catalog.=) wanted.tenant
JOIN public.tenant_users AS u
    ON u.tenant_id OPERATOR(pg_catalog.=) t.tenant_id AND u.user_name OPERATOR(pg_catalog.=) wanted.name
WHERE NOT u.locked
    AND (u.valid_until IS NULL OR u.valid_until OPERATOR(pg_catalog.>) pg_catalog.now())
"""
_NO_USERS = (
    "SELECT '', '', '' WHERE pg_catalog.array_length($1::pg_catalog.text[] || $2::pg_catalog.text[], 1) < 0"
)
# Whether it has users that we may read, and whether it tells of changes, by the one trigger of before version 4 or by three:
# tables that were made by hand have none.
_WHAT_IT_HAS = """
SELECT pg_catalog.has_table_privilege(pg_catalog.to_regclass('public.tenant_users'), 'SELECT'), (
    SELECT pg_catalog.bool_or(t.tgname = 'tiergate_tell') OR pg_catalog.count(*) = 3
    FROM pg_catalog.pg_trigger AS t
    WHERE t.tgrelid = pg_catalog.to_regclass('public.tenant_registry') AND t.tgenabled IN ('O', 'A') AND t.tgname
        IN ('tiergate_tell', 'tiergate_tell_inserted', 'tiergate_tell_updated', 'tiergate_tell_deleted'))
"""
_MUTE = "its tables tell of no changes; tiergate sql upgrade --registry mends that"
_FLOOD = 1000  # notices at once, of which nobody reads the names any more
_CONNECT = 5.0  # seconds
_ANSWER = 2.0
_PING_EVERY = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, ValueError)


class PostgreSQL:
    def __init__(self, dsn: str, ear: Ear) -> None:
        self.state = State(False, monotonic())
        self._dsn = dsn
        self._ear = ear
        self._connection: asyncpg.Connection[Any] | None = None
        self._busy = asyncio.Lock()
        self._told = asyncio.Event()  # whether it is up
        self._lost = asyncio.Event()
        self._failed = False
        self._has_users = False
        self._notices: list[str] = []
        self._mute = ""  # why no changes are heard although it is up
        self._silent = False  # it has not answered in time
        self._served = False  # the connection of now has been up
        self._task: asyncio.Task[None] | None = None

    @property
    def worth_asking(self) -> bool:
        return not (self._failed or self._silent)

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # --- the connection -------------------------------------------------------------------------------

    async def _run(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            reason = ""
            try:
                pause = await self._serve()
                reason = "the connection was lost"
            except TimeoutError:
                reason = "it does not answer"
            except _FAILURES as error:
                reason = str(error) or type(error).__name__
            was_up, self._served = self._served, False
            if was_up or not self._failed:
                _log.warning("registry lost" if was_up else "registry cannot be reached", reason=reason)
            self.state = State(False, monotonic() if was_up else self.state.since, reason)
            if was_up:
                self._told.clear()  # the next attempt follows at once
                await asyncio.sleep(0.02)  # but for a server that takes us and drops us, again and again
                continue
            self._failed = True
            self._told.set()
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _serve(self) -> float:
        """Until the connection is lost. Returns the pause before the attempt after the next."""
        lost = self._lost = asyncio.Event()
        connection = await asyncpg.connect(
            self._dsn,
            timeout=_CONNECT,
            command_timeout=_ANSWER,
            server_settings={
                "application_name": "tiergate registry",
                "search_path": "pg_catalog, pg_temp",
                "statement_timeout": str(int(_ANSWER * 1000)),
            },
        )
        try:
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(CHANNEL, self._heard)
            await self._look(connection)
            self._connection = connection
            self._served = True
            self.state = State(True, monotonic(), self._mute)
            if self._failed:
                _log.info("registry can be reached")
            self._failed = self._silent = False
            self._ear.heard_all(begins=True)
            self._told.set()
            while not lost.is_set():
                try:
                    await asyncio.wait_for(lost.wait(), _PING_EVERY)
                except TimeoutError:
                    async with self._busy:
                        await self._look(connection)
        finally:
            self._connection = None
            connection.terminate()
        return _FIRST_PAUSE

    async def _look(self, connection: asyncpg.Connection[Any]) -> None:
        """Also from time to time: the tables may be brought up to date at any moment."""
        has_users, tells = await connection.fetchrow(_WHAT_IT_HAS) or (False, False)
        self._has_users, mute = bool(has_users), "" if tells else _MUTE
        if mute and not self._mute:
            _log.warning("registry tells of no changes", hint="tiergate sql upgrade --registry")
        elif self._mute and not mute:
            self._ear.heard_all(begins=True)
        if mute != self._mute and self.state.up:
            self.state = State(True, self.state.since, mute)
        self._mute = mute

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        if not self._notices:
            asyncio.get_running_loop().call_soon(self._read_notices)  # behind all that have come with it
        self._notices.append(str(payload))

    def _read_notices(self) -> None:
        notices, self._notices = self._notices, []
        names: set[str] | None = set()
        for notice in notices if len(notices) <= _FLOOD else ():
            try:
                said = json.loads(notice)
                if not said.get("all") and names is not None:
                    names.update(str(name) for name in said["names"])
                    continue
            except (ValueError, KeyError, TypeError, AttributeError):
                pass  # something has changed, and nobody says what
            names = None
        if names is None or len(notices) > _FLOOD:
            self._ear.heard_all()
        elif names:
            self._ear.heard(names)

    async def hears(self) -> bool:
        """All changes until now have been heard: they come on the same connection, before an answer does."""
        connection = self._connection
        if connection is None:
            return False
        try:
            async with asyncio.timeout(_ANSWER), self._busy:
                await connection.execute("SELECT 1")
        except (*_FAILURES, TimeoutError):
            return False
        self._read_notices()
        return self._connection is connection and not self._mute

    # --- look-ups -------------------------------------------------------------------------------------

    async def rows(self, names: Sequence[str]) -> list[Row]:
        records = await self._in_time(lambda some: (_ROWS, list(some), _ids(some)), names)
        return [row for record in records if (row := _row(record[0])) is not None]

    async def users(self, names: Sequence[tuple[str, str]]) -> list[Stored]:
        """None where the registry has no such table, or does not let us read it."""
        if self.state.up and not self._has_users:
            return []
        records = await self._in_time(
            lambda some: (
                _USERS if self._has_users else _NO_USERS,
                [t for t, _ in some],
                [u for _, u in some],
            ),
            names,
        )
        return [Stored(*record) for record in records]

    async def _in_time(self, query: Callable[[Sequence[T]], Query], about: Sequence[T]) -> list[Any]:
        try:
            async with asyncio.timeout(_ANSWER):
                return await self._ask(query, about)
        except TimeoutError:
            self._silent = True  # whoever is known does not wait for the next answer
            raise SourceDown("it does not answer") from None

    async def _ask(self, query: Callable[[Sequence[T]], Query], about: Sequence[T]) -> list[Any]:
        while True:
            await self._told.wait()
            connection = self._connection
            if connection is None:
                if self._told.is_set():
                    raise SourceDown(self.state.reason)
                continue
            try:
                async with self._busy:
                    found: list[Any] = await connection.fetch(*query(about))
                self._read_notices()  # of what has changed before that is doubted before it is believed
                self._silent = False
                if not self.state.up:
                    self.state = State(True, monotonic(), self._mute)
                return found
            except asyncpg.DataError:
                if len(about) == 1:
                    return []  # a name that the database cannot spell is none of its tenants'
                return [row for one in about for row in await self._ask(query, [one])]
            except _FAILURES as error:
                if not connection.is_closed():
                    if self.state.up:
                        _log.warning("registry look-up failed", error=str(error))
                        self.state = State(False, monotonic(), str(error))
                    raise SourceDown(str(error)) from None
                if self._connection is connection:
                    # Its termination has not been told yet, and is never where it came with an answer on the way.
                    self._connection = None
                    self._told.clear()
                    self._lost.set()


def _row(text: str) -> Row | None:
    row = Row.from_json(text)
    if row is None:
        _log.warning("registry row cannot be read")
    return row


def _ids(names: Sequence[str]) -> list[UUID]:
    found = []
    for name in names:
        if len(name) == 36:
            try:
                found.append(UUID(name))
            except ValueError:
                continue
    return found
