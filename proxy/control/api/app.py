"""The routes: /metrics, /healthz (the loop turns) and /readyz (new clients are welcome)."""

from __future__ import annotations

from time import monotonic

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse

from proxy import __version__
from proxy.client.plane import Plane
from proxy.control import metrics
from proxy.model import Role


def problems(plane: Plane) -> list[str]:
    """Why no new client should be sent here; empty when all is well."""
    found = []
    if plane.draining:
        found.append("draining")
    now = monotonic()
    health = plane.pools.health
    clusters = list(plane.registry.clusters())
    down = [
        cluster.name
        for cluster in clusters
        if not any(health.healthy(e, now) for e in cluster.endpoints if e.role is not Role.REPLICA)
    ]
    if clusters and len(down) == len(clusters):
        found.append("no cluster has a healthy endpoint")
    return found


def make_app(plane: Plane) -> FastAPI:
    app = FastAPI(title="Tiergate", version=__version__, openapi_url=None)

    @app.get("/metrics")
    async def scrape() -> Response:
        return Response(metrics.exposition(plane), media_type=metrics.CONTENT_TYPE)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        found = problems(plane)
        body = {"status": "ready" if not found else "not ready", "problems": found}
        return JSONResponse(body, status_code=503 if found else 200)

    return app
