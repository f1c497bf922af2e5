"""Choose the endpoint for a new server connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from proxy.model import Endpoint, Role


def choose(
    endpoints: Iterable[Endpoint], healthy: Callable[[Endpoint], bool], load: Callable[[Endpoint], float]
) -> Endpoint | None:
    """The least loaded of the healthy endpoints that may write, the first named where loads are equal.

    A dedicated cluster has one such endpoint, its primary. Replicas are never chosen here.
    """
    usable = [e for e in endpoints if e.role is not Role.REPLICA and healthy(e)]
    return min(usable, key=load, default=None)
