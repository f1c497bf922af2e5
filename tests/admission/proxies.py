"""Proxies that share the connections of a cluster through a real Redis, their clients and servers, simulated a
millisecond at a time."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis

from proxy.admission.stakes import Rule, Stakes
from proxy.supervisor.deal import SCRIPT
from tests.admission.sites import TICK, Host

_TTL = 4.0
_SPEAK = 10  # ticks


class Proxies:
    """Hosts with one worker each, whose ledgers have their shares of a cluster's connections from Redis."""

    def __init__(
        self,
        store: redis.Redis,
        count: int,
        most: int,
        weights: Mapping[str, int],
        guaranteed: Mapping[str, float] = {},
    ) -> None:
        store.flushall()
        self._store = store
        self._most = most
        self.hosts = [Host(most, 1, weights, guaranteed) for _ in range(count)]
        self._stakes = []
        for number, host in enumerate(self.hosts):
            ledger = host.fleet.ledger
            stakes = Stakes(f"proxy{number}", Rule(count, 20, _TTL), ledger.demand, lambda: None)
            stakes.whose = ledger.wishes
            ledger.above = stakes
            self._stakes.append(stakes)
        self._ticks = 0
        self.run(2 * _TTL)

    def run(self, seconds: float) -> dict[str, float]:
        """The part of all server time in it that each tenant has had."""
        before = self._had()
        for _ in range(round(seconds / TICK)):
            self._step()
        had = {name: now - before.get(name, 0.0) for name, now in self._had().items()}
        return {name: seconds / max(1e-6, sum(had.values())) for name, seconds in had.items()}

    def _had(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for host in self.hosts:
            for site in host.sites:
                for name, seconds in site.seconds.items():
                    found[name] = found.get(name, 0.0) + seconds
        return found

    def _step(self) -> None:
        self._ticks += 1
        for host, stakes in zip(self.hosts, self._stakes, strict=True):
            host.step()
            if self._ticks % _SPEAK == 0:
                self._speak(host, stakes, host.fleet.now + 1000.0)
        assert sum(len(site.servers) for host in self.hosts for site in host.sites) <= self._most

    def _speak(self, host: Host, stakes: Stakes, now: float) -> None:
        names = stakes.tick(now)
        if not stakes.due(now):
            body = json.dumps(stakes.request(now))
            said: Any = self._store.eval(SCRIPT, 1, "tiergate:{shares}:", body, f"{random.getrandbits(64):x}")
            names += stakes.heard(json.loads(said), now)
        for name in names:
            host.fleet.give_orders(host.fleet.ledger.again(name))

    def in_use(self, tenant: str) -> int:
        """Connections that it has."""
        return sum(
            server.account is not None and server.account.tenant.name == tenant
            for host in self.hosts
            for site in host.sites
            for server in site.servers
        )


@dataclass(frozen=True)
class Shared:
    """What came of tenants of weights from one to four, each with clients at one to three of the proxies.

    A tenant's share is its weight's of all that was used. That is what fairness (the smallest share a weight as large as
    can be, then the next) gives it, since nothing else limits it: all want more than they have, and what is a proxy's own
    of the connections, one of eight, is less than what its tenants are due there.
    """

    proxies: int
    furthest: float  # from its weight's share of server time, of all tenants; 0.05 is 5 %
    guarantee: float  # seconds until who is guaranteed a quarter, and comes when all is taken, has it


def shared(store: redis.Redis, proxies: int, seed: int = 1, seconds: float = 20.0) -> Shared:
    """What is left of whole connections goes round in about twenty seconds."""
    draw, most = random.Random(seed), 8 * proxies
    weights = {f"tenant {number}": draw.choice((1, 2, 4)) for number in range(2 * proxies)}
    fleet = Proxies(store, proxies, most, weights | {"late": 1}, {"late": 0.25})
    for tenant in weights:
        for host in draw.sample(fleet.hosts, draw.randint(1, min(3, proxies))):
            host.clients(tenant, 0, 20)
    fleet.run(10.0)
    found, whole = fleet.run(seconds), sum(weights.values())
    furthest = max(abs(found.get(tenant, 0.0) * whole / weight - 1) for tenant, weight in weights.items())
    fleet.hosts[0].clients("late", 0, most)
    waited = 0.0
    while fleet.in_use("late") < most // 4 and waited < 30.0:
        fleet.run(0.1)
        waited += 0.1
    return Shared(proxies, furthest, waited)
