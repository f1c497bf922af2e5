"""Which cluster a new tenant of a tier gets, and whether there is room for it: by counts, without asking anybody."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from proxy.errors import InvalidParameter
from proxy.model import Cluster, ClusterKind, Tier

_SHARD = re.compile(r"vip-(\d+)", re.ASCII)
_KINDS = {"enterprise": ClusterKind.DEDICATED, "vip": ClusterKind.VIP}


class NoRoom(InvalidParameter):
    """A tier or its shards are full. `field` is what would have to be another."""

    def __init__(self, message: str, field: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.field = field


@dataclass(frozen=True, slots=True)
class Population:
    """Tenants by cluster: of the tier in question, and of all tiers."""

    of_tier: Mapping[str, int]
    of_all: Mapping[str, int]


def shard_of(cluster: str) -> int | None:
    match = _SHARD.fullmatch(cluster)
    return int(match[1]) if match else None


def shard_size(tier: Tier) -> int:
    """How many tenants of the tier one of its shards takes; 0 is no limit."""
    return -(-tier.max_tenants // tier.default_shards) if tier.max_tenants and tier.default_shards else 0


def candidates(tier: Tier, clusters: Mapping[str, Cluster]) -> list[str]:
    """The clusters that tenants of the tier are placed on: the tier's own, or all of its kind."""
    if tier.cluster:
        return [tier.cluster]
    kind = _KINDS.get(tier.name, ClusterKind.SHARED)
    named = [name for name, found in clusters.items() if found.kind is kind]
    return [name for name in named if shard_of(name) is not None] if kind is ClusterKind.VIP else named


def check_tier(tier: Tier, population: Population) -> None:
    """Raises NoRoom if the tier takes no more tenants."""
    if 0 < tier.max_tenants <= sum(population.of_tier.values()):
        raise NoRoom(f"tier {tier.name} has its max_tenants, {tier.max_tenants}", "tier")


def check_shard(tier: Tier, cluster: str, population: Population) -> None:
    """Raises NoRoom if `cluster` is a shard that takes no more tenants of the tier."""
    size = shard_size(tier)
    if size and shard_of(cluster) is not None and population.of_tier.get(cluster, 0) >= size:
        raise NoRoom(f"{cluster} has the {size} tenants that a shard of tier {tier.name} takes", "shard_id")


def choose(tier: Tier, clusters: Mapping[str, Cluster], population: Population) -> str:
    """The cluster with the fewest tenants of those that have room; a dedicated one has if it is nobody's."""
    size, found = shard_size(tier), candidates(tier, clusters)
    free = []
    for name in found:
        cluster = clusters.get(name)
        if cluster is None:
            continue
        here = population.of_tier.get(name, 0)
        if cluster.kind is ClusterKind.DEDICATED and not tier.cluster:
            if not population.of_all.get(name, 0):
                free.append((0, name))
        elif not (size and shard_of(name) is not None and here >= size):
            free.append((population.of_all.get(name, 0), name))
    if free:
        return min(free)[1]
    if _KINDS.get(tier.name) is ClusterKind.DEDICATED:
        raise NoRoom(
            f"no dedicated cluster is free for a tenant of tier {tier.name}",
            "primary_endpoint",
            "name its servers (primary_endpoint), or a configured cluster (cluster_name)",
        )
    if not found:
        raise NoRoom(f"no cluster is configured for tier {tier.name}", "cluster_name")
    raise NoRoom(f"every shard of tier {tier.name} has its {size} tenants", "shard_id", "configure another")
