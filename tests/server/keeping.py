"""Keeps one pool as `Pools` would, with counters that a test sets and connections that it opens."""

from __future__ import annotations

import pytest

from proxy.admission.accounts import Counter, give_all
from proxy.errors import ServerRefused
from proxy.model import Cluster, ClusterKind, PoolKey, PoolMode, ServerOptions
from proxy.protocol.statements import Catalog, Statement
from proxy.server import cleaning, places, pool
from proxy.server.adapting import Adapting
from proxy.server.connection import ServerConnection
from proxy.server.deadlines import Deadlines
from proxy.server.pool import Pool
from proxy.server.room import Room as WholeRoom
from proxy.wire import encode
from tests.clocks import OwnClock
from tests.server.recording import Waiter, account
from tests.transports import REPORTED, Transport, endpoint

KEY = PoolKey("shared", "appdb", "app")
DONE = encode.command_complete("OK") + encode.ready_for_query()
NO = encode.error("no", "42601") + encode.ready_for_query()
REFUSED = ServerRefused("sorry", "53300", encode.error("sorry", "53300", severity="FATAL"))


class Clock(OwnClock):
    """The time that pools and connections see."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch, cleaning, places, pool)


class Room:
    """Counts what is asked of it."""

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper

    def counters(self, cluster: Cluster) -> tuple[Counter, Counter]:
        return (self.keeper.cluster_permits, self.keeper.all_permits)

    def make(self, wanting: Pool) -> None:
        self.keeper.rooms += 1

    def came_idle(self, pool: Pool) -> None:
        self.keeper.came += 1

    def owed(self, pool: Pool, server: ServerConnection, now: float) -> bool:
        return self.keeper.owes

    def hope(self, full: Counter | None) -> bool:
        return full is not None


class Keeper:
    def __init__(self, options: ServerOptions | None = None) -> None:
        self.options = options or ServerOptions(server_check_delay=0, server_lifetime=0)
        self.cluster_permits, self.all_permits = Counter("cluster"), Counter("process")
        self.asked: list[tuple[Counter, ...]] = []  # connections that are to be opened
        self.rooms = 0  # times that room was asked for
        self.came = 0  # times that a pool had an idle connection to spare
        self.owes = False  # what comes back to others
        self.room = Room(self)
        self.deadlines = Deadlines()
        self.adapting = Adapting(WholeRoom(0, list, None), list)
        self.is_reachable = True
        self.cancelled: list[ServerConnection] = []
        self.held: dict[ServerConnection, tuple[Counter, ...]] = {}
        self.retired: list[Statement] = []
        self.catalog = Catalog()
        self.pids = 0

    def open(self, pool: Pool, counters: tuple[Counter, ...]) -> None:
        self.asked.append(counters)

    def reachable(self, cluster: Cluster, now: float) -> bool:
        return self.is_reachable

    def release(self, server: ServerConnection) -> None:
        give_all(self.held.pop(server, ()))

    def retire(self, statement: Statement) -> None:
        self.retired.append(statement)

    def cancel(self, server: ServerConnection) -> None:
        server.cancels += 1
        self.cancelled.append(server)

    def cancel_and_close(self, server: ServerConnection) -> None:
        server.cancels += 1
        self.cancelled.append(server)

    # --- what a test does ---------------------------------------------------------------------------

    def pool(self, size: int = 2, mode: PoolMode = PoolMode.TRANSACTION) -> Pool:
        return Pool(self, KEY, cluster(size), mode, ("app", "app-secret"))

    def opens(self, pool: Pool) -> ServerConnection:
        """The connection that has been asked for longest is there."""
        counters = self.asked.pop(0)
        self.pids += 1
        server = ServerConnection(
            pool,
            endpoint(),
            pid=self.pids,
            key=b"key!",
            parameters=dict(REPORTED),
            max_prepared=200,
            generation=pool.generation,
        )
        server.take_transport(Transport(server))
        self.held[server] = counters
        pool.opened(server)
        return server

    def cancel_over(self, server: ServerConnection) -> None:
        self.cancelled.remove(server)
        server.cancels -= 1
        if not server.cancels:
            server.owner.cleaned(server)


def cluster(size: int) -> Cluster:
    return Cluster("shared", ClusterKind.SHARED, (endpoint(),), pool_size=size)


def wire(server: ServerConnection) -> Transport:
    assert isinstance(server.transport, Transport)
    return server.transport


def waiter(name: str = "acme", **limits: int) -> Waiter:
    return Waiter(account(name, **limits))


def lent(pool: Pool, who: Waiter) -> ServerConnection:
    server = pool.acquire(who, 1_000.0)
    assert server is not None
    return server


def opened(keeper: Keeper, pool: Pool, count: int = 1) -> list[ServerConnection]:
    """Idle connections."""
    pool.fill(count)
    return [keeper.opens(pool) for _ in range(count)]


def gone(server: ServerConnection) -> None:
    wire(server).hang_up()
