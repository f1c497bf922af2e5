"""Where tenants live: configured clusters, clusters that tenants describe, and what contradicts."""

# ruff: noqa: E501  a case of a table stays on one line

from __future__ import annotations

import pytest

from proxy.model import ClusterKind, Endpoint, PoolMode, Role
from tests.settings.parsing import bad, good

SHARED = '[cluster.shared]\nkind = "shared"\ncoordinators = ["c1", "c2:6000"]\n'


def test_a_configured_cluster() -> None:
    cluster = good("""
        [cluster.a]
        kind = "dedicated"
        primary = "[::1]:5433"
        replicas = ["r1", "/run/pg:5434"]
        dbname = "db"
        user = "u"
        password = "p"
        pool_size = 7
        read_pool_size = 9
        min_pool_size = 2
        max_connections = 50
        pool_mode = "session"
    """).directory.clusters["a"]
    assert cluster.kind is ClusterKind.DEDICATED
    assert cluster.endpoints == (
        Endpoint("::1", 5433, Role.PRIMARY),
        Endpoint("r1", 5432, Role.REPLICA),
        Endpoint("/run/pg", 5434, Role.REPLICA),
    )
    assert (cluster.dbname, cluster.user, cluster.password) == ("db", "u", "p")
    assert (cluster.pool_size, cluster.read_pool_size, cluster.min_pool_size) == (7, 9, 2)
    assert (cluster.max_connections, cluster.pool_mode) == (50, PoolMode.SESSION)


def test_a_limit_that_follows_latency() -> None:
    on = "adaptive_concurrency = true\nmax_connections = 50\n"
    text = f"[cluster.a]\nprimary = 'p'\n{on}[cluster.b]\nprimary = 'q'\n{on}min_concurrency = 7\n"
    clusters = good(text + "[cluster.c]\nprimary = 'r'\n").directory.clusters
    assert [(c.adaptive_concurrency, c.min_concurrency) for c in clusters.values()] == [
        (True, 4), (True, 7), (False, 4),
    ]  # fmt: skip


def test_sizes_default_to_the_proxys() -> None:
    text = "[proxy]\ndefault_pool_size = 33\nmin_pool_size = 3\n"
    clusters = good(
        text + SHARED + '[tenant.t]\ntier = "enterprise"\n[tenant.t.postgresql]\nprimary.host = "p"\n'
    ).directory.clusters
    assert [(c.pool_size, c.min_pool_size) for c in clusters.values()] == [(33, 3), (33, 3)]


def test_the_kind_follows_from_the_endpoints() -> None:
    clusters = good('[cluster.a]\nprimary = "p"\n[cluster.b]\ncoordinators = "c"\n').directory.clusters
    assert [c.kind for c in clusters.values()] == [ClusterKind.DEDICATED, ClusterKind.SHARED]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[cluster.a]\n", "[cluster.a]: needs primary or coordinators"),
        ('[cluster.a]\nprimary = "p"\nadaptive_concurrency = true', "[cluster.a] adaptive_concurrency: needs max_connections"),
        (
            '[cluster.a]\nprimary = "p"\nmax_connections = 3\nmin_concurrency = 4',
            "[cluster.a] min_concurrency: is 4, more than max_connections, 3",
        ),
        ('[cluster.a]\nprimary = "p"\ncoordinators = ["c"]\nkind = "shared"', "[cluster.a] primary: a cluster has"),
        ('[cluster.a]\nkind = "dedicated"\ncoordinators = ["c"]', '[cluster.a] coordinators: a cluster of kind "dedicated"'),
        ('[cluster.a]\ncoordinators = ["c"]\nreplicas = ["r"]', "[cluster.a] replicas: only a cluster with a primary"),
        ('[cluster.a]\nprimary = "p"\nreplicas = ["p:5432"]', "[cluster.a]: names p:5432 twice"),
        ('[cluster.a]\nprimary = "p"\npool_size = 1\nmin_pool_size = 2', "[cluster.a] min_pool_size: is 2, more than"),
        ('[cluster.a]\nprimary = "p:x"', '[cluster.a] primary: port "x" is not a number from 1 to 65535'),
        ('[cluster.a]\nkind = "vipp"\nprimary = "p"', "[cluster.a] kind: must be one of dedicated, vip, shared"),
        ('[cluster.a]\nprimary.hots = "p"\ncoordinators = ["c"]', "[cluster.a] primary: unknown key hots"),
    ],
)  # fmt: skip
def test_a_cluster_that_makes_no_sense(text: str, problem: str) -> None:
    assert bad(text).startswith(f"f.toml: {problem}")


