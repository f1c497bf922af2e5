"""All pools together: caps that they share, endpoints, cancels, pauses, reloads, and the tasks that open."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.errors import NoHealthyEndpoint, ServerLost, ServerRefused
from proxy.model import Cluster, ClusterKind, PoolKey, PoolMode, Role, ServerOptions
from proxy.net.tls import ServerTls
from proxy.server import pools as module
from proxy.server.connection import ServerConnection
from proxy.server.pool import Pool
from proxy.wire import encode
from tests.server.keeping import waiter, wire
from tests.server.recording import Waiter, account
from tests.transports import Network, SteppedPools, endpoint

A, B, REPLICA = endpoint("a"), endpoint("b"), endpoint("r", role=Role.REPLICA)
SHARED = Cluster("shared", ClusterKind.SHARED, (A, B, REPLICA), pool_size=4)
OTHER = Cluster("other", ClusterKind.SHARED, (endpoint("o"),), pool_size=4)
TLS = ServerTls("disable", None)
REFUSED = ServerRefused("sorry", "53300", encode.error("sorry", "53300", severity="FATAL"))


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    return Network(monkeypatch)


@pytest.fixture
def pools(network: Network) -> SteppedPools:
    return SteppedPools(ServerOptions(server_check_delay=0))


def pool_of(
    pools: SteppedPools, database: str = "appdb", cluster: Cluster = SHARED, password: str = "secret"
) -> Pool:
    return pools.pool(PoolKey(cluster.name, database, "app"), cluster, PoolMode.TRANSACTION, password)


def lent(pools: SteppedPools, pool: Pool, who: Waiter | None = None) -> ServerConnection:
    """A connection in use."""
    who = who or waiter()
    server = pool.acquire(who, 0.0)
    pools.step()
    server = server or who.server
    assert server is not None
    return server


# --- pools by key -----------------------------------------------------------------------------------


def test_a_pool_is_made_once_for_its_key_and_mode(pools: SteppedPools) -> None:
    pool = pool_of(pools)
    assert pool_of(pools) is pool
    assert pool_of(pools, "another") is not pool
    assert pools.pool(pool.key, SHARED, PoolMode.SESSION, "secret") is not pool
    assert len(list(pools)) == 3


def test_a_new_password_replaces_the_connections(pools: SteppedPools, network: Network) -> None:
    pool = pool_of(pools)
    pool.checkin(lent(pools, pool))
    pool_of(pools, password="new")
    assert not pool.idle
    lent(pools, pool)
    assert [asked["password"] for asked in network.logins] == ["secret", "new"]


def test_a_pool_that_nobody_uses_for_long_is_forgotten(pools: SteppedPools) -> None:
    pool = pool_of(pools)
    later = pool.last_used + pools.options.pool_idle_timeout + 1
    pools.forget_unused(pool.last_used + 1)
    assert list(pools) == [pool]
    pools.forget_unused(later)
    assert list(pools) == []


def test_one_with_a_connection_or_somebody_waiting_is_not(pools: SteppedPools, network: Network) -> None:
    used, waited_for = pool_of(pools), pool_of(pools, "waited")
    lent(pools, used)
    network.connecting.open = False
    waited_for.acquire(waiter(), 0.0)
    pools.step()
    pools.forget_unused(float("inf"))
    assert set(pools) == {used, waited_for}
    network.connecting.open = True
    pools.step()


# --- opening ----------------------------------------------------------------------------------------


def test_a_login_is_asked_for_with_what_the_pool_is_for(pools: SteppedPools, network: Network) -> None:
    key = PoolKey("shared", "appdb", "app", (("local_preload_libraries", "x"),))
    pool = pools.pool(key, SHARED, PoolMode.TRANSACTION, "secret")
    server = lent(pools, pool)
    (asked,) = network.logins
    assert (asked["database"], asked["user"], asked["password"]) == ("appdb", "app", "secret")
    assert asked["parameters"] == {"local_preload_libraries": "x"}
    assert asked["options"] is pools.options
    assert server.pid == 101
    assert pools.process.server_connections == 1


def test_connections_are_spread_over_the_endpoints_that_may_write(
    pools: SteppedPools, network: Network
) -> None:
    pool = pool_of(pools)
    for _ in range(4):
        lent(pools, pool)
    assert sorted(network.endpoints) == [A, A, B, B]


def test_an_endpoint_that_cannot_be_reached_is_set_aside_and_the_next_tried(
    pools: SteppedPools, network: Network
) -> None:
    network.down[A] = ServerLost("down")
    pool = pool_of(pools)
    for _ in range(3):
        lent(pools, pool)
    assert network.endpoints == [B, B, B]
    assert len(network.logins) == 4, "and not tried again"
    assert pools.process.server_failures == 1
    assert pools.health.reason(A) == "down"


def test_it_is_tried_again_when_the_time_is_over(
    pools: SteppedPools, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    network.down[A] = ServerLost("down")
    pool = pool_of(pools)
    lent(pools, pool)
    network.down.clear()
    now = pools.options.server_login_retry + 1
    lent(pools, pool)
    assert network.endpoints == [B, A]
    assert pools.health.reason(A) == ""


def test_without_any_endpoint_those_who_wait_hear_why(pools: SteppedPools, network: Network) -> None:
    network.down = {A: ServerLost("a is down"), B: ServerLost("b is down")}
    pool, who = pool_of(pools), waiter()
    pool.acquire(who, 0.0)
    pools.step()
    assert isinstance(who.error, NoHealthyEndpoint)
    assert who.error.message == "b is down"
    assert pools.servers.used == 0
    assert not pools.reachable(SHARED, 0.0)
    with pytest.raises(NoHealthyEndpoint):
        pool.acquire(waiter(), 0.0)


def test_a_refused_login_sets_no_endpoint_aside(pools: SteppedPools, network: Network) -> None:
    network.refusal = REFUSED
    pool, who = pool_of(pools), waiter()
    pool.acquire(who, 0.0)
    pools.step()
    assert who.error is REFUSED
    assert pools.health.ejected(0.0) == []
    assert pools.servers.used == 0


def test_a_cluster_of_replicas_only_has_no_endpoint(pools: SteppedPools) -> None:
    cluster = replace(SHARED, endpoints=(REPLICA,))
    who = waiter()
    pool_of(pools, cluster=cluster).acquire(who, 0.0)
    pools.step()
    assert isinstance(who.error, NoHealthyEndpoint)


def test_a_bug_while_opening_gives_the_permits_back(pools: SteppedPools, network: Network) -> None:
    network.refusal = ValueError("a bug")
    pool = pool_of(pools)
    pool.acquire(waiter(), 0.0)
    with pytest.raises(ValueError, match="a bug"):
        pools.step()
    assert pool.opening == 0
    assert pools.servers.used == 0


def test_what_was_opened_for_an_older_generation_is_closed(pools: SteppedPools, network: Network) -> None:
    pool, who = pool_of(pools), waiter()
    network.connecting.open = False
    pool.acquire(who, 0.0)
    pools.step()
    pools.reconnect()
    network.connecting.open = True
    pools.step()
    assert network.servers[0].take() == encode.TERMINATE
    assert who.server is not None
    assert wire(who.server) is network.servers[1]


def test_a_connection_that_died_on_its_way_is_replaced(pools: SteppedPools, network: Network) -> None:
    pool, who = pool_of(pools), waiter()
    network.born_dead = 1
    pool.acquire(who, 0.0)
    pools.step()
    assert who.server is not None
    assert len(network.servers) == 2
    assert pools.servers.used == 1


# --- caps that pools share --------------------------------------------------------------------------


def test_the_permit_of_a_connection_is_free_when_its_server_has_hung_up(
    pools: SteppedPools, network: Network
) -> None:
    pool = pool_of(pools)
    server = lent(pools, pool)
    pools.reconnect()
    pool.checkin(server)
    assert pools.servers.used == 1
    network.hang_ups()
    assert pools.servers.used == 0
    assert pools.room.cluster("shared").used == 0


def test_an_idle_connection_makes_room_for_another_pool_of_a_full_cluster(
    pools: SteppedPools, network: Network
) -> None:
    full = replace(SHARED, max_connections=1)
    rich, poor = pool_of(pools, "rich", full), pool_of(pools, "poor", full)
    rich.checkin(lent(pools, rich))
    who = waiter()
    poor.acquire(who, 0.0)
    assert network.servers[0].written.endswith(encode.TERMINATE)
    network.hang_ups()
    pools.step()
    assert who.server is not None
    assert not rich.idle


def test_one_in_use_makes_room_when_it_comes_back_and_nobody_there_wants_it(
    pools: SteppedPools, network: Network
) -> None:
    full = replace(SHARED, max_connections=1)
    rich, poor = pool_of(pools, "rich", full), pool_of(pools, "poor", full)
    server = lent(pools, rich)
    who = waiter()
    poor.acquire(who, 0.0)
    assert who.server is None
    rich.checkin(server)
    network.hang_ups()
    pools.step()
    assert who.server is not None


def test_the_longest_idle_goes_and_only_one_at_a_time(pools: SteppedPools, network: Network) -> None:
    full = replace(SHARED, max_connections=2)
    one, two, poor = (pool_of(pools, name, full) for name in ("one", "two", "poor"))
    one.checkin(lent(pools, one))
    two.checkin(lent(pools, two))
    poor.acquire(waiter("x"), 0.0)
    poor.acquire(waiter("y"), 0.0)
    assert (len(one.idle), len(two.idle)) == (0, 1)
    network.servers[0].hang_up()
    pools.step()
    assert len(poor.active) == 1
    assert len(two.idle) == 1, "the second one wants room too, but is no reason to take what was just used"
    two.idle[0].idle_since -= 1.0
    pools.room.look()
    assert len(two.idle) == 0


def test_a_full_cluster_takes_nothing_from_another(pools: SteppedPools) -> None:
    full = replace(SHARED, max_connections=1)
    busy, poor, other = pool_of(pools, "busy", full), pool_of(pools, "poor", full), pool_of(pools, "x", OTHER)
    other.checkin(lent(pools, other))
    lent(pools, busy)
    poor.acquire(waiter(), 0.0)
    assert len(other.idle) == 1


def test_a_full_process_takes_from_any_cluster(pools: SteppedPools, network: Network) -> None:
    pools.servers.limit = 1
    poor, other = pool_of(pools, "poor"), pool_of(pools, "x", OTHER)
    other.checkin(lent(pools, other))
    who = waiter()
    poor.acquire(who, 0.0)
    network.hang_ups()
    pools.step()
    assert who.server is not None


# --- cancels ----------------------------------------------------------------------------------------


def test_a_cancel_goes_to_the_server_of_the_connection(pools: SteppedPools, network: Network) -> None:
    pool = pool_of(pools)
    lent(pools, pool)
    pool.cancel(lent(pools, pool))
    pools.step()
    assert network.cancels == [102]
    assert pools.process.cancels == 1


def test_two_cancels_of_one_connection_are_both_waited_for(pools: SteppedPools, network: Network) -> None:
    pool = pool_of(pools)
    server = lent(pools, pool)
    network.cancelling.open = False
    pool.cancel(server)
    pool.cancel(server)
    pool.checkin(server)
    pools.step()
    assert not pool.idle
    network.cancelling.open = True
    pools.step()
    assert len(pool.idle) == 1


def test_a_failed_cancel_closes_the_connection_when_it_comes_back(
    pools: SteppedPools, network: Network
) -> None:
    pool = pool_of(pools)
    server = lent(pools, pool)
    network.cancel_fails = ServerLost("no answer")
    pool.cancel(server)
    pool.checkin(server)
    pools.step()
    assert wire(server).take() == encode.TERMINATE


def test_an_abandoned_connection_is_cut_off_when_the_cancel_is_over(
    pools: SteppedPools, network: Network
) -> None:
    pool = pool_of(pools)
    server = lent(pools, pool)
    network.cancelling.open = False
    pool.abandon(server)
    pools.step()
    assert not wire(server).aborted
    network.cancelling.open = True
    pools.step()
    assert wire(server).aborted
    network.hang_ups()
    assert pools.servers.used == 0


def test_and_when_it_fails_too(pools: SteppedPools, network: Network) -> None:
    pool = pool_of(pools)
    server = lent(pools, pool)
    network.cancel_fails = ServerLost("no answer")
    pool.abandon(server)
    pools.step()
    assert wire(server).aborted


# --- pause, resume, reconnect -----------------------------------------------------------------------


def test_pause_closes_the_idle_and_resume_serves_who_waited(pools: SteppedPools, network: Network) -> None:
    pool = pool_of(pools)
    pool.checkin(lent(pools, pool))
    pools.pause("shared")
    assert wire(pool.connections()[0]).take() == encode.TERMINATE
    network.servers[0].hang_up()
    who = waiter()
    pool.acquire(who, 0.0)
    pools.step()
    assert who.server is None
    assert pools.resume("shared")
    pools.step()
    assert who.server is not None


def test_pause_of_one_cluster_leaves_the_others(pools: SteppedPools) -> None:
    pools.pause("shared")
    lent(pools, pool_of(pools, cluster=OTHER))
    assert pools.paused("shared")
    assert not pools.paused("other")
    assert not pools.resume("other")
    assert pools.resume("shared")


def test_a_pool_made_during_a_pause_is_paused(pools: SteppedPools) -> None:
    pools.pause()
    pool = pool_of(pools)
    assert pool.paused
    assert pools.resume()
    assert not pool.paused


def test_resume_of_all_resumes_each(pools: SteppedPools) -> None:
    pools.pause("shared")
    pools.pause("other")
    assert pools.resume()
    assert not pools.paused("shared")
    assert not pools.resume()


def test_reconnect_of_one_cluster_leaves_the_others(pools: SteppedPools) -> None:
    pool, other = pool_of(pools), pool_of(pools, cluster=OTHER)
    pool.checkin(lent(pools, pool))
    other.checkin(lent(pools, other))
    pools.reconnect("shared")
    assert (len(pool.idle), len(other.idle)) == (0, 1)


# --- reload -----------------------------------------------------------------------------------------


def test_a_reload_gives_living_pools_the_new_options(pools: SteppedPools) -> None:
    pool = pool_of(pools)
    options = ServerOptions(server_lifetime=1, max_server_connections=7)
    pools.reload(options, TLS, {"shared": SHARED})
    assert pool.options is options
    assert pools.servers.limit == 7


@pytest.mark.parametrize("what", ["pool_size", "max_connections", "max_server_connections"])
def test_a_limit_that_a_reload_raises_serves_who_waited(pools: SteppedPools, what: str) -> None:
    small = replace(SHARED, pool_size=1) if what == "pool_size" else SHARED
    small = replace(SHARED, max_connections=1) if what == "max_connections" else small
    options = (
        replace(pools.options, max_server_connections=1) if what.startswith("max_server") else pools.options
    )
    pools.reload(options, TLS, {"shared": small})
    pool, who = pool_of(pools, cluster=small), waiter()
    lent(pools, pool)
    pool.acquire(who, 0.0)
    pools.step()
    assert who.server is None
    pools.reload(replace(options, max_server_connections=0), TLS, {"shared": replace(SHARED, pool_size=5)})
    pools.step()
    assert who.server is not None


@pytest.mark.parametrize("what", ["pool_size", "max_connections", "max_server_connections"])
def test_a_limit_that_a_reload_lowers_holds_as_transactions_end(pools: SteppedPools, what: str) -> None:
    """Also while others wait, who would have what comes back."""
    cluster = replace(SHARED, pool_size=3)
    pool = pool_of(pools, cluster=cluster)
    servers = [lent(pools, pool) for _ in range(3)]
    waiters = [waiter() for _ in range(4)]
    for who in waiters:
        pool.acquire(who, 0.0)
    of_proxy = what.startswith("max_server")
    options = replace(pools.options, max_server_connections=1) if of_proxy else pools.options
    pools.reload(options, TLS, {"shared": cluster if of_proxy else replace(cluster, **{what: 1})})
    assert pool.size == 3
    for server in servers:
        pool.checkin(server)
        pools.step()
    assert pool.size == 1
    assert sum(who.server is not None for who in waiters) == 1


def test_a_cluster_that_moved_gets_new_connections(pools: SteppedPools, network: Network) -> None:
    pool = pool_of(pools)
    pool.checkin(lent(pools, pool))
    moved = replace(SHARED, endpoints=(endpoint("new"),))
    pools.reload(pools.options, TLS, {"shared": moved})
    assert wire(pool.connections()[0]).take() == encode.TERMINATE
    lent(pools, pool)
    assert network.endpoints[-1].host == "new"


def test_a_cluster_that_is_gone_loses_its_idle_connections(pools: SteppedPools) -> None:
    pool = pool_of(pools)
    pool.checkin(lent(pools, pool))
    pools.reload(pools.options, TLS, {})
    assert not pool.idle


def test_a_pool_that_a_reload_made_smaller_closes_its_surplus(pools: SteppedPools) -> None:
    pool = pool_of(pools)
    servers = [lent(pools, pool) for _ in range(3)]
    for server in servers:
        pool.checkin(server)
    pools.reload(pools.options, TLS, {"shared": replace(SHARED, pool_size=1)})
    assert len(pool.idle) == 1


# --- databases that must be left --------------------------------------------------------------------


def test_eviction_waits_until_the_backends_are_gone(pools: SteppedPools, network: Network) -> None:
    pool, other = pool_of(pools), pool_of(pools, "other")
    pool.checkin(lent(pools, pool))
    other.checkin(lent(pools, other))
    done: list[bool] = []

    async def evict() -> None:
        await pools.evict_database("shared", "appdb")
        done.append(True)

    pools.spawn(evict())
    pools.step()
    assert (len(pool.idle), len(other.idle)) == (0, 1)
    assert not done
    network.hang_ups()
    pools.step()
    assert done


def test_eviction_closes_what_is_being_opened_or_reset(pools: SteppedPools, network: Network) -> None:
    pool = pool_of(pools)
    server = lent(pools, pool)
    server.dirty = True
    pool.checkin(server)
    pool.fill(2)
    assert (len(pool.resetting), pool.opening) == (1, 1)
    done: list[bool] = []

    async def evict() -> None:
        await pools.evict_database("shared", "appdb")
        done.append(True)

    pools.spawn(evict())
    pools.step()
    assert (pool.opening, len(pool.idle), len(pool.closing)) == (0, 0, 1)
    wire(server).say(encode.command_complete("DISCARD ALL"), encode.ready_for_query())
    pools.step()
    assert (len(pool.resetting), len(pool.idle), len(pool.closing)) == (0, 0, 2)
    assert not done
    network.hang_ups()
    pools.step()
    assert done


def test_it_gives_up_on_a_server_that_does_not_hang_up(
    pools: SteppedPools, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    pool = pool_of(pools)
    pool.checkin(lent(pools, pool))
    pools.spawn(pools.evict_database("shared", "appdb"))
    pools.step()
    assert pools.busy == 1
    now = 6.0
    pools.step()
    assert pools.busy == 0


def test_an_account_is_idle_when_all_is_over(pools: SteppedPools, network: Network) -> None:
    tenant = account()
    pool = pool_of(pools)
    server = lent(pools, pool, Waiter(tenant))
    assert not tenant.idle
    pool.drop(server)
    assert tenant.idle
    network.hang_ups()
    assert pool.unused
