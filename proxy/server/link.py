"""What server connections and pools call upwards: who has a connection, who owns it, who waits for one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

from proxy.admission.accounts import Account, Counter, UserAccount
from proxy.errors import TiergateError
from proxy.model import Cluster, Limits, ServerOptions
from proxy.net.transport import Receiver
from proxy.protocol.state import EMPTY, State
from proxy.protocol.statements import Catalog, Schema, Statement
from proxy.server.adapting import Adapting
from proxy.server.room import Room
from proxy.stats import PoolStats

S_contra = TypeVar("S_contra", contravariant=True)  # a server connection
P_contra = TypeVar("P_contra", contravariant=True)  # a pool


class Link(Receiver):
    """Who waits for a server connection with which state, and what it is told while it has one.

    Whoever does not want to know something leaves it out. Times are in seconds.
    """

    __slots__ = (
        "account",
        "ahead",
        "awaited",
        "behind",
        "hurried",
        "limits",
        "line",
        "state_needed",
        "user_account",
        "wait_limit",
        "wait_notice",
        "waiting_since",
    )

    def __init__(
        self, account: Account, user_account: UserAccount, limits: Limits, state_needed: State = EMPTY
    ) -> None:
        self._set_up(account, user_account, limits, state_needed)

    def _set_up(
        self, account: Account, user_account: UserAccount, limits: Limits, state_needed: State
    ) -> None:
        """What a `super().__init__()` would be, which costs more than all of it where this is compiled."""
        self.account = account
        self.user_account = user_account
        self.state_needed = state_needed
        self.waiting_since = 0.0
        self.hurried = False  # what is asked is read before what others ask
        # Its place among those with the same deadlines while it waits (see deadlines.py), and for which pool that is.
        self.line: object | None = None
        self.ahead: Link | None = None
        self.behind: Link | None = None
        self.awaited: Any = None
        self.limit_by(limits)

    def limit_by(self, limits: Limits) -> None:
        self.limits = limits
        self.wait_limit = limits.query_wait_timeout or 0.0
        self.wait_notice = limits.query_wait_notify or 0.0

    def hurry(self, hurried: bool) -> None:
        """It is guaranteed connections, or is not any more."""

    def granted(self, server: Any) -> None:
        """The wait is over."""

    def still_waits(self) -> None:
        """The wait takes long."""

    def refused(self, error: TiergateError) -> None:
        """The wait was in vain."""

    def end(self, error: TiergateError) -> None:
        """A limit of time ends the session."""

    def replies(self, data: bytes) -> None:
        """Bytes for the client."""

    def reported(self, name: str, value: str) -> bool:
        """The client's own doing changed a reported parameter (name in lower case). Whether that is news."""
        return False

    def taken_back(self, parameters: Mapping[str, str]) -> bytes:
        """The client's own doing took these parameters back to what its session began with. Returns what is news
        of that, said behind whatever the server reported of it."""
        return b""

    def state_ready(self, error: bytes) -> None:
        """The session's state has been applied, or could not be (the server's ErrorResponse)."""

    def server_ready(self) -> None:
        """Nothing more is said before something more is asked."""

    def copy_began(self, open: bool, synced: bool) -> None:
        """The server reads the data of a COPY. `open`: it has not been sent whole; `synced`: the Sync of its batch is
        behind it."""

    def reset_by_client(self, *, everything: bool, unpin: bool) -> None:
        """DISCARD ALL (everything) or DEALLOCATE ALL is done; `unpin`: nothing was asked after it."""

    def block_ended(self, committed: bool) -> None:
        """A transaction block has ended, if what is said next is that none is open."""

    def rename_statement(self, error: bytes) -> bytes:
        """The ErrorResponse with the client's own name for a statement."""
        return error

    def notified(self, notification: bytes) -> bytes:
        """The NotificationResponse with the process id by which the client knows itself; b"": it is another's."""
        return b""

    def server_lost(self, error: TiergateError, said: bytes) -> None:
        """The connection is gone; `said` is the server's own last ErrorResponse, already passed on."""

    def pause_client(self) -> None:
        """The server does not keep up with what it is sent."""

    def resume_client(self) -> None:
        """It does again."""


class Owner(Protocol[S_contra]):
    """What a server connection asks of its pool."""

    stats: PoolStats
    schema: Schema

    def lost(self, server: S_contra) -> None: ...
    def cleaned(self, server: S_contra) -> None: ...
    def retire(self, statement: Statement) -> None: ...


class Deadlines(Protocol):
    """Of those who wait."""

    def begin(self, waiter: Link, pool: Any) -> None: ...
    def end(self, waiter: Link) -> None: ...


class Keeper(Protocol[P_contra, S_contra]):
    """What a pool asks of those who keep all pools."""

    options: ServerOptions
    room: Room
    adapting: Adapting

    @property
    def deadlines(self) -> Deadlines: ...

    catalog: Catalog

    def open(self, pool: P_contra, counters: tuple[Counter, ...]) -> None: ...
    def reachable(self, cluster: Cluster, now: float) -> bool: ...
    def release(self, server: S_contra) -> None: ...
    def retire(self, statement: Statement) -> None: ...
    def cancel(self, server: S_contra) -> asyncio.Task[None]: ...
    def cancel_and_close(self, server: S_contra) -> None: ...
