"""The routes about one tenant or all of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Query, Request
from pydantic import BaseModel

from proxy.control.api.access import Right, needs
from proxy.control.api.desk import desk
from proxy.control.api.operations import Cell, Done, Name, act
from proxy.control.api.owner import own


class Step(BaseModel):
    step: str
    value: Cell
    reason: str


class RouteBody(BaseModel):
    """The steps of a login for the tenant, in their order, each with its reason."""

    items: list[Step]


def add(app: FastAPI) -> None:
    @app.get(
        "/v1/tenants/{tenant}/route", response_model=RouteBody, tags=["tenants"],
        **needs(Right.SEE_TENANT, 404),
    )  # fmt: skip
    async def route(
        request: Request,
        tenant: Name,
        user: Annotated[str, Query(max_length=200)] = "",
        database: Annotated[str, Query(max_length=200)] = "",
    ) -> RouteBody:
        """What would happen to a login, and why: as SHOW ROUTE."""
        name = await own(request, tenant)
        view = await desk(request).control.view("route", name, user, database)
        return RouteBody(
            items=[Step(step=str(s), value=value, reason=str(why)) for s, value, why in view.rows]
        )

    @app.post(
        "/v1/tenants/{tenant}/kill", response_model=Done, tags=["tenants"],
        **needs(Right.OPERATE_TENANT, 404),
    )  # fmt: skip
    async def kill(request: Request, tenant: Name) -> Done:
        """Ends the sessions that its clients have now; they may come again."""
        name = await own(request, tenant)
        await act(request, "kill", name, "tenant")
        return Done(verb="kill", name=name)
