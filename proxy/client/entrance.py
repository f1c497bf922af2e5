"""What a login is given, worked out once for all that say the same: account, limits, permits, pool, and the welcome.

It holds while the registry stays in its epoch and the pool lives. Where something of it is a client's own (its address
in the application's name) it is made for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from proxy.client.conversation import Given
from proxy.client.placing import Place, check_asked, find_place
from proxy.errors import NotAuthorized
from proxy.model import PoolMode
from proxy.protocol.state import EMPTY, State, intern, status, with_parameter
from proxy.wire.encode import ready_for_query
from proxy.wire.pieces import key_between

if TYPE_CHECKING:
    from proxy.client.applicants import Login
    from proxy.client.plane import Plane
    from proxy.net.stream import LoginStream

_READY = ready_for_query()
_SESSION_MODE = PoolMode.SESSION
_said: WeakKeyDictionary[State, bytes] = WeakKeyDictionary()


class Entrance(Given):
    """`permits` are those of one more client. Once a server of the pool has judged the parameters (`introduced`),
    `state` and `told` are what a session begins with, and `statuses` what tells its client so."""

    __slots__ = (
        "_asked", "_known", "_only_at_start", "_pool", "place", "state", "statuses", "told",
    )  # fmt: skip

    def __init__(self, plane: Plane, login: Login, stream: LoginStream) -> None:
        registry, tenant = plane.registry, login.tenant
        if tenant is None:
            raise AssertionError("a session needs a tenant")
        if registry.is_disabled("tenant", tenant.name):
            raise NotAuthorized(f'tenant "{tenant.name}" is suspended')
        account, user_account = plane.accounts.account(tenant), plane.accounts.user(login.user)
        permits = (plane.clients, *account.client_counters(user_account))
        limits = registry.limits(tenant, login.user)
        super().__init__(account, user_account, limits, tenant, registry.epoch, permits)
        check_asked(registry, login, tenant)
        self.place: Place = find_place(plane, login, login.user, tenant, stream.address)
        self._pool = self.place.pool
        self._only_at_start = len(plane.pools.only_at_start)
        self._asked = without(self.place.startup.parameters, plane.options.tenant_guc.lower())
        self._known: tuple[State, State] | None = None
        self.state = self.told = EMPTY
        self.statuses = b""

    def holds(self, plane: Plane) -> bool:
        """It is what would be found again. (What has clients is not forgotten.)"""
        pools = plane.pools
        return (
            self.epoch == plane.registry.epoch
            and self._only_at_start == len(pools.only_at_start)
            and (self._pool.sessions > 0 or pools.has(self._pool))
            and (self.account.clients.used > 0 or plane.accounts.has(self.account))
        )

    def introduced(self, plane: Plane) -> bool:
        """No server needs to be asked."""
        pool = self._pool
        known = pool.introductions.get(self._asked)
        if known is None or pool.mode is _SESSION_MODE:
            return False
        pool.introductions.move_to_end(self._asked)
        if known is not self._known:
            self._known = known
            startup, self.told = known
            self.state = with_parameter(startup, plane.options.tenant_guc.lower(), self.tenant.name)
            self.statuses = statuses(self.told)
        return True


def entrance(plane: Plane, login: Login, stream: LoginStream) -> Entrance:
    """Raises what the client is to read."""
    found: Entrance | None = login.entrance
    if found is not None and found.holds(plane):
        return found
    made = Entrance(plane, login, stream)
    login.entrance = None if plane.pools.options.application_name_add_host else made
    return made


def without(parameters: Mapping[str, str], guc: str) -> State:
    """The tenant's name is taken by every server: it is no reason to ask one again."""
    return intern({name: value for name, value in parameters.items() if name != guc})


def statuses(told: State) -> bytes:
    """The same for all sessions that are told the same, which are most."""
    said = _said.get(told)
    if said is None:
        said = _said[told] = b"".join(status(name, value) for name, value in told.parameters.items())
    return said


def hello(statuses: bytes, pid: int, key: bytes) -> bytes:
    """Behind a login: what the server's parameters are, how to cancel, and that a query may come."""
    return key_between(statuses, pid, key, _READY)
