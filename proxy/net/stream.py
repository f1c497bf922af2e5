"""A socket during a login: whole messages are awaited; later it is handed on with its unread rest."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any, Protocol

from proxy.errors import ProtocolViolation
from proxy.net.secure import SecureTransport
from proxy.net.transport import Receiver, SocketTransport, Transport, Wire, deliver

MAX_LOGIN_MESSAGE = 65_536
_LINGER = 2.0
_ENOUGH = 4 * MAX_LOGIN_MESSAGE  # more is read only for someone who waits for more


class PeerGone(ConnectionError):
    """The peer closed or reset the connection in the middle of the login."""


class Bare(Protocol):
    """Where a client stands before it has a transport."""

    def say(self, error: bytes) -> None:
        """If that can still be said in the clear."""

    def close(self) -> None: ...


class LoginStream(Receiver):
    """Reads are bounded by what the caller allows; a caller reads one thing at a time.

    `host` and `port` are the peer's where it is a client ("" and 0: a local one).
    """

    __slots__ = (
        "_buffer", "_closed", "_lost", "_over", "_paused", "_waiter", "client_key", "host", "port", "transport",
    )  # fmt: skip

    def __init__(self, host: str = "", port: int = 0) -> None:
        self._set_up(host, port)

    def _set_up(self, host: str, port: int) -> None:
        """What a `super().__init__()` would be, which costs more than all of it where this is compiled."""
        self.transport: Transport
        self.host = host
        self.port = port
        self._buffer = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False
        self._over = False
        self._lost = False
        self._closed: asyncio.Future[None] | None = None
        self.client_key = b""  # what a client has shown of its password

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}" if self.host else "unix"

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > _ENOUGH and not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self._over = True
        self._wake()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._over = self._lost = True
        self._wake()
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)

    def pause_writing(self) -> None:
        """A login says less than a transport keeps."""

    def resume_writing(self) -> None: ...

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _read_on(self) -> None:
        if self._paused and not self.transport.is_closing():
            self.transport.resume_reading()
        self._paused = False

    async def read_exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            if self._over:
                raise PeerGone("the connection was closed during the login")
            self._read_on()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    async def read_message(self, limit: int = MAX_LOGIN_MESSAGE) -> tuple[int, bytes]:
        """Type and body of the next message; ProtocolViolation beyond `limit` bytes."""
        header = await self.read_exactly(5)
        length = int.from_bytes(header[1:], "big")
        if not 4 <= length <= limit:
            raise ProtocolViolation("invalid message length")
        return header[0], await self.read_exactly(length - 4)

    def write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            deliver(self.transport, data)

    def take_over(self, protocol: Wire) -> bytes:
        """Hands the socket on; returns what has been read of it but not been used.

        Between this and the loop's next turn nothing is read, so the caller can feed the rest first. A socket
        that was lost before is told so to its new owner; one that has only ended is told by the transport.
        """
        rest = b""
        if self._buffer:
            rest = bytes(self._buffer)
            self._buffer.clear()
        self.transport.set_protocol(protocol)
        if self._paused:
            self._read_on()
        if self._lost:
            asyncio.get_running_loop().call_soon(protocol.connection_lost, None)
        return rest

    async def close(self) -> None:
        """Closes when the peer has taken what was written (and TLS its leave), but does not wait long for that."""
        self.transport.close()
        if self._lost:
            return
        self._closed = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(_LINGER):
                await self._closed
        except TimeoutError:
            self.transport.abort()


async def connected(sock: socket.socket, context: ssl.SSLContext | None, host: str) -> LoginStream:
    """The stream of a socket that is connected to a server; `host` is whose certificate TLS expects."""
    loop = asyncio.get_running_loop()
    stream = LoginStream()
    if context is None:
        stream.connection_made(SocketTransport(loop, sock.detach(), stream))
    else:
        secure = SecureTransport(loop, sock, stream, context, host)
        stream.connection_made(secure)
        await secure.shake_hands()
    return stream
