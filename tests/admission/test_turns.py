"""Rounds, standings, and the fairness of a queue over simulated servers, against a reference that looks at everybody."""

from __future__ import annotations

import heapq
import random
import sys
from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.admission import charging
from proxy.admission.accounts import (
    Account,
    Accounts,
    Counter,
    Seeker,
    TierAccount,
    UserAccount,
    give_all,
)
from proxy.admission.queue import FairQueue
from proxy.admission.turns import MAX_DEBT, Place, Rota, Turns, expected
from proxy.model import ClientOptions, Directory, Limits, Tenant, Tier, User
from proxy.registry.memory import Registry

USER = UserAccount(User("app"))


def account(name: str, weight: int = 1, cap: int = 0, tier: TierAccount | None = None) -> Account:
    tier = tier or TierAccount(Tier(f"weight {weight}", weight=weight))
    return Account(Tenant(name, tier.tier.name, "shared"), tier, Limits(max_connections=cap))


# --- turns ------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "first", "remove", "move", "last"]), st.integers(0, 30)),
        max_size=80,
    )
)
def test_turns_are_a_list_sorted_by_rounds(script: list[tuple[str, int]]) -> None:
    turns = Turns()
    reference: list[Place] = []

    def put(place: Place, number: int) -> None:
        at = sum(other.round <= number for other in reference)
        reference.insert(at, place)

    for what, number in script:
        if what == "add":
            place = Place()
            put(place, number)
            turns.add(place, number)
        elif what == "first" and reference:
            assert turns.first() is reference[0]
            turns.remove(reference.pop(0))
        elif reference:
            place = reference[number % len(reference)]
            if what == "remove":
                turns.remove(place)
                reference.remove(place)
                assert place.turns is None
            elif what == "move" and place.round != number:
                reference.remove(place)
                put(place, number)
                turns.move(place, number)
            elif what == "last":
                reference.remove(place)
                put(place, place.round)
                turns.put_last(place)
        assert list(turns) == reference
        assert len(turns) == len(reference)
        assert turns.first() is (reference[0] if reference else None)


def test_one_of_a_round_may_be_put_before_the_others() -> None:
    turns = Turns()
    one, two = Place(), Place()
    turns.add(one, 3)
    turns.add(two, 3, first=True)
    assert list(turns) == [two, one]


# --- standings --------------------------------------------------------------------------------------


def test_who_wanted_nothing_has_no_credit() -> None:
    rota = Rota()
    idle, busy = rota.standing("idle"), rota.standing("busy")
    busy.charge(1.0, 1)
    rota.serve(busy)
    idle.begin()
    assert idle.round == busy.round == 1000


def test_a_debt_is_bounded_and_forgotten_while_nobody_waits() -> None:
    rota = Rota()
    standing = rota.standing("long")
    standing.charge(3600.0, 1)
    assert standing.due == rota.now + MAX_DEBT
    rota.waiting = 1
    rota.rest()
    assert rota.standing("long") is standing
    rota.waiting = 0
    rota.rest()
    assert rota.standing("long").due == rota.now


def test_what_was_used_of_a_tiers_or_a_users_cap_is_forgotten_while_nobody_waits_for_it() -> None:
    registry = Registry(Directory({}, {}, {"standard": Tier("standard")}, {}), ClientOptions())
    accounts = Accounts(registry)
    one, user = accounts.account(Tenant("one", "standard", "shared")), accounts.user(User("app"))
    for counter in (one.tier.servers, user.servers):
        assert counter.rota is not None
        counter.rota.standing(one).charge(1.0, 1)
    seeker = Seeker()
    one.tier.servers.when_free(seeker)
    charging.rest(accounts)
    assert [int(c.rota.standing(one).due) for c in (one.tier.servers, user.servers) if c.rota] == [1000, 0]
    one.tier.servers.forget(seeker)
    charging.rest(accounts)
    assert one.tier.servers.rota is not None
    assert one.tier.servers.rota.standing(one).due == 0.0


def test_a_weight_makes_a_second_shorter() -> None:
    rota = Rota()
    one, eight = rota.standing(1), rota.standing(8)
    one.charge(0.4, 1)
    eight.charge(0.4, 8)
    assert (one.round, eight.round) == (400, 50)


def test_what_is_expected_follows_what_was() -> None:
    assert expected(0.0, 0.2) == 0.2
    assert expected(0.2, 0.4) == pytest.approx(0.25)
    assert expected(0.0, 0.0) > 0.0


def test_who_waits_moves_with_its_debt() -> None:
    a, b = account("a"), account("b")
    queue = FairQueue(lambda: None)
    queue.push(a, USER, "a0")
    queue.push(b, USER, "b0")
    charging.correct(a, queue.rota, (), 0.5)
    assert queue.take()[0] == "b0"  # type: ignore[index]
    queue.push(b, USER, "b1")
    charging.correct(b, queue.rota, (), 0.4)
    charging.correct(a, queue.rota, (), -0.3)
    assert [queue.take()[0] for _ in range(2)] == ["a0", "b1"]  # type: ignore[index]


