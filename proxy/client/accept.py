"""One accepted socket until it is known what the client wants: TLS or not, a cancel or a login.

The first packets are read from the bare socket, before any transport exists, and never a byte more than
they have: what a client sends behind its SSLRequest is read by TLS, and fails there, so nothing that came in
the clear can be taken for what came under TLS. One deadline covers everything up to the welcome, and the
connections that have not logged in yet are counted, all together and by address.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable

from proxy import log
from proxy.client.greeting import Greeting
from proxy.client.login import Login, fail, log_in
from proxy.errors import LoginTimeout, NotAuthorized, ProtocolViolation, TiergateError
from proxy.model import ClientOptions
from proxy.net.stream import LoginStream, PeerGone, accepted
from proxy.net.tls import ALPN, ClientTls
from proxy.registry.memory import Registry
from proxy.stats import ProcessStats
from proxy.wire import encode, startup
from proxy.wire.startup import CancelRequest

_log = log.get("accept")
_TLS_HANDSHAKE = 0x16
_TOO_MANY = encode.error("too many clients are logging in", "53300", severity="FATAL", hint="Try again.")


class Acceptor:
    """Takes sockets from listeners; calls `logged_in` with each client that has authenticated."""

    def __init__(
        self,
        options: ClientOptions,
        tls: ClientTls | None,
        registry: Registry,
        logged_in: Callable[[Login, LoginStream], Awaitable[None]],
        on_cancel: Callable[[CancelRequest], None],
        process: ProcessStats,
    ) -> None:
        self._options = options
        self._tls = tls
        self._registry = registry
        self._logged_in = logged_in
        self._on_cancel = on_cancel
        self._process = process
        self._arriving: set[_Arrival] = set()
        self._by_address: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def pending(self) -> int:
        """Connections that have not authenticated yet."""
        return len(self._arriving)

    def reload(self, options: ClientOptions, tls: ClientTls | None) -> None:
        self._options = options
        self._tls = tls

    def accept(self, sock: socket.socket) -> None:
        arrival = _Arrival(sock)
        options = self._options
        if (
            len(self._arriving) >= options.max_logins
            or self._by_address.get(arrival.host, 0) >= options.max_logins_per_address
        ):
            self._process.rejected_connections += 1
            arrival.refuse()
            return
        if arrival.host:
            self._by_address[arrival.host] = self._by_address.get(arrival.host, 0) + 1
        self._arriving.add(arrival)
        self._process.client_connections += 1
        task = asyncio.get_running_loop().create_task(self._serve(arrival))
        self._tasks.add(task)

        def over(task: asyncio.Task[None]) -> None:
            # Not in the task itself: one that is cancelled before its first step never runs.
            self._tasks.discard(task)
            self._has_arrived(arrival)
            if task.cancelled():
                arrival.drop()

        task.add_done_callback(over)

    def _has_arrived(self, arrival: _Arrival) -> None:
        """It has authenticated or is gone: others may try."""
        if arrival not in self._arriving:
            return
        self._arriving.remove(arrival)
        if arrival.host:
            self._by_address[arrival.host] -= 1
            if not self._by_address[arrival.host]:
                del self._by_address[arrival.host]

    async def close(self) -> None:
        """Ends all logins under way."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, arrival: _Arrival) -> None:
        error: TiergateError | None = None
        try:
            async with asyncio.timeout(self._options.client_login_timeout or None):
                greeting = await self._greet(arrival)
                if greeting is not None:
                    login = await log_in(greeting, self._options, self._registry)
                    self._has_arrived(arrival)
                    await self._logged_in(login, greeting.stream)
        except TimeoutError:
            error = LoginTimeout("client_login_timeout")
        except TiergateError as refusal:
            error = refusal
        except OSError as gone:
            _log.debug("client left during its login", address=arrival.address, error=str(gone))
            arrival.drop()
        except Exception as bug:
            _log.exception("login broke", bug, address=arrival.address)
            error = TiergateError()
        if error is not None:
            await self._give_up(arrival, error)

    async def _give_up(self, arrival: _Arrival, error: TiergateError) -> None:
        self._process.login_failures += 1
        if type(error) is not TiergateError:
            _log.log(
                error.level, "login failed", address=arrival.address, error=error.message, sqlstate=error.sqlstate,
                internal=error.internal,
            )  # fmt: skip
        try:
            if not arrival.handed_on:
                await arrival.become_stream()
            if arrival.stream is not None:
                await fail(arrival.stream, error)
        except OSError as gone:
            _log.debug("client left before its error", address=arrival.address, error=str(gone))
        finally:
            arrival.drop()

    async def _greet(self, arrival: _Arrival) -> Greeting | None:
        """None where the client only wanted to cancel something."""
        loop = asyncio.get_running_loop()
        sock, tls = arrival.sock, self._tls if arrival.host else None
        if arrival.host and await _first_byte(sock) == _TLS_HANDSHAKE:
            if tls is None:
                raise ConnectionResetError("direct TLS, which is disabled")
            stream = await self._start_tls(arrival, tls)
            if _ssl_object(stream).selected_alpn_protocol() != ALPN:
                raise ConnectionResetError("direct TLS without ALPN")
            return await self._read_startup(arrival, stream, tls)
        refused: set[int] = set()
        while True:
            header = await _exactly(loop, sock, 8)
            length, code = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:], "big")
            if not 8 <= length <= startup.MAX_STARTUP_LENGTH:
                raise ProtocolViolation("invalid length of startup packet")
            if code not in (startup.SSL, startup.GSSENC):
                break
            if length != 8 or code in refused:
                raise ProtocolViolation(
                    "invalid length of startup packet" if length != 8 else "encryption was requested twice"
                )
            refused.add(code)
            if code == startup.SSL and tls is not None:
                await loop.sock_sendall(sock, b"S")
                return await self._read_startup(arrival, await self._start_tls(arrival, tls), tls)
            await loop.sock_sendall(sock, b"N")
        if code == startup.CANCEL:
            self._on_cancel(startup.decode_cancel(header[4:] + await _exactly(loop, sock, length - 8)))
            sock.close()
            return None
        stream = await arrival.become_stream()
        said = startup.decode_startup(header[4:] + await stream.read_exactly(length - 8))
        if tls is not None and tls.required:
            raise NotAuthorized("SSL required")
        return Greeting(stream, said, arrival.address, None)

    async def _start_tls(self, arrival: _Arrival, tls: ClientTls) -> LoginStream:
        try:
            return await arrival.become_stream(tls.context)
        except ssl.SSLError as error:
            reason = getattr(error, "reason", None) or str(error)  # not all have one
            _log.info("TLS handshake failed", address=arrival.address, error=reason)
            raise ConnectionResetError("TLS handshake failed") from None

    async def _read_startup(self, arrival: _Arrival, stream: LoginStream, tls: ClientTls) -> Greeting | None:
        length = int.from_bytes(await stream.read_exactly(4), "big")
        if not 8 <= length <= startup.MAX_STARTUP_LENGTH:
            raise ProtocolViolation("invalid length of startup packet")
        body = await stream.read_exactly(length - 4)
        code = int.from_bytes(body[:4], "big")
        if code == startup.CANCEL:
            self._on_cancel(startup.decode_cancel(body))
            await stream.close()
            return None
        if code in (startup.SSL, startup.GSSENC):
            raise ProtocolViolation("encryption was requested twice")
        said = startup.decode_startup(body)
        return Greeting(stream, said, arrival.address, _ssl_object(stream), tls.binding)


