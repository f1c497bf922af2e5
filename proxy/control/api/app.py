"""The routes: /metrics, /healthz (the loop turns) and /readyz (new clients are welcome) for all; /v1 for bearers of
tokens; and what they are, as an OpenAPI document and a page."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse

from proxy import __version__
from proxy.control import metrics
from proxy.control.api import operations, page, problems, tenants
from proxy.control.api.access import Guarded, Right, needs
from proxy.control.api.desk import Desk, desk
from proxy.control.fleet import Control
from proxy.control.views import sharing, stores
from proxy.errors import TiergateError


class _Documented(FastAPI):
    """Whose document names the bearer's token, and the problems."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            found = get_openapi(title=self.title, version=self.version, routes=self.routes)
            components = found.setdefault("components", {})
            components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
            body = problems.ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
            components.setdefault("schemas", {}).update(body.pop("$defs"), ProblemBody=body)
            _drop_validation_errors(found)
            self.openapi_schema = found
        return self.openapi_schema


def _drop_validation_errors(document: dict[str, Any]) -> None:
    """FastAPI says of every route with parameters that it answers 422 in a form of its own."""
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


async def _warnings(control: Control) -> list[str]:
    """None where no worker says anything: that is a problem, and told as one."""
    try:
        found = stores.warnings(await control.view("registry"))
        return found + sharing.warnings(await control.view("fleet"))
    except TiergateError:
        return []


def make_app(of: Desk) -> FastAPI:
    app = _Documented(title="Tiergate", version=__version__, openapi_url=None)
    app.router.route_class = Guarded
    app.state.desk = of
    problems.install(app)

    @app.get("/metrics", tags=["health"], response_class=Response, **needs(Right.OPEN))
    async def scrape(request: Request) -> Response:
        counts = await desk(request).control.counts()
        counts["most"]["storage_used_gb"] = desk(request).storage.used
        return Response(metrics.exposition(counts), media_type=metrics.CONTENT_TYPE)

    @app.head("/healthz", include_in_schema=False, **needs(Right.OPEN))
    @app.get("/healthz", tags=["health"], **needs(Right.OPEN))
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.head("/readyz", include_in_schema=False, **needs(Right.OPEN))
    @app.get("/readyz", tags=["health"], **needs(Right.OPEN), responses={503: {"description": "Not ready"}})
    async def readyz(request: Request) -> JSONResponse:
        control = desk(request).control
        found, warnings = await asyncio.gather(control.problems(), _warnings(control))
        body = {"status": "ready" if not found else "not ready", "problems": found, "warnings": warnings}
        return JSONResponse(body, status_code=503 if found else 200)

    operations.add(app)
    tenants.add(app)

    @app.get("/openapi.json", include_in_schema=False, **needs(Right.OPEN))
    async def document() -> JSONResponse:
        return JSONResponse(app.openapi())

    @app.get("/docs", include_in_schema=False, **needs(Right.OPEN))
    async def docs() -> HTMLResponse:
        return HTMLResponse(page.render(app.openapi()))

    return app
