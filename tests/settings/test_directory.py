"""Users, tiers and tenants: defaults, what one names in another, and what may not be said twice."""

# ruff: noqa: E501  a case of a table stays on one line

from __future__ import annotations

import time

import pytest

from proxy.model import Limits, PoolMode, Tenant
from tests.settings.parsing import bad, good

SHARED = '[cluster.shared]\nkind = "shared"\ncoordinators = ["c1"]\n'
ACME = SHARED + '[tenant.acme]\ntier = "standard"\nid = "0B5A1D5E-6F0F-4F0E-9A53-0D5F2A1C7E01"\n'
ACME_ID = "0b5a1d5e-6f0f-4f0e-9a53-0d5f2a1c7e01"


def test_four_tiers_are_there_unmentioned() -> None:
    tiers = good("").directory.tiers
    assert {t.name: t.weight for t in tiers.values()} == {"enterprise": 8, "vip": 4, "standard": 2, "free": 1}
    assert tiers["free"].limits == Limits(
        max_client_connections=10, max_queries_per_day=1000, max_storage_gb=0.1
    )


def test_a_tier_says_all_it_may() -> None:
    tier = good(
        SHARED
        + """
        [tier.vip]
        limits = { min_connections = 2, max_connections = 5, query_timeout = "30s", max_qps = 1.5 }
        caps = { max_connections = 100 }
        cluster = "shared"
        pool_mode = "session"
        parameters = { statement_timeout = "5s", app.region = "eu" }
        max_tenants = 7
        default_shards = 4
        read_write_split = true
        max_joins = 6
        pool_type = "shared_dedicated"
        auto_shard = true
    """
    ).directory.tiers["vip"]
    assert tier.weight == 4
    assert tier.limits == Limits(max_connections=5, min_connections=2, query_timeout=30.0, max_qps=1.5)
    assert tier.caps == Limits(max_connections=100)
    assert (tier.cluster, tier.pool_mode) == ("shared", PoolMode.SESSION)
    assert tier.parameters == {"statement_timeout": "5s", "app.region": "eu"}
    assert (tier.max_tenants, tier.default_shards, tier.read_write_split, tier.policy.max_joins) == (
        7,
        4,
        True,
        6,
    )


def test_what_a_tier_says_lies_over_its_defaults() -> None:
    limits = good("[tier.free]\nlimits = { max_qps = 5, max_storage_gb = 1 }").directory.tiers["free"].limits
    assert limits == Limits(
        max_client_connections=10, max_queries_per_day=1000, max_storage_gb=1.0, max_qps=5.0
    )


def test_a_tenant_says_all_it_may() -> None:
    tenant = good(
        ACME
        + """
        limits = { max_client_connections = 9, idle_transaction_timeout = "1m" }
        pool_mode = "statement"
        parameters = { search_path = "erp" }
        active = false
    """
    ).directory.tenants["acme"]
    assert tenant == Tenant(
        "acme",
        "standard",
        "shared",
        id=ACME_ID,
        limits=Limits(max_client_connections=9, idle_transaction_timeout=60.0),
        pool_mode=PoolMode.STATEMENT,
        parameters={"search_path": "erp"},
        active=False,
        placement="the only shared cluster, for tier standard",
    )


