"""One pool under any order of events: a connection is in one place, permits balance, and nobody waits for nothing."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.admission.accounts import Account, TierAccount, UserAccount
from proxy.errors import CapReached, NoHealthyEndpoint, ServerLost, ServerRefused, TiergateError
from proxy.model import UNLIMITED, Limits, ServerOptions, Tier, User
from proxy.protocol.lifecycle import ServerState
from proxy.protocol.state import EMPTY, State, intern
from proxy.server.connection import ServerConnection
from proxy.wire import encode
from tests.examples import examples
from tests.server.keeping import DONE, NO, Clock, Keeper, cluster, wire
from tests.server.recording import Waiter, account

_STALE = 30.0
FAILURES: dict[str, TiergateError] = {
    "lost": ServerLost("down"),
    "refused": ServerRefused("no", "53300", encode.error("no", "53300")),
}
STATES = (EMPTY, intern({"app.tenant_id": "a"}), intern({"app.tenant_id": "b"}))


class _Asking(Waiter):
    def __init__(self, machine: PoolMachine, account: Account, user: UserAccount, needs: State) -> None:
        super().__init__(account, needs, user=user)
        self.machine = machine

    def granted(self, server: ServerConnection) -> None:
        super().granted(server)
        self.machine.was_granted(self, server)


class PoolMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self._patch = pytest.MonkeyPatch()
        self.clock = Clock(self._patch)
        self.keeper = Keeper(ServerOptions(server_check_delay=_STALE, server_lifetime=500))
        self.pool = self.keeper.pool(size=2)
        self.tiers = [
            TierAccount(Tier("standard")),
            TierAccount(Tier("free", caps=Limits(max_connections=2))),
        ]
        self.users = [UserAccount(User(name)) for name in ("app", "batch")]
        self.accounts = [account(f"t{n}", self.tiers[n % 2]) for n in range(4)]
        self.waiting: list[_Asking] = []
        self.lent: dict[ServerConnection, _Asking] = {}
        self.alive: list[ServerConnection] = []

    # --- who has what -------------------------------------------------------------------------------

    def was_granted(self, who: _Asking, server: ServerConnection) -> None:
        same = (w for w in self.waiting if (w.account, w.user_account) == (who.account, who.user_account))
        assert next(same, who) is who, "first in, first out for each user of a tenant"
        one_user = all(w.user_account is who.user_account for w in self.waiting if w.account is who.account)
        assert not one_user or next((w for w in self.waiting if w.account is who.account), who) is who
        if who in self.waiting:
            self.waiting.remove(who)
        assert server not in self.lent
        assert server.state is ServerState.ACTIVE
        assert not server.pipeline, "lent while a job of ours runs"
        assert not server.cancels, "lent while a cancel may strike it"
        assert not server.dirty
        assert not self.pool.paused
        server.values = who.state_needed
        self.lent[server] = who

    def pick(self, data: st.DataObject, among: list[ServerConnection]) -> ServerConnection:
        return data.draw(st.sampled_from(sorted(among, key=lambda server: server.pid)))

    # --- what sessions do ---------------------------------------------------------------------------

    @rule(tenant=st.integers(0, 3), user=st.sampled_from([0, 0, 1]), needs=st.sampled_from(STATES))
    def acquire(self, tenant: int, user: int, needs: State) -> None:
        who = _Asking(self, self.accounts[tenant], self.users[user], needs)
        self.waiting.append(who)
        down = self.pool.failed_with
        try:
            server = self.pool.acquire(who, self.clock.now)
        except CapReached:
            assert who.account.limits.max_queue or who.user_account.user.limits.max_queue
            self.waiting.remove(who)
            return
        except NoHealthyEndpoint:
            assert down is not None
            assert not self.lent
            self.waiting.remove(who)
            return
        if server is not None:
            who.granted(server)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        who = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        self.pool.leave(who)

    @precondition(lambda self: self.lent)
    @rule(data=st.data(), dirty=st.booleans())
    def checkin(self, data: st.DataObject, dirty: bool) -> None:
        server = self.pick(data, list(self.lent))
        del self.lent[server]
        server.dirty = dirty
        self.pool.checkin(server)

    @precondition(lambda self: self.lent)
    @rule(data=st.data(), dirty=st.booleans())
    def rollback(self, data: st.DataObject, dirty: bool) -> None:
        server = self.pick(data, list(self.lent))
        del self.lent[server]
        server.dirty = dirty
        self.pool.rollback(server)

    @precondition(lambda self: self.lent)
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        server = self.pick(data, list(self.lent))
        del self.lent[server]
        self.pool.abandon(server)

    @precondition(lambda self: self.lent)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.pool.cancel(self.pick(data, list(self.lent)))

    # --- what servers do ----------------------------------------------------------------------------

    @precondition(lambda self: self.keeper.asked)
    @rule()
    def opens(self) -> None:
        # It is lent before `opens` returns: it counts as alive from its first moment.
        server = self.keeper.opens(self.pool)
        self.alive.append(server)

    @precondition(lambda self: self.keeper.asked)
    @rule(how=st.sampled_from(sorted(FAILURES)))
    def fails(self, how: str) -> None:
        for counter in self.keeper.asked.pop(0):
            counter.give()
        self.pool.failed(FAILURES[how])
        for who in [w for w in self.waiting if w.error is not None]:
            assert not self.lent
            self.waiting.remove(who)

    @rule(reachable=st.booleans())
    def reachable(self, reachable: bool) -> None:
        self.keeper.is_reachable = reachable

    @precondition(lambda self: self.pool.resetting)
    @rule(data=st.data(), succeeds=st.booleans())
    def answers_a_job(self, data: st.DataObject, succeeds: bool) -> None:
        server = self.pick(data, list(self.pool.resetting))
        if server.pipeline and not server.closing:
            wire(server).say(DONE if succeeds else NO)

    @precondition(lambda self: self.keeper.cancelled)
    @rule(data=st.data())
    def cancel_is_over(self, data: st.DataObject) -> None:
        self.keeper.cancel_over(data.draw(st.sampled_from(self.keeper.cancelled)))

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def hangs_up(self, data: st.DataObject) -> None:
        server = self.pick(data, self.alive)
        self.alive.remove(server)
        self.lent.pop(server, None)
        wire(server).hang_up()

    # --- what operators do --------------------------------------------------------------------------

    @rule(tenant=st.integers(0, 3), cap=st.integers(0, 3), queue=st.sampled_from([0, 0, 1, 3]))
    def limits(self, tenant: int, cap: int, queue: int) -> None:
        chosen = self.accounts[tenant]
        limits = Limits(max_connections=cap, max_queue=queue).over(UNLIMITED)
        chosen.update(chosen.tenant, chosen.tier, limits)

    @rule(user=st.integers(0, 1), cap=st.integers(0, 3), queue=st.sampled_from([0, 0, 3]))
    def user_limits(self, user: int, cap: int, queue: int) -> None:
        limits = Limits(max_connections=cap, max_queue=queue)
        self.users[user].update(User(self.users[user].user.name, limits=limits))

    @rule(size=st.integers(1, 4))
    def pool_size(self, size: int) -> None:
        self.pool.cluster = cluster(size)
        self.pool.serve()

    @rule(limit=st.integers(0, 3))
    def cluster_size(self, limit: int) -> None:
        self.keeper.cluster_permits.limit = limit
        self.keeper.cluster_permits.wake()

    @rule()
    def pause(self) -> None:
        self.pool.paused = True
        for server in list(self.pool.idle):
            self.pool.close_idle(server)

    @rule()
    def resume(self) -> None:
        self.pool.paused = False
        self.pool.serve()

    @rule()
    def recycle(self) -> None:
        self.pool.recycle()

    @rule(least=st.integers(0, 3))
    def fill(self, least: int) -> None:
        self.pool.fill(least)

    @rule(seconds=st.sampled_from([1.0, 40.0, 600.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    # --- what always holds --------------------------------------------------------------------------

    @invariant()
    def every_connection_is_in_one_place_and_that_is_its_state(self) -> None:
        pool = self.pool
        places = [*pool.idle, *pool.active, *pool.resetting, *pool.closing]
        assert len(places) == len(set(places)) == len(self.alive)
        assert set(places) == set(self.alive)
        for place, state in (
            (pool.idle, ServerState.IDLE),
            (pool.active, ServerState.ACTIVE),
            (pool.resetting, ServerState.RESETTING),
            (pool.closing, ServerState.GONE),
        ):
            assert all(server.state is state for server in place)
        assert set(pool.active) == set(self.lent)

    @invariant()
    def no_connection_is_opened_beyond_the_size(self) -> None:
        pool = self.pool
        if self.keeper.asked and len(self.keeper.asked) > self._asked_before:
            assert pool.size + len(pool.closing) <= pool.cluster.pool_size
        self._asked_before = len(self.keeper.asked)
        assert pool.opening == len(self.keeper.asked)

    _asked_before = 0

    @invariant()
    def permits_are_those_of_the_connections_in_use(self) -> None:
        for each in self.accounts:
            assert each.servers.used == sum(who.account is each for who in self.lent.values())
        for tier in self.tiers:
            assert tier.servers.used == sum(who.account.tier is tier for who in self.lent.values())
        for user in self.users:
            assert user.servers.used == sum(who.user_account is user for who in self.lent.values())
        held = len(self.alive) + len(self.keeper.asked)
        assert self.keeper.cluster_permits.used == self.keeper.all_permits.used == held

    @invariant()
    def the_queue_is_who_waits(self) -> None:
        assert sorted(map(id, self.pool.queue)) == sorted(map(id, self.waiting))
        assert len(self.pool.queue) == len(self.waiting)
        for each in self.accounts:
            assert each.waiting == sum(who.account is each for who in self.waiting)
        for user in self.users:
            assert user.waiting == sum(who.user_account is user for who in self.waiting)

    def _servable(self) -> bool:
        """Somebody waits whom the caps would let through."""
        if self.pool.paused:
            return False
        return any(
            not any(counter.full for counter in who.account.server_counters(who.user_account))
            for who in self.waiting
        )

    @invariant()
    def nobody_waits_for_what_is_idle(self) -> None:
        pool = self.pool
        fresh = pool.idle and self.clock.now - pool.idle[-1].idle_since <= _STALE
        assert not (fresh and self._servable())

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """Whoever waits waits for something that will happen."""
        pool = self.pool
        if self._servable() and not (pool.active or pool.resetting or pool.closing or pool.opening):
            assert pool.idle or self.keeper.cluster_permits.full
            if not pool.idle:
                assert self.keeper.cluster_permits.waited_for

    def teardown(self) -> None:
        try:
            for server in list(self.lent):
                del self.lent[server]
                self.pool.abandon(server)
            for who in self.waiting:
                self.pool.leave(who)
            self.waiting.clear()
            while self.keeper.asked:
                self.fails("refused")
            for server in list(self.alive):
                self.alive.remove(server)
                wire(server).hang_up()
            assert self.pool.unused
            assert self.keeper.all_permits.used == self.keeper.cluster_permits.used == 0
            for each in self.accounts:
                assert each.idle
            assert not any(each.servers.used for each in (*self.tiers, *self.users))
        finally:
            self._patch.undo()


PoolMachine.TestCase.settings = settings(max_examples=examples(60), stateful_step_count=40, deadline=None)
test_a_pool_under_any_order_of_events = PoolMachine.TestCase
