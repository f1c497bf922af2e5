"""One pool: who gets which connection when, what becomes of those that come back, and who is told of failures."""

from __future__ import annotations

import pytest

from proxy.admission.accounts import TierAccount
from proxy.errors import CapReached, NoHealthyEndpoint, ServerLost
from proxy.model import Limits, ServerOptions, Tier
from proxy.protocol.lifecycle import ServerState
from proxy.protocol.state import intern
from proxy.server.connection import ServerConnection
from proxy.server.pool import Pool
from proxy.wire import encode
from tests.admission.calls import Call
from tests.server.keeping import DONE, REFUSED, Clock, Keeper, cluster, gone, lent, opened, waiter, wire
from tests.server.recording import Waiter, account


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def keeper() -> Keeper:
    return Keeper()


# --- checkout ---------------------------------------------------------------------------------------


def test_an_idle_connection_is_lent_at_once(keeper: Keeper) -> None:
    pool = keeper.pool()
    (server,) = opened(keeper, pool)
    who = waiter()
    assert lent(pool, who) is server
    assert server.state is ServerState.ACTIVE
    assert server.account is who.account
    assert who.account.servers.used == 1


def test_the_most_recently_used_is_lent(keeper: Keeper) -> None:
    pool = keeper.pool()
    a, b = opened(keeper, pool, 2)
    who = waiter()
    assert lent(pool, who) is b
    pool.checkin(b)
    assert lent(pool, who) is b
    assert lent(pool, who) is a


def test_one_that_has_the_state_is_preferred(keeper: Keeper) -> None:
    pool = keeper.pool()
    a, b = opened(keeper, pool, 2)
    a.values = needs = intern({"app.tenant_id": "acme"})
    assert lent(pool, Waiter(account(), needs)) is a
    assert lent(pool, Waiter(account(), needs)) is b


def test_without_an_idle_one_a_connection_is_opened_and_given_to_who_waits(keeper: Keeper) -> None:
    pool = keeper.pool()
    who = waiter()
    assert pool.acquire(who, 1_000.0) is None
    assert len(keeper.asked) == 1
    server = keeper.opens(pool)
    assert who.server is server
    assert who.account.stats.waits == 1
    assert not pool.queue


def test_no_more_are_opened_than_are_wanted_or_the_size_allows(keeper: Keeper) -> None:
    pool = keeper.pool(size=3)
    for n in range(5):
        pool.acquire(waiter(), 1_000.0)
        assert len(keeper.asked) == min(n + 1, 3)
    while keeper.asked:
        keeper.opens(pool)
    assert (len(pool.active), len(pool.queue)) == (3, 2)


def test_one_that_is_closing_still_counts_for_the_size(keeper: Keeper) -> None:
    pool = keeper.pool(size=1)
    (server,) = opened(keeper, pool)
    pool.recycle()
    pool.acquire(waiter(), 1_000.0)
    pool.fill(1)
    assert keeper.asked == [], "the server has it until it hangs up"
    gone(server)
    assert len(keeper.asked) == 1


def test_who_comes_later_does_not_overtake_who_waits(keeper: Keeper) -> None:
    pool = keeper.pool(size=1)
    (server,) = opened(keeper, pool)
    holder, first, second = waiter(), waiter("a"), waiter("b")
    lent(pool, holder)
    assert pool.acquire(first, 1_000.0) is None
    assert pool.acquire(second, 1_000.0) is None
    pool.checkin(server)
    assert first.server is server
    assert second.server is None


def test_who_leaves_the_queue_is_not_served(keeper: Keeper) -> None:
    pool = keeper.pool(size=1)
    who, other = waiter("a"), waiter("b")
    pool.acquire(who, 1_000.0)
    pool.acquire(other, 1_000.0)
    pool.leave(who)
    server = keeper.opens(pool)
    assert who.server is None
    assert other.server is server
    assert who.account.waiting == 0


