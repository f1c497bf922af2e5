from __future__ import annotations

from collections.abc import Callable

from proxy.admission.accounts import Account, Counter, give_all, take_all
from proxy.admission.lease import Leases
from proxy.admission.ledger import Order
from tests.admission.calls import Call
from tests.admission.fleet import Fleet, SimWorker


class Pool:
    """Connections kept in reserve: each holds a permit of the counter."""

    def __init__(self, worker: SimWorker, idle: int) -> None:
        self.counter = worker.counters["servers"]
        self.idle = idle
        self.counter.reserve = self

    def demand(self) -> dict[Account, int]:
        return {}

    def spare(self) -> int:
        return self.idle

    def surrender(self, count: int) -> None:
        for _ in range(min(count, self.idle)):
            self.idle -= 1
            self.counter.give()


def with_reserves(limit: int, *idle: int) -> tuple[Fleet, list[SimWorker], list[Pool]]:
    """A last worker has none."""
    fleet = Fleet(limit, len(idle) + 1)
    workers = list(fleet.workers.values())
    pools = []
    for worker, count in zip(workers, idle, strict=False):
        for _ in range(count):
            worker.want("servers")
        fleet.rest()
        pools.append(Pool(worker, count))
    return fleet, workers, pools


def test_only_as_much_is_surrendered_as_is_wanted_and_by_those_that_keep_most() -> None:
    fleet, workers, pools = with_reserves(12, 2, 7, 3)
    for count in range(1, 4):
        workers[-1].want("servers")
        fleet.rest()
        assert workers[-1].counters["servers"].used == count
    assert [pool.idle for pool in pools] == [2, 4, 3]


def test_the_asker_gives_up_its_own_reserve_last_of_equals() -> None:
    """Another pool of the same worker may have what this one wants."""
    fleet, workers, pools = with_reserves(3, 3)
    workers[0].want("servers")
    fleet.rest()
    assert pools[0].idle == 2
    assert workers[0].counters["servers"].used == 3


def test_two_that_hold_what_the_other_needs_do_not_exchange_it_for_ever() -> None:
    """Each worker has somebody who needs a permit of both counters; one of each is at the wrong place."""
    fleet = Fleet(1, 2)
    one, two = fleet.workers.values()
    one.want("clients")
    two.want("servers")
    fleet.rest()
    one.counters["clients"].give()
    two.counters["servers"].give()
    done: list[int] = []

    def attempt(worker: SimWorker) -> Callable[[], None]:
        counters = tuple(worker.counters.values())
        if worker is two:
            counters = counters[::-1]

        def retry() -> None:
            if worker.number in done:
                return
            full = take_all(counters)
            if full is None:
                done.append(worker.number)
            else:
                full.when_free(seeker)

        seeker = Call(retry)
        return retry

    for worker in (one, two):
        attempt(worker)()
    fleet.rest()
    assert len(done) == 1
    first = fleet.workers[done[0]]
    give_all(tuple(first.counters.values()))
    fleet.rest()
    assert sorted(done) == [1, 2]
    assert fleet.now < 10


def leases() -> tuple[Leases, list[float]]:
    timers: list[float] = []
    return Leases(timers.append), timers


def test_nothing_is_said_of_counters_that_nobody_uses() -> None:
    side, timers = leases()
    counters = [Counter(f"c{n}", n, lender=side) for n in range(100)]
    for counter in counters:
        counter.limit = 7
    assert timers == []
    assert side.settle(0.0) == []


def test_asks_of_one_turn_are_said_together_and_once() -> None:
    side, timers = leases()
    counters = [Counter(f"c{n}", 5, lender=side) for n in range(3)]
    for counter in counters:
        counter.when_free(Call())
    assert timers == [0.0]
    assert [(told.name, told.wants) for told in side.settle(0.0)] == [("c0", 1), ("c1", 1), ("c2", 1)]
    counters[0].when_free(Call())
    assert side.settle(0.0) == []


class _Several(Call):
    count = 3

    def wants(self) -> int:
        return self.count


def test_who_is_first_and_wants_several_asks_for_them_at_once() -> None:
    side, _ = leases()
    counter = Counter("c", 50, lender=side)
    first = _Several()
    counter.when_free(first)
    counter.when_free(_Several())  # what the others would take is not asked for before it is their turn
    assert [told.wants for told in side.settle(0.0)] == [4]
    for count, wants in ((5, []), (8, [9]), (9, [])):
        first.count = count
        counter.when_free(first)
        assert [told.wants for told in side.settle(0.0)] == wants, "asked again where it is more by far"


def test_what_came_for_one_that_wanted_several_goes_back_when_it_does_not_need_them() -> None:
    side, _ = leases()
    counter = Counter("c", 50, lender=side)
    counter.when_free(_Several(counter.take))
    side.settle(0.0)
    side.obey([Order(1, "c", granted=3, sought=True)], 0.0)
    assert (counter.used, counter.allowance) == (1, 3)
    side.settle(0.01)
    assert counter.allowance == 3, "for a moment it may still need them"
    assert [told.back for told in side.settle(1.0)] == [2]


def test_what_nobody_used_for_long_goes_back_and_is_forgotten() -> None:
    side, _ = leases()
    counter = Counter("c", 5, lender=side)
    counter.when_free(Call())
    side.settle(0.0)
    side.obey([Order(1, "c", granted=3)], 0.0)
    assert counter.allowance == 3
    side.settle(0.0)
    side.return_unused()
    assert side.settle(1.0) == []
    side.return_unused()
    assert [told.back for told in side.settle(2.0)] == [3]
    assert counter.allowance == 0
    side.return_unused()
    assert side._leases == {}
    side.obey([Order(1, "c", granted=2)], 3.0)  # asked for before it was forgotten
    assert [(told.name, told.back) for told in side.settle(3.0)] == [("c", 2)]
    assert counter.allowance == 0


def test_a_limit_that_ends_frees_those_who_wait_and_hope() -> None:
    fleet = Fleet(1, 2)
    one, two = fleet.workers.values()
    one.want("clients")
    fleet.rest()
    two.want("clients")
    hoping = two.hope("clients")
    for worker in (one, two):
        worker.counters["clients"].limit = 0
    fleet.rest()
    assert hoping.answer is True
    assert two.counters["clients"].used == 2
    assert fleet.ledger.names() == []
