"""A small synchronous client that speaks raw frames, for tests that must see every byte.

It shares no code with the proxy, so that a mistake cannot hide on both sides. `RawClient` logs in and
sends and reads frames; the functions in capitals' spelling (`query`, `parse`, ...) make frames.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import secrets
import selectors
import socket
import ssl
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

V3_0 = 0x00030000
V3_2 = 0x00030002
SSL_REQUEST = struct.pack("!II", 8, 80877103)
GSSENC_REQUEST = struct.pack("!II", 8, 80877104)
TIMEOUT = 20.0


class Frame(NamedTuple):
    kind: str
    body: bytes


# --- making frames ----------------------------------------------------------------------------------


def frame(kind: str, body: bytes = b"") -> bytes:
    return kind.encode("latin-1") + struct.pack("!I", len(body) + 4) + body


def _z(text: str | bytes) -> bytes:
    return (text.encode() if isinstance(text, str) else text) + b"\0"


def startup(parameters: Mapping[str, str | bytes], protocol: int = V3_0) -> bytes:
    body = struct.pack("!I", protocol) + b"".join(_z(k) + _z(v) for k, v in parameters.items()) + b"\0"
    return struct.pack("!I", len(body) + 4) + body


def cancel_request(pid: int, key: bytes) -> bytes:
    return struct.pack("!IIi", 12 + len(key), 80877102, pid) + key


def query(text: str | bytes) -> bytes:
    return frame("Q", _z(text))


def parse(text: str | bytes, name: str = "", oids: Sequence[int] = ()) -> bytes:
    return frame("P", _z(name) + _z(text) + struct.pack(f"!H{len(oids)}I", len(oids), *oids))


def bind(
    values: Sequence[str | bytes | None] = (),
    *,
    name: str = "",
    portal: str = "",
    formats: Sequence[int] = (),
    results: Sequence[int] = (),
) -> bytes:
    out = [_z(portal), _z(name), struct.pack(f"!H{len(formats)}H", len(formats), *formats)]
    out.append(struct.pack("!H", len(values)))
    for value in values:
        if value is None:
            out.append(b"\xff\xff\xff\xff")
        else:
            raw = value.encode() if isinstance(value, str) else value
            out.append(struct.pack("!I", len(raw)) + raw)
    out.append(struct.pack(f"!H{len(results)}H", len(results), *results))
    return frame("B", b"".join(out))


def describe(kind: str, name: str = "") -> bytes:
    return frame("D", kind.encode() + _z(name))


def execute(portal: str = "", rows: int = 0) -> bytes:
    return frame("E", _z(portal) + struct.pack("!I", rows))


def close(kind: str, name: str = "") -> bytes:
    return frame("C", kind.encode() + _z(name))


def function_call(oid: int, *args: bytes | None, argument_format: int = 0, result_format: int = 0) -> bytes:
    out = [struct.pack("!IHHH", oid, 1, argument_format, len(args))]
    for arg in args:
        out.append(b"\xff\xff\xff\xff" if arg is None else struct.pack("!I", len(arg)) + arg)
    out.append(struct.pack("!H", result_format))
    return frame("F", b"".join(out))


def copy_data(data: bytes) -> bytes:
    return frame("d", data)


def copy_fail(reason: str) -> bytes:
    return frame("f", _z(reason))


SYNC = frame("S")
FLUSH = frame("H")
COPY_DONE = frame("c")
TERMINATE = frame("X")


def ask(text: str, values: Sequence[str | bytes | None] = (), *, name: str = "", portal: str = "") -> bytes:
    """Parse, Bind, Describe the portal and Execute, without a Sync."""
    return (
        parse(text, name) + bind(values, name=name, portal=portal) + describe("P", portal) + execute(portal)
    )


# --- reading frames ---------------------------------------------------------------------------------


def error_fields(body: bytes) -> dict[str, str]:
    """The fields of an ErrorResponse or NoticeResponse by their letter."""
    return {f[:1].decode(): f[1:].decode("utf-8", "replace") for f in body.split(b"\0") if f}


def row_values(body: bytes) -> list[bytes | None]:
    (count,) = struct.unpack_from("!H", body)
    at = 2
    values: list[bytes | None] = []
    for _ in range(count):
        (size,) = struct.unpack_from("!i", body, at)
        at += 4
        values.append(None if size < 0 else body[at : at + size])
        at += max(size, 0)
    return values


def kinds(frames: Iterable[Frame]) -> str:
    return "".join(f.kind for f in frames)


def errors(frames: Iterable[Frame]) -> list[dict[str, str]]:
    return [error_fields(f.body) for f in frames if f.kind == "E"]


def sqlstates(frames: Iterable[Frame]) -> list[str]:
    return [fields["C"] for fields in errors(frames)]


def rows(frames: Iterable[Frame]) -> list[list[str | None]]:
    return [[None if v is None else v.decode() for v in row_values(f.body)] for f in frames if f.kind == "D"]


class ServerError(Exception):
    """An ErrorResponse where the caller wanted none."""

    def __init__(self, fields: dict[str, str], frames: Sequence[Frame] = ()) -> None:
        super().__init__(f"{fields.get('V')} {fields.get('C')}: {fields.get('M')}")
        self.fields = fields
        self.sqlstate = fields.get("C", "")
        self.message = fields.get("M", "")
        self.frames = list(frames)


class Closed(Exception):
    """The peer closed the connection where a frame was awaited."""

    def __init__(self, frames: Sequence[Frame] = ()) -> None:
        super().__init__(f"connection closed after frames {kinds(frames)!r}: {errors(frames)}")
        self.frames = list(frames)


class TimedOut(AssertionError):
    """No frame came in time."""


# --- the client -------------------------------------------------------------------------------------


class RawClient:
    """One connection. `log_in` may be left out to misbehave before the login."""

    def __init__(
        self,
        port: int,
        host: str = "127.0.0.1",
        *,
        unix_socket: str = "",
        timeout: float = TIMEOUT,
        receive_buffer: int = 0,
        source: str = "",
    ) -> None:
        self.timeout = timeout
        self.parameters: dict[str, str] = {}
        self.pid = 0
        self.key = b""
        self.welcome: list[Frame] = []
        self.status = ""
        self._buffer = bytearray()
        self._eof = False
        if unix_socket:
            self.sock: socket.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(timeout)
            self.sock.connect(unix_socket)
        else:
            self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            if receive_buffer:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self.sock.settimeout(timeout)
            try:
                if source:
                    self.sock.bind((source, 0))
                self.sock.connect((host, port))
                if self.sock.getsockname() == self.sock.getpeername():  # nobody listens there but ourselves
                    raise ConnectionRefusedError
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                self.sock.close()
                raise

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- sending and reading ------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Sends all of `data`, and meanwhile keeps what comes: both sides may have more than buffers hold."""
        if isinstance(self.sock, ssl.SSLSocket):
            self.sock.sendall(data)
            return
        view = memoryview(data)
        deadline = time.monotonic() + self.timeout
        self.sock.setblocking(False)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self.sock, selectors.EVENT_READ | selectors.EVENT_WRITE)
                while view:
                    for _key, events in selector.select(max(0.0, deadline - time.monotonic())):
                        if events & selectors.EVENT_WRITE:
                            with contextlib.suppress(BlockingIOError):
                                view = view[self.sock.send(view) :]
                        if events & selectors.EVENT_READ and not self._eof:
                            self._receive()
                            if self._eof:
                                selector.modify(self.sock, selectors.EVENT_WRITE)
                    if time.monotonic() > deadline:
                        raise TimedOut(f"{len(view)} bytes could not be sent within {self.timeout} s")
        finally:
            self.sock.settimeout(self.timeout)

    def send_in_pieces(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            self.send(piece)

    def _receive(self) -> None:
        try:
            data = self.sock.recv(262_144)
        except BlockingIOError:
            return
        except (ConnectionResetError, ssl.SSLEOFError):
            data = b""
        if data:
            self._buffer += data
        else:
            self._eof = True

    def read_exactly(self, count: int) -> bytes:
        """Raises Closed when the peer closes first."""
        while len(self._buffer) < count:
            if self._eof:
                raise Closed()
            try:
                self._receive()
            except TimeoutError:
                raise TimedOut(
                    f"no answer within {self.timeout} s; unread: {bytes(self._buffer)!r}"
                ) from None
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def read(self) -> Frame:
        header = self.read_exactly(5)
        (length,) = struct.unpack("!I", header[1:])
        found = Frame(chr(header[0]), self.read_exactly(length - 4))
        if found.kind == "Z":
            self.status = found.body.decode()
        elif found.kind == "S":
            name, value = found.body.split(b"\0")[:2]
            self.parameters[name.decode()] = value.decode("utf-8", "replace")
        return found

    def read_until(self, kind: str, count: int = 1) -> list[Frame]:
        """Frames up to the `count`th whose kind is one of `kind`."""
        found: list[Frame] = []
        while count:
            try:
                found.append(self.read())
            except Closed:
                raise Closed(found) from None
            except TimedOut as error:
                raise TimedOut(f"{error}; frames so far: {kinds(found)} {errors(found)}") from None
            if found[-1].kind in kind:
                count -= 1
        return found

    def read_ready(self, count: int = 1) -> list[Frame]:
        return self.read_until("Z", count)

    def read_to_eof(self) -> list[Frame]:
        found: list[Frame] = []
        while True:
            try:
                found.append(self.read())
            except Closed:
                if self._buffer:
                    raise AssertionError(f"closed within a frame: {bytes(self._buffer)!r}") from None
                return found

    def nothing_to_read(self, seconds: float = 0.2) -> bool:
        """True if nothing comes for so long; what comes stays unread."""
        if self._buffer or self._eof:
            return False
        self.sock.settimeout(seconds)
        try:
            self._receive()
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(self.timeout)
        return not self._buffer and not self._eof

    def ask(self, data: bytes, ready: int = 1) -> list[Frame]:
        self.send(data)
        return self.read_ready(ready)

    def query(self, text: str) -> list[Frame]:
        """A simple query and all that it answers, errors included."""
        return self.ask(query(text))

    def rows(self, text: str) -> list[list[str | None]]:
        """The rows of a simple query. Raises ServerError."""
        return rows(self.checked(self.query(text)))

    def value(self, text: str) -> str | None:
        return self.rows(text)[0][0]

    def prepared(self, text: str, values: Sequence[str | None] = ()) -> list[list[str | None]]:
        """The rows of one extended query with its Sync. Raises ServerError."""
        return rows(self.checked(self.ask(ask(text, values) + SYNC)))

    @staticmethod
    def checked(frames: list[Frame]) -> list[Frame]:
        for found in frames:
            if found.kind == "E":
                raise ServerError(error_fields(found.body), frames)
        return frames

    # --- login --------------------------------------------------------------------------------------

    def start_tls(
        self, context: ssl.SSLContext, server_name: str | None = None, *, direct: bool = False
    ) -> None:
        if not direct:
            self.sock.sendall(SSL_REQUEST)
            answer = self.read_exactly(1)
            if answer != b"S":
                raise AssertionError(f"TLS refused with {answer!r}")
        self.sock = context.wrap_socket(self.sock, server_hostname=server_name)
        self.sock.settimeout(self.timeout)

    def log_in(
        self,
        user: str,
        database: str = "",
        password: str = "",
        *,
        parameters: Mapping[str, str] | None = None,
        protocol: int = V3_0,
    ) -> RawClient:
        """Raises ServerError with the server's refusal."""
        said: dict[str, str | bytes] = {"user": user}
        if database:
            said["database"] = database
        said |= parameters or {}
        self.send(startup(said, protocol))
        return self.authenticate(user, password)

    def authenticate(self, user: str, password: str) -> RawClient:
        scram: Scram | None = None
        while True:
            found = self.read()
            self.welcome.append(found)
            if found.kind == "R":
                (code,) = struct.unpack_from("!I", found.body)
                data = found.body[4:]
                if code == 3:
                    self.send(frame("p", _z(password)))
                elif code == 5:
                    inner = hashlib.md5((password + user).encode()).hexdigest().encode()
                    self.send(frame("p", b"md5" + hashlib.md5(inner + data).hexdigest().encode() + b"\0"))
                elif code == 10:
                    scram = Scram(password)
                    first = scram.first()
                    self.send(frame("p", b"SCRAM-SHA-256\0" + struct.pack("!I", len(first)) + first))
                elif code == 11 and scram is not None:
                    self.send(frame("p", scram.final(data)))
                elif code == 12 and scram is not None:
                    scram.verify(data)
                elif code:
                    raise AssertionError(f"unknown authentication request {code}")
            elif found.kind == "E":
                raise ServerError(error_fields(found.body), self.welcome)
            elif found.kind == "K":
                self.pid, self.key = struct.unpack_from("!i", found.body)[0], found.body[4:]
            elif found.kind == "Z":
                return self

    # --- the end ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Says goodbye if it can."""
        try:
            if not self._eof:
                self.sock.settimeout(1.0)
                self.sock.sendall(TERMINATE)
        except OSError:
            pass
        self.sock.close()

    def hang_up(self) -> None:
        """Closes without a word."""
        self.sock.close()

    def reset(self) -> None:
        """Closes with a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Scram:
    """The client's side of SCRAM-SHA-256 without channel binding."""

    def __init__(self, password: str) -> None:
        self._password = password.encode()
        self._bare = "n=,r=" + base64.b64encode(secrets.token_bytes(18)).decode()
        self._server_signature = b""

    def first(self) -> bytes:
        return ("n,," + self._bare).encode()

    def final(self, server_first: bytes) -> bytes:
        said = dict(part.split("=", 1) for part in server_first.decode().split(","))
        salted = hashlib.pbkdf2_hmac("sha256", self._password, base64.b64decode(said["s"]), int(said["i"]))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        bare = "c=biws,r=" + said["r"]
        message = ",".join((self._bare, server_first.decode(), bare)).encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self._server_signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
        return (bare + ",p=" + base64.b64encode(proof).decode()).encode()

    def verify(self, server_final: bytes) -> None:
        if server_final != b"v=" + base64.b64encode(self._server_signature):
            raise AssertionError("the server did not prove that it knows the password")


def send_cancel(port: int, pid: int, key: bytes, host: str = "127.0.0.1") -> None:
    """A CancelRequest on a connection of its own; returns when the peer has closed it."""
    with socket.create_connection((host, port), TIMEOUT) as sock:
        sock.sendall(cancel_request(pid, key))
        while sock.recv(64):
            pass
