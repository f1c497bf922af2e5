"""What server connections and pools call upwards: who has a connection, who owns it, who waits for one."""

from __future__ import annotations

from typing import Protocol, TypeVar

from proxy.admission.accounts import Account, UserAccount
from proxy.errors import TiergateError
from proxy.model import Limits
from proxy.protocol.state import State
from proxy.protocol.statements import Statement
from proxy.stats import PoolStats

S_contra = TypeVar("S_contra", contravariant=True)


class Link:
    """What a server connection tells whoever has it. Whoever does not want to know something leaves it out."""

    __slots__ = ("limits",)

    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    def end(self, error: TiergateError) -> None:
        """A limit of time ends the session."""

    def replies(self, data: bytes) -> None:
        """Bytes for the client."""

    def reported(self, name: str, value: str) -> bool:
        """The client's own doing changed a reported parameter (name in lower case). Whether that is news."""
        return False

    def state_ready(self, error: bytes) -> None:
        """The session's state has been applied, or could not be (the server's ErrorResponse)."""

    def server_ready(self) -> None:
        """Nothing more is said before something more is asked."""

    def copy_began(self) -> None:
        """The server waits for the data of a COPY that has not been sent whole."""

    def reset_by_client(self, *, everything: bool, unpin: bool) -> None:
        """DISCARD ALL (everything) or DEALLOCATE ALL is done; `unpin`: nothing was asked after it."""

    def rename_statement(self, error: bytes) -> bytes:
        """The ErrorResponse with the client's own name for a statement."""
        return error

    def server_lost(self, error: TiergateError, said: bytes) -> None:
        """The connection is gone; `said` is the server's own last ErrorResponse, already passed on."""

    def pause_client(self) -> None:
        """The server does not keep up with what it is sent."""

    def resume_client(self) -> None:
        """It does again."""


class Owner(Protocol[S_contra]):
    """What a server connection asks of its pool."""

    stats: PoolStats

    def lost(self, server: S_contra) -> None: ...
    def cleaned(self, server: S_contra) -> None: ...
    def retire(self, statement: Statement) -> None: ...


class Waiter(Protocol[S_contra]):
    """Who waits for a connection, and with which state."""

    account: Account
    user_account: UserAccount
    state_needed: State
    waiting_since: float
    wait_limit: float

    def granted(self, server: S_contra) -> None: ...
    def refused(self, error: TiergateError) -> None: ...
