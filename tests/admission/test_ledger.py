from __future__ import annotations

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.admission.apportion import Wish
from proxy.admission.ledger import Ledger, Order
from tests.admission.fleet import NAMES, Fleet, SimWorker
from tests.examples import examples


class Sharing(RuleBasedStateMachine):
    """Workers take and give at random while messages are under way for as long as they like."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet(3, 3)
        self.most = dict.fromkeys(NAMES, 3)  # the highest limit that may still be in use

    def worker(self, choice: int) -> SimWorker:
        workers = list(self.fleet.workers.values())
        return workers[choice % len(workers)]

    picks = st.integers(0, 7)
    names = st.sampled_from(NAMES)

    @rule(who=picks, name=names)
    def want(self, who: int, name: str) -> None:
        self.worker(who).want(name)

    @rule(who=picks, name=names, gone=st.booleans())
    def hope(self, who: int, name: str, gone: bool) -> None:
        hoping = self.worker(who).hope(name)
        if hoping.answer is None:
            hoping.gone = gone

    @rule(who=picks, name=names)
    def give(self, who: int, name: str) -> None:
        counter = self.worker(who).counters[name]
        if counter.used:
            counter.give()

    @rule(who=picks, name=names)
    def leave(self, who: int, name: str) -> None:
        worker = self.worker(who)
        worker.waiting[name] = max(0, worker.waiting[name] - 1)

    @rule(who=picks, count=st.integers(1, 3))
    def ledger_hears(self, who: int, count: int) -> None:
        worker = self.worker(who)
        worker.run_timers()
        for _ in range(min(count, len(worker.to_ledger))):
            self.fleet.hear(worker)

    @rule(who=picks, count=st.integers(1, 3))
    def worker_hears(self, who: int, count: int) -> None:
        worker = self.worker(who)
        for _ in range(min(count, len(worker.to_worker))):
            worker.hear()

    @rule(seconds=st.sampled_from([0.01, 0.1, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.fleet.now += seconds
        for worker in self.fleet.workers.values():
            worker.run_timers()

    @rule(who=picks)
    def look_for_unused(self, who: int) -> None:
        self.worker(who).leases.return_unused()

    # Of one that dies before it has reported to a new ledger nobody knows what it held.
    @precondition(lambda self: len(self.fleet.workers) > 1 and not self.fleet.unreported)
    @rule(who=picks)
    def kill(self, who: int) -> None:
        self.fleet.kill(self.worker(who))

    @precondition(lambda self: len(self.fleet.workers) < 6)
    @rule()
    def start(self) -> None:
        self.fleet.start()
        for name in NAMES:
            self.most[name] = max(self.most[name], self.fleet.limit)

    @precondition(lambda self: self.fleet.ghosts)
    @rule()
    def bury(self) -> None:
        self.fleet.bury(next(iter(self.fleet.ghosts)))

    @precondition(lambda self: not self.fleet.ghosts)
    @rule()
    def replace_ledger(self) -> None:
        self.fleet.replace_ledger()

    @rule(limit=st.integers(0, 6), name=names)
    def change_limit(self, limit: int, name: str) -> None:
        limit = limit or 3
        self.fleet.rest()
        self.most[name] = max(limit, self.fleet.allowed(name))
        for worker in self.fleet.workers.values():
            worker.counters[name].limit = limit
        self.fleet.limit = 6  # a worker that starts later may understand it otherwise

    @rule()
    def look(self) -> None:
        self.fleet.give_orders(self.fleet.ledger.look())

    @rule()
    def rest(self) -> None:
        self.fleet.rest(check=self.never_above)
        for name in NAMES:
            workers = self.fleet.workers.values()
            limit = min(w.counters[name].limit for w in workers)
            if any(w.waiting[name] for w in workers):
                assert self.fleet.used(name) >= limit or self.fleet.ghosts, (name, "a permit lies idle")
            for worker in workers:
                assert all(h.answer is not None or h.gone for h in worker.hopes[name])
            if self.fleet.allowed(name) <= limit:
                self.most[name] = max(w.counters[name].limit for w in workers)

    @invariant()
    def never_above(self) -> None:
        for name in NAMES:
            assert self.fleet.used(name) <= self.most[name]
            assert self.fleet.allowed(name) <= self.most[name]

    def teardown(self) -> None:
        fleet = self.fleet
        for number in list(fleet.ghosts):
            fleet.bury(number)
        for worker in fleet.workers.values():
            worker.waiting = dict.fromkeys(NAMES, 0)
            worker.counters["clients"].limit = worker.counters["servers"].limit = 3
        fleet.rest()
        for _ in range(3):
            for worker in fleet.workers.values():
                for counter in worker.counters.values():
                    while counter.used:
                        counter.give()
                worker.leases.return_unused()
            fleet.rest()
        assert all(
            not c.used and not c.allowance for w in fleet.workers.values() for c in w.counters.values()
        )
        assert fleet.ledger.names() == []


Sharing.TestCase.settings = settings(max_examples=examples(80), stateful_step_count=60, deadline=None)
TestSharing = Sharing.TestCase


# --- turns and shares -----------------------------------------------------------------------------------


def contending(limit: int, workers: int, waiters: int) -> tuple[Fleet, list[int]]:
    """Every worker has so many who wait; the list tells whose waiter was served."""
    fleet = Fleet(limit, workers)
    served: list[int] = []
    for worker in fleet.workers.values():
        worker.on_served = lambda _, number=worker.number: served.append(number)
        for _ in range(waiters):
            worker.want("servers")
    fleet.rest()
    return fleet, served


@pytest.mark.parametrize("cap", [1, 3, 5])
def test_permits_go_round_where_there_are_fewer_than_workers(cap: int) -> None:
    fleet, served = contending(cap, 8, 20)
    for _ in range(100):
        for worker in list(fleet.workers.values()):
            counter = worker.counters["servers"]
            if counter.used:
                counter.give()
                fleet.rest(check=lambda: None if fleet.used("servers") <= cap else pytest.fail("too many"))
        assert fleet.used("servers") == cap
        if len(served) > 80:
            break
    for start in range(80 - 8 - cap):
        assert set(served[start : start + 8 + cap]) == set(range(1, 9)), served


@pytest.mark.parametrize("cap", [2, 4])
def test_one_that_keeps_its_permit_for_ever_makes_nobody_wait_for_ever(cap: int) -> None:
    """Neither the clients of the other workers nor those of its own."""
    fleet, served = contending(cap, 4, 30)
    for turn in range(60):
        for worker in fleet.workers.values():
            counter = worker.counters["servers"]
            if counter.used > (1 if worker.number == 1 else 0):
                counter.give()
                fleet.rest()
        if turn % 5 == 0:
            fleet.give_orders(fleet.ledger.look())
            fleet.rest()
    counts = {number: served.count(number) for number in fleet.workers}
    assert min(counts.values()) >= 4, counts


def test_equal_shares_under_contention_and_then_no_messages() -> None:
    fleet, _ = contending(16, 4, 100)
    for _ in range(30):
        for worker in fleet.workers.values():
            if worker.counters["servers"].used:
                worker.counters["servers"].give()
            fleet.rest()
    assert [w.counters["servers"].used for w in fleet.workers.values()] == [4, 4, 4, 4]
    before = fleet.messages
    for worker in itertools.islice(itertools.cycle(fleet.workers.values()), 100):
        worker.counters["servers"].give()
        fleet.rest()
    assert fleet.messages == before


def test_plenty_comes_in_chunks_and_use_is_silent() -> None:
    fleet = Fleet(1000, 4)
    for worker in fleet.workers.values():
        for _ in range(60):
            worker.want("servers")
            fleet.rest()
        assert worker.counters["servers"].used == 60
    assert fleet.messages <= 12
    before = fleet.messages
    for worker in fleet.workers.values():
        for _ in range(100):
            worker.counters["servers"].give()
            worker.want("servers")
            fleet.rest()
    assert fleet.messages == before


def test_what_is_idle_elsewhere_is_fetched() -> None:
    fleet = Fleet(10, 2)
    one, two = fleet.workers.values()
    for _ in range(10):
        one.want("servers")
    fleet.rest()
    for _ in range(10):
        one.counters["servers"].give()
    for count in range(1, 11):
        two.want("servers")
        fleet.rest()
        assert two.counters["servers"].used == count


def test_a_hope_is_fulfilled_from_elsewhere_or_refused() -> None:
    fleet = Fleet(4, 3)
    one, two, three = fleet.workers.values()
    held = [one.hope("clients") for _ in range(3)]
    fleet.rest()
    assert [h.answer for h in held] == [True] * 3
    last, late = two.hope("clients"), three.hope("clients")
    fleet.rest()
    assert sorted([last.answer, late.answer], key=bool) == [False, True]
    one.counters["clients"].give()
    again = three.hope("clients")
    fleet.rest()
    assert again.answer is True
    assert fleet.used("clients") == 4


def test_the_permit_of_a_login_that_left_is_free() -> None:
    fleet = Fleet(1, 2)
    one, two = fleet.workers.values()
    gone = one.hope("clients")
    gone.gone = True
    fleet.rest()
    assert two.hope("clients").answer is None
    fleet.rest()
    assert fleet.used("clients") == 1
    assert two.counters["clients"].used == 1


def test_backed_permits_of_the_dead_come_back_when_they_are_over() -> None:
    fleet = Fleet(3, 2)
    one, two = fleet.workers.values()
    for name in NAMES:
        for _ in range(3):
            one.want(name)
    fleet.rest()
    fleet.kill(one)
    for name in NAMES:
        for _ in range(3):
            two.want(name)
    fleet.rest()
    assert two.counters["clients"].used == 3
    assert two.counters["servers"].used == 0
    fleet.give_orders(fleet.ledger.released(one.number, ["servers", "unheard of"]))
    fleet.rest()
    assert two.counters["servers"].used == 1
    fleet.bury(one.number)
    fleet.rest()
    assert two.counters["servers"].used == 3
    assert fleet.ledger.released(one.number, ["servers"]) == []


def test_a_lowered_limit_is_reached_by_what_comes_back() -> None:
    fleet, _ = contending(6, 2, 20)
    for worker in fleet.workers.values():
        worker.counters["servers"].limit = 2
    fleet.rest()
    assert fleet.used("servers") == 6
    for worker in fleet.workers.values():
        for _ in range(2):
            worker.counters["servers"].give()
            fleet.rest()
    assert fleet.used("servers") == 2
    for worker in fleet.workers.values():
        worker.counters["servers"].limit = 8
    fleet.rest()
    assert fleet.used("servers") == 8


def test_the_limits_of_one_that_had_none_are_counted_from_then_on() -> None:
    fleet = Fleet(2, 2)
    one, two = fleet.workers.values()
    for worker in (one, two):
        worker.counters["servers"].limit = 0
        for _ in range(3):
            worker.want("servers")
    fleet.rest()
    for worker in (one, two):
        worker.counters["servers"].limit = 5
        worker.want("servers")
    fleet.rest()
    held = fleet.used("servers")
    assert sum(fleet.ledger.held("servers").values()) == held >= 6
    while held > 5:
        held -= 1
        one.counters["servers"].give()
        fleet.rest()
        assert fleet.used("servers") == held, "more than the limit are out: none is granted"
    one.counters["servers"].give()
    fleet.rest()
    assert fleet.used("servers") == 5
    assert two.waiting["servers"] == 0


def test_a_worker_that_gives_back_more_than_it_has_is_refused() -> None:
    ledger = Ledger()
    ledger.join(1)
    with pytest.raises(AssertionError):
        ledger.lease(1, "c", limit=2, back=1)


# --- whose wishes workers have ----------------------------------------------------------------------------


def told(ledger: Ledger, worker: int, wishes: list[Wish] | None, **more: int) -> dict[int, Order]:
    orders = ledger.lease(worker, "servers", limit=6, wishes=wishes, **more)
    return {order.worker: order for order in orders}


def test_who_has_more_than_its_tenants_are_due_owes_it_to_who_has_less() -> None:
    ledger = Ledger()
    for worker in (1, 2):
        ledger.join(worker)
    told(ledger, 1, [Wish("a", 1, 20, 0)], wants=6)
    assert ledger.held("servers") == {1: 6}
    found = told(ledger, 2, [Wish("b", 2, 20, 0)], wants=9)
    assert found[1].owed == 4
    for _ in range(4):
        told(ledger, 1, None, back=1, wants=20)
        told(ledger, 2, None, wants=9)
    assert ledger.held("servers") == {1: 2, 2: 4}
    assert told(ledger, 1, None, wants=20).keys() == set()


def test_what_is_guaranteed_is_owed_at_once() -> None:
    ledger = Ledger()
    for worker in (1, 2):
        ledger.join(worker)
    told(ledger, 1, [Wish("a", 9, 20, 0)], wants=6)
    found = told(ledger, 2, [Wish("vip", 1, 3, 3)], wants=3)
    assert found[1].owed == 3


def test_part_of_a_permit_goes_round() -> None:
    ledger = Ledger()
    for worker in (1, 2):
        ledger.join(worker)
    told(ledger, 1, [Wish("a", 3, 20, 0)], wants=4)
    told(ledger, 2, [Wish("b", 1, 20, 0)], wants=2)
    assert ledger.held("servers") == {1: 4, 2: 2}
    for worker in (1, 2):
        told(ledger, worker, None, wants=9)
    had = 0
    for _ in range(24):
        for order in ledger.look():
            for _ in range(order.owed):
                told(ledger, order.worker, None, back=1, wants=9)
        for worker in (1, 2):
            told(ledger, worker, None, wants=9, served=1)
        had += ledger.held("servers")[1]
    assert had / 24 == pytest.approx(4.5, abs=0.1)


def test_parts_are_told_when_they_are_new_and_when_they_are_over() -> None:
    ledger = Ledger()
    for worker in (1, 2):
        ledger.join(worker)
    told(ledger, 1, [Wish("a", 1, 9, 0), Wish("b", 1, 9, 0)], wants=4)
    told(ledger, 2, [Wish("a", 1, 9, 0)], wants=2)
    told(ledger, 1, None, wants=9)
    ((worker, name, parts),) = ledger.parts()
    assert (worker, name) == (1, "servers")
    assert parts == {"a": pytest.approx(1 / 3, abs=0.01)}
    assert ledger.parts() == []
    told(ledger, 2, [], back=2)
    assert ledger.parts() == [(1, "servers", {})]
    ledger.died(1)
    assert ledger.parts() == []
