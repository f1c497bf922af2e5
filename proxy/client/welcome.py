"""From an authenticated login to a session that is ready for its first query.

What the client is told are the server's real parameters. The first login to a pool, and one whose startup
parameters no server of the pool has taken yet, borrows a server connection and tries them there, so that
PostgreSQL itself refuses what it refuses; in session mode the session keeps that connection.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import TYPE_CHECKING, Any

from proxy.admission.accounts import Counter, give_all, take_all
from proxy.client.answering import Chooser
from proxy.client.entrance import Entrance, entrance, hello, statuses, without
from proxy.client.permits import take
from proxy.client.placing import place, take_place
from proxy.client.session import Session
from proxy.errors import CapReached, ServerLost, ServerRefused, ShuttingDown, TiergateError
from proxy.model import PoolMode
from proxy.protocol.state import intern, with_parameter
from proxy.registry.memory import OLD, Registry
from proxy.server.connection import ServerConnection
from proxy.server.link import Link
from proxy.wire import decode, encode

if TYPE_CHECKING:
    from proxy.client.applicants import Login
    from proxy.client.plane import Plane
    from proxy.net.stream import LoginStream
    from proxy.server.pool import Pool

_REMEMBERED = 1_000
_CANT_CHANGE_RUNTIME_PARAM = "55P02"
_QUOTED = re.compile(r"[\"«„»]\s?([\w.]+)\s?[\"»“”«]")


class Usher:
    """Takes those who have authenticated to their sessions: at once where nothing is to be waited for; else, and where it is
    no session that they want, by `otherwise`."""

    __slots__ = ("_otherwise", "_plane")

    def __init__(
        self, plane: Plane, otherwise: Callable[[Login, LoginStream], Coroutine[Any, Any, None] | None]
    ) -> None:
        self._plane = plane
        self._otherwise = otherwise

    def __call__(self, login: Login, stream: LoginStream) -> Coroutine[Any, Any, None] | None:
        if not (login.is_console or login.replication):
            try:
                if welcome_at_once(self._plane, login, stream) is not None:
                    return None
            except TiergateError as error:
                count_refusal(self._plane, login, error)
                raise
        return self._otherwise(login, stream)


def count_refusal(plane: Plane, login: Login, error: TiergateError) -> None:
    if login.tenant is not None:
        plane.accounts.account(login.tenant).stats.error(error.sqlstate)


def welcome_at_once(plane: Plane, login: Login, stream: LoginStream) -> Session | None:
    """As `welcome`, where nothing is to be waited for; else None, and nothing has been done."""
    found = _find(plane, login, stream)
    if not found.introduced(plane):
        return None
    full = take_all(found.permits)
    if full is not None:
        if full.lender is not None:
            return None
        raise CapReached(_too_many(found, full))
    try:
        session = _session(plane, login, found, stream)
    except BaseException:
        give_all(found.permits)
        raise
    session.startup = session.state_needed = found.state
    session.told = found.told
    _begin(session, None, found.statuses, stream)
    return session


async def welcome(plane: Plane, login: Login, stream: LoginStream) -> Session:
    """Admits the client, says welcome, hands its socket to the session. Raises what the client is to read."""
    session = await admit(plane, login, stream)
    try:
        server = await _introduce(session)
        if session.mode is PoolMode.SESSION and server is None:
            raise AssertionError("session mode without a server connection")
    except BaseException:
        session.release_permits()
        raise
    _begin(session, server, statuses(session.told), stream)
    return session


def _begin(session: Session, server: ServerConnection | None, told: bytes, stream: LoginStream) -> None:
    plane = session.plane
    session.pid, session.key = plane.new_key(
        session.login.protocol_minor, server.pid if server is not None else 0
    )
    session.transport = stream.transport
    if server is not None:
        session.keep(server)
        session.hurry(server.hurried)
    else:
        session.step("welcomed")
    if plane.registry.rows is not None and _has_changed(session, plane.registry):
        session.epoch = OLD
    stream.write(hello(told, session.pid, session.key))
    plane.enter(session)
    rest = stream.take_over(session)
    if rest:
        session.data_received(rest)


def _has_changed(session: Session, registry: Registry) -> bool:
    """What the registry has of its tenant, since it was looked up."""
    name = session.tenant.name
    return bool(name) and registry.known(name) is not session.tenant


async def _introduce(session: Session) -> ServerConnection | None:
    """Lets a server judge the startup parameters; those that it takes only at a connection's start choose the pool."""
    while True:
        introduction = Introduction(session)
        try:
            return await introduction.server_if_needed()
        except ServerRefused as error:
            name = _only_at_start(error)
            if name not in session.startup.parameters:
                raise
            session.plane.pools.only_at_start.add(name)
            place(session)
            if name in session.startup.parameters:
                raise  # the tenant's own, which stays
        finally:
            introduction.give_up()


def _only_at_start(error: ServerRefused) -> str:
    """The parameter of 'parameter "x" cannot be set after connection start', in whatever language; else ""."""
    quoted = _QUOTED.search(error.message) if error.sqlstate == _CANT_CHANGE_RUNTIME_PARAM else None
    return quoted[1].lower() if quoted is not None else ""


