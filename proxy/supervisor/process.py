"""One worker process as the supervisor sees it: how it is started, what it is in, how it has ended."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from time import monotonic

from proxy.control.fleet import Remote
from proxy.net.channel import Channel, Handler

# Blocked until the worker has its handlers: a terminal's Ctrl-C goes to it as well.
BLOCKED_AT_START = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR2)


class State(Enum):
    STARTING = "starting"
    READY = "ready"
    RETIRING = "retiring"  # serves those that it has, after an upgrade
    ENDING = "ending"
    GONE = "gone"


_STEPS: dict[State, dict[str, State]] = {
    State.STARTING: {"ready": State.READY, "retire": State.RETIRING, "end": State.ENDING, "gone": State.GONE},
    State.READY: {"retire": State.RETIRING, "end": State.ENDING, "gone": State.GONE},
    State.RETIRING: {
        "ready": State.RETIRING,
        "retire": State.RETIRING,
        "end": State.ENDING,
        "gone": State.GONE,
    },
    State.ENDING: {"ready": State.ENDING, "retire": State.ENDING, "end": State.ENDING, "gone": State.GONE},
    State.GONE: {"ready": State.GONE, "retire": State.GONE, "end": State.GONE},  # said too late
}


class WorkerProcess:
    """`number` is never used again; the process that replaces this one in its `slot` has another."""

    def __init__(self, number: int, slot: int, pid: int, version: str, state: State = State.STARTING) -> None:
        self.number = number
        self.slot = slot
        self.pid = pid
        self.version = version
        self.state = state
        self.started_at = monotonic()
        self.asked_at: float | None = None  # for a sign of life, and it has not answered yet
        self.silent = False  # for so long that nobody waits for what it would say
        self.leaves = asyncio.Event()  # accepts no more: another one should
        self.gone = asyncio.Event()
        self.channel: Channel
        self.control: Remote

    def speak(self, handlers: Mapping[str, Handler], lost: Callable[[], None]) -> Channel:
        self.channel = Channel(handlers, lost)
        self.control = Remote(self.channel, self.version)
        return self.channel

    def step(self, event: str) -> None:
        self.state = _STEPS[self.state][event]
        if self.state in (State.ENDING, State.GONE):
            self.leaves.set()

    def has_ended(self) -> str:
        """How, or "" as long as it has not."""
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return "unknown"  # somebody else has reaped it
        return how_it_ended(status) if pid else ""

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Only while it is ours: the pid of one that is reaped may be another's."""
        if self.state is not State.GONE:
            os.kill(self.pid, number)


def program() -> list[str]:
    """How this program was started, up to its subcommand: the same interpreter, options and script."""
    given = sys.orig_argv
    at = given.index("serve") if "serve" in given else 0
    return [sys.executable, *given[1:at]] if at > 1 else [sys.executable, "-m", "proxy"]


def spawn(number: int, sockets: Sequence[socket.socket]) -> tuple[int, socket.socket]:
    """Starts a worker that has those sockets; returns its pid and our end of the channel."""
    ours, its = socket.socketpair()
    try:
        fds = [its.fileno(), *(sock.fileno() for sock in sockets)]
        command = [
            *program(), "worker", "--number", str(number), "--channel", str(fds[0]),
            "--sockets", ",".join(map(str, fds[1:])),
        ]  # fmt: skip
        for fd in fds:
            os.set_inheritable(fd, True)
        try:
            pid = os.posix_spawn(command[0], command, os.environ, setsigmask=BLOCKED_AT_START)
        finally:
            for fd in fds:
                os.set_inheritable(fd, False)
    except BaseException:
        ours.close()
        raise
    finally:
        its.close()
    return pid, ours


def how_it_ended(status: int) -> str:
    """Of a status of waitpid."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


class Backoff:
    """How long to wait before one that has ended is started again: longer each time, unless it has lived."""

    def __init__(self, first: float = 0.1, most: float = 5.0, lived_long: float = 10.0) -> None:
        self.first = first
        self._most, self._lived_long = most, lived_long
        self._next = first

    def after(self, lived: float) -> float:
        if lived >= self._lived_long:
            self._next = self.first
        pause = self._next
        self._next = min(pause * 2, self._most)
        return pause
