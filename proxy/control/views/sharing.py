"""The caps that this proxy shares with the others of its fleet, and the Redis where they do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from proxy.admission.stakes import Row
from proxy.control.views.view import View


class FleetRow(NamedTuple):
    """`seconds` is for how long Redis has been up or not, `share_seconds` for how long the share is good without it.
    `state`: joined, joining (nothing is granted yet), or cut (the fixed part of each cap)."""

    redis: int
    seconds: int
    reason: str
    state: str
    proxies: int
    fleet_size: int
    share_seconds: int


def fleet(row: FleetRow | None) -> View:
    return View(FleetRow._fields, [tuple(row)] if row is not None else [])


def shares(rows: Iterable[Row]) -> View:
    return View(Row._fields, [tuple(row) for row in rows])


def warnings(view: View) -> list[str]:
    """Of what does not keep clients away."""
    found = []
    for values in view.rows:
        said = dict(zip(view.columns, values, strict=True))
        if not said["redis"]:
            goes = f"the last share of each cap is used for {said['share_seconds']} s more"
            if said["state"] == "cut":
                goes = "only the fixed part of each cap is used"
            found.append(f"redis of the fleet has not answered for {said['seconds']} s: {goes}")
        elif int(said["proxies"] or 0) > int(said["fleet_size"] or 0):
            found.append(f"{said['proxies']} proxies share caps, more than fleet_size = {said['fleet_size']}")
    return found
