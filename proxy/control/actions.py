"""What operators may do, whatever face they use. Each raises a TiergateError that says why it could not.

`Local` is the `Control` of one data plane: the whole of it, or one worker's part that the supervisor asks for.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

from proxy.client.plane import Plane
from proxy.control import counts as counting
from proxy.control import views
from proxy.control.counts import Counts
from proxy.control.fleet import Result
from proxy.control.views import View
from proxy.errors import InvalidParameter, NoSuchName, ShuttingDown
from proxy.registry.memory import Kind, RegistryDown

Named = tuple[Kind, str]  # what a name has meant
_ON_TENANTS = frozenset({"disable", "enable", "kill"})


class Operations(Protocol):
    """What only the process as a whole can do."""

    version: str

    def reload(self) -> list[str]:
        """The keys whose change needs a restart. Raises ConfigError."""

    def set(self, key: str, value: str) -> None: ...
    def config_rows(self) -> list[tuple[str, str, str, str]]: ...
    def worker_row(self) -> views.WorkerRow: ...
    def shutdown(self, wait: bool) -> None: ...


def _known_cluster(plane: Plane, name: str) -> None:
    if plane.registry.cluster(name) is None:
        raise NoSuchName(f'cluster "{name}" does not exist')


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


async def wait_close(plane: Plane, cluster: str) -> None:
    """Until those that `reconnect` has told to go are gone. "" is every cluster."""
    if cluster:
        _known_cluster(plane, cluster)
    while any(
        server.generation != pool.generation
        for pool in plane.pools
        if cluster in ("", pool.key.cluster)
        for server in pool.connections()
    ):
        await asyncio.sleep(0.01)


def kill(plane: Plane, name: str, kind: str = "") -> Named:
    """Drops the clients of a tenant; or all connections of a cluster ("*": of all), which then is paused."""
    if name == "*":
        found: Kind = "cluster"
    else:
        found, name = _kind(plane, name, kind)
    if found == "cluster":
        if plane.pools.paused(name):
            raise InvalidParameter("already paused" if name == "*" else f'cluster "{name}" is already paused')
        plane.pools.pause(name)
    error = ShuttingDown("terminating connection due to administrator command")
    for session in list(plane.sessions):
        if name in ("*", session.tenant.name if found == "tenant" else session.pool.key.cluster):
            session.end(error)
    for relay in list(plane.relays):
        if name in ("*", relay.tenant if found == "tenant" else relay.cluster):
            relay.close()
    if found == "cluster":
        plane.pools.drop_all(name, error)
    return found, name


def kill_client(plane: Plane, which: str) -> None:
    """Ends the one session that SHOW CLIENTS has with that `ptr` or `id`."""
    for session in list(plane.sessions):
        if which in (f"{id(session):#x}", str(id(session))):
            session.end(ShuttingDown("terminating connection due to administrator command"))
            return
    for relay in list(plane.relays):
        if which in (f"{id(relay):#x}", str(id(relay))):
            relay.close()
            return
    raise NoSuchName(f"no client {which}")


def _kind(plane: Plane, name: str, kind: str = "") -> Named:
    """A tenant goes before a cluster of the same name unless `kind` says which of them is meant."""
    tenant = plane.registry.known(name) if kind != "cluster" else None
    if tenant is not None:
        return "tenant", tenant.name
    if kind == "tenant":
        raise NoSuchName(f'tenant "{name}" does not exist')
    _known_cluster(plane, name)
    return "cluster", name


def disable(plane: Plane, name: str, kind: str = "") -> Named:
    """No new logins for a tenant or a cluster; the sessions that there are end at their next transaction."""
    named = _kind(plane, name, kind)
    plane.registry.disable(*named)
    return named


def enable(plane: Plane, name: str, kind: str = "") -> Named:
    found, name = _kind(plane, name, kind)
    if not plane.registry.enable(found, name):
        raise InvalidParameter(f'{found} "{name}" is not disabled')
    return found, name


class Local:
    """The views and verbs of one process."""

    def __init__(self, plane: Plane, operations: Operations) -> None:
        self.version = operations.version
        self._plane = plane
        self._operations = operations

    async def view(self, name: str, *words: str) -> View:
        if name == "config":
            return views.config(self._operations.config_rows())
        if name == "workers":
            return views.workers([self._operations.worker_row()])
        if name in ("fleet", "shares"):  # the supervisor's
            return views.fleet(None) if name == "fleet" else views.shares(())
        if name == "route":
            await self._plane.registry.find(words[0])
            return views.route(self._plane, *words)
        if name.startswith(views.PGBOUNCER):
            return views.AS_PGBOUNCER[name.removeprefix(views.PGBOUNCER)](self._plane)
        return views.VIEWS[name](self._plane)

    async def act(self, verb: str, *words: str) -> Result:
        plane, operations = self._plane, self._operations
        if verb in _ON_TENANTS and words[1:] != ("cluster",) and words[0] != "*":
            with contextlib.suppress(RegistryDown):  # whoever is known is known without it
                await plane.registry.find(words[0])
        match verb:
            case "reload":
                return {"needs_restart": operations.reload(), "without": []}
            case "set":
                operations.set(*words)
            case "shutdown":
                operations.shutdown(wait=words == ("wait",))
            case "upgrade":
                raise InvalidParameter(
                    "one process cannot be upgraded in place", hint="Set supervised to true."
                )
            case "pause":
                await pause(plane, *words)
            case "resume":
                resume(plane, *words)
            case "reconnect":
                reconnect(plane, *words)
            case "wait_close":
                await wait_close(plane, *words)
            case "disable":
                return list(disable(plane, *words))
            case "enable":
                return list(enable(plane, *words))
            case "kill":
                return list(kill(plane, *words))
            case "kill_client":
                kill_client(plane, *words)
            case _:
                raise InvalidParameter(f'"{verb}" is not known here')
        return None

    async def counts(self) -> Counts:
        return counting.take(self._plane)

    async def problems(self) -> list[str]:
        return views.problems(self._plane)
