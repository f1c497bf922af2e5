"""What is asked of a connection before it is lent again, and what its answer means."""

from __future__ import annotations

import pytest

from proxy.model import PoolMode, ServerOptions
from proxy.protocol.state import EMPTY, intern
from proxy.wire import encode
from tests.server.keeping import DONE, NO, Clock, Keeper, gone, lent, opened, waiter, wire


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def keeper() -> Keeper:
    return Keeper()


def test_a_dirty_one_is_reset_first(keeper: Keeper) -> None:
    pool = keeper.pool()
    (server,) = opened(keeper, pool)
    lent(pool, waiter())
    server.dirty, server.values = True, intern({"a.b": "c"})
    pool.checkin(server)
    assert wire(server).take() == encode.query(b"DISCARD ALL")
    assert server in pool.resetting
    wire(server).say(DONE)
    assert list(pool.idle) == [server]
    assert server.values is EMPTY


def test_one_that_cannot_be_reset_is_dropped(keeper: Keeper) -> None:
    pool = keeper.pool()
    (server,) = opened(keeper, pool)
    lent(pool, waiter())
    server.dirty = True
    pool.checkin(server)
    wire(server).say(NO)
    assert wire(server).aborted
    gone(server)
    assert pool.unused


def test_without_a_reset_query_a_dirty_one_is_dropped() -> None:
    keeper = Keeper(ServerOptions(server_reset_query="", server_check_delay=0))
    pool = keeper.pool()
    (server,) = opened(keeper, pool)
    lent(pool, waiter())
    server.dirty = True
    pool.checkin(server)
    assert wire(server).aborted


@pytest.mark.parametrize("dirty", [False, True])
def test_one_that_no_reset_clears_is_dropped(keeper: Keeper, dirty: bool) -> None:
    pool = keeper.pool()
    (server,) = opened(keeper, pool)
    lent(pool, waiter())
    server.spent, server.dirty = True, dirty
    pool.checkin(server)
    assert wire(server).aborted


def test_in_session_mode_the_end_of_a_session_resets(keeper: Keeper) -> None:
    pool = keeper.pool(mode=PoolMode.SESSION)
    (server,) = opened(keeper, pool)
    lent(pool, waiter())
    pool.checkin(server, session_over=True)
    assert wire(server).take() == encode.query(b"DISCARD ALL")


def test_one_that_a_cancel_may_still_strike_waits_for_it(keeper: Keeper) -> None:
    pool = keeper.pool()
    (server,) = opened(keeper, pool)
    lent(pool, waiter())
    pool.cancel(server)
    pool.checkin(server)
    assert server in pool.resetting
    keeper.cancel_over(server)
    assert list(pool.idle) == [server]


def test_a_reset_waits_for_the_cancel_that_could_strike_it(keeper: Keeper) -> None:
    pool = keeper.pool()
    (server,) = opened(keeper, pool)
    lent(pool, waiter())
    pool.cancel(server)
    server.dirty = True
    pool.checkin(server)
    assert wire(server).take() == b""
    keeper.cancel_over(server)
    assert wire(server).take() == encode.query(b"DISCARD ALL")


def test_one_left_in_a_transaction_is_rolled_back(keeper: Keeper) -> None:
    pool = keeper.pool()
    (server,) = opened(keeper, pool)
    who = waiter()
    lent(pool, who)
    pool.rollback(server)
    assert who.account.idle
    assert wire(server).take() == encode.query(b"ROLLBACK")
    wire(server).say(DONE)
    assert list(pool.idle) == [server]


def test_a_dirty_one_left_in_a_transaction_is_rolled_back_and_reset(keeper: Keeper) -> None:
    pool = keeper.pool()
    (server,) = opened(keeper, pool)
    lent(pool, waiter())
    server.dirty = True
    pool.rollback(server)
    assert wire(server).take() == encode.query(b"ROLLBACK")
    wire(server).say(DONE)
    assert wire(server).take() == encode.query(b"DISCARD ALL")
    wire(server).say(DONE)
    assert list(pool.idle) == [server]


def test_a_cancel_that_is_over_does_not_end_a_rollback_that_is_not(keeper: Keeper) -> None:
    pool = keeper.pool()
    (server,) = opened(keeper, pool)
    lent(pool, waiter())
    pool.cancel(server)
    pool.rollback(server)
    keeper.cancel_over(server)
    assert not pool.idle, "its ROLLBACK has not been answered"
    wire(server).say(DONE)
    assert list(pool.idle) == [server]


def test_nor_a_rollback_before_a_reset(keeper: Keeper) -> None:
    pool = keeper.pool()
    (server,) = opened(keeper, pool)
    lent(pool, waiter())
    server.dirty = True
    pool.cancel(server)
    pool.rollback(server)
    keeper.cancel_over(server)
    assert wire(server).take() == encode.query(b"ROLLBACK")
    wire(server).say(DONE)
    assert wire(server).take() == encode.query(b"DISCARD ALL")
    wire(server).say(DONE)
    assert list(pool.idle) == [server]


def test_a_rollback_that_is_done_waits_for_the_cancel(keeper: Keeper) -> None:
    pool = keeper.pool()
    (server,) = opened(keeper, pool)
    lent(pool, waiter())
    pool.cancel(server)
    pool.rollback(server)
    wire(server).say(DONE)
    assert not pool.idle
    keeper.cancel_over(server)
    assert list(pool.idle) == [server]


def test_a_failed_rollback_costs_the_connection(keeper: Keeper) -> None:
    pool = keeper.pool()
    (server,) = opened(keeper, pool)
    lent(pool, waiter())
    pool.rollback(server)
    wire(server).say(NO)
    assert wire(server).aborted


def test_one_that_was_idle_for_long_is_checked_before_it_is_lent(clock: Clock) -> None:
    keeper = Keeper(ServerOptions(server_check_delay=30))
    pool = keeper.pool()
    (server,) = opened(keeper, pool)
    clock.now += 31
    who = waiter()
    assert pool.acquire(who, clock.now) is None
    assert wire(server).take() == encode.query(b"SELECT 1")
    assert keeper.asked == [], "it is as good as there"
    assert who.account.servers.used == 0
    wire(server).say(encode.data_row(["1"]), DONE)
    assert who.server is server


def test_one_that_fails_the_check_is_dropped_and_another_opened(clock: Clock) -> None:
    keeper = Keeper(ServerOptions(server_check_delay=30))
    pool = keeper.pool(size=1)
    (server,) = opened(keeper, pool)
    clock.now += 31
    who = waiter()
    pool.acquire(who, clock.now)
    wire(server).say(NO)
    gone(server)
    keeper.opens(pool)
    assert who.server is not None
