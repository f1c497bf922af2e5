"""Who a client is, for which tenant it speaks, and whether it may: what its startup packet says, against the registry.

An Applicant has said who it is, and is asked to prove it; then `wanted` is whom it speaks for, and with that tenant
(which the registry may have to fetch) `log_in` makes its Login. Nothing of it waits, and nothing depends on which
client it is: who says the same is the same Applicant and gets the same Login, as long as the registry's epoch lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from proxy.auth.exchange import Asking
from proxy.client.applicants import Applicant, Login
from proxy.client.greeting import Greeting
from proxy.errors import NotAuthorized, UnknownTenant
from proxy.model import NO_PARAMETERS, ClientOptions, Tenant, User
from proxy.protocol.state import State, intern
from proxy.protocol.tenancy import nobody
from proxy.registry.memory import Registry, RegistryDown
from proxy.routing.identify import Claim, LoginFacts, authorize, identify, named, not_allowed
from proxy.wire import encode
from proxy.wire.startup import Startup, parse_options

CONSOLE_DATABASES = ("tiergate", "pgbouncer")
_NEWEST_MINOR = 2
_NOT_SETTINGS = ("user", "database", "options", "replication")
_FALSE = ("", "0", "f", "false", "n", "no", "off")


class Met(NamedTuple):
    """Who that is by what was found elsewhere than in the file; None: nobody."""

    user: User | None


class Wanted(NamedTuple):
    """`tenant` is a name or an id, "" where none is to be looked up."""

    tenant: str
    database: str
    is_console: bool
    chooses: bool
    lobby: str = ""  # the cluster of those who have chosen none


def applicant(
    greeting: Greeting, options: ClientOptions, registry: Registry, met: Met | None = None
) -> Applicant:
    """`met`: who it is has been looked up. Raises what the client is to read."""
    said = greeting.startup.parameters
    name = said.get("user", "")
    minor, negotiation = _negotiate(greeting.startup)
    if not name:
        raise NotAuthorized("no PostgreSQL user name specified in startup packet")
    facts = facts_of(greeting, options)
    # Whose tenants agree, and which exist, is told only to those who have authenticated.
    alone = replace(facts, parameters=NO_PARAMETERS, sni="", default_tenant="")
    if met is None:
        own_name = identify(alone, options.identify, _users(registry)).user
        user = registry.user(own_name)
    else:
        own_name = (
            met.user.server_user
            if met.user is not None
            else identify(alone, options.identify, registry.has_user).user
        )
        user = met.user
    method = (user.auth_type if user is not None else "") or options.auth_type
    asking = Asking(
        user=own_name,
        known=user is not None,
        said_name=name,
        stored=user.password if user is not None else "",
        certificate_name=greeting.certificate_name if method == "cert" else "",
        binding=greeting.binding,
    )
    replication = said.get("replication", "")
    replication = "" if replication.lower() in _FALSE else replication
    claims = named(facts, options.identify, _users(registry))
    return Applicant(
        facts, replication, minor, negotiation, greeting.tls is not None, method, asking, user, registry.epoch,
        claims[0] if claims else "",
    )  # fmt: skip


def facts_of(greeting: Greeting, options: ClientOptions) -> LoginFacts:
    said = greeting.startup.parameters
    settings = parse_options(said["options"]) if "options" in said else {}
    settings |= {key: value for key, value in said.items() if key not in _NOT_SETTINGS}
    return LoginFacts(
        user=said.get("user", ""),
        database=said.get("database", ""),
        parameters=settings,
        sni=greeting.server_name,
        tenant_guc=options.tenant_guc,
        default_tenant=options.default_tenant,
    )


def _negotiate(startup: Startup) -> tuple[int, bytes]:
    minor = min(startup.minor, _NEWEST_MINOR)
    if startup.minor <= _NEWEST_MINOR and not startup.protocol_options:
        return minor, b""
    unknown = [option.encode() for option in startup.protocol_options]
    return minor, encode.negotiate_protocol_version(encode.PROTOCOL_3_0 | minor, unknown)


def _users(registry: Registry) -> Callable[[str], bool]:
    return lambda user: registry.user(user) is not None


def settled(who: Applicant, options: ClientOptions, registry: Registry) -> bool:
    """`wanted` needs nothing that is still to be looked up."""
    if registry.rows is None:
        return True
    return all(
        registry.settled(name) and not registry.unasked(name)
        for name in named(who.facts, options.identify, _users(registry))
    )


async def look_up(who: Applicant, options: ClientOptions, registry: Registry) -> RegistryDown | None:
    """All names that `wanted` may ask about. Returns the outage where nobody could be asked about one of them."""
    unasked: RegistryDown | None = None
    for name in named(who.facts, options.identify, _users(registry)):
        try:
            await registry.find(name)
        except RegistryDown as error:
            unasked = error
    return unasked


def wanted(
    who: Applicant, options: ClientOptions, registry: Registry, unasked: RegistryDown | None = None
) -> Wanted:
    """Of one that has proved who it is. Raises what the client is to read, which is `unasked` where a name about which
    nobody could be asked may have made the difference."""
    user = _known(who)
    try:
        claim = identify(who.facts, options.identify, _users(registry), registry.known)
    except NotAuthorized:
        if unasked is not None:
            raise unasked from None
        raise
    database = who.facts.database or claim.user
    if database in CONSOLE_DATABASES:
        if user.name not in options.admin_users and user.name not in options.stats_users:
            raise NotAuthorized(f'user "{user.name}" may not open the console')
        return Wanted("", database, True, False)
    chooses = _may_choose(user, claim) and "session" in options.identify and not who.replication
    claimed = claim.tenant
    if claim.source in ("", "default") and user.tenants is not None and len(user.tenants) == 1:
        claimed = next(iter(user.tenants))  # the client named none, and the user has only this one
    if unasked is not None and not claim.tenant:
        raise unasked
    if claimed:
        return Wanted(claimed, database, False, chooses)
    if chooses and (lobby := registry.lobby()):
        return Wanted("", database, False, True, lobby)
    raise NotAuthorized(
        "no tenant was named",
        hint="Name one: options=-c app.tenant_id=NAME, or user name@NAME.",
    )


def log_in(
    who: Applicant, asked: Wanted, found: Tenant | None, options: ClientOptions, registry: Registry
) -> Login:
    """`found` is what the registry has under the name that was asked for. Raises what the client is to read."""
    user = _known(who)
    tenant = found
    if asked.tenant:
        if found is None:
            if user.tenants is not None and asked.tenant not in user.tenants:
                raise not_allowed(user, asked.tenant)  # it is not told which others exist
            raise UnknownTenant(f'tenant "{asked.tenant}" does not exist')
        authorize(user, found)
        if registry.is_disabled("tenant", found.name):
            raise NotAuthorized(f'tenant "{found.name}" is suspended')
    elif not asked.is_console:
        tenant = nobody(asked.lobby)
    return Login(
        user=user,
        tenant=tenant,
        database=asked.database,
        asked=_settings(who.facts.parameters, options.tenant_guc.lower()),
        replication=who.replication,
        protocol_minor=who.minor,
        tls=who.tls,
        is_console=asked.is_console,
        chooses=asked.chooses,
    )


def _settings(said: Mapping[str, str], guc: str) -> State:
    return intern({key: value for key, value in said.items() if key.lower() != guc})


def _known(who: Applicant) -> User:
    if who.user is None:
        raise AssertionError("an unknown user has authenticated")
    return who.user


def _may_choose(user: User, claim: Claim) -> bool:
    """It has named no tenant, and has more than one to name."""
    return claim.source in ("", "default") and (user.tenants is None or len(user.tenants) > 1)
