"""What administrators do with tenants: each change is decided here, with the tenants that the registry has now, and
carried out by its store in one transaction. Tenants of the file are shown; they change with the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import Any, NamedTuple
from uuid import UUID

from proxy.errors import FeatureNotSupported, InvalidParameter, NoSuchName
from proxy.model import Cluster, ClusterKind, Directory, ServerOptions, Tenant, Tier
from proxy.registry import rows, statements
from proxy.registry.rows import Row, UnusableRow
from proxy.registry.statements import Columns, Living, Wanted
from proxy.registry.store import Store
from proxy.routing import placement
from proxy.routing.placement import Population

TARGET = ("cluster_name", "shard_id", "primary_endpoint", "replica_endpoints", "coordinator_endpoints")
_NOWHERE: dict[str, Any] = dict.fromkeys(TARGET)
_UNSAID = {"max_connections": 10, "min_connections": 1}  # the table's defaults
_TYPES = {kind: name for name, kind in rows.KINDS.items()}


class NoRegistry(FeatureNotSupported):
    """What is asked for needs a registry, and none is configured."""


class OfTheFile(InvalidParameter):
    """The tenant is the configuration file's, where alone it can be changed."""


class WrongValue(InvalidParameter):
    """Columns that do not go together. `field` is one of them."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


class Told(NamedTuple):
    """A tenant of the registry (`columns`) or of the file, with the cluster that serves it ("": none, as `problem`
    says)."""

    name: str
    id: str
    columns: Columns | None
    tenant: Tenant | None
    cluster: str
    problem: str = ""


class Tenancy:
    def __init__(
        self, store: Store | None, directory: Callable[[], Directory], options: Callable[[], ServerOptions]
    ) -> None:
        self._store = store
        self.directory = directory
        self._options = options

    @property
    def store(self) -> Store:
        if self._store is None:
            raise NoRegistry(
                "there is no registry: tenants are those of the configuration file",
                hint="registry_dsn in [proxy] names one; tiergate sql install --registry makes its tables",
            )
        return self._store

    async def close(self) -> None:
        if self._store is not None:
            await self._store.close()

    # --- seeing -------------------------------------------------------------------------------------

    async def find(self, name_or_id: str) -> Told | None:
        """The registry goes before the file."""
        if self._store is not None and (columns := await self._store.find(name_or_id)) is not None:
            return self.told(columns)
        return self.in_file(name_or_id)

    def in_file(self, name_or_id: str) -> Told | None:
        tenants = self.directory().tenants
        found = tenants.get(name_or_id)
        if found is None:
            identity = name_or_id.lower()
            found = next((tenant for tenant in tenants.values() if tenant.id and tenant.id == identity), None)
        return _of_file(found) if found is not None else None

    def home(self, told: Told) -> tuple[str, Cluster | None]:
        """Its tier, and the cluster that serves it, if one does."""
        directory = self.directory()
        if told.columns is None:
            return (told.tenant.tier if told.tenant is not None else ""), directory.clusters.get(told.cluster)
        try:
            own = rows.home(Row.of(told.columns), directory, self._options()).cluster
        except UnusableRow:
            own = None
        return told.columns["tier"], own or directory.clusters.get(told.cluster)

    def told(self, columns: Columns) -> Told:
        cluster, problem = "", ""
        try:
            cluster = self._home(columns)
        except UnusableRow as error:
            problem = error.problem
        return Told(columns["tenant_code"], str(columns["tenant_id"]), columns, None, cluster, problem)

    async def page(self, wanted: Wanted, after: str, limit: int, *, of_file: bool) -> list[Told]:
        """Those behind `after`, in the order of their names; of the file if there is no registry."""
        if not of_file and self._store is not None:
            return [self.told(columns) for columns in await self._store.page(wanted, after, limit)]
        tenants = self.directory().tenants
        found = [tenants[name] for name in sorted(tenants) if name > after and _is(tenants[name], wanted)]
        return [_of_file(tenant) for tenant in found[:limit]]

    def serves(self, cluster: str) -> statements.Cluster:
        """Whom a cluster serves, for a page of them."""
        directory = self.directory()
        shared = [name for name, found in directory.clusters.items() if found.kind is ClusterKind.SHARED]
        return statements.Cluster(
            cluster,
            placement.shard_of(cluster),
            tuple(tier.name for tier in directory.tiers.values() if tier.cluster == cluster),
            tuple(t.name for t in directory.tiers.values() if not t.cluster) if shared == [cluster] else (),
        )

    async def usage(self, tenant_id: str, first: date, last: date) -> list[Columns]:
        return await self.store.usage(UUID(tenant_id), first, last)

    # --- changing -----------------------------------------------------------------------------------

    async def create(self, actor: str, said: Columns, key: str, asked: str) -> tuple[Told, bool]:
        """And whether it was there already, by the idempotency key."""

        def change(said: Columns, living: Living) -> Columns:
            _check_quotas({**_UNSAID, **said}, said)
            tier = self._tier(said["tier"])
            population = self._population(tier, living)
            placement.check_tier(tier, population)
            target = {
                name: said[name] for name in (*TARGET, "cluster_endpoint_type") if said.get(name) is not None
            }
            columns = {**said, **(self._at(tier, target) if target else self._chosen(tier, population))}
            placement.check_shard(tier, self._checked(columns), population)
            return columns

        placed = any(said.get(name) is not None for name in TARGET)
        counting = self._counting(said["tier"], placed=placed)
        columns, known = await self.store.create(actor, said, change, counting, key=key, asked=asked)
        return self.told(columns), known

    async def patch(
        self, actor: str, action: str, name: str, said: Columns, version: int | None
    ) -> tuple[Told, Told]:
        """Before and after."""

        def change(before: Columns, _: Living) -> Columns:
            _check_quotas({**before, **said}, said)
            return said

        return await self._change(actor, action, name, change, version)

    async def place(
        self, actor: str, name: str, tier_name: str, target: Columns, version: int | None
    ) -> tuple[Told, Told]:
        """Another tier, another cluster, or both. Without a `target` it stays where the tier may live, or gets the
        emptiest place of the tier. What it has stored stays where it is."""

        def change(before: Columns, living: Living) -> Columns:
            tier = self._tier(tier_name)
            population = self._population(tier, living)
            if before["tier"] != tier_name:
                placement.check_tier(tier, population)
            old = self._told_cluster(before)
            if target:
                columns = self._at(tier, target)
            elif old in placement.candidates(tier, self.directory().clusters):
                columns = {}
            else:
                columns = self._chosen(tier, population)
            columns["tier"] = tier_name
            new = self._checked({**before, **columns})
            if (new, tier_name) != (old, before["tier"]):
                placement.check_shard(tier, new, population)
            return columns

        counting = self._counting(tier_name, placed=bool(target))
        return await self._change(actor, "tier", name, change, version, counting=counting)

    async def delete(self, actor: str, name: str, version: int | None, *, with_usage: bool) -> Told:
        try:
            return self.told(await self.store.delete(actor, name, version, with_usage=with_usage))
        except NoSuchName as error:
            raise self._nobody(name, error) from None

    async def _change(
        self,
        actor: str,
        action: str,
        name: str,
        change: Callable[[Columns, Living], Columns],
        version: int | None,
        *,
        counting: Iterable[str] | None = None,
    ) -> tuple[Told, Told]:
        try:
            before, after = await self.store.change(actor, action, name, change, version, counting=counting)
        except NoSuchName as error:
            raise self._nobody(name, error) from None
        return self.told(before), self.told(after)

    def _nobody(self, name: str, error: NoSuchName) -> InvalidParameter:
        if self.in_file(name) is None:
            return error
        return OfTheFile(
            f'tenant "{name}" is the configuration file\'s', hint="Change the file, or create it here."
        )

    # --- where tenants live -------------------------------------------------------------------------

    def _tier(self, name: str) -> Tier:
        tier = self.directory().tiers.get(name)
        if tier is None:
            raise WrongValue(f'no tier is called "{name}"', "tier")
        return tier

    def _counting(self, tier_name: str, *, placed: bool) -> Iterable[str] | None:
        """The names of the file's tenants if tenants must be counted; None where there is nothing to be decided by it,
        as it takes a while where there are many."""
        directory = self.directory()
        tier = directory.tiers.get(tier_name)
        if tier is None or not tier.max_tenants:
            free = [] if placed or tier is None else placement.candidates(tier, directory.clusters)
            if len(free) < 2 and not any(
                cluster.kind is ClusterKind.DEDICATED
                for name in free
                if (cluster := directory.clusters.get(name))
            ):
                return None
        return directory.tenants

    def _home(self, columns: Columns) -> str:
        return rows.home(Row.of(columns), self.directory(), self._options()).tenant.cluster

    def _told_cluster(self, columns: Columns) -> str:
        try:
            return self._home(columns)
        except UnusableRow:
            return ""

    def _checked(self, columns: Columns) -> str:
        """The cluster that would serve the row. Raises WrongValue."""
        complete = {"tenant_id": "", "active": True, **columns}
        try:
            return self._home(complete)
        except UnusableRow as error:
            said = [name for name in (*TARGET, "cluster_endpoint_type") if columns.get(name)] or ["tier"]
            named = [name for name in said if name in error.problem]
            raise WrongValue(error.problem, (named or said)[0]) from None

    def _chosen(self, tier: Tier, population: Population) -> dict[str, Any]:
        clusters = self.directory().clusters
        return _on(clusters[placement.choose(tier, clusters, population)])

    def _at(self, tier: Tier, target: Columns) -> dict[str, Any]:
        """The columns of a home that somebody has named."""
        kind = target.get("cluster_endpoint_type")
        if kind is None:
            cluster = self.directory().clusters.get(target.get("cluster_name") or "")
            if cluster is not None:
                kind = _TYPES[cluster.kind]
            elif target.get("primary_endpoint"):
                kind = "dedicated"
            elif tier.name == "vip" or target.get("shard_id") is not None:
                kind = "vip_pool"
            else:
                kind = "shared_pool"
        return {**_NOWHERE, **target, "cluster_endpoint_type": kind}

    def _population(self, tier: Tier, living: Living) -> Population:
        directory = self.directory()
        of_tier: Counter[str] = Counter()
        of_all: Counter[str] = Counter()
        for of, name, shard, own, count in living.homes:
            cluster = name or (f"vip-{shard}" if shard is not None else "")
            if not cluster and not own:
                cluster = _usual(directory, of)
            of_all[cluster] += count
            of_tier[cluster] += count if of == tier.name else 0
        for tenant in directory.tenants.values():
            if tenant.name not in living.of_file:
                of_all[tenant.cluster] += 1
                of_tier[tenant.cluster] += tenant.tier == tier.name
        return Population(of_tier, of_all)


def _check_quotas(columns: Columns, said: Columns) -> None:
    low, high = columns.get("min_connections"), columns.get("max_connections")
    if low and high and low > high:
        field = "min_connections" if "min_connections" in said else "max_connections"
        raise WrongValue(f"min_connections, {low}, would be more than max_connections, {high}", field)


def _on(cluster: Cluster) -> dict[str, Any]:
    """The columns of a home on a configured cluster."""
    shard = placement.shard_of(cluster.name) if cluster.kind is ClusterKind.VIP else None
    name = cluster.name if shard is None else None
    return {
        **_NOWHERE, "cluster_endpoint_type": _TYPES[cluster.kind], "cluster_name": name, "shard_id": shard,
    }  # fmt: skip


def _usual(directory: Directory, tier: str) -> str:
    """Where tenants of a tier live that say nothing else."""
    found = directory.tiers.get(tier)
    if found is not None and found.cluster:
        return found.cluster
    shared = [name for name, cluster in directory.clusters.items() if cluster.kind is ClusterKind.SHARED]
    return shared[0] if len(shared) == 1 else ""


def _of_file(tenant: Tenant) -> Told:
    return Told(tenant.name, tenant.id, None, tenant, tenant.cluster)


def _is(tenant: Tenant, wanted: Wanted) -> bool:
    said: Mapping[str, object] = {
        "tier": tenant.tier,
        "shard_id": tenant.shard_id,
        "cluster": tenant.cluster,
        "state": "active" if tenant.active else "suspended",
    }
    asked = {
        "tier": wanted.tier,
        "shard_id": wanted.shard_id,
        "cluster": None if wanted.cluster is None else wanted.cluster.name,
        "state": wanted.state,
    }
    return all(asked[key] in (None, value) for key, value in said.items())
