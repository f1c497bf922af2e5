"""The transport of plain sockets: at once, in order, paused and resumed, closed once, and errors that are told late."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import struct
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from proxy.net import transport as transports
from proxy.net.transport import HIGH, LOW, SocketTransport
from tests.server.fakes import run

Both = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["uvloop", "asyncio"])
def loop_runs(request: pytest.FixtureRequest) -> Both:
    return lambda main: run(main, stdlib=request.param == "asyncio")


class Recorder:
    """Everything that the transport says, in order."""

    def __init__(self) -> None:
        self.data = b""
        self.heard: list[str] = []
        self.errors: list[Exception | None] = []
        self.keep_open = False
        self.owner: SocketTransport | None = None

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> bool:
        self.heard.append("eof")
        return self.keep_open

    def connection_lost(self, exc: Exception | None) -> None:
        self.heard.append("lost")
        self.errors.append(exc)

    def pause_writing(self) -> None:
        self.heard.append("pause")

    def resume_writing(self) -> None:
        self.heard.append("resume")


@contextlib.asynccontextmanager
async def pair(*, tcp: bool = False) -> AsyncIterator[tuple[SocketTransport, Recorder, socket.socket]]:
    if tcp:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            theirs = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
    else:
        ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    recorder = Recorder()
    transport = SocketTransport(asyncio.get_running_loop(), ours.detach(), recorder)
    try:
        yield transport, recorder, theirs
    finally:
        theirs.close()
        transport.abort()
        await until(lambda: "lost" in recorder.heard)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def drain(sock: socket.socket, size: int) -> bytes:
    got = b""
    async with asyncio.timeout(5):
        while len(got) < size:
            try:
                got += sock.recv(65_536)
            except BlockingIOError:
                await asyncio.sleep(0.001)
    return got


def test_what_is_written_is_sent_in_the_same_call(loop_runs: Both) -> None:
    async def main() -> None:
        async with pair() as (transport, _, theirs):
            transport.write(b"at once")
            assert theirs.recv(100) == b"at once"

    loop_runs(main())


def test_what_is_received_is_told(loop_runs: Both) -> None:
    async def main() -> None:
        async with pair() as (_, recorder, theirs):
            theirs.send(b"one")
            await until(lambda: recorder.data == b"one")
            theirs.send(b"two")
            await until(lambda: recorder.data == b"onetwo")

    loop_runs(main())


def test_what_the_kernel_does_not_take_is_kept_in_order(loop_runs: Both) -> None:
    async def main() -> None:
        async with pair() as (transport, recorder, theirs):
            sent = b"".join(struct.pack("!I", n) for n in range(500_000))
            for at in range(0, len(sent), 100_000):
                transport.write(sent[at : at + 100_000])
            assert transport.get_write_buffer_size() > HIGH
            assert recorder.heard == ["pause"]
            assert await drain(theirs, len(sent)) == sent
            assert recorder.heard == ["pause", "resume"]
            assert transport.get_write_buffer_size() <= LOW

    loop_runs(main())


def test_closing_sends_what_is_kept_first(loop_runs: Both) -> None:
    async def main() -> None:
        async with pair() as (transport, recorder, theirs):
            sent = bytes(3_000_000)
            transport.write(sent)
            transport.close()
            transport.write(b"too late")
            assert transport.is_closing()
            assert "lost" not in recorder.heard
            assert await drain(theirs, len(sent)) == sent
            await until(lambda: "lost" in recorder.heard)
            assert theirs.recv(100) == b""

    loop_runs(main())


def test_a_peer_that_never_takes_the_rest_does_not_keep_the_socket(
    loop_runs: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transports, "LINGER", 0.01)

    async def main() -> None:
        async with pair() as (transport, recorder, _):
            transport.write(bytes(3_000_000))
            transport.close()
            await until(lambda: "lost" in recorder.heard)
            assert transport.get_write_buffer_size() == 0

    loop_runs(main())


def test_aborting_forgets_what_is_kept_and_tells_the_loss_once(loop_runs: Both) -> None:
    async def main() -> None:
        async with pair() as (transport, recorder, _):
            transport.write(bytes(3_000_000))
            transport.abort()
            transport.abort()
            transport.close()
            assert "lost" not in recorder.heard  # not from within the call
            await until(lambda: "lost" in recorder.heard)
            await asyncio.sleep(0)
            assert recorder.heard.count("lost") == 1
            assert recorder.errors == [None]

    loop_runs(main())


def test_what_is_lost_is_gone_without_a_collector(loop_runs: Both) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        recorder: Recorder | None = Recorder()
        recorder.owner = SocketTransport(asyncio.get_running_loop(), ours.detach(), recorder)
        heard = recorder.heard
        theirs.close()
        await until(lambda: "lost" in heard)
        left = weakref.ref(recorder)
        recorder = None
        assert left() is None

    gc.disable()
    try:
        loop_runs(main())
    finally:
        gc.enable()


def test_the_end_of_the_stream_closes_unless_the_protocol_wants_to_go_on(loop_runs: Both) -> None:
    async def main() -> None:
        async with pair() as (transport, recorder, theirs):
            recorder.keep_open = True
            theirs.shutdown(socket.SHUT_WR)
            await until(lambda: recorder.heard == ["eof"])
            transport.write(b"an answer")
            assert await drain(theirs, 9) == b"an answer"
        async with pair() as (_, recorder, theirs):
            theirs.close()
            await until(lambda: recorder.heard == ["eof", "lost"])

    loop_runs(main())


def test_nothing_is_read_while_paused(loop_runs: Both) -> None:
    async def main() -> None:
        async with pair() as (transport, recorder, theirs):
            transport.pause_reading()
            transport.pause_reading()
            theirs.send(b"early")
            for _ in range(5):
                await asyncio.sleep(0)
            assert recorder.data == b""
            transport.resume_reading()
            transport.resume_reading()
            await until(lambda: recorder.data == b"early")
            transport.abort()
            transport.resume_reading()  # of one that is gone: nothing happens

    loop_runs(main())


def test_a_protocol_that_fails_loses_its_socket_and_is_reported() -> None:
    async def main() -> None:
        async with pair() as (transport, recorder, theirs):
            reported: list[dict[str, Any]] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
            recorder.data_received = lambda data: 1 / 0  # type: ignore[method-assign, assignment, return-value]
            theirs.send(b"x")
            await until(lambda: "lost" in recorder.heard)
            assert isinstance(reported[0]["exception"], ZeroDivisionError)
            assert transport.is_closing()

    run(main(), stdlib=False)


def test_a_peer_that_resets_while_its_last_bytes_are_unread_is_noticed(loop_runs: Both) -> None:
    """An error is told once, and what is read then may be data."""

    async def main() -> None:
        for _ in range(20):
            async with pair(tcp=True) as (_, recorder, theirs):
                theirs.send(b"half a fra")
                theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                theirs.close()
                await until(lambda: "lost" in recorder.heard)

    loop_runs(main())


def test_more_than_one_read_takes_is_read_without_being_told_again(loop_runs: Both) -> None:
    async def main() -> None:
        async with pair() as (_, recorder, theirs):
            sent = b"".join(struct.pack("!I", n) for n in range(40_000))
            theirs.setblocking(True)
            await asyncio.to_thread(theirs.sendall, sent)
            await until(lambda: recorder.data == sent)
            theirs.send(b"and on")
            await until(lambda: recorder.data.endswith(b"and on"))

    loop_runs(main())


@pytest.mark.parametrize("tcp", [True, False])
def test_the_end_behind_the_last_bytes_is_told(loop_runs: Both, tcp: bool) -> None:
    async def main() -> None:
        for size in (1, 65_535, 65_536, 65_537, 131_072):
            async with pair(tcp=tcp) as (_, recorder, theirs):
                theirs.setblocking(True)
                await asyncio.to_thread(theirs.sendall, bytes(size))
                theirs.close()
                await until(lambda: "lost" in recorder.heard)
                assert recorder.heard == ["eof", "lost"]
                assert len(recorder.data) == size

    loop_runs(main())


def test_what_comes_while_paused_is_read_behind_the_pause_with_its_end(loop_runs: Both) -> None:
    async def main() -> None:
        async with pair() as (transport, recorder, theirs):
            for word in (b"one", b"two", b"three"):
                transport.pause_reading()
                theirs.send(word)
                for _ in range(3):
                    await asyncio.sleep(0)
                transport.resume_reading()
                transport.pause_reading()
                transport.resume_reading()
                await until(lambda word=word: recorder.data.endswith(word))
            assert recorder.data == b"onetwothree"
            transport.pause_reading()
            theirs.send(b"last")
            theirs.close()
            for _ in range(5):
                await asyncio.sleep(0)
            assert recorder.heard == []
            transport.resume_reading()
            await until(lambda: recorder.heard == ["eof", "lost"])
            assert recorder.data == b"onetwothreelast"

    loop_runs(main())


def test_a_pause_within_a_read_leaves_the_rest_for_later(loop_runs: Both) -> None:
    async def main() -> None:
        async with pair() as (transport, recorder, theirs):

            def once(data: bytes) -> None:
                recorder.data += data
                transport.pause_reading()

            recorder.data_received = once  # type: ignore[method-assign]
            sent = bytes(150_000)
            theirs.setblocking(True)
            await asyncio.to_thread(theirs.sendall, sent)
            await until(lambda: recorder.data)
            while len(recorder.data) < len(sent):
                before = len(recorder.data)
                for _ in range(5):
                    await asyncio.sleep(0)
                assert len(recorder.data) == before <= before + 65_536
                transport.resume_reading()
                await until(lambda before=before: len(recorder.data) > before)

    loop_runs(main())


def test_a_protocol_that_fails_when_it_may_write_again_is_reported_and_still_hears(loop_runs: Both) -> None:
    async def main() -> None:
        reported: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        async with pair() as (transport, recorder, theirs):
            recorder.resume_writing = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
            transport.write(bytes(3_000_000))
            theirs.send(b"heard")
            await drain(theirs, 3_000_000)
            await until(lambda: reported and recorder.data == b"heard")
            assert isinstance(reported[0]["exception"], ZeroDivisionError)
            theirs.send(b", too")
            await until(lambda: recorder.data == b"heard, too")

    loop_runs(main())


def test_a_look_reads_what_has_come_and_what_comes(loop_runs: Both) -> None:
    async def main() -> None:
        for first in (b"", b"early", bytes(65_536)):
            ours, theirs = socket.socketpair()
            with theirs:
                ours.setblocking(False)
                theirs.setblocking(True)
                recorder = Recorder()
                transport = SocketTransport(
                    asyncio.get_running_loop(), ours.detach(), recorder, watched=False
                )
                theirs.sendall(first)
                transport.look()
                assert recorder.data == first
                theirs.sendall(b"late")
                await until(lambda first=first, recorder=recorder: recorder.data == first + b"late")
            await until(lambda recorder=recorder: recorder.heard == ["eof", "lost"])

    loop_runs(main())


def test_who_is_lost_before_it_was_watched_is_told_so_once(loop_runs: Both) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        recorder = Recorder()
        transport = SocketTransport(asyncio.get_running_loop(), ours.detach(), recorder, watched=False)
        theirs.close()
        transport.look()
        await until(lambda: recorder.heard == ["eof", "lost"])

    loop_runs(main())


def test_a_look_is_watched_though_the_last_other_socket_is_closed_meanwhile(loop_runs: Both) -> None:
    async def main() -> None:
        async with pair() as (other, _, _):
            ours, theirs = socket.socketpair()
            with theirs:
                ours.setblocking(False)
                recorder = Recorder()
                transport = SocketTransport(
                    asyncio.get_running_loop(), ours.detach(), recorder, watched=False
                )
                other.abort()
                transport.look()
                theirs.send(b"late")
                await until(lambda: recorder.data == b"late")
            await until(lambda: recorder.heard == ["eof", "lost"])

    loop_runs(main())


def test_what_cannot_be_watched_is_lost(loop_runs: Both, tmp_path: Path) -> None:
    """A file is always ready, and no epoll takes it."""

    async def main() -> None:
        recorder = Recorder()
        SocketTransport(
            asyncio.get_running_loop(), os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT), recorder
        )
        await until(lambda: recorder.heard == ["lost"])
        assert isinstance(recorder.errors[0], OSError)

    loop_runs(main())


def test_writing_to_a_peer_that_is_gone_is_a_loss(loop_runs: Both) -> None:
    async def main() -> None:
        async with pair() as (transport, recorder, theirs):
            transport.pause_reading()
            theirs.close()
            transport.write(b"x")
            transport.write(b"y")
            await until(lambda: recorder.heard == ["lost"])
            assert isinstance(recorder.errors[0], OSError)

    loop_runs(main())


def test_where_it_is_connected() -> None:
    async def main() -> None:
        async with pair(tcp=True) as (transport, _, theirs):
            assert transport.get_extra_info("peername") == theirs.getsockname()
            assert transport.get_extra_info("sockname") == theirs.getpeername()
            assert transport.get_extra_info("ssl_object", "none") == "none"

    run(main())


# --- in a hurry -------------------------------------------------------------------------------------


def test_who_is_in_a_hurry_is_read_first_writes_and_closes_as_any(loop_runs: Both) -> None:
    async def main() -> None:
        order: list[str] = []
        async with pair() as (one, first, theirs), pair() as (other, second, others):
            first.data_received = lambda data: order.append("hurried")  # type: ignore[method-assign]
            second.data_received = lambda data: order.append("other")  # type: ignore[method-assign]
            transports.hurry(one, True)
            transports.hurry(one, True)
            for sock in (others, theirs):
                sock.send(b"x")
            await until(lambda: len(order) == 2)
            assert order == ["hurried", "other"]
            one.write(b"y" * 10_000_000)
            assert one.get_write_buffer_size()
            taken = 0
            while taken < 10_000_000:
                await asyncio.sleep(0)
                with contextlib.suppress(BlockingIOError):
                    taken += len(theirs.recv(1 << 20))
            transports.hurry(one, False)
            for sock in (others, theirs):
                sock.send(b"x")
            await until(lambda: len(order) == 4)
            assert order[2:] == ["other", "hurried"]
            transports.hurry(one, True)
            one.abort()
            transports.hurry(one, False)
            await until(lambda: "lost" in first.heard)
            other.close()

    loop_runs(main())
