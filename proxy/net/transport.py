"""A plain socket as asyncio's Transport, made for passing bytes on at once.

uvloop's own transport keeps what it is given until the end of the loop's turn and reads through several
layers; here a readable socket costs one `read`, what is written goes out in the same call, and only what the
kernel does not take is kept. Kept bytes go out when the socket is writable; above `HIGH` of them the protocol
is told to pause, below `LOW` to resume. TLS stays on uvloop's transport, which has the same face.

When a socket has an error (a reset), libuv calls its reader once more and then watches it no longer. If that
call still found data, the error would never be read: so a lookout asks the kernel once in a while which
sockets have one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
from collections import deque
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from proxy.net.sockets import receive, send

HIGH = 65_536
LOW = 16_384
LOOKOUT = 1.0  # seconds
LINGER = 10.0  # seconds that a peer has to take what is kept for it when we close


class Wire(Protocol):
    """What the lives of a socket have in common; asyncio.Protocol is one."""

    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> bool | None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


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


class _Lookout:
    """Looks after the transports of one loop as long as there are any."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._transports: list[
            SocketTransport | None
        ] = []  # by descriptor, which takes less room than a dict
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, fd: int, transport: SocketTransport) -> None:
        transports = self._transports
        if fd >= len(transports):
            transports.extend([None] * (fd + 1 - len(transports)))
        transports[fd] = transport
        self._count += 1
        if self._timer is None:
            self._timer = self.loop.call_later(LOOKOUT, self._look)

    def remove(self, fd: int) -> None:
        self._transports[fd] = None
        self._count -= 1
        if not self._count and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = self.loop.call_later(LOOKOUT, self._look)
        poll = select.poll()  # made anew: kept, it would cost every idle socket more than this look does
        for fd, transport in enumerate(self._transports):
            if transport is not None:
                poll.register(fd, 0)
        for fd, _ in poll.poll(0):
            transport = self._transports[fd]
            if transport is not None:
                transport.look()


_lookouts: WeakKeyDictionary[asyncio.AbstractEventLoop, _Lookout] = WeakKeyDictionary()
_latest: list[_Lookout] = []  # the one that is asked for nearly always; it holds its loop


def _lookout(loop: asyncio.AbstractEventLoop) -> _Lookout:
    if _latest and _latest[0].loop is loop:
        return _latest[0]
    found = _lookouts.get(loop)
    if found is None:
        found = _lookouts[loop] = _Lookout(loop)
    _latest[:] = [found]
    return found


class SocketTransport:
    """Owns the descriptor of a non-blocking stream socket. `protocol.connection_lost` is called exactly once, in a
    later turn."""

    __slots__ = (
        "_backlog", "_fd", "_kept", "_lookout", "_loop", "_paused", "_protocol", "_reading", "_state", "_writing",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, protocol: Wire) -> None:
        self._loop = loop
        self._fd = fd  # a socket object for each idle client would only take room
        self._protocol = protocol
        self._backlog: deque[bytes] | None = None  # an idle client needs none
        self._kept = 0  # bytes in the backlog
        self._state = _OPEN
        self._paused = False  # the protocol has been told to
        self._writing = False  # somebody waits for the socket to become writable
        self._reading = True
        self._lookout = _lookout(loop)
        self._lookout.add(fd, self)
        loop.add_reader(self._fd, self)

    def __call__(self) -> None:
        """The socket is readable: of a method a loop would keep an object for each socket."""
        self._readable()

    # --- reading ------------------------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            data = receive(self._fd)
        except OSError as error:
            self._lose(error)
            return
        if data is None:
            return
        try:
            if data:
                self._protocol.data_received(data)
                return
            self._stop_reading()
            if not self._protocol.eof_received():
                self.close()
        except Exception as bug:
            self._loop.call_exception_handler(
                {
                    "message": "a protocol failed",
                    "exception": bug,
                    "protocol": self._protocol,
                    "transport": self,
                }
            )
            self._lose(bug)

    def look(self) -> None:
        """Reads what there is, unasked: it may have come before anybody waited for it, and an error is told by a read."""
        if self._reading:
            self._readable()

    def pause_reading(self) -> None:
        self._stop_reading()

    def resume_reading(self) -> None:
        if not self._reading and self._state == _OPEN:
            self._reading = True
            self._loop.add_reader(self._fd, self)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

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
            self._loop.add_writer(self._fd, self._writable)
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
            self._stop_writing()
            if self._state == _CLOSING:
                self._lose(None)
                return
        if self._paused and self._kept <= LOW:
            self._paused = False
            self._protocol.resume_writing()

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._fd)

    def get_write_buffer_size(self) -> int:
        return self._kept

    # --- the end ------------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        return self._state != _OPEN

    def close(self) -> None:
        """Reads no more; closes when what is kept has been sent, or has not been taken for `LINGER`."""
        if self._state != _OPEN:
            return
        self._stop_reading()
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
        self._lookout.remove(self._fd)
        self._stop_reading()
        self._stop_writing()
        self._backlog = None
        self._kept = 0
        self._loop.call_soon(self._lost, error)

    def _lost(self, error: Exception | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            os.close(self._fd)

    # --- the rest of asyncio's face -----------------------------------------------------------------

    def set_protocol(self, protocol: Wire) -> None:
        self._protocol = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`sockname` and `peername`, as asyncio's."""
        if self._state != _CLOSED and name in ("sockname", "peername"):
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._fd)) as sock:
                return sock.getsockname() if name == "sockname" else sock.getpeername()
        return default


_OPEN, _CLOSING, _CLOSED = 0, 1, 2


def deliver(transport: Transport, data: bytes) -> None:
    """`transport.write(data)`, which is a direct call where this is compiled and the socket is plain."""
    if isinstance(transport, SocketTransport):
        plain = transport
        plain.write(data)
    else:
        transport.write(data)