def test_enterprise_describes_a_cluster_of_its_own() -> None:
    settings = good("""
        [tenant.e]
        tier = "enterprise"
        [tenant.e.postgresql]
        cluster_type = "dedicated"
        primary.host = "p"
        primary.port = 5555
        read_replicas = ["r1", "r2:1"]
        pool_size = 200
        read_pool_size = 400
        dbname = "erp"
        user = "u"
        password = "s"
    """)
    assert settings.directory.tenants["e"].cluster == "e"
    assert settings.directory.tenants["e"].limits.max_connections is None
    cluster = settings.directory.clusters["e"]
    assert (cluster.kind, cluster.pool_size, cluster.read_pool_size) == (ClusterKind.DEDICATED, 200, 400)
    assert [str(e) for e in cluster.endpoints] == ["p:5555", "r1:5432", "r2:1"]
    assert (cluster.dbname, cluster.user, cluster.password) == ("erp", "u", "s")


def vip(name: str, shard: int | None, hosts: str, more: str = "") -> str:
    said = f"shard_id = {shard}\n" if shard is not None else ""
    return f'[tenant.{name}]\ntier = "vip"\n{said}[tenant.{name}.postgresql]\ncoordinator_hosts = {hosts}\n{more}\n'


def test_vip_tenants_of_one_shard_share_its_cluster() -> None:
    settings = good(
        vip("a", 1, '["c1", "c2"]', "pool_size = 100")
        + vip("b", 1, '["c2", "c1"]', "pool_size = 200")
        + vip("c", 1, '["c1", "c2"]', "pool_size = 50")
        + vip("d", 2, '["c3"]')
    )
    assert {t.name: t.cluster for t in settings.directory.tenants.values()} == {
        "a": "vip-1", "b": "vip-1", "c": "vip-1", "d": "vip-2",
    }  # fmt: skip
    assert settings.directory.clusters["vip-1"].kind is ClusterKind.VIP
    assert [str(e) for e in settings.directory.clusters["vip-1"].endpoints] == ["c1:5432", "c2:5432"]
    assert settings.directory.clusters["vip-1"].pool_size == 200
    assert [settings.directory.tenants[n].limits.max_connections for n in "abcd"] == [100, 200, 50, None]


def test_a_limit_said_goes_before_the_pool_size() -> None:
    text = '[tenant.a]\ntier = "vip"\nshard_id = 1\nlimits = { max_connections = 7 }\n'
    text += '[tenant.a.postgresql]\ncoordinator_hosts = ["c"]\npool_size = 100\n'
    assert good(text).directory.tenants["a"].limits.max_connections == 7


def test_a_shard_without_hosts_is_the_configured_cluster() -> None:
    text = '[cluster.vip-3]\nkind = "vip"\ncoordinators = ["c"]\npool_size = 20\n'
    text += '[tenant.a]\ntier = "vip"\nshard_id = 3\n[tenant.a.postgresql]\npool_size = 300\n'
    settings = good(text)
    assert settings.directory.tenants["a"].cluster == "vip-3"
    assert settings.directory.tenants["a"].shard_id == 3
    assert settings.directory.clusters["vip-3"].pool_size == 20


def test_hosts_without_a_shard_are_the_tenants_own() -> None:
    assert good(vip("a", None, '["c"]')).directory.tenants["a"].cluster == "a"


def test_a_configured_shard_keeps_its_own_size() -> None:
    text = '[cluster.vip-1]\nkind = "vip"\ncoordinators = ["c"]\npool_size = 20\n'
    settings = good(text + vip("a", 1, '["c:5432"]', "pool_size = 300"))
    assert settings.directory.clusters["vip-1"].pool_size == 20


def test_conflicting_hosts_name_both() -> None:
    text = bad(vip("a", 1, '["c1"]') + vip("b", 1, '["c2"]'))
    assert text == (
        "f.toml: [tenant.b.postgresql] coordinator_hosts: "
        "shard 1 is c2:5432 here and c1:5432 in [tenant.a.postgresql]"
    )
    text = bad('[cluster.vip-1]\ncoordinators = ["c1"]\nkind = "vip"\n' + vip("b", 1, '["c2"]'))
    assert "in [cluster.vip-1]" in text


def test_conflicting_databases_name_both() -> None:
    text = bad(vip("a", 1, '["c"]', 'dbname = "x"') + vip("b", 1, '["c"]', 'dbname = "y"'))
    assert text == 'f.toml: [tenant.b.postgresql] dbname: shard 1 has "x" in [tenant.a.postgresql], not "y"'


def test_standard_and_free_live_on_the_only_shared_cluster() -> None:
    dedicated = '[cluster.d]\nprimary = "p"\n'
    settings = good(dedicated + SHARED + '[tenant.s]\ntier = "standard"\n[tenant.f]\ntier = "free"\n')
    assert [t.cluster for t in settings.directory.tenants.values()] == ["shared", "shared"]


def test_the_tiers_cluster_goes_before_the_only_shared_one_and_the_tenants_before_both() -> None:
    text = SHARED + '[cluster.x]\nprimary = "x"\n[cluster.y]\nprimary = "y"\n[tier.standard]\ncluster = "x"\n'
    text += '[tenant.a]\ntier = "standard"\n[tenant.b]\ntier = "standard"\ncluster = "y"\n[tenant.f]\ntier = "free"\n'
    assert [t.cluster for t in good(text).directory.tenants.values()] == ["x", "y", "shared"]


