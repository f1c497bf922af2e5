"""Registry rows: every source they come from, and the tenants and clusters that they mean."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model import Cluster, ClusterKind, Directory, Endpoint, Limits, Role, ServerOptions, Tier
from proxy.registry.rows import Home, Row, UnusableRow, home

ID = "0b5a1d5e-6f0f-4f0e-9a53-0d5f2a1c7e01"


def coordinators(*hosts: str) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(host, 5432, Role.COORDINATOR) for host in hosts)


SHARED = Cluster("shared", ClusterKind.SHARED, coordinators("c1", "c2"), user="tiergate", password="x")
VIP_1 = Cluster("vip-1", ClusterKind.VIP, coordinators("v1"))
TIERS = {name: Tier(name) for name in ("enterprise", "vip", "standard", "free")}
DIRECTORY = Directory({}, {"shared": SHARED, "vip-1": VIP_1}, TIERS, {})
OPTIONS = ServerOptions(default_pool_size=15)
STANDARD = Row(ID, "acme", "standard", "shared_pool")
DEDICATED = Row(
    ID, "corp", "enterprise", "dedicated",
    primary_endpoint="pg1", replica_endpoints=("pg2:5433",), max_connections=40, min_connections=2,
)  # fmt: skip
VIP = Row(ID, "gold", "vip", "vip_pool", shard_id=1)


def of(row: Row, directory: Directory = DIRECTORY) -> Home:
    return home(row, directory, OPTIONS)


def test_a_standard_row_lives_on_the_only_shared_cluster() -> None:
    tenant, own = of(
        replace(STANDARD, max_connections=10, max_qps=50, query_timeout_ms=1500, max_storage_gb=2)
    )
    assert (tenant.name, tenant.id, tenant.tier, tenant.cluster) == ("acme", ID, "standard", "shared")
    assert own is None
    assert tenant.active
    assert tenant.limits == Limits(max_connections=10, max_qps=50.0, query_timeout=1.5, max_storage_gb=2.0)


def test_a_null_says_nothing_and_a_zero_lifts_the_limit() -> None:
    assert of(STANDARD).tenant.limits == Limits()
    lifted = of(replace(STANDARD, max_connections=0, max_qps=0, query_timeout_ms=0)).tenant.limits
    assert (lifted.max_connections, lifted.max_qps, lifted.query_timeout) == (0, 0.0, 0.0)


def test_a_dedicated_row_describes_its_own_cluster() -> None:
    tenant, own = of(DEDICATED)
    assert own == Cluster(
        "corp",
        ClusterKind.DEDICATED,
        (Endpoint("pg1", 5432, Role.PRIMARY), Endpoint("pg2", 5433, Role.REPLICA)),
        pool_size=40,
        min_pool_size=2,
    )
    assert tenant.cluster == "corp"
    assert of(replace(DEDICATED, max_connections=None)).cluster.pool_size == 15  # type: ignore[union-attr]


def test_another_cluster_of_the_tenants_name_is_left_alone() -> None:
    other = Cluster("corp", ClusterKind.DEDICATED, (Endpoint("old", 5432, Role.PRIMARY),))
    found = of(DEDICATED, replace(DIRECTORY, clusters={"corp": other}))
    assert found.tenant.cluster == "corp@pg1:5432,pg2:5433"


def test_endpoints_of_a_configured_cluster_are_that_cluster() -> None:
    named = replace(STANDARD, coordinator_endpoints=("c2", "c1:5432"), shard_id=7)
    assert of(named) == (of(named).tenant, None)
    assert of(named).tenant.cluster == "shared"
    assert of(replace(VIP, coordinator_endpoints=("v1",))).tenant.cluster == "vip-1"


def test_rows_that_name_the_same_endpoints_share_a_cluster_and_others_never_do() -> None:
    one = of(replace(VIP, coordinator_endpoints=("v2", "v3")))
    two = of(replace(VIP, tenant_code="silver", coordinator_endpoints=("v3", "v2")))
    three = of(replace(VIP, coordinator_endpoints=("v4",)))
    assert one.tenant.cluster == two.tenant.cluster == "vip-1@v2:5432,v3:5432"
    assert three.tenant.cluster == "vip-1@v4:5432"
    assert one.cluster is not None
    assert one.cluster.pool_size == 15


def test_the_order_of_what_says_where_it_lives() -> None:
    tiers = TIERS | {
        "standard": Tier("standard", cluster="vip-1"),
        "enterprise": Tier("enterprise", cluster="shared"),
    }
    with_tier = replace(DIRECTORY, tiers=tiers)
    everything = replace(DEDICATED, cluster_name="shared")
    assert of(everything).tenant.cluster == "shared"
    assert of(everything).tenant.placement == "registry: cluster_name"
    assert of(VIP).tenant.placement == "registry: shard_id = 1"
    assert of(STANDARD, with_tier).tenant.cluster == "vip-1"
    assert (
        of(replace(DEDICATED, primary_endpoint=None, replica_endpoints=()), with_tier).tenant.cluster
        == "shared"
    )


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (replace(STANDARD, tier="gold"), 'no tier is called "gold"'),
        (replace(STANDARD, cluster_endpoint_type="own"), 'cluster_endpoint_type is "own"'),
        (replace(STANDARD, cluster_name="nowhere"), 'no cluster is called "nowhere"'),
        (replace(VIP, shard_id=9), 'no cluster is called "vip-9"'),
        (replace(VIP, shard_id=None), "it names no cluster"),
        (replace(DEDICATED, primary_endpoint="", replica_endpoints=()), "needs primary_endpoint or cluster_name"),
        (replace(DEDICATED, primary_endpoint=None), "replica_endpoints without primary_endpoint"),
        (replace(DEDICATED, coordinator_endpoints=("c1",)), "two clusters"),
        (
            replace(DEDICATED, primary_endpoint=None, replica_endpoints=(), coordinator_endpoints=("x",)),
            "not coordinator_endpoints",
        ),
        (replace(DEDICATED, primary_endpoint="a b"), '"a b" is no endpoint'),
        (replace(DEDICATED, replica_endpoints=("pg1:5432",)), "an endpoint twice"),
        (replace(STANDARD, max_connections=-1), "max_connections is negative"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_says_why(row: Row, problem: str) -> None:
    with pytest.raises(UnusableRow, match="cannot be served now") as told:
        of(row)
    assert problem in told.value.problem
    assert told.value.sqlstate == "57P03"
    assert problem not in told.value.message


def test_several_shared_clusters_are_no_answer() -> None:
    clusters = {**DIRECTORY.clusters, "other": replace(SHARED, name="other")}
    with pytest.raises(UnusableRow):
        of(STANDARD, replace(DIRECTORY, clusters=clusters))


def test_a_record_and_its_json_are_the_same_row() -> None:
    record: dict[str, Any] = {
        "tenant_id": UUID(ID), "tenant_code": "acme", "tenant_name": "Acme", "tier": "standard",
        "cluster_endpoint_type": "shared_pool", "replica_endpoints": None, "coordinator_endpoints": ["c1"],
        "active": True, "expires_at": datetime(2030, 1, 1, tzinfo=UTC), "version": 3,
    }  # fmt: skip
    row = Row.of(record)
    assert row.coordinator_endpoints == ("c1",)
    assert row.expires_at == datetime(2030, 1, 1, tzinfo=UTC).timestamp()
    assert Row.of(record | {"tenant_id": ID.upper(), "expires_at": "2030-01-01T01:00:00+01:00"}) == row
    assert Row.of({key: value for key, value in record.items() if key != "version"}).version == 0


@pytest.mark.parametrize(
    ("said", "moment"),
    [
        (None, None),
        ("infinity", None),
        ("-infinity", 0.0),
        (datetime.max, None),
        (datetime.min, 0.0),
        (12, 12.0),
    ],
)
def test_times_without_end(said: object, moment: float | None) -> None:
    record = {"tenant_id": ID, "tenant_code": "a", "tier": "free", "cluster_endpoint_type": "shared_pool"}
    assert Row.of(record | {"expires_at": said}).expires_at == moment


def test_a_state_that_is_null_is_not_active() -> None:
    record = {"tenant_id": ID, "tenant_code": "a", "tier": "free", "cluster_endpoint_type": "shared_pool"}
    assert not Row.of(record | {"active": None}).active


@given(
    st.builds(
        Row,
        tenant_id=st.just(ID),
        tenant_code=st.text(min_size=1),
        tier=st.text(),
        cluster_endpoint_type=st.text(),
        replica_endpoints=st.lists(st.text()).map(tuple),
        shard_id=st.none() | st.integers(),
        expires_at=st.none() | st.floats(allow_nan=False),
        active=st.booleans(),
    )
)
def test_json_gives_the_row_back(row: Row) -> None:
    assert Row.from_json(row.to_json()) == row


@pytest.mark.parametrize("text", ["", "[]", "null", '{"tenant_code": "a"}', '{"tenant_id": 1', b"\xff"])
def test_what_is_no_row_is_none(text: str | bytes) -> None:
    assert Row.from_json(text) is None
