"""Writes tenants to the registry's tables, each change in one transaction with its audit row; and reads them as
operators want them. It has a few connections of its own, which know no client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import date, timedelta
from uuid import UUID

import asyncpg

from proxy.errors import RegistryUnavailable
from proxy.registry import statements, usage
from proxy.registry.statements import Columns, Conflict, Connection, Living, Wanted

Change = Callable[[Columns, Living], Columns]

_CONNECTIONS = 4
_CONNECT = 5.0  # seconds
_STATEMENT = 10.0
_NOBODY = Living((), frozenset())


class Store:
    """`dsn` is the registry's. Connections are made when they are needed; `close` may be followed by more.

    All of it raises RegistryUnavailable where the database does not do its part.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                async with asyncio.timeout(2):
                    await pool.close()
            except TimeoutError:
                pool.terminate()

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        try:
            async with self._opening:
                if self._pool is None:
                    self._pool = await asyncpg.create_pool(
                        self._dsn, min_size=0, max_size=_CONNECTIONS, timeout=_CONNECT, command_timeout=_STATEMENT,
                        server_settings={"application_name": "tiergate api", "search_path": "pg_catalog, pg_temp"},
                    )  # fmt: skip
            async with self._pool.acquire(timeout=_CONNECT + _STATEMENT) as connection:
                yield connection
        except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError) as error:
            raise RegistryUnavailable(
                "the registry lacks tables of the management API", internal=str(error),
                hint="tiergate sql install --registry",
            ) from None  # fmt: skip
        except asyncpg.InsufficientPrivilegeError as error:
            raise RegistryUnavailable(
                "the registry refuses its user", internal=str(error),
                hint="002_management.sql says what to GRANT",
            ) from None  # fmt: skip
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise RegistryUnavailable(
                "the registry cannot be reached now", internal=f"{type(error).__name__}: {error}",
                hint="Try again.",
            ) from None  # fmt: skip

    @contextlib.asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        async with self._connection() as connection, connection.transaction():
            yield connection

    # --- reading ------------------------------------------------------------------------------------

    async def find(self, name_or_id: str) -> Columns | None:
        async with self._connection() as connection:
            return await statements.find(connection, name_or_id)

    async def page(self, wanted: Wanted, after: str, limit: int) -> list[Columns]:
        """Tenants in the order of their codes, from the one behind `after` on."""
        async with self._connection() as connection:
            return await statements.page(connection, wanted, after, limit)

    async def usage(self, tenant_id: UUID, first: date, last: date) -> list[Columns]:
        """What the tenant has used, day by day."""
        async with self._connection() as connection:
            return await statements.usage(connection, tenant_id, first, last)

    async def audited(self, tenant: str | None, before: int, limit: int) -> list[Columns]:
        """Audit rows, the newest first, of those whose id is less than `before`; of one tenant by code or id."""
        async with self._connection() as connection:
            return await statements.audited(connection, tenant, before, limit)

    async def record(
        self, process: UUID, day: date, used: Sequence[tuple[str, tuple[int, float, int]]]
    ) -> None:
        """What a process has counted of a day so far; it may be told again."""
        async with self._transaction() as connection:
            await usage.write(connection, process, day, used)

    async def claim(self, day: date, lease: timedelta) -> bool:
        """True for the first of all proxies who wants to measure what is stored on that day, or the next if that one has
        not gone on for so long."""
        async with self._transaction() as connection:
            return await usage.claim(connection, day, lease)

    async def go_on(self, day: date, *, done: bool) -> None:
        """Whoever has claimed the day still measures, or has done so."""
        async with self._transaction() as connection:
            await usage.go_on(connection, day, done=done)

    async def record_storage(self, day: date, used: Sequence[tuple[str, float]]) -> None:
        """What tenants store, in GB by their ids."""
        async with self._transaction() as connection:
            await usage.write_storage(connection, day, [(UUID(identity), gb) for identity, gb in used])

    # --- writing ------------------------------------------------------------------------------------

    async def create(
        self,
        actor: str,
        said: Columns,
        change: Change,
        counting: Iterable[str] | None = None,
        *,
        key: str = "",
        asked: str = "",
    ) -> tuple[Columns, bool]:
        """A new row of what was `said`, completed by `change`; and whether it was there already, because the same
        request, `asked`, had come with the same `key`.

        `change` sees how many live where if `counting` has the names of tenants that are not the registry's. Raises
        Conflict, KeyReused.
        """
        async with self._transaction() as connection:
            if key and (known := await statements.answered(connection, actor, key, asked)) is not None:
                return known, True
            living = _NOBODY if counting is None else await statements.living(connection, counting)
            columns = {**change(said, living), "created_by": actor, "updated_by": actor}
            try:
                async with connection.transaction():
                    row = await statements.insert(connection, columns)
            except asyncpg.UniqueViolationError as error:
                field = "tenant_id" if "(tenant_id)" in (error.detail or "") else "tenant_code"
                raise Conflict(f'there is a tenant with {field} "{columns[field]}" already', field) from None
            await statements.audit(connection, actor, "create", row, None, row)
            if key:
                await statements.remember(connection, actor, key, row)
            return row, False

    async def change(
        self,
        actor: str,
        action: str,
        name_or_id: str,
        change: Change,
        version: int | None,
        *,
        counting: Iterable[str] | None = None,
    ) -> tuple[Columns, Columns]:
        """The row before and after; `change` says which columns get which values (if they have them: nothing is
        done). `version` is the one that it must have, None: any.

        `counting` is as above. Raises NoSuchName, Changed.
        """
        async with self._transaction() as connection:
            living = _NOBODY if counting is None else await statements.living(connection, counting)
            before = await statements.locked(connection, name_or_id, version)
            columns = dict(change(before, living))
            if all(before.get(column) == value for column, value in columns.items()):
                return before, before
            after = await statements.update(connection, before["tenant_id"], {**columns, "updated_by": actor})
            await statements.audit(connection, actor, action, after, before, after)
            return before, after

    async def delete(self, actor: str, name_or_id: str, version: int | None, *, with_usage: bool) -> Columns:
        """Returns what was there. Raises NoSuchName, Changed, Conflict."""
        async with self._transaction() as connection:
            before = await statements.locked(connection, name_or_id, version)
            try:
                async with connection.transaction():
                    await statements.delete(connection, before["tenant_id"], with_usage=with_usage)
            except asyncpg.ForeignKeyViolationError as error:
                usage = error.table_name == "tenant_metrics_daily"
                raise Conflict(
                    f"the tenant has rows in {error.table_name}", "with_usage" if usage else "",
                    "with_usage=true deletes them as well" if usage else "",
                ) from None  # fmt: skip
            await statements.audit(connection, actor, "delete", before, before, None)
            return before
