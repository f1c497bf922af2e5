"""The rules on SQL of tiers and tenants, as the configuration says them."""

from __future__ import annotations

import pytest

from proxy.errors import ConfigError
from proxy.model import NO_POLICY, SqlPolicy
from proxy.settings import parse

SHARED = """
[cluster.shared]
kind = "shared"
primary = "pg"
[tenant.acme]
tier = "free"
"""


def policies(text: str) -> tuple[SqlPolicy, SqlPolicy]:
    """Of the tier and of the tenant."""
    found = parse(SHARED + text, "t.toml").directory
    return found.tiers["free"].policy, found.tenants["acme"].policy


def test_nothing_said_is_no_policy() -> None:
    assert policies("") == (NO_POLICY, NO_POLICY)
    assert policies("")[1] is NO_POLICY


def test_all_that_can_be_said() -> None:
    said = """
    max_joins = 3
    max_statements = 10
    max_statement_size = "64kB"
    read_only = true
    forbidden_statements = ["Drop  TABLE", "copy program"]
    locked_parameters = ["Work_Mem", "app.region"]
    """
    expected = SqlPolicy(
        3, 10, 65_536, True, frozenset({"drop table", "copy program"}), frozenset({"work_mem", "app.region"})
    )
    assert policies("[tier.free]" + said)[0] == expected
    assert policies(said)[1] == expected


def test_the_tenants_own_goes_before_the_tiers() -> None:
    tier, tenant = policies(
        "max_joins = 0\nforbidden_statements = []\n[tier.free]\nmax_joins = 3\nread_only = true"
    )
    assert tenant.over(tier) == SqlPolicy(max_joins=0, read_only=True, forbidden_statements=frozenset())


@pytest.mark.parametrize(
    ("size", "count"),
    [("0", 0), ("1000", 1000), ('"1000"', 1000), ('"64kb"', 65_536), ('"1 MB"', 1 << 20)],
)
def test_sizes(size: str, count: int) -> None:
    assert policies(f"max_statement_size = {size}")[1].max_statement_size == count


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('max_statement_size = "many"', 'must be a number of bytes, or a size such as "64kB", not "many"'),
        ("max_statement_size = -1", "max_statement_size: must be a number of bytes"),
        ("max_joins = -1", "max_joins: must be a whole number, 0 or more"),
        ("read_only = 1", "read_only: must be true or false"),
        (
            'forbidden_statements = ["truncat"]',
            'forbidden_statements: no statement is called "truncat"; the nearest known one is "truncate"',
        ),
        (
            'forbidden_statements = ["create functions"]',
            'no statement is called "create functions"; the nearest known one is "create function"',
        ),
        ('locked_parameters = ["APP.tenant_id"]', "app.tenant_id cannot be locked; only the proxy sets it"),
        ('locked_parameters = ["tiergate.seal"]', "tiergate.seal cannot be locked; only the proxy sets it"),
        (
            'locked_parameters = ["transaction_read_only"]',
            "transaction_read_only cannot be locked; read_only = true makes transactions read-only",
        ),
        ('locked_parameters = ["transaction_isolation"]', "isolation cannot be locked; it is said by each BEGIN"),
        ('max_join = 1', 'unknown key; the nearest known one is "max_joins"'),
    ],
)  # fmt: skip
@pytest.mark.parametrize("table", ["", "[tier.free]\n"])
def test_problems_name_the_table_and_the_key(text: str, problem: str, table: str) -> None:
    with pytest.raises(ConfigError) as caught:
        policies(table + text)
    (said,) = caught.value.problems
    assert problem in said
    assert said.startswith("t.toml: [tier.free]" if table else "t.toml: [tenant.acme]")
