"""The HTTP API of a running proxy, as commands call it. No redirects, no proxies: the token goes where it was meant to."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import typer

REFUSED, NO_ANSWER = 1, 3  # exit codes
_TIMEOUT = 60.0


class Refused(Exception):
    """The API's problem."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(problem.get("detail", "refused"))
        self.problem = problem


class Unreachable(Exception):
    """There is no answer, or none of an API."""


@dataclass
class Answer:
    body: Any
    etag: str = ""


@dataclass(frozen=True)
class Api:
    url: str
    token: str = field(repr=False)
    ca_file: str = ""
    timeout: float = _TIMEOUT

    def get(self, path: str, **query: object) -> Any:
        return self.call("GET", path, query=query).body

    def call(
        self,
        method: str,
        path: str,
        said: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Raises Refused, Unreachable."""
        asked = urlencode({key: value for key, value in (query or {}).items() if value not in (None, "")})
        body = json.dumps(said).encode() if said is not None else None
        sent = {"Authorization": f"Bearer {self.token}", "Accept": "application/json", **(headers or {})}
        if body is not None:
            sent["Content-Type"] = "application/json"
        elif method == "POST":
            sent["Content-Length"] = "0"
        try:
            connection = self._connect()
            try:
                base = urlsplit(self.url).path.rstrip("/")
                connection.request(method, f"{base}{path}" + (f"?{asked}" if asked else ""), body, sent)
                response = connection.getresponse()
                text = response.read()
            finally:
                connection.close()
        except http.client.HTTPException:
            raise Unreachable(f"{self.url}: answers, but not in HTTP") from None
        except (OSError, ValueError) as error:
            raise Unreachable(f"{self.url}: {error}") from None
        try:
            found = json.loads(text) if text else None
        except ValueError:
            raise Unreachable(f"{self.url}: answers {response.status} and no JSON") from None
        if response.status >= 300:
            raise Refused(found if isinstance(found, dict) else {"status": response.status})
        return Answer(found, response.headers.get("ETag") or "")

    def _connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("is not a URL of http or https")
        if parts.scheme == "http":
            return http.client.HTTPConnection(parts.hostname, parts.port, timeout=self.timeout)
        context = ssl.create_default_context(cafile=self.ca_file or None)
        return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=_TIMEOUT, context=context)


def tenant(name: str, *more: str) -> str:
    return "/".join(("/v1/tenants", quote(name, safe=""), *more))


def run(work: Callable[[], None], *, as_json: bool = False) -> int:
    """The exit code of `work`; what the API says against it goes to standard error."""
    try:
        work()
    except Refused as error:
        if as_json:
            typer.echo(json.dumps(error.problem, indent=2, ensure_ascii=False), err=True)
        else:
            _complain(error.problem)
        status = error.problem.get("status", 500)
        return NO_ANSWER if status >= 500 and status != HTTPStatus.NOT_IMPLEMENTED else REFUSED
    except Unreachable as error:
        typer.echo(f"tiergate: {error}", err=True)
        return NO_ANSWER
    return 0


def _complain(problem: dict[str, Any]) -> None:
    wrong = problem.get("errors") or [
        {"field": problem.get("field"), "detail": problem.get("detail", "refused")}
    ]
    for one in wrong:
        where = f"{one['field']}: " if one.get("field") else ""
        typer.echo(f"tiergate: {where}{one['detail']}", err=True)
    if problem.get("hint"):
        typer.echo(f"tiergate: {problem['hint']}", err=True)
