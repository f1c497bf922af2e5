"""The routes of operators: the views, and the verbs over them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from proxy import audit
from proxy.control.api.access import Right, bearer, needs
from proxy.control.api.desk import desk
from proxy.control.fleet import Result
from proxy.control.views import View
from proxy.errors import TiergateError

Cell = str | int | float | None
Name = Annotated[str, Path(min_length=1, max_length=200)]
# To tell of many takes a while, during which one process does nothing else.
Limit = Annotated[int, Query(ge=1, le=10_000)]
_SEEN = ("pools", "queue", "concurrency", "clients", "servers", "clusters", "tiers", "workers", "stats")
_TO_CLUSTERS = ("resume", "reconnect", "kill")


class Rows(BaseModel):
    """What SHOW shows on the console, by column; `total` is how many rows it has."""

    items: list[dict[str, Cell]]
    total: int


class Done(BaseModel):
    """`state` is "under way" where the answer came before the end, or `without` some workers' word that it is done."""

    verb: str
    name: str = ""
    state: Literal["done", "under way"] = "done"
    needs_restart: list[str] | None = None
    without: list[int] | None = None


def rows(view: View, limit: int) -> Rows:
    items = [dict(zip(view.columns, row, strict=True)) for row in view.rows[:limit]]
    return Rows(items=items, total=len(view.rows))


def _number(cell: Cell) -> float:
    return cell if isinstance(cell, int | float) else 0


async def act(request: Request, verb: str, *words: str) -> Result:
    """Carries out a verb and says so in the log."""
    who, name = bearer(request).name, words[0] if words else ""
    try:
        result = await desk(request).control.act(verb, *words)
    except TiergateError as error:
        audit.failed(who, verb, name, error.message)
        raise
    audit.acted(who, verb, name)
    return result


def add(app: FastAPI) -> None:
    @app.get("/v1/activity", tags=["views"], **needs(Right.SEE))
    async def activity(request: Request, limit: Limit = 1000) -> Rows:
        """SHOW TENANTS, of those that have clients or have asked something; those that asked most first."""
        view = await desk(request).control.view("tenants")
        name, clients, queries = (view.columns.index(column) for column in ("name", "clients", "queries"))
        active = [row for row in view.rows if row[clients] or row[queries]]
        active.sort(key=lambda row: (-_number(row[queries]), str(row[name])))
        return rows(View(view.columns, active), limit)

    for name in _SEEN:
        _add_view(app, name)
    for verb in _TO_CLUSTERS:
        _add_cluster_verb(app, verb)

    @app.post(
        "/v1/clusters/{name}/pause", response_model=Done, tags=["verbs"], summary="Pause a cluster",
        **needs(Right.OPERATE, 404, 409),
    )  # fmt: skip
    async def pause(
        request: Request, name: Name, timeout: Annotated[float, Query(ge=0, le=3600)] = 30.0
    ) -> JSONResponse | Done:
        """Hands out no more connections of a cluster ("*": of all) and waits until those in use have come back,
        `timeout` seconds at most; then the answer is 202 and it goes on."""
        try:
            async with asyncio.timeout(timeout):
                await act(request, "pause", name)
        except TimeoutError:
            audit.acted(bearer(request).name, "pause", name)
            return JSONResponse(Done(verb="pause", name=name, state="under way").model_dump(), 202)
        return Done(verb="pause", name=name)

    @app.post(
        "/v1/reload", response_model=Done, tags=["verbs"], summary="Read the configuration again",
        **needs(Right.OPERATE),
    )  # fmt: skip
    async def reload(request: Request) -> Done:
        """`needs_restart` are the keys whose change a reload cannot apply, `without` the workers that have not answered
        in time: what hangs takes it up when it goes on, or is replaced."""
        taken = await act(request, "reload")
        assert isinstance(taken, dict), taken
        return Done(verb="reload", state="under way" if taken["without"] else "done", **taken)

    @app.post(
        "/v1/drain", response_model=Done, tags=["verbs"], status_code=202, summary="Drain and end",
        **needs(Right.OPERATE),
    )  # fmt: skip
    async def drain(request: Request) -> Done:
        """As SIGTERM: no new clients, transactions may finish for `shutdown_timeout`, then the process ends."""
        await act(request, "shutdown", "wait")
        return Done(verb="drain", state="under way")

    @app.delete(
        "/v1/clients/{client}", response_model=Done, tags=["verbs"], summary="End one client's session",
        **needs(Right.OPERATE, 404),
    )  # fmt: skip
    async def kill_client(request: Request, client: Name) -> Done:
        """`client` is a `ptr` or `id` of GET /v1/clients."""
        await act(request, "kill_client", client)
        return Done(verb="kill_client", name=client)


def _add_view(app: FastAPI, name: str) -> None:
    @app.get(
        f"/v1/{name}", response_model=Rows, tags=["views"], operation_id=f"show_{name}",
        summary=f"SHOW {name.upper()}", **needs(Right.SEE),
    )  # fmt: skip
    async def show(request: Request, limit: Limit = 1000) -> Rows:
        return rows(await desk(request).control.view(name), limit)


def _add_cluster_verb(app: FastAPI, verb: str) -> None:
    @app.post(
        f"/v1/clusters/{{name}}/{verb}", response_model=Done, tags=["verbs"], operation_id=f"{verb}_cluster",
        summary=f'{verb.upper()} a cluster, or all ("*")', **needs(Right.OPERATE, 404, 409),
    )  # fmt: skip
    async def carry_out(request: Request, name: Name) -> Done:
        every = "" if verb == "reconnect" else "*"
        kind = ("cluster",) if verb == "kill" and name != "*" else ()
        await act(request, verb, every if name == "*" else name, *kind)
        return Done(verb=verb, name=name)
