"""Where the connections of a pool are, in exactly one place each, and the one function that moves them."""

from __future__ import annotations

from time import monotonic

from proxy.admission.accounts import Counter
from proxy.protocol.lifecycle import ServerState
from proxy.server.connection import ServerConnection

_IDLE, _ACTIVE, _RESETTING = ServerState.IDLE, ServerState.ACTIVE, ServerState.RESETTING


class Places:
    """`idle` is a stack, most recently used last; those that are being opened are only counted. `caps` are the counters
    that they have permits of. Of `active` each knows its `place`, which the last takes when it leaves: with neither a search
    nor a hash, for it is entered and left with each transaction."""

    __slots__ = ("active", "caps", "closing", "idle", "opening", "resetting")

    def __init__(self, caps: tuple[Counter, ...]) -> None:
        self.caps = caps
        self.idle: list[ServerConnection] = []
        self.active: list[ServerConnection] = []
        self.resetting: set[ServerConnection] = set()
        self.closing: set[ServerConnection] = set()
        self.opening = 0

    @property
    def size(self) -> int:
        """Connections that count against the pool's size."""
        return self._size()

    def _size(self) -> int:
        return len(self.idle) + len(self.active) + len(self.resetting) + self.opening

    def connections(self) -> list[ServerConnection]:
        return [*self.idle, *self.active, *self.resetting, *self.closing]

    def close_idle(self, server: ServerConnection) -> None:
        self._move(server, "lost")
        server.close()

    def _move(self, server: ServerConnection, event: str) -> None:
        old = server.state
        server.step(event)
        if old is _ACTIVE:
            self._leave_active(server)
        elif old is not _IDLE:
            self.resetting.discard(server)
        elif self.idle[-1] is server:
            self.idle.pop()
        else:
            self.idle.remove(server)
        new = server.state
        if new is _IDLE:
            self.idle.append(server)
        elif new is _ACTIVE:
            server.place = len(self.active)
            self.active.append(server)
        else:
            server.idle_since = monotonic()
            if new is _RESETTING:
                self.resetting.add(server)
            else:
                self.closing.add(server)
                for counter in self.caps:
                    counter.leaving += 1

    def _leave_active(self, server: ServerConnection) -> None:
        place = server.place
        last = self.active.pop()
        if last is not server:
            self.active[place] = last
            last.place = place

    def _forget(self, server: ServerConnection) -> None:
        """It is gone."""
        if server in self.closing:
            for counter in self.caps:
                counter.leaving -= 1
        self.resetting.discard(server)
        self.closing.discard(server)
        if server.place < len(self.active) and self.active[server.place] is server:
            self._leave_active(server)
        elif server in self.idle:
            self.idle.remove(server)