def test_of_one_tenants_places_who_was_served_last_is_behind_the_others() -> None:
    """Two pools of a tenant that wait for one more connection: the one with many waiters is never without any, and is not
    to be the first of its round for ever."""
    standing, turns, places = Rota().standing("a"), Turns(), [Place(), Place(), Place()]
    for place in places:
        standing.places[place] = None
        turns.add(place, standing.round)
    found = []
    for _ in range(7):
        first = turns.first()
        found.append(places.index(first))
        standing.served(first)
        standing.charge(0.003, 1)
    assert found == [0, 1, 2, 0, 1, 2, 0]


def test_what_was_expected_is_corrected_in_the_end() -> None:
    a = account("a", weight=2)
    rota = Rota()
    a.expected = 0.1
    charged = charging.begin(a, rota, ())
    assert rota.standing(a).due == pytest.approx(50)
    charging.end(a, rota, (), charged, 0.02)
    assert rota.standing(a).due == pytest.approx(10)
    assert a.expected == pytest.approx(0.08)


# --- a simulated pool -------------------------------------------------------------------------------


@dataclass
class Load:
    account: Account
    clients: int
    seconds: float
    pause: float = 0.0
    used: float = 0.0
    longest_wait: float = 0.0


@dataclass
class Sim:
    """Connections of a pool, and clients that ask again when they have been served, on a clock of its own."""

    connections: int
    loads: list[Load]
    rng: random.Random = field(default_factory=lambda: random.Random(7))

    def run(self, until: float, user: UserAccount = USER) -> None:
        queue = FairQueue(lambda: None)
        events: list[tuple[float, int, str, tuple]] = []
        number = 0

        def later(when: float, what: str, *fields: object) -> None:
            nonlocal number
            number += 1
            heapq.heappush(events, (when, number, what, fields))

        for load in self.loads:
            for _ in range(load.clients):
                later(self.rng.random() * 0.01, "ask", load)
        free = self.connections
        running: dict[int, list] = {}
        while events and events[0][0] < until:
            now, _, what, fields = heapq.heappop(events)
            if what == "ask":
                queue.push(fields[0].account, user, (fields[0], now))
            else:
                load, run = fields
                lent_at, charged, permits = running.pop(run)
                load.used += now - lent_at
                charging.end(load.account, queue.rota, permits, charged, now - lent_at)
                give_all(permits)
                free += 1
                later(now + load.pause, "ask", load)
            while free and (taken := queue.take()) is not None:
                (load, asked), permits = taken
                free -= 1
                load.longest_wait = max(load.longest_wait, now - asked)
                number += 1
                running[number] = [now, charging.begin(load.account, queue.rota, permits), permits]
                later(now + load.seconds * self.rng.uniform(0.5, 1.5), "done", load, number)


def jain(values: list[float]) -> float:
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))


def test_a_hundred_tenants_with_very_unequal_demand_have_equal_shares() -> None:
    rng = random.Random(1)
    loads = [
        Load(account(f"t{n}"), rng.choice([2, 5, 50, 200]), rng.choice([0.002, 0.02, 0.05, 0.2]))
        for n in range(100)
    ]
    Sim(20, loads).run(30.0)
    assert jain([load.used for load in loads]) >= 0.98


def test_shares_are_as_the_weights() -> None:
    weights = {"enterprise": 8, "vip": 4, "standard": 2, "free": 1}
    loads = [
        Load(account(name, weight), 60, seconds)
        for (name, weight), seconds in zip(weights.items(), (0.05, 0.01, 0.2, 0.02), strict=True)
    ]
    Sim(20, loads).run(20.0)
    total = sum(load.used for load in loads)
    for load, weight in zip(loads, weights.values(), strict=True):
        assert load.used / total == pytest.approx(weight / 15, rel=0.05)


def test_a_quiet_tenant_waits_for_no_more_than_one_to_come_back() -> None:
    noisy, quiet = Load(account("noisy"), 300, 0.02), Load(account("quiet"), 1, 0.002, pause=0.01)
    Sim(20, [noisy, quiet]).run(20.0)
    assert quiet.longest_wait < 0.02
    assert noisy.used > 0.98 * (20 * 20.0 - quiet.used)


@pytest.mark.parametrize("shared", ["tier", "user"])
def test_shares_are_equal_at_a_cap_that_tenants_share(shared: str) -> None:
    """The pool has connections to spare; the permits of the tier or of the user are what is scarce."""
    tier = TierAccount(Tier("standard", caps=Limits(max_connections=4 if shared == "tier" else 0)))
    user = UserAccount(User("app", limits=Limits(max_connections=4 if shared == "user" else 0)))
    loads = [
        Load(account(f"t{n}", tier=tier), clients, seconds)
        for n, (clients, seconds) in enumerate([(100, 0.05), (6, 0.005), (20, 0.02), (40, 0.001)])
    ]
    Sim(20, loads).run(20.0, user)
    assert jain([load.used for load in loads]) >= 0.98


