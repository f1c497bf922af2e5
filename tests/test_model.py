"""Limits laid over limits, who may act for whom, and how an endpoint is written."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest

from proxy.model import UNLIMITED, Cluster, ClusterKind, Endpoint, Limits, Role, Tenant, User


def test_what_is_said_above_holds_and_the_rest_is_as_below() -> None:
    tier = Limits(max_connections=10, query_timeout=5.0, max_queue=7)
    tenant = Limits(max_connections=2, query_timeout=0.0)
    found = tenant.over(tier)
    assert found == Limits(max_connections=2, query_timeout=0.0, max_queue=7)
    assert Limits().over(tier) == tier
    assert tier.over(Limits()) == tier


def test_unlimited_leaves_no_question_open() -> None:
    assert all(getattr(UNLIMITED, field.name) == 0 for field in fields(UNLIMITED))
    assert Limits(max_qps=3.5).over(UNLIMITED).max_qps == 3.5


def test_values_are_frozen_and_secrets_are_not_shown() -> None:
    user = User("app", password="secret-1", server_password="secret-2")
    cluster = Cluster("c", ClusterKind.SHARED, (), password="secret-3")
    assert "secret" not in repr((user, cluster))
    with pytest.raises(FrozenInstanceError):
        user.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("tenants", "may"),
    [
        (None, True),
        (frozenset({"acme"}), True),
        (frozenset({"1-2"}), True),
        (frozenset({"other"}), False),
        (frozenset(), False),
    ],
)
def test_may_act_for(tenants: frozenset[str] | None, may: bool) -> None:
    assert User("app", tenants=tenants).may_act_for(Tenant("acme", "vip", "c", id="1-2")) is may


def test_a_tenant_without_id_is_not_reached_by_an_empty_one() -> None:
    assert not User("app", tenants=frozenset({""})).may_act_for(Tenant("acme", "vip", "c"))


def test_endpoints() -> None:
    primary = Endpoint("pg1", 5432, Role.PRIMARY)
    replica = Endpoint("::1", 5433, Role.REPLICA)
    assert (str(primary), str(replica)) == ("pg1:5432", "[::1]:5433")
    cluster = Cluster("c", ClusterKind.DEDICATED, (primary, replica))
    assert cluster.with_role(Role.PRIMARY, Role.COORDINATOR) == (primary,)
    assert cluster.with_role(Role.REPLICA) == (replica,)
