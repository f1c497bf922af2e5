"""Several pools under shared caps, in any order of events: no cap is exceeded, every permit comes back, and whoever waits is
served in the end, for as long as the others' transactions end."""

from __future__ import annotations

from collections import Counter as Counts
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.admission.accounts import TierAccount, UserAccount
from proxy.model import Cluster, ClusterKind, Limits, PoolKey, PoolMode, ServerOptions, Tier, User
from proxy.server import cleaning, places, pool, pools, room
from proxy.server.connection import ServerConnection
from proxy.server.janitor import sweep
from proxy.server.pool import Pool
from tests.clocks import OwnClock
from tests.server.recording import Waiter, account
from tests.transports import Network, SteppedPools, endpoint

HERE = Cluster("here", ClusterKind.SHARED, (endpoint("a"),), pool_size=3, max_connections=3)
THERE = Cluster("there", ClusterKind.SHARED, (endpoint("b"),), pool_size=2)
KEYS = (("one", HERE), ("two", HERE), ("three", HERE), ("far", THERE))
LIFETIME = 1_000.0


class World(OwnClock):
    """Pools on a clock of their own. There are caps of a cluster, the process, a tier, a user and a tenant."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, process: int) -> None:
        super().__init__(monkeypatch, cleaning, places, pool, pools, room)
        self.network = Network(monkeypatch)
        options = ServerOptions(
            server_lifetime=LIFETIME, server_check_delay=0, max_server_connections=process
        )
        self.pools = SteppedPools(options)
        self.found = [
            self.pools.pool(PoolKey(cluster.name, name, "app"), cluster, PoolMode.TRANSACTION, "secret")
            for name, cluster in KEYS
        ]
        standard = TierAccount(Tier("standard", weight=2, caps=Limits(max_connections=2)))
        vip = TierAccount(Tier("vip", weight=4, caps=Limits(guaranteed_connections=1)))
        self.users = [UserAccount(User("app")), UserAccount(User("batch", limits=Limits(max_connections=2)))]
        self.accounts = [
            account("a", standard),
            account("b", standard, max_connections=1),
            account("v", vip),
            account("g", guaranteed_connections=1),
            account("x"),
        ]
        self.waiting: list[tuple[Pool, Waiter]] = []
        self.lent: list[tuple[Pool, ServerConnection]] = []

    def ask(self, where: Pool, who: int, user: int) -> None:
        waiter = Waiter(self.accounts[who], user=self.users[user])
        server = where.acquire(waiter, self.now)
        if server is not None:
            waiter.granted(server)
        self.waiting.append((where, waiter))
        self.served()

    def served(self) -> None:
        for where, waiter in list(self.waiting):
            assert waiter.error is None
            if waiter.server is not None:
                self.waiting.remove((where, waiter))
                self.lent.append((where, waiter.server))

    def end(self, which: int) -> None:
        where, server = self.lent.pop(which % len(self.lent))
        where.checkin_at(server, self.now)
        self.served()

    def go_on(self, seconds: float) -> None:
        """What the loop and the servers do meanwhile."""
        self.network.hang_ups()
        self.pools.step()
        self.now += seconds
        sweep(self.pools, self.now, thorough=seconds >= 1.0)
        self.served()

    def check(self, process: int) -> None:
        open_here = Counts(
            each.cluster.name for each in self.found for _ in range(each.size + len(each.closing))
        )
        assert open_here["here"] <= HERE.max_connections
        assert not process or sum(open_here.values()) <= process
        for each in self.found:
            assert each.size <= each.cluster.pool_size
            assert each.kept.count >= 0
            counter = self.pools.room.cluster(each.cluster.name)
            assert counter.leaving == sum(len(p.closing) for p in self.found if p.cluster is each.cluster)
        for one in self.accounts:
            assert one.servers.used <= (one.servers.limit or 99)
            assert one.tier.servers.used <= (one.tier.servers.limit or 99)
        assert self.pools.room.crowd.waiting == len(self.waiting) == sum(len(p.queue) for p in self.found)


STEPS = st.one_of(
    st.tuples(st.just("ask"), st.integers(0, 3), st.integers(0, 4), st.sampled_from([0, 0, 1])),
    st.tuples(st.just("end"), st.integers(0, 9), st.just(0), st.just(0)),
    st.tuples(st.just("leave"), st.integers(0, 9), st.just(0), st.just(0)),
    st.tuples(st.just("go on"), st.sampled_from([0, 1, 60, 200, 3_000]), st.just(0), st.just(0)),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, max_size=60), st.sampled_from([0, 1, 2, 4]))
def test_pools_that_share_caps(script: list[tuple[str, int, int, int]], process: int) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        world = World(monkeypatch, process)
        for what, n, who, user in script:
            if what == "ask":
                world.ask(world.found[n], who, user)
            elif what == "end" and world.lent:
                world.end(n)
            elif what == "leave" and world.waiting:
                where, waiter = world.waiting.pop(n % len(world.waiting))
                where.leave(waiter)
            elif what == "go on":
                world.go_on(n / 1000)
            world.check(process)
        rounds = 0
        while world.waiting or world.lent:
            rounds += 1
            assert rounds < 400, "somebody waits for ever"
            while world.lent:
                world.end(0)
            world.go_on(0.06)
            world.check(process)
        world.go_on(3.0)
        for one in world.accounts:
            assert one.idle
            assert not one.tier.servers.used
            assert not one.servers.waited_for
        assert not any(each.servers.used or each.servers.waited_for for each in world.users)
        assert world.pools.room.servers.used == sum(each.size for each in world.found)
        for each in world.found:
            assert all(guarantee.used == 0 for guarantee in each.queue.rota.guarantees.values())
            each.recycle()
        world.go_on(0.0)
        world.go_on(0.0)
        assert world.pools.room.servers.used == 0


def test_a_pool_whose_queue_is_never_empty_gives_connections_to_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By its server time each comes to its half, and stays there."""
    world = World(monkeypatch, 0)
    accounts = [account(name) for name in ("noisy", "late")]
    found = [
        world.pools.pool(
            PoolKey("full", name, "app"),
            replace(HERE, name="full", pool_size=8, max_connections=8),
            PoolMode.TRANSACTION,
            "secret",
        )
        for name in ("noisy", "late")
    ]
    lent: list[tuple[Pool, Waiter]] = []
    waiting: list[tuple[Pool, Waiter]] = []

    def ask(which: int) -> None:
        waiter = Waiter(accounts[which])
        server = found[which].acquire(waiter, world.now)
        if server is not None:
            waiter.granted(server)
        waiting.append((found[which], waiter))

    def turn() -> None:
        """Ten milliseconds, in which every transaction ends and is asked again."""
        nonlocal waiting
        world.network.hang_ups()
        world.pools.step()
        world.now += 0.01
        sweep(world.pools, world.now, thorough=False)
        lent.extend(each for each in waiting if each[1].server is not None)
        waiting = [each for each in waiting if each[1].server is None]
        for where, waiter in list(lent):
            lent.remove((where, waiter))
            assert waiter.server is not None
            where.checkin_at(waiter.server, world.now)
            ask(found.index(where))

    for _ in range(20):
        ask(0)
    for _ in range(30):
        turn()
    assert (found[0].size, found[1].size) == (8, 0)
    for _ in range(20):
        ask(1)
    for _ in range(15):
        turn()
    assert found[1].size >= 1, "it has none: that is for its turn"
    for _ in range(200):
        turn()
    assert (found[0].size, found[1].size) in ((4, 4), (5, 3), (3, 5))
    opened = len(world.network.servers)
    for _ in range(100):
        turn()
    assert len(world.network.servers) - opened < 12, "connections are not exchanged at every turn"
