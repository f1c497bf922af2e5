"""How much tenants store: asked of their clusters every night, and of one cluster when somebody wants to know.

A cluster is asked by its storage_user, on a replica if it has one. A dedicated cluster that is one tenant's is that
tenant's as a whole. Elsewhere a schema that is called like a tenant (its code or its id) is that tenant's, and of a
table with a column for the tenant each has a share as large as its rows, counted in a sample where the table is large.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

from proxy import log
from proxy.control.tenancy import Tenancy, Told
from proxy.errors import InvalidParameter, ServerLost, TiergateError
from proxy.model import Cluster, ClusterKind, Role, ServerOptions
from proxy.net.stream import LoginStream
from proxy.net.tls import ServerTls
from proxy.registry.statements import Wanted
from proxy.server.asking import ask
from proxy.server.login import ServerLogin, connect

_log = log.get("storage")
_FROM, _TO = 2, 5  # o'clock, UTC: the night
_LOOKS = 600.0  # seconds between two looks at the clock
_SIGN = timedelta(minutes=1)  # how often whoever measures says that it still does
_PAGE = 1000
_GB = 2**30
_LONG = 3600.0  # seconds that one cluster may take at night
_PATIENCE = 120.0  # and when somebody waits for it
_SAMPLE = 256 * 2**20  # bytes of a table that are read to share it out
_PARAMETERS = {
    "application_name": "tiergate storage", "client_encoding": "UTF8", "search_path": "pg_catalog, pg_temp",
    "default_transaction_read_only": "on", "statement_timeout": "600000",
}  # fmt: skip
_DATABASES = """
SELECT d.datname, pg_database_size(d.oid) FROM pg_database AS d
WHERE d.datallowconn AND NOT d.datistemplate AND has_database_privilege(d.oid, 'CONNECT') ORDER BY 1
"""
_SCHEMAS = """
SELECT n.nspname, sum(pg_total_relation_size(c.oid)) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' GROUP BY 1
"""
# Of types whose text is made by the server's own code alone: what a client has made must not be run by whoever asks.
_TABLES = """
SELECT n.nspname, format('%I.%I', n.nspname, c.relname), quote_ident(a.attname), pg_total_relation_size(c.oid)
FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE a.attname = $1 AND NOT a.attisdropped AND c.relkind = 'r' AND n.nspname <> 'information_schema'
  AND n.nspname !~ '^pg_' AND has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE')
  AND NOT row_security_active(c.oid)
  AND a.atttypid = ANY (ARRAY['text', 'varchar', 'bpchar', 'uuid', 'int4', 'int8']::regtype[])
