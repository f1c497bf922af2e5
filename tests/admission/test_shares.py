"""The rates of a host: over all workers never more than one bucket would let through, and not less either."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.admission.apportion import Wish
from proxy.admission.gate import Gate
from proxy.admission.shares import Shares
from proxy.admission.slices import Grant, Slices, Told
from proxy.errors import RateExceeded
from proxy.model import UNLIMITED, Limits
from proxy.stats import TenantStats
from tests.admission.rated import Host, Query
from tests.examples import examples


def limits(qps: float = 100, burst: int = 20, wait: float = 0.1, **more: float) -> Limits:
    return Limits(max_qps=qps, burst=burst, rate_wait=wait, **more).over(UNLIMITED)  # type: ignore[arg-type]


def row(**more: float) -> Told:
    told = Told("tenant acme queries", 10.0, 10.0, False, 0.0, 0.0, 0, 0, False)
    return told._replace(**more)


def given_to(grants: list[Grant]) -> dict[int, int]:
    return {grant.worker: grant.granted for grant in grants if grant.granted}


# --- the shares -------------------------------------------------------------------------------------


def test_needs_go_before_likes_and_are_served_in_turn() -> None:
    shares = Shares()
    assert given_to(shares.lease(1, row(needs=1, likes=8), 0.0)) == {1: 5}, "half of what nobody needs"
    assert given_to(shares.lease(2, row(needs=4), 0.0)) == {2: 4}
    answer, *recalls = shares.lease(3, row(needs=4), 0.0)
    assert (answer.granted, answer.pending) == (1, True)
    assert [(grant.worker, grant.recall) for grant in recalls] == [(1, True), (2, True)]


def test_what_is_recalled_goes_to_who_needs_it() -> None:
    shares = Shares()
    shares.lease(1, row(needs=1, likes=20), 0.0)
    shares.lease(1, row(likes=20), 0.0)
    shares.lease(1, row(likes=20), 0.0)
    shares.lease(1, row(likes=20), 0.0)
    found = shares.lease(2, row(needs=5), 0.0)
    recalled = [grant for grant in found if grant.recall]
    assert [grant.worker for grant in recalled] == [1]
    assert given_to(shares.lease(1, row(left=4.0), 0.001)) == {2: 4}


def test_when_there_will_be_more_is_told() -> None:
    shares = Shares()
    shares.lease(1, row(spent=10.0, asks=True), 0.0)
    (answer,) = shares.lease(1, row(needs=1), 0.0)
    assert (answer.granted, answer.pending) == (0, False)
    assert answer.eta == pytest.approx(0.1)
    (other,) = shares.lease(2, row(needs=1), 0.0)
    assert other.eta == pytest.approx(0.2)
    assert other.pace == pytest.approx(0.2)
    assert shares.due(0.0) == pytest.approx(0.1)
    assert given_to(shares.look(0.1)) == {1: 1}
    assert given_to(shares.look(0.2)) == {2: 1}
    assert shares.due(0.2) is None


def test_of_many_tenants_only_those_are_served_for_whom_something_has_come() -> None:
    shares = Shares()
    for name, rate in (("slow", 1.0), ("fast", 100.0)):
        shares.lease(1, row(name=name, rate=rate, spent=10.0, needs=5), 0.0)
    assert shares.due(0.0) == pytest.approx(0.01)
    assert [(grant.name, grant.granted) for grant in shares.look(0.01)] == [("fast", 1)]
    assert shares.due(0.01) == pytest.approx(0.01)


def test_a_debt_is_everybodys() -> None:
    shares = Shares()
    shares.lease(1, row(spent=30.0, asks=True), 0.0)
    (answer,) = shares.lease(2, row(needs=1), 0.0)
    assert answer.eta == pytest.approx(2.1)


def test_what_the_dead_held_comes_back_with_time() -> None:
    shares = Shares()
    assert given_to(shares.lease(1, row(needs=10), 0.0)) == {1: 10}
    assert shares.lease(2, row(needs=2), 0.0)
    (answer,) = shares.died(1, 0.0)
    assert (answer.worker, answer.granted, answer.eta) == (2, 0, pytest.approx(0.1)), "it is told when"
    assert given_to(shares.look(0.2)) == {2: 2}


def test_workers_that_were_there_before_keep_what_they_hold_and_nothing_comes_of_it() -> None:
    host = Host(2, limits(qps=10, burst=10))
    for _ in range(3):
        host.workers[1].asks()
    host.runs(1.0)
    host.upgrades()
    for worker in host.workers.values():
        for _ in range(20):
            worker.asks()
    host.runs(0.05)
    assert 3 <= len(host.admitted) <= 10
    host.runs(30.0)
    before = len(host.admitted)
    for worker in host.workers.values():
        for _ in range(20):
            worker.asks()
    host.runs(0.05)
    assert len(host.admitted) - before in (9, 10, 11), "full again"
    assert host.most_above(10, 10) <= 1e-6


# --- workers and their gates ------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [0.0, 0.1])
def test_the_first_query_anywhere_is_let_in(wait: float) -> None:
    host = Host(4, limits(qps=0.1, burst=4, wait=wait))
    queries = [worker.asks() for worker in host.workers.values()]
    host.runs(0.1)
    assert all(isinstance(query.outcome, float) for query in queries)
    late = host.workers[1].asks()
    host.runs(0.1)
    assert isinstance(late.outcome, RateExceeded)
    assert "Retry in" in late.outcome.detail
    again = host.workers[1].asks()
    assert isinstance(again.outcome, RateExceeded), "known at once"


def test_a_single_token_finds_its_way() -> None:
    host = Host(3, limits(qps=2, burst=1, wait=0.0))
    for number in (1, 2, 3, 1, 3):
        query = host.workers[number].asks()
        host.runs(0.51)
        assert isinstance(query.outcome, float)


@pytest.mark.parametrize("busy", [1, 2, 4])
def test_at_saturation_the_whole_rate_is_used_and_fairly(busy: int) -> None:
    host = Host(4, limits(qps=200, burst=20))
    queries: dict[int, list[Query]] = {number: [] for number in range(1, busy + 1)}
    for _ in range(2500):
        for number, asked in queries.items():
            asked.append(host.workers[number].asks())
        host.runs(0.002)
    assert len(host.admitted) >= 0.95 * 200 * 5
    assert host.most_above(200, 20) <= 1e-6
    served = [sum(isinstance(query.outcome, float) for query in asked) for asked in queries.values()]
    assert min(served) >= 0.9 * max(served)


def test_under_a_steady_load_within_the_rate_nobody_waits() -> None:
    host = Host(2, limits(qps=1000, burst=1000))
    waits = []
    for step in range(4000):
        for worker in host.workers.values():
            if step % 4 == 0:
                query = worker.asks()
                if step > 500:
                    waits.append(query.outcome is None)
        host.runs(0.001)
    assert len(host.admitted) == 2000
    assert sum(waits) <= 0.02 * len(waits)


def test_the_days_quota_holds_over_the_workers() -> None:
    host = Host(3, Limits(max_queries_per_day=50).over(UNLIMITED))
    outcomes = []
    for _ in range(40):
        for worker in host.workers.values():
            outcomes.append(worker.asks())
        host.runs(0.01)
    host.runs(2.0)
    assert len(host.admitted) == 50
    assert sum(isinstance(query.outcome, RateExceeded) for query in outcomes) == 70
    host.runs(86_400.0)
    query = host.workers[1].asks()
    host.runs(0.1)
    assert isinstance(query.outcome, float)


@pytest.mark.parametrize("queries", [1, 5, 9])
def test_a_quota_is_not_used_up_as_long_as_another_worker_has_some_of_it(queries: int) -> None:
    host = Host(2, Limits(max_queries_per_day=40).over(UNLIMITED))
    one, other = host.workers.values()
    for _ in range(queries):
        one.asks()
        host.runs(0.1)
    outcomes = []
    for _ in range(42 - queries):
        outcomes.append(other.asks())
        host.runs(0.1)
    assert len(host.admitted) == 40
    assert [isinstance(query.outcome, RateExceeded) for query in outcomes[-3:]] == [False, True, True]


def test_bytes_are_everybodys() -> None:
    host = Host(2, Limits(max_bytes_per_second=1000, query_wait_timeout=60).over(UNLIMITED))
    first, second = host.workers.values()
    query = first.asks()
    host.runs(0.1)
    first.stats.bytes += 4000
    for worker in (first, second):
        worker.asks()
        host.runs(0.2)
    assert query.outcome is not None
    last = second.asks()
    host.runs(1.0)
    assert last.outcome is None
    host.runs(4.0)
    assert isinstance(last.outcome, float)


@settings(max_examples=examples(40), deadline=None)
@given(
    seed=st.integers(0, 1_000_000),
    workers=st.integers(1, 4),
    qps=st.sampled_from([1.0, 7.0, 100.0, 2000.0]),
    burst=st.sampled_from([1, 3, 50, 400]),
    delay=st.sampled_from([0.0001, 0.003, 0.03]),
)
def test_never_more_than_one_bucket_would_let_through(
    seed: int, workers: int, qps: float, burst: int, delay: float
) -> None:
    chance = random.Random(seed)
    host = Host(workers, limits(qps=qps, burst=burst, wait=chance.choice([0.0, 0.1, 1.0])), delay)
    queries = []
    for _ in range(80):
        number = chance.choice(list(host.workers))
        for _ in range(chance.choice([1, 1, 2, 20])):
            queries.append((number, host.workers[number].asks()))
        host.runs(chance.choice([0.0, 0.001, 0.01, 0.3]))
        if chance.random() < 0.03:
            host.dies(number)
            queries = [(other, query) for other, query in queries if other != number]
            host.begins(number)
        elif chance.random() < 0.02:
            host.upgrades()
    assert host.most_above(qps, max(burst, qps / 100)) <= 1e-3
    host.runs(30.0)
    assert all(query.outcome is not None for _, query in queries), "nobody waits for ever"


def test_who_no_longer_waits_needs_nothing() -> None:
    host = Host(2, limits(qps=1, burst=1, wait=0.0))
    first, second = host.workers.values()
    first.asks()
    refused = second.asks()
    host.runs(0.1)
    assert isinstance(refused.outcome, RateExceeded)
    assert host.shares.due(host.now) is None
    host.runs(1.0)
    query = first.asks()
    host.runs(0.01)
    assert isinstance(query.outcome, float)
    assert len(host.admitted) == 2


def test_what_was_forced_in_is_made_up_for_by_all() -> None:
    host = Host(3, limits(qps=100, burst=10))
    host.workers[1].insists(200)
    host.runs(0.1)
    query = host.workers[2].asks()
    host.runs(0.1)
    assert isinstance(query.outcome, RateExceeded)
    host.runs(2.0)
    query = host.workers[3].asks()
    host.runs(0.1)
    assert isinstance(query.outcome, float)


# --- of several hosts -----------------------------------------------------------------------------------


class Above:
    """What all hosts share: so many thousandths are this one's, so many queries of a day."""

    def __init__(self, part: int) -> None:
        self.part = part
        self.asked: list[str] = []
        self.comes = True

    def share(self, name: str, limit: int) -> int:
        return self.part

    def pending(self, name: str, limit: int) -> bool:
        self.asked.append(name)
        return self.comes

    def sought(self, name: str) -> bool:
        return False

    def wishes(self, name: str) -> list[list[Wish]]:
        return []


