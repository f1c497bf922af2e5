"""How many server connections there may be, in a cluster and in all, and who makes room for whom.

An idle connection is a permit that may be wanted elsewhere. Where a cap is this process's own, the pool whose turn it
is (that of its first waiter's tenant) gets the next: an idle connection of another pool is closed for it, or one
that comes back. Where it is shared with other workers, they are asked first, and the supervisor's ledger
decides whose is closed.

Opening a connection costs more than most transactions, so that a pool keeps what it has for a moment although it is
another one's turn: each connection for a while after it was opened, and after it was used, and all that it
has while its tenants are not far ahead. A pool that has none at all does not wait for the others to get ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from time import monotonic
from typing import Any, Protocol

from proxy.admission.accounts import Account, Counter, Lender, Seeker
from proxy.admission.claiming import claimed
from proxy.admission.queue import ENTITLED, NEVER
from proxy.admission.turns import Crowd, Rota
from proxy.model import Cluster

_TURN = 0.1  # seconds that a connection may stay where it is although others have none
_WORTH = 100  # rounds by which a pool must be ahead of another to give it a connection


class Connection(Protocol):
    account: Account | None
    opened_at: float
    idle_since: float


class Queue(Protocol):
    rota: Rota

    def __len__(self) -> int: ...
    def number(self, rota: Rota | None) -> int: ...
    def demand(self) -> Iterable[tuple[Account, int]]: ...


class Pool(Protocol):
    """What is seen of a pool here."""

    cluster: Cluster
    active: list[Any]  # of Connection
    idle: list[Any]  # of Connection
    opening: int

    @property
    def queue(self) -> Queue: ...
    @property
    def spare(self) -> int: ...
    @property
    def size(self) -> int: ...

    def close_idle(self, server: Any) -> None: ...
    def serve(self) -> None: ...


class Claim(Seeker):
    """A pool that wants one more connection than its cluster or the process may have."""

    __slots__ = ("pool",)

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.pool = pool

    def free(self) -> None:
        self.pool.serve()

    def number(self, rota: Rota | None) -> int:
        return self.pool.queue.number(rota)

    def wants(self) -> int:
        if self.round != ENTITLED:
            return 1
        pool = self.pool
        return max(1, min(claimed(pool.queue) - pool.opening, pool.cluster.pool_size - pool.size))


class Reserve:
    """The idle connections of those pools whose connections one counter counts."""

    __slots__ = ("_counter", "_pools")

    def __init__(self, counter: Counter, pools: Callable[[], Iterable[Pool]]) -> None:
        self._counter = counter
        self._pools = pools

    def spare(self) -> int:
        return sum(pool.spare for pool in self._pools() if not pool.queue)

    def demand(self) -> dict[Account, int]:
        found: dict[Account, int] = {}
        for pool in self._pools():
            for server in pool.active:
                if server.account is not None:
                    found[server.account] = found.get(server.account, 0) + 1
            for account, count in pool.queue.demand():
                found[account] = found.get(account, 0) + count
        return found

    def surrender(self, count: int) -> None:
        """Closes those that were idle longest; the permits come back when their backends are gone. One that has
        just been opened is left until its turn is over."""
        count -= self._counter.leaving
        if count <= 0:
            return
        now = monotonic()
        idle = [
            (pool, server)
            for pool in self._pools()
            if not pool.queue
            for server in islice(pool.idle, pool.spare)
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

    __slots__ = ("_barren", "_lender", "_pools", "adapted", "clusters", "crowd", "servers")

    def __init__(self, limit: int, pools: Callable[[], Iterable[Pool]], lender: Lender | None) -> None:
        self._pools = pools
        self._lender = lender
        self._barren: set[Counter] = set()  # that had nothing to close at the last look
        self.crowd = Crowd()
        self.clusters: dict[str, Counter] = {}
        self.adapted: dict[str, int] = {}  # what is less than a cluster's `max_connections` for now
        self.servers = self._counter("max_server_connections", pools)
        self.servers.limit = limit

    def _counter(self, name: str, pools: Callable[[], Iterable[Pool]]) -> Counter:
        counter = Counter(name, lender=self._lender, backed=True, rota=Rota(self.crowd, name))
        counter.reserve = Reserve(counter, pools)
        return counter

    def cluster(self, name: str) -> Counter:
        counter = self.clusters.get(name)
        if counter is None:
            counter = self.clusters[name] = self._counter(
                f"cluster {name} max_connections",
                lambda: [pool for pool in self._pools() if pool.cluster.name == name],
            )
        return counter

    def counters(self, cluster: Cluster) -> tuple[Counter, Counter]:
        counter = self.cluster(cluster.name)
        self.limit(cluster)
        return (counter, self.servers)

    def limit(self, cluster: Cluster) -> None:
        self._limit(cluster.name, self.adapted.get(cluster.name, cluster.max_connections))

    def adapt(self, name: str, limit: int) -> None:
        self.adapted[name] = limit
        self._limit(name, limit).wake()

    def _limit(self, name: str, limit: int) -> Counter:
        """What is over it goes: the idle now, others as they come back."""
        counter = self.cluster(name)
        if limit != counter.limit:
            counter.limit = limit
            counter.attend()
        return counter

    # --- room for whoever's turn it is ----------------------------------------------------------------

    def make(self, wanting: Pool) -> None:
        """Closes the longest idle connection of another pool whose cap keeps `wanting` from growing."""
        cluster = self.cluster(wanting.cluster.name)
        self._make(cluster if cluster.full else self.servers, cluster if cluster.full else None)

    def _make(self, counter: Counter, cluster: Counter | None) -> None:
        """For whoever is first at the counter. `cluster`: where it must be closed, None for anywhere."""
        claim = counter.first
        if (
            counter.lender is not None
            or counter.leaving
            or counter in self._barren
            or not isinstance(claim, Claim)
        ):
            return
        now, wanting, urgent = monotonic(), claim.pool, _is_urgent(claim)
        others = [
            pool
            for pool in self._pools()
            if pool is not wanting
            and pool.spare
            and (urgent or now - pool.idle[0].idle_since >= _TURN)
            and (cluster is None or self.cluster(pool.cluster.name) is cluster)
        ]
        if others:
            oldest = min(others, key=lambda pool: pool.idle[0].idle_since)
            oldest.close_idle(oldest.idle[0])
        else:
            self._barren.add(counter)  # what comes back is seen when it does

    def came_idle(self, pool: Pool) -> None:
        """Nobody of `pool` wants its idle connections: who waits for room and has none may have it now."""
        for counter in (self.servers, self.cluster(pool.cluster.name)):
            claim = counter.first
            if claim is not None and not counter.full:
                counter.wake()
            elif isinstance(claim, Claim) and _is_urgent(claim) and counter.lender is None:
                if not counter.leaving and pool.spare:
                    pool.close_idle(pool.idle[0])
            elif claim is not None and counter.lender is not None:
                counter.lender.touch(counter)
            if counter.sought and counter.reserve is not None:
                counter.reserve.surrender(1)

    def owed(self, pool: Pool, server: Connection, now: float) -> bool:
        """Whether a connection that comes back must make room for another worker, or for another pool whose turn it
        is, whoever waits for it here."""
        fresh = now - server.opened_at < _TURN
        for counter in (self.servers, self.cluster(pool.cluster.name)):
            if not fresh and counter.owed > counter.leaving:
                return True
            if counter.used - counter.leaving > counter.allowance:
                return True
            if counter.full and not counter.leaving and _is_anothers_turn(counter, pool, fresh):
                return True
        return False

    def look(self) -> None:
        """To be called now and then: what has become idle on other ways than `came_idle`, or had its turn then."""
        self._barren.clear()
        for counter in (self.servers, *self.clusters.values()):
            if counter.reserve is not None and (counter.sought or counter.owed):
                counter.reserve.surrender(max(1, counter.owed))
            if counter.reserve is not None and counter.lender is None and counter.used > counter.allowance:
                counter.reserve.surrender(counter.used - counter.allowance)
            if counter.waited_for:
                self._make(counter, None if counter is self.servers else counter)

    def crowded(self, cluster: str) -> bool:
        """More transactions want a connection than there may be."""
        counter = self.cluster(cluster)
        return (
            counter.waited_for
            or counter.sought
            or any(
                len(pool.queue) and pool.size >= pool.cluster.pool_size
                for pool in self._pools()
                if pool.cluster.name == cluster
            )
        )

    def connections(self, cluster: str) -> int:
        """How many there may be in this process."""
        counter = self.cluster(cluster)
        if counter.limit:
            return counter.allowance
        return sum(pool.cluster.pool_size for pool in self._pools() if pool.cluster.name == cluster)

    def guaranteed(self, account: Account) -> int:
        """How many of its cluster's connections are, to it or to its tier; 0 too where it has not asked for any yet."""
        rota = self.cluster(account.tenant.cluster).rota
        guarantee = rota.guarantees.get(account.guarantor) if rota is not None else None
        return guarantee.amount if guarantee is not None else 0

    def rest(self) -> None:
        """To be called about once a second."""
        for counter in (self.servers, *self.clusters.values()):
            if counter.rota is not None and not counter.attended:
                counter.rota.rest()

    def hope(self, full: Counter | None) -> bool:
        """Whether a counter is full of which a permit is wanted for nobody: if other processes can spare one, it
        is there the next time."""
        if full is not None and full.lender is not None:
            full.lender.hope(full, _NOBODY)
        return full is not None


def _is_urgent(claim: Claim) -> bool:
    return claim.round == ENTITLED or not claim.pool.size


def _is_anothers_turn(counter: Counter, pool: Pool, fresh: bool) -> bool:
    claim = counter.first
    if not isinstance(claim, Claim) or claim.pool is pool or not pool.spare:
        return False
    if fresh or claim.round == ENTITLED:
        return claim.round == ENTITLED and pool.queue.number(counter.rota) != ENTITLED
    here = pool.queue.number(counter.rota) if pool.queue else NEVER
    if not claim.pool.size:
        return claim.round <= here
    return here < NEVER and claim.round + _WORTH < here