class _Arrival:
    """A socket on its way: bare at first, then a transport's. `host` is "" for one that is local."""

    __slots__ = ("address", "handed_on", "host", "sock", "stream")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.stream: LoginStream | None = None
        self.handed_on = False
        self.host, self.address = "", "unix"
        if sock.family != socket.AF_UNIX:
            try:
                self.host, port = sock.getpeername()[:2]
            except OSError:
                self.host, port = "?", 0  # it has left already, as its reader will see
            self.address = f"{self.host}:{port}"

    async def become_stream(self, context: ssl.SSLContext | None = None) -> LoginStream:
        self.handed_on = True
        self.stream = await accepted(self.sock, context)
        return self.stream

    def refuse(self) -> None:
        """Says so where that costs nothing, as PostgreSQL does when it cannot fork."""
        with contextlib.suppress(OSError):
            self.sock.send(_TOO_MANY)
        self.sock.close()

    def drop(self) -> None:
        if self.stream is not None:
            self.stream.transport.abort()
        else:
            self.sock.close()


def _ssl_object(stream: LoginStream) -> ssl.SSLObject:
    found: ssl.SSLObject = stream.transport.get_extra_info("ssl_object")
    return found


async def _first_byte(sock: socket.socket) -> int:
    """The first byte that will be read, without reading it."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            peeked = sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            readable = loop.create_future()
            loop.add_reader(sock.fileno(), _set, readable)
            try:
                await readable
            finally:
                loop.remove_reader(sock.fileno())
            continue
        if not peeked:
            raise PeerGone("closed before it said anything")
        return peeked[0]


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _exactly(loop: asyncio.AbstractEventLoop, sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        got = await loop.sock_recv(sock, count - len(data))
        if not got:
            raise PeerGone("closed within its first packet")
        data += got
    return data