def of_fleet(part: int) -> tuple[Shares, Above]:
    shares = Shares()
    shares.above = above = Above(part)
    return shares, above


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0.0, 0.3), st.integers(0, 1000)), max_size=80))
def test_hosts_together_never_let_more_through_than_one_bucket(steps: list[tuple[int, float, int]]) -> None:
    hosts = [of_fleet(part) for part in (500, 300, 0)]
    now, let_through = 0.0, 0.0
    for who, seconds, part in steps:
        now += seconds
        shares, above = hosts[who]
        spent = sum(given_to(shares.lease(1, row(needs=3), now)).values())
        shares.lease(1, row(spent=float(spent), left=float(spent)), now)
        let_through += spent
        assert let_through <= 10 + 10 * now + len(hosts) + 1e-6
        above.part = min(part, 1000 - sum(other.part for _, other in hosts if other is not above))
        for grant in shares.again(["rate of tenant acme queries"], now):
            let_through += grant.granted
            shares.lease(1, row(spent=float(grant.granted), left=float(grant.granted)), now)


def test_more_of_a_rate_is_asked_for_and_until_it_comes_nobody_knows_when() -> None:
    shares, above = of_fleet(100)
    assert given_to(shares.lease(1, row(needs=1), 0.0)) == {1: 1}, "a burst of one is everybody's"
    (answer,) = shares.lease(1, row(spent=1.0, left=1.0, needs=1), 0.0)
    assert (answer.granted, answer.pending) == (0, True)
    assert above.asked == ["rate of tenant acme queries"]
    assert shares.demand("rate of tenant acme queries", 0.5) == (0, 100)
    above.comes = False
    (answer,) = shares.again(list(above.asked), 0.0)
    assert (answer.pending, answer.eta) == (False, pytest.approx(1.0)), "a tenth of ten a second"