def _find(plane: Plane, login: Login, stream: LoginStream) -> Entrance:
    if plane.draining:
        raise ShuttingDown("the proxy is shutting down")
    return entrance(plane, login, stream)


async def admit(plane: Plane, login: Login, stream: LoginStream) -> Session:
    """Takes the permits of one more client; the session gives them back when it closes."""
    found = _find(plane, login, stream)
    full = await take(found.permits)
    if full is not None:
        raise CapReached(_too_many(found, full))
    try:
        if plane.draining:  # by now
            raise ShuttingDown("the proxy is shutting down")
        return _session(plane, login, found, stream)
    except BaseException:
        give_all(found.permits)
        raise


def _session(plane: Plane, login: Login, found: Entrance, stream: LoginStream) -> Session:
    session = Session(plane, login, found, stream.host, stream.port)
    if login.chooses:
        session.chooser = Chooser(session, found.tenant)
    take_place(session, found.place)
    if stream.client_key:
        session.pool.learn(stream.client_key)
    return session


def _too_many(found: Entrance, full: Counter) -> str:
    account, user = found.account, found.user_account
    if full is account.clients:
        return f'too many connections for tenant "{account.tenant.name}" (max_client_connections)'
    if full is account.tier.clients:
        return f'too many connections for tier "{account.tenant.tier}" (max_client_connections)'
    if full is user.clients:
        return f'too many connections for user "{user.user.name}" (max_client_connections)'
    return "no more connections allowed (max_client_conn)"


class Introduction(Link):
    """A login as a waiter for, and the first user of, a server connection."""

    def __init__(self, session: Session) -> None:
        super().__init__(session.account, session.user_account, session.limits, session.startup)
        self.session = session
        self.pool: Pool = session.pool
        self._server: ServerConnection | None = None
        self._lost: TiergateError = ServerLost("server closed the connection unexpectedly")
        self._queued = False
        self._asked = session.startup
        self._guc = session.plane.options.tenant_guc.lower()
        self._done: asyncio.Future[None] | None = None

    async def server_if_needed(self) -> ServerConnection | None:
        """None where all is known already; in session mode always the connection, the session's from now on."""
        session, pool = self.session, self.pool
        asked = without(self._asked.parameters, self._guc)
        known = pool.introductions.get(asked)
        if known is not None and session.mode is not PoolMode.SESSION:
            pool.introductions.move_to_end(asked)
            startup, session.told = known
            session.startup = session.state_needed = with_parameter(startup, self._guc, session.tenant.name)
            return None
        self._done = asyncio.get_running_loop().create_future()
        server = pool.acquire(self, monotonic())
        if server is not None:
            self._server = server
            self._take_state()
        else:
            self._queued = self._server is None
        await self._done
        return self._learn()

    def _learn(self) -> ServerConnection | None:
        session, pool, server = self.session, self.pool, self._server
        if server is None:  # lost behind its answer, before this was called
            raise self._lost
        reported = server.reported.parameters
        startup = intern({name: reported.get(name, value) for name, value in self._asked.parameters.items()})
        session.startup = session.state_needed = startup
        session.told = server.reported
        server.values = startup
        pool.accepted.add(startup)
        pool.introductions[without(self._asked.parameters, self._guc)] = (
            without(startup.parameters, self._guc),
            server.reported,
        )
        if len(pool.introductions) > _REMEMBERED:
            pool.introductions.popitem(last=False)
        self._server = None
        if session.mode is PoolMode.SESSION:
            return server
        if server.uses == server.clean_at + 1:  # an introduction draws no numbers
            server.clean_at = server.uses
        pool.checkin(server)
        return None

    def _take_state(self) -> None:
        server = self._server
        if server is None:
            return
        server.link = self
        ahead = server.apply(self.state_needed)
        if ahead:
            server.send(ahead)
        else:
            self.state_ready(b"")

    def give_up(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            self.pool.drop(server)
        elif self._queued:
            self.pool.leave(self)

    def granted(self, server: ServerConnection) -> None:
        self._queued = False
        self._server = server
        self._take_state()

    def refused(self, error: TiergateError) -> None:
        self._queued = False
        self._fail(error)

    def _fail(self, error: TiergateError) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)

    def state_ready(self, error: bytes) -> None:
        if error:
            fields = decode.error_fields(error[5:])
            frame = encode.with_severity(error, "FATAL")
            self._fail(ServerRefused(fields.get("M", ""), fields.get("C", ""), frame))
        elif self._done is not None and not self._done.done():
            self._done.set_result(None)

    def server_lost(self, error: TiergateError, said: bytes) -> None:
        self._server = None
        if said:
            fields = decode.error_fields(said[5:])
            error = ServerRefused(fields.get("M", ""), fields.get("C", ""), said)
        self._lost = error
        self._fail(error)

    def end(self, error: TiergateError) -> None:
        self._fail(error)
