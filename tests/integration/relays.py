"""Servers that misbehave: a relay that cuts what passes into pieces, and one that says what it is told to."""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import threading
from collections.abc import Callable
from typing import Self

from tests.rawclient import Frame, frame


class _Listening:
    """A listening socket on loopback whose connections are served by threads until `close`."""

    host = "127.0.0.1"

    def __init__(self) -> None:
        self._listener = socket.create_server((self.host, 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._closing = False
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            if self._closing:
                sock.close()
                return
            self.accepted += 1
            with self._lock:
                self._open.add(sock)
            self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError, EOFError):
                self.serve(sock)
        finally:
            with self._lock:
                self._open.discard(sock)
            sock.close()

    def serve(self, sock: socket.socket) -> None:
        raise NotImplementedError

    def hang_up(self) -> None:
        """Ends all connections there are; new ones are still served."""
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._closing = True
        with contextlib.suppress(OSError):
            socket.create_connection((self.host, self.port), 1).close()  # wakes the accept
        self._listener.close()
        self.hang_up()
        for thread in self._threads:
            thread.join(5)


class ChoppingRelay(_Listening):
    """Passes everything between its clients and a server, in pieces of random sizes."""

    def __init__(self, port: int, seed: int, most: int = 40) -> None:
        self._server = port
        self._random = random.Random(seed)
        self._most = most
        super().__init__()

    def serve(self, sock: socket.socket) -> None:
        with socket.create_connection((self.host, self._server)) as server:
            for one in (sock, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with selectors.DefaultSelector() as selector:
                selector.register(sock, selectors.EVENT_READ, server)
                selector.register(server, selectors.EVENT_READ, sock)
                while True:
                    for key, _ in selector.select():
                        data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                        if not data:
                            return
                        self._pass(data, key.data)

    def _pass(self, data: bytes, to: socket.socket) -> None:
        at = 0
        most = max(self._most, len(data) // 20)
        while at < len(data):
            size = self._random.randint(1, most)
            to.sendall(data[at : at + size])
            at += size


class HoldingRelay(ChoppingRelay):
    """Where `let` is not set, a new connection is accepted but not heard."""

    def __init__(self, port: int) -> None:
        self.let = threading.Event()
        self.let.set()
        super().__init__(port, seed=1, most=100_000)

    def serve(self, sock: socket.socket) -> None:
        self.let.wait(30)
        super().serve(sock)


class Conversation:
    """A fake server's side of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.sock.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def read_startup(self) -> bytes:
        """The body of the startup message; SSLRequest and GSSENCRequest are refused on the way."""
        while True:
            body = self._exactly(int.from_bytes(self._exactly(4), "big") - 4)
            if body[:4] not in (b"\x04\xd2\x16\x2f", b"\x04\xd2\x16\x30"):
                return body
            self.say(b"N")

    def read(self) -> Frame:
        header = self._exactly(5)
        return Frame(chr(header[0]), self._exactly(int.from_bytes(header[1:], "big") - 4))

    def say(self, *frames: bytes) -> None:
        self.sock.sendall(b"".join(frames))

    def log_in(self) -> None:
        """A login that succeeds, as PostgreSQL would say it."""
        self.read_startup()
        self.say(frame("R", b"\0\0\0\0"))
        for name, value in {
            "server_version": "18.0", "client_encoding": "UTF8", "DateStyle": "ISO, MDY",
            "server_encoding": "UTF8", "standard_conforming_strings": "on", "TimeZone": "UTC",
            "application_name": "tiergate", "is_superuser": "off", "session_authorization": "app",
            "integer_datetimes": "on", "IntervalStyle": "postgres",
        }.items():  # fmt: skip
            self.say(frame("S", name.encode() + b"\0" + value.encode() + b"\0"))
        self.say(frame("K", b"\0\0\0\1\0\0\0\2"), frame("Z", b"I"))

    def wait_for_eof(self) -> None:
        while self.sock.recv(65536):
            pass


class FakeServer(_Listening):
    """Holds `conversation` with each who connects."""

    def __init__(self, conversation: Callable[[Conversation], None]) -> None:
        self._conversation = conversation
        super().__init__()

    def serve(self, sock: socket.socket) -> None:
        self._conversation(Conversation(sock))
