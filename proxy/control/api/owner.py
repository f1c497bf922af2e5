"""Which tenant a request is about, and whether its bearer may ask: the administrator of one tenant only of that one."""

from __future__ import annotations

from uuid import UUID

from fastapi import Request

from proxy.control.api.access import bearer, refuse
from proxy.control.api.desk import desk
from proxy.control.api.problems import Problem
from proxy.control.tenancy import Told
from proxy.errors import RegistryUnavailable
from proxy.model import ApiRole, ApiToken


async def own(request: Request, wanted: str) -> Told:
    """The tenant with that name or id. Raises Problem.

    Operators see and end what the file has even while the registry does not answer.
    """
    who, tenancy = bearer(request), desk(request).tenancy
    try:
        found = await tenancy.find(wanted)
    except RegistryUnavailable:
        found = tenancy.in_file(wanted)
        if found is None or who.role is ApiRole.TENANT_ADMIN:
            raise
    if who.role is ApiRole.TENANT_ADMIN and (found is None or not _is(who, found)):
        raise refuse(request)  # the same whether it is another's or nobody's
    if found is None:
        raise Problem(404, f'tenant "{wanted}" does not exist', field="tenant")
    return found


def _is(who: ApiToken, found: Told) -> bool:
    """What looks like an id is one: no name can pass for it."""
    try:
        return str(UUID(who.tenant)) == found.id
    except ValueError:
        return who.tenant == found.name