def test_a_quota_is_used_up_only_for_who_has_asked_for_more() -> None:
    """Who tells what it has spent is not told that there is nothing: another proxy may have some."""
    shares, above = of_fleet(2)
    told = row(rate=0.0, daily=True)._replace(name="tenant acme queries a day", burst=20.0)
    shares.lease(1, told._replace(needs=2), 0.0)
    (answer,) = shares.lease(1, told._replace(spent=2.0, left=2.0, likes=5), 0.0)
    assert (answer.granted, answer.pending, answer.eta) == (0, False, 0.0)
    (answer,) = shares.lease(1, told._replace(needs=1), 0.0)
    assert answer.pending
    above.comes = False
    (answer,) = shares.again(list(above.asked[:1]), 0.0)
    assert (answer.pending, answer.eta) == (False, 86_400.0)


def test_that_a_quota_is_used_up_is_doubted_after_a_while() -> None:
    """Another proxy may have given back what it has not used."""
    said: list[float] = []
    slices = Slices(said.append)
    gate = Gate("acme", TenantStats(), slices=slices)
    gate.update(Limits(max_queries_per_day=20).over(UNLIMITED))
    query = Query(Host(0, UNLIMITED), 0.0)

    def asks(now: float) -> Told:
        assert not gate.ask(now)
        gate.join(query, now)
        (told,) = slices.settle()
        assert (told.needs, told.asks) == (1, True)
        return told

    name = asks(0.0).name
    slices.obey([Grant(1, name, 0, 86_400.0, 0.0, False, False)], 0.1)
    found = gate.next(0.1)
    assert found is not None
    assert isinstance(found[1], RateExceeded)
    with pytest.raises(RateExceeded, match="used up"):
        gate.ask(4.0)
    asks(6.0)
    slices.obey([Grant(1, name, 1, 0.0, 0.0, False, False)], 6.1)
    assert gate.next(6.1) == (query, None)


def test_of_a_quota_what_is_spent_stays_with_the_host() -> None:
    shares, above = of_fleet(5)
    told = row(rate=0.0, daily=True)._replace(name="tenant acme queries a day", burst=20.0)
    assert given_to(shares.lease(1, told._replace(needs=8), 0.0)) == {1: 5}
    assert above.asked == ["quota of tenant acme queries a day"]
    assert shares.demand(above.asked[0], 0.0) == (5, 3)
    above.part = 8
    assert given_to(shares.again(list(above.asked), 0.0)) == {1: 3}
    shares.lease(1, told._replace(spent=8.0, left=8.0), 0.0)
    assert shares.demand(above.asked[0], 0.0) == (8, 0)
