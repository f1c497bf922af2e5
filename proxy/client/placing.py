"""Where a session's transactions go and with which parameters: at login, and when the registry changes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from proxy.admission.accounts import Account, UserAccount, give_all, take_all
from proxy.auth.to_server import is_verifier
from proxy.errors import CapReached, NoHealthyEndpoint, NotAuthorized, ShuttingDown, TenantChangeRefused
from proxy.model import Tenant, Tier, User
from proxy.protocol.seal import PARAMETER
from proxy.protocol.state import State, intern
from proxy.registry.memory import OLD, Registry
from proxy.routing.route import route
from proxy.sql.policy import Rules

if TYPE_CHECKING:
    from proxy.client.applicants import Login
    from proxy.client.conversation import Conversation
    from proxy.client.plane import Plane
    from proxy.server.connection import ServerConnection
    from proxy.server.pool import Pool

_NO_TIER = Tier("")
_MOST_KEPT = 4_096


class Place:
    """`startup`: the state that RESET goes back to, as the client spelled it."""

    __slots__ = ("pool", "rules", "startup", "temp_first")

    def __init__(self, pool: Pool, startup: State, rules: Rules | None, temp_first: bool) -> None:
        self.pool = pool
        self.startup = startup
        self.rules = rules
        self.temp_first = temp_first


def place(session: Conversation) -> None:
    """Gives the session its pool and the state that RESET goes back to."""
    take_place(session, _place(session, session.tenant))


def take_place(session: Conversation, found: Place) -> None:
    session.use_rules(found.rules)
    session.use_pool(found.pool)
    session.startup = session.state_needed = found.startup
    session.temp_first = found.temp_first


def _place(session: Conversation, tenant: Tenant) -> Place:
    """Who changes tenants comes back: what was found for the same is kept while the registry stays in its epoch."""
    plane, login, user = session.plane, session.login, session.user
    registry, pools = plane.registry, plane.pools
    if plane.placed_in != registry.epoch or len(plane.places) >= _MOST_KEPT:
        plane.placed_in = registry.epoch
        plane.places.clear()
    key = (tenant.name, user.name, login.database, login.asked, len(pools.only_at_start))
    kept = plane.places.get(key)
    if kept is not None and kept[1] is tenant and kept[2] is user:
        found: Place = kept[0]
        if pools.has(found.pool) and found.pool.cluster is registry.cluster(tenant.cluster):
            return found
    found = find_place(plane, login, user, tenant, session.address)
    if not pools.options.application_name_add_host:
        plane.places[key] = (found, tenant, user)
    return found


def find_place(plane: Plane, login: Login, user: User, tenant: Tenant, address: str) -> Place:
    registry, pools = plane.registry, plane.pools
    if tenant.name and not tenant.cluster:
        raise NoHealthyEndpoint(f'tenant "{tenant.name}" cannot be served now', internal=tenant.placement)
    tier = registry.tier(tenant.tier) if tenant.name else _NO_TIER
    cluster = registry.cluster(tenant.cluster)
    if tier is None or cluster is None or registry.is_disabled("cluster", tenant.cluster):
        raise NoHealthyEndpoint(f'cluster "{tenant.cluster}" is not available')
    way = route(tenant, tier, cluster, user, login.database, pools.options)
    if cluster.user:
        password = cluster.password
    elif user.server_user or user.server_password:
        password = user.server_password
    else:
        password = user.password
    rules = registry.rules(tenant)
    parameters = _given(tier, tenant, rules)
    locked = rules.locked if rules is not None else frozenset()
    parameters |= {name: value for name, value in _asked(login).items() if name not in locked}
    parameters.pop(PARAMETER, None)
    if pools.options.application_name_add_host:
        name = parameters.get("application_name", "app")
        parameters["application_name"] = f"{name} - {address}"
    at_start = tuple(sorted((name, parameters.pop(name)) for name in pools.only_at_start & parameters.keys()))
    parameters[plane.options.tenant_guc.lower()] = tenant.name
    key = way.pool_key._replace(
        at_start=at_start, verifier=_digest(password) if is_verifier(password) else ""
    )
    pool = pools.pool(key, cluster, way.pool_mode, password)
    return Place(pool, intern(parameters), rules, "pg_temp" in parameters.get("search_path", "").lower())


@lru_cache(maxsize=1000)
def _digest(verifier: str) -> str:
    return hashlib.sha256(verifier.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def become(session: Conversation, tenant: Tenant, let_go: Callable[[ServerConnection], None]) -> None:
    """The session speaks for `tenant` from its next transaction on; what it has set itself goes with it. A
    connection that is kept for nothing is let go. Raises what forbids that."""
    found = _place(session, tenant)
    server = session.server
    if server is not None and found.pool is not session.pool:
        if session.pins or session.tenant.name:
            raise TenantChangeRefused(
                f'the session keeps its server connection ({_kept_for(session)}), and tenant "{tenant.name}" has another',
                hint="DISCARD ALL, or use transaction mode.",
            )
        let_go(server)
        server = None
    account = session.plane.accounts.account(tenant)
    if server is not None:
        _charge(server, account, session.user_account)
    own, old = session.state_needed, session.startup
    session.tenant, session.account = tenant, account
    session.limit_by(session.plane.registry.limits(tenant, session.user))
    take_place(session, found)
    if own is not old:
        _keep_own(session, own.parameters, old.parameters)


def _kept_for(session: Conversation) -> str:
    return ", ".join(sorted(reason.value for reason in session.pins)) or "session mode"


def _charge(server: ServerConnection, account: Account, user: UserAccount) -> None:
    """A connection that is kept is another tenant's from now on. Raises CapReached."""
    counters = account.server_counters(user)
    if counters == server.permits:
        return
    full = take_all(counters)
    if full is not None:
        raise CapReached(f"too many connections ({full.name})")
    permits, server.permits = server.permits, counters
    server.account = account
    give_all(permits)


