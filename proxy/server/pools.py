"""All pools of the process, the counts of server connections, and the tasks that open and cancel."""

from __future__ import annotations

import asyncio
from collections import Counter as Counts
from collections.abc import Coroutine, Iterator, Mapping
from time import monotonic

from proxy import log
from proxy.admission.accounts import Counter, Lender, give_all
from proxy.auth.to_server import NoPassword, other_verifier
from proxy.errors import NoHealthyEndpoint, ServerRefused, TiergateError
from proxy.model import Cluster, Endpoint, PoolKey, PoolMode, Seal, ServerOptions
from proxy.net.tls import ServerTls
from proxy.protocol.statements import Catalog, Statement
from proxy.routing.choose import choose
from proxy.server import cancel as cancelling
from proxy.server import login
from proxy.server.adapting import Adapting
from proxy.server.connection import ServerConnection
from proxy.server.custody import Custody, Held
from proxy.server.deadlines import Deadlines
from proxy.server.health import Health
from proxy.server.pool import Pool
from proxy.server.room import Room
from proxy.server.sealing import Sealer
from proxy.server.surplus import Surplus
from proxy.stats import ProcessStats

_log = log.get("server")
_INVALID_PASSWORD = "28P01"  # noqa: S105
# Libraries are loaded when a connection begins; setting these later does nothing, without an error.
_ONLY_AT_START = ("local_preload_libraries", "session_preload_libraries")