def test_one_that_comes_back_goes_to_who_waits_as_if_it_had_been_idle(keeper: Keeper, clock: Clock) -> None:
    pool = keeper.pool(size=1)
    (server,) = opened(keeper, pool)
    a = account("a")
    first, second, third = Waiter(a), Waiter(a), waiter("b")
    assert lent(pool, first) is server
    for each in (second, third):
        assert pool.acquire(each, clock.now) is None
    for before, next_ in ((first, third), (third, second)):  # a's other waits: it has just had half a second
        clock.now += 0.5
        pool.checkin(server)
        assert next_.server is server
        assert (server.account, server.lent_at) == (next_.account, clock.now)
        assert server.permits == next_.account.server_counters(next_.user_account)
        assert before.account.servers.used == 0
        assert next_.account.servers.used == 1
        assert (pool.active, pool.idle) == ([server], [])
        assert before.account.expected > 0.1
    assert (a.stats.server_seconds, a.stats.wait_seconds) == pytest.approx((0.5, 1.0))
    assert pool.stats.server_assignments == server.uses == 3
    clock.now += 0.5
    pool.checkin(server)
    assert pool.idle == [server]
    assert a.servers.used == 0
    assert a.stats.server_seconds == pytest.approx(1.0)


def test_whoever_leaves_the_active_gives_its_place_to_the_last(keeper: Keeper) -> None:
    pool = keeper.pool(size=3)
    opened(keeper, pool, 3)
    first, second, third = (lent(pool, Waiter(account("a"))) for _ in range(3))
    pool.checkin(first)
    assert pool.active == [third, second]
    pool.lost(third)
    assert pool.active == [second]
    pool.lost(first)  # idle by now, with the place that it had
    assert (pool.active, pool.idle) == ([second], [])


def test_one_that_comes_back_while_its_tenant_is_at_its_cap_is_idle(keeper: Keeper) -> None:
    pool = keeper.pool(size=2)
    one, other = opened(keeper, pool, 2)
    capped = account("a", max_connections=1)
    first, second, third = Waiter(capped), Waiter(capped), waiter("b")
    assert lent(pool, first) is other
    assert lent(pool, third) is one
    assert pool.acquire(second, 1_000.0) is None
    pool.checkin(one)
    assert second.server is None
    assert pool.idle == [one]
    pool.checkin(other)
    assert second.server is not None


def test_a_full_queue_refuses(keeper: Keeper) -> None:
    pool = keeper.pool(size=1)
    tenant = account(max_queue=1)
    pool.acquire(Waiter(tenant), 1_000.0)
    with pytest.raises(CapReached, match='tenant "acme"'):
        pool.acquire(Waiter(tenant), 1_000.0)
    assert len(pool.queue) == 1


# --- caps -------------------------------------------------------------------------------------------


def test_a_tenant_at_its_cap_waits_though_a_connection_is_idle(keeper: Keeper) -> None:
    pool = keeper.pool()
    a, _b = opened(keeper, pool, 2)
    tenant = account(max_connections=1)
    server = lent(pool, Waiter(tenant))
    late = Waiter(tenant)
    assert pool.acquire(late, 1_000.0) is None
    assert pool.idle == type(pool.idle)([a])
    pool.checkin(server)
    assert late.server is not None


def test_a_tenant_at_its_cap_holds_up_nobody_else(keeper: Keeper) -> None:
    pool = keeper.pool()
    opened(keeper, pool, 2)
    capped = account(max_connections=1)
    lent(pool, Waiter(capped))
    pool.acquire(Waiter(capped), 1_000.0)
    other = waiter("other")
    server = pool.acquire(other, 1_000.0) or other.server
    assert server is not None


def test_a_tiers_cap_holds_for_its_tenants_together(keeper: Keeper) -> None:
    pool = keeper.pool()
    opened(keeper, pool, 2)
    tier = TierAccount(Tier("free", caps=Limits(max_connections=1)))
    server = lent(pool, Waiter(account("a", tier)))
    late = Waiter(account("b", tier))
    assert pool.acquire(late, 1_000.0) is None
    pool.checkin(server)
    assert late.server is not None
    assert tier.servers.used == 1


def test_no_connection_is_opened_for_a_tenant_that_its_cap_will_serve_with_the_one_that_comes_back(
    keeper: Keeper,
) -> None:
    pool = keeper.pool(size=5)
    tenant = account(max_connections=1)
    pool.acquire(Waiter(tenant), 1_000.0)
    server = keeper.opens(pool)
    for _ in range(3):
        late = Waiter(tenant)
        pool.acquire(late, 1_000.0)
        pool.checkin(server)
        assert late.server is server
    assert keeper.asked == []


@pytest.mark.parametrize("how", ["rollback", "dirty"])
def test_nor_while_that_one_is_cleaned(keeper: Keeper, how: str) -> None:
    pool = keeper.pool(size=5)
    tenant = account(max_connections=1)
    pool.acquire(Waiter(tenant), 1_000.0)
    server = keeper.opens(pool)
    late = Waiter(tenant)
    pool.acquire(late, 1_000.0)
    if how == "rollback":
        pool.rollback(server)
    else:
        server.dirty = True
        pool.checkin(server)
    assert keeper.asked == []
    wire(server).say(DONE)
    assert late.server is server


