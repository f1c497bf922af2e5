"""Workers that share the connections of a cluster, their clients and their servers, simulated a millisecond at a time."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from proxy.admission import charging, guarantees
from proxy.admission.accounts import Account, Counter, Seeker, TierAccount, UserAccount, give_all
from proxy.admission.claiming import claimed
from proxy.admission.guarantees import Guarantee
from proxy.admission.queue import FairQueue
from proxy.admission.turns import Crowd, Rota
from proxy.model import Limits, Tenant, Tier, User
from tests.admission.fleet import Fleet, SimWorker

USER = UserAccount(User("app"))
TICK = 0.001
OPENING = 0.005
STAYS = 0.1  # as in server/room.py


class _Claim(Seeker):
    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def free(self) -> None:
        self.site.serve()

    def number(self, rota: Rota | None) -> int:
        return self.site.queue.number(rota)

    def wants(self) -> int:
        coming = sum(server.account is None for server in self.site.servers)
        return max(1, claimed(self.site.queue) - coming)


@dataclass(eq=False)
class Server:
    ready: float
    account: Account | None = None
    lent_at: float = 0.0
    until: float = 0.0
    charged: float = 0.0
    guarantee: Guarantee | None = None
    permits: tuple[Counter, ...] = ()


class Site:
    """One worker, with one pool."""

    def __init__(self, worker: SimWorker, most: int) -> None:
        self.worker = worker
        self.dice = random.Random(worker.number)
        rota = Rota(Crowd(), "cluster")
        self.counter = Counter("cluster", most, lender=worker.leases, backed=True, rota=rota)
        self.counter.reserve = self
        self.queue = FairQueue(self.serve, rota)
        self.queue.most = most
        self.queue.claim = self.claim = _Claim(self)
        self.servers: list[Server] = []
        self.opened = 0
        self.seconds: dict[str, float] = {}
        self.longest: dict[str, float] = {}  # wait
        self.takes: dict[str, float] = {}
        self._serving = self._left = False

    @property
    def now(self) -> float:
        return self.worker.fleet.now

    def clients(self, account: Account, count: int, seconds: float) -> None:
        self.takes[account.tenant.name] = seconds
        for _ in range(count):
            self.queue.push(account, USER, (account, self.now))
        self.serve()

    def leave(self) -> None:
        """All its clients, when what they do is done."""
        self._left = True
        for account, since in list(self.queue):
            self.queue.remove(account, USER, (account, since))

    def serve(self) -> None:
        if self._serving:
            return
        self._serving = True
        idle = [server for server in self.servers if server.account is None and server.ready <= self.now]
        while idle and (taken := self.queue.take()) is not None:
            self._lend(idle.pop(), taken)
        self._serving = False
        coming = sum(server.account is None for server in self.servers)
        for _ in range(len(self.queue) - coming):
            if self.counter.full:
                self.counter.when_free(self.claim)
                break
            self.counter.take()
            self.opened += 1
            self.servers.append(Server(self.now + OPENING))

    def _lend(self, server: Server, taken: tuple[tuple[Account, float], tuple[Counter, ...]]) -> None:
        (account, since), server.permits = taken
        name = account.tenant.name
        self.longest[name] = max(self.longest.get(name, 0.0), self.now - since)
        server.account, server.lent_at = account, self.now
        server.until = self.now + self.takes[name] * self.dice.uniform(0.5, 1.5)
        server.guarantee = guarantees.of(self.queue.rota, account, self.queue.most)
        if server.guarantee is not None:
            server.guarantee.use(1)
        server.charged = charging.begin(account, self.queue.rota, ())

    def step(self) -> None:
        for server in [each for each in self.servers if each.account is not None and each.until <= self.now]:
            account, server.account = server.account, None
            assert account is not None
            took = self.now - server.lent_at
            self.seconds[account.tenant.name] = self.seconds.get(account.tenant.name, 0.0) + took
            if server.guarantee is not None:
                server.guarantee.use(-1)
            charging.end(account, self.queue.rota, (), server.charged, took)
            give_all(server.permits)
            if not self._left:
                self.queue.push(account, USER, (account, self.now))
            if self._left or (self.counter.owed and self.now - server.ready > STAYS):
                self.servers.remove(server)
                self.counter.give()
        self.serve()

    # --- what the leases ask --------------------------------------------------------------------------

    def spare(self) -> int:
        return 0

    def surrender(self, count: int) -> None:
        """Nothing is idle while somebody waits."""

    def demand(self) -> dict[Account, int]:
        found = dict(self.queue.demand())
        for server in self.servers:
            if server.account is not None:
                found[server.account] = found.get(server.account, 0) + 1
        return found


class Host:
    """`weights` and `guaranteed` are of tenants; each worker has accounts of its own for them."""

    def __init__(
        self, most: int, workers: int, weights: Mapping[str, int], guaranteed: Mapping[str, float] = {}
    ) -> None:
        self.most = most
        self.fleet = Fleet(0, workers)
        self.sites = [Site(worker, most) for worker in self.fleet.workers.values()]
        self._weights, self._guaranteed = weights, guaranteed
        self._ticks = 0

    def clients(self, tenant: str, at: int, count: int, seconds: float = 0.02) -> None:
        site = self.sites[at]
        tier = TierAccount(Tier(f"of {tenant}", weight=self._weights[tenant]), site.worker.leases)
        limits = Limits(guaranteed_connections=self._guaranteed.get(tenant, 0.0))
        account = Account(Tenant(tenant, tier.tier.name, "cluster"), tier, limits, site.worker.leases)
        site.clients(account, count, seconds)

    def run(self, seconds: float) -> dict[str, float]:
        """The server time that each tenant has had of it."""
        before = self._had()
        for _ in range(round(seconds / TICK)):
            self.step()
        return {name: had - before.get(name, 0.0) for name, had in self._had().items()}

    def _had(self) -> dict[str, float]:
        return {name: sum(site.seconds.get(name, 0.0) for site in self.sites) for name in self._weights}

    def step(self) -> None:
        fleet, self._ticks = self.fleet, self._ticks + 1
        fleet.now += TICK
        for site in self.sites:
            site.step()
            if self._ticks % 50 == 0:
                site.worker.leases.look(fleet.now)
            site.worker.run_timers()
        for site in self.sites:
            while site.worker.to_worker:
                site.worker.hear()
            while site.worker.to_ledger:
                fleet.hear(site.worker)
        if self._ticks % 1000 == 0:
            fleet.give_orders(fleet.ledger.look())
        if self._ticks % 100 == 0:
            for number, name, parts in fleet.ledger.parts():
                fleet.workers[number].leases.divided(name, parts)
        assert sum(len(site.servers) for site in self.sites) <= self.most

    @property
    def opened(self) -> int:
        return sum(site.opened for site in self.sites)
