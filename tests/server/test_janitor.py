"""The sweep: whose time is over, and what that does to a wait, a query, a transaction or an idle connection."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.errors import CapReached, IdleInTransactionTimeout, ServerLost, TransactionTimeout
from proxy.model import UNLIMITED, Cluster, ClusterKind, Limits, PoolKey, PoolMode, ServerOptions
from proxy.protocol import pipeline as owed
from proxy.protocol.state import intern
from proxy.server import cleaning, places, pool, pools
from proxy.server.connection import ServerConnection
from proxy.server.janitor import sweep
from proxy.server.pool import Pool
from proxy.wire import encode
from tests.clocks import OwnClock
from tests.server.keeping import waiter, wire
from tests.server.recording import Link, Waiter, account
from tests.transports import Network, SteppedPools, endpoint

CLUSTER = Cluster("shared", ClusterKind.SHARED, (endpoint(),), pool_size=3)
OPTIONS = ServerOptions(
    server_check_delay=0, server_lifetime=3600, server_idle_timeout=600, server_login_retry=15
)


class World(OwnClock):
    """Pools, and the time that all of them see."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, options: ServerOptions = OPTIONS) -> None:
        super().__init__(monkeypatch, cleaning, places, pool, pools)
        self.network = Network(monkeypatch)
        self.pools = SteppedPools(options)
        self.pool = self.pools.pool(
            PoolKey("shared", "appdb", "app"), CLUSTER, PoolMode.TRANSACTION, "secret"
        )

    def sweep(self, after: float = 0.0, *, thorough: bool = False) -> None:
        self.now += after
        sweep(self.pools, self.now, thorough=thorough)
        self.pools.step()

    def idle(self, count: int = 1) -> list[ServerConnection]:
        Pool.fill(self.pool, count)
        self.pools.step()
        return list(self.pool.idle)

    def linked(self, **limits: float) -> tuple[ServerConnection, Link]:
        """A connection in the hands of a session with these limits."""
        who = waiter()
        server = self.pool.acquire(who, self.now)
        self.pools.step()
        server = server or who.server
        assert server is not None
        link = Link(Limits(**limits).over(UNLIMITED))
        server.link = link
        return server, link

    def asked(self, server: ServerConnection) -> None:
        server.begin(self.now)
        server.expect(owed.FORWARD_QUERY)

    def answered(self, server: ServerConnection, status: bytes = b"I") -> None:
        wire(server).say(encode.command_complete("SELECT 1"), encode.ready_for_query(status))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


# --- waits ------------------------------------------------------------------------------------------


def test_a_wait_beyond_its_limit_is_refused(world: World) -> None:
    world.pools.pause()
    patient, hasty = Waiter(account("a")), Waiter(account("b"), wait_limit=5.0)
    for who in (patient, hasty):
        world.pool.acquire(who, world.now)
    world.sweep(5.0)
    assert hasty.error is None
    world.sweep(0.1)
    assert isinstance(hasty.error, CapReached)
    assert hasty.error.message == "query_wait_timeout"
    assert hasty.account.waiting == 0
    assert patient.error is None
    assert list(world.pool.queue) == [patient]
    assert world.pools.process.timeouts == {"query_wait_timeout": 1}


def test_who_waits_long_is_told_once_a_wait(world: World) -> None:
    class Told(Waiter):
        times = 0

        def still_waits(self) -> None:
            self.times += 1

    world.pools.pause()
    who, other = Told(account("a")), Told(account("b"))
    who.limit_by(replace(who.limits, query_wait_notify=5.0))
    for each in (who, other):
        world.pool.acquire(each, world.now)
    world.sweep(5.0)
    assert who.times == 0
    world.sweep(0.1)
    world.sweep(10.0)
    assert (who.times, other.times) == (1, 0)
    world.pool.leave(who)
    world.pool.acquire(who, world.now)
    world.sweep(1.0)
    assert who.times == 1
    world.sweep(5.0)
    assert who.times == 2


def test_who_waits_for_a_server_that_failed_is_served_when_it_can_be_reached_again(world: World) -> None:
    """Another connection is in use and stays so: nothing else would look again."""
    world.linked()
    who = waiter()
    world.network.refusal = ServerLost("down")
    world.pool.acquire(who, world.now)
    world.pools.step()
    world.sweep(1.0, thorough=True)
    assert len(world.network.logins) == 2, "it is not asked while it is set aside"
    assert who.error is None
    world.network.refusal = None
    world.sweep(15.0, thorough=True)
    assert who.server is not None


# --- queries ----------------------------------------------------------------------------------------


def test_a_query_beyond_its_limit_is_cancelled_once(world: World) -> None:
    server, link = world.linked(query_timeout=2.0)
    world.asked(server)
    world.sweep(2.0)
    assert world.network.cancels == []
    world.sweep(0.1)
    world.sweep(0.5)
    assert world.network.cancels == [server.pid]
    assert world.pools.process.timeouts == {"query_timeout": 1}
    assert server.link is link, "the session goes on"


def test_a_cancel_that_came_too_early_is_sent_again(world: World) -> None:
    server, _ = world.linked(query_timeout=2.0)
    world.asked(server)
    world.sweep(2.1)
    world.sweep(1.0)
    assert len(world.network.cancels) == 2
    assert world.pools.process.timeouts == {"query_timeout": 1}