def test_a_full_cluster_asks_for_room_and_goes_on_when_there_is_some(keeper: Keeper) -> None:
    pool = keeper.pool()
    keeper.cluster_permits.limit = 1
    keeper.cluster_permits.take()  # another pool's
    who = waiter()
    pool.acquire(who, 1_000.0)
    assert (len(keeper.asked), keeper.rooms) == (0, 1)
    keeper.cluster_permits.give()
    assert len(keeper.asked) == 1
    keeper.opens(pool)
    assert who.server is not None


def test_a_lost_connection_makes_room_for_its_own_pool_before_others_are_asked_for_it(keeper: Keeper) -> None:
    pool = keeper.pool()
    keeper.cluster_permits.limit = 1
    tenant = account(max_connections=1)
    pool.acquire(Waiter(tenant), 1_000.0)
    server = keeper.opens(pool)
    pool.acquire(Waiter(tenant), 1_000.0)
    gone(server)
    assert len(keeper.asked) == 1
    assert keeper.rooms == 0


def test_an_idle_connection_that_nobody_here_wants_is_offered(keeper: Keeper) -> None:
    pool = keeper.pool(size=1)
    (server,) = opened(keeper, pool)
    lent(pool, waiter())
    late = waiter()
    pool.acquire(late, 1_000.0)
    pool.checkin(server)
    assert late.server is server
    keeper.cluster_permits.when_free(Call())  # another pool
    pool.checkin(server)
    assert keeper.came == 1


def test_one_that_is_owed_to_others_is_closed_although_somebody_waits(keeper: Keeper) -> None:
    pool = keeper.pool(size=1)
    (server,) = opened(keeper, pool)
    lent(pool, waiter())
    late = waiter()
    pool.acquire(late, 1_000.0)
    keeper.owes = True
    keeper.all_permits.when_free(Call())
    pool.checkin(server)
    assert server in pool.closing
    assert late.server is None


# --- charges ----------------------------------------------------------------------------------------


def test_time_is_charged_as_it_goes_on_and_not_what_passed_before_anybody_waited(
    keeper: Keeper, clock: Clock
) -> None:
    pool = keeper.pool(size=1)
    opened(keeper, pool)
    tenant = account("long")
    server = lent(pool, Waiter(tenant))
    clock.now += 1.0
    pool.acquire(waiter("other"), clock.now)
    due = pool.queue.rota.standing(tenant)
    pool.charge_running(clock.now)
    assert due.due == 0.0
    clock.now += 0.25
    pool.charge_running(clock.now)
    clock.now += 0.25
    pool.charge_running(clock.now)
    assert due.due == pytest.approx(500.0)
    clock.now += 0.25
    pool.checkin_at(server, clock.now)
    assert due.due == pytest.approx(750.0)
    assert tenant.stats.server_seconds == pytest.approx(1.75)
    assert tenant.expected == pytest.approx(1.75)


# --- guarantees -------------------------------------------------------------------------------------


def test_a_guarantee_that_nobody_asks_for_is_lent_out_and_comes_back_with_the_next_that_ends(
    keeper: Keeper,
) -> None:
    pool = keeper.pool(size=2)
    opened(keeper, pool, 2)
    servers = [lent(pool, waiter("noisy")) for _ in range(2)]
    late, entitled = waiter("noisy"), Waiter(account("vip", guaranteed_connections=1))
    pool.acquire(late, 1_000.0)
    pool.acquire(entitled, 1_000.0)
    pool.checkin(servers[0])
    assert entitled.server is servers[0]
    assert late.server is None


def test_what_is_asked_for_is_kept_free_for_a_while(keeper: Keeper, clock: Clock) -> None:
    pool = keeper.pool(size=3)
    opened(keeper, pool, 3)
    tenant = account("vip", guaranteed_connections=2)
    for server in [lent_or_granted(pool, Waiter(tenant)) for _ in range(2)]:
        pool.checkin(server)
    held = [lent_or_granted(pool, waiter("noisy"))]
    late = waiter("noisy")
    assert pool.acquire(late, 1_000.0) is None
    assert (late.server, len(pool.idle), pool.spare) == (None, 2, 0)
    held += [lent_or_granted(pool, Waiter(tenant)) for _ in range(2)]
    pool.checkin(held.pop())
    assert late.server is None, "it is the tenant's until it has not asked for long"
    pool.checkin(held.pop())
    clock.now += 6.0
    assert pool.kept.look(clock.now)
    pool.serve()
    assert late.server is not None


