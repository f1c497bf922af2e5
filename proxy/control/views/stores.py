"""Where tenants are looked up: how the stores are, and what is known of them in memory."""

from __future__ import annotations

from time import monotonic

from proxy.client.plane import Plane
from proxy.control.views.view import Value, View


def registry(plane: Plane) -> View:
    """In the order in which they are asked; `tenants` are those in memory. `seconds` is for how long it has been so."""
    columns = ("store", "up", "seconds", "reason", "asked", "found", "tenants", "stale")
    kept, finder, now = plane.registry.rows, plane.registry.finder, monotonic()
    rows: list[tuple[Value, ...]] = []
    if kept is not None and finder is not None:
        rows.append(("memory", 1, 0, "", 0, 0, len(kept), len(kept.stale(now))))
        for name, state, asked, found in finder.stores():
            rows.append((name, int(state.up), int(now - state.since), state.reason, asked, found, 0, 0))
    rows.append(("file", 1, 0, "", 0, 0, plane.registry.configured, 0))
    return View(columns, rows)


def warnings(view: View) -> list[str]:
    """Of what does not keep clients away."""
    found = []
    for row in view.rows:
        said = dict(zip(view.columns, row, strict=True))
        if said["up"]:
            if said["reason"]:
                found.append(f"{said['store']} of the registry: {said['reason']}")
            continue
        what = (
            "tenants that are known are served as they were"
            if said["store"] == "postgresql"
            else "it is done without"
        )
        found.append(f"{said['store']} of the registry has not been reached for {said['seconds']} s: {what}")
    return found
