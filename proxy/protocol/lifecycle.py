"""The lives of a session and of a server connection as tables; what is not in a table is an error."""

from __future__ import annotations

from enum import StrEnum


class ServerState(StrEnum):
    LOGIN = "login"
    IDLE = "idle"
    ACTIVE = "active"
    RESETTING = "resetting"  # being cleaned, or waiting for a cancel to be over
    GONE = "gone"


class SessionState(StrEnum):
    LOGIN = "login"
    IDLE = "idle"
    WAITING = "waiting"
    LINKED = "linked"
    PINNED = "pinned"
    CLOSED = "closed"


SERVER: dict[ServerState, dict[str, ServerState]] = {
    ServerState.LOGIN: {"ready": ServerState.IDLE, "lost": ServerState.GONE},
    ServerState.IDLE: {
        "checkout": ServerState.ACTIVE,
        "check": ServerState.RESETTING,
        "lost": ServerState.GONE,
    },
    ServerState.ACTIVE: {
        "checkin": ServerState.IDLE,
        "clean": ServerState.RESETTING,
        "lost": ServerState.GONE,
    },
    ServerState.RESETTING: {
        "cleaned": ServerState.IDLE,
        "clean": ServerState.RESETTING,
        "lost": ServerState.GONE,
    },
    ServerState.GONE: {},
}

SESSION: dict[SessionState, dict[str, SessionState]] = {
    SessionState.LOGIN: {
        "welcomed": SessionState.IDLE,
        "link": SessionState.LINKED,
        "close": SessionState.CLOSED,
    },
    SessionState.IDLE: {
        "link": SessionState.LINKED,
        "wait": SessionState.WAITING,
        "close": SessionState.CLOSED,
    },
    SessionState.WAITING: {
        "link": SessionState.LINKED,
        "admit": SessionState.IDLE,  # within its rate: it goes for a connection
        "refuse": SessionState.IDLE,
        "close": SessionState.CLOSED,
    },
    SessionState.LINKED: {
        "pin": SessionState.PINNED,
        "unlink": SessionState.IDLE,
        "close": SessionState.CLOSED,
    },
    SessionState.PINNED: {
        "pin": SessionState.PINNED,
        "unpin": SessionState.LINKED,
        "unlink": SessionState.IDLE,
        "close": SessionState.CLOSED,
    },
    SessionState.CLOSED: {},
}


class LifecycleError(AssertionError):
    """A step that the table does not have: a bug, never a peer's doing."""


def server_step(state: ServerState, event: str) -> ServerState:
    events = SERVER[state]
    following = events.get(event)
    if following is None:
        raise LifecycleError(f"server connection: {event} in state {state.value}")
    return following


def session_step(state: SessionState, event: str) -> SessionState:
    events = SESSION[state]
    following = events.get(event)
    if following is None:
        raise LifecycleError(f"session: {event} in state {state.value}")
    return following
