"""The queue and the ledger at sizes that no test machine serves: the code that runs in the proxy, with a clock of its own.

    python benchmarks/simulated.py [--tenants 100,1000,10000,100000] [--proxies 50]

Tenants: as many as said wait all the time for 50 connections, with transactions of 2, 4 or 8 ms and weights of one and two.
Told are what a decision costs (whose turn it is, its permits, what it is charged), Jain's index of the server time of
equal weights, how near unequal ones are to theirs, and the longest time from one turn of a tenant to the next, against
what is fair for what its transaction took (time among a hundred thousand is cut in few pieces each).

Proxies: as many as said share one cap by one ledger, with messages that take a while; each has a demand of its own that
comes and goes, and some are killed. Told are the most that was ever in use against the cap, what share of it was used
while there was more demand than that, Jain's index among those that always wanted more, and the messages and microseconds
for each transaction.
"""

from __future__ import annotations

import argparse
import heapq
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from proxy.admission import charging
from proxy.admission.accounts import Account, Counter, Seeker, TierAccount, UserAccount, give_all
from proxy.admission.lease import Leases, Told
from proxy.admission.ledger import Ledger, Order
from proxy.admission.queue import FairQueue
from proxy.model import Limits, Tenant, Tier, User

CONNECTIONS = 50
WEIGHTS = (1, 2)
_SECONDS = (0.002, 0.004, 0.008)


@dataclass(frozen=True)
class Queued:
    """What came of a simulation of the queue."""

    tenants: int
    decisions: int
    microseconds: float  # a decision
    jain: float  # of those of weight one
    furthest: float  # from its weight's share, of the sums of a weight; 0.05 is 5 %
    longest: float  # from one turn to the next, against what is fair


def jain(values: list[float]) -> float:
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))


