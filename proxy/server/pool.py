"""The connections of one (cluster, database, user), and who waits for one.

Theory. State is a place: a connection is in exactly one of `idle`, `active`, `resetting` or `closing`, or it is being
opened and only counted (see places.py). A waiter is in the fair queue and nowhere else.

`acquire` is synchronous: it returns an idle connection when nobody else waits and the caps allow it, and
queues the waiter otherwise. Everything that frees something (a checkin, an opened connection, a permit
given back) ends in `serve`, which hands idle connections to waiters and opens more while waiters, the
pool's size and the cluster's and the process's caps allow it (see room.py for who makes room). Where somebody
waits, tenants are charged for the time that their transactions have connections (see admission/turns.py).

A pool that cannot get any connection fails its waiters with the server's own words. Without a live
connection and with all endpoints set aside it fails at once until `server_login_retry` is over.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from time import monotonic
from weakref import WeakSet

from proxy.admission.accounts import Account, Counter, UserAccount, give_all, take_all
from proxy.admission.queue import FairQueue, may_wait
from proxy.auth.to_server import opens
from proxy.errors import NoHealthyEndpoint, ServerLost, ServerRefused, TiergateError
from proxy.model import Cluster, PoolKey, PoolMode
from proxy.protocol.lifecycle import ServerState
from proxy.protocol.state import State
from proxy.protocol.statements import Statement
from proxy.server.cleaning import Cleaning
from proxy.server.connection import ServerConnection
from proxy.server.link import Keeper, Link
from proxy.server.room import Claim
from proxy.stats import PoolStats


class Pool(Cleaning):
    __slots__ = (
        "_cluster", "_deadlines", "_of_cluster", "_serving", "accepted", "claim",
        "client_key", "failed_with", "generation", "introductions", "key", "login", "paused", "pools",
        "schema", "sessions",
    )  # fmt: skip

    def __init__(
        self,
        pools: Keeper[Pool, ServerConnection],
        key: PoolKey,
        cluster: Cluster,
        mode: PoolMode,
        login: tuple[str, str],
    ) -> None:
        self._of_cluster, _ = caps = pools.room.counters(cluster)
        queue = FairQueue(self.serve, self._of_cluster.rota)
        super().__init__(caps, queue, PoolStats(monotonic()), mode, pools.options)
        self.claim = self.queue.claim = Claim(self)
        self.pools = pools
        self._deadlines = pools.deadlines
        self.key = key
        self.cluster = cluster
        self.login = login  # user and password for the server
        self.client_key = b""  # by which servers know the user whose verifier is in `login`
        self.generation = 0
        self.sessions = 0  # that will come here for their next transaction
        self.paused = False
        self.schema = pools.catalog.schema(key.cluster, key.database)
        self.accepted: WeakSet[State] = WeakSet()  # states that a server of this pool has taken before
        # What a first login with some startup parameters found out: the parameters as the server spells them,
        # and all that it then reported.
        self.introductions: OrderedDict[State, tuple[State, State]] = OrderedDict()
        self.failed_with: TiergateError | None = None
        self._serving = False

    @property
    def cluster(self) -> Cluster:
        return self._cluster

    @cluster.setter
    def cluster(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._most = cluster.pool_size
        strain = self.pools.adapting.strain(cluster)
        self._strain = strain if self.mode is not PoolMode.SESSION else None
        self.queue.most = self.pools.adapting.most(cluster) or cluster.pool_size

    @property
    def unused(self) -> bool:
        return not (self.size or self.closing or self.queue or self.sessions)

    @property
    def locked(self) -> bool:
        """Servers that want a proof get none."""
        return bool(self.key.verifier) and not self.client_key

    def learn(self, client_key: bytes) -> None:
        """Of a client that has proved itself, and may be here."""
        if client_key and self.locked and opens(client_key, self.login[1]):
            self.client_key = client_key

    # --- checkout -----------------------------------------------------------------------------------

    def acquire(self, waiter: Link, now: float) -> ServerConnection | None:
        """An idle connection, linked to nobody yet, or None: the waiter is queued.

        Raises CapReached for a full queue, and the servers' error while they are known to be down.
        """
        account, user = waiter.account, waiter.user_account
        guarantee = self._keep(account, now)
        hurried = guarantee is not None
        if hurried != waiter.hurried:
            waiter.hurry(hurried)
        free = not self.kept.count or self._has_more_than_is_kept()
        if free and self.idle and not (self._crowd.waiting and self.queue.size) and not self.paused:
            counters = account.server_counters(user)
            if take_all(counters) is None:
                server = self._pick(waiter.state_needed, now)
                if server is not None:
                    self._move(server, "checkout")
                    self._lend(server, account, counters, guarantee, now)
                    return server
                give_all(counters)
        self._refuse_at_once(account, user, now)
        waiter.waiting_since = now
        self.queue.push(account, user, waiter)
        self._deadlines.begin(waiter, self)
        account.stats.waits += 1
        self.serve_at(now)
        return None

    def leave(self, waiter: Link) -> None:
        self._deadlines.end(waiter)
        self.queue.remove(waiter.account, waiter.user_account, waiter)

    def _refuse_at_once(self, account: Account, user: UserAccount, now: float) -> None:
        may_wait(account, user)
        if self.failed_with is not None and not (self.active or self.idle or self.resetting or self.opening):
            if not self.pools.reachable(self.cluster, now):
                raise self.failed_with
            self.failed_with = None

    def _pick(self, needs: State, now: float) -> ServerConnection | None:
        """One that has the state already, else the most recently used; stale ones are checked first."""
        idle = self.idle
        delay = self._check_delay
        newest = idle[-1]
        if delay and now - newest.idle_since > delay:
            self._check(newest)
            return None
        if newest.values is not needs:
            for server in reversed(idle):
                if server.values is needs and not (delay and now - server.idle_since > delay):
                    return server
        return newest

    def serve(self) -> None:
        self.serve_at(monotonic())

    def serve_at(self, now: float) -> None:
        """The same for who has just looked at the clock."""
        if self._serving:
            return
        self._serving = True
        try:
            while self.queue.size and self.idle and not self.paused:
                entitled = bool(self.kept.count) and not self._has_more_than_is_kept()
                taken = self.queue.take(entitled)
                if taken is None:
                    break
                waiter: Link = taken[0]
                counters: tuple[Counter, ...] = taken[1]
                server = self._pick(waiter.state_needed, now)
                if server is None:
                    give_all(counters)
                    self.queue.push_front(waiter.account, waiter.user_account, waiter)
                    break
                self._move(server, "checkout")
                self._serve(server, waiter, counters, now)
        finally:
            self._serving = False
        self._grow()

    def _serve(
        self, server: ServerConnection, waiter: Link, counters: tuple[Counter, ...], now: float
    ) -> None:
        account = waiter.account
        self._lend(server, account, counters, self._keep(account, now), now)
        waited = now - waiter.waiting_since
        account.stats.wait_seconds += waited
        self.stats.wait_seconds += waited
        self._deadlines.end(waiter)
        waiter.granted(server)

    # --- checkin ------------------------------------------------------------------------------------

    def checkin(self, server: ServerConnection, session_over: bool = False) -> None:
        """Takes back a connection that owes nothing and is in no transaction."""
        self.checkin_at(server, monotonic(), session_over)

    def checkin_at(self, server: ServerConnection, now: float, session_over: bool = False) -> None:
        """The same for who has just looked at the clock."""
        server.link = None
        if session_over and self.mode is PoolMode.SESSION:
            server.dirty = True
        if server.cancels or server.dirty or server.spent:
            self.last_used = now
            self._move(server, "clean")
            self._give_permits(server, now)
            self._clean(server)
            return
        if self.queue.size and not self.idle and self._goes_on(server, now):
            self._hand_over(server, now)
        else:
            self._settle(server, "checkin", now)

    def _goes_on(self, server: ServerConnection, now: float) -> bool:
        """Nobody but who waits here has a claim to it."""
        return not (
            self._serving
            or self.paused
            or self.kept.count
            or self._of_cluster.attended
            or self._of_all.attended
            or server.generation != self.generation
            or (self._lifetime and now - server.opened_at > self._lifetime)
            or self._size() > self._most
        )

    def _hand_over(self, server: ServerConnection, now: float) -> None:
        """To the next who waits, as `_settle` and `serve_at` do it, but it stays where it is meanwhile."""
        server.idle_since = self.last_used = now
        self._serving = True
        try:
            self._give_permits(server, now)
            # What was lent to a tenant with a guarantee may have to be kept for it from now on.
            taken = None if self.kept.count else self.queue.take()
            if taken is not None:
                self._serve(server, taken[0], taken[1], now)
        finally:
            self._serving = False
        if taken is None:
            self._settle(server, "checkin", now)
        else:
            self.serve_at(now)

    def _settle(self, server: ServerConnection, event: str, now: float) -> None:
        """Back among the idle, or closed if its time is over."""
        server.idle_since = self.last_used = now
        self._move(server, event)
        if server.account is not None:
            self._charge(server, server.account, now)
        crowded = self._of_cluster.attended or self._of_all.attended  # by others, or by us
        if (
            self.paused
            or server.generation != self.generation
            or (self._lifetime and now - server.opened_at > self._lifetime)
            or self._size() > self._most
            or (crowded and self.pools.room.owed(self, server, now))
        ):
            self.close_idle(server)
        self._give_permits(server, now)  # not before: for whoever this lets in another would be opened
        if self._crowd.waiting and self.queue.size:
            self.serve_at(now)
        if crowded and self.idle and not self.queue.size:
            self.pools.room.came_idle(self)

    def abandon(self, server: ServerConnection) -> None:
        """Cancels what it does and closes it: its client left while it was busy."""
        server.link = None
        self._move(server, "lost")
        self._give_permits(server, monotonic())
        server.closing = True
        self.pools.cancel_and_close(server)

    # --- opening ------------------------------------------------------------------------------------

    def _grow(self) -> None:
        room = self._most - self._size() - len(self.closing)
        if self.paused or not self.queue.size or room <= 0:  # counting waiters looks at every tenant
            return
        coming = self.opening + self._for_all() + len(self.resetting)
        wanted = min(self.queue.grantable(room + coming) - coming, room)
        while wanted > 0:
            if (full := self._begin_opening()) is not None:
                full.when_free(self.claim)
                self.pools.room.make(self)
                return
            wanted -= 1

    def fill(self, least: int) -> None:
        """Opens connections until there are `least`, as far as the caps allow."""
        least = min(least, self.cluster.pool_size) - len(self.closing)
        while self.size < least and not self.paused and not self.pools.room.hope(self._begin_opening()):
            pass

    def _begin_opening(self) -> Counter | None:
        """One more connection is on its way, or the counter that forbids it."""
        full = take_all(self.caps)
        if full is None:
            self.opening += 1
            self.pools.open(self, self.caps)
        return full

    def opened(self, server: ServerConnection) -> None:
        self.opening -= 1
        self.failed_with = None
        server.state = ServerState.IDLE
        self.idle.append(server)
        if server.transport.is_closing():
            server.connection_lost(None)
            return
        if self.paused or server.generation != self.generation:
            self.close_idle(server)
        self.serve()

    def failed(self, error: TiergateError | None) -> None:
        """A connection could not be opened; if there is no other, those who wait hear why (None: nobody does)."""
        self.opening -= 1
        if error is None:
            return
        if isinstance(error, ServerLost):
            error = NoHealthyEndpoint(error.message, hint=error.hint, internal=error.internal)
        self.failed_with = None if isinstance(error, ServerRefused) else error
        if not (self.active or self.idle or self.resetting or self.opening):
            self.refuse_all(error)

    def refuse_all(self, error: TiergateError) -> None:
        for waiter in list(self.queue):
            self.leave(waiter)
            waiter.refused(error)

    # --- leaving ------------------------------------------------------------------------------------

    def drop(self, server: ServerConnection) -> None:
        """Closes a connection that is not to be used again, whatever it is doing."""
        if server.state is not ServerState.GONE:
            self._move(server, "lost")
        self._give_permits(server, monotonic())
        server.link = None
        server.abort()

    def lost(self, server: ServerConnection) -> None:
        """Its socket is closed: the last that is heard of it."""
        self._forget(server)
        self.pools.release(server)
        self._give_permits(server, monotonic())
        self.serve()

    def recycle(self) -> None:
        """All connections are replaced: the idle now, the others when they come back."""
        self.generation += 1
        for server in list(self.idle):
            self.close_idle(server)

    # --- what server connections ask ----------------------------------------------------------------

    def retire(self, statement: Statement) -> None:
        self.pools.retire(statement)

    def cancel(self, server: ServerConnection) -> asyncio.Task[None]:
        return self.pools.cancel(server)
