"""The routes about tenants: who they are, where each lives, and how that is changed."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, date, datetime
from typing import Annotated, Any
from uuid import UUID, uuid4

from fastapi import FastAPI, Header, Query, Request, Response
from pydantic import BaseModel

from proxy import audit
from proxy.control import resources
from proxy.control.api import bodies
from proxy.control.api.access import Right, bearer, needs, refuse
from proxy.control.api.bodies import TenantBody
from proxy.control.api.desk import desk
from proxy.control.api.operations import Cell, Done, Name, act
from proxy.control.api.owner import own
from proxy.control.api.problems import Problem
from proxy.control.tenancy import Told
from proxy.model import ApiRole
from proxy.registry.statements import Wanted

IfMatch = Annotated[
    str | None,
    Header(alias="If-Match", pattern=r'^(\*|"[0-9]{1,18}")$', description="the ETag that the tenant must have, or *"),
]  # fmt: skip
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key", pattern=r"^[!-~]{1,200}$",
        description="for a day, the same request with the same key is done once",
    ),
]  # fmt: skip


class Step(BaseModel):
    step: str
    value: Cell
    reason: str


class RouteBody(BaseModel):
    """The steps of a login for the tenant, in their order, each with its reason."""

    items: list[Step]


def add(app: FastAPI) -> None:
    _add_views(app)
    _add_changes(app)
    _add_verbs(app)


def _add_views(app: FastAPI) -> None:
    @app.get("/v1/tenants", tags=["tenants"], **needs(Right.SEE))
    async def list_tenants(
        request: Request,
        tier: Annotated[bodies.TierName | None, Query()] = None,
        shard_id: Annotated[bodies.Count | None, Query()] = None,
        cluster_name: Annotated[
            bodies.ClusterName | None, Query(description="served by that cluster, unless endpoints say so")
        ] = None,
        state: Annotated[bodies.State | None, Query()] = None,
        source: Annotated[str, Query(pattern="^(registry|file)$")] = "registry",
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        cursor: Annotated[
            str, Query(max_length=1000, pattern=r"^[^\x00]*$", description="the `next` of the page before")
        ] = "",
    ) -> bodies.TenantPage:
        """In the order of their codes. Without a registry, and with source=file, those of the file."""
        tenancy = desk(request).tenancy
        on = tenancy.serves(cluster_name) if cluster_name is not None else None
        found = await tenancy.page(
            Wanted(tier, shard_id, on, state), cursor, limit + 1, of_file=source == "file"
        )
        more = found[limit - 1].name if len(found) > limit else None
        return bodies.TenantPage(items=[bodies.body(told) for told in found[:limit]], next=more)

    @app.get("/v1/tenants/{tenant}", tags=["tenants"], **needs(Right.SEE_TENANT, 404))
    async def show_tenant(request: Request, response: Response, tenant: Name) -> TenantBody:
        """By name or id. The ETag is its version."""
        return _answer(response, await own(request, tenant))

    @app.get("/v1/tenants/{tenant}/route", tags=["tenants"], **needs(Right.SEE_TENANT, 404, 409))
    async def route(
        request: Request,
        tenant: Name,
        user: Annotated[str, Query(max_length=200)] = "",
        database: Annotated[str, Query(max_length=200)] = "",
    ) -> RouteBody:
        """What would happen to a login, and why: as SHOW ROUTE."""
        told = await own(request, tenant)
        if user and bearer(request).role is ApiRole.TENANT_ADMIN:
            raise refuse(request)  # who else there is, is not theirs to know
        view = await desk(request).control.view("route", told.name, user, database)
        return RouteBody(
            items=[Step(step=str(s), value=value, reason=str(why)) for s, value, why in view.rows]
        )

    @app.get("/v1/tenants/{tenant}/resources", tags=["tenants"], **needs(Right.SEE_TENANT, 404))
    async def show_resources(request: Request, tenant: Name) -> bodies.ResourcesBody:
        """Where its PostgreSQL, Redis, ClickHouse and Kafka are: in the keys of the configuration, without secrets."""
        told, tenancy = await own(request, tenant), desk(request).tenancy
        tier, cluster = tenancy.home(told)
        return bodies.ResourcesBody(
            tenant_id=UUID(told.id) if told.id else None,
            tenant_code=told.name,
            tier=tier,
            postgresql=resources.postgresql(cluster) if cluster is not None else None,
            **resources.others(told.name, told.id, tier, tenancy.directory()),
        )

    @app.get("/v1/tenants/{tenant}/usage", tags=["tenants"], **needs(Right.SEE_TENANT, 404, 501))
    async def usage(
        request: Request,
        tenant: Name,
        first: Annotated[date | None, Query(alias="from", description="else 30 days before `to`")] = None,
        last: Annotated[date | None, Query(alias="to", description="else today")] = None,
    ) -> bodies.UsageBody:
        """What it has used, day by day, as far as it was measured."""
        told, tenancy = await own(request, tenant), desk(request).tenancy
        last = last or datetime.now(UTC).date()
        first = first or date.fromordinal(max(1, last.toordinal() - 30))
        _ = tenancy.store  # where there is none, that is what is said
        found = await tenancy.usage(told.id, first, last) if told.columns is not None else []
        return bodies.UsageBody(items=[bodies.UsageDay.model_validate(row) for row in found])

    @app.get("/v1/audit", tags=["tenants"], **needs(Right.ADMINISTER, 501))
    async def audited(
        request: Request,
        tenant: Annotated[bodies.Line | None, Query(description="by name or id")] = None,
        before: Annotated[int, Query(ge=0, le=2**63 - 1)] = 2**63 - 1,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> bodies.AuditPage:
        """Who has changed which tenant, and what it was before and after."""
        found = await desk(request).tenancy.store.audited(tenant, before, limit + 1)
        rows = [bodies.AuditRow.model_validate(row) for row in found]
        return bodies.AuditPage(items=rows[:limit], next=rows[limit - 1].id if len(rows) > limit else None)


def _add_changes(app: FastAPI) -> None:
    @app.post("/v1/tenants", tags=["tenants"], status_code=201, **needs(Right.ADMINISTER, 409, 501))
    async def create_tenant(
        request: Request, response: Response, said: bodies.NewTenant, idempotency_key: IdempotencyKey = None
    ) -> TenantBody:
        """Where it shall live is said, or chosen: of the clusters of its tier the emptiest one that has room."""
        if _is_id(said.tenant_code):
            raise Problem(422, "a tenant_code that is a UUID would pass for an id", field="tenant_code")
        who, columns = bearer(request).name, said.said()
        asked = hashlib.sha256(
            json.dumps(said.model_dump(mode="json", exclude_unset=True)).encode()
        ).hexdigest()
        columns["tenant_id"] = said.tenant_id or uuid4()
        told, known = await desk(request).tenancy.create(who, columns, idempotency_key or "", asked)
        if not known:
            audit.tenant_changed(who, "create", told.name, told.id, None, told.columns)
        response.headers["Location"] = f"/v1/tenants/{told.id}"
        return _answer(response, told)

    @app.patch("/v1/tenants/{tenant}", tags=["tenants"], **needs(Right.ADMINISTER, 404, 409, 412, 428, 501))
    async def change_tenant(
        request: Request, response: Response, tenant: Name, said: bodies.Changes, if_match: IfMatch = None
    ) -> TenantBody:
        """Its name, its quotas, and when it expires; `null` takes a quota back."""
        columns = said.said()
        if columns.get("tenant_name", "") is None:
            raise Problem(422, "a tenant has a name", field="tenant_name")
        return await _patch(request, response, "change", tenant, columns, _version(if_match))

    @app.post(
        "/v1/tenants/{tenant}/tier", tags=["tenants"], **needs(Right.ADMINISTER, 404, 409, 412, 428, 501)
    )
    async def set_tier(
        request: Request, response: Response, tenant: Name, said: bodies.NewTier, if_match: IfMatch = None
    ) -> TenantBody:
        """Another tier, another home, or both. Where no home is said, it stays if its cluster is one of the tier's, else
        it gets the emptiest one that has room. Clients are routed there at once; what it has stored is not moved."""
        target = {k: v for k, v in said.said().items() if k != "tier" and v is not None}
        who, version = bearer(request).name, _version(if_match)
        before, after = await desk(request).tenancy.place(who, tenant, said.tier, target, version)
        return _changed(request, response, "tier", before, after)

    @app.delete(
        "/v1/tenants/{tenant}", tags=["tenants"], status_code=204,
        **needs(Right.ADMINISTER, 404, 409, 412, 428, 501),
    )  # fmt: skip
    async def delete_tenant(
        request: Request, tenant: Name, with_usage: bool = False, if_match: IfMatch = None
    ) -> Response:
        """Out of the registry; what it has stored on its cluster stays. `with_usage`: its recorded usage as well."""
        who = bearer(request).name
        told = await desk(request).tenancy.delete(who, tenant, _version(if_match), with_usage=with_usage)
        audit.tenant_changed(who, "delete", told.name, told.id, told.columns, None)
        return Response(status_code=204)


def _add_verbs(app: FastAPI) -> None:
    for verb, active in (("suspend", False), ("resume", True)):
        _add_switch(app, verb, active)

    @app.post("/v1/tenants/{tenant}/kill", tags=["tenants"], **needs(Right.OPERATE_TENANT, 404))
    async def kill_tenant(request: Request, tenant: Name) -> Done:
        """Ends the sessions that its clients have now; they may come again."""
        told = await own(request, tenant)
        await act(request, "kill", told.name, "tenant")
        return Done(verb="kill", name=told.name)

    @app.post("/v1/tenants/{tenant}/storage", tags=["tenants"], **needs(Right.OPERATE, 404, 409, 501))
    async def measure_tenant(request: Request, tenant: Name) -> bodies.StorageBody:
        """What it stores now: its cluster is asked, and the answer is part of today's usage."""
        told, tenancy = await own(request, tenant), desk(request).tenancy
        _ = tenancy.store
        if told.columns is None:
            raise Problem(409, "only of tenants of the registry it is recorded what they store")
        used = await desk(request).storage.of(told)
        return bodies.StorageBody(tenant_code=told.name, storage_used_gb=used)


