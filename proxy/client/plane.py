"""What all sessions of a process share: the registry, the accounts, the pools, and each other."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from os import urandom
from time import monotonic, time
from typing import Any, Protocol

from proxy.admission.accounts import Accounts, Counter, Lender
from proxy.admission.gate import Gates, Timer
from proxy.admission.slices import Slices
from proxy.model import ClientOptions, PoolKey
from proxy.registry.memory import OLD, Registry
from proxy.server.pools import Pools
from proxy.sql.constants import guc
from proxy.sql.opening import Openings
from proxy.sql.policy import Answers
from proxy.sql.verdict import Judge
from proxy.stats import ProcessStats
from proxy.wire.pieces import piece
from proxy.wire.startup import CancelRequest
from proxy.wire.way import LONG, RANDOM_BITS, SHORT, Way, word

_TRIES = 20
_AT_ONCE = 4_096  # random bytes that are asked for at once
_RANDOM = (1 << RANDOM_BITS) - 1


def _later(seconds: float, callback: Callable[[], None]) -> Timer:
    return asyncio.get_running_loop().call_later(seconds, callback)


class Member(Protocol):
    """A session or a relay as one who cancels sees it."""

    pid: int
    key: bytes

    def cancel(self) -> asyncio.Task[None] | None:
        """What is to be waited for until nothing can be struck any more, if anything."""


class Plane:
    __slots__ = (
        "_drawn", "_keys", "_openings", "_openings_of", "_random", "_way", "_way_of", "accounts", "answers",
        "clients", "draining", "judge", "keeping_sequences", "later", "logging_in", "number", "options", "placed_in",
        "places", "pools", "process", "registry", "relays", "sessions",
    )  # fmt: skip

    def __init__(
        self,
        options: ClientOptions,
        registry: Registry,
        pools: Pools,
        process: ProcessStats,
        judge: Judge,
        lender: Lender | None = None,
        number: int = 1,
        slices: Slices | None = None,
    ) -> None:
        self.number = number  # of this worker
        self.options = options
        self.registry = registry
        self.pools = pools
        self.process = process
        self.judge = judge
        self.answers = Answers()
        self.accounts = Accounts(registry, lender, Gates(time() - monotonic(), slices))
        self.clients = Counter("max_client_conn", options.max_client_conn, lender=lender)
        self.sessions: set[Any] = set()  # of Session, which knows this class
        self.relays: set[Any] = set()  # of Relay, likewise
        self.keeping_sequences: set[PoolKey] = set()  # whose sessions keep what they draw from sequences
        # Where sessions that change tenants have found their place (see placing.py), and in which epoch.
        self.places: dict[Any, Any] = {}
        self.placed_in = OLD
        self.draining = False
        self.later: Callable[[float, Callable[[], None]], Timer] = _later
        self.logging_in: Callable[[], int] = lambda: 0  # how many clients that are not sessions yet
        # Those who have that process id: nearly always one, and then no tuple.
        self._keys: dict[int, Member | tuple[Member, ...]] = {}
        self._way_of: ClientOptions | None = None  # whose way is kept
        self._way = 0  # as a word without its random bits
        self._random = b""
        self._drawn = 0  # so many of these are somebody's
        self._openings = Openings(options.tenant_guc)
        self._openings_of = options

    @property
    def openings(self) -> Openings:
        """What texts open transactions or name the tenant."""
        if self._openings_of is not self.options:
            self._openings_of = self.options
            if self._openings.guc != guc(self.options.tenant_guc):
                self._openings = Openings(self.options.tenant_guc)
        return self._openings

    @property
    def way(self) -> Way:
        return Way.to(self.options.peer_id, self.number)

    def new_key(self, minor: int, pid: int = 0) -> tuple[int, bytes]:
        """A process id, ours unless it is a server's, and a cancel secret: four bytes as protocol 3.0 wants it, 32
        from 3.2 on (which begin with the way)."""
        random = self._draw(LONG if minor >= 2 else 2 + SHORT)
        if not pid:
            pid = self._word(random)
            if pid in self._keys:
                pid = self._another()
        if minor < 2:
            return pid, piece(random, 2, 2 + SHORT)
        return pid, self._word(self._draw(2)).to_bytes(4, "big") + random[4:]

    def _another(self) -> int:
        """One that is nobody's, or if there is none, another's: the secret tells them apart."""
        for _ in range(_TRIES):
            pid = self._word(self._draw(2))
            if pid not in self._keys:
                break
        return pid

    def _draw(self, count: int) -> bytes:
        """Random bytes that nobody else is given."""
        at = self._drawn
        if at + count > len(self._random):
            self._random, at = urandom(_AT_ONCE), 0
        self._drawn = at + count
        return piece(self._random, at, at + count)

    def _word(self, random: bytes) -> int:
        if self._way_of is not self.options:
            self._way_of, self._way = self.options, word(self.way, 0)
        return self._way | ((random[0] << 8 | random[1]) & _RANDOM)

    def enter(self, session: Member) -> None:
        self.sessions.add(session)
        self._know(session)

    def enter_relay(self, relay: Member) -> None:
        self.relays.add(relay)
        self._know(relay)

    def _know(self, member: Member) -> None:
        pid = member.pid
        self._keys[pid] = (*self._known(pid), member) if pid in self._keys else member

    def _known(self, pid: int) -> tuple[Member, ...]:
        known = self._keys.get(pid)
        if known is None:
            return ()
        return known if isinstance(known, tuple) else (known,)

    def leave(self, member: Member) -> None:
        self.sessions.discard(member)
        self.relays.discard(member)
        pid = member.pid
        if self._keys.get(pid) is member:
            del self._keys[pid]
            return
        others = tuple([other for other in self._known(pid) if other is not member])
        if others:
            self._keys[pid] = others
        else:
            self._keys.pop(pid, None)

    def cancel(self, request: CancelRequest) -> list[asyncio.Task[None]] | None:
        """Cancels what the one with that key does; what is under way to servers, or None if it is not one of this
        process."""
        under_way = None
        for member in self._known(request.pid):
            if hmac.compare_digest(member.key, request.key):
                sent = member.cancel()
                under_way = [*(under_way or ()), *((sent,) if sent is not None else ())]
        return under_way
