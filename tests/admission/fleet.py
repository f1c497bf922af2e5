"""A ledger and workers that exchange messages which arrive when the test says so, on a clock of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from proxy.admission.accounts import Counter
from proxy.admission.lease import Leases, Told
from proxy.admission.ledger import Holding, Ledger, Order
from tests.admission.calls import Call

NAMES = ("clients", "servers")  # the second is backed


class Said(list[Told]):
    """What a worker tells, unlike what it reports."""


class Report(list[Holding]):
    """What it holds, for the ledger of that time."""

    time = 0


class Hoping:
    """A login: `answer` is None until it is known; it leaves with `gone`."""

    def __init__(self) -> None:
        self.answer: bool | None = None
        self.gone = False

    def granted(self) -> bool:
        self.answer = not self.gone
        return self.answer

    def refused(self) -> None:
        self.answer = False


class SimWorker:
    def __init__(self, fleet: Fleet, number: int, limit: int) -> None:
        self.fleet = fleet
        self.number = number
        self.timers: list[float] = []
        self.leases = Leases(lambda seconds: self.timers.append(fleet.now + seconds))
        self.counters = {
            name: Counter(name, limit, lender=self.leases, backed=name == "servers") for name in NAMES
        }
        self.waiting = dict.fromkeys(NAMES, 0)
        self.hopes: dict[str, list[Hoping]] = {name: [] for name in NAMES}
        self.to_worker: deque[list[Order] | int] = deque()  # int: a ledger that wants a report
        self.to_ledger: deque[Said | Report] = deque()
        self.on_served: Callable[[str], None] = lambda _: None

    def want(self, name: str) -> None:
        self.waiting[name] += 1
        self.serve(name)

    def serve(self, name: str) -> None:
        counter = self.counters[name]
        while self.waiting[name] and not counter.full:
            counter.take()
            self.waiting[name] -= 1
            self.on_served(name)
        if self.waiting[name]:
            counter.when_free(self._again[name])

    @property
    def _again(self) -> dict[str, Call]:
        if not hasattr(self, "_callbacks"):
            self._callbacks = {name: Call(lambda n=name: self.serve(n)) for name in NAMES}
        return self._callbacks

    def hope(self, name: str) -> Hoping:
        hoping = Hoping()
        counter = self.counters[name]
        if not counter.full:
            counter.take()
            hoping.answer = True
        else:
            self.hopes[name].append(hoping)
            self.leases.hope(counter, hoping)
        return hoping

    def run_timers(self) -> None:
        due = [at for at in self.timers if at <= self.fleet.now]
        if due:
            self.timers = [at for at in self.timers if at > self.fleet.now]
            told = self.leases.settle(self.fleet.now)
            if told:
                self.to_ledger.append(Said(told))

    def hear(self) -> None:
        orders = self.to_worker.popleft()
        if isinstance(orders, int):
            report = Report(self.leases.report())
            report.time = orders
            self.to_ledger.append(report)
        else:
            self.leases.obey(orders, self.fleet.now)


class Fleet:
    def __init__(self, limit: int, workers: int) -> None:
        self.now = 0.0
        self.limit = limit
        self.ledger = Ledger()
        self.workers: dict[int, SimWorker] = {}
        self.ghosts: dict[int, SimWorker] = {}
        self.messages = 0
        self.time = 0
        self._numbers = 0
        self.unreported: set[int] = set()
        for _ in range(workers):
            self.start()

    def start(self) -> SimWorker:
        self._numbers += 1
        worker = SimWorker(self, self._numbers, self.limit)
        self.workers[worker.number] = worker
        self.ledger.join(worker.number)
        return worker

    def give_orders(self, orders: list[Order]) -> None:
        for order in orders:
            if order.worker in self.workers:
                self.messages += 1
                self.workers[order.worker].to_worker.append([order])

    def hear(self, worker: SimWorker) -> None:
        said = worker.to_ledger.popleft()
        self.messages += 1
        if isinstance(said, Said):
            for told in said:
                more = told._asdict()
                self.give_orders(self.ledger.lease(worker.number, more.pop("name"), **more))
        elif said.time == self.time:
            self.unreported.discard(worker.number)
            self.give_orders(self.ledger.report(worker.number, said))

    def kill(self, worker: SimWorker) -> None:
        del self.workers[worker.number]
        self.ghosts[worker.number] = worker
        self.give_orders(self.ledger.died(worker.number))

    def bury(self, number: int) -> None:
        del self.ghosts[number]
        self.give_orders(self.ledger.buried(number))

    def replace_ledger(self) -> None:
        """As when the supervisor starts anew: what it knew is lost, what is under way arrives."""
        self.ledger = Ledger()
        self.time += 1
        for worker in self.workers.values():
            self.ledger.expect(worker.number)
            self.unreported.add(worker.number)
            worker.to_worker.append(self.time)

    def used(self, name: str) -> int:
        ghosts = self.ghosts.values() if name == "servers" else ()
        return sum(w.counters[name].used for w in [*self.workers.values(), *ghosts])

    def allowed(self, name: str) -> int:
        ghosts = self.ghosts.values() if name == "servers" else ()
        return sum(w.counters[name].allowance for w in [*self.workers.values(), *ghosts])

    def rest(self, *, check: Callable[[], None] = lambda: None) -> None:
        """Delivers everything and lets time pass until nothing more is said."""
        for _ in range(10_000):
            busy = False
            for worker in list(self.workers.values()):
                worker.run_timers()
                while worker.to_ledger:
                    busy = True
                    self.hear(worker)
                    check()
                while worker.to_worker:
                    busy = True
                    worker.hear()
                    check()
            if busy:
                continue
            timers = [at for worker in self.workers.values() for at in worker.timers]
            if not timers:
                return
            self.now = max(self.now, min(timers))
        raise AssertionError("the fleet does not come to rest")
