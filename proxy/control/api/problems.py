"""Errors as HTTP answers: RFC 9457's problem+json, with the field that is wrong and what would help."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from proxy import log
from proxy.control.tenancy import NoRegistry, WrongValue
from proxy.errors import ConfigError, Fault, InvalidParameter, NoSuchName, ShuttingDown, TiergateError
from proxy.net.channel import ChannelLost, NoAnswer
from proxy.registry.statements import Changed, KeyReused

MEDIA_TYPE = "application/problem+json"
_log = log.get("api")


class WrongField(BaseModel):
    field: str
    detail: str


class ProblemBody(BaseModel):
    """`field` is the one that is wrong, `errors` are all of them where there are several."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    field: str | None = None
    hint: str | None = None
    errors: list[WrongField] | None = None


class Problem(Exception):
    """An answer that is an error."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        field: str = "",
        hint: str = "",
        errors: list[WrongField] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.headers = dict(headers or {})
        self.body = ProblemBody(
            title=HTTPStatus(status).phrase,
            status=status,
            detail=detail,
            field=field or None,
            hint=hint or None,
            errors=errors,
        )

    def answer(self) -> JSONResponse:
        return JSONResponse(
            self.body.model_dump(exclude_none=True), self.body.status, self.headers, media_type=MEDIA_TYPE
        )


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the OpenAPI document: the problems that a route may answer with."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}},
        }
        for status in statuses
    }


# The first that fits.
_STATUSES: tuple[tuple[type[TiergateError], int], ...] = (
    (NoSuchName, 404),
    (Changed, 412),
    (WrongValue, 422),
    (KeyReused, 422),
    (InvalidParameter, 409),
    (NoRegistry, 501),
    (ShuttingDown, 503),
    (ChannelLost, 503),
    (NoAnswer, 503),
)


def of_error(error: TiergateError) -> Problem:
    if isinstance(error, ConfigError):
        wrong = [WrongField(field=_key(problem), detail=problem) for problem in error.problems]
        return Problem(422, "the configuration cannot be used", errors=wrong)
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 0)
    if not status:
        status = {Fault.SERVER: 503, Fault.LIMIT: 429}.get(error.fault, 500)
    if status >= 500 and status != 501:
        _log.warning("a request failed", error=error.message, internal=error.internal)
    return Problem(
        status,
        error.message,
        field="Idempotency-Key" if isinstance(error, KeyReused) else getattr(error, "field", ""),
        hint=error.hint,
        headers={"Retry-After": "1"} if status in (429, 503) else None,
    )


def _key(problem: str) -> str:
    """Of `file: [table] key: what is wrong` the table and key."""
    parts = problem.split(": ")
    return parts[1] if len(parts) > 2 else ""


def _place(found: Mapping[str, Any]) -> str:
    where = found["loc"]
    if found["type"] == "json_invalid":
        return str(where[0])  # what follows is an offset
    return ".".join(str(part) for part in where[1:]) or str(where[0])


def _of_validation(error: RequestValidationError) -> Problem:
    wrong = [
        WrongField(field=_place(found), detail=found["msg"])
        for found in error.errors()
    ]  # fmt: skip
    return Problem(422, f"{wrong[0].field}: {wrong[0].detail}", field=wrong[0].field, errors=wrong)


def _methods(request: Request) -> list[str]:
    """Those that the path has. The router knows only those of the first of its routes."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    partial = [route for route in routes if route.matches(request.scope)[0] is Match.PARTIAL]
    return sorted({method for route in partial for method in route.methods or ()})


def install(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def problem(_: Request, error: Problem) -> JSONResponse:
        return error.answer()

    @app.exception_handler(TiergateError)
    async def refused(_: Request, error: TiergateError) -> JSONResponse:
        return of_error(error).answer()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return _of_validation(error).answer()

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        headers = {**(error.headers or {})}
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(_methods(request))
        return Problem(error.status_code, str(error.detail), headers=headers).answer()

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> JSONResponse:
        _log.exception("a request failed", error, path=request.url.path)
        return Problem(500, "internal error").answer()
