"""The lives of a session and of a server connection as tables; what is not in a table is an error."""

from __future__ import annotations


class Stage:
    """One state. What follows it stands beside it as well as in the table. Its next event most often is what its `last` was,
    and leads to `after`: whoever steps looks there first."""

    __slots__ = ("after", "following", "last", "value")

    def __init__(self, value: str) -> None:
        self.value = value
        self.following: dict[str, Stage] = {}
        self.last = ""
        self.after = self

    def __repr__(self) -> str:
        return self.value


class ServerState:
    LOGIN = Stage("login")
    IDLE = Stage("idle")
    ACTIVE = Stage("active")
    RESETTING = Stage("resetting")  # being cleaned, or waiting for a cancel to be over
    GONE = Stage("gone")


class SessionState:
    LOGIN = Stage("login")
    IDLE = Stage("idle")
    WAITING = Stage("waiting")
    LINKED = Stage("linked")
    PINNED = Stage("pinned")
    CLOSED = Stage("closed")


SERVER: dict[Stage, dict[str, Stage]] = {
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

SESSION: dict[Stage, dict[str, Stage]] = {
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


for _table in (SERVER, SESSION):
    for _stage, _events in _table.items():
        _stage.following = _events


class LifecycleError(AssertionError):
    """A step that the table does not have: a bug, never a peer's doing."""


def step(what: str, stage: Stage, event: str) -> Stage:
    following = stage.following.get(event)
    if following is None:
        raise LifecycleError(f"{what}: {event} in state {stage.value}")
    stage.last, stage.after = event, following
    return following
