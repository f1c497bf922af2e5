"""What operators see of clusters whose limit follows latency."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.admission.adaptive import Decision
from proxy.control.views.concurrency import concurrency
from proxy.model import Cluster, ClusterKind
from tests.client.stage import Stage

CLUSTER = Cluster(
    "adapted", ClusterKind.SHARED, (), max_connections=40, adaptive_concurrency=True, min_concurrency=3
)


def shown(stage: Stage) -> list[dict[str, object]]:
    view = concurrency(stage.plane)
    return [dict(zip(view.columns, row, strict=True)) for row in view.rows]


def test_clusters_that_keep_their_limit_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(Stage(monkeypatch)) == []


def test_one_that_was_not_measured_yet_has_no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several workers, none of which decides."""
    stage = Stage(monkeypatch)
    stage.plane.pools.adapting.tell = lambda _: None
    stage.plane.pools.adapting.strain(CLUSTER)
    (row,) = shown(stage)
    assert (row["cluster"], row["min"], row["max"], row["baseline_us"]) == ("adapted", 3, 40, None)
    assert row["why"] == "the supervisor has not decided yet"


def test_what_was_decided_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    adapting = stage.plane.pools.adapting
    adapting.tell = lambda _: None
    adapting.strain(replace(CLUSTER, min_concurrency=50))
    adapting.obey(
        [("adapted", *Decision(11, True, 0.0, 0.0105, 0.02, 0.754, "latency is 2.0 times its baseline"))]
    )
    (row,) = shown(stage)
    assert (row["limit"], row["min"], row["max"]) == (11, 40, 40)
    assert (row["baseline_us"], row["latency_us"], row["gradient"]) == (10500, 20000, 0.75)
    assert row["why"] == "latency is 2.0 times its baseline"
