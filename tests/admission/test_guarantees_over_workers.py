"""What is guaranteed is shared by the workers: in all it is never more, and whoever needs it gets it from where it is."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from proxy.admission.guarantees import KEEP, Guarantee, Kept
from tests.admission.fleet import Fleet, SimWorker
from tests.examples import examples

N = 4


class Waiting:
    """Those who wait at one worker: each that is entitled has its connection at once."""

    def __init__(self, worker: SimWorker, amount: int = N) -> None:
        self.guarantee = Guarantee(amount, "cluster guaranteed to tenant vip", worker.leases)
        self.kept = Kept()
        self.worker = worker
        self.waiting = 0

    def want(self, count: int = 1) -> None:
        self.kept.ask(self.guarantee, self.worker.fleet.now)
        self.waiting += count
        self.guarantee.join(self)
        self.update()

    def update(self) -> None:
        while self.waiting and self.guarantee.free:
            self.waiting -= 1
            self.guarantee.use(1)
        if not self.waiting:
            self.guarantee.leave(self)

    def stop(self) -> None:
        self.waiting = 0
        self.guarantee.leave(self)

    def end(self, count: int = 1) -> None:
        self.guarantee.use(-count)
        self.update()

    @property
    def used(self) -> int:
        return self.guarantee.used


def fleet_of(workers: int) -> tuple[Fleet, list[Waiting]]:
    fleet = Fleet(0, workers)
    return fleet, [Waiting(worker) for worker in fleet.workers.values()]


def test_one_worker_has_all_while_no_other_wants_any() -> None:
    fleet, (one, two) = fleet_of(2)
    one.want(6)
    fleet.rest()
    assert (one.used, one.waiting) == (4, 2)
    one.stop()
    one.end(4)
    assert one.kept.count == 4, "they are kept free for it"
    assert two.kept.count == 0


def test_what_others_need_comes_at_once_although_all_is_in_use() -> None:
    fleet, (one, two) = fleet_of(2)
    one.want(9)
    fleet.rest()
    two.want()
    fleet.rest()
    assert two.used == 1
    assert (one.used, one.guarantee.permits.allowance) == (4, 3), "the fourth is not guaranteed any more"
    one.end()
    assert one.used == 3


def test_what_was_needed_of_late_is_not_given_for_more_than_a_share() -> None:
    fleet, (one, two) = fleet_of(2)
    one.want(2)
    two.want(2)
    fleet.rest()
    one.end(2)
    two.want(3)
    fleet.rest()
    assert (two.used, two.waiting) == (2, 3)
    assert one.kept.count == 2
    one.want(2)
    assert one.used == 2, "without asking anybody"


def test_what_nobody_asked_for_of_late_goes_to_who_waits() -> None:
    fleet, (one, two) = fleet_of(2)
    one.want(4)
    fleet.rest()
    one.end(4)
    two.want(4)
    fleet.rest()
    assert two.used == 2
    for now in (KEEP + 0.1, 2 * KEEP + 0.2):
        fleet.now = now
        one.kept.look(now)
        fleet.rest()
    assert two.used == 4
    assert one.kept.count == 0
    two.end(4)
    fleet.now = 4 * KEEP
    two.kept.look(fleet.now)
    for _ in range(3):
        for each in (one, two):
            each.worker.leases.return_unused()
        fleet.rest()
    assert fleet.ledger.names() == []


def test_one_that_is_forgotten_and_made_anew_loses_no_permit() -> None:
    fleet, (one, two) = fleet_of(2)
    one.want()
    fleet.rest()
    one.end()
    fleet.now = KEEP + 0.1
    one.kept.look(fleet.now)
    assert not one.guarantee.in_use
    assert one.guarantee.permits.allowance
    again = Waiting(one.worker)
    again.want(9)
    two.want(9)
    fleet.rest()
    assert again.used + two.used == N


def test_a_guarantee_that_becomes_less_holds_for_all() -> None:
    fleet, waiting = fleet_of(2)
    for each in waiting:
        each.want(9)
    fleet.rest()
    assert [each.used for each in waiting] == [2, 2]
    for each in waiting:
        each.guarantee.resize(2)
    fleet.rest()
    assert [each.guarantee.permits.allowance for each in waiting] == [1, 1]
    assert [each.guarantee.free for each in waiting] == [0, 0]


class Sharing(RuleBasedStateMachine):
    """Messages take as long as they like."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet, self.waiting = fleet_of(3)

    picks = st.integers(0, 2)

    @rule(who=picks, count=st.integers(1, 3))
    def want(self, who: int, count: int) -> None:
        self.waiting[who].want(count)

    @rule(who=picks)
    def stop(self, who: int) -> None:
        self.waiting[who].stop()

    @rule(who=picks)
    def end(self, who: int) -> None:
        if self.waiting[who].used:
            self.waiting[who].end()

    @rule(who=picks)
    def lent_in_its_turn(self, who: int) -> None:
        self.waiting[who].guarantee.use(1)

    @rule(who=picks)
    def ledger_hears(self, who: int) -> None:
        worker = self.waiting[who].worker
        worker.run_timers()
        if worker.to_ledger:
            self.fleet.hear(worker)

    @rule(who=picks)
    def worker_hears(self, who: int) -> None:
        worker = self.waiting[who].worker
        if worker.to_worker:
            worker.hear()

    @rule(seconds=st.sampled_from([0.01, 1.0, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.fleet.now += seconds
        for each in self.waiting:
            each.kept.look(self.fleet.now)
            each.worker.run_timers()
            each.worker.leases.return_unused()

    @rule()
    def look(self) -> None:
        self.fleet.give_orders(self.fleet.ledger.look())

    @rule()
    def rest(self) -> None:
        self.fleet.rest(check=self.never_above)
        needed = sum(each.used + max(bool(each.waiting), each.kept.count) for each in self.waiting)
        if needed <= N:
            assert not any(each.waiting for each in self.waiting), "somebody is entitled and does not know"

    @invariant()
    def never_above(self) -> None:
        assert sum(each.guarantee.permits.allowance for each in self.waiting) <= N

    @invariant()
    def what_is_kept_is_known(self) -> None:
        for each in self.waiting:
            guarantee = each.guarantee
            assert each.kept.count == (guarantee.kept if each.kept in guarantee.keepers else 0)
            assert guarantee.permits.used <= guarantee.permits.allowance


Sharing.TestCase.settings = settings(max_examples=examples(60), stateful_step_count=50, deadline=None)
TestSharing = Sharing.TestCase
