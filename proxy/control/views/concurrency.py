"""The clusters whose `max_connections` follows latency: what it is now, what was measured, and why it is so."""

from __future__ import annotations

from proxy.client.plane import Plane
from proxy.control.views.view import Value, View
from proxy.server.adapting import bounds


def concurrency(plane: Plane) -> View:
    columns = (
        "cluster", "limit", "min", "max", "running", "connections", "baseline_us", "latency_us", "gradient", "why",
    )  # fmt: skip
    rows: list[tuple[Value, ...]] = []
    for name, adapted in plane.pools.adapting.clusters.items():
        now, counter = adapted.now, plane.pools.room.cluster(name)
        measured: tuple[Value, ...] = (None, None, None, "the supervisor has not decided yet")
        if now is not None:
            measured = (int(now.baseline * 1e6), int(now.latency * 1e6), round(now.gradient, 2), now.why)
        rows.append((name, counter.limit, *bounds(adapted.cluster), adapted.running, counter.used, *measured))
    return View(columns, rows)
