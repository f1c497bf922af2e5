"""What top tells between two looks."""

from __future__ import annotations

from typing import Any

from proxy.cli.top import _between


def seen(at: float, **queries: int) -> dict[str, Any]:
    row = {
        "tier": "t",
        "cluster": "c",
        "clients": 1,
        "servers": 0,
        "waiting": 0,
        "transactions": 0,
        "errors": 0,
    }
    tenants = {name: {"name": name, **row, "queries": count} for name, count in queries.items()}
    return {"at": at, "tenants": tenants, "pools": [], "workers": [{}]}


def test_rates_are_a_second_and_the_busiest_come_first() -> None:
    told = _between(seen(10, a=100, b=100), seen(12, a=110, b=150, new=7))
    assert [(row["tenant"], row["queries/s"]) for row in told["tenants"]] == [("b", 25), ("a", 5), ("new", 0)]
    assert told["total"]["queries/s"] == 30


def test_counts_that_began_anew_are_no_rate() -> None:
    (row,) = _between(seen(1, a=100), seen(2, a=3))["tenants"]
    assert row["queries/s"] == 0
