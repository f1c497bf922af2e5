"""The limit that follows latency, over a simulated server that is slower the more it runs."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from proxy.admission.adaptive import BUCKETS, MIN_SAMPLES, NOTHING, Decision, Limit, Strain, Window

CORES = 8


class Server:
    """Shares its cores among all it runs, and loses `contention` of each for every one beyond them.

    All that run get on at the same rate, so that what is done is known by how much each had got when it is over.
    """

    def __init__(self, cores: float = CORES, contention: float = 0.0) -> None:
        self.cores = cores
        self.contention = contention
        self.done = 0.0  # of work, by each that runs all the time
        self.running: list[tuple[float, int, float, str]] = []

    @property
    def rate(self) -> float:
        crowd = max(0.0, len(self.running) - self.cores)
        return min(1.0, self.cores / max(1, len(self.running))) / (1.0 + self.contention * crowd)

    def next(self) -> float:
        return (self.running[0][0] - self.done) / self.rate if self.running else float("inf")


class Simulation:
    """`clients` ask one after another; those that the limit leaves out wait in line. `demand` draws whose a transaction is
    and the seconds of work that it is."""

    def __init__(
        self, server: Server, limit: Limit, clients: int, demand: Callable[[random.Random], tuple[str, float]],
        workers: int = 1,
    ) -> None:  # fmt: skip
        self.random = random.Random(7)
        self.server, self.limit, self.clients, self.demand = server, limit, clients, demand
        self.strains = [Strain() for _ in range(workers)]
        self.now, self.count, self.served = 0.0, 0, 0
        self.limits: list[int] = []
        self.decisions: list[Decision] = []

    def run(self, seconds: int) -> Simulation:
        for _ in range(seconds):
            self._until(self.now + 1.0)
            window = NOTHING
            for strain in self.strains:
                window = window.plus(strain.take())
            decision = self.limit.decide(window)
            for strain in self.strains:
                strain.obey(decision)
            self.limits.append(decision.limit)
            self.decisions.append(decision)
        return self

    def _until(self, end: float) -> None:
        server = self.server
        while True:
            while len(server.running) < min(self.limit.last.limit, self.clients):
                whose, work = self.demand(self.random)
                self.count += 1
                heapq.heappush(server.running, (server.done + work, self.count, self.now, whose))
            running, wait = len(server.running), server.next()
            if self.now + wait > end:
                server.done += (end - self.now) * server.rate
                self.now = end
                break
            self.now += wait
            server.done, number, began, whose = heapq.heappop(server.running)
            self.served += 1
            strain = self.strains[number % len(self.strains)]
            strain.record(whose, self.now - began)
            strain.seen(-(-running // len(self.strains)), self.clients > running)


def short(draw: random.Random) -> tuple[str, float]:
    return "acme", draw.expovariate(1 / 0.01)


def slow(draw: random.Random) -> tuple[str, float]:
    return "acme", draw.expovariate(1 / 0.1)


def mean(values: list[int]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("contention", [0.0, 0.02])
@pytest.mark.parametrize("workers", [1, 4])
def test_it_settles_near_the_knee(contention: float, workers: int) -> None:
    simulation = Simulation(Server(contention=contention), Limit(2, 200), 200, short, workers).run(60)
    assert CORES * 0.75 <= mean(simulation.limits[30:]) <= CORES * 2.2
    assert min(simulation.limits) >= CORES * 0.3  # while it tries


def test_contention_costs_less_than_without_a_limit() -> None:
    free = Simulation(Server(contention=0.02), Limit(200, 200), 200, short).run(60)
    held = Simulation(Server(contention=0.02), Limit(2, 200), 200, short).run(60)
    assert held.served > 2 * free.served


def test_it_stays_for_as_long_as_the_load_does() -> None:
    simulation = Simulation(Server(), Limit(2, 200), 200, short).run(400)
    assert mean(simulation.limits[300:]) < CORES * 2.2


def test_more_cores_are_found_out() -> None:
    simulation = Simulation(Server(), Limit(2, 500), 500, short).run(40)
    simulation.server.cores = 4 * CORES
    simulation.run(60)
    assert mean(simulation.limits[-20:]) > 3 * CORES


def test_fewer_cores_too_and_it_recovers() -> None:
    simulation = Simulation(Server(), Limit(2, 200), 200, short).run(40)
    simulation.server.cores = 3
    simulation.run(40)
    assert mean(simulation.limits[-10:]) < CORES
    simulation.server.cores = CORES
    simulation.run(40)
    assert mean(simulation.limits[-10:]) > CORES


def test_a_server_with_room_is_not_limited() -> None:
    simulation = Simulation(Server(cores=1000), Limit(2, 400), 300, slow).run(30)
    assert simulation.limits[-1] >= 300


def test_who_does_not_use_the_limit_does_not_raise_it() -> None:
    simulation = Simulation(Server(), Limit(2, 200), 4, short).run(60)
    assert set(simulation.limits) == {8}
    assert simulation.decisions[-1].why == "is not used up"


def test_slower_queries_are_not_taken_for_a_crowd() -> None:
    times = 1.0

    def demand(draw: random.Random) -> tuple[str, float]:
        return "acme", times * draw.expovariate(1 / 0.01)

    simulation = Simulation(Server(), Limit(2, 200), 200, demand).run(40)
    before = mean(simulation.limits[-20:])
    times = 6.0
    simulation.run(60)
    assert mean(simulation.limits[-20:]) > 0.6 * before
    assert min(simulation.limits[-60:]) >= CORES * 0.4
    assert any("another reason" in decision.why for decision in simulation.decisions[-60:])


def test_a_tenant_of_slow_queries_among_others_changes_nothing() -> None:
    reports = 0.0

    def demand(draw: random.Random) -> tuple[str, float]:
        if draw.random() < reports:
            return "reports", draw.expovariate(1 / 0.2)
        return short(draw)

    simulation = Simulation(Server(), Limit(2, 200), 200, demand).run(40)
    before = mean(simulation.limits[-20:])
    reports = 0.3
    simulation.run(60)
    assert mean(simulation.limits[-30:]) > 0.6 * before
    assert min(simulation.limits[-60:]) >= CORES * 0.5


def test_baselines_that_were_learned_in_a_crowd_are_corrected() -> None:
    limit = Limit(2, 64)
    limit.limit = 64.0
    limit.last = limit.last._replace(limit=64)
    simulation = Simulation(Server(), limit, 200, short).run(150)
    assert mean(simulation.limits[-30:]) < 3 * CORES


def test_who_first_comes_in_a_crowd_is_taken_to_be_slowed_as_the_others_are() -> None:
    crowd = 0.0

    def demand(draw: random.Random) -> tuple[str, float]:
        return ("new" if draw.random() < crowd else "acme"), draw.expovariate(1 / 0.01)

    limit = Limit(2, 64)
    limit.limit = 64.0
    limit.last = limit.last._replace(limit=64)
    simulation = Simulation(Server(), limit, 6, demand).run(20)
    assert simulation.limits[-1] == 64, "it is not used up"
    crowd, simulation.clients = 0.9, 200
    simulation.run(12)
    assert mean(simulation.limits[-4:]) < 2.2 * CORES
    assert simulation.limit.last.baseline == pytest.approx(0.007, rel=0.3), "as it was without a crowd"


def test_a_try_that_does_not_help_is_taken_back_and_repeated_less_often() -> None:
    simulation = Simulation(Server(cores=1000), Limit(2, 48), 200, slow).run(200)
    tries = [at for at, decision in enumerate(simulation.decisions) if decision.why.startswith("tries")]
    gaps = [later - at for at, later in pairwise(tries)]
    assert len(gaps) >= 2
    assert gaps[-1] >= 3 * gaps[0]
    assert simulation.limits.count(48) > 160


def test_it_is_never_below_its_minimum_nor_above_its_maximum() -> None:
    simulation = Simulation(Server(cores=1), Limit(5, 40), 200, short).run(60)
    assert min(simulation.limits) >= 5
    assert max(simulation.limits) <= 40
    assert mean(simulation.limits[-20:]) < 12
    simulation.limit.lowest = simulation.limit.highest = 12
    simulation.run(1)
    assert simulation.limits[-1] == 12


def test_few_transactions_decide_nothing() -> None:
    limit = Limit(2, 100)
    for _ in range(100):
        assert limit.decide(NOTHING).limit == 8
    few = Window([0] * (BUCKETS - 1) + [MIN_SAMPLES - 1], 0.0, 8, True)
    assert limit.decide(few).limit == 8
    assert limit.decide(few).limit < 8


def test_one_slow_transaction_moves_a_baseline_no_more_than_another() -> None:
    strain = Strain()
    for _ in range(200):
        strain.record("acme", 0.01)
    strain.record("acme", 600.0)
    strain.take()
    strain.record("acme", 0.01)
    window = strain.take()
    assert window.samples == 1
    assert abs(window.baseline - -6.64) < 0.1


@pytest.mark.parametrize("usual", [0.0003, 0.01, 7.0])
def test_a_transaction_counts_by_the_logarithm_of_its_ratio(usual: float) -> None:
    """Reckoned without one: eight steps an octave, four octaves either way, and what is beyond in the last."""
    strain = Strain()
    for _ in range(200):
        strain.record("acme", usual)
    strain.take()
    for sixteenth in range(-111, 112, 2):  # the middles of steps
        strain.record("acme", usual * 2 ** (sixteenth / 16))
        octaves = strain.take().octaves
        expected = min(max(sixteenth // 2 + BUCKETS // 2, 0), BUCKETS - 1)
        assert [step for step, count in enumerate(octaves) if count] == [expected]
        strain.obey(Decision(8, True, 0.0, usual, usual, 1.0, ""))  # baselines rest


def test_what_takes_no_time_at_all_is_only_very_short() -> None:
    strain = Strain()
    for _ in range(200):
        strain.record("acme", 0.0)
    strain.take()
    for seconds in (0.0, -1.0, 1e-9):
        strain.record("acme", seconds)
    window = strain.take()
    assert window.samples == 3
    assert window.baseline / 3 == pytest.approx(-20, abs=0.1)


def test_the_tenants_that_are_remembered_are_bounded() -> None:
    strain = Strain()
    for tenant in range(5000):
        for _ in range(3):
            strain.record(tenant, 0.01)
    assert len(strain._kinds) <= 512
