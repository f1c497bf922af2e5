"""Accept, receive and send on non-blocking sockets, without a Python socket object in between.

`sockets.pyx` beside it is the same in C, for a compiled build.
"""

from __future__ import annotations

import os
import socket

READ_SIZE = 65_536


def accept(listening: socket.socket) -> tuple[int, str, int] | None:
    """A client's descriptor, which does not block, and its host and port ("" and 0 where it is local); None if nobody
    waits. Raises OSError."""
    try:
        sock, address = listening.accept()
    except (BlockingIOError, InterruptedError, ConnectionAbortedError):
        return None
    sock.setblocking(False)
    if sock.family == socket.AF_UNIX:
        return sock.detach(), "", 0
    return sock.detach(), address[0], address[1]


def receive(fd: int) -> bytes | None:
    """What there is, at most READ_SIZE bytes; b"" at the end of the stream, None if there is nothing now.

    Raises OSError where the socket has failed.
    """
    try:
        return os.read(fd, READ_SIZE)
    except (BlockingIOError, InterruptedError):
        return None


def send(fd: int, data: bytes) -> int:
    """How many bytes the kernel took, 0 if it takes none now. Raises OSError where the socket has failed."""
    try:
        return os.write(fd, data)
    except (BlockingIOError, InterruptedError):
        return 0


def hang_up(fd: int) -> None:
    """Raises OSError where it is none that is open."""
    os.close(fd)
