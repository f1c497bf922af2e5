"""Which tenant a client says it speaks for, and whether its user may.

A claim is one function in `_SOURCES`; the configuration names them in the order they are asked. Claims
that contradict each other are refused rather than ranked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from proxy.errors import NotAuthorized
from proxy.model import Tenant, User

KnownTenant = Callable[[str], Tenant | None]


@dataclass(frozen=True, slots=True)
class LoginFacts:
    """What a client said before it proved who it is. `parameters` include those from `options`."""

    user: str
    database: str
    parameters: Mapping[str, str]
    sni: str = ""
    tenant_guc: str = "app.tenant_id"
    default_tenant: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """`user` is the login without `@tenant`. `tenant` (a name or an id) and `source` are "" for no claim."""

    user: str
    tenant: str
    source: str


def _from_startup(facts: LoginFacts, asked: str, known: KnownTenant | None) -> str:
    guc = facts.tenant_guc.lower()
    said = [value for name, value in facts.parameters.items() if name.lower() == guc and value]
    for other in said[1:]:
        _agree(said[0], other, known)
    return said[0] if said else ""


def _from_user(facts: LoginFacts, asked: str, known: KnownTenant | None) -> str:
    return asked


def _from_sni(facts: LoginFacts, asked: str, known: KnownTenant | None) -> str:
    # Clients send the name of whatever host they were given; it is a claim only where it names a tenant.
    label = facts.sni.partition(".")[0]
    if known is None:
        return label
    for name in (label, label.lower()):
        if name and known(name) is not None:
            return name
    return ""


_SOURCES: Mapping[str, Callable[[LoginFacts, str, KnownTenant | None], str]] = MappingProxyType(
    {"startup": _from_startup, "user": _from_user, "sni": _from_sni}
)


def identify(
    facts: LoginFacts,
    order: Sequence[str],
    known_user: Callable[[str], bool],
    known_tenant: KnownTenant | None = None,
) -> Claim:
    """Raise NotAuthorized where two sources claim different tenants.

    With `known_tenant` a name and an id of the same tenant agree, and a host name that is no tenant's is no
    claim. "session" in `order` is for later: a SET is not a fact of the login.
    """
    user, asked = facts.user, ""
    if "user" in order and "@" in user and not known_user(user):
        user, _, asked = user.rpartition("@")
    claimed = source = ""
    for name in order:
        ask = _SOURCES.get(name)
        tenant = ask(facts, asked, known_tenant) if ask is not None else ""
        if not tenant:
            continue
        if claimed:
            _agree(claimed, tenant, known_tenant)
        else:
            claimed, source = tenant, name
    if not claimed and facts.default_tenant:
        claimed, source = facts.default_tenant, "default"
    return Claim(user, claimed, source)


def named(facts: LoginFacts, order: Sequence[str], known_user: Callable[[str], bool]) -> list[str]:
    """Every name that `identify` may ask about."""
    asked = facts.user.rpartition("@")[2] if "@" in facts.user and not known_user(facts.user) else ""
    label = facts.sni.partition(".")[0]
    guc = facts.tenant_guc.lower()
    said = {
        "startup": [value for name, value in facts.parameters.items() if name.lower() == guc],
        "user": [asked],
        "sni": [label, label.lower()],
    }
    found = [name for source in order for name in said.get(source, [])]
    return list(dict.fromkeys(name for name in (*found, facts.default_tenant) if name))


def _agree(one: str, other: str, known: KnownTenant | None) -> None:
    if one == other:
        return
    first, second = (known(one), known(other)) if known is not None else (None, None)
    if first is None or second is None or first.name != second.name:
        raise NotAuthorized(
            "conflicting tenants in one login",
            hint="Name the tenant in one way only.",
            internal=f"claimed {one!r} and {other!r}",
        )


def authorize(user: User, tenant: Tenant) -> None:
    """Raise NotAuthorized unless `user` may act for `tenant` and the tenant is active."""
    if not user.may_act_for(tenant):
        raise not_allowed(user, tenant.name)
    if not tenant.active:
        raise NotAuthorized(f'tenant "{tenant.name}" is not active')


def not_allowed(user: User, tenant: str) -> NotAuthorized:
    return NotAuthorized(f'user "{user.name}" may not act for tenant "{tenant}"')
