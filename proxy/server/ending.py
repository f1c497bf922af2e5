"""The last words of a backend: who hears them, and that nobody gets its connection after that.

A FATAL error may come when nothing is owed: the backend was terminated while it was idle. Behind the last reply of a
transaction it is no reply to that, which was told to be done; and its hanging up may come later, when the connection
would long be another's, to whom nothing would be said.
"""

from __future__ import annotations

from typing import Any, Protocol

from proxy.errors import ServerLost, ServerProtocolError, ServerRefused, TiergateError
from proxy.protocol.lifecycle import ServerState, Stage
from proxy.protocol.pipeline import DROP, FORWARD
from proxy.server.link import Link
from proxy.wire import decode

_NO_MORE = -1  # of no generation that a pool has


class Server(Protocol):
    """A ServerConnection."""

    generation: int
    link: Link | None
    state: Stage
    owner: Any


def closed(address: str, why: Exception | None) -> ServerLost:
    return ServerLost("server closed the connection unexpectedly", internal=f"{address}: {why}")


def nonsense(address: str, error: TiergateError) -> ServerProtocolError:
    what = error.internal or error.message
    return ServerProtocolError(
        "the server sent something that is not the protocol", internal=f"{address}: {what}"
    )


def fatal(error: bytes) -> bool:
    """Of an ErrorResponse, or of none."""
    return b"\0VFATAL\0" in error[:64]


def unasked(server: Server, before: bytes) -> int:
    """What becomes of a FATAL error when nothing is owed; `before` is what has come ahead of it."""
    server.generation = _NO_MORE
    link = server.link
    if link is None:
        if server.state is ServerState.IDLE:
            server.owner.close_idle(server)
        return DROP
    if before:
        link.replies(before)
    if server.link is link:
        link.server_ready()  # who is done with it leaves
    return FORWARD if server.link is link else DROP


def last_words(lost: TiergateError, error: bytes, untold: bytes) -> tuple[TiergateError, bytes]:
    """What a session is told of the end: why, and the FATAL error that it has passed on. `error` is the last one that the
    server has sent, `untold` the last one that was not passed on."""
    if not fatal(error):
        return lost, b""
    if error is not untold:
        return lost, error
    fields = decode.error_fields(error[5:])
    return ServerRefused(fields.get("M", ""), fields.get("C", ""), error), b""
