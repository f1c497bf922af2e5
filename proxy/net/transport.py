"""A plain socket as asyncio's Transport, made for passing bytes on at once.

uvloop's own transport keeps what it is given until the end of the loop's turn and reads through several
layers; here a readable socket costs one `read`, what is written goes out in the same call, and only what the
kernel does not take is kept. Kept bytes go out when the socket is writable; above `HIGH` of them the protocol
is told to pause, below `LOW` to resume. `secure.py` puts TLS over it, by what it takes and what it writes.

It is told only once that something has come (see `readiness.py`): what has not been read by then is noted in
`_unread`, and asked about again when it may be read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from typing import Any, Protocol

from proxy.net.readiness import END, OUT, Readiness, Watched, readiness
from proxy.net.sockets import READ_SIZE, hang_up, receive, send

HIGH = 65_536
LOW = 16_384
OPEN, CLOSING, CLOSED = 0, 1, 2
LINGER = 10.0  # seconds that a peer has to take what is kept for it when we close


class Wire(Protocol):
    """What the lives of a socket have in common; asyncio.Protocol is one."""

    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> bool | None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class Receiver:
    """A `Wire` whose `data_received` is a direct call where this is compiled."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        raise NotImplementedError


class Transport(Protocol):
    """What is asked of a transport, this one or uvloop's."""

    def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def is_closing(self) -> bool: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def set_protocol(self, protocol: Any) -> None: ...
    def get_extra_info(self, name: str, default: Any = None) -> Any: ...
    def get_write_buffer_size(self) -> int: ...


