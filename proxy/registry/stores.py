"""The stores of one process's registry: how they are joined, when they begin and end, how they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from proxy.registry.cache import Cache
from proxy.registry.ladder import Ladder
from proxy.registry.memory import Registry
from proxy.registry.sources.postgresql import PostgreSQL
from proxy.registry.sources.redis import Redis
from proxy.registry.users import StoredUsers


class Used(Protocol):
    """The tenants that are served at this moment, by their codes."""

    def __contains__(self, code: object) -> bool: ...
    def names(self) -> Iterable[str]: ...
    def user_names(self) -> Iterable[str]: ...


Changed = Callable[[frozenset[str]], None]


class Stores:
    """`changed` and `users_changed` are called with the codes of tenants and the names of users in use that are not what
    they were."""

    def __init__(
        self, registry: Registry, rows: Cache, used: Used, changed: Changed, users_changed: Changed
    ) -> None:
        self._rows, self._used, self._users_changed = rows, used, users_changed
        rows.in_use = used.__contains__
        self._registry = registry
        self._ladder = Ladder(registry, rows, changed, used.names)
        self._postgresql: PostgreSQL
        self._users: StoredUsers
        self._redis: Redis | None

    def join(self, registry_dsn: str, redis_url: str) -> None:
        ladder = self._ladder
        self._postgresql = ladder.source = PostgreSQL(registry_dsn, ladder)
        hears = partial(_hears, self._postgresql, ladder)
        self._redis = Redis(redis_url, registry_dsn, ladder.heard_from_others, hears) if redis_url else None
        ladder.near = self._redis
        self._registry.finder = ladder
        self._users = StoredUsers(
            self._postgresql, self._users_changed, self._used.user_names, lambda: self._rows.size
        )
        self._registry.logins = self._users
        ladder.from_time_to_time = self._users.refresh

    def start(self) -> None:
        if self._redis is not None:
            self._redis.start()
        self._postgresql.start()
        self._ladder.start()

    async def close(self) -> None:
        await self._ladder.close()
        await self._users.close()
        await self._postgresql.close()
        if self._redis is not None:
            await self._redis.close()


async def _hears(registry: PostgreSQL, ladder: Ladder) -> bool:
    if not await registry.hears():
        return False
    await ladder.made_void()
    return True