def _add_switch(app: FastAPI, verb: str, active: bool) -> None:
    @app.post(
        f"/v1/tenants/{{tenant}}/{verb}", tags=["tenants"], operation_id=f"{verb}_tenant",
        summary=f"{verb.capitalize()} a tenant", **needs(Right.OPERATE, 404, 409, 412, 501),
    )  # fmt: skip
    async def switch(
        request: Request, response: Response, tenant: Name, if_match: IfMatch = None
    ) -> TenantBody:
        """Logins of a suspended tenant are refused, and its sessions end. Doing it twice does no harm."""
        version = _version(if_match or "*")
        return await _patch(request, response, verb, tenant, {"active": active}, version)


async def _patch(
    request: Request,
    response: Response,
    action: str,
    tenant: str,
    columns: dict[str, Any],
    version: int | None,
) -> TenantBody:
    who = bearer(request).name
    before, after = await desk(request).tenancy.patch(who, action, tenant, columns, version)
    return _changed(request, response, action, before, after)


def _changed(request: Request, response: Response, action: str, before: Told, after: Told) -> TenantBody:
    if before.columns is not after.columns:
        who = bearer(request).name
        audit.tenant_changed(who, action, after.name, after.id, before.columns, after.columns)
    return _answer(response, after)


def _answer(response: Response, told: Told) -> TenantBody:
    if told.columns is not None and "version" in told.columns:  # tables that were made by hand have none
        response.headers["ETag"] = f'"{told.columns["version"]}"'
    return bodies.body(told)


def _version(if_match: str | None) -> int | None:
    """None: any."""
    if if_match is None:
        raise Problem(
            428, "a change says what it changes", field="If-Match", hint="the ETag that GET gave, or *"
        )
    return None if if_match == "*" else int(if_match.strip('"'))


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
