"""Where a session's transactions go and with which parameters: at login, and when the registry changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.errors import NoHealthyEndpoint, NotAuthorized, ShuttingDown
from proxy.protocol.seal import PARAMETER
from proxy.protocol.state import intern
from proxy.routing.route import route

if TYPE_CHECKING:
    from proxy.client.conversation import Conversation


def place(session: Conversation) -> None:
    """Gives the session its pool and the state that RESET goes back to (as the client spelled it)."""
    plane, tenant, user = session.plane, session.tenant, session.user
    registry, pools = plane.registry, plane.pools
    tier = registry.tier(tenant.tier)
    cluster = registry.cluster(tenant.cluster)
    if tier is None or cluster is None or registry.is_disabled("cluster", tenant.cluster):
        raise NoHealthyEndpoint(f'cluster "{tenant.cluster}" is not available')
    way = route(tenant, tier, cluster, user, session.login.database, pools.options)
    if cluster.user:
        password = cluster.password
    elif user.server_user or user.server_password:
        password = user.server_password
    else:
        password = user.password
    parameters = {name.lower(): value for name, value in tier.parameters.items()}
    parameters |= {name.lower(): value for name, value in tenant.parameters.items()}
    parameters |= {name.lower(): value for name, value in session.login.asked.parameters.items()}
    parameters.pop(PARAMETER, None)
    if pools.options.application_name_add_host:
        name = parameters.get("application_name", "app")
        parameters["application_name"] = f"{name} - {session.login.address}"
    at_start = tuple(sorted((name, parameters.pop(name)) for name in pools.only_at_start & parameters.keys()))
    session.use_pool(pools.pool(way.pool_key._replace(at_start=at_start), cluster, way.pool_mode, password))
    parameters[plane.options.tenant_guc.lower()] = tenant.name
    session.startup = session.state_needed = intern(parameters)
    session.temp_first = "pg_temp" in parameters.get("search_path", "").lower()


def follow_registry(session: Conversation) -> None:
    """Takes up what has changed of tenant, tier, user and limits. Raises what ends the session."""
    plane = session.plane
    registry = plane.registry
    tenant = registry.known(session.tenant.name)
    user = registry.user(session.user.name)
    if tenant is None or not tenant.active or registry.is_disabled("tenant", tenant.name):
        raise ShuttingDown(f'tenant "{session.tenant.name}" has been suspended')
    if user is None or not user.may_act_for(tenant):
        raise NotAuthorized(f'user "{session.user.name}" may not act for tenant "{tenant.name}" any more')
    session.epoch = registry.epoch
    session.tenant, session.user = tenant, user
    session.account = plane.accounts.account(tenant)
    session.user_account = plane.accounts.user(user)
    session.limits = registry.limits(tenant, user)
    session.wait_limit = session.limits.query_wait_timeout or 0.0
    if session.server is None:
        own = session.state_needed.parameters
        old = session.startup.parameters
        place(session)
        changed = {name: value for name, value in own.items() if old.get(name) != value}
        if changed:
            session.state_needed = intern({**session.startup.parameters, **changed})
