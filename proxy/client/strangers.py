"""Clients whose user the file does not have: who they are is looked up before they are asked to prove it.

In the registry first, for its own users; then among the roles of the cluster where the tenant lives that they claim.
Whoever is found nowhere is asked for a proof all the same. What a wrong claim is, and which tenants there are, is not
told before that: such a client is nobody.
"""

from __future__ import annotations

from functools import partial

from proxy.client.following import users_changed
from proxy.client.greeting import Greeting
from proxy.client.login import Met, facts_of
from proxy.client.plane import Plane
from proxy.errors import NotAuthorized
from proxy.model import ClientOptions, Tenant
from proxy.registry.memory import Registry
from proxy.registry.roles import Roles
from proxy.routing.identify import LoginFacts, identify, named
from proxy.server.roles import RoleLines


def asking(plane: Plane) -> Roles:
    """Asks the clusters for the clients of a process."""
    pools = plane.pools
    lines = RoleLines(lambda: pools.options, lambda: pools.tls, pools.health.healthy)
    return Roles(
        plane.registry,
        lines,
        partial(users_changed, plane),
        plane.accounts.user_names,
        lambda: plane.options.auth_type,
    )


def claimed(greeting: Greeting, options: ClientOptions, registry: Registry) -> str:
    """The first tenant that it names, true or not."""
    names = named(facts_of(greeting, options), options.identify, registry.has_user)
    return names[0] if names else ""


async def meet(greeting: Greeting, options: ClientOptions, registry: Registry) -> Met:
    """Raises UserUnknown or RegistryDown where nobody can be asked."""
    facts = facts_of(greeting, options)
    if registry.logins is not None and registry.may_be_stored(facts.user):
        await registry.logins.find(facts.user)
        stored = registry.logins.get(facts.user)
        if stored is not None:
            return Met(stored)
    roles = registry.roles
    if roles is None or not registry.asks_clusters:
        return Met(None)
    for name in named(facts, options.identify, registry.has_user):
        await registry.find(name)
    found = _claim(facts, options, registry)
    return Met(await roles.find(*found) if found is not None else None)


def _claim(facts: LoginFacts, options: ClientOptions, registry: Registry) -> tuple[str, Tenant] | None:
    try:
        claim = identify(facts, options.identify, registry.has_user, registry.known)
    except NotAuthorized:
        return None
    tenant = registry.known(claim.tenant) if claim.tenant else None
    return (claim.user, tenant) if tenant is not None else None