"""

Tls = Callable[[], ServerTls]


class NotMeasured(InvalidParameter):
    """What a tenant stores cannot be asked for."""


class Storage:
    """`used` is what was found last, in GB by the tenant's name."""

    def __init__(
        self, tenancy: Tenancy, options: Callable[[], ServerOptions], tls: Tls, guc: Callable[[], str]
    ) -> None:
        self.used: dict[str, float] = {}
        self._tenancy = tenancy
        self._options = options
        self._tls = tls
        self._guc = guc
        self._asking = asyncio.Lock()  # one cluster at a time
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._nights())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    # --- when ---------------------------------------------------------------------------------------

    async def _nights(self) -> None:
        while True:
            try:
                await self.look(datetime.now(UTC))
            except TiergateError as error:  # the registry does not answer, or lacks its tables
                _log.debug("storage not measured", error=error.message)
            except Exception as error:  # or nothing would be measured any more, and nobody told
                _log.exception("storage not measured", error)
            await asyncio.sleep(_LOOKS)

    async def look(self, now: datetime) -> bool:
        """Measures everything if it is night and no other proxy does, or has. One that ends meanwhile leaves it to the
        next that looks."""
        day, store = now.date(), self._tenancy.store
        if not _FROM <= now.hour < _TO or not await store.claim(day, 3 * _SIGN):
            return False
        signs = asyncio.get_running_loop().create_task(self._signs(day))
        try:
            await self._measure_all()
        finally:
            signs.cancel()
            await asyncio.gather(signs, return_exceptions=True)
        await store.go_on(day, done=True)
        return True

    async def _signs(self, day: date) -> None:
        while True:
            await asyncio.sleep(_SIGN.total_seconds())
            with contextlib.suppress(TiergateError):
                await self._tenancy.store.go_on(day, done=False)

    async def _measure_all(self) -> None:
        for name, tenants in (await self._everyone()).items():
            cluster = self._tenancy.directory().clusters.get(name)
            if cluster is not None and cluster.storage_user:
                with contextlib.suppress(TiergateError):
                    await self._probe(cluster, tenants, _LONG)

    async def of(self, told: Told) -> float:
        """What one tenant stores now, in GB; its whole cluster is measured. Raises NotMeasured, ServerError."""
        cluster = self._tenancy.directory().clusters.get(told.cluster)
        if cluster is None or not cluster.storage_user:
            raise NotMeasured(
                f'cluster "{told.cluster}" has no storage_user', hint="Configure one for [cluster.NAME]."
            )
        found = await self._probe(cluster, (await self._everyone()).get(cluster.name, []), _PATIENCE)
        return found.get(told.name, 0.0)

    async def _everyone(self) -> dict[str, list[Told]]:
        """The registry's tenants by their clusters."""
        found: dict[str, list[Told]] = {}
        after = ""
        while page := await self._tenancy.page(Wanted(), after, _PAGE, of_file=False):
            for told in page:
                found.setdefault(told.cluster, []).append(told)
            after = page[-1].name
        return found

    # --- what ---------------------------------------------------------------------------------------

    async def _probe(self, cluster: Cluster, tenants: Sequence[Told], patience: float) -> dict[str, float]:
        """Measures a cluster and writes what was found. Raises NotMeasured, and what its server says."""
        async with self._asking:
            try:
                async with asyncio.timeout(patience):
                    found = await self._measure(cluster, tenants)
            except TimeoutError:
                _log.warning("storage not measured", cluster=cluster.name, error="it takes too long")
                raise NotMeasured(f'to measure cluster "{cluster.name}" takes too long') from None
            except TiergateError as error:
                _log.warning("storage not measured", cluster=cluster.name, error=error.message)
                raise
            used = {told.name: found.get(told.name, 0) / _GB for told in tenants}
            ids = {told.name: told.id for told in tenants}
            await self._tenancy.store.record_storage(
                datetime.now(UTC).date(), [(ids[name], gigabytes) for name, gigabytes in used.items()]
            )
            self.used |= used
            _log.info("storage measured", cluster=cluster.name, tenants=len(used))
            return used

    async def _measure(self, cluster: Cluster, tenants: Sequence[Told]) -> dict[str, int]:
        """Bytes by the tenant's name."""
        async with self._connected(cluster, cluster.dbname or "postgres") as stream:
            databases = {str(row[0]): int(row[1] or 0) for row in await ask(stream, _DATABASES)}
        if cluster.dbname:
            databases = {name: size for name, size in databases.items() if name == cluster.dbname}
        if self._is_one_tenants(cluster, tenants):
            return {tenants[0].name: sum(databases.values())}
        names = {told.name: told.name for told in tenants} | {told.id: told.name for told in tenants}
        found: dict[str, int] = {}
        for database in databases:
            async with self._connected(cluster, database) as stream:
                for name, size in (await shares(stream, names, self._guc().rpartition(".")[2])).items():
                    found[name] = found.get(name, 0) + size
        return found

    def _is_one_tenants(self, cluster: Cluster, tenants: Sequence[Told]) -> bool:
        if cluster.kind is not ClusterKind.DEDICATED or len(tenants) != 1:
            return False
        of_file = self._tenancy.directory().tenants.values()
        return not any(t.cluster == cluster.name and t.name != tenants[0].name for t in of_file)

    @contextlib.asynccontextmanager
    async def _connected(self, cluster: Cluster, database: str) -> AsyncIterator[LoginStream]:
        done = await self._login(cluster, database)
        try:
            yield done.stream
        finally:
            await done.stream.close()

    async def _login(self, cluster: Cluster, database: str) -> ServerLogin:
        """On the first that answers, replicas before others."""
        replicas = cluster.with_role(Role.REPLICA)
        endpoints = [*replicas, *(e for e in cluster.endpoints if e not in replicas)]
        while True:
            try:
                return await connect(
                    endpoints.pop(0), database=database, user=cluster.storage_user, password=cluster.storage_password,
                    options=self._options(), tls=self._tls(), parameters=_PARAMETERS,
                )  # fmt: skip
            except ServerLost:
                if not endpoints:
                    raise


async def shares(stream: LoginStream, names: Mapping[str, str], column: str) -> dict[str, int]:
    """Bytes of a database by tenant. `names` are what a tenant may be called there."""
    found: dict[str, int] = {}

    def add(name: str, size: float) -> None:
        found[names[name]] = found.get(names[name], 0) + round(size)

    own = {str(schema): int(size or 0) for schema, size in await ask(stream, _SCHEMAS)}
    for schema, size in own.items():
        if schema in names:
            add(schema, size)
    for in_schema, table, quoted, total in await ask(stream, _TABLES, column):
        if in_schema not in names:
            for name, share in (await _rows(stream, str(table), str(quoted), int(total or 0))).items():
                if name in names:
                    add(name, share * int(total or 0))
    return found


async def _rows(stream: LoginStream, table: str, column: str, size: int) -> dict[str, float]:
    """Each tenant's part of a table, of those that have rows in it. The names are quoted already."""
    sample = "" if size <= _SAMPLE else f" TABLESAMPLE SYSTEM ({100 * _SAMPLE / size:.6f})"
    text = (
        f"SELECT t.{column}::text, sum(pg_column_size(t.*)) FROM ONLY {table} AS t{sample}"  # noqa: S608
        f" WHERE t.{column} IS NOT NULL GROUP BY 1"
    )
    weights = {str(name): float(weight or 0) for name, weight in await ask(stream, text)}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()} if total else {}
