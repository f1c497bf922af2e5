"""Two ends of a socket pair: what is told arrives in order, what is asked is answered, and an end is noticed."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from proxy.errors import CapReached, ClientError, ConfigError, ShuttingDown, TiergateError
from proxy.net import channel
from proxy.net.channel import Channel, ChannelLost, Fields, NoAnswer
from proxy.net.readiness import Loop

Scenario = Callable[["Ends"], Awaitable[None]]


class Ends:
    """`here` speaks to `there`, whose handlers are given; `lost` says who has seen the other go."""

    def __init__(self, **handlers: Any) -> None:
        self.lost: list[str] = []
        self.here = Channel({}, lambda: self.lost.append("here"))
        self.there = Channel(handlers, lambda: self.lost.append("there"))

    async def open(self) -> None:
        one, other = socket.socketpair()
        await self.here.open(one)
        await self.there.open(other)

    async def until(self, done: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not done():
                await asyncio.sleep(0)


def run(scenario: Scenario, **handlers: Any) -> None:
    async def main() -> None:
        ends = Ends(**handlers)
        await ends.open()
        try:
            await scenario(ends)
        finally:
            ends.here.close()
            ends.there.close()
            await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())


def test_what_is_told_arrives_whole_and_in_order() -> None:
    told: list[Fields] = []

    async def scenario(ends: Ends) -> None:
        for number in range(100):
            ends.here.tell("note", number=number, text="é" * number * 1000, raw=b"\0\xff".decode("latin-1"))
        await ends.until(lambda: len(told) == 100)
        assert [fields["number"] for fields in told] == list(range(100))
        assert told[99]["text"] == "é" * 99_000
        assert told[0]["raw"].encode("latin-1") == b"\0\xff"

    run(scenario, note=told.append)


def test_a_plain_function_and_a_coroutine_both_answer() -> None:
    async def slowly(fields: Fields) -> Fields:
        await asyncio.sleep(0)
        return {"twice": fields["n"] * 2}

    async def scenario(ends: Ends) -> None:
        answers = await asyncio.gather(*(ends.here.ask("slowly", n=n) for n in range(10)))
        assert [answer["twice"] for answer in answers] == [n * 2 for n in range(10)]
        assert await ends.here.ask("at_once") == {"yes": True}
        assert await ends.here.ask("nothing") == {}

    run(scenario, slowly=slowly, at_once=lambda _: {"yes": True}, nothing=lambda _: None)


def test_a_slow_handler_holds_up_nobody() -> None:
    gate = asyncio.Event()

    async def waits(_: Fields) -> None:
        await gate.wait()

    async def scenario(ends: Ends) -> None:
        waiting = asyncio.ensure_future(ends.here.ask("waits", timeout=None))
        assert await ends.here.ask("quick") == {"ok": 1}
        assert not waiting.done()
        gate.set()
        assert await waiting == {}

    run(scenario, waits=waits, quick=lambda _: {"ok": 1})


class _Odd(ClientError):
    """One that the tree of errors does not have."""

    sqlstate = "42601"


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (CapReached("full", hint="later", detail="why", internal="secret"), CapReached),
        (ConfigError("a\nb"), ConfigError),
        (_Odd("no such command"), ClientError),
    ],
)
@pytest.mark.parametrize("awaits", [False, True])
def test_an_error_of_the_other_side_is_raised_here(
    raised: TiergateError, kind: type[TiergateError], awaits: bool
) -> None:
    def at_once(_: Fields) -> None:
        raise raised

    async def later(_: Fields) -> None:
        raise raised

    async def scenario(ends: Ends) -> None:
        with pytest.raises(TiergateError) as caught:
            await ends.here.ask("fails")
        error = caught.value
        assert type(error) is kind
        assert (error.message, error.hint, error.detail, error.internal, error.sqlstate) == (
            raised.message, raised.hint, raised.detail, raised.internal, raised.sqlstate
        )  # fmt: skip

    run(scenario, fails=later if awaits else at_once)


def test_a_bug_of_the_other_side_is_an_internal_error_and_ends_nothing() -> None:
    def broken(_: Fields) -> None:
        raise KeyError("x")

    async def scenario(ends: Ends) -> None:
        with pytest.raises(TiergateError, match="internal error"):
            await ends.here.ask("broken")
        ends.here.tell("broken")
        with pytest.raises(TiergateError, match="internal error"):
            await ends.here.ask("unsayable")
        assert await ends.here.ask("fine") == {}
        assert not ends.lost

    run(scenario, broken=broken, fine=lambda _: None, unsayable=lambda _: {"it": object()})


def test_a_kind_that_the_other_side_does_not_know() -> None:
    async def scenario(ends: Ends) -> None:
        with pytest.raises(TiergateError, match="nonsuch"):
            await ends.here.ask("nonsuch")
        ends.here.tell("nonsuch")
        assert await ends.here.ask("fine") == {}

    run(scenario, fine=lambda _: None)


def test_no_answer_in_time_and_a_late_one_is_dropped() -> None:
    gate = asyncio.Event()

    async def waits(_: Fields) -> None:
        await gate.wait()

    async def scenario(ends: Ends) -> None:
        with pytest.raises(NoAnswer):
            await ends.here.ask("waits", timeout=0.01)
        gate.set()
        assert await ends.here.ask("fine") == {}
        assert not ends.here._asked

    run(scenario, waits=waits, fine=lambda _: None)


def test_both_ends_notice_when_the_socket_goes() -> None:
    gate = asyncio.Event()
    cancelled: list[bool] = []

    async def waits(_: Fields) -> None:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def scenario(ends: Ends) -> None:
        asked = asyncio.ensure_future(ends.here.ask("waits", timeout=None))
        await ends.until(lambda: ends.there._tasks)
        await asyncio.sleep(0)
        ends.there._transport.abort()  # type: ignore[union-attr]
        with pytest.raises(ChannelLost):
            await asked
        await ends.until(lambda: len(ends.lost) == 2)
        with pytest.raises(ChannelLost):
            await ends.here.ask("waits")
        ends.here.tell("waits")
        await ends.until(lambda: cancelled)

    run(scenario, waits=waits)


def test_close_still_sends_and_only_the_other_side_is_told() -> None:
    told: list[Fields] = []

    async def scenario(ends: Ends) -> None:
        ends.here.tell("note", last=True, text="x" * 1_000_000)
        ends.here.close()
        await ends.until(lambda: ends.lost)
        assert [fields["last"] for fields in told] == [True]
        assert ends.lost == ["there"]

    run(scenario, note=told.append)


def test_a_peer_that_reads_no_more_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "MAX_UNREAD", 1 << 20)

    async def scenario(ends: Ends) -> None:
        ends.there._transport.pause_reading()  # type: ignore[union-attr]
        for _ in range(40):
            ends.here.tell("note", text="x" * 100_000)
        assert ends.lost == ["here"]

    run(scenario, note=lambda _: None)


def test_a_message_that_is_too_long_is_refused_here_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channel, "MAX_MESSAGE", 1000)

    async def scenario(ends: Ends) -> None:
        with pytest.raises(TiergateError, match="too much"):
            ends.here.tell("note", text="x" * 1000)
        with pytest.raises(TiergateError, match="too much"):
            await ends.here.ask("much")
        assert not ends.lost

    run(scenario, much=lambda _: {"text": "x" * 1000})


@pytest.mark.parametrize("said", [b"\xff\xff\xff\xff", b"\0\0\0\1{", b"\0\0\0\2[]", b"\0\0\0\1\x31"])
def test_nonsense_ends_the_channel(said: bytes) -> None:
    async def scenario(ends: Ends) -> None:
        ends.here._transport.write(said)  # type: ignore[union-attr]
        await ends.until(lambda: len(ends.lost) == 2)

    run(scenario)


def test_another_program_goes_on_where_this_one_stopped() -> None:
    """What was sent but not handled is handled by the next; a late answer is not taken for another one's."""
    told: list[Fields] = []
    gate = asyncio.Event()

    async def waits(_: Fields) -> Fields:
        await gate.wait()
        return {"late": True}

    async def scenario(ends: Ends) -> None:
        # `there` is the worker, `here` the supervisor that is replaced.
        asked = asyncio.ensure_future(ends.here.ask("waits", timeout=None))
        await ends.until(lambda: ends.there._tasks)
        ends.here.pause()
        ends.there.tell("note", n=1)
        ends.there.tell("note", n=2)
        handed = json.loads(json.dumps(ends.here.hand_on()))
        sock = socket.socket(fileno=os.dup(ends.here.fileno()))
        ends.here.close()
        with pytest.raises(ChannelLost):
            await asked
        after = Channel({"note": told.append}, lambda: ends.lost.append("after"))
        await after.open(sock, handed)
        await ends.until(lambda: len(told) == 2)
        gate.set()
        assert await after.ask("fine") == {"fine": True}
        assert not ends.lost
        after.close()

    run(scenario, waits=waits, fine=lambda _: {"fine": True})


