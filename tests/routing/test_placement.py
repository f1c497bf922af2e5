"""Where a new tenant goes: the emptiest of its tier's clusters that has room."""

from __future__ import annotations

import pytest

from proxy.model import Cluster, ClusterKind, Tier
from proxy.routing.placement import (
    NoRoom,
    Population,
    candidates,
    check_shard,
    check_tier,
    choose,
    shard_of,
    shard_size,
)

NAMES = {
    "ent": ClusterKind.DEDICATED,
    "ent2": ClusterKind.DEDICATED,
    "vip-1": ClusterKind.VIP,
    "vip-2": ClusterKind.VIP,
    "vip-own": ClusterKind.VIP,
    "shared": ClusterKind.SHARED,
    "shared-b": ClusterKind.SHARED,
}
CLUSTERS = {name: Cluster(name, kind, ()) for name, kind in NAMES.items()}
VIP = Tier("vip", max_tenants=5, default_shards=2)
NOBODY = Population({}, {})


def living(**counts: int) -> Population:
    named = {name.replace("_", "-"): count for name, count in counts.items()}
    return Population(named, named)


def test_candidates() -> None:
    assert candidates(VIP, CLUSTERS) == ["vip-1", "vip-2"]
    assert candidates(Tier("enterprise"), CLUSTERS) == ["ent", "ent2"]
    assert candidates(Tier("free"), CLUSTERS) == ["shared", "shared-b"]
    assert candidates(Tier("free", cluster="ent"), CLUSTERS) == ["ent"]


def test_shards() -> None:
    assert (shard_of("vip-12"), shard_of("vip-x"), shard_of("shared")) == (12, None, None)
    assert (shard_size(VIP), shard_size(Tier("vip", max_tenants=5)), shard_size(Tier("vip"))) == (3, 0, 0)


def test_the_emptiest_is_chosen() -> None:
    assert choose(VIP, CLUSTERS, NOBODY) == "vip-1"
    assert choose(VIP, CLUSTERS, living(vip_1=2, vip_2=1)) == "vip-2"
    assert choose(Tier("standard"), CLUSTERS, living(shared=10, shared_b=9)) == "shared-b"
    assert choose(Tier("enterprise"), CLUSTERS, living(ent=1)) == "ent2"
    assert choose(Tier("free", cluster="ent"), CLUSTERS, living(ent=10)) == "ent"


@pytest.mark.parametrize(
    ("tier", "population", "field"),
    [
        (VIP, living(vip_1=3, vip_2=3), "shard_id"),
        (Tier("enterprise"), living(ent=1, ent2=1), "primary_endpoint"),
    ],
)
def test_no_room(tier: Tier, population: Population, field: str) -> None:
    with pytest.raises(NoRoom) as full:
        choose(tier, CLUSTERS, population)
    assert full.value.field == field
    with pytest.raises(NoRoom):
        choose(Tier("standard"), {}, NOBODY)


def test_caps() -> None:
    check_tier(VIP, living(vip_1=4))
    check_tier(Tier("free"), living(shared=10_000))
    check_shard(VIP, "vip-1", living(vip_1=2, vip_2=3))
    check_shard(VIP, "shared", living(shared=10))
    with pytest.raises(NoRoom):
        check_tier(VIP, living(vip_1=2, vip_2=3))
    with pytest.raises(NoRoom):
        check_shard(VIP, "vip-1", living(vip_1=3))
