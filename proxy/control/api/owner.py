"""Which tenant a request is about, and whether its bearer may ask: the administrator of one tenant only of that one."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from fastapi import Request

from proxy.control.api.access import bearer, refuse
from proxy.control.api.desk import desk
from proxy.control.api.problems import Problem
from proxy.model import ApiRole, ApiToken


class Named(NamedTuple):
    name: str
    id: str


async def own(request: Request, wanted: str) -> str:
    """The name of the tenant with that name or id. Raises Problem."""
    who, found = bearer(request), await _find(request, wanted)
    if who.role is ApiRole.TENANT_ADMIN and (found is None or not _is(who, found)):
        raise refuse(request)  # the same whether it is another's or nobody's
    if found is None:
        raise Problem(404, f'tenant "{wanted}" does not exist', field="tenant")
    return found.name


async def _find(request: Request, wanted: str) -> Named | None:
    tenants = desk(request).directory().tenants
    if wanted in tenants:
        return Named(wanted, tenants[wanted].id)
    folded = wanted.lower()
    return next((Named(t.name, t.id) for t in tenants.values() if t.id and t.id == folded), None)


def _is(who: ApiToken, found: Named) -> bool:
    """What looks like an id is one: no name can pass for it."""
    try:
        return str(UUID(who.tenant)) == found.id
    except ValueError:
        return who.tenant == found.name