def test_who_is_guaranteed_connections_is_in_a_hurry_with_what_it_is_lent(keeper: Keeper) -> None:
    pool = keeper.pool(size=1)
    opened(keeper, pool, 1)
    common, entitled = waiter("noisy"), Waiter(account("vip", guaranteed_connections=1))
    server = lent_or_granted(pool, common)
    assert (common.hurried, server.hurried) == (False, False)
    pool.acquire(entitled, 1_000.0)
    assert entitled.hurried
    pool.checkin(server)
    assert (entitled.server, server.hurried) == (server, True)
    late = waiter("noisy")
    pool.acquire(late, 1_000.0)
    pool.checkin(server)
    pool.kept.look(1_010.0)
    pool.serve()
    assert (late.server, late.hurried, server.hurried) == (server, False, False)
    entitled.account.update(entitled.account.tenant, entitled.account.tier, Limits())
    entitled.server = None
    pool.acquire(entitled, 1_011.0)
    assert not entitled.hurried, "it was, until its limits changed"


def lent_or_granted(pool: Pool, who: Waiter) -> ServerConnection:
    server = pool.acquire(who, 1_000.0) or who.server
    assert server is not None
    return server


# --- checkin ----------------------------------------------------------------------------------------


def test_what_comes_back_clean_is_idle_and_its_permits_are_free(keeper: Keeper) -> None:
    pool = keeper.pool()
    (server,) = opened(keeper, pool)
    who = waiter()
    lent(pool, who)
    pool.checkin(server)
    assert list(pool.idle) == [server]
    assert who.account.idle
    assert (server.link, server.account, server.permits) == (None, None, ())


def test_an_abandoned_one_is_cancelled_and_meets_nobody(keeper: Keeper) -> None:
    pool = keeper.pool(size=1)
    (server,) = opened(keeper, pool)
    who, late = waiter(), waiter("late")
    lent(pool, who)
    pool.acquire(late, 1_000.0)
    pool.abandon(server)
    assert keeper.cancelled == [server]
    assert who.account.idle
    assert late.server is None
    gone(server)
    keeper.opens(pool)
    assert late.server is not None


# --- age --------------------------------------------------------------------------------------------


def test_one_whose_lifetime_is_over_is_closed_when_it_comes_back(clock: Clock) -> None:
    keeper = Keeper(ServerOptions(server_lifetime=60, server_check_delay=0))
    pool = keeper.pool()
    (server,) = opened(keeper, pool)
    lent(pool, waiter())
    clock.now += 61
    pool.checkin(server)
    assert wire(server).take() == encode.TERMINATE


def test_recycling_closes_the_idle_now_and_the_others_when_they_come_back(keeper: Keeper) -> None:
    pool = keeper.pool()
    a, b = opened(keeper, pool, 2)
    assert lent(pool, waiter()) is b
    pool.recycle()
    assert wire(a).take() == encode.TERMINATE
    assert wire(b).take() == b""
    pool.checkin(b)
    assert wire(b).take() == encode.TERMINATE


def test_one_that_was_opened_for_an_older_generation_is_closed(keeper: Keeper) -> None:
    pool = keeper.pool()
    who = waiter()
    pool.acquire(who, 1_000.0)
    server_generation = pool.generation
    pool.recycle()
    assert pool.generation != server_generation
    keeper.asked.clear()
    pool.opening = 0
    opened_late = opened(keeper, pool)[0]
    assert who.server is opened_late


def test_a_pool_that_was_made_smaller_shrinks_as_connections_come_back(keeper: Keeper) -> None:
    pool = keeper.pool(size=3)
    servers = opened(keeper, pool, 3)
    for _ in servers:
        lent(pool, waiter())
    pool.cluster = cluster(1)
    for server in servers:
        pool.checkin(server)
    assert len(pool.idle) == 1


# --- pause ------------------------------------------------------------------------------------------


def test_a_paused_pool_lends_nothing_and_opens_nothing(keeper: Keeper) -> None:
    pool = keeper.pool(size=2)
    opened(keeper, pool)
    pool.paused = True
    who = waiter()
    assert pool.acquire(who, 1_000.0) is None
    pool.fill(2)
    assert keeper.asked == []
    pool.paused = False
    pool.serve()
    assert who.server is not None


