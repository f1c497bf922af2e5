"""The registry in memory: look-ups by name and id, limits laid over each other, changes and their epoch."""

from __future__ import annotations

import asyncio
from dataclasses import fields, replace

from hypothesis import given
from hypothesis import strategies as st

from proxy.model import (
    ClientOptions,
    Cluster,
    ClusterKind,
    Directory,
    Endpoint,
    Limits,
    Role,
    SqlPolicy,
    Tenant,
    Tier,
    User,
)
from proxy.registry.cache import Cache
from proxy.registry.memory import Registry
from proxy.registry.rows import Row

ID = "0b5a1d5e-6f0f-4f0e-9a53-0d5f2a1c7e01"
NO_LIMITS = Limits()
CLUSTER = Cluster("shared", ClusterKind.SHARED, (Endpoint("c", 5432, Role.COORDINATOR),))


def directory(*tenants: Tenant, tier: Limits = NO_LIMITS, users: tuple[User, ...] = ()) -> Directory:
    return Directory(
        {u.name: u for u in users},
        {"shared": CLUSTER},
        {"standard": Tier("standard", limits=tier)},
        {t.name: t for t in tenants},
    )


ACME = Tenant("acme", "standard", "shared", id=ID)
BETA = Tenant("beta", "standard", "shared")


def test_a_tenant_is_found_by_name_and_by_id() -> None:
    registry = Registry(directory(ACME, BETA), ClientOptions())
    assert registry.known("acme") is ACME
    assert registry.known(ID) is ACME
    assert registry.known(ID.upper()) is ACME
    assert registry.known("ACME") is None
    assert registry.known("") is None
    assert asyncio.run(registry.find("beta")) is BETA
    assert asyncio.run(registry.find("nobody")) is None
    assert list(registry.tenants()) == [ACME, BETA]


def test_rules_on_sql_are_the_tenants_over_its_tiers_and_shared_where_it_has_none() -> None:
    own = replace(BETA, policy=SqlPolicy(max_joins=0, read_only=True))
    tier = Tier("standard", policy=SqlPolicy(max_joins=3))
    other = Tenant("other", "standard", "shared")
    lists = replace(directory(ACME, own, other), tiers={"standard": tier})
    registry = Registry(lists, ClientOptions())
    rules = registry.rules(ACME)
    assert rules is not None
    assert rules is registry.rules(other)
    assert str(rules) == "max_joins = 3"
    assert str(registry.rules(own)) == "read_only = true"
    registry.replace(directory(ACME, own), ClientOptions())
    assert registry.rules(ACME) is None
    assert str(registry.rules(BETA)) == "read_only = true"  # what its name has today


def test_the_other_things_are_found_by_name() -> None:
    user = User("app")
    registry = Registry(directory(users=(user,)), ClientOptions())
    assert registry.user("app") is user
    assert registry.cluster("shared") is CLUSTER
    assert registry.tier("standard") == Tier("standard")
    assert (registry.user("x"), registry.cluster("x"), registry.tier("x")) == (None, None, None)
    assert list(registry.clusters()) == [CLUSTER]
    assert list(registry.users()) == [user]
    assert [tier.name for tier in registry.tiers()] == ["standard"]


NAMES = [f.name for f in fields(Limits)]
LIMITS = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 9)).map(lambda said: Limits(**said))


@given(LIMITS, LIMITS, LIMITS, LIMITS)
def test_user_goes_before_tenant_before_tier_before_proxy(
    user: Limits, tenant: Limits, tier: Limits, proxy: Limits
) -> None:
    acme, app = replace(ACME, limits=tenant), User("app", limits=user)
    registry = Registry(directory(acme, tier=tier, users=(app,)), ClientOptions(limits=proxy))
    with_user, without = registry.limits(acme, app), registry.limits(acme)
    for name in NAMES:
        said = [getattr(limits, name) for limits in (user, tenant, tier, proxy)]
        assert getattr(with_user, name) == next((v for v in said if v is not None), 0)
        assert getattr(without, name) == next((v for v in said[1:] if v is not None), 0)


def test_limits_are_worked_out_once_until_something_changes() -> None:
    registry = Registry(directory(ACME, tier=Limits(max_qps=5)), ClientOptions())
    first = registry.limits(ACME)
    assert registry.limits(ACME) is first
    registry.replace(directory(ACME, tier=Limits(max_qps=6)), ClientOptions())
    assert registry.limits(ACME).max_qps == 6


