"""Workers that share a tenant's rates, with gates of their own, and messages that take their time; nothing is real."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

from proxy.admission.gate import Gate
from proxy.admission.shares import Shares
from proxy.admission.slices import Grant, Held, Slices, Told
from proxy.errors import RateExceeded, TiergateError
from proxy.model import Limits
from proxy.stats import TenantStats

RING = 0.002


class Query:
    """One that has been asked; `outcome` is when it was let in, or why it was not."""

    def __init__(self, host: Host, at: float) -> None:
        self.host, self.at = host, at
        self.outcome: float | TiergateError | None = None

    def admitted(self) -> None:
        self.outcome = self.host.now
        self.host.admitted.append(self.host.now)

    def turned_away(self, error: TiergateError) -> None:
        self.outcome = error


class Bell:
    def __init__(self) -> None:
        self.silent = False

    def cancel(self) -> None:
        self.silent = True


class Worker:
    def __init__(self, host: Host, number: int, limits: Limits) -> None:
        self.host, self.number, self.alive = host, number, True
        self.slices = Slices(lambda seconds: host.at(host.now + seconds, self._tell))
        self.stats = TenantStats()
        self.gate = Gate("acme", self.stats, slices=self.slices)
        self.gate.update(limits)
        self.gate.ring = self._look

    def _tell(self) -> None:
        if self.alive and (told := self.slices.settle()):
            self.host.says(self.number, told)

    def hears(self, grants: list[Grant]) -> None:
        if self.alive:
            self.slices.obey(grants, self.host.now)

    def _look(self) -> None:
        if not self.alive:
            return
        while (found := self.gate.next(self.host.now)) is not None:
            waiter, refused = found
            if refused is None:
                waiter.admitted()
            else:
                waiter.turned_away(refused)
        if self.gate.waiting:
            self._look_later()

    def _look_later(self) -> None:
        if self.gate.bell is None:
            bell = self.gate.bell = Bell()

            def ring() -> None:
                if not bell.silent:
                    self.gate.bell = None
                    self._look()

            self.host.at(self.host.now + max(RING, min(self.gate.due(self.host.now), 0.25)), ring)

    def asks(self) -> Query:
        query = Query(self.host, self.host.now)
        try:
            if self.gate.ask(self.host.now):
                query.admitted()
            else:
                self.gate.join(query, self.host.now)
                self._look_later()
        except RateExceeded as error:
            query.turned_away(error)
        return query

    def insists(self, queries: int) -> None:
        """Within a transaction."""
        self.gate.spend(queries, self.host.now)
        self.host.admitted += [self.host.now] * queries


class Host:
    """`admitted` has the moments at which queries were let in. Messages take `delay` seconds."""

    def __init__(self, workers: int, limits: Limits, delay: float = 0.0005) -> None:
        self.now = 1000.0
        self.delay = delay
        self.limits = limits
        self.admitted: list[float] = []
        self.shares = Shares()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._pouring = False
        self.workers = {number: Worker(self, number, limits) for number in range(1, workers + 1)}

    def at(self, moment: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self._events, (moment, next(self._order), callback))

    def runs(self, seconds: float) -> None:
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, callback = heapq.heappop(self._events)
            callback()
        self.now = end

    def says(self, number: int, told: list[Told]) -> None:
        worker = self.workers[number]

        def arrives() -> None:
            if not worker.alive:
                return  # its channel is closed, and its number nobody else's
            grants: list[Grant] = []
            for row in told:
                grants += self.shares.lease(number, row, self.now)
            self._grant(grants)

        self.at(self.now + self.delay, arrives)

    def _grant(self, grants: list[Grant]) -> None:
        for grant in grants:
            worker = self.workers.get(grant.worker)
            if worker is not None:

                def arrives(worker: Worker = worker, grant: Grant = grant) -> None:
                    worker.hears([grant])

                self.at(self.now + self.delay, arrives)
        due = self.shares.due(self.now)
        if due is not None and not self._pouring:
            self._pouring = True
            self.at(self.now + max(due, 0.005), self._pour)

    def _pour(self) -> None:
        self._pouring = False
        self._grant(self.shares.look(self.now))

    def dies(self, number: int) -> None:
        self.workers.pop(number).alive = False
        self._grant(self.shares.died(number, self.now))

    def begins(self, number: int) -> None:
        self.workers[number] = Worker(self, number, self.limits)

    def upgrades(self) -> None:
        """Another program takes the supervisor's place; what was under way to the old one is lost."""
        self.shares = Shares()
        self.shares.inherit()
        self._events.clear()
        self._pouring = False
        for number, worker in self.workers.items():
            worker.slices._soon = False
            worker.slices._touched.clear()
            held: list[Held] = worker.slices.report()
            self.shares.report(number, held, self.now)
            worker.gate.bell = None
            if worker.gate.waiting:
                worker._look_later()

    def most_above(self, rate: float, burst: float) -> float:
        """By how many the queries let in between any two moments are above the rate and the burst."""
        level, last, worst = burst, self.admitted[0] if self.admitted else 0.0, 0.0
        for moment in self.admitted:
            level = min(burst, level + (moment - last) * rate) - 1
            last = moment
            worst = max(worst, -level)
        return worst
