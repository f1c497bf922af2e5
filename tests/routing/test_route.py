"""From tenant and user to the pool, and the reasons that SHOW ROUTE gives."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from proxy.model import (
    Cluster,
    ClusterKind,
    Endpoint,
    PoolKey,
    PoolMode,
    Role,
    ServerOptions,
    Tenant,
    Tier,
    User,
)
from proxy.routing.route import Route, explain, route

PRIMARY = Endpoint("p", 5432, Role.PRIMARY)
REPLICA = Endpoint("r", 5432, Role.REPLICA)
COORDINATORS = tuple(Endpoint(f"c{n}", 5432, Role.COORDINATOR) for n in (1, 2))
DEDICATED = Cluster("acme", ClusterKind.DEDICATED, (PRIMARY, REPLICA), pool_size=7)
SHARED = Cluster("shared", ClusterKind.SHARED, COORDINATORS)
TENANT = Tenant("acme", "standard", "shared", placement="the only shared cluster")
TIER = Tier("standard")
USER = User("app", tenants=None)
OPTIONS = ServerOptions()


def test_the_client_as_it_asks() -> None:
    assert route(TENANT, TIER, SHARED, USER, "db", OPTIONS) == Route(
        PoolKey("shared", "db", "app"), PoolMode.TRANSACTION, SHARED, COORDINATORS
    )


def test_replicas_are_no_endpoints_of_a_route() -> None:
    assert route(TENANT, TIER, DEDICATED, USER, "db", OPTIONS).endpoints == (PRIMARY,)


def test_database_and_user_of_the_server() -> None:
    own = replace(USER, server_user="app_rw")
    assert route(TENANT, TIER, SHARED, own, "db", OPTIONS).pool_key == PoolKey("shared", "db", "app_rw")
    fixed = replace(SHARED, dbname="erp", user="pool")
    assert route(TENANT, TIER, fixed, own, "db", OPTIONS).pool_key == PoolKey("shared", "erp", "pool")


MODES = (None, PoolMode.SESSION, PoolMode.STATEMENT)


@pytest.mark.parametrize(("user", "tenant", "cluster", "tier"), list(product(MODES, repeat=4)))
def test_the_nearest_pool_mode_wins(
    user: PoolMode | None, tenant: PoolMode | None, cluster: PoolMode | None, tier: PoolMode | None
) -> None:
    found = route(
        replace(TENANT, pool_mode=tenant),
        replace(TIER, pool_mode=tier),
        replace(SHARED, pool_mode=cluster),
        replace(USER, pool_mode=user),
        "db",
        OPTIONS,
    )
    assert found.pool_mode is next((m for m in (user, tenant, cluster, tier) if m), PoolMode.TRANSACTION)


def test_explained_step_by_step() -> None:
    cluster = replace(DEDICATED, dbname="erp")
    user = replace(USER, server_user="app_rw", pool_mode=PoolMode.SESSION)
    steps = explain(TENANT, TIER, cluster, user, "db", OPTIONS)
    assert [(step, value) for step, value, _ in steps] == [
        ("tenant", "acme"),
        ("tier", "standard"),
        ("cluster", "acme"),
        ("endpoint", "p:5432"),
        ("replica", "r:5432"),
        ("database", "erp"),
        ("user", "app_rw"),
        ("pool_mode", "session"),
        ("pool_size", "7"),
    ]
    reasons = {step: reason for step, _, reason in steps}
    assert reasons["database"] == "dbname of cluster acme"
    assert reasons["user"] == "server_user of app"
    assert reasons["pool_mode"] == "said by the user"
    assert reasons["cluster"] == "the only shared cluster"
    assert reasons["tier"] == "[tenant.acme] tier"


def test_who_is_stored_has_its_tier_from_there() -> None:
    steps = explain(replace(TENANT, placement="registry: shard_id = 1"), TIER, DEDICATED, None, "", OPTIONS)
    assert ("tier", "standard", "registry: tier") in steps


def test_explained_without_a_user() -> None:
    steps = {
        step: (value, reason) for step, value, reason in explain(TENANT, TIER, SHARED, None, "db", OPTIONS)
    }
    assert steps["user"] == ("", "the client's own, or its server_user")
    assert steps["database"] == ("db", "as the client asks")
    assert steps["pool_mode"] == ("transaction", "[proxy] pool_mode")


def test_explained_where_it_would_be_refused() -> None:
    stranger = replace(USER, tenants=frozenset())
    steps = explain(replace(TENANT, active=False), TIER, SHARED, stranger, "db", OPTIONS)
    assert steps[0][2] == "not active: logins are refused"
    assert steps[-1][:2] == ("refused", "app")


def test_the_explanation_agrees_with_the_route() -> None:
    for cluster, user in product((SHARED, DEDICATED), (USER, replace(USER, server_user="x"))):
        found = route(TENANT, TIER, cluster, user, "db", OPTIONS)
        steps = explain(TENANT, TIER, cluster, user, "db", OPTIONS)
        rows = {step: value for step, value, _ in steps}
        assert PoolKey(rows["cluster"], rows["database"], rows["user"]) == found.pool_key
        assert rows["pool_mode"] == found.pool_mode.value
        assert [value for step, value, _ in steps if step == "endpoint"] == [str(e) for e in found.endpoints]