def _keep_own(session: Conversation, own: Mapping[str, str], old: Mapping[str, str]) -> None:
    """What the client has set itself, by what it had and what it began with; not the tenant, which it may have set to any
    where it lived alone."""
    kept = {session.plane.options.tenant_guc.lower()} | (
        session.rules.locked if session.rules is not None else set()
    )
    changed = {name: value for name, value in own.items() if old.get(name) != value and name not in kept}
    if changed:
        session.state_needed = intern({**session.startup.parameters, **changed})


def _given(tier: Tier | None, tenant: Tenant, rules: Rules | None) -> dict[str, str]:
    """The parameters that tier and tenant set."""
    given = {name.lower(): value for name, value in tier.parameters.items()} if tier is not None else {}
    given |= {name.lower(): value for name, value in tenant.parameters.items()}
    if rules is not None and rules.read_only:
        given["default_transaction_read_only"] = "on"
    return given


def _asked(login: Login) -> dict[str, str]:
    return {name.lower(): value for name, value in login.asked.parameters.items()}


def check_asked(registry: Registry, login: Login, tenant: Tenant) -> None:
    """Raises where the client asks in its startup packet for another value of a parameter that is locked."""
    rules = registry.rules(tenant)
    if rules is None:
        return
    given = _given(registry.tier(tenant.tier), tenant, rules)
    for name, value in _asked(login).items():
        refused = rules.asked_refusal(name, value, given.get(name))
        if refused is not None:
            raise refused


def follow_registry(session: Conversation, let_go: Callable[[ServerConnection], None]) -> None:
    """Takes up what has changed of tenant, tier, user and limits; a connection that was kept for nothing is let go.
    Raises what ends the session."""
    if session.chooser is not None:
        session.chooser.follow()
        return
    plane = session.plane
    registry = plane.registry
    tenant = registry.known(session.tenant.name)
    user = registry.user(session.user.name)
    if tenant is None or not tenant.active or registry.is_disabled("tenant", tenant.name):
        raise ShuttingDown(f'tenant "{session.tenant.name}" {registry.ended(session.tenant.name)}')
    if user is None or not user.may_act_for(tenant):
        raise NotAuthorized(f'user "{session.user.name}" may not act for tenant "{tenant.name}" any more')
    session.epoch = registry.epoch
    session.tenant, session.user = tenant, user
    session.account = plane.accounts.account(tenant)
    session.user_account = plane.accounts.user(user)
    session.limit_by(registry.limits(tenant, user))
    session.use_rules(registry.rules(tenant))
    if session.server is not None and not _stays(session, session.server):
        idle_since = session.idle_since
        let_go(session.server)
        session.idle_since = idle_since
    if session.server is None:
        own = session.state_needed.parameters
        old = session.startup.parameters
        place(session)
        _keep_own(session, own, old)


def _stays(session: Conversation, server: ServerConnection) -> bool:
    """A connection that is kept, in session mode or for a pin, has what no other has: where the tenant has moved, its
    session must end, so that nothing more is written where nobody looks for it. Any other place waits until the
    connection is let go.

    What a client leaves behind in session mode nobody looks at. So only of one that has asked for nothing since it
    came, of itself or of its server connection, it is certain that it has left nothing.
    """
    found = _place(session, session.tenant).pool
    if found.key.cluster != session.pool.key.cluster or server.endpoint not in found.cluster.endpoints:
        if not session.pins and server.query_since < session.connected_at:
            return False
        raise ShuttingDown(
            f'tenant "{session.tenant.name}" has moved, and the session kept its server connection',
            hint="Connect again.",
        )
    named = session.state_needed.parameters.get(session.plane.options.tenant_guc.lower())
    if named != session.tenant.name and not session.registry.lives_alone(found.cluster):
        raise ShuttingDown(
            f'tenant "{session.tenant.name}" does not live alone any more, and the session has named another',
            hint="Connect again.",
        )
    if found is not session.pool:
        session.epoch = OLD
    return True
