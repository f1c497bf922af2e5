"""Who a server connection talks to, as recorders; its socket is a recorded one too."""

from __future__ import annotations

from proxy.admission.accounts import Account, TierAccount, UserAccount
from proxy.errors import TiergateError
from proxy.model import UNLIMITED, Limits, Tenant, Tier, User
from proxy.protocol.state import EMPTY, State
from proxy.protocol.statements import Schema, Statement
from proxy.server import link
from proxy.server.connection import ServerConnection
from proxy.stats import PoolStats
from tests.transports import REPORTED, Transport, endpoint


def account(name: str = "acme", tier: TierAccount | None = None, **limits: int) -> Account:
    return Account(
        Tenant(name, "standard", "shared"),
        tier or TierAccount(Tier("standard")),
        Limits(**limits).over(UNLIMITED),
    )


class Owner:
    """A pool that only remembers."""

    def __init__(self) -> None:
        self.lost_ones: list[ServerConnection] = []
        self.cleaned_ones: list[ServerConnection] = []
        self.retired: list[Statement] = []
        self.stats = PoolStats(0.0)
        self.schema = Schema()

    def lost(self, server: ServerConnection) -> None:
        self.lost_ones.append(server)

    def close_idle(self, server: ServerConnection) -> None:
        server.close()

    def cleaned(self, server: ServerConnection) -> None:
        self.cleaned_ones.append(server)

    def retire(self, statement: Statement) -> None:
        self.retired.append(statement)


class Link(link.Link):
    """A session that only remembers; `events` is what it heard in order, bytes joined."""

    def __init__(self, limits: Limits = UNLIMITED) -> None:
        super().__init__(account(), UserAccount(User("app")), limits)
        self.events: list[object] = []
        self.news = True
        self.renames: dict[bytes, bytes] = {}

    def take(self) -> list[object]:
        events, self.events = self.events, []
        return events

    def end(self, error: TiergateError) -> None:
        self.events.append(error)

    def replies(self, data: bytes) -> None:
        if not data:
            return
        if self.events and isinstance(self.events[-1], bytes):
            data = self.events.pop() + data  # type: ignore[operator]
        self.events.append(data)

    def reported(self, name: str, value: str) -> bool:
        self.events.append((name, value))
        return self.news

    def state_ready(self, error: bytes) -> None:
        self.events.append(("state", error))

    def server_ready(self) -> None:
        self.events.append("ready")

    def copy_began(self, open: bool, synced: bool) -> None:
        self.events.append("copy")

    def reset_by_client(self, *, everything: bool, unpin: bool) -> None:
        self.events.append(("reset", everything, unpin))

    def rename_statement(self, error: bytes) -> bytes:
        for old, new in self.renames.items():
            error = error.replace(old, new)
        return error

    def server_lost(self, error: TiergateError, said: bytes) -> None:
        self.events.append(("lost", error.sqlstate, said))

    def pause_client(self) -> None:
        self.events.append("pause")

    def resume_client(self) -> None:
        self.events.append("resume")


class Waiter(link.Link):
    """Who waits for a connection of a pool."""

    def __init__(
        self,
        account: Account,
        needs: State = EMPTY,
        wait_limit: float = 0.0,
        user: UserAccount | None = None,
    ) -> None:
        super().__init__(account, user or UserAccount(User("app")), UNLIMITED, needs)
        self.wait_limit = wait_limit
        self.told = 0
        self.server: ServerConnection | None = None
        self.error: TiergateError | None = None

    def hurry(self, hurried: bool) -> None:
        self.hurried = hurried

    def still_waits(self) -> None:
        self.told += 1

    def granted(self, server: ServerConnection) -> None:
        assert self.server is None
        assert self.error is None
        self.server = server

    def refused(self, error: TiergateError) -> None:
        assert self.server is None
        assert self.error is None
        self.error = error


def connection(
    owner: Owner | None = None, link: Link | None = None, *, max_prepared: int = 200
) -> tuple[ServerConnection, Transport]:
    """A connection right after its login, given to `link`."""
    server = ServerConnection(
        owner or Owner(),
        endpoint(),
        pid=7,
        key=b"key!",
        parameters=dict(REPORTED),
        max_prepared=max_prepared,
        generation=0,
    )
    transport = Transport(server)
    server.take_transport(transport)
    server.link = link
    return server, transport
