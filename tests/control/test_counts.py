"""Counts of several processes added up, also of those that are gone and of pools that were closed."""

from __future__ import annotations

import itertools
import json
from typing import Any

from proxy.control import counts as counting
from proxy.control import metrics
from proxy.control.counts import Counts


def of(queries: int = 0, clients: int = 0, ejected: int = 0, **pools: int) -> Counts:
    counts = counting.empty()
    counts["counters"] = {
        "tenants": {
            "acme": {
                "tier": "vip", "queries": queries, "durations": [queries, 0, 1], "seconds": 0.5,
                "errors": {"57014": queries} if queries else {},
            }
        },
        "pools": {name: {"transactions": count, "wait_seconds": count / 2} for name, count in pools.items()},
        "process": {"cancels": queries},
    }  # fmt: skip
    counts["gauges"] = {"tenants": {"acme": clients}, "clients": {"idle": clients}}
    counts["most"] = {"ejected": {"shared": ejected}}
    return counts


def total(*parts: Counts) -> Counts:
    found = counting.empty()
    for part in parts:
        counting.add(found, json.loads(json.dumps(part)))
    return found


def test_counters_and_gauges_add_up_and_of_what_all_tell_the_most_holds() -> None:
    found = total(of(3, 1, 2, a=1), of(4, 2, 1, a=2, b=5), of())
    acme = found["counters"]["tenants"]["acme"]
    assert (acme["tier"], acme["queries"], acme["durations"], acme["seconds"]) == ("vip", 7, [7, 0, 3], 1.5)
    assert acme["errors"] == {"57014": 7}
    assert found["counters"]["pools"] == {
        "a": {"transactions": 3, "wait_seconds": 1.5},
        "b": {"transactions": 5, "wait_seconds": 2.5},
    }
    assert found["gauges"] == {"tenants": {"acme": 3}, "clients": {"idle": 3}}
    assert found["most"] == {"ejected": {"shared": 2}}


def test_adding_changes_nothing_of_what_is_added() -> None:
    first, second = of(3), of(4)
    found = counting.empty()
    counting.add(found, first)
    counting.add(found, second)
    assert (first, second) == (of(3), of(4))


def test_counters_of_a_process_that_is_gone_are_kept_and_its_gauges_not() -> None:
    gone = counting.empty()
    counting.keep(gone, of(3, 1, 1, a=1), None)
    found = total(gone, of(1, 1, 0))
    assert found["counters"]["tenants"]["acme"]["queries"] == 4
    assert found["counters"]["pools"]["a"]["transactions"] == 1
    assert found["gauges"]["clients"] == {"idle": 1}
    assert found["most"]["ejected"] == {"shared": 0}


def test_a_pool_that_is_closed_or_counts_anew_takes_nothing_back() -> None:
    gone: Counts = counting.empty()
    steps: list[dict[str, Any]] = [
        {"a": 5, "b": 1},
        {"a": 6, "b": 1},
        {"b": 2},
        {"a": 1, "b": 2},
        {"a": 0, "b": 3},
    ]
    seen = []
    for before, now in itertools.pairwise(steps):
        counting.keep(gone, of(**before), of(**now))
        pools = total(gone, of(**now))["counters"]["pools"]
        seen.append((pools["a"]["transactions"], pools["b"]["transactions"]))
    assert seen == [(6, 1), (6, 2), (7, 2), (7, 3)]


def test_nothing_at_all_can_be_scraped() -> None:
    assert b"tiergate_cancels_total 0.0" in metrics.exposition(counting.empty())
