"""The stream of a login: whole messages however they come, bounds, ends, and a hand-over that loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import ProtocolViolation
from proxy.model import TlsOptions
from proxy.net import stream as streams
from proxy.net.stream import LoginStream, PeerGone
from proxy.net.tls import client_tls
from tests.examples import examples
from tests.server.fakes import run

if TYPE_CHECKING:
    from tests.integration.servers import Certificates

Both = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["uvloop", "asyncio"])
def loop_runs(request: pytest.FixtureRequest) -> Both:
    return lambda main: run(main, stdlib=request.param == "asyncio")


@contextlib.asynccontextmanager
async def pair() -> AsyncIterator[tuple[LoginStream, socket.socket]]:
    """A stream, and the bare socket at its other end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    _, stream = await asyncio.get_running_loop().connect_accepted_socket(LoginStream, ours)
    try:
        yield stream, theirs
    finally:
        theirs.close()
        stream.transport.abort()


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


class Owner(asyncio.Protocol):
    """Who gets the socket after the login."""

    def __init__(self) -> None:
        self.data = b""
        self.lost = 0

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost += 1


@settings(max_examples=examples(50), deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=40)), max_size=6),
    st.lists(st.integers(1, 60), min_size=1),
)
def test_messages_are_the_same_however_they_are_cut(
    messages: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    async def main() -> None:
        stream = LoginStream()
        data = b"".join(message(bytes([kind]), body) for kind, body in messages)
        reading = asyncio.ensure_future(read(stream))
        at = 0
        for size in cuts * (len(data) // sum(cuts) + 1):
            stream.data_received(data[at : at + size])
            at += size
            await asyncio.sleep(0)
        stream.eof_received()
        assert await reading == messages

    async def read(stream: LoginStream) -> list[tuple[int, bytes]]:
        found = []
        with contextlib.suppress(PeerGone):
            while True:
                found.append(await stream.read_message())
        return found

    asyncio.run(main())


@pytest.mark.parametrize("length", [0, 3, 101, 65_537, 0x7FFFFFFF, 0xFFFFFFFF])
def test_an_impossible_length_is_refused_before_its_body_comes(length: int) -> None:
    async def main() -> None:
        async with pair() as (stream, theirs):
            theirs.send(b"p" + struct.pack("!I", length))
            with pytest.raises(ProtocolViolation):
                await stream.read_message(100)

    run(main())


def test_the_bound_itself_passes() -> None:
    async def main() -> None:
        async with pair() as (stream, theirs):
            theirs.send(message(b"p", b"x" * 96))
            assert await stream.read_message(100) == (ord("p"), b"x" * 96)

    run(main())


def test_a_message_larger_than_what_is_buffered_is_read(loop_runs: Both) -> None:
    body = b"x" * (3 * streams._ENOUGH)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with pair() as (stream, theirs):
            sending = asyncio.ensure_future(
                loop.sock_sendall(theirs, message(b"E", body) + message(b"N", b"n"))
            )
            assert await stream.read_message(len(body) + 4) == (ord("E"), body)
            assert await stream.read_message() == (ord("N"), b"n")
            await sending

    loop_runs(main())


def test_what_nobody_asked_for_is_not_read_without_bounds(loop_runs: Both) -> None:
    async def main() -> None:
        async with pair() as (stream, theirs):
            sent = 0
            idle = 0
            while idle < 50:  # until neither end moves
                try:
                    sent += theirs.send(b"x" * 65_536)
                    idle = 0
                except BlockingIOError:
                    idle += 1
                await asyncio.sleep(0)
            assert streams._ENOUGH < len(stream._buffer) < 3 * streams._ENOUGH
            assert await stream.read_exactly(sent) == b"x" * sent

    loop_runs(main())


def test_the_peers_end_comes_after_what_it_said(loop_runs: Both) -> None:
    async def main() -> None:
        async with pair() as (stream, theirs):
            theirs.send(b"abc")
            theirs.close()
            await until(lambda: stream._over)
            assert await stream.read_exactly(2) == b"ab"
            with pytest.raises(PeerGone):
                await stream.read_exactly(2)

    loop_runs(main())


def test_a_waiting_reader_hears_of_the_end(loop_runs: Both) -> None:
    async def main() -> None:
        async with pair() as (stream, theirs):
            reading = asyncio.ensure_future(stream.read_message())
            await asyncio.sleep(0)
            theirs.close()
            with pytest.raises(PeerGone):
                await reading
            stream.write(b"too late, and no error")

    loop_runs(main())


def test_a_reader_that_is_cancelled_loses_nothing(loop_runs: Both) -> None:
    async def main() -> None:
        async with pair() as (stream, theirs):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await stream.read_exactly(4)
            theirs.send(b"abcd")
            assert await stream.read_exactly(4) == b"abcd"

    loop_runs(main())


@pytest.mark.parametrize("used", [0, 3, 10])
def test_a_hand_over_loses_nothing(loop_runs: Both, used: int) -> None:
    async def main() -> None:
        async with pair() as (stream, theirs):
            theirs.send(b"0123456789")
            await until(lambda: len(stream._buffer) == 10)
            assert await stream.read_exactly(used) == b"0123456789"[:used]
            owner = Owner()
            theirs.send(b"more")
            owner.data_received(stream.take_over(owner))
            await until(lambda: owner.data.endswith(b"more"))
            assert owner.data == b"0123456789more"[used:]
            theirs.close()
            await until(lambda: owner.lost)
            await asyncio.sleep(0)
            assert owner.lost == 1

    loop_runs(main())


def test_a_hand_over_of_a_full_stream_reads_on(loop_runs: Both) -> None:
    data = bytes(range(256)) * (streams._ENOUGH // 64)

    async def main() -> None:
        async with pair() as (stream, theirs):
            sending = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(theirs, data))
            await until(lambda: stream._paused)
            owner = Owner()
            owner.data_received(stream.take_over(owner))
            await sending
            await until(lambda: len(owner.data) == len(data))
            assert owner.data == data

    loop_runs(main())


@pytest.mark.parametrize("moment", ["ended", "lost"])
def test_the_new_owner_hears_of_an_end_before_the_hand_over_once(loop_runs: Both, moment: str) -> None:
    async def main() -> None:
        async with pair() as (stream, theirs):
            theirs.send(b"rest")
            theirs.close()
            await until(lambda: stream._over if moment == "ended" else stream._lost)
            owner = Owner()
            assert stream.take_over(owner) == b"rest"
            for _ in range(10):
                await asyncio.sleep(0)
            assert owner.lost == 1

    loop_runs(main())


def test_closing_says_the_last_words(loop_runs: Both) -> None:
    async def main() -> None:
        async with pair() as (stream, theirs):
            stream.write(b"goodbye")
            await stream.close()
            loop = asyncio.get_running_loop()
            assert await loop.sock_recv(theirs, 100) == b"goodbye"
            assert await loop.sock_recv(theirs, 100) == b""
            await stream.close()  # twice does no harm

    loop_runs(main())


def test_closing_does_not_wait_for_ever(loop_runs: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that does not read what it is told is cut off."""
    monkeypatch.setattr(streams, "_LINGER", 0.05)

    async def main() -> None:
        async with pair() as (stream, theirs):
            stream.write(b"x" * 10_000_000)
            await stream.close()
            assert stream._lost or stream.transport.is_closing()
            await until(lambda: stream._lost)
            del theirs

    loop_runs(main())


def test_under_tls_a_hand_over_loses_nothing_and_closing_says_the_last_words(
    loop_runs: Both, certificates: Certificates
) -> None:
    tls = client_tls(
        TlsOptions("require", cert_file=certificates.server_cert, key_file=certificates.server_key)
    )
    assert tls is not None

    async def main() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        stream = LoginStream()
        client = ssl.create_default_context(cafile=certificates.ca)
        (reader, writer), _ = await asyncio.gather(
            asyncio.open_connection(sock=theirs, ssl=client, server_hostname="localhost"),
            asyncio.get_running_loop().connect_accepted_socket(lambda: stream, ours, ssl=tls.context),
        )
        writer.write(b"0123456789")
        assert await stream.read_exactly(3) == b"012"
        owner = Owner()
        writer.write(b"more")
        owner.data_received(stream.take_over(owner))
        await until(lambda: owner.data.endswith(b"more"))
        assert owner.data == b"3456789more"
        stream.transport.set_protocol(stream)  # back, to end it as a failed login ends
        stream.write(b"goodbye")
        closing = asyncio.ensure_future(stream.close())
        assert await reader.read() == b"goodbye"
        writer.close()
        await closing
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    loop_runs(main())


def test_under_tls_a_peer_that_takes_no_leave_is_cut_off(
    loop_runs: Both, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_LINGER", 0.05)
    tls = client_tls(
        TlsOptions("require", cert_file=certificates.server_cert, key_file=certificates.server_key)
    )
    assert tls is not None

    async def main() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        stream = LoginStream()
        to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=certificates.ca)
        client = context.wrap_bio(to_client, to_server, server_hostname="localhost")
        loop = asyncio.get_running_loop()
        theirs.setblocking(False)

        async def shake_hands() -> None:
            while True:
                try:
                    client.do_handshake()
                except ssl.SSLWantReadError:
                    await loop.sock_sendall(theirs, to_server.read())
                    to_client.write(await loop.sock_recv(theirs, 65_536))
                else:
                    return await loop.sock_sendall(theirs, to_server.read())

        await asyncio.gather(
            shake_hands(), loop.connect_accepted_socket(lambda: stream, ours, ssl=tls.context)
        )
        async with asyncio.timeout(5):
            await stream.close()
            await until(lambda: stream._lost)
        theirs.close()

    loop_runs(main())