def test_the_next_query_has_its_own_time(world: World) -> None:
    server, _ = world.linked(query_timeout=2.0)
    world.asked(server)
    world.now += 1.5
    world.answered(server, b"T")
    world.asked(server)
    world.sweep(1.5)
    assert world.network.cancels == []
    world.answered(server, b"T")
    world.sweep(10.0)
    assert world.network.cancels == [], "nothing runs"


def test_a_change_of_state_is_not_struck(world: World) -> None:
    server, _ = world.linked(query_timeout=2.0)
    server.begin(world.now)
    server.send(server.apply(intern({"app.tenant_id": "acme"})))
    world.sweep(3.0)
    assert world.network.cancels == []


def test_a_query_without_a_limit_runs_on(world: World) -> None:
    server, _ = world.linked()
    world.asked(server)
    world.sweep(1_000_000.0)
    assert world.network.cancels == []


# --- transactions -----------------------------------------------------------------------------------


def test_a_transaction_beyond_its_limit_is_cancelled_while_it_works(world: World) -> None:
    server, link = world.linked(transaction_timeout=5.0)
    world.asked(server)
    world.now += 4.0
    world.answered(server, b"T")
    world.asked(server)
    world.sweep(1.1)
    assert world.network.cancels == [server.pid]
    assert world.pools.process.timeouts == {"transaction_timeout": 1}
    assert not any(isinstance(event, TransactionTimeout) for event in link.events)


def test_and_ended_while_it_rests(world: World) -> None:
    server, link = world.linked(transaction_timeout=5.0)
    world.asked(server)
    world.answered(server, b"T")
    world.sweep(5.1)
    assert isinstance(link.events[-1], TransactionTimeout)
    assert world.network.cancels == []


@pytest.mark.parametrize("status", [b"T", b"E"])
def test_one_that_rests_too_long_ends_its_session(world: World, status: bytes) -> None:
    server, link = world.linked(idle_transaction_timeout=5.0)
    world.asked(server)
    world.answered(server, status)
    world.sweep(5.0)
    assert not any(isinstance(event, IdleInTransactionTimeout) for event in link.events)
    world.sweep(0.1)
    assert isinstance(link.events[-1], IdleInTransactionTimeout)
    assert world.pools.process.timeouts == {"idle_transaction_timeout": 1}


def test_a_pinned_session_outside_a_transaction_may_rest(world: World) -> None:
    server, link = world.linked(idle_transaction_timeout=5.0, transaction_timeout=5.0)
    world.asked(server)
    world.answered(server)
    link.take()
    world.sweep(1_000.0)
    assert link.take() == []


# --- connections that nobody uses -------------------------------------------------------------------


def test_one_that_is_idle_for_too_long_is_closed(world: World) -> None:
    (server,) = world.idle()
    world.sweep(600.0, thorough=True)
    assert server in world.pool.idle
    world.sweep(0.1, thorough=False)
    assert server in world.pool.idle, "only a thorough sweep looks"
    world.sweep(0.1, thorough=True)
    assert wire(server).take() == encode.TERMINATE


def test_one_that_is_too_old_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, replace(OPTIONS, server_idle_timeout=0))
    (server,) = world.idle()
    world.sweep(3600.1, thorough=True)
    assert wire(server).take() == encode.TERMINATE


def test_the_least_number_is_kept_and_filled_up(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, replace(OPTIONS, min_pool_size=2))
    world.pool.sessions = 1
    world.sweep(thorough=True)
    assert len(world.pool.idle) == 2
    world.idle(3)
    world.sweep(600.1, thorough=True)
    world.network.hang_ups()
    assert len(world.pool.idle) == 2


def test_the_clusters_own_least_number_goes_before(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, replace(OPTIONS, min_pool_size=2))
    world.pool.cluster = replace(CLUSTER, min_pool_size=1)
    world.pool.sessions = 1
    world.sweep(thorough=True)
    assert len(world.pool.idle) == 1


def test_nothing_is_kept_open_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, replace(OPTIONS, min_pool_size=2))
    world.sweep(thorough=True)
    assert not world.pool.idle
    world.idle(3)
    world.sweep(600.1, thorough=True)
    world.network.hang_ups()
    assert not world.pool.idle


def test_a_reset_that_never_ends_is_cut_off(world: World) -> None:
    server, _ = world.linked()
    server.dirty = True
    world.pool.checkin(server)
    world.sweep(30.0, thorough=True)
    assert not wire(server).aborted
    world.sweep(0.1, thorough=True)
    assert wire(server).aborted


def test_a_server_that_does_not_hang_up_is_cut_off(world: World) -> None:
    (server,) = world.idle()
    world.pool.close_idle(server)
    world.sweep(5.0, thorough=True)
    assert not wire(server).aborted
    world.sweep(0.1, thorough=True)
    assert wire(server).aborted


def test_pools_that_nobody_uses_are_forgotten(world: World) -> None:
    world.sweep(OPTIONS.pool_idle_timeout + 1, thorough=False)
    assert list(world.pools) == [world.pool]
    world.sweep(thorough=True)
    assert list(world.pools) == []
