"""Replication connections: a server connection of the client's own, and bytes passed on both ways unread.

The server is asked for the same kind of replication; its welcome goes to the client as it came, but for the
key, which is ours: a cancel is passed on with the server's. Backpressure is symmetrical; when one side ends,
so does the other.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from proxy.admission.accounts import Counter, give_all
from proxy.client.permits import take
from proxy.client.placing import follow_registry
from proxy.client.session import Session
from proxy.client.welcome import admit
from proxy.errors import CapReached, NoHealthyEndpoint, ServerLost, StatementRefused, TiergateError
from proxy.model import Endpoint, Role
from proxy.net.transport import Transport
from proxy.server import login as server_login
from proxy.server.custody import Held
from proxy.wire import encode

if TYPE_CHECKING:
    from proxy.client.applicants import Login
    from proxy.client.plane import Plane
    from proxy.net.stream import LoginStream


def _uninspected(session: Session) -> bool:
    """It may send SQL, past the rules that its tenant has."""
    return session.rules is not None and session.login.replication.lower() == "database"


class _Side(asyncio.Protocol):
    """One of the two sockets; what it receives is written to `other`."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.transport: Transport
        self.other: _Side

    def data_received(self, data: bytes) -> None:
        self.other.transport.write(data)

    def pause_writing(self) -> None:
        self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        self.other.transport.resume_reading()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.relay.close()


class Relay:
    __slots__ = (
        "_closed",
        "_held",
        "_permits",
        "_server_key",
        "client",
        "endpoint",
        "key",
        "pid",
        "server",
        "session",
    )

    def __init__(self, session: Session, permits: tuple[Counter, ...]) -> None:
        self.session = session
        self._permits = permits
        self.client = _Side(self)
        self.server = _Side(self)
        self.client.other, self.server.other = self.server, self.client
        self._closed = False
        self.pid = 0
        self.key = b""
        self._server_key = b""
        self.endpoint: Endpoint
        self._held: Held | None = None

    @classmethod
    async def open(cls, plane: Plane, login: Login, stream: LoginStream) -> Relay:
        """Admits, connects, says welcome and joins. Raises what the client is to read."""
        session = await admit(plane, login, stream)
        if _uninspected(session):
            session.release_permits()
            raise StatementRefused(
                f'logical replication is not allowed for tenant "{session.tenant.name}": its SQL has rules',
                hint="What a replication connection is asked cannot be inspected.",
            )
        pool = session.pool
        permits = (
            *session.account.server_counters(session.user_account),
            *pool.caps,
        )
        try:
            full = await take(permits)
        except BaseException:
            session.release_permits()
            raise
        if full is not None:
            session.release_permits()
            raise CapReached(f"too many connections ({full.name})")
        relay = cls(session, permits)
        try:
            await relay._join(plane, login, stream)
        except BaseException:
            plane.leave(relay)
            relay._release()
            raise
        return relay

    async def _join(self, plane: Plane, login: Login, stream: LoginStream) -> None:
        pool = self.session.pool
        primary = [e for e in pool.cluster.endpoints if e.role is not Role.REPLICA]
        if not primary:
            raise NoHealthyEndpoint(f'cluster "{pool.cluster.name}" has no primary')
        user, password = pool.login
        self._held = plane.pools.in_custody(primary[0], pool)
        try:
            done = await server_login.connect(
                primary[0],
                database=pool.key.database,
                user=user,
                password=password,
                client_key=pool.client_key,
                options=plane.pools.options,
                tls=plane.pools.tls,
                parameters={**login.asked.parameters, "replication": login.replication},
                held=self._held,
            )
        except ServerLost as error:
            raise NoHealthyEndpoint(error.message, internal=error.internal) from None
        self.endpoint, self._server_key = primary[0], done.key
        self.pid, self.key = plane.new_key(login.protocol_minor, done.pid)
        self.client.transport = stream.transport
        self.server.transport = done.stream.transport
        for name, value in done.parameters.items():
            stream.write(encode.parameter_status(name.encode(), value.encode("utf-8", "surrogateescape")))
        stream.write(encode.backend_key_data(self.pid, self.key))
        stream.write(encode.ready_for_query())
        plane.enter_relay(self)
        for side, source in ((self.client, stream), (self.server, done.stream)):
            rest = source.take_over(side)
            if rest:
                side.data_received(rest)

    def cancel(self) -> asyncio.Task[None]:
        """The client's CancelRequest."""
        return self.session.plane.pools.pass_cancel_on(self.endpoint, self.pid, self._server_key)

    @property
    def tenant(self) -> str:
        return self.session.tenant.name

    @property
    def kind(self) -> str:
        return "logical" if self.session.login.replication.lower() == "database" else "physical"

    @property
    def cluster(self) -> str:
        return self.session.pool.key.cluster

    def follow(self) -> None:
        """Ends where the registry says that it may not be, or has its place elsewhere."""
        session = self.session
        if session.epoch == session.plane.registry.epoch:
            return
        place = session.pool.key
        try:
            follow_registry(session, session.let_go)
        except TiergateError:
            self.close()
            return
        if (
            session.pool.key != place
            or _uninspected(session)
            or self.endpoint not in session.pool.cluster.endpoints
        ):
            self.close()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.client.transport.close()
        self.server.transport.close()
        self.session.plane.leave(self)
        self._release()

    def _release(self) -> None:
        if self._held is not None:
            self._held.closed()
        permits, self._permits = self._permits, ()
        give_all(permits)
        self.session.release_permits()
