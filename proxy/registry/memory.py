"""The registry in memory: one snapshot of the directory, and who is disabled. Answers are dict look-ups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from proxy.model import (
    NO_POLICY,
    UNLIMITED,
    ClientOptions,
    Cluster,
    ClusterKind,
    Directory,
    Limits,
    Tenant,
    Tier,
    User,
)
from proxy.sql.policy import Rules

Kind = Literal["tenant", "cluster"]


class Registry:
    """`epoch` grows with every change, so that whoever keeps an answer can see that it is old."""

    def __init__(self, directory: Directory, client_options: ClientOptions) -> None:
        self.epoch = 0
        self._disabled: dict[Kind, set[str]] = {"tenant": set(), "cluster": set()}
        self._take(directory, client_options)

    def _take(self, directory: Directory, client_options: ClientOptions) -> None:
        self._directory = directory
        self._base = client_options.limits.over(UNLIMITED)
        self._lives = Counter(tenant.cluster for tenant in directory.tenants.values())
        self._by_id = {tenant.id: tenant for tenant in directory.tenants.values() if tenant.id}
        self._limits: dict[tuple[str, str], Limits] = {}
        self._rules: dict[tuple[str, str], Rules | None] = {}

    def replace(self, directory: Directory, client_options: ClientOptions) -> None:
        """Take a new snapshot. What was disabled by hand stays so until it is enabled or gone."""
        self._take(directory, client_options)
        self._disabled["tenant"] &= directory.tenants.keys()
        self._disabled["cluster"] &= directory.clusters.keys()
        self.epoch += 1

    async def find(self, name_or_id: str) -> Tenant | None:
        return self.known(name_or_id)

    def known(self, name_or_id: str) -> Tenant | None:
        """A name goes before an id; ids compare without regard to case, as UUIDs do."""
        found = self._directory.tenants.get(name_or_id)
        return found if found is not None else self._by_id.get(name_or_id.lower())

    def tier(self, name: str) -> Tier | None:
        return self._directory.tiers.get(name)

    def cluster(self, name: str) -> Cluster | None:
        return self._directory.clusters.get(name)

    def lobby(self) -> str:
        """The cluster that answers those who have chosen no tenant, about themselves only: a shared one if there is
        any. "" where there is no cluster."""
        clusters = self._directory.clusters.values()
        order = (ClusterKind.SHARED, ClusterKind.VIP, ClusterKind.DEDICATED)
        able = [c for c in clusters if c.name not in self._disabled["cluster"]]
        return min(able, key=lambda cluster: order.index(cluster.kind)).name if able else ""

    def lives_alone(self, cluster: Cluster) -> bool:
        """Whoever is served there has all of it: it is a dedicated one, and not more than one tenant's."""
        return cluster.kind is ClusterKind.DEDICATED and self._lives[cluster.name] <= 1

    def user(self, name: str) -> User | None:
        return self._directory.users.get(name)

    def tenants(self) -> Iterable[Tenant]:
        return self._directory.tenants.values()

    def tiers(self) -> Iterable[Tier]:
        return self._directory.tiers.values()

    def clusters(self) -> Iterable[Cluster]:
        return self._directory.clusters.values()

    def users(self) -> Iterable[User]:
        return self._directory.users.values()

    def limits(self, tenant: Tenant, user: User | None = None) -> Limits:
        """The effective limits, none of them None: user over tenant over tier over proxy.

        A tenant or user of an older snapshot gets the limits of today, as long as its name exists.
        """
        key = (tenant.name, user.name if user is not None else "")
        limits = self._limits.get(key)
        if limits is None:
            tenant = self._directory.tenants.get(tenant.name, tenant)
            tier = self._directory.tiers.get(tenant.tier)
            limits = tenant.limits.over(tier.limits.over(self._base) if tier is not None else self._base)
            if user is not None:
                limits = self._directory.users.get(user.name, user).limits.over(limits)
            self._limits[key] = limits
        return limits

    def rules(self, tenant: Tenant) -> Rules | None:
        """What SQL the tenant may send; None: any."""
        tenant = self._directory.tenants.get(tenant.name, tenant)
        # Tenants that say nothing of their own share those of their tier.
        key = (tenant.tier, "" if tenant.policy == NO_POLICY else tenant.name)
        if key not in self._rules:
            tier = self._directory.tiers.get(tenant.tier)
            self._rules[key] = Rules.of(tier or Tier(tenant.tier), tenant)
        return self._rules[key]

    def disable(self, kind: Kind, name: str) -> bool:
        """False where nothing of that name exists. Doing it twice does no harm."""
        if name not in (self._directory.tenants if kind == "tenant" else self._directory.clusters):
            return False
        if name not in self._disabled[kind]:
            self._disabled[kind].add(name)
            self.epoch += 1
        return True

    def enable(self, kind: Kind, name: str) -> bool:
        """False where it was not disabled."""
        if name not in self._disabled[kind]:
            return False
        self._disabled[kind].remove(name)
        self.epoch += 1
        return True

    def is_disabled(self, kind: Kind, name: str) -> bool:
        return name in self._disabled[kind]
