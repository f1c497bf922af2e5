"""Logins that the registry stores: each of one tenant, named USER@TENANT by its client, proved by its verifier.

Each login asks anew (an answer is good for a second, so that who exists cannot be told by the time it takes, and a storm
is one question). Those that are connected are asked about from time to time. While nobody can be asked, what was found
last holds; a name that was never asked about is then refused, and may exist.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from time import monotonic

from proxy.model import User
from proxy.registry.memory import UserUnknown
from proxy.registry.sources import SourceDown, Stored, UserSource

_GOOD = 1.0  # seconds
_BATCH = 500


class StoredUsers:
    """`changed` is called with the names of connected users that are not what they were, `used` says who is connected."""

    def __init__(
        self,
        source: UserSource,
        changed: Callable[[frozenset[str]], None],
        used: Callable[[], Iterable[str]],
        size: Callable[[], int],
    ) -> None:
        self._source = source
        self._changed = changed
        self._used = used
        self._size = size
        # With when they were asked about.
        self._found: OrderedDict[str, tuple[User | None, float]] = OrderedDict()
        self._wanted: dict[str, asyncio.Future[None]] = {}
        self._flying: dict[str, asyncio.Future[None]] = {}
        self._flight: asyncio.Task[None] | None = None

    def get(self, name: str) -> User | None:
        """As it was found last."""
        found = self._found.get(name)
        return found[0] if found is not None else None

    async def find(self, name: str) -> None:
        """Raises UserUnknown where it has never been asked about and cannot be now."""
        found = self._found.get(name)
        if found is None or monotonic() - found[1] > _GOOD:
            await asyncio.shield(self._want(name))
        if name not in self._found:
            raise UserUnknown(name)

    def refresh(self) -> None:
        """Asks about those that are connected."""
        for name in self._used():
            if name in self._found:
                self._want(name)

    async def close(self) -> None:
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.gather(self._flight, return_exceptions=True)
        for future in (*self._wanted.values(), *self._flying.values()):
            future.cancel()

    def _want(self, name: str) -> asyncio.Future[None]:
        future = self._flying.get(name) or self._wanted.get(name)
        if future is None:
            loop = asyncio.get_running_loop()
            future = self._wanted[name] = loop.create_future()
            if self._flight is None:
                self._flight = loop.create_task(self._fly())
        return future

    async def _fly(self) -> None:
        try:
            while self._wanted:
                names = list(self._wanted)[:_BATCH]
                self._flying = {name: self._wanted.pop(name) for name in names}
                try:
                    await self._ask(names)
                finally:
                    for future in self._flying.values():
                        if not future.done():
                            future.set_result(None)
                    self._flying = {}
        finally:
            self._flight = None

    async def _ask(self, names: list[str]) -> None:
        try:
            stored = await self._source.users([_parts(name) for name in names])
        except SourceDown:
            return
        found = {f"{one.user}@{one.tenant}": one for one in stored}
        used, changed = frozenset(self._used()), set()
        for name in names:
            before, now = self.get(name), _user(name, found.get(name))
            if now == before:
                now = before
            elif name in used:
                changed.add(name)
            self._found[name] = (now, monotonic())
            self._found.move_to_end(name)
        self._make_room(used)
        if changed:
            self._changed(frozenset(changed))

    def _make_room(self, used: frozenset[str]) -> None:
        over = len(self._found) - self._size()
        for name in list(self._found)[:over] if over > 0 else ():
            if name not in used:
                del self._found[name]


def _parts(name: str) -> tuple[str, str]:
    user, _, tenant = name.rpartition("@")
    return tenant, user


def _user(name: str, stored: Stored | None) -> User | None:
    if stored is None:
        return None
    return User(
        name,
        password=stored.verifier,
        tenants=frozenset({stored.tenant}),
        auth_type="scram-sha-256",  # whatever the proxy asks of others
        server_user=stored.user,
        server_password=stored.verifier,  # by whose keys servers may know it
    )
