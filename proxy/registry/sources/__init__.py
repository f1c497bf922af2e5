"""Where tenants are stored, and what whoever looks them up there needs of a store."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from proxy.registry.rows import Row


class SourceDown(Exception):
    """The store cannot be asked; the text says why, for operators."""


class State(NamedTuple):
    """`since` is when it became so, of the monotonic clock."""

    up: bool
    since: float
    reason: str = ""


class StoreState(NamedTuple):
    """`asked` are the names that it was asked for, `found` those that it had."""

    name: str
    state: State
    asked: int
    found: int


class Ear(Protocol):
    """Who hears of changes."""

    def heard(self, names: Collection[str]) -> None:
        """Rows of these codes and ids have changed."""

    def heard_all(self, *, begins: bool = False) -> None:
        """Any row may have changed: nobody said which, or `begins`, nobody has listened until now."""


class Source(Protocol):
    """The store itself."""

    state: State

    @property
    def worth_asking(self) -> bool:
        """An answer is to be expected: it was not found to be down just now."""

    async def rows(self, names: Sequence[str]) -> list[Row]:
        """Those with these codes or ids. Raises SourceDown."""


class Stored(NamedTuple):
    """A login of one tenant that may be used now."""

    tenant: str
    user: str
    verifier: str


class UserSource(Protocol):
    async def users(self, names: Sequence[tuple[str, str]]) -> list[Stored]:
        """Of these tenants' codes and users. Raises SourceDown."""


class Ticket(NamedTuple):
    """What rows that were not there must be put with, so that a change since then makes them void."""

    generation: str
    stamps: Mapping[str, str]


class Near(Protocol):
    """A store of copies that several proxies share. What it cannot do it leaves; it makes itself void later."""

    state: State

    async def get(self, names: Sequence[str]) -> tuple[dict[str, Row], Ticket]: ...
    async def put(self, rows: Mapping[str, Row], ticket: Ticket) -> None: ...
    async def invalidate(self, names: Collection[str]) -> None: ...
    async def renew(self, *, begins: bool) -> None:
        """Copies are void; if the feed `begins`, unless others have heard the changes of before."""