class SocketTransport(Watched):
    """Owns the descriptor of a non-blocking stream socket. `protocol.connection_lost` is called exactly once, and within
    nothing that the protocol or its peer does.

    Unless it is `watched` from the beginning, `look` is to be called.
    """

    __slots__ = (
        "_backlog", "_ended", "_fd", "_hurried", "_kept", "_loop", "_paused", "_protocol", "_readiness", "_reading",
        "_receiver", "_state", "_unread", "_writing",
    )  # fmt: skip

    def __init__(
        self, loop: asyncio.AbstractEventLoop, fd: int, protocol: Wire, watched: bool = True
    ) -> None:
        self._loop = loop
        self._fd = fd  # a socket object for each idle client would only take room
        self._receiver: Receiver | None = None
        self.set_protocol(protocol)
        self._backlog: deque[bytes] | None = None  # an idle client needs none
        self._kept = 0  # bytes in the backlog
        self._state = _OPEN
        self._paused = False  # the protocol has been told to
        self._writing = False  # somebody waits for the socket to become writable
        self._reading = True
        self._ended = False  # reads come to an end
        self._unread = False  # more may be there, of which nothing will tell
        self._hurried = False  # it is told before others
        self._readiness: Readiness | None = None  # while it watches
        if watched:
            self._watch()

    def _watch(self) -> None:
        """Of what is there now as well."""
        try:
            if self._readiness is not None:
                self._readiness.again(self._fd, self._writing, self._hurried)
            else:
                watch = readiness(self._loop)
                watch.add(self._fd, self, self._writing)
                self._readiness = watch
        except OSError as error:
            self._lose(error)

    def hurry(self, hurried: bool) -> None:
        """What comes is to be read before what comes to others, or not any more."""
        if self._readiness is None or hurried == self._hurried:
            return
        self._hurried = hurried
        try:
            self._readiness.hurry(self._fd, self._writing, hurried)
        except OSError as error:
            self._lose(error)

    def ready(self, events: int) -> None:
        if events & _END:
            self._ended = True
        if self._reading:
            self._read()
        else:
            self._unread = True
        if self._writing and events & (_OUT | _END):
            self._writable()

    # --- reading ------------------------------------------------------------------------------------

    def _read(self) -> None:
        received = False
        try:
            data = receive(self._fd)
            if data is None:
                self._unread = False
                return
            received = True
            self._unread = self._ended or len(data) == _READ_SIZE
            if data:
                self._take(data)
            else:
                self._finish()
        except Exception as bug:
            if not received and isinstance(bug, OSError):
                self._lose(bug)
                return
            self._loop.call_exception_handler(
                {
                    "message": "a protocol failed",
                    "exception": bug,
                    "protocol": self._protocol,
                    "transport": self,
                }
            )
            self._lose(bug)
            return
        if self._unread and self._reading:
            self._watch()

    def _take(self, data: bytes) -> None:
        receiver = self._receiver
        if receiver is not None:
            receiver.data_received(data)
        else:
            self._protocol.data_received(data)

    def _finish(self) -> None:
        """The peer says no more."""
        self._reading = False
        if not self._protocol.eof_received():
            self.close()

    def look(self) -> None:
        """Reads what has come before anybody waited for it, and then waits."""
        self._read()
        if self._readiness is None and self._state != _CLOSED:
            self._watch()

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading and self._state == _OPEN:
            self._reading = True
            if self._unread:
                self._watch()

    # --- writing ------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._state != _OPEN or not data:
            return
        if self._kept:
            self._keep(data)
            return
        try:
            sent = send(self._fd, data)
        except OSError as error:
            self._lose(error)
            return
        if sent < len(data):
            self._keep(data[sent:])

    def _keep(self, data: bytes) -> None:
        if self._backlog is None:
            self._backlog = deque()
        self._backlog.append(data)
        self._kept += len(data)
        if not self._writing:
            self._writing = True
            self._watch()
        if self._kept > HIGH and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def _writable(self) -> None:
        backlog = self._backlog
        try:
            while backlog:
                data = backlog[0]
                sent = send(self._fd, data)
                self._kept -= sent
                if sent < len(data):
                    backlog[0] = data[sent:]
                    break
                backlog.popleft()
        except OSError as error:
            self._lose(error)
            return
        if not backlog:
            self._backlog = None
            self._writing = False
            if self._state == _CLOSING:
                self._lose(None)
                return
            self._watch()
        if self._paused and self._kept <= LOW:
            self._paused = False
            self._protocol.resume_writing()

    def get_write_buffer_size(self) -> int:
        return self._kept

    # --- the end ------------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        return self._state != _OPEN

    def close(self) -> None:
        """Reads no more; closes when what is kept has been sent, or has not been taken for `LINGER`."""
        if self._state != _OPEN:
            return
        self._reading = False
        if self._kept:
            self._state = _CLOSING
            self._loop.call_later(LINGER, self.abort)
        else:
            self._lose(None)

    def abort(self) -> None:
        self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        if self._state == _CLOSED:
            return
        self._state = _CLOSED
        self._reading = self._writing = False
        self._backlog = None
        self._kept = 0
        watch, self._readiness = self._readiness, None
        if watch is not None:
            watch.part(self._fd, self, error, self._hurried)
        else:
            self._loop.call_soon(self.lost, error)

    def lost(self, error: Exception | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            hang_up(self._fd)
            # The protocol knows us: both are gone at once, and no collector has to find them.
            self.set_protocol(_NOBODY)

    # --- the rest of asyncio's face -----------------------------------------------------------------

    def set_protocol(self, protocol: Wire) -> None:
        self._protocol = protocol
        # Looked at here, since a look at each read goes through all that a session's class inherits.
        self._receiver = protocol if isinstance(protocol, Receiver) else None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`sockname` and `peername`, as asyncio's."""
        if self._state != _CLOSED and name in ("sockname", "peername"):
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._fd)) as sock:
                return sock.getsockname() if name == "sockname" else sock.getpeername()
        return default


_NOBODY: Any = None
_OPEN, _CLOSING, _CLOSED = OPEN, CLOSING, CLOSED  # C integers where this is compiled
_END, _OUT, _READ_SIZE = END, OUT, READ_SIZE


def hurry(transport: Transport, hurried: bool) -> None:
    """What comes to it is to be read before what comes to others, or not any more."""
    if isinstance(transport, SocketTransport):
        ours = transport
        ours.hurry(hurried)


def deliver(transport: Transport, data: bytes) -> None:
    """`transport.write(data)`, which is a direct call where this is compiled and the transport is ours."""
    if isinstance(transport, SocketTransport):
        ours = transport
        ours.write(data)
    else:
        transport.write(data)
