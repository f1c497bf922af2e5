"""Who may do what: every route says which right it needs, and one that says none answers nobody.

The bearer is asked for before anything of the request's body is read.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Any, cast

from fastapi import Request, Response
from fastapi.routing import APIRoute

from proxy import audit
from proxy.auth import token
from proxy.control.api.desk import desk
from proxy.control.api.problems import Problem, described
from proxy.model import ApiRole, ApiToken

Handle = Callable[[Request], Coroutine[Any, Any, Response]]

_MAX_BODY = 64 * 1024
_RIGHT = "x-right"


class Right(Enum):
    OPEN = "open"  # for all, without a token
    SEE = "see"
    OPERATE = "operate"
    ADMINISTER = "administer"
    SEE_TENANT = "see-tenant"  # one tenant's affairs, which its own administrator may see as well
    OPERATE_TENANT = "operate-tenant"


_VIEWER = frozenset({Right.OPEN, Right.SEE, Right.SEE_TENANT})
_OPERATOR = _VIEWER | {Right.OPERATE, Right.OPERATE_TENANT}
MAY: dict[ApiRole, frozenset[Right]] = {
    ApiRole.VIEWER: _VIEWER,
    ApiRole.OPERATOR: _OPERATOR,
    ApiRole.ADMIN: _OPERATOR | {Right.ADMINISTER},
    ApiRole.TENANT_ADMIN: frozenset({Right.OPEN, Right.SEE_TENANT, Right.OPERATE_TENANT}),
}


def needs(right: Right, *problems: int) -> dict[str, Any]:
    """What a route is declared with: its right, and the problems it answers with besides those of all."""
    if right is Right.OPEN:
        return {"openapi_extra": {_RIGHT: right.value}}
    return {
        "openapi_extra": {_RIGHT: right.value, "security": [{"bearer": []}]},
        "responses": described(401, 403, 422, 503, *problems),
    }


def bearer(request: Request) -> ApiToken:
    """Whoever makes the request. Raises Problem."""
    found = getattr(request.state, "bearer", None)
    if found is not None:
        return cast(ApiToken, found)
    presented = token.bearer(request.headers.get("authorization", ""))
    owner = token.owner(presented, desk(request).tokens().values())
    if owner is None:
        if presented:
            address = request.client.host if request.client is not None else ""
            audit.stranger(address, request.method, request.url.path)
        raise Problem(
            401,
            "a valid bearer token is needed",
            hint="Authorization: Bearer TOKEN; tiergate token new makes one",
            headers={"WWW-Authenticate": "Bearer"},
        )
    request.state.bearer = owner
    return owner


def refuse(request: Request) -> Problem:
    who = bearer(request)
    audit.refused(who.name, request.method, request.url.path)
    return Problem(403, f"a token of role {who.role.value} may not do that")


def _admit(request: Request, extra: dict[str, Any] | None) -> None:
    right = (extra or {}).get(_RIGHT)
    if right == Right.OPEN.value:
        return
    who = bearer(request)
    if right not in {mine.value for mine in MAY[who.role]}:
        raise refuse(request)
    if "transfer-encoding" in request.headers:
        raise Problem(411, "a body needs a Content-Length")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > _MAX_BODY:
        raise Problem(413, f"a body has at most {_MAX_BODY} bytes")


class Guarded(APIRoute):
    """Besides, a query that the route does not know is refused: a filter that is misspelt must not mean all."""

    def get_route_handler(self) -> Handle:
        handle = super().get_route_handler()
        known = {parameter.alias for parameter in self.dependant.query_params}
        strict = (self.openapi_extra or {}).get(_RIGHT) != Right.OPEN.value

        async def guarded(request: Request) -> Response:
            _admit(request, self.openapi_extra)
            unknown = next((name for name in request.query_params if name not in known), None)
            if strict and unknown is not None:
                raise Problem(422, f'no parameter is called "{unknown}"', field=unknown)
            response = await handle(request)
            response.headers["Cache-Control"] = "no-store"
            return response

        return guarded
