"""Which sockets are ready: one epoll for all the plain sockets of a loop, of which the loop watches nothing but this.

A loop's own reader costs a handle for each socket, and for each event a context and a call by name. Here all that is
ready is told in one call, from C to C where this is compiled. It is edge-triggered: told once, when something comes.
So who pauses tells the kernel nothing, an end or an error that comes while it pauses wakes nobody again and again, and
whoever leaves something unread, or was told while it paused, asks to be told `again`.

Where much is ready, more is by the time that it has been served: so the epoll is asked again, a few times, before the
loop does anything else, which costs it a turn.

Some are in a hurry: the sockets of who is guaranteed connections. Where a crowd is ready at once, one of these would be
the last of all to be told. So they have an epoll of their own, and a few of either are told in turn: whoever is in a
hurry waits for that few and its own kind, and neither can keep the other from its turn. While nobody is in a hurry there is
one epoll, and nothing more is done.

Whoever is done with its descriptor parts: it hears of its loss when all that was told at once has been served, which
takes no turn of the loop, and closes the descriptor then, which ends the kernel's watch.

A `Readiness` exists while something is watched. `readiness.pyx` beside it is the same in C; there, on a `Loop`, nothing else
is waited for either: what the loop watches is told of by the same epoll.
"""

from __future__ import annotations

import asyncio
import contextlib
import select

import uvloop

IN = select.EPOLLIN
OUT = select.EPOLLOUT
END = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR  # read on: the last read says which
_ALWAYS = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
_MOST = 64  # are told at once
_FEW = 2  # while others are in a hurry, or are not
_TURN = 8 * _MOST  # before the loop does anything else
_MUCH = 2  # is ready: one alone is told of by the loop as fast


class Loop(uvloop.Loop):
    """What a process runs on."""


class Watched:
    """Whoever is to be told."""

    __slots__ = ()

    def ready(self, events: int) -> None:
        raise NotImplementedError

    def lost(self, error: Exception | None) -> None:
        """It has parted: it closes its descriptor."""
        raise NotImplementedError


class Readiness:
    __slots__ = ("_count", "_epoll", "_hurried", "_hurry", "_loop", "_parted", "_telling", "_watched")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watched: list[Watched | None] = []  # by descriptor, which takes less room than a dict
        self._count = 0
        self._hurried = 0  # of these
        self._parted: list[tuple[Watched, Exception | None]] = []  # and not yet heard of it
        self._telling = False
        self._epoll = select.epoll()
        self._hurry: select.epoll | None = None  # the epoll of those, once there was one
        loop.add_reader(self._epoll.fileno(), self)

    def __call__(self) -> None:
        left = _TURN
        while left > 0:
            self._telling = True
            if self._hurry is not None and self._hurried:
                count = self._tell(self._hurry, _FEW) + self._tell(self._epoll, _FEW)
            else:
                count = self._tell(self._epoll, _MOST)
            if self._parted:
                self._tell_parted()
            self._telling = False
            if count < _MUCH:
                return
            left -= count

    def _tell(self, epoll: select.epoll, most: int) -> int:
        if epoll.closed:
            return 0
        told = epoll.poll(0, most)
        for fd, events in told:
            watched = self._watched[fd]
            if watched is not None:  # or another has just closed it
                try:
                    watched.ready(events)
                except Exception as bug:  # the others are told only once, too
                    self._failed(bug)
        return len(told)

    def _tell_parted(self) -> None:
        for watched, error in self._parted:  # and those who part meanwhile
            try:
                watched.lost(error)
            except Exception as bug:
                self._failed(bug)
        self._parted.clear()

    def _failed(self, bug: Exception) -> None:
        self._loop.call_exception_handler({"message": "a socket's turn failed", "exception": bug})

    def add(self, fd: int, watched: Watched, writing: bool) -> None:
        """It is told when there is something to read; with `writing`, also when it can write. Raises OSError."""
        if fd >= len(self._watched):
            self._watched.extend([None] * (fd + 1 - len(self._watched)))
        self._count += 1
        self._watched[fd] = watched
        try:
            self._epoll.register(fd, _ALWAYS | OUT if writing else _ALWAYS)
        except OSError:
            self._forget(fd)
            raise

    def again(self, fd: int, writing: bool, hurried: bool) -> None:
        """Tells what there is now, if anything, and then what comes."""
        self._of(hurried).modify(fd, _ALWAYS | OUT if writing else _ALWAYS)

    def hurry(self, fd: int, writing: bool, hurried: bool) -> None:
        """From now on it is in a hurry, or is not any more. What there is now is told again. Raises OSError."""
        to = self._of(hurried)
        self._of(not hurried).unregister(fd)
        self._hurried += 1 if hurried else -1
        to.register(fd, _ALWAYS | OUT if writing else _ALWAYS)

    def part(self, fd: int, watched: Watched, error: Exception | None, hurried: bool) -> None:
        """Tells nothing of it any more, but in a moment that it is `lost`. No other process has that descriptor."""
        if not (self._telling or self._parted):
            self._loop.call_soon(self._tell_parted)
        self._parted.append((watched, error))
        self._hurried -= hurried
        self._forget(fd)

    def remove(self, fd: int, hurried: bool) -> None:
        """Before it is closed: a descriptor that another process has as well would be watched on."""
        with contextlib.suppress(OSError):
            self._of(hurried).unregister(fd)
        self._hurried -= hurried
        self._forget(fd)

    def _of(self, hurried: bool) -> select.epoll:
        if not hurried:
            return self._epoll
        if self._hurry is None:
            self._hurry = select.epoll()
            self._loop.add_reader(self._hurry.fileno(), self)
        return self._hurry

    def _forget(self, fd: int) -> None:
        self._watched[fd] = None
        self._count -= 1
        if not self._count:
            del _all[self._loop]
            for epoll in (self._epoll, self._hurry):
                if epoll is not None:
                    self._loop.remove_reader(epoll.fileno())
                    epoll.close()


_all: dict[asyncio.AbstractEventLoop, Readiness] = {}


def readiness(loop: asyncio.AbstractEventLoop) -> Readiness:
    found = _all.get(loop)
    if found is None:
        found = _all[loop] = Readiness(loop)
    return found
