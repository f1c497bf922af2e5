"""One accepted socket until it is known what the client wants: TLS or not, a cancel or a login.

The first packets are read from the bare socket, before any transport exists, and never a byte more than
they have: what a client sends behind its SSLRequest is read by TLS, and fails there, so nothing that came in
the clear can be taken for what came under TLS. One deadline covers everything up to the welcome, and the
connections that have not logged in yet are counted, all together and by address.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable

from proxy import log
from proxy.client.greeting import Greeting
from proxy.client.login import Login, fail, log_in
from proxy.errors import LoginTimeout, NotAuthorized, ProtocolViolation, TiergateError
from proxy.model import ClientOptions
from proxy.net.stream import LoginStream, PeerGone
from proxy.net.tls import ALPN, ClientTls
from proxy.registry.memory import Registry
from proxy.stats import ProcessStats
from proxy.wire import startup
from proxy.wire.startup import CancelRequest

_log = log.get("accept")
_TLS_HANDSHAKE = 0x16


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
        self._by_address: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def pending(self) -> int:
        """Connections that have not logged in yet."""
        return len(self._tasks)

    def reload(self, options: ClientOptions, tls: ClientTls | None) -> None:
        self._options = options
        self._tls = tls

    def accept(self, sock: socket.socket) -> None:
        try:
            peer = sock.getpeername() if sock.family != socket.AF_UNIX else ""
        except OSError:
            sock.close()
            return
        host = peer[0] if peer else "unix"
        options = self._options
        if (
            len(self._tasks) >= options.max_logins
            or self._by_address.get(host, 0) >= options.max_logins_per_address
        ):
            self._process.rejected_connections += 1
            sock.close()
            return
        self._by_address[host] = self._by_address.get(host, 0) + 1
        self._process.client_connections += 1
        address = f"{host}:{peer[1]}" if peer else "unix"
        task = asyncio.get_running_loop().create_task(self._serve(sock, address))
        self._tasks.add(task)

        def over(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._by_address[host] -= 1
            if not self._by_address[host]:
                del self._by_address[host]

        task.add_done_callback(over)

    async def close(self) -> None:
        """Ends all logins under way."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, sock: socket.socket, address: str) -> None:
        stream: LoginStream | None = None
        try:
            async with asyncio.timeout(self._options.client_login_timeout or None):
                greeting = await self._greet(sock, address)
                if greeting is None:
                    return
                stream = greeting.stream
                login = await log_in(greeting, self._options, self._registry)
                await self._logged_in(login, stream)
        except TimeoutError:
            await self._give_up(sock, stream, LoginTimeout("client_login_timeout"))
        except TiergateError as error:
            self._process.login_failures += 1
            _log.log(
                error.level, "login failed", address=address, error=error.message, internal=error.internal
            )
            await self._give_up(sock, stream, error)
        except (OSError, PeerGone) as error:
            _log.debug("client left during its login", address=address, error=str(error))
            self._drop(sock, stream)
        except asyncio.CancelledError:
            self._drop(sock, stream)
            raise
        except Exception as error:
            _log.exception("login broke", error, address=address)
            await self._give_up(sock, stream, TiergateError())

    async def _give_up(self, sock: socket.socket, stream: LoginStream | None, error: TiergateError) -> None:
        if stream is None:
            stream = await self._plain_stream(sock)
        if stream is not None:
            await fail(stream, error)

    async def _plain_stream(self, sock: socket.socket) -> LoginStream | None:
        """For an error before the socket had a transport; None where it is closed or TLS's already."""
        if sock.fileno() < 0:
            return None
        try:
            _, stream = await asyncio.get_running_loop().connect_accepted_socket(LoginStream, sock)
        except (OSError, RuntimeError):
            sock.close()
            return None
        return stream

    def _drop(self, sock: socket.socket, stream: LoginStream | None) -> None:
        if stream is not None:
            stream.transport.abort()
        else:
            sock.close()

    async def _greet(self, sock: socket.socket, address: str) -> Greeting | None:
        loop = asyncio.get_running_loop()
        local = sock.family == socket.AF_UNIX
        if not local and await _first_byte(sock) == _TLS_HANDSHAKE:
            return await self._direct_tls(sock, address)
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
                    "invalid length of startup packet" if length != 8 else "repeated request"
                )
            refused.add(code)
            if code == startup.SSL and self._tls is not None and not local:
                await loop.sock_sendall(sock, b"S")
                stream = await self._start_tls(sock, self._tls)
                return await self._read_startup(stream, address, under_tls=True)
            await loop.sock_sendall(sock, b"N")
        if code == startup.CANCEL:
            body = header[4:] + await _exactly(loop, sock, length - 8)
            self._on_cancel(startup.decode_cancel(body))
            sock.close()
            return None
        _, stream = await loop.connect_accepted_socket(LoginStream, sock)
        try:
            body = header[4:] + await stream.read_exactly(length - 8)
            greeting = Greeting(stream, startup.decode_startup(body), address, None)
            if self._tls is not None and self._tls.required and not local:
                raise NotAuthorized("SSL required")
        except TiergateError as error:
            await fail(stream, error)
            return None
        except BaseException:
            stream.transport.abort()
            raise
        return greeting

    async def _direct_tls(self, sock: socket.socket, address: str) -> Greeting | None:
        if self._tls is None:
            raise ConnectionResetError("direct TLS, which is disabled")
        stream = await self._start_tls(sock, self._tls)
        if _ssl_object(stream).selected_alpn_protocol() != ALPN:
            stream.transport.abort()
            raise ConnectionResetError("direct TLS without ALPN")
        return await self._read_startup(stream, address, under_tls=True)

    async def _start_tls(self, sock: socket.socket, tls: ClientTls) -> LoginStream:
        loop = asyncio.get_running_loop()
        try:
            _, stream = await loop.connect_accepted_socket(LoginStream, sock, ssl=tls.context)
        except ssl.SSLError as error:
            raise ConnectionResetError(f"TLS handshake failed: {error.reason}") from None
        return stream

    async def _read_startup(self, stream: LoginStream, address: str, *, under_tls: bool) -> Greeting | None:
        try:
            length = int.from_bytes(await stream.read_exactly(4), "big")
            if not 8 <= length <= startup.MAX_STARTUP_LENGTH:
                raise ProtocolViolation("invalid length of startup packet")
            body = await stream.read_exactly(length - 4)
            code = int.from_bytes(body[:4], "big")
            if code == startup.CANCEL:
                self._on_cancel(startup.decode_cancel(body))
                stream.close()
                return None
            if code in (startup.SSL, startup.GSSENC):
                raise ProtocolViolation("encryption was requested twice")
            return Greeting(
                stream, startup.decode_startup(body), address, _ssl_object(stream) if under_tls else None
            )
        except TiergateError as error:
            await fail(stream, error)
            return None
        except BaseException:
            stream.transport.abort()
            raise


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