def test_a_tier_of_ones_own_lives_on_the_shared_cluster_too() -> None:
    settings = good(SHARED + '[tier.gold]\nweight = 3\n[tenant.g]\ntier = "gold"\n')
    assert settings.directory.tenants["g"].cluster == "shared"
    assert settings.directory.tiers["gold"].weight == 3


def test_a_share_of_a_shared_cluster_is_a_limit() -> None:
    settings = good(SHARED + '[tenant.s]\ntier = "standard"\n[tenant.s.postgresql]\npool_size = 5\n')
    assert settings.directory.tenants["s"].limits.max_connections == 5
    assert settings.directory.clusters["shared"].pool_size == 20


@pytest.mark.parametrize(
    ("text", "placement"),
    [
        ('[tenant.a]\ntier = "free"\n' + SHARED, "the only shared cluster, for tier free"),
        ('[tenant.a]\ntier = "vip"\ncluster = "shared"\n' + SHARED, "[tenant.a] cluster"),
        ('[tier.vip]\ncluster = "shared"\n[tenant.a]\ntier = "vip"\n' + SHARED, "[tier.vip] cluster"),
        (vip("a", 1, '["c"]'), "[tenant.a.postgresql] coordinator_hosts, shard_id = 1"),
        (vip("a", None, '["c"]'), "[tenant.a.postgresql] coordinator_hosts"),
        (
            '[cluster.vip-3]\ncoordinators = "c"\n[tenant.a]\ntier = "vip"\nshard_id = 3',
            "[tenant.a] shard_id = 3",
        ),
        ('[tenant.a]\ntier = "vip"\npostgresql.primary = "p"\n', "[tenant.a.postgresql] primary"),
    ],
)
def test_a_tenant_knows_why_it_lives_where_it_does(text: str, placement: str) -> None:
    assert good(text).directory.tenants["a"].placement == placement


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[tenant.a]\ntier = "standard"', "[tenant.a]: has nowhere to live"),
        ('[cluster.s1]\ncoordinators="a"\n[cluster.s2]\ncoordinators="b"\n[tenant.a]\ntier="free"', "[tenant.a]: needs cluster"),
        ('[tenant.a]\ntier = "enterprise"\n' + SHARED, "[tenant.a]: an enterprise tenant needs postgresql.primary.host"),
        ('[tenant.a]\ntier = "vip"\n' + SHARED, "[tenant.a]: a vip tenant needs shard_id"),
        ('[tenant.a]\ntier = "vip"\nshard_id = 4\n' + SHARED, '[tenant.a] shard_id: no cluster is called "vip-4"'),
        (
            '[tenant.a]\ntier = "free"\ncluster = "shraed"\n' + SHARED,
            '[tenant.a] cluster: no cluster is called "shraed"; the nearest known one is "shared"',
        ),
        (
            SHARED + '[tier.vip]\ncluster = "shard"\n[tenant.a]\ntier = "vip"\n[tenant.b]\ntier = "vip"\n',
            '[tier.vip] cluster: no cluster is called "shard"; the nearest known one is "shared"',
        ),
        (
            '[cluster.a]\nprimary = "p"\n[tenant.a]\ntier = "enterprise"\n[tenant.a.postgresql]\nprimary.host = "p"\n',
            '[tenant.a.postgresql]: describes cluster "a", which [cluster.a] already is',
        ),
        (
            SHARED + '[tenant.a]\ntier = "vip"\ncluster = "shared"\n[tenant.a.postgresql]\nprimary.host = "p"\n',
            "[tenant.a] cluster: postgresql.primary describes another cluster",
        ),
        (
            SHARED + '[tenant.a]\ntier = "free"\n[tenant.a.postgresql]\ncluster_type = "dedicated"\n',
            '[tenant.a.postgresql] cluster_type: "dedicated" needs primary.host',
        ),
        (
            '[tenant.a]\ntier = "free"\n[tenant.a.postgresql]\ncluster_type = "shared"\nprimary.host = "p"\n',
            '[tenant.a.postgresql] cluster_type: "shared" has no primary',
        ),
        (
            SHARED + '[tenant.a]\ntier = "free"\n[tenant.a.postgresql]\nread_replicas = ["r"]\n',
            "[tenant.a.postgresql] read_replicas: replicas need primary.host",
        ),
        (
            '[tenant.a]\ntier = "vip"\n[tenant.a.postgresql]\nprimary.host = "p"\ncoordinator_hosts = ["c"]\n',
            "[tenant.a.postgresql] primary: a cluster has a primary or coordinator_hosts",
        ),
        ('[tenant.a]\ntier = "vip"\nshard_id = "1"\n', "[tenant.a] shard_id: must be a whole number, 0 or more"),
        (
            '[tenant.a]\ntier = "enterprise"\n[tenant.a.postgresql]\nprimary.port = 5\n',
            "[tenant.a.postgresql] primary: must be a host",
        ),
    ],
)  # fmt: skip
def test_a_tenant_without_a_home(text: str, problem: str) -> None:
    assert bad(text).startswith(f"f.toml: {problem}")
