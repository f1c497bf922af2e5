"""Asks clusters about their roles: one connection to each, of our own, on which nothing of a client is ever said but
bound values. It is opened when it is needed, and closed when nobody has asked for a while."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from time import monotonic

from proxy.errors import NoHealthyEndpoint, ServerRefused, TiergateError
from proxy.model import Cluster, Endpoint, ServerOptions
from proxy.net.stream import LoginStream
from proxy.net.tls import ServerTls
from proxy.registry.roles import StoredRole
from proxy.registry.sources import SourceDown
from proxy.server.asking import Row, ask
from proxy.server.login import connect

_ANSWER = 5.0  # seconds
_IDLE = 60.0
_PARAMETERS = {
    "application_name": "tiergate auth", "client_encoding": "UTF8", "search_path": "pg_catalog, pg_temp",
    "DateStyle": "ISO, YMD", "TimeZone": "UTC", "default_transaction_read_only": "on",
    "statement_timeout": str(int(_ANSWER * 1000)),
}  # fmt: skip

Healthy = Callable[[Endpoint, float], bool]


class _Line:
    """The connection to one cluster, by the settings it was made with."""

    def __init__(self) -> None:
        self.busy = asyncio.Lock()
        self.stream: LoginStream | None = None
        self.made_for: tuple[object, ...] = ()
        self.used_at = 0.0

    def drop(self) -> None:
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.transport.abort()


class RoleLines:
    def __init__(
        self, options: Callable[[], ServerOptions], tls: Callable[[], ServerTls], healthy: Healthy
    ) -> None:
        self._options = options
        self._tls = tls
        self._healthy = healthy
        self._lines: dict[str, _Line] = {}

    async def role(self, cluster: Cluster, query: str, *values: str) -> StoredRole | None:
        """The columns of its first row are the role's name, its password, and until when that is valid, if there is a
        third. Raises SourceDown."""
        line = self._lines.setdefault(cluster.name, _Line())
        try:
            async with asyncio.timeout(_ANSWER), line.busy:
                rows = await self._ask(line, cluster, query, values)
        except TimeoutError:
            raise SourceDown("it does not answer") from None
        except (TiergateError, OSError) as error:
            internal = error.internal if isinstance(error, TiergateError) else ""
            raise SourceDown(f"{error} ({internal})" if internal else str(error)) from None
        if not rows:
            return None
        return _role(rows[0])

    def rest(self) -> None:
        now = monotonic()
        for name, line in list(self._lines.items()):
            if not line.busy.locked() and now - line.used_at > _IDLE:
                line.drop()
                del self._lines[name]

    async def close(self) -> None:
        lines, self._lines = self._lines, {}
        for line in lines.values():
            line.drop()
        await asyncio.sleep(0)  # the sockets are closed in the next turn

    async def _ask(self, line: _Line, cluster: Cluster, query: str, values: tuple[str, ...]) -> list[Row]:
        made_for = (cluster.endpoints, cluster.auth_user, cluster.auth_password, cluster.auth_dbname)
        if line.made_for != made_for:
            line.drop()
        line.used_at = monotonic()
        was_open = line.stream is not None
        try:
            return await self._ask_once(line, cluster, made_for, query, values)
        except (TiergateError, OSError) as error:
            if not was_open or (isinstance(error, ServerRefused) and not error.sqlstate.startswith("57P")):
                raise
        return await self._ask_once(line, cluster, made_for, query, values)  # it was closed meanwhile

    async def _ask_once(
        self, line: _Line, cluster: Cluster, made_for: tuple[object, ...], query: str, values: tuple[str, ...]
    ) -> list[Row]:
        try:
            if line.stream is None:
                line.stream = await self._connect(cluster)
                line.made_for = made_for
            return await ask(line.stream, query, *values)
        except BaseException as error:
            # An error of the query leaves the connection as it was; whatever else happens, nobody knows what comes next.
            if not isinstance(error, ServerRefused) or line.stream is None:
                line.drop()
            raise

    async def _connect(self, cluster: Cluster) -> LoginStream:
        """To those that are healthy first. Roles are the same on all."""
        failure: TiergateError | None = None
        now = monotonic()
        for endpoint in sorted(cluster.endpoints, key=lambda e: not self._healthy(e, now)):
            try:
                done = await connect(
                    endpoint, database=cluster.auth_dbname or cluster.dbname or "postgres", user=cluster.auth_user,
                    password=cluster.auth_password, options=self._options(), tls=self._tls(), parameters=_PARAMETERS,
                )  # fmt: skip
            except ServerRefused:
                raise
            except TiergateError as error:
                failure = error
                continue
            return done.stream
        raise failure or NoHealthyEndpoint("no endpoint")


def _role(row: Row) -> StoredRole | None:
    password = row[1] if len(row) > 1 else None
    if not password:
        return None
    until = row[2] if len(row) > 2 else None
    if until is None:
        return StoredRole(password)
    with contextlib.suppress(ValueError):
        return StoredRole(password, _seconds(until))
    raise SourceDown("the third column of auth_query is no time")


def _seconds(text: str) -> float:
    """A timestamptz as it is written in ISO style (in UTC), or seconds."""
    if "-" not in text.lstrip("-") and not text.endswith("BC"):
        return float(text)  # "infinity" and "-infinity" among them
    if text.endswith(" BC"):
        return float("-inf")
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