# --- against a reference ----------------------------------------------------------------------------


@settings(deadline=None)
@given(st.data())
def test_nobody_is_passed_over_beyond_its_deficit(data: st.DataObject) -> None:
    """Any order of asking, serving, ending and leaving: whoever is served is among those owed most of all who could be,
    to within a round; nobody is lost, and no cap is exceeded."""
    tier = TierAccount(Tier("standard", caps=Limits(max_connections=data.draw(st.integers(0, 3)))))
    accounts = [
        account("a", 1, data.draw(st.integers(0, 2))),
        account("b", 4, tier=tier),
        account("c", 2, tier=tier),
        account("d", 1),
    ]
    users = [USER, UserAccount(User("batch", limits=Limits(max_connections=data.draw(st.integers(0, 2)))))]
    queue = FairQueue(lambda: None)
    waiting: dict[Account, deque[tuple[UserAccount, int]]] = {each: deque() for each in accounts}
    running: list[tuple[Account, float, tuple[Counter, ...]]] = []
    for number in range(data.draw(st.integers(0, 60))):
        what = data.draw(st.sampled_from(["ask", "ask", "serve", "serve", "end", "leave"]))
        if what == "ask":
            who, user = data.draw(st.sampled_from(accounts)), data.draw(st.sampled_from(users))
            queue.push(who, user, number)
            waiting[who].append((user, number))
        elif what == "serve":
            able = {
                each: [n for u, n in waiting[each] if not any(c.full for c in each.server_counters(u))]
                for each in accounts
            }
            dues = {each: queue.rota.standing(each).due for each in accounts if able[each]}
            taken = queue.take()
            if taken is None:
                assert not dues
                continue
            waiter, permits = taken
            who = next(each for each in accounts if any(n == waiter for _, n in waiting[each]))
            assert waiter == able[who][0], "first in, first out among those of a tenant that may be served"
            assert int(dues[who]) <= min(map(int, dues.values())), "it is the turn of who is owed most"
            waiting[who] = deque((u, n) for u, n in waiting[who] if n != waiter)
            running.append((who, charging.begin(who, queue.rota, permits), permits))
        elif what == "end" and running:
            who, charged, permits = running.pop(data.draw(st.integers(0, len(running) - 1)))
            charging.end(who, queue.rota, permits, charged, data.draw(st.floats(0.0, 5.0)))
            give_all(permits)
        elif what == "leave":
            leavers = [(each, user, n) for each in accounts for user, n in waiting[each]]
            if leavers:
                who, user, n = data.draw(st.sampled_from(leavers))
                queue.remove(who, user, n)
                waiting[who].remove((user, n))
        everyone = [n for line in waiting.values() for _, n in line]
        assert sorted(queue) == sorted(everyone)
        assert queue.rota.waiting == queue.rota.crowd.waiting == len(queue) == len(everyone)
        for counter in [c for each in accounts for user in users for c in each.server_counters(user)]:
            assert not counter.limit or counter.used <= counter.limit
        assert all(queue.rota.standing(each).due <= queue.rota.now + MAX_DEBT for each in accounts)
    for *_, permits in running:
        give_all(permits)
    for each in accounts:
        for user, n in waiting[each]:
            queue.remove(each, user, n)
    assert not any(queue.rota.standing(each).places for each in accounts)
    assert not any(c.waited_for for each in accounts for user in users for c in each.server_counters(user))


def test_a_decision_costs_the_same_however_many_tenants_wait() -> None:
    """Counted in calls, as seconds are another's affair."""
    tier, calls = TierAccount(Tier("standard")), {}
    for tenants in (100, 10_000):
        queue = FairQueue(lambda: None)
        for n in range(tenants):
            each = account(str(n), tier=tier)
            charging.correct(each, queue.rota, (), (n % 100) / 100)
            for waiter in range(3):
                queue.push(each, USER, waiter)
        counted = 0

        def count(*_: object) -> None:
            nonlocal counted
            counted += 1

        sys.setprofile(count)
        try:
            for _ in range(90):
                assert queue.take() is not None
                queue.grantable(20)
        finally:
            sys.setprofile(None)
        calls[tenants] = counted
    assert calls[10_000] < 1.2 * calls[100] + 20  # compiled, hardly any are seen


def test_nor_however_many_users_of_one_tenant() -> None:
    calls = {}
    for many in (100, 10_000):
        queue = FairQueue(lambda: None)
        tenant = account("one")
        users = [UserAccount(User(str(n))) for n in range(many)]
        for number in range(3 * many):
            queue.push(tenant, users[number % many], number)
        counted = 0

        def count(*_: object) -> None:
            nonlocal counted
            counted += 1

        sys.setprofile(count)
        try:
            taken = [found[0] for _ in range(90) if (found := queue.take()) is not None]
        finally:
            sys.setprofile(None)
        assert taken == list(range(90))
        calls[many] = counted
    assert calls[10_000] < 1.2 * calls[100] + 20  # compiled, hardly any are seen
