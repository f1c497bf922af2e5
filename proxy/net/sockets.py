"""One receive and one send on a non-blocking socket, without a Python socket object in between.

`sockets.pyx` beside it is the same in C, for a compiled build.
"""

from __future__ import annotations

import os

READ_SIZE = 65_536


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
