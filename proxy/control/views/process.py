"""The processes themselves: what they are configured to, which of them serve, why one should get no clients."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import NamedTuple

from proxy.client.plane import Plane
from proxy.control.views.view import View
from proxy.model import Role


def config(rows: Sequence[tuple[str, str, str, str]]) -> View:
    return View(("key", "value", "default", "changeable"), [tuple(row) for row in rows])


class WorkerRow(NamedTuple):
    """One process that serves clients. `age` is in seconds."""

    worker: int
    pid: int
    state: str
    version: str
    age: int
    restarts: int


def workers(rows: Sequence[WorkerRow]) -> View:
    return View(WorkerRow._fields, [tuple(row) for row in rows])


def problems(plane: Plane) -> list[str]:
    """Why no new client should be sent here; empty when all is well."""
    found = []
    if plane.draining:
        found.append("draining")
    now = monotonic()
    health = plane.pools.health
    clusters = list(plane.registry.clusters())
    down = [
        cluster.name
        for cluster in clusters
        if not any(health.healthy(e, now) for e in cluster.endpoints if e.role is not Role.REPLICA)
    ]
    if clusters and len(down) == len(clusters):
        found.append("no cluster has a healthy endpoint")
    return found
