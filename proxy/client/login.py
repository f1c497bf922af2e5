"""The login of one client: protocol version, who it is, for which tenant it speaks, and whether it may."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from proxy.auth.exchange import Asking, Exchange, Step
from proxy.auth.methods import exchange
from proxy.client.greeting import Greeting
from proxy.errors import NotAuthorized, ProtocolViolation, ServerRefused, TiergateError, UnknownTenant
from proxy.model import NO_PARAMETERS, ClientOptions, Tenant, User
from proxy.net.stream import LoginStream
from proxy.protocol.state import State, intern
from proxy.protocol.tenancy import nobody
from proxy.registry.memory import Registry
from proxy.routing.identify import Claim, LoginFacts, authorize, identify, not_allowed
from proxy.wire import encode
from proxy.wire.startup import Startup, parse_options

CONSOLE_DATABASES = ("tiergate", "pgbouncer")
_NEWEST_MINOR = 2
_NOT_SETTINGS = ("user", "database", "options", "replication")
_FALSE = ("", "0", "f", "false", "n", "no", "off")


@dataclass(frozen=True, slots=True)
class Login:
    """A client that has authenticated. `asked` are the settings of its startup packet, without the
    tenant; `replication` is "" for an ordinary session."""

    user: User
    tenant: Tenant | None
    database: str
    asked: State
    replication: str
    protocol_minor: int
    address: str
    tls: bool
    is_console: bool
    chooses: bool = False  # it may say in SQL which tenant it speaks for


async def log_in(greeting: Greeting, options: ClientOptions, registry: Registry) -> Login:
    """Raises what the client is to read. AuthenticationOk has been sent on return, the welcome has not."""
    stream, startup = greeting.stream, greeting.startup
    minor = _negotiate(stream, startup)
    said = startup.parameters
    name = said.get("user", "")
    if not name:
        raise NotAuthorized("no PostgreSQL user name specified in startup packet")
    settings = parse_options(said["options"]) if "options" in said else {}
    settings |= {key: value for key, value in said.items() if key not in _NOT_SETTINGS}
    facts = LoginFacts(
        user=name,
        database=said.get("database", ""),
        parameters=settings,
        sni=greeting.server_name,
        tenant_guc=options.tenant_guc,
        default_tenant=options.default_tenant,
    )
    # Whose tenants agree, and which exist, is told only to those who have authenticated.
    alone = replace(facts, parameters=NO_PARAMETERS, sni="", default_tenant="")
    own_name = identify(alone, options.identify, lambda user: registry.user(user) is not None).user
    user = registry.user(own_name)
    await _authenticate(greeting, options, own_name, user)
    if user is None:
        raise AssertionError("an unknown user has authenticated")
    claim = identify(facts, options.identify, lambda user: registry.user(user) is not None, registry.known)
    database = facts.database or claim.user
    is_console = database in CONSOLE_DATABASES
    tenant = None
    replication = said.get("replication", "")
    replication = "" if replication.lower() in _FALSE else replication
    chooses = _may_choose(user, claim) and "session" in options.identify and not (replication or is_console)
    if is_console:
        if user.name not in options.admin_users and user.name not in options.stats_users:
            raise NotAuthorized(f'user "{user.name}" may not open the console')
    else:
        tenant = await _tenant(registry, user, claim, chooses=chooses)
    guc = options.tenant_guc.lower()
    return Login(
        user=user,
        tenant=tenant,
        database=database,
        asked=intern({key: value for key, value in settings.items() if key.lower() != guc}),
        replication=replication,
        protocol_minor=minor,
        address=greeting.address,
        tls=greeting.tls is not None,
        is_console=is_console,
        chooses=chooses,
    )


def _negotiate(stream: LoginStream, startup: Startup) -> int:
    minor = min(startup.minor, _NEWEST_MINOR)
    if startup.minor > _NEWEST_MINOR or startup.protocol_options:
        unknown = [option.encode() for option in startup.protocol_options]
        stream.write(encode.negotiate_protocol_version(encode.PROTOCOL_3_0 | minor, unknown))
    return minor


async def _authenticate(greeting: Greeting, options: ClientOptions, name: str, user: User | None) -> None:
    method = (user.auth_type if user is not None else "") or options.auth_type
    asking = Asking(
        user=name,
        known=user is not None,
        said_name=greeting.startup.parameters["user"],
        stored=user.password if user is not None else "",
        certificate_name=greeting.certificate_name if method == "cert" else "",
        binding=greeting.binding,
    )
    talk = exchange(method, asking)
    step = talk.start()
    while True:
        if step.send:
            greeting.stream.write(step.send)
        if step.done:
            return
        kind, body = await greeting.stream.read_message()
        if kind != ord("p"):
            raise ProtocolViolation(f"expected password response, got message type {kind}")
        step = await _respond(talk, body)


async def _respond(talk: Exchange, body: bytes) -> Step:
    if talk.slow:
        return await asyncio.get_running_loop().run_in_executor(None, talk.respond, body)
    return talk.respond(body)


def _may_choose(user: User, claim: Claim) -> bool:
    """It has named no tenant, and has more than one to name."""
    return claim.source in ("", "default") and (user.tenants is None or len(user.tenants) > 1)


async def _tenant(registry: Registry, user: User, claim: Claim, *, chooses: bool) -> Tenant:
    claimed = claim.tenant
    if claim.source in ("", "default") and user.tenants is not None and len(user.tenants) == 1:
        claimed = next(iter(user.tenants))  # the client named none, and the user has only this one
    if not claimed:
        if chooses and (lobby := registry.lobby()):
            return nobody(lobby)
        raise NotAuthorized(
            "no tenant was named",
            hint="Name one: options=-c app.tenant_id=NAME, or user name@NAME.",
        )
    tenant = await registry.find(claimed)
    if tenant is None:
        if user.tenants is not None and claimed not in user.tenants:
            raise not_allowed(user, claimed)  # it is not told which others exist
        raise UnknownTenant(f'tenant "{claimed}" does not exist')
    authorize(user, tenant)
    if registry.is_disabled("tenant", tenant.name):
        raise NotAuthorized(f'tenant "{tenant.name}" is suspended')
    return tenant


async def fail(stream: LoginStream, error: TiergateError) -> None:
    """Says the error as FATAL, a server's own as it was sent, and closes when it has been written."""
    if isinstance(error, ServerRefused):
        stream.write(error.frame)
    else:
        stream.write(encode.refusal(error, "FATAL"))
    await stream.close()
