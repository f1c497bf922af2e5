"""One client from its first byte to its session: what it says is taken up in the callback that brings it.

A login is one packet, perhaps a few messages of a proof, and a welcome. Nothing of it waits in most logins, so there is
no task and no future: `data_received` takes what is whole, answers it, and keeps the rest. Only what must be waited for
(a handshake, a key that is slow to derive, a tenant that the registry has to fetch, a permit that others hold, a server
that is to judge the parameters) is a coroutine in a task, behind which what the client says meanwhile is kept, within
bounds. Each ends in the same two ways: the socket is handed on whole, or `failed` says why not and closes it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

from proxy import log
from proxy.auth.exchange import Exchange, Step
from proxy.client.applicants import Applicant, Login
from proxy.client.greeting import Greeting
from proxy.client.login import applicant, log_in, look_up, settled, wanted
from proxy.client.strangers import claimed, meet
from proxy.errors import LoginTimeout, NotAuthorized, ProtocolViolation, ServerRefused, TiergateError
from proxy.model import ClientOptions
from proxy.net.stream import MAX_LOGIN_MESSAGE, Bare, LoginStream, PeerGone
from proxy.net.tls import ClientTls
from proxy.registry.memory import Registry
from proxy.wire import encode, startup
from proxy.wire.pieces import piece, word
from proxy.wire.startup import CancelRequest

_log = log.get("accept")
_TLS_HANDSHAKE = 0x16
_PASSWORD = b"p"[0]
_LINGER = 2.0  # seconds that a client has to take its error (and TLS its leave)
_SSL, _GSSENC, _CANCEL = startup.SSL, startup.GSSENC, startup.CANCEL  # C integers where this is compiled
_LONGEST = startup.MAX_STARTUP_LENGTH


class Reception:
    """What an arrival asks of whoever accepts. `logged_in` hands the socket on: at once, or by the end of what it returns;
    it raises what the client is to read."""

    options: ClientOptions
    tls: ClientTls | None
    registry: Registry
    logged_in: Callable[[Login, Arrival], Coroutine[Any, Any, None] | None]

    def recall(self, packet: bytes) -> Applicant | None:
        """What was made of that startup packet the last time, while it is still true."""
        raise NotImplementedError

    def remember(self, packet: bytes, who: Applicant) -> None: ...

    def arrived(self, arrival: Arrival) -> None:
        """It has authenticated: others may try."""

    def failed(self, arrival: Arrival, error: TiergateError) -> None:
        """It is going to be told."""

    def gone(self, arrival: Arrival) -> None:
        """It has been handed on or closed."""

    def claims(self, arrival: Arrival, tenant: str) -> None:
        """It says that it speaks for that tenant. Raises CapReached where too many do at once."""

    def expect(self, deadline: float) -> None:
        """`expire` is to be called of those whose `deadline` that is."""

    def cancel(self, request: CancelRequest, arrival: Arrival) -> None: ...


class Arrival(LoginStream):
    __slots__ = (
        "_ahead", "_exchange", "_expired", "_packet", "_reception", "_refused", "_who", "binding", "claim",
        "counted", "deadline", "doorstep", "over", "task", "tls",
    )  # fmt: skip

    def __init__(self, reception: Reception, host: str, port: int, deadline: float) -> None:
        self._set_up(host, port)
        self._reception = reception
        self.deadline = deadline
        self.counted = True  # among those who have not authenticated
        self.claim = ""  # the tenant among whose logins it is counted
        self.over = False  # handed on, or closed by us
        self.doorstep: Bare | None = None
        self.tls: ssl.SSLObject | None = None
        self.binding = b""
        self._refused = 0  # the encryption that it has asked for in vain
        self._packet = b""  # its startup packet, where others may say the same
        self._who: Applicant | None = None
        self._exchange: Exchange | None = None
        self._ahead = b""  # said with what is said next
        self.task: asyncio.Task[None] | None = None
        self._expired = False

    # --- the socket ---------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.doorstep = None

    def data_received(self, data: bytes) -> None:
        if self.task is not None or self.over:
            LoginStream.data_received(self, data)
            return
        if self._buffer:
            data = bytes(self._buffer) + data
            self._buffer.clear()
        self._hear(data)

    def eof_received(self) -> bool:
        LoginStream.eof_received(self)
        if self.task is None and not self.over:
            self.failed(PeerGone("the connection was closed during the login"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        LoginStream.connection_lost(self, exc)
        if self.task is None:
            if not self.over:
                self.failed(exc or PeerGone("the connection was lost during the login"))
            self._reception.gone(self)

    def write(self, data: bytes) -> None:
        if self._ahead:
            data, self._ahead = self._ahead + data, b""
        LoginStream.write(self, data)

    # --- what it says -------------------------------------------------------------------------------

    def _hear(self, data: bytes) -> None:
        try:
            self._read(data)
        except Exception as error:
            self.failed(error)

    def _read(self, data: bytes) -> None:
        """What stands behind a packet is kept before it is taken up: whoever is handed the socket gets that too."""
        while True:
            size = self._packet_size(data) if self._exchange is None else _message_size(data)
            if not size or len(data) < size:
                self._buffer += data
                return
            if len(data) > size:
                self._buffer += piece(data, size, len(data))
                data = piece(data, 0, size)
            if self._exchange is None:
                self._take_packet(data)
            elif data[0] != _PASSWORD:
                raise ProtocolViolation(f"expected password response, got message type {data[0]}")
            else:
                self._prove(self._exchange, piece(data, 5, size))
            if self.task is not None or self.over or not self._buffer:
                return
            data = bytes(self._buffer)
            self._buffer.clear()

    def _packet_size(self, data: bytes) -> int:
        """0 where it cannot be known yet."""
        if data and data[0] == _TLS_HANDSHAKE and self.tls is None and not self._refused and self.host:
            raise ConnectionResetError("direct TLS, which is disabled")
        if len(data) < 4:
            return 0
        length, code = word(data, 0), word(data, 4) if len(data) >= 8 else 0
        if not 8 <= length <= _LONGEST or (length != 8 and code in (_SSL, _GSSENC)):
            raise ProtocolViolation("invalid length of startup packet")
        return length

    def _take_packet(self, packet: bytes) -> None:
        code = word(packet, 4)
        if code in (_SSL, _GSSENC):
            if self.tls is not None or code == self._refused or self._refused == -1:
                raise ProtocolViolation("encryption was requested twice")
            self._refused = -1 if self._refused else code  # -1: both
            self.write(b"N")
        elif code == _CANCEL:
            self._reception.cancel(startup.decode_cancel(packet[4:]), self)
        else:
            self._introduce(packet)

    def _introduce(self, packet: bytes) -> None:
        reception = self._reception
        plain = self.tls is None
        refused = plain and self.host and reception.tls is not None and reception.tls.required
        who = reception.recall(packet) if plain and not refused else None
        if who is None:
            said = startup.decode_startup(packet[4:])
            if refused:
                raise NotAuthorized("SSL required")
            registry, user = reception.registry, said.parameters.get("user", "")
            greeting = Greeting(said, self.tls, self.binding)
            if registry.is_foreign(user):
                self.wait_for(self._introduce_stranger(greeting))
                return
            who = applicant(greeting, reception.options, registry)
            if plain:
                self._packet = packet
        self._ask_for_proof(who)

    async def _introduce_stranger(self, greeting: Greeting) -> None:
        options, registry = self._reception.options, self._reception.registry
        claim = claimed(greeting, options, registry)
        if claim:
            self._reception.claims(self, claim)
        # It is not remembered: each login asks anew.
        self._ask_for_proof(applicant(greeting, options, registry, await meet(greeting, options, registry)))

    def _ask_for_proof(self, who: Applicant) -> None:
        self._who = who
        talk = self._exchange = who.talk()
        step = talk.start()
        if not step.done:
            self._claim(who)
        if who.negotiation:
            self.write(who.negotiation)
        self._proceed(step)

    def _claim(self, who: Applicant) -> None:
        """Before anything is waited for: who is let in at once holds nobody's place."""
        if who.claim and not self.claim:
            self._reception.claims(self, who.claim)

    def _prove(self, talk: Exchange, body: bytes) -> None:
        if talk.is_slow():
            self.wait_for(self._prove_slowly(talk, body))
        else:
            self._proceed(talk.respond(body))

    async def _prove_slowly(self, talk: Exchange, body: bytes) -> None:
        step = await asyncio.get_running_loop().run_in_executor(None, talk.respond, body)
        if step.done:
            self.client_key = talk.client_key
            self.write(step.send)
            await self._finish()
        else:
            self._proceed(step)

    def _proceed(self, step: Step) -> None:
        if not step.done:
            self.write(step.send)
            return
        self._ahead = step.send  # goes out with the welcome
        if self._exchange is not None:
            self.client_key = self._exchange.client_key
        login = self._known_login()
        if login is None:
            self._claim(self._applicant())
            self.wait_for(self._finish())
            return
        waiting = self._enter(login)
        if waiting is not None:
            self.wait_for(waiting)

    # --- who it is ----------------------------------------------------------------------------------

    def _known_login(self) -> Login | None:
        """None where the registry has to be asked and waited for."""
        who = self._applicant()
        registry = self._reception.registry
        login = who.login
        stands = login is not None and (registry.rows is None or registry.holds(login.tenant))
        if stands and who.epoch == registry.epoch:
            return login
        if not settled(who, self._reception.options, registry):
            return None
        asked = wanted(who, self._reception.options, registry)
        found = registry.known(asked.tenant) if asked.tenant else None
        if asked.tenant and (found is None or not registry.settled(asked.tenant)):
            return None
        login = log_in(who, asked, found, self._reception.options, registry)
        if self._packet and who.epoch == registry.epoch:
            who.login = login
            self._reception.remember(self._packet, who)
        return login

    async def _finish(self) -> None:
        """The slow way, after the proof."""
        who, registry, options = self._applicant(), self._reception.registry, self._reception.options
        unasked = await look_up(who, options, registry)
        login = self._known_login()
        if login is None:
            asked = wanted(who, options, registry, unasked)
            found = await registry.find(asked.tenant)
            login = log_in(who, asked, found, options, registry)
        waiting = self._enter(login)
        if waiting is not None:
            await waiting

    def _applicant(self) -> Applicant:
        if self._who is None:
            raise AssertionError("nobody has said who it is")
        return self._who

    def _enter(self, login: Login) -> Coroutine[Any, Any, None] | None:
        self._reception.arrived(self)
        waiting = self._reception.logged_in(login, self)
        if waiting is None:
            self.over = True
            self._reception.gone(self)
        return waiting

    # --- what must be waited for --------------------------------------------------------------------

    def wait_for(self, work: Coroutine[Any, Any, None]) -> None:
        if self._ahead:
            self.write(b"")
        self.task = asyncio.get_running_loop().create_task(work)
        self.task.add_done_callback(self._waited)

    def _waited(self, task: asyncio.Task[None]) -> None:
        self.task = None
        if task.cancelled():
            if self._expired:
                self.failed(LoginTimeout("client_login_timeout"))
            else:
                self.close_at_once()
            return
        error = task.exception()
        if error is not None:
            self.failed(error)
        elif self.over:
            return
        elif self._exchange is not None and not self.counted:
            self.over = True
            self._reception.gone(self)
        else:
            self._go_on()

    def _go_on(self) -> None:
        """With what it has said meanwhile."""
        if self._lost or self._over:
            self.failed(PeerGone("the connection was closed during the login"))
            return
        self._read_on()
        data = bytes(self._buffer)
        self._buffer.clear()
        if data:
            self._hear(data)

    # --- the end ------------------------------------------------------------------------------------

    def expire(self) -> None:
        """Its deadline has passed."""
        if self.over:
            self.close_at_once()
        elif self.task is not None:
            self._expired = True
            self.task.cancel()
        else:
            self.failed(LoginTimeout("client_login_timeout"))

    def failed(self, error: BaseException) -> None:
        """Says the error as FATAL, a server's own as it was sent, and closes when that has been written."""
        if isinstance(error, OSError):
            _log.debug("client left during its login", address=self.address, error=str(error))
            self.close_at_once()
            return
        if not isinstance(error, TiergateError):
            _log.exception("login broke", error, address=self.address)
            error = TiergateError()
        self._reception.failed(self, error)
        said = error.frame if isinstance(error, ServerRefused) else encode.refusal(error, "FATAL")
        self.over = True
        if self.doorstep is not None:
            self.doorstep.say(said)
            self.close_at_once()
            return
        self.write(said)
        self.transport.close()
        if self._lost:
            self._reception.gone(self)
            return
        self.deadline = monotonic() + _LINGER
        self._reception.expect(self.deadline)

    def close_at_once(self) -> None:
        self.over = True
        if self.task is not None:
            self.task.cancel()  # and then again
        elif self.doorstep is not None:
            self.doorstep.close()
            self._reception.gone(self)
        elif self._lost:
            self._reception.gone(self)
        else:
            self.transport.abort()


def _message_size(data: bytes) -> int:
    """0 where it cannot be known yet."""
    if len(data) < 5:
        return 0
    length = word(data, 1)
    if not 4 <= length <= MAX_LOGIN_MESSAGE:
        raise ProtocolViolation("invalid message length")
    return 1 + length
