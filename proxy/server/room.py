"""How many server connections there may be, in a cluster and in all, and who makes room for whom.

An idle connection is a permit that may be wanted elsewhere. Where a cap is this process's own, the longest idle
connection of another pool is closed when a pool wants one more. Where it is shared with other workers, they are
asked first, and the supervisor's ledger decides whose is closed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sized
from time import monotonic
from typing import Any, Protocol

from proxy.admission.accounts import Counter, Lender
from proxy.model import Cluster

_TURN = 0.1  # seconds that a connection may stay where it is although others have none


class Connection(Protocol):
    opened_at: float
    idle_since: float


class Pool(Protocol):
    """What is seen of a pool here."""

    cluster: Cluster
    idle: deque[Any]  # of Connection
    closing: set[Any]

    @property
    def queue(self) -> Sized: ...
    @property
    def size(self) -> int: ...

    def close_idle(self, server: Any) -> None: ...


class Reserve:
    """The idle connections of those pools whose connections one counter counts."""

    __slots__ = ("_pools",)

    def __init__(self, pools: Callable[[], Iterable[Pool]]) -> None:
        self._pools = pools

    @property
    def closing(self) -> int:
        """How many are on their way to be given up."""
        return sum(len(pool.closing) for pool in self._pools())

    def has_a_poor_one(self) -> bool:
        """Whether a pool has none of the connections, and somebody who waits."""
        return any(pool.queue and not pool.size for pool in self._pools())

    def spare(self) -> int:
        return sum(len(pool.idle) for pool in self._pools() if not pool.queue)

    def surrender(self, count: int) -> None:
        """Closes those that were idle longest; the permits come back when their backends are gone. One that has
        just been opened is left until its turn is over."""
        count -= self.closing
        if count <= 0:
            return
        now = monotonic()
        idle = [
            (pool, server)
            for pool in self._pools()
            if not pool.queue
            for server in pool.idle
            if now - server.opened_at >= _TURN
        ]
        idle.sort(key=lambda found: found[1].idle_since)
        for pool, server in idle[:count]:
            pool.close_idle(server)


class _Nobody:
    """Does not take what it gets: it stays with the process."""

    def granted(self) -> bool:
        return False

    def refused(self) -> None:
        """It was worth a try."""


_NOBODY = _Nobody()


class Room:
    """The counters of connections, and what becomes of idle ones because of them."""

    __slots__ = ("_lender", "_pools", "_reserves", "clusters", "servers")

    def __init__(self, limit: int, pools: Callable[[], Iterable[Pool]], lender: Lender | None) -> None:
        self._pools = pools
        self._lender = lender
        self._reserves: dict[Counter, Reserve] = {}
        self.clusters: dict[str, Counter] = {}
        self.servers = self._counter("max_server_connections", Reserve(pools))
        self.servers.limit = limit

    def _counter(self, name: str, reserve: Reserve) -> Counter:
        counter = Counter(name, lender=self._lender, backed=True)
        counter.reserve = self._reserves[counter] = reserve
        return counter

    def cluster(self, name: str) -> Counter:
        counter = self.clusters.get(name)
        if counter is None:
            reserve = Reserve(lambda: [pool for pool in self._pools() if pool.cluster.name == name])
            counter = self.clusters[name] = self._counter(f"cluster {name} max_connections", reserve)
        return counter

    def counters(self, cluster: Cluster) -> tuple[Counter, Counter]:
        counter = self.cluster(cluster.name)
        counter.limit = cluster.max_connections
        return (counter, self.servers)

    def make(self, wanting: Pool) -> None:
        """Closes the longest idle connection of another pool whose cap keeps `wanting` from growing."""
        cluster = self.cluster(wanting.cluster.name)
        full = cluster.full
        if (cluster if full else self.servers).lender is not None:
            return
        others = [
            pool
            for pool in self._pools()
            if pool is not wanting and pool.idle and (not full or pool.cluster.name == wanting.cluster.name)
        ]
        if others and not self._reserves[cluster].closing:
            oldest = min(others, key=lambda pool: pool.idle[0].idle_since)
            oldest.close_idle(oldest.idle[0])

    def came_idle(self, pool: Pool) -> None:
        """Nobody of `pool` wants its idle connections: who waits for room may have it now."""
        for counter in (self.servers, self.cluster(pool.cluster.name)):
            if counter.waited_for:
                counter.wake()
            if counter.sought:
                self._reserves[counter].surrender(1)

    def owed(self, pool: Pool, server: Connection, now: float) -> bool:
        """Whether a connection that comes back must make room for another worker, or for another pool that has
        none, whoever waits for it here. Not at once: opening one costs more than most transactions."""
        if now - server.opened_at < _TURN:
            return False
        for counter in (self.servers, self.cluster(pool.cluster.name)):
            reserve = self._reserves[counter]
            if counter.owed > reserve.closing:
                return True
            if counter.full and counter.waited_for and not reserve.closing and reserve.has_a_poor_one():
                return True
        return False

    def hope(self, full: Counter | None) -> bool:
        """Whether a counter is full of which a permit is wanted for nobody: if other processes can spare one, it
        is there the next time."""
        if full is not None and full.lender is not None:
            full.lender.hope(full, _NOBODY)
        return full is not None

    def surrender_sought(self) -> None:
        """What has become idle on other ways than `came_idle`, or had its turn then."""
        for counter, reserve in self._reserves.items():
            if counter.sought or counter.owed:
                reserve.surrender(max(1, counter.owed))
