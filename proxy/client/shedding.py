"""Ends sessions because this process may have fewer permits of a counter than it has, at once.

It comes to that only where the proxy has lost its share of a fleet's cap and transactions did not end in time.
"""

from __future__ import annotations

from collections.abc import Iterable

from proxy.client.plane import Plane
from proxy.errors import CapReached


def shed(plane: Plane, rows: Iterable[tuple[str, int]]) -> int:
    """Each counter keeps so many; those who rest leave first. How many sessions have ended."""
    ended = 0
    for name, most in rows:
        holders = [
            (each, counter) for each in plane.sessions for counter in each.counters() if counter.name == name
        ]
        holders.sort(key=lambda holder: not holder[0].rests)
        for session, counter in holders:
            if counter.used - counter.leaving <= most:
                break
            session.end(CapReached(f"this proxy's share of {name} is less now"))
            ended += 1
    return ended
