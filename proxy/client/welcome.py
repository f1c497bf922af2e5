"""From an authenticated login to a session that is ready for its first query.

What the client is told are the server's real parameters. The first login to a pool, and one whose startup
parameters no server of the pool has taken yet, borrows a server connection and tries them there, so that
PostgreSQL itself refuses what it refuses; in session mode the session keeps that connection.
"""

from __future__ import annotations

import asyncio
import re
from time import monotonic
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from proxy.admission.accounts import Account, Counter, UserAccount, give_all
from proxy.client.answering import Chooser
from proxy.client.permits import take
from proxy.client.placing import check_asked, place
from proxy.client.session import Session
from proxy.errors import CapReached, NotAuthorized, ServerLost, ServerRefused, ShuttingDown, TiergateError
from proxy.model import PoolMode
from proxy.protocol.state import State, intern, status, with_parameter
from proxy.server.connection import ServerConnection
from proxy.server.link import Link
from proxy.wire import decode, encode

if TYPE_CHECKING:
    from proxy.client.login import Login
    from proxy.client.plane import Plane
    from proxy.net.stream import LoginStream
    from proxy.server.pool import Pool

_REMEMBERED = 1_000
_said: WeakKeyDictionary[State, bytes] = WeakKeyDictionary()
_CANT_CHANGE_RUNTIME_PARAM = "55P02"
_QUOTED = re.compile(r"[\"«„»]\s?([\w.]+)\s?[\"»“”«]")


async def welcome(plane: Plane, login: Login, stream: LoginStream) -> Session:
    """Admits the client, says welcome, hands its socket to the session. Raises what the client is to read."""
    session = await admit(plane, login)
    try:
        server = await _introduce(session)
        if session.mode is PoolMode.SESSION and server is None:
            raise AssertionError("session mode without a server connection")
    except BaseException:
        session.release_permits()
        raise
    session.pid = server.pid if server is not None else plane.new_pid()
    session.key = plane.new_key(login.protocol_minor)
    session.transport = stream.transport
    if server is not None:
        session.keep(server)
    else:
        session.step("welcomed")
    stream.write(_welcome(session))
    plane.enter(session)
    rest = stream.take_over(session)
    if rest:
        session.data_received(rest)
    return session


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


async def admit(plane: Plane, login: Login) -> Session:
    """Takes the permits of one more client; the session gives them back when it closes."""
    tenant = login.tenant
    if tenant is None:
        raise AssertionError("a session needs a tenant")
    if plane.draining:
        raise ShuttingDown("the proxy is shutting down")
    if plane.registry.is_disabled("tenant", tenant.name):
        raise NotAuthorized(f'tenant "{tenant.name}" is suspended')
    account, user = plane.accounts.account(tenant), plane.accounts.user(login.user)
    permits = (plane.clients, *account.client_counters(user))
    full = await take(permits)
    if full is not None:
        raise CapReached(_too_many(plane, account, user, full))
    try:
        if plane.draining:  # by now
            raise ShuttingDown("the proxy is shutting down")
        session = Session(plane, login, tenant, account, permits)
        if login.chooses:
            session.chooser = Chooser(session, tenant)
        check_asked(session)
        place(session)
    except BaseException:
        give_all(permits)
        raise
    return session


def _too_many(plane: Plane, account: Account, user: UserAccount, full: Counter) -> str:
    if full is plane.clients:
        return "no more connections allowed (max_client_conn)"
    if full is account.clients:
        return f'too many connections for tenant "{account.tenant.name}" (max_client_connections)'
    if full is user.clients:
        return f'too many connections for user "{user.user.name}" (max_client_connections)'
    return f'too many connections for tier "{account.tenant.tier}" (max_client_connections)'


def _welcome(session: Session) -> bytes:
    return (
        _statuses(session.told) + encode.backend_key_data(session.pid, session.key) + encode.ready_for_query()
    )


def _statuses(told: State) -> bytes:
    """The same for all sessions that are told the same, which are most."""
    said = _said.get(told)
    if said is None:
        said = _said[told] = b"".join(status(name, value) for name, value in told.parameters.items())
    return said


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

    def _without_tenant(self, state: State) -> State:
        return intern({name: value for name, value in state.parameters.items() if name != self._guc})

    async def server_if_needed(self) -> ServerConnection | None:
        """None where all is known already; in session mode always the connection, the session's from now on."""
        session, pool = self.session, self.pool
        asked = self._without_tenant(self._asked)
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
        # The tenant's name is taken by every server: it is no reason to try the others again.
        pool.introductions[self._without_tenant(self._asked)] = (
            self._without_tenant(startup),
            server.reported,
        )
        if len(pool.introductions) > _REMEMBERED:
            pool.introductions.popitem(last=False)
        self._server = None
        if session.mode is PoolMode.SESSION:
            return server
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
