"""Users that only their tenant's servers know: what `auth_query` finds of a role, for one tenant each.

A role is asked about at each login (an answer is good for a second, so that who exists cannot be told by the time it
takes, and a storm is one question), on the cluster where the tenant that is claimed lives. Until when its password is
valid is looked at each time. Those that are connected are asked about from time to time. While nobody can be asked,
sessions go on, and nobody new is let in: the name may exist.

A role of a cluster on which others live as well may be anybody's: there the query has to say whose it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from time import monotonic, time
from typing import NamedTuple, Protocol

from proxy import log
from proxy.model import Cluster, Tenant, User
from proxy.registry.memory import Registry, UserUnknown
from proxy.registry.sources import SourceDown

_log = log.get("registry")
_GOOD = 1.0  # seconds
_LOOK = 5.0  # between two questions about those that are connected
_NEVER = float("inf")
_ASKS_WHOSE = re.compile(r"\$2(?!\d)")
# Superusers do not come through a proxy unless somebody writes so.
_OF_ONE = """
SELECT r.rolname, r.rolpassword, r.rolvaliduntil FROM pg_catalog.pg_authid AS r
WHERE r.rolname OPERATOR(pg_catalog.=) $1 AND r.rolcanlogin AND NOT r.rolsuper
"""
_OF_SEVERAL = f"""{_OF_ONE} AND EXISTS (
    SELECT FROM pg_catalog.pg_auth_members AS m JOIN pg_catalog.pg_authid AS g ON g.oid OPERATOR(pg_catalog.=) m.roleid
    WHERE m.member OPERATOR(pg_catalog.=) r.oid AND g.rolname OPERATOR(pg_catalog.=) $2)
"""


class StoredRole(NamedTuple):
    """`valid_until` is of the clock, in seconds."""

    password: str
    valid_until: float = _NEVER


class RoleSource(Protocol):
    async def role(self, cluster: Cluster, query: str, *values: str) -> StoredRole | None:
        """What the query says. Raises SourceDown."""

    def rest(self) -> None:
        """To be called from time to time."""

    async def close(self) -> None: ...


class _Found(NamedTuple):
    user: User | None
    valid_until: float
    cluster: str
    asked_at: float


class Roles:
    """`changed` is called with the names of connected users that are not what they were, `used` says who is connected,
    `auth_type` how clients prove themselves."""

    def __init__(
        self,
        registry: Registry,
        source: RoleSource,
        changed: Callable[[frozenset[str]], None],
        used: Callable[[], Iterable[str]],
        auth_type: Callable[[], str],
        size: int = 10_000,
    ) -> None:
        self._registry = registry
        self._source = source
        self._changed = changed
        self._used = used
        self._auth_type = auth_type
        self._size = size
        self._found: OrderedDict[str, _Found] = OrderedDict()
        self._flying: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._told: set[str] = set()  # clusters whose query is of no use
        self._failing: set[str] = set()  # those that could not be asked the last time
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_LOOK, self._look)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        tasks = [*self._flying.values(), *([self._looking] if self._looking is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._source.close()

    def get(self, name: str) -> User | None:
        """As it was found last."""
        found = self._found.get(name)
        return found.user if found is not None and time() < found.valid_until else None

    async def find(self, role: str, tenant: Tenant) -> User | None:
        """Who that is on the tenant's cluster now. Raises UserUnknown where it cannot be asked."""
        cluster = self._registry.cluster(tenant.cluster)
        if cluster is None or not cluster.auth_user or not _possible(role, tenant.name):
            return None
        name = f"{role}@{tenant.name}"
        found = self._found.get(name)
        if found is None or found.cluster != cluster.name or monotonic() - found.asked_at > _GOOD:
            flight = self._flying.get((name, cluster.name))
            if flight is None:
                flight = asyncio.get_running_loop().create_task(self._ask(name, role, tenant, cluster))
                flight.add_done_callback(_heard)
                self._flying[name, cluster.name] = flight
            try:
                await asyncio.shield(flight)
            except SourceDown:
                raise UserUnknown(role) from None
        return self.get(name)

    async def _ask(self, name: str, role: str, tenant: Tenant, cluster: Cluster) -> None:
        try:
            said = await self._question(role, tenant, cluster)
        except SourceDown as error:
            if cluster.name not in self._failing:  # strangers may ask as often as they like
                self._failing.add(cluster.name)
                _log.warning("auth_query failed", cluster=cluster.name, error=str(error))
            raise
        finally:
            del self._flying[name, cluster.name]
        if cluster.name in self._failing:
            self._failing.remove(cluster.name)
            _log.info("auth_query is answered again", cluster=cluster.name)
        before, used = self.get(name), frozenset(self._used())
        user = None
        if said is not None and said.password:
            user = User(
                name,
                password=said.password,
                tenants=frozenset({tenant.name}),
                auth_type=self._auth_type() if self._auth_type() in ("md5", "plain") else "scram-sha-256",
                server_user=role,
                server_password=said.password,
            )
            user = before if user == before else user
        until = said.valid_until if said is not None else _NEVER
        self._found[name] = _Found(user, until, cluster.name, monotonic())
        self._found.move_to_end(name)
        over = len(self._found) - self._size
        for old in list(self._found)[:over] if over > 0 else ():
            if old not in used:
                del self._found[old]
        if name in used and self.get(name) is not before:
            self._changed(frozenset({name}))

    async def _question(self, role: str, tenant: Tenant, cluster: Cluster) -> StoredRole | None:
        several = self._registry.is_of_several(cluster)
        query = cluster.auth_query or (_OF_SEVERAL if several else _OF_ONE)
        asks_whose = bool(_ASKS_WHOSE.search(query))
        if several and not asks_whose:
            if cluster.name not in self._told:
                self._told.add(cluster.name)
                _log.error("auth_query refused: it does not ask whose a role is, by $2", cluster=cluster.name)
            return None
        return await self._source.role(cluster, query, role, *([tenant.name] if asks_whose else []))

    # --- from time to time ----------------------------------------------------------------------------

    def _look(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_LOOK, self._look)
        self._source.rest()
        names = [name for name in self._used() if name in self._found]
        if names and self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._refresh(names))

    async def _refresh(self, names: Iterable[str]) -> None:
        try:
            for name in names:
                await self.refresh(name)
        finally:
            self._looking = None

    async def refresh(self, name: str) -> None:
        """Asks again about one that is connected, wherever its tenant lives now."""
        role, _, tenant_name = name.rpartition("@")
        found, tenant = self._found.get(name), self._registry.known(tenant_name)
        if found is None or tenant is None:
            return
        cluster = self._registry.cluster(tenant.cluster)
        if cluster is None or not cluster.auth_user:
            self._found[name] = found._replace(user=None)
        elif found.user is None or time() < found.valid_until:
            with contextlib.suppress(UserUnknown):
                await self.find(role, tenant)
            return
        if found.user is not None:
            self._changed(frozenset({name}))


def _heard(flight: asyncio.Task[None]) -> None:
    """Whoever waited for it may have left."""
    if not flight.cancelled():
        flight.exception()


def _possible(role: str, tenant: str) -> bool:
    """It can be asked about, and its name and the tenant's are told from the two together."""
    return "@" not in tenant and "\0" not in role and not any("\ud800" <= c <= "\udfff" for c in role)