def queued(tenants: int, turns: int, seed: int = 1) -> Queued:
    """Each tenant has so many turns, on the average."""
    draw = random.Random(seed)
    tiers = {weight: TierAccount(Tier(f"weight {weight}", weight=weight)) for weight in WEIGHTS}
    user = UserAccount(User("app"))
    queue = FairQueue(lambda: None)
    accounts: list[Account] = []
    length: dict[Account, float] = {}
    clients = max(2, 200 // tenants)  # of each, so that it wants more than it gets
    for number in range(tenants):
        tier = tiers[WEIGHTS[number % len(WEIGHTS)]]
        account = Account(Tenant(f"t{number}", tier.tier.name, "shared"), tier, Limits(max_connections=20))
        accounts.append(account)
        length[account] = draw.choice(_SECONDS)
    now = longest = 0.0
    last = dict.fromkeys(accounts, 0.0)
    for account in accounts:
        for _ in range(clients):
            queue.push(account, user, account)
    pace = (
        sum(account.tier.tier.weight for account in accounts) / CONNECTIONS
    )  # seconds in which a weight of one gets one
    running: list[tuple[float, int, Account, tuple[Counter, ...], float, float]] = []
    used = dict.fromkeys(accounts, 0.0)
    decisions, spent = 0, 0.0
    warm = tenants * max(2, turns // 4)  # everybody's first transactions, of which nothing is known
    total = tenants * turns
    while decisions < warm + total:
        began = time.process_time()
        while len(running) < CONNECTIONS and (taken := queue.take()) is not None:
            account, counters = taken
            charged = charging.begin(account, queue.rota, counters)
            seconds = length[account] * draw.uniform(0.5, 1.5)
            decisions += 1
            heapq.heappush(running, (now + seconds, decisions, account, counters, charged, seconds))
            if decisions > warm:
                fair = 1.5 * length[account] / account.tier.tier.weight * pace
                longest = max(longest, (now - last[account]) / fair)
            last[account] = now
        now, _, account, counters, charged, seconds = heapq.heappop(running)
        charging.end(account, queue.rota, counters, charged, seconds)
        give_all(counters)
        queue.push(account, user, account)
        spent += time.process_time() - began
        if decisions > warm:
            used[account] += seconds
    shares = dict.fromkeys(WEIGHTS, 0.0)
    for account, seconds in used.items():
        shares[account.tier.tier.weight] += seconds
    whole = sum(shares.values()) / sum(WEIGHTS)
    return Queued(
        tenants,
        decisions,
        spent * 1e6 / decisions,
        jain([used[account] for account in accounts if account.tier.tier.weight == 1]),
        max(abs(share / weight / whole - 1) for weight, share in shares.items()),
        longest,
    )


# --- proxies ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Leased:
    """What came of a simulation of proxies that share a cap."""

    proxies: int
    transactions: int
    cap: int
    most: int  # in use at once
    used: float  # of the cap, while more was wanted
    jain: float
    messages: float  # a transaction
    microseconds: float


class Clock:
    """What all of a simulation have together: the time, the dice, what is to happen, and what has been counted."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.now = 0.0
        self.transactions = self.messages = self.used = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, when: float, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, what))

    def steps(self, until: float) -> Iterator[None]:
        while self._events and self._events[0][0] <= until:
            self.now, _, what = heapq.heappop(self._events)
            what()
            yield


class _Wish(Seeker):
    def __init__(self, holder: Holder) -> None:
        super().__init__()
        self.holder = holder

    def free(self) -> None:
        self.holder.serve()


class Holder:
    """Who has its permits from a ledger; `wanted` of its transactions wait. One that is `eager` always has as many more."""

    def __init__(self, house: House, number: int, eager: bool) -> None:
        self.house, self.clock, self.number, self.eager = house, house.clock, number, eager
        self.leases = Leases(self._later)
        self.counter = Counter("cap", house.cap, lender=self.leases)
        self.wanted = 0
        self.seconds = 0.0
        self.alive = True
        self._wish = _Wish(self)
        self._running: dict[int, None] = {}

    def _later(self, seconds: float) -> None:
        self.clock.at(self.clock.now + seconds, self.settle)

    def settle(self) -> None:
        if self.alive and (told := self.leases.settle(self.clock.now)):
            self.house.tell(self, told)

    def obey(self, orders: list[Order]) -> None:
        if self.alive:
            self.leases.obey(orders, self.clock.now)
            self.serve()

    def ask(self, count: int) -> None:
        self.wanted += count
        self.serve()

    def serve(self) -> None:
        clock = self.clock
        while self.wanted and not self.counter.full:
            self.counter.take()
            clock.used += 1
            self.wanted -= 1
            seconds = clock.draw.expovariate(1 / self.house.seconds)
            self.seconds += seconds
            clock.transactions += 1
            number = clock.transactions
            self._running[number] = None
            clock.at(clock.now + seconds, partial(self._done, number))
        if self.wanted:
            self.counter.when_free(self._wish)

    def _done(self, number: int) -> None:
        if number in self._running:
            del self._running[number]
            self.clock.used -= 1
            if self.alive:
                self.wanted += self.eager
                self.counter.give()
                self.serve()

    def shed(self, keep: int) -> None:
        """What is above is ended."""
        while len(self._running) > keep:
            self._done(next(iter(self._running)))

    def end(self) -> None:
        """It is gone, and what it had begun with it."""
        self.alive = False
        self.shed(0)


class House:
    """A ledger and those who hold of it. Messages arrive in order, after one to five milliseconds."""

    def __init__(self, clock: Clock, cap: int, seconds: float) -> None:
        self.clock, self.cap, self.seconds = clock, cap, seconds
        self.ledger = Ledger()
        self._last: dict[tuple[int, bool], float] = {}
        self.holders: list[Holder] = []
        self.born = 0

    def join(self, *, eager: bool) -> Holder:
        self.born += 1
        self.ledger.join(self.born)
        holder = Holder(self, self.born, eager)
        self.holders.append(holder)
        return holder

    def _arrives(self, number: int, up: bool) -> float:
        when = max(self.clock.now + self.clock.draw.uniform(0.001, 0.005), self._last.get((number, up), 0.0))
        self._last[number, up] = when
        return when

    def tell(self, holder: Holder, told: list[Told]) -> None:
        self.clock.messages += 1
        self.clock.at(self._arrives(holder.number, True), lambda: self.hear(holder, told))

    def hear(self, holder: Holder, told: list[Told]) -> None:
        orders: list[Order] = []
        for each in told:
            said = each._asdict()
            orders += self.ledger.lease(holder.number, said.pop("name"), **said)
        self.send(orders)

    def send(self, orders: list[Order]) -> None:
        by_holder: dict[int, list[Order]] = {}
        for order in orders:
            by_holder.setdefault(order.worker, []).append(order)
        for holder in self.holders:
            if rows := by_holder.get(holder.number):
                self.clock.messages += 1
                self.clock.at(self._arrives(holder.number, False), partial(holder.obey, rows))

    def look(self) -> None:
        self.send(self.ledger.look())
        self.clock.at(self.clock.now + 1.0, self.look)

    def kill(self, holder: Holder) -> None:
        holder.end()
        self.holders.remove(holder)
        self.send(self.ledger.died(holder.number))


def leased(proxies: int, seconds: float, cap: int = 400, seed: int = 1) -> Leased:
    clock = Clock(seed)
    house = House(clock, cap, 0.02)
    clock.at(1.0, house.look)
    for number in range(proxies):
        house.join(eager=number % 2 == 0)
    for holder in house.holders:
        holder.ask(3 * cap // 2 if holder.eager else 0)

    def comes_and_goes() -> None:
        for holder in house.holders:
            if not holder.eager and clock.draw.random() < 0.3:
                holder.ask(clock.draw.randrange(1, 40))
        clock.at(clock.now + 0.05, comes_and_goes)

    def killing() -> None:
        house.kill(clock.draw.choice([holder for holder in house.holders if not holder.eager]))
        house.join(eager=False)
        clock.at(clock.now + seconds / 5, killing)

    clock.at(0.0, comes_and_goes)
    clock.at(seconds / 10, killing)
    most, samples, next_sample = 0, deque[float](), 1.0
    began = time.process_time()
    for _ in clock.steps(seconds):
        most = max(most, clock.used)
        if clock.now >= next_sample:
            next_sample += 0.05
            samples.append(clock.used / cap)
    spent = time.process_time() - began
    return Leased(
        proxies,
        clock.transactions,
        cap,
        most,
        sum(samples) / max(1, len(samples)),
        jain([holder.seconds for holder in house.holders if holder.eager]),
        clock.messages / max(1, clock.transactions),
        spent * 1e6 / max(1, clock.transactions),
    )


# --- the command ------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tenants", default="100,1000,10000,100000")
    parser.add_argument("--proxies", default="2,10,50")
    parser.add_argument("--turns", type=int, default=18, help="that a tenant has, at least (18)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of the proxies' clock (5)")
    arguments = parser.parse_args()
    print(
        f"| tenants that wait for {CONNECTIONS} connections | decisions | us a decision | Jain's index, equal weights"
        " | furthest from its weight's share | longest between two turns : fair |\n|---|---|---|---|---|---|"
    )
    for tenants in map(int, arguments.tenants.split(",")):
        found = queued(tenants, max(arguments.turns, 200_000 // tenants))
        print(
            f"| {found.tenants:,} | {found.decisions:,} | {found.microseconds:.1f} | {found.jain:.4f}"
            f" | {found.furthest:.2%} | {found.longest:.2f} |",
            flush=True,
        )
    print(
        "\n| proxies at one cap | transactions | most in use : cap | used while more was wanted | Jain's index"
        " | messages a transaction | us a transaction |\n|---|---|---|---|---|---|---|"
    )
    for proxies in map(int, arguments.proxies.split(",")):
        shared = leased(proxies, arguments.seconds)
        print(
            f"| {shared.proxies} | {shared.transactions:,} | {shared.most} : {shared.cap} | {shared.used:.1%}"
            f" | {shared.jain:.4f} | {shared.messages:.3f} | {shared.microseconds:.1f} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
