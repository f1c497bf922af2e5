"""A client that costs next to nothing: a blocking socket that looks for the end of an answer and at nothing else."""

from __future__ import annotations

import socket
import ssl
import struct
from types import TracebackType
from typing import Self

from benchmarks.targets import PASSWORD, Target
from proxy.auth.scram import ClientExchange
from proxy.wire import encode

# What has come ends with this when an answer is whole: no row of the benchmarks holds these bytes.
_READY = b"Z\x00\x00\x00\x05I"
_COPY_IN = b"G"[0]
_ERROR = b"E"[0]
_RECEIVE = 1 << 18


class Refused(RuntimeError):
    """The server or the proxy has answered with an error."""


class RawClient:
    def __init__(
        self, target: Target, context: ssl.SSLContext | None = None, tenant: str = "", user: str = "app"
    ) -> None:
        self.received = 0
        self._buffer = bytearray(_RECEIVE)
        self._sock = socket.create_connection(("127.0.0.1", target.port), 60)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if context:
                self._sock.sendall(encode.SSL_REQUEST)
                if self._sock.recv(1) != b"S":
                    raise Refused("no TLS")
                self._sock = context.wrap_socket(self._sock, server_hostname="localhost")
            options = f"-c app.tenant_id={tenant}" if tenant else target.pgoptions
            self._log_in({"user": user, "database": target.database, "options": options})
        except BaseException:
            self._sock.close()
            raise

    def _log_in(self, parameters: dict[str, str]) -> None:
        self._sock.sendall(encode.startup(parameters))
        exchange = ClientExchange(PASSWORD)
        answer = b""
        while True:
            answer += self._sock.recv(8192)
            if not answer:
                raise Refused("hung up on")
            if answer[0] == _ERROR:
                raise Refused(answer.decode(errors="replace"))
            if answer.endswith(_READY):
                return
            if len(answer) < 9 or len(answer) != 1 + struct.unpack_from("!I", answer, 1)[0]:
                continue  # not whole, or the rest of a greeting is still to come
            body = answer[9:]
            match struct.unpack_from("!I", answer, 5)[0]:
                case 10:
                    first = exchange.first()
                    said = b"SCRAM-SHA-256\0" + len(first).to_bytes(4, "big") + first
                    self._sock.sendall(encode.frame(b"p", said))
                    answer = b""
                case 11:
                    self._sock.sendall(encode.frame(b"p", exchange.final(body)))
                    answer = b""

    def fileno(self) -> int:
        return self._sock.fileno()

    def begin(self, request: bytes) -> None:
        """Sends it; the answer must be short, and is taken in with `answered`."""
        self._sock.sendall(request)

    def answered(self) -> bool:
        """Takes in what there is. Whether it is the end of the answer."""
        got = self._sock.recv(8192)
        if not got or got[0] == _ERROR:
            raise Refused(got.decode(errors="replace"))
        return got.endswith(_READY)

    def ask(self, request: bytes) -> None:
        """Sends it and takes in all of the answer."""
        self._sock.sendall(request)
        self._until_ready()

    def until_told(self) -> None:
        """Takes in what ends the session."""
        while self._sock.recv(8192):
            pass

    def copy_in(self, statement: bytes, piece: bytes, times: int) -> None:
        self._sock.sendall(encode.query(statement))
        answer = self._sock.recv(8192)
        if answer[0] != _COPY_IN:
            raise Refused(answer.decode(errors="replace"))
        for _ in range(times):
            self._sock.sendall(piece)
        self._sock.sendall(encode.frame(b"c", b""))
        self._until_ready()

    def _until_ready(self) -> None:
        buffer, first = self._buffer, True
        while True:
            got = self._sock.recv_into(buffer)
            if not got:
                raise Refused("the connection was lost")
            if first and buffer[0] == _ERROR:
                raise Refused(bytes(buffer[:got]).decode(errors="replace"))
            first = False
            self.received += got
            if buffer[max(0, got - 6) : got] == _READY:
                return

    def close(self) -> None:
        with self._sock:
            self._sock.sendall(encode.TERMINATE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error:
            self._sock.close()
        else:
            self.close()