def test_an_old_tenant_gets_the_limits_of_today() -> None:
    registry = Registry(directory(ACME), ClientOptions())
    registry.replace(directory(replace(ACME, limits=Limits(max_qps=7))), ClientOptions())
    assert registry.limits(ACME).max_qps == 7
    registry.replace(directory(), ClientOptions())
    assert registry.limits(replace(ACME, limits=Limits(max_qps=8))).max_qps == 8


def test_an_old_user_gets_the_limits_of_today() -> None:
    old, new = User("app", limits=Limits(burst=1)), User("app", limits=Limits(burst=2))
    registry = Registry(directory(ACME, users=(old,)), ClientOptions())
    registry.replace(directory(ACME, users=(new,)), ClientOptions())
    assert registry.limits(ACME, old).burst == 2


def test_every_change_is_a_new_epoch() -> None:
    registry = Registry(directory(ACME), ClientOptions())
    seen = [registry.epoch]
    registry.replace(directory(ACME), ClientOptions())
    seen.append(registry.epoch)
    assert registry.disable("tenant", "acme")
    seen.append(registry.epoch)
    assert registry.enable("tenant", "acme")
    seen.append(registry.epoch)
    assert seen == sorted(set(seen))


def test_what_changes_nothing_is_no_new_epoch() -> None:
    registry = Registry(directory(ACME), ClientOptions())
    assert registry.disable("tenant", "acme")
    epoch = registry.epoch
    assert registry.disable("tenant", "acme")
    assert not registry.disable("tenant", "nobody")
    assert not registry.enable("cluster", "shared")
    assert registry.epoch == epoch


def test_tenants_and_clusters_are_disabled_apart() -> None:
    same = Tenant("shared", "standard", "shared")
    registry = Registry(directory(same), ClientOptions())
    assert registry.disable("cluster", "shared")
    assert registry.is_disabled("cluster", "shared")
    assert not registry.is_disabled("tenant", "shared")
    assert registry.enable("cluster", "shared")
    assert not registry.is_disabled("cluster", "shared")


def test_a_reload_keeps_what_is_disabled_as_long_as_it_exists() -> None:
    registry = Registry(directory(ACME, BETA), ClientOptions())
    registry.disable("tenant", "acme")
    registry.disable("tenant", "beta")
    registry.replace(directory(ACME), ClientOptions())
    registry.replace(directory(ACME, BETA), ClientOptions())
    assert registry.is_disabled("tenant", "acme")
    assert not registry.is_disabled("tenant", "beta")


def test_a_reload_forgets_the_ids_that_are_gone() -> None:
    registry = Registry(directory(ACME), ClientOptions())
    registry.replace(directory(replace(ACME, id="")), ClientOptions())
    assert registry.known(ID) is None


def test_a_reload_gives_rows_the_tiers_and_clusters_of_today() -> None:
    rows = Cache(10, 300.0, 5.0)
    registry = Registry(directory(BETA), ClientOptions(), rows=rows)
    assert not registry.lives_alone(replace(CLUSTER, kind=ClusterKind.DEDICATED))
    row = Row(ID, "stored", "standard", "shared_pool", cluster_name="new", max_qps=5)
    assert registry.take(row)
    assert not registry.take(row)
    stored = registry.known("stored")
    assert stored is not None
    assert stored.cluster == ""  # it cannot be served
    lists = directory(BETA)
    lists = replace(lists, clusters={**lists.clusters, "new": replace(CLUSTER, name="new")})
    registry.replace(lists, ClientOptions())
    stored = registry.known(ID)
    assert stored is not None
    assert stored.cluster == "new"
    assert registry.limits(stored).max_qps == 5
    assert {tenant.name for tenant in registry.tenants()} == {"beta", "stored"}
    assert registry.disable("tenant", "stored")
    registry.replace(directory(BETA), ClientOptions())
    assert registry.is_disabled("tenant", "stored")
    assert registry.ended("stored") == "has been suspended"


def test_a_tenant_that_the_file_has_no_more_is_not_suspended() -> None:
    registry = Registry(directory(ACME), ClientOptions())
    registry.replace(directory(BETA), ClientOptions())
    assert registry.ended("acme") == "has been deleted"
    assert registry.ended("beta") == ""


def test_an_id_of_the_file_leads_to_the_row_of_that_name() -> None:
    registry = Registry(directory(ACME), ClientOptions(), rows=Cache(10, 300.0, 5.0))
    registry.take(Row(ID[:-1] + "9", "acme", "standard", "shared_pool", max_qps=5))
    found = registry.known(ID)
    assert found is not None
    assert found.limits.max_qps == 5