def test_half_a_message_is_handed_on() -> None:
    told: list[Fields] = []

    async def scenario(ends: Ends) -> None:
        message = b'[0,"note",{"n":1}]'
        whole = len(message).to_bytes(4, "big") + message
        ends.there._transport.write(whole[:9])  # type: ignore[union-attr]
        await ends.until(lambda: ends.here._unread)
        ends.here.pause()
        ends.there._transport.write(whole[9:])  # type: ignore[union-attr]
        handed = json.loads(json.dumps(ends.here.hand_on()))
        sock = socket.socket(fileno=os.dup(ends.here.fileno()))
        ends.here.close()
        after = Channel({"note": told.append}, lambda: None)
        await after.open(sock, handed)
        await ends.until(lambda: told)
        assert told == [{"n": 1}]
        after.close()

    run(scenario)


def test_what_is_under_way_when_it_pauses_is_answered_as_not_done() -> None:
    async def waits(_: Fields) -> None:
        await asyncio.Event().wait()

    async def scenario(ends: Ends) -> None:
        asked = asyncio.ensure_future(ends.here.ask("waits", timeout=None))
        await ends.until(lambda: ends.there.busy)
        await asyncio.sleep(0)
        ends.there.pause()
        with pytest.raises(ShuttingDown):
            await asked
        await ends.until(lambda: not ends.there.busy)
        again = asyncio.ensure_future(ends.here.ask("fine"))
        await asyncio.sleep(0.01)
        assert not again.done()
        ends.there.resume()
        assert await again == {}

    run(scenario, waits=waits, fine=lambda _: None)
