"""TLS over a plain socket's transport: what comes is decrypted in the call that read it, what is written is encrypted and
sent in the call that wrote it.

Between the socket and OpenSSL stand two buffers in memory, so that a record costs one receive or one send, whatever
its size, where OpenSSL by itself receives its head and its body one after the other. uvloop's and asyncio's TLS work
like this too, but send at the end of the turn, ask for more records until an exception says that there are none (which
costs more than a short record does), and reserve 256 KB for each connection; and what they carry is not among
the sockets of `readiness.py`, where many are read in one turn and who has a guarantee is read first.

It is SHAKING until `shake_hands` returns, and then what a plain transport is: OPEN, CLOSING, CLOSED. What one receive
brought is told in one piece, so a pause leaves nothing decrypted behind, but at most a part of a record in OpenSSL. What
is kept for a slow reader is encrypted, and counted as such. OpenSSL has answers of its own to give (new keys for who asks
for them); who goes on asking and reads none is lost, or strangers could fill our memory.

The peer's last word is its close_notify or the end of its stream: PostgreSQL's frames say themselves whether they
are whole, so that nobody gains by cutting a stream. We say ours and wait for none.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Any

from proxy.net.sockets import READ_SIZE
from proxy.net.transport import CLOSED, HIGH, OPEN, SocketTransport, Wire

HANDSHAKE = 60.0  # seconds that one may take where nothing else limits it
RECORD = 16_640  # no record's plain text is that long
_PIECE = READ_SIZE  # is encrypted at once: what OpenSSL's buffers have once held they keep


class SecureTransport(SocketTransport):
    """A server's end where `host` is None, else that of a client which expects `host` at the other.

    Owns the socket unless the constructor raises.
    """

    __slots__ = ("_incoming", "_outgoing", "_over", "_owed", "_records", "_shaken", "_tls")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        protocol: Wire,
        context: ssl.SSLContext,
        host: str | None = None,
    ) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=host is None, server_hostname=host
        )
        self._records: Any = getattr(self._tls, "_sslobj", self._tls)  # without a call in Python around each
        self._shaken: asyncio.Future[None] | None = loop.create_future()
        self._owed = 0  # bytes of OpenSSL's own since the peer has last taken all that was kept for it
        self._over = False  # the peer has said its last word, and the protocol has yet to be told
        super().__init__(loop, sock.detach(), protocol, watched=False)

    # --- the handshake ------------------------------------------------------------------------------

    async def shake_hands(self) -> None:
        """Raises ssl.SSLError where it fails, another OSError where the peer goes or takes too long; then it is lost."""
        shaken = self._shaken
        if shaken is None:
            return
        self._shake()
        self.look()
        try:
            async with asyncio.timeout(HANDSHAKE):
                await shaken
        except TimeoutError:
            raise ConnectionAbortedError("no TLS handshake in time") from None
        finally:
            if self._shaken is not None:
                self.abort()

    def _shake(self) -> bool:
        """Whether it is done."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError as error:
            self._flush()  # it says why
            self._lose(error)
            return False
        self._flush()
        shaken, self._shaken = self._shaken, None
        if shaken is not None and not shaken.done():
            shaken.set_result(None)
        return self._state == _OPEN

    # --- reading ------------------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        self._incoming.write(data)
        if self._shaken is not None:
            if self._shaken.done() or not self._shake():
                return
            if not self._incoming.pending:
                return
        size = len(data)
        try:
            # Never less than a record's text, if it is all in `data`: then that is all that there is of it.
            plain = self._records.read(size if size < _RECORD else _RECORD)
        except ssl.SSLError as error:
            self._stopped(error)
            return
        if len(plain) == size or self._incoming.pending:
            self._take_more(plain)
        elif plain:
            SocketTransport._take(self, plain)
            if self._outgoing.pending:
                self._answer()
        else:
            self._finish()

    def _take_more(self, plain: bytes) -> None:
        pieces = [plain]
        stopped: ssl.SSLError | None = None
        try:
            while plain:
                plain = self._records.read(_RECORD)
                pieces.append(plain)
                if not self._incoming.pending:
                    break
        except ssl.SSLError as error:
            stopped = error
        told = b"".join(pieces)
        if told:
            SocketTransport._take(self, told)
        if self._state == _CLOSED:
            return
        if stopped is not None:
            self._stopped(stopped)
            return
        self._answer()
        if not plain:
            self._finish()

    def _stopped(self, error: ssl.SSLError) -> None:
        """There is no more to decrypt, or what there is cannot be."""
        self._answer()
        if not isinstance(error, ssl.SSLWantReadError):
            self._lose(error)

    def _answer(self) -> None:
        """OpenSSL's part in a change of keys, or an alert."""
        if not self._kept:
            self._owed = 0
        self._owed += self._outgoing.pending
        self._flush()
        if self._kept and self._owed > HIGH:
            self._lose(ConnectionAbortedError("asks for keys and reads none"))

    def _finish(self) -> None:
        if self._reading:
            SocketTransport._finish(self)
        else:  # what came with it made the protocol pause
            self._over = True

    def resume_reading(self) -> None:
        SocketTransport.resume_reading(self)
        if self._over:
            self._loop.call_soon(self._finish_now)

    def _finish_now(self) -> None:
        if self._over and self._reading:
            self._over = False
            SocketTransport._finish(self)

    # --- writing ------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._state != _OPEN or not data:
            return
        if len(data) > _PIECE:
            self._write_pieces(data)
            return
        try:
            self._records.write(data)
        except ssl.SSLError as error:
            self._lose(error)
            return
        SocketTransport.write(self, self._outgoing.read())

    def _write_pieces(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            for at in range(0, len(data), _PIECE):
                if self._state != _OPEN:
                    return
                self._records.write(view[at : at + _PIECE])
                SocketTransport.write(self, self._outgoing.read())
        except ssl.SSLError as error:
            self._lose(error)

    def _flush(self) -> None:
        if self._outgoing.pending:
            SocketTransport.write(self, self._outgoing.read())

    # --- the end ------------------------------------------------------------------------------------

    def close(self) -> None:
        if self._state != _OPEN:
            return
        if self._shaken is not None:
            self._lose(None)
            return
        with contextlib.suppress(ssl.SSLError):  # SSLWantReadError: it would wait for the peer's
            self._tls.unwrap()
        self._flush()
        SocketTransport.close(self)

    def _lose(self, error: Exception | None) -> None:
        if self._shaken is not None and not self._shaken.done():
            self._shaken.set_exception(error or ConnectionResetError("closed during the TLS handshake"))
        SocketTransport._lose(self, error)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`ssl_object` as well."""
        return self._tls if name == "ssl_object" else SocketTransport.get_extra_info(self, name, default)


_OPEN, _CLOSED, _RECORD = OPEN, CLOSED, RECORD  # C integers where this is compiled
