"""Limits that are right one by one and cannot be kept together are told by the key that says the last of them."""

# ruff: noqa: E501  a case of a table stays on one line

from __future__ import annotations

import pytest

from tests.settings.parsing import bad, good

CLUSTER = '[cluster.shared]\nkind = "shared"\ncoordinators = ["c1"]\nmax_connections = 20\n'


def tenant(name: str, limits: str, tier: str = "standard") -> str:
    return f'[tenant.{name}]\ntier = "{tier}"\nlimits = {{ {limits} }}\n'


TOO_MANY = [
    ("[proxy]\nlimits = { max_connections = 4, min_connections = 4 }", "[proxy.limits] min_connections: is 4,"),
    ("[tier.vip]\nlimits = { min_connections = 11, max_connections = 10 }", "[tier.vip.limits] min_connections: is 11,"),
    ("[proxy]\nlimits.max_connections = 4\n[tier.vip]\nlimits = { min_connections = 4 }", "[tier.vip.limits] min_connections"),
    (tenant("a", "min_connections = 3, max_connections = 3"), "[tenant.a.limits] min_connections: is 3,"),
    (
        "[tier.standard]\nlimits = { max_connections = 5 }\n" + tenant("a", "min_connections = 5"),
        "[tenant.a.limits] min_connections: is 5, and max_connections, up to where it moves, 5",
    ),
    (
        tenant("a", "guaranteed_connections = 6, max_connections = 5"),
        "[tenant.a.limits] guaranteed_connections: is 6, more than max_connections, 5",
    ),
    (tenant("a", 'guaranteed_connections = "50%", max_connections = 5'), "guaranteed_connections: is 10, more than"),
    (tenant("a", "guaranteed_connections = 21"), "is 21, more than the max_connections of cluster shared, 20"),
    (
        '[tier.vip]\ncluster = "shared"\ncaps = { guaranteed_connections = "30%", max_connections = 5 }',
        "[tier.vip.caps] guaranteed_connections: is 6, more than max_connections, 5",
    ),
    (
        tenant("a", "guaranteed_connections = 11") + tenant("b", 'guaranteed_connections = "50%"'),
        "[tenant.a.limits] guaranteed_connections: 11, with what others are guaranteed 21, is more than",
    ),
    (
        "[tier.standard]\ncaps = { guaranteed_connections = 15 }\n"
        + tenant("a", "guaranteed_connections = 6") + tenant("b", "") + tenant("c", ""),
        "[tier.standard.caps] guaranteed_connections: 15, with what others are guaranteed 21,",
    ),
    (
        '[tier.standard]\ncaps = { guaranteed_connections = "50%", max_connections = 9 }\n' + tenant("a", "") + tenant("b", ""),
        "[tier.standard.caps] guaranteed_connections: is 10, more than max_connections, 9",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), TOO_MANY)
def test_what_cannot_be_kept_together_is_told(text: str, problem: str) -> None:
    head, found = (text, "") if text.startswith("[proxy]") else ("", text)
    assert problem in bad("\n".join((head, CLUSTER, found)))


KEPT = [
    "[tier.standard]\nlimits = { min_connections = 2, max_connections = 10 }\n" + tenant("a", "max_connections = 1"),
    "[tier.standard]\nlimits = { guaranteed_connections = 2 }\n" + tenant("a", "max_connections = 1"),
    tenant("a", "min_connections = 3"),
    tenant("a", "min_connections = 3, max_connections = 0"),
    tenant("a", "guaranteed_connections = 10") + tenant("b", "guaranteed_connections = 10"),
    "[tier.standard]\ncaps = { guaranteed_connections = 15 }\n" + tenant("a", "") + tenant("b", ""),
]  # fmt: skip


@pytest.mark.parametrize("text", KEPT)
def test_what_can_be_kept_is(text: str) -> None:
    good(CLUSTER + text)


OTHER = '[cluster.other]\nkind = "dedicated"\nprimary = "o"\n'
OF_THE_PROXY = [
    (tenant("a", "guaranteed_connections = 11"), "[tenant.a.limits] guaranteed_connections: is 11, more than the max_server_connections, 10"),
    (tenant("a", 'guaranteed_connections = "60%"'), "is 12, more than the max_server_connections, 10"),
    (
        OTHER + tenant("a", "guaranteed_connections = 6") + '[tenant.b]\ntier = "vip"\ncluster = "other"\nlimits = { guaranteed_connections = 5 }',
        "[tenant.a.limits] guaranteed_connections: 6, with what others are guaranteed 11, is more than the max_server_connections, 10",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), OF_THE_PROXY)
def test_no_more_is_guaranteed_than_the_proxy_may_have(text: str, problem: str) -> None:
    assert problem in bad("[proxy]\nmax_server_connections = 10\n" + CLUSTER + text)
    fleet = '[proxy]\nmax_server_connections = 5\nredis_url = "redis://r"\nfleet_size = 2\n'
    assert "of each of 2 proxies, 5" in bad(fleet + CLUSTER + text)
    good("[proxy]\nmax_server_connections = 12\n" + CLUSTER + text)
    good("[proxy]\nmax_server_connections = 0\n" + CLUSTER + text)


def test_what_a_tier_is_guaranteed_counts_once_on_all_clusters() -> None:
    text = "[tier.vip]\ncaps = { guaranteed_connections = 6 }\n" + OTHER
    for name, cluster in (("a", "shared"), ("b", "other")):
        text += f'[tenant.{name}]\ntier = "vip"\ncluster = "{cluster}"\n'
    good("[proxy]\nmax_server_connections = 10\n" + CLUSTER + text)


def test_without_a_cap_of_the_cluster_guarantees_may_be_more_than_a_pool_of_one_worker() -> None:
    text = CLUSTER.replace("max_connections = 20", "pool_size = 5")
    good(text + tenant("a", "guaranteed_connections = 8") + tenant("b", "guaranteed_connections = 8"))
    good(text + tenant("a", 'guaranteed_connections = "60%"') + tenant("b", 'guaranteed_connections = "40%"'))


def test_shares_of_a_pool_are_no_more_than_all_of_it() -> None:
    text = CLUSTER.replace("max_connections = 20", "pool_size = 5")
    found = bad(
        text + tenant("a", 'guaranteed_connections = "60%"') + tenant("b", 'guaranteed_connections = "50%"')
    )
    assert (
        "[tenant.a.limits] guaranteed_connections: is 110% with what others are guaranteed of cluster shared"
        in found
    )
