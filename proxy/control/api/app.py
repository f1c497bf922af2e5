"""The routes: /metrics, /healthz (the loop turns) and /readyz (new clients are welcome)."""

from __future__ import annotations

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse

from proxy import __version__
from proxy.control import metrics
from proxy.control.fleet import Control


def make_app(control: Control) -> FastAPI:
    app = FastAPI(title="Tiergate", version=__version__, openapi_url=None)

    @app.get("/metrics")
    async def scrape() -> Response:
        return Response(metrics.exposition(await control.counts()), media_type=metrics.CONTENT_TYPE)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        found = await control.problems()
        body = {"status": "ready" if not found else "not ready", "problems": found}
        return JSONResponse(body, status_code=503 if found else 200)

    return app
