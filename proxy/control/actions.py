"""What operators may do, whatever face they use. Each raises a TiergateError that says why it could not."""

from __future__ import annotations

import asyncio
from typing import Protocol

from proxy.client.plane import Plane
from proxy.errors import InvalidParameter, ShuttingDown
from proxy.registry.memory import Kind


class Operations(Protocol):
    """What only the process as a whole can do."""

    version: str

    def reload(self) -> list[str]:
        """The keys whose change needs a restart. Raises ConfigError."""

    def set(self, key: str, value: str) -> None: ...
    def config_rows(self) -> list[tuple[str, str, str, str]]: ...
    def shutdown(self, wait: bool) -> None: ...


def _known_cluster(plane: Plane, name: str) -> None:
    if plane.registry.cluster(name) is None:
        raise InvalidParameter(f'cluster "{name}" does not exist')


async def pause(plane: Plane, cluster: str) -> None:
    """Hands out no more connections and waits until those in use have come back. "*" is every cluster."""
    if cluster != "*":
        _known_cluster(plane, cluster)
    plane.pools.pause(cluster)
    while any(pool.active for pool in plane.pools if pool.paused and cluster in ("*", pool.key.cluster)):
        if not plane.pools.paused(cluster):
            return  # somebody else has resumed it
        await asyncio.sleep(0.01)


def resume(plane: Plane, cluster: str) -> None:
    if cluster != "*":
        _known_cluster(plane, cluster)
    if not plane.pools.resume(cluster):
        raise InvalidParameter("not paused" if cluster == "*" else f'cluster "{cluster}" is not paused')


def reconnect(plane: Plane, cluster: str) -> None:
    if cluster:
        _known_cluster(plane, cluster)
    plane.pools.reconnect(cluster)


def kill(plane: Plane, name: str) -> int:
    """Ends the sessions of a tenant or of a cluster; returns how many there were."""
    tenant = plane.registry.known(name)
    if tenant is None:
        _known_cluster(plane, name)
    error = ShuttingDown("terminating connection due to administrator command")
    ended = 0
    for session in list(plane.sessions):
        if session.tenant.name == tenant.name if tenant is not None else session.pool.key.cluster == name:
            session.end(error)
            ended += 1
    return ended


def kill_client(plane: Plane, pointer: str) -> None:
    """Ends the one session that SHOW CLIENTS calls `pointer`."""
    for session in list(plane.sessions):
        if f"{id(session):#x}" == pointer:
            session.end(ShuttingDown("terminating connection due to administrator command"))
            return
    raise InvalidParameter(f"no client {pointer}")


def _kind(plane: Plane, name: str) -> tuple[Kind, str]:
    tenant = plane.registry.known(name)
    if tenant is not None:
        return "tenant", tenant.name
    _known_cluster(plane, name)
    return "cluster", name


def disable(plane: Plane, name: str) -> None:
    """No new logins for a tenant or a cluster; the sessions that there are end at their next transaction."""
    plane.registry.disable(*_kind(plane, name))


def enable(plane: Plane, name: str) -> None:
    kind, found = _kind(plane, name)
    if not plane.registry.enable(kind, found):
        raise InvalidParameter(f'{kind} "{found}" is not disabled')