class Pools:
    __slots__ = (
        "_held", "_in_custody", "_paused", "_pools", "_tasks", "adapting", "catalog", "custody", "deadlines", "health",
        "only_at_start", "options", "process", "room", "servers", "surplus", "tls",
    )  # fmt: skip

    def __init__(
        self,
        options: ServerOptions,
        tls: ServerTls,
        process: ProcessStats,
        lender: Lender | None = None,
        custody: Custody | None = None,
    ) -> None:
        self.options = options
        self.tls = tls
        self.process = process
        self.catalog = Catalog()
        self.health = Health()
        # Names of parameters that servers take only while a connection begins, as far as they have said so.
        self.only_at_start = set(_ONLY_AT_START)
        self.room = Room(options.max_server_connections, lambda: self, lender)
        self.servers = self.room.servers
        self.deadlines = Deadlines()
        self.surplus = Surplus()
        self.adapting = Adapting(self.room, lambda: self)
        self._pools: dict[tuple[PoolKey, PoolMode], Pool] = {}
        self.custody = custody
        self._held: dict[ServerConnection, tuple[Counter, ...]] = {}
        self._in_custody: dict[ServerConnection, Held] = {}
        self._paused: set[str] = set()  # names of clusters, or "*" for all
        self._tasks: set[asyncio.Task[None]] = set()

    def __iter__(self) -> Iterator[Pool]:
        return iter(list(self._pools.values()))

    # --- pools --------------------------------------------------------------------------------------

    def pool(self, key: PoolKey, cluster: Cluster, mode: PoolMode, password: str) -> Pool:
        """The pool for `key`, made on first use. Pools of different modes never share connections."""
        pool = self._pools.get((key, mode))
        if pool is None:
            self._replace_others(key)
            pool = Pool(self, key, cluster, mode, (key.user, password))
            pool.paused = self.paused(cluster.name)
            self._pools[key, mode] = pool
        elif pool.cluster is not cluster or pool.login[1] != password:
            self._reconfigure(pool, cluster, password)
        return pool

    def _replace_others(self, key: PoolKey) -> None:
        """Nobody is left who has proved itself by the verifier that a user had before."""
        for pool in self:
            if key.verifier and not pool.sessions and pool.key._replace(verifier=key.verifier) == key:
                pool.recycle()

    def has(self, pool: Pool) -> bool:
        """It has not been forgotten."""
        return self._pools.get((pool.key, pool.mode)) is pool

    def _reconfigure(self, pool: Pool, cluster: Cluster, password: str) -> None:
        moved = pool.cluster.endpoints != cluster.endpoints or pool.login[1] != password
        moved = _seals_otherwise(pool, cluster.seal) or moved
        pool.cluster = cluster
        pool.login = (pool.key.user, password)
        self.room.limit(cluster)
        if moved:
            pool.failed_with = None
            pool.recycle()

    def reload(self, options: ServerOptions, tls: ServerTls, clusters: Mapping[str, Cluster]) -> None:
        """New values for pools that live on; pools of clusters that are gone lose their idle connections."""
        self.options = options
        self.tls = tls
        self.servers.limit = options.max_server_connections
        self.servers.wake()
        for pool in self:
            pool.options = options
            cluster = clusters.get(pool.cluster.name)
            if cluster is None:
                pool.recycle()
            elif cluster != pool.cluster:
                self._reconfigure(pool, cluster, cluster.password if cluster.user else pool.login[1])
            while pool.idle and pool.size > pool.cluster.pool_size:
                pool.close_idle(pool.idle[0])
            pool.serve()

    def forget_unused(self, now: float) -> None:
        for at, pool in list(self._pools.items()):
            if pool.unused and now - pool.last_used > self.options.pool_idle_timeout:
                del self._pools[at]

    # --- operators ----------------------------------------------------------------------------------

    def paused(self, cluster: str) -> bool:
        return "*" in self._paused or cluster in self._paused

    def pause(self, cluster: str = "*") -> None:
        self._paused.add(cluster)
        self._apply_pauses()

    def resume(self, cluster: str = "*") -> bool:
        """False if it was not paused."""
        was = cluster in self._paused
        if cluster == "*":
            was = bool(self._paused)
            self._paused.clear()
        self._paused.discard(cluster)
        self._apply_pauses()
        return was

    def _apply_pauses(self) -> None:
        for pool in self:
            pool.paused = self.paused(pool.cluster.name)
            if pool.paused:
                for server in list(pool.idle):
                    pool.close_idle(server)
            else:
                pool.serve()

    def reconnect(self, cluster: str = "") -> None:
        for pool in self:
            if cluster in ("", pool.cluster.name):
                pool.recycle()

    def drop_all(self, cluster: str, error: TiergateError) -> None:
        """Closes every connection of a cluster at once, those that are being opened as soon as they are."""
        for pool in self:
            if cluster in ("*", pool.cluster.name):
                pool.recycle()
                for server in [*pool.active, *pool.resetting]:
                    if server.link is not None:
                        server.link.end(error)
                    if server in pool.active or server in pool.resetting:
                        pool.drop(server)

    async def evict_database(self, cluster: str, database: str) -> None:
        """Closes the connections to a database that nobody uses and waits until their backends are gone."""
        pools = [pool for pool in self if pool.cluster.name == cluster and pool.key.database == database]
        deadline = monotonic() + 5.0
        while True:
            for pool in pools:
                for server in list(pool.idle):
                    pool.close_idle(server)
            if not any(self._has_leavers(pool) for pool in pools) or monotonic() >= deadline:
                return
            await asyncio.sleep(0.002)

    def _has_leavers(self, pool: Pool) -> bool:
        """Connections that will be closed without anybody's doing."""
        return bool(pool.opening or pool.resetting or any(server in self._held for server in pool.closing))

    # --- tasks --------------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.exception("server task failed", error)

    def open(self, pool: Pool, counters: tuple[Counter, ...]) -> None:
        """Opens one more connection for `pool`; the permits are the connection's until its socket is closed."""
        self.spawn(self._open(pool, counters))

    async def _open(self, pool: Pool, counters: tuple[Counter, ...]) -> None:
        generation = pool.generation
        try:
            server = await self._connect_somewhere(pool, generation)
        except BaseException as error:
            give_all(counters)
            if isinstance(error, TiergateError):
                self._report(pool, error)
                pool.failed(error)
                return
            pool.failed(None)
            raise
        self._held[server] = counters
        pool.opened(server)

    async def _connect_somewhere(self, pool: Pool, generation: int) -> ServerConnection:
        """A connection to the best endpoint; those that cannot be reached are set aside."""
        failure: TiergateError | None = None
        for _ in pool.cluster.endpoints:
            endpoint = self._endpoint(pool, monotonic())
            if endpoint is None:
                break
            try:
                server = await self._connect(pool, endpoint, generation)
            except NoPassword:
                self.process.server_failures += 1
                raise
            except ServerRefused as error:
                self.process.server_failures += 1
                if pool.client_key and error.sqlstate == _INVALID_PASSWORD:
                    raise other_verifier(pool.key.user) from None
                raise
            except TiergateError as error:
                self.process.server_failures += 1
                failure = error
                self._eject(endpoint, error)
                continue
            self.health.restore(endpoint)
            return server
        if failure is None:
            failure = pool.failed_with
        raise failure or NoHealthyEndpoint(f'no server of cluster "{pool.cluster.name}" can be reached')

    def _endpoint(self, pool: Pool, now: float) -> Endpoint | None:
        """The healthy endpoint that has the fewest of the pool's connections."""
        counts = Counts(server.endpoint for server in pool.connections())
        return choose(pool.cluster.endpoints, lambda e: self.health.healthy(e, now), lambda e: counts[e])

    def reachable(self, cluster: Cluster, now: float) -> bool:
        return choose(cluster.endpoints, lambda e: self.health.healthy(e, now), lambda _: 0) is not None

    def retire(self, statement: Statement) -> None:
        self.catalog.retire(statement)

    async def _connect(self, pool: Pool, endpoint: Endpoint, generation: int) -> ServerConnection:
        user, password = pool.login
        held = self.in_custody(endpoint, pool)
        done = await login.connect(
            endpoint,
            database=pool.key.database,
            user=user,
            password=password,
            client_key=pool.client_key,
            options=self.options,
            tls=self.tls,
            parameters=dict(pool.key.at_start),
            held=held,
            introduce=pool.cluster.seal is not None,
        )
        server = ServerConnection(
            pool,
            endpoint,
            pid=done.pid,
            key=done.key,
            parameters=done.parameters,
            max_prepared=self.options.max_prepared_statements,
            generation=generation,
        )
        if pool.cluster.seal is not None and done.introduction is not None:
            server.sealer = Sealer(pool.cluster.seal, done.introduction, monotonic())
        if held is not None:
            self._in_custody[server] = held
        self.process.server_connections += 1
        server.take_transport(done.stream.transport)
        rest = done.stream.take_over(server)
        if rest:
            server.data_received(rest)
        return server

    def in_custody(self, endpoint: Endpoint, pool: Pool) -> Held | None:
        """For a connection to be made; None in a process that is alone."""
        if self.custody is None:
            return None
        return self.custody.hold(endpoint, tuple(counter.name for counter in pool.caps))

    def release(self, server: ServerConnection) -> None:
        held = self._in_custody.pop(server, None)
        if held is not None:
            held.closed()
        counters = self._held.pop(server, ())
        give_all(counters)

    def _eject(self, endpoint: Endpoint, error: TiergateError) -> None:
        self.health.eject(endpoint, monotonic() + self.options.server_login_retry, error.message)
        _log.warning(
            "endpoint set aside", endpoint=str(endpoint), error=error.message, internal=error.internal
        )

    def _report(self, pool: Pool, error: TiergateError) -> None:
        said = "server refused the login" if isinstance(error, ServerRefused) else "no server connection"
        _log.warning(
            said, cluster=pool.cluster.name, database=pool.key.database, user=pool.key.user, error=error.message,
            sqlstate=error.sqlstate, internal=error.internal,
        )  # fmt: skip

    def cancel(self, server: ServerConnection) -> asyncio.Task[None]:
        """Cancels what `server` runs; until that is over the connection goes to nobody else."""
        server.cancels += 1
        self.process.cancels += 1
        return self.spawn(self._cancel(server))

    async def _cancel(self, server: ServerConnection) -> None:
        try:
            await self._send_cancel(server)
        finally:
            server.cancels -= 1
            if not server.cancels:
                server.owner.cleaned(server)

    async def _send_cancel(self, server: ServerConnection) -> None:
        try:
            await cancelling.cancel(
                server.endpoint, server.pid, server.key, self.tls, self.options.cancel_wait_timeout
            )
        except TiergateError as error:
            # Nobody knows whether the cancel will still come: the connection must not meet another client.
            server.generation = -1
            _log.warning("cancel failed", endpoint=str(server.endpoint), error=error.message)

    def pass_cancel_on(self, endpoint: Endpoint, pid: int, key: bytes) -> asyncio.Task[None]:
        """Of a connection that belongs to no pool."""
        self.process.cancels += 1
        return self.spawn(self._pass_cancel_on(endpoint, pid, key))

    async def _pass_cancel_on(self, endpoint: Endpoint, pid: int, key: bytes) -> None:
        try:
            await cancelling.cancel(endpoint, pid, key, self.tls, self.options.cancel_wait_timeout)
        except TiergateError as error:
            _log.warning("cancel failed", endpoint=str(endpoint), error=error.message)

    def cancel_and_close(self, server: ServerConnection) -> None:
        server.cancels += 1
        self.spawn(self._cancel_and_close(server))

    async def _cancel_and_close(self, server: ServerConnection) -> None:
        try:
            await self._send_cancel(server)
        finally:
            server.abort()

    async def close(self) -> None:
        """Closes every connection and waits for the tasks."""
        for pool in self:
            for server in pool.connections():
                if server in pool.idle:
                    pool.close_idle(server)
                else:
                    pool.drop(server)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        deadline = monotonic() + 2.0
        while self._held and monotonic() < deadline:
            await asyncio.sleep(0.005)
        for server in list(self._held):
            server.abort()
        while self._held:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0)  # uvloop closes the descriptors in its next turn
        await asyncio.sleep(0)


def _seals_otherwise(pool: Pool, seal: Seal | None) -> bool:
    """Has connections sign with other keys from their next transaction on. True if they must be replaced."""
    old = pool.cluster.seal
    if old == seal:
        return False
    if old is None or seal is None or old.tenant_guc != seal.tenant_guc:
        return True
    for server in pool.connections():
        if server.sealer is not None:
            server.sealer.seal = seal
            server.seal_due = 0.0
    return False