@pytest.mark.parametrize("how", ["checkin", "opened", "reset"])
def test_while_paused_no_connection_is_kept(keeper: Keeper, how: str) -> None:
    """PAUSE is there so that the server can be worked on: all that come back are closed."""
    pool = keeper.pool(size=2)
    if how == "opened":
        pool.fill(1)
        pool.paused = True
        server = keeper.opens(pool)
    else:
        (server,) = opened(keeper, pool)
        lent(pool, waiter())
        pool.paused = True
        server.dirty = how == "reset"
        pool.checkin(server)
        if how == "reset":
            wire(server).take()
            wire(server).say(DONE)
    assert wire(server).take() == encode.TERMINATE
    assert not pool.idle


# --- servers that cannot be reached -----------------------------------------------------------------


def test_without_any_connection_those_who_wait_hear_why(keeper: Keeper) -> None:
    pool = keeper.pool(size=1)
    first, second = waiter("a"), waiter("b")
    pool.acquire(first, 1_000.0)
    pool.acquire(second, 1_000.0)
    keeper.asked.clear()
    pool.failed(ServerLost("the server cannot be reached", internal="db:5432"))
    for who in (first, second):
        assert isinstance(who.error, NoHealthyEndpoint)
        assert who.account.waiting == 0
    assert not pool.queue


def test_while_it_is_known_to_be_down_requests_are_refused_at_once(keeper: Keeper) -> None:
    pool = keeper.pool(size=1)
    pool.acquire(waiter(), 1_000.0)
    keeper.is_reachable = False
    pool.failed(ServerLost("down"))
    with pytest.raises(NoHealthyEndpoint, match="down"):
        pool.acquire(waiter(), 1_000.0)
    keeper.is_reachable = True
    keeper.asked.clear()
    assert pool.acquire(waiter(), 1_000.0) is None
    assert len(keeper.asked) == 1


def test_a_servers_refusal_is_no_reason_to_refuse_the_next(keeper: Keeper) -> None:
    pool = keeper.pool(size=1)
    who = waiter()
    pool.acquire(who, 1_000.0)
    keeper.is_reachable = False
    pool.failed(REFUSED)
    assert who.error is REFUSED
    assert pool.acquire(waiter(), 1_000.0) is None


def test_while_there_are_other_connections_those_who_wait_wait_on(keeper: Keeper) -> None:
    pool = keeper.pool(size=2)
    (server,) = opened(keeper, pool)
    lent(pool, waiter())
    who = waiter()
    pool.acquire(who, 1_000.0)
    pool.failed(ServerLost("down"))
    assert who.error is None
    pool.checkin(server)
    assert who.server is server


def test_the_last_of_several_failures_is_told(keeper: Keeper) -> None:
    pool = keeper.pool(size=2)
    first, second = waiter(), waiter()
    pool.acquire(first, 1_000.0)
    pool.acquire(second, 1_000.0)
    pool.failed(ServerLost("one"))
    assert first.error is None
    pool.failed(ServerLost("two"))
    assert first.error is not None
    assert second.error is not None


def test_one_that_died_on_its_way_is_not_lent(keeper: Keeper) -> None:
    pool = keeper.pool(size=1)
    who = waiter()
    pool.acquire(who, 1_000.0)
    counters = keeper.asked[0]
    server = ServerConnection(
        pool, cluster(1).endpoints[0], pid=1, key=b"", parameters={}, max_prepared=0, generation=0
    )
    from tests.transports import Transport

    server.take_transport(Transport(server))
    wire(server).close()
    keeper.held[server] = counters
    keeper.asked.clear()
    pool.opened(server)
    assert who.server is None
    assert len(keeper.asked) == 1, "another is opened"
    assert keeper.all_permits.used == 1


# --- lost -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["idle", "active", "resetting", "closing"])
def test_a_lost_connection_is_forgotten_with_all_its_permits(keeper: Keeper, place: str) -> None:
    pool = keeper.pool(size=1)
    (server,) = opened(keeper, pool)
    who = waiter()
    if place != "idle":
        lent(pool, who)
    if place == "resetting":
        server.dirty = True
        pool.checkin(server)
    if place == "closing":
        pool.abandon(server)
    assert server in getattr(pool, place)
    gone(server)
    assert pool.unused
    assert pool.connections() == []
    assert who.account.idle
    assert (keeper.cluster_permits.used, keeper.all_permits.used) == (0, 0)