def test_a_user_says_all_it_may() -> None:
    users = good(
        ACME
        + f"""
        [user.a]
        password = "p"
        tenants = ["acme"]
        server_user = "s"
        server_password = "sp"
        pool_mode = "session"
        auth_type = "md5"
        limits = {{ query_timeout = 5 }}
        [user.b]
        password = "p"
        tenants = "*"
        [user.c]
        password = "p"
        [user.d]
        password = "p"
        tenants = ["{ACME_ID.upper()}"]
    """
    ).directory.users
    a = users["a"]
    assert (a.password, a.server_user, a.server_password, a.auth_type) == ("p", "s", "sp", "md5")
    assert (a.pool_mode, a.limits) == (PoolMode.SESSION, Limits(query_timeout=5.0))
    acme = Tenant("acme", "standard", "shared", id=ACME_ID)
    assert [u.may_act_for(acme) for u in users.values()] == [True, True, False, True]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[tenant.a]\nid = ""', "[tenant.a] tier: missing; it is one of enterprise, vip, standard, free"),
        ('[tenant.a]\ntier = "standart"', '[tenant.a] tier: no tier is called "standart"; the nearest known one is "standard"'),
        ('[tenant.a]\ntier = "free"\nid = "17"\n' + SHARED, '[tenant.a] id: must be a UUID, not "17"'),
        (ACME + f'[tenant.b]\ntier = "free"\nid = "{ACME_ID}"', f"[tenant.b] id: {ACME_ID} is also the id of [tenant.acme]"),
        (ACME + f'[tenant.{ACME_ID}]\ntier = "free"', f"[tenant.acme] id: {ACME_ID} is also the name of another tenant"),
        (ACME + '[tenant.b]\ntier = "standard"\n[tier.standard]\nmax_tenants = 1', "[tier.standard] max_tenants: is 1, but 2"),
        (ACME + '[user.u]\npassword = "p"\ntenants = ["acne"]', '[user.u] tenants: no tenant is called "acne"; the nearest known one is "acme"'),
        ('[user.u]\npassword = "p"\nlimits = { max_storage_gb = 1 }', "[user.u.limits] max_storage_gb: unknown key"),
        ('[tier.t]\ncaps = { max_qps = 5 }', "[tier.t.caps] max_qps: unknown key"),
        ("[user.u]\n", "[user.u] password: missing; auth_type scram-sha-256 cannot work without one"),
        (ACME + '[proxy]\ndefault_tenant = "acne"', '[proxy] default_tenant: no tenant is called "acne"; the nearest known one is "acme"'),
        (ACME + 'parameters = { App.Tenant_Id = "x" }', "[tenant.acme] parameters: app.tenant_id names the tenant"),
        ('[tier.x]\nparameters."app.tenant_id" = "x"', "[tier.x] parameters: app.tenant_id names the tenant"),
        ("tenant = 5", "[tenant]: must be written as [tenant.NAME]"),
        ('[tenant]\ntier = "vip"', "[tenant] tier: must be a table, as in [tenant.NAME]"),
        ('[tenant.""]\ntier = "vip"', '[tenant.""]: the name is empty'),
        ("[tier.x]\nweight = 0", "[tier.x] weight: must be a whole number, 1 or more, not 0"),
        ("[tier.x]\nlimits = { max_qps = -1 }", "[tier.x.limits] max_qps: must be a number, 0 or more, not -1"),
    ],
)  # fmt: skip
def test_a_directory_that_makes_no_sense(text: str, problem: str) -> None:
    assert bad(text).startswith(f"f.toml: {problem}")


def test_no_password_is_needed_where_none_is_asked() -> None:
    assert good('[user.u]\nauth_type = "trust"').directory.users["u"].password == ""
    assert good('[proxy]\nauth_type = "trust"\n[user.u]\n').directory.users["u"].password == ""


def test_the_default_tenant_may_be_an_id() -> None:
    assert good(ACME + f'[proxy]\ndefault_tenant = "{ACME_ID}"').client.default_tenant == ACME_ID


def test_nothing_can_be_changed_afterwards() -> None:
    directory = good(ACME).directory
    with pytest.raises(TypeError):
        directory.tenants["x"] = directory.tenants["acme"]  # type: ignore[index]


def test_a_tenant_costs_the_same_among_six_thousand_as_among_five_hundred() -> None:
    def seconds_a_tenant(count: int) -> float:
        text = SHARED + "".join(
            f'[tenant.t{i}]\ntier = "standard"\nid = "{i:08x}-0000-0000-0000-000000000000"\nlimits = {{ max_qps = 5 }}\n'
            for i in range(count)
        )
        before = time.process_time()
        settings = good(text)
        taken = time.process_time() - before
        assert len(settings.directory.tenants) == count
        return taken / count

    # At its best: what else runs on the machine is not our cost.
    few = min(seconds_a_tenant(500) for _ in range(5))
    many = min(seconds_a_tenant(6_000) for _ in range(3))
    assert many < 2.5 * few
