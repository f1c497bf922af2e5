"""A bare socket until it is known whether TLS is spoken on it.

Where TLS may be asked for, the first packets are read before any transport exists, and never a byte more than they
have: what a client sends behind its SSLRequest is read by TLS, and fails there, so nothing that came in the clear can
be taken for what came under TLS. Who asks for no TLS goes on as if this had not been.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl

from proxy import log
from proxy.client.arrival import Arrival
from proxy.errors import ProtocolViolation
from proxy.net.secure import SecureTransport
from proxy.net.stream import PeerGone
from proxy.net.tls import ALPN, ClientTls
from proxy.net.transport import SocketTransport
from proxy.wire import startup

_log = log.get("accept")
_TLS_HANDSHAKE = 0x16
_HEAD_SIZE = 8


class Doorstep:
    __slots__ = ("_arrival", "_begun", "_head", "_loop", "_reading", "_refused", "_secure", "_sock", "_tls")

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, arrival: Arrival, tls: ClientTls) -> None:
        self._loop = loop
        self._sock = socket.socket(fileno=fd)
        self._sock.setblocking(False)
        self._arrival = arrival
        self._tls = tls
        self._secure: SecureTransport | None = None  # the socket is its own
        self._head = b""
        self._begun = False  # it has said something
        self._refused = False
        self._reading = True
        loop.add_reader(fd, self._readable)

    def _readable(self) -> None:
        try:
            self._read()
        except (BlockingIOError, InterruptedError):
            return
        except Exception as error:
            self._arrival.failed(error)

    def _read(self) -> None:
        if not self._begun:
            first = self._sock.recv(1, socket.MSG_PEEK)
            if not first:
                raise PeerGone("closed before it said anything")
            self._begun = True
            if first[0] == _TLS_HANDSHAKE:
                self._start_tls(direct=True)
                return
        # Until there is no more: of a peer's reset libuv tells once, whatever stands before it.
        while self._reading:
            got = self._sock.recv(_HEAD_SIZE - len(self._head))
            if not got:
                raise PeerGone("closed within its first packet")
            self._head += got
            if len(self._head) == _HEAD_SIZE:
                self._take()

    def _take(self) -> None:
        head, self._head = self._head, b""
        length, code = int.from_bytes(head[:4], "big"), int.from_bytes(head[4:], "big")
        if code == startup.SSL and length == _HEAD_SIZE:
            self._sock.send(b"S")
            self._start_tls(direct=False)
        elif code == startup.GSSENC and length == _HEAD_SIZE:
            if self._refused:
                raise ProtocolViolation("encryption was requested twice")
            self._refused = True
            self._sock.send(b"N")
        else:
            self._stop_reading()
            arrival = self._arrival
            arrival.connection_made(SocketTransport(self._loop, self._sock.detach(), arrival))
            arrival.data_received(head)

    def _start_tls(self, *, direct: bool) -> None:
        self._stop_reading()
        self._arrival.wait_for(self._shake_hands(direct))

    async def _shake_hands(self, direct: bool) -> None:
        arrival = self._arrival
        secure = self._secure = SecureTransport(self._loop, self._sock, arrival, self._tls.context)
        arrival.transport = secure  # which may be told to pause before we hear of the handshake's end
        try:
            await secure.shake_hands()
        except ssl.SSLError as error:
            reason = getattr(error, "reason", None) or str(error)  # not all have one
            _log.info("TLS handshake failed", address=arrival.address, error=reason)
            raise ConnectionResetError("TLS handshake failed") from None
        arrival.connection_made(secure)
        found: ssl.SSLObject = secure.get_extra_info("ssl_object")
        arrival.tls, arrival.binding = found, self._tls.binding
        if direct and found.selected_alpn_protocol() != ALPN:
            raise ConnectionResetError("direct TLS without ALPN")

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._sock.fileno())

    def say(self, error: bytes) -> None:
        """In the clear, which is no longer possible once a handshake has begun."""
        if self._reading:
            with contextlib.suppress(OSError):
                self._sock.send(error)

    def close(self) -> None:
        self._stop_reading()
        self._sock.close()
        if self._secure is not None:
            self._secure.abort()
