"""TLS over a plain socket's transport, however its records are cut: handshakes, both ways, pauses, and both ends."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.model import TlsOptions
from proxy.net import secure, transport
from proxy.net.secure import SecureTransport
from proxy.net.tls import client_tls, server_name
from proxy.net.transport import HIGH, LOW
from tests.net.test_transport import Recorder, until
from tests.server.fakes import run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.servers import Certificates

Both = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["uvloop", "asyncio"])
def loop_runs(request: pytest.FixtureRequest) -> Both:
    return lambda main: run(main, stdlib=request.param == "asyncio")


@pytest.fixture(scope="module")
def ours(certificates: Certificates) -> ssl.SSLContext:
    made = client_tls(
        TlsOptions("require", cert_file=certificates.server_cert, key_file=certificates.server_key)
    )
    assert made is not None
    return made.context


@pytest.fixture(scope="module")
def theirs(certificates: Certificates) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificates.ca)


class Peer:
    """The other end, which decides when each of its bytes is sent."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, server_side: bool = False) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        host = None if server_side else "localhost"
        self.tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=host
        )
        self.data = b""
        self._eof = False
        self.ended = False  # by a close_notify

    async def shake_hands(self, step: int = 65_536) -> None:
        async with asyncio.timeout(10):
            while True:
                try:
                    self.tls.do_handshake()
                    await self.send_raw(self._outgoing.read(), step)
                    return
                except ssl.SSLWantReadError:
                    await self.send_raw(self._outgoing.read(), step)
                    while not self._receive():
                        await asyncio.sleep(0)

    def encrypted(self, data: bytes) -> bytes:
        self.tls.write(data)
        return self._outgoing.read()

    async def send(self, data: bytes, step: int = 65_536) -> None:
        await self.send_raw(self.encrypted(data), step)

    async def send_raw(self, data: bytes, step: int = 65_536) -> None:
        for at in range(0, len(data), step):
            piece = data[at : at + step]
            async with asyncio.timeout(10):
                while piece:
                    with contextlib.suppress(BlockingIOError):
                        piece = piece[self.sock.send(piece) :]
                    await asyncio.sleep(0)

    def goodbye(self) -> bytes:
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self._outgoing.read()

    def _receive(self) -> bool:
        try:
            data = self.sock.recv(65_536)
        except BlockingIOError:
            return False
        if data:
            self._incoming.write(data)
        elif not self._eof:
            self._eof = True
            self._incoming.write_eof()
        else:
            return False
        return True

    def read(self) -> None:
        """What is there, until nothing is. Raises ssl.SSLEOFError at an end that nobody announced."""
        while self._receive():
            with contextlib.suppress(ssl.SSLWantReadError):
                while not self.ended:
                    plain = self.tls.read(65_536)
                    self.data += plain
                    self.ended = not plain

    async def read_until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.read()
                await asyncio.sleep(0.001)


def raw_pair() -> tuple[socket.socket, socket.socket]:
    mine, other = socket.socketpair()
    mine.setblocking(False)
    return mine, other


@contextlib.asynccontextmanager
async def shaking(
    ours: ssl.SSLContext, theirs: ssl.SSLContext, recorder: Recorder | None = None
) -> AsyncIterator[tuple[SecureTransport, Recorder, Peer, asyncio.Task[None]]]:
    mine, other = raw_pair()
    recorder = recorder or Recorder()
    made = SecureTransport(asyncio.get_running_loop(), mine, recorder, ours)
    task = asyncio.get_running_loop().create_task(made.shake_hands())
    try:
        yield made, recorder, Peer(other, theirs), task
    finally:
        other.close()
        task.cancel()
        await asyncio.wait([task])
        made.abort()
        await until(lambda: "lost" in recorder.heard)
        assert recorder.heard.count("lost") == 1


@contextlib.asynccontextmanager
async def pair(
    ours: ssl.SSLContext, theirs: ssl.SSLContext
) -> AsyncIterator[tuple[SecureTransport, Recorder, Peer]]:
    async with shaking(ours, theirs) as (made, recorder, peer, task):
        await peer.shake_hands()
        await task
        yield made, recorder, peer


def numbered(size: int) -> bytes:
    return b"".join(struct.pack("!I", n) for n in range(size // 4))


# --- the handshake ----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 7, 65_536])
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_a_handshake_and_what_follows_in_pieces(
    loop_runs: Both, ours: ssl.SSLContext, certificates: Certificates, version: str, step: int
) -> None:
    theirs = ssl.create_default_context(cafile=certificates.ca)
    theirs.maximum_version = ssl.TLSVersion[version]

    async def main() -> None:
        async with shaking(ours, theirs) as (made, recorder, peer, task):
            await peer.shake_hands(step)
            await task
            await peer.send(b"a question", step)
            await until(lambda: recorder.data == b"a question")
            made.write(b"an answer")
            await peer.read_until(lambda: peer.data == b"an answer")
            tls = made.get_extra_info("ssl_object")
            assert tls.version() == version.replace("_", ".")
            assert server_name(tls) == "localhost"

    loop_runs(main())


def test_what_comes_with_the_end_of_the_handshake_is_told(
    loop_runs: Both, ours: ssl.SSLContext, theirs: ssl.SSLContext
) -> None:
    """A client of TLS 1.3 says its first words behind its part of the handshake, in the same packet."""

    async def main() -> None:
        async with shaking(ours, theirs) as (_, recorder, peer, task):
            said = b""
            while not said:
                try:
                    peer.tls.do_handshake()
                    said = peer.encrypted(b"early")
                except ssl.SSLWantReadError:
                    await peer.send_raw(peer._outgoing.read())
                    while not peer._receive():
                        await asyncio.sleep(0)
            peer.sock.send(said)
            await task
            await until(lambda: recorder.data == b"early")

    loop_runs(main())


def test_what_is_no_tls_is_refused(loop_runs: Both, ours: ssl.SSLContext, theirs: ssl.SSLContext) -> None:
    async def main() -> None:
        for said in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\xff\xff" + bytes(70_000),
            bytes(5),
            b"\x16" * 600,
        ):
            async with shaking(ours, theirs) as (made, recorder, peer, task):
                with contextlib.suppress(OSError):
                    await peer.send_raw(said)
                with pytest.raises(ssl.SSLError):
                    await task
                await until(lambda recorder=recorder: recorder.heard == ["lost"])
                assert made.is_closing()
                assert recorder.data == b""

    loop_runs(main())


def test_who_goes_or_falls_silent_within_the_handshake_is_lost(
    loop_runs: Both, ours: ssl.SSLContext, theirs: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with shaking(ours, theirs) as (_, recorder, peer, task):
            peer.sock.close()
            with pytest.raises(ConnectionResetError):
                await task
            await until(lambda: recorder.heard == ["eof", "lost"])
        monkeypatch.setattr(secure, "HANDSHAKE", 0.01)
        async with shaking(ours, theirs) as (made, recorder, _, task):
            with pytest.raises(ConnectionAbortedError):
                await task
            assert made.is_closing()
            await until(lambda: recorder.heard == ["lost"])
        monkeypatch.undo()
        async with shaking(ours, theirs) as (made, recorder, _, task):
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert made.is_closing()
        async with shaking(ours, theirs) as (made, recorder, _, task):
            await asyncio.sleep(0)
            made.close()
            with pytest.raises(ConnectionResetError):
                await task

    loop_runs(main())


def test_a_certificate_that_the_peer_does_not_trust(
    loop_runs: Both, ours: ssl.SSLContext, certificates: Certificates
) -> None:
    async def main() -> None:
        stranger = ssl.create_default_context(cafile=certificates.stranger_ca)
        async with shaking(ours, stranger) as (_, recorder, peer, task):
            with pytest.raises(ssl.SSLCertVerificationError):
                await peer.shake_hands()
            await peer.send_raw(peer._outgoing.read())
            with pytest.raises(ssl.SSLError):
                await task
            await until(lambda: recorder.heard == ["lost"])

    loop_runs(main())


def test_as_a_client(loop_runs: Both, ours: ssl.SSLContext, theirs: ssl.SSLContext) -> None:
    async def main() -> None:
        for host, name_is_good in (("localhost", True), ("elsewhere.test", False)):
            mine, other = raw_pair()
            recorder = Recorder()
            made = SecureTransport(asyncio.get_running_loop(), mine, recorder, theirs, host)
            peer = Peer(other, ours, server_side=True)
            task = asyncio.get_running_loop().create_task(made.shake_hands())
            with other:
                if name_is_good:
                    await peer.shake_hands()
                    await task
                    assert made.get_extra_info("ssl_object").getpeercert()
                    await peer.send(b"welcome")
                    await until(lambda recorder=recorder: recorder.data == b"welcome")
                    made.abort()
                else:
                    with pytest.raises(ssl.SSLError):
                        await peer.shake_hands()
                    with pytest.raises(ssl.SSLCertVerificationError):
                        await task
                await until(lambda recorder=recorder: "lost" in recorder.heard)

    loop_runs(main())


def test_a_name_that_none_can_have_leaves_the_socket_alone(theirs: ssl.SSLContext) -> None:
    async def main() -> None:
        mine, other = raw_pair()
        with mine, other, pytest.raises(ValueError, match="label"):
            SecureTransport(asyncio.get_running_loop(), mine, Recorder(), theirs, ".nowhere")
        assert mine.fileno() == -1  # closed by us, not taken

    run(main())


# --- both ways --------------------------------------------------------------------------------------


def test_what_is_written_is_sent_in_the_same_call(
    loop_runs: Both, ours: ssl.SSLContext, theirs: ssl.SSLContext
) -> None:
    async def main() -> None:
        async with pair(ours, theirs) as (made, _, peer):
            made.write(b"at once")
            peer.read()
            assert peer.data == b"at once"
            made.write(b"")
            assert not peer._receive()

    loop_runs(main())


def test_a_slow_reader_gets_all_in_order_and_the_writer_is_paused(
    loop_runs: Both, ours: ssl.SSLContext, theirs: ssl.SSLContext
) -> None:
    async def main() -> None:
        async with pair(ours, theirs) as (made, recorder, peer):
            sent = numbered(2_000_000)
            for at in range(0, len(sent), 100_000):
                made.write(sent[at : at + 100_000])
            assert made.get_write_buffer_size() > HIGH
            assert recorder.heard == ["pause"]
            await peer.read_until(lambda: len(peer.data) == len(sent))
            assert peer.data == sent
            assert recorder.heard == ["pause", "resume"]
            assert made.get_write_buffer_size() <= LOW

    loop_runs(main())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.integers(1, 40_000), min_size=1, max_size=5),
    cuts=st.lists(st.integers(1, 20_000), max_size=12),
    answers=st.lists(st.integers(1, 150_000), max_size=3),
)
def test_however_it_is_cut(
    ours: ssl.SSLContext, theirs: ssl.SSLContext, texts: list[int], cuts: list[int], answers: list[int]
) -> None:
    async def main() -> None:
        async with pair(ours, theirs) as (made, recorder, peer):
            sent = numbered(200_000)[: sum(texts)]
            raw, at = b"", 0
            for size in texts:
                raw += peer.encrypted(sent[at : at + size])
                at += size
            for cut in [*cuts, len(raw)]:
                await peer.send_raw(raw[:cut])
                raw = raw[cut:]
            await until(lambda: len(recorder.data) == len(sent))
            assert recorder.data == sent
            back = [numbered(160_000)[:size] for size in answers]
            for answer in back:
                made.write(answer)
            await peer.read_until(lambda: len(peer.data) == sum(answers))
            assert peer.data == b"".join(back)

    run(main(), stdlib=False)


def test_one_receive_is_told_at_once_and_a_pause_leaves_the_rest(
    loop_runs: Both, ours: ssl.SSLContext, theirs: ssl.SSLContext
) -> None:
    async def main() -> None:
        async with pair(ours, theirs) as (made, recorder, peer):
            told: list[bytes] = []

            def once(data: bytes) -> None:
                told.append(data)
                made.pause_reading()

            recorder.data_received = once  # type: ignore[method-assign]
            peer.sock.send(b"".join(peer.encrypted(b"%d" % n) for n in range(10)))
            await until(lambda: told)
            assert told == [b"0123456789"]
            peer.sock.send(peer.encrypted(b"more"))
            for _ in range(5):
                await asyncio.sleep(0)
            assert len(told) == 1
            made.resume_reading()
            await until(lambda: told == [b"0123456789", b"more"])

    loop_runs(main())


def test_half_a_record_is_no_end(loop_runs: Both, ours: ssl.SSLContext, theirs: ssl.SSLContext) -> None:
    async def main() -> None:
        async with pair(ours, theirs) as (made, recorder, peer):
            half = peer.encrypted(b"in two parts")
            peer.sock.send(half[:3])
            for _ in range(5):
                await asyncio.sleep(0)
            assert recorder.heard == []
            assert recorder.data == b""
            peer.sock.send(half[3:])
            await until(lambda: recorder.data == b"in two parts")
            assert not made.is_closing()

    loop_runs(main())


# --- what wants an answer of OpenSSL's own ----------------------------------------------------------


class KeyUpdates:
    """Makes records of a client of TLS 1.3 that ask for new keys, which no interface of Python's does."""

    def __init__(self, keylog: Path) -> None:
        (line,) = [
            line for line in keylog.read_text().splitlines() if line.startswith("CLIENT_TRAFFIC_SECRET_0")
        ]
        self._secret, self._number = bytes.fromhex(line.split()[2]), 0

    def _derived(self, label: bytes, length: int) -> bytes:
        label = b"tls13 " + label
        info = struct.pack("!HB", length, len(label)) + label + b"\0\x01"
        return hmac.new(self._secret, info, hashlib.sha384).digest()[:length]

    def make(self, more: bytes = b"") -> bytes:
        """One, and behind it a record with `more`."""
        made = self._record(b"\x18\0\0\x01\x01", b"\x16")  # key_update, update_requested
        self._secret, self._number = self._derived(b"traffic upd", 48), 0
        return made + (self._record(more, b"\x17") if more else b"")

    def _record(self, text: bytes, kind: bytes) -> bytes:
        number, self._number = self._number, self._number + 1
        head = b"\x17\x03\x03" + struct.pack("!H", len(text) + 1 + 16)
        nonce = bytes(
            a ^ b for a, b in zip(self._derived(b"iv", 12), number.to_bytes(12, "big"), strict=True)
        )
        return head + AESGCM(self._derived(b"key", 32)).encrypt(nonce, text + kind, head)


@contextlib.asynccontextmanager
async def updating(
    ours: ssl.SSLContext, certificates: Certificates, tmp_path: Path
) -> AsyncIterator[tuple[SecureTransport, Recorder, Peer, KeyUpdates]]:
    theirs = ssl.create_default_context(cafile=certificates.ca)
    theirs.minimum_version = ssl.TLSVersion.TLSv1_3
    theirs.keylog_filename = str(tmp_path / "keys")
    async with pair(ours, theirs) as (made, recorder, peer):
        assert peer.tls.cipher()[0] == "TLS_AES_256_GCM_SHA384"  # type: ignore[index]
        yield made, recorder, peer, KeyUpdates(tmp_path / "keys")


@pytest.mark.parametrize("more", [b"", b"x"])
def test_whoever_asks_for_keys_and_reads_none_fills_no_memory(
    loop_runs: Both, ours: ssl.SSLContext, certificates: Certificates, tmp_path: Path, more: bytes
) -> None:
    """`more`: with text in the same receive, which is told without a look at what OpenSSL wants to say."""

    async def main() -> None:
        async with updating(ours, certificates, tmp_path) as (made, recorder, peer, updates):
            for _ in range(200):
                with contextlib.suppress(ConnectionError):
                    await peer.send_raw(b"".join(updates.make() for _ in range(200)) + updates.make(more))
                await asyncio.sleep(0)
                assert made.get_write_buffer_size() < 2 * HIGH
                if made.is_closing():
                    break
            await until(lambda: "lost" in recorder.heard)

    loop_runs(main())


def test_whoever_asks_for_keys_and_reads_them_gets_them(
    loop_runs: Both, ours: ssl.SSLContext, certificates: Certificates, tmp_path: Path
) -> None:
    async def main() -> None:
        async with updating(ours, certificates, tmp_path) as (made, recorder, peer, updates):
            for number in range(1, 41):
                await peer.send_raw(b"".join(updates.make() for _ in range(50)) + updates.make(b"x"))
                await until(lambda number=number: recorder.data == b"x" * number)
                made.write(b"y")
                await peer.read_until(lambda number=number: peer.data == b"y" * number)

    loop_runs(main())


# --- the end ----------------------------------------------------------------------------------------


def test_a_close_notify_ends_what_came_before_it(
    loop_runs: Both, ours: ssl.SSLContext, theirs: ssl.SSLContext
) -> None:
    async def main() -> None:
        for text in (b"last words", bytes(20_000), b""):
            async with pair(ours, theirs) as (_, recorder, peer):
                said = peer.encrypted(text) if text else b""
                await peer.send_raw(said + peer.goodbye())
                await until(lambda recorder=recorder: recorder.heard == ["eof", "lost"])
                assert recorder.data == text
                assert recorder.errors == [None]
                await peer.read_until(lambda peer=peer: not peer._receive() or True)

    loop_runs(main())


def test_a_close_notify_is_told_when_reading_goes_on(
    loop_runs: Both, ours: ssl.SSLContext, theirs: ssl.SSLContext
) -> None:
    async def main() -> None:
        async with pair(ours, theirs) as (made, recorder, peer):

            def hear(data: bytes) -> None:
                recorder.data += data
                made.pause_reading()

            recorder.data_received = hear  # type: ignore[method-assign]
            peer.sock.send(peer.encrypted(b"last words") + peer.goodbye())
            await until(lambda: recorder.data == b"last words")
            for _ in range(5):
                await asyncio.sleep(0)
            assert recorder.heard == []
            made.resume_reading()
            made.pause_reading()
            for _ in range(5):
                await asyncio.sleep(0)
            assert recorder.heard == []
            made.resume_reading()
            await until(lambda: recorder.heard == ["eof", "lost"])

    loop_runs(main())


def test_an_end_within_a_record_is_an_end(
    loop_runs: Both, ours: ssl.SSLContext, theirs: ssl.SSLContext
) -> None:
    async def main() -> None:
        async with pair(ours, theirs) as (_, recorder, peer):
            peer.sock.send(peer.encrypted(b"whole") + peer.encrypted(b"cut off")[:-1])
            await until(lambda: recorder.data == b"whole")
            peer.sock.close()
            await until(lambda: recorder.heard == ["eof", "lost"])
            assert recorder.data == b"whole"

    loop_runs(main())


def test_what_was_tampered_with_is_never_told(
    loop_runs: Both, ours: ssl.SSLContext, theirs: ssl.SSLContext
) -> None:
    async def main() -> None:
        for before in (b"", b"whole"):
            async with pair(ours, theirs) as (made, recorder, peer):
                said = peer.encrypted(before) if before else b""
                forged = bytearray(peer.encrypted(b"forged"))
                forged[-1] ^= 1
                peer.sock.send(said + bytes(forged))
                await until(lambda recorder=recorder: recorder.heard == ["lost"])
                assert recorder.data == before
                assert isinstance(recorder.errors[0], ssl.SSLError)
                with pytest.raises(ssl.SSLError, match=r"(?i)bad.record.mac"):  # we have said so
                    await peer.read_until(lambda: False)
                made.write(b"too late")
                made.close()

    loop_runs(main())


def test_closing_sends_what_is_kept_and_a_close_notify(
    loop_runs: Both, ours: ssl.SSLContext, theirs: ssl.SSLContext
) -> None:
    async def main() -> None:
        for size in (10, 3_000_000):
            async with pair(ours, theirs) as (made, recorder, peer):
                sent = numbered(size)
                made.write(sent)
                made.close()
                made.write(b"too late")
                made.close()
                assert made.is_closing()
                await peer.read_until(lambda peer=peer: peer.ended)
                assert peer.data == sent
                await until(lambda recorder=recorder: recorder.heard[-1] == "lost")

    loop_runs(main())


def test_a_peer_that_never_takes_the_rest_does_not_keep_the_socket(
    loop_runs: Both, ours: ssl.SSLContext, theirs: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "LINGER", 0.01)

    async def main() -> None:
        async with pair(ours, theirs) as (made, recorder, _):
            made.write(bytes(3_000_000))
            made.close()
            await until(lambda: "lost" in recorder.heard)

    loop_runs(main())


def test_aborting_says_nothing(loop_runs: Both, ours: ssl.SSLContext, theirs: ssl.SSLContext) -> None:
    async def main() -> None:
        async with pair(ours, theirs) as (made, recorder, peer):
            made.abort()
            made.abort()
            await until(lambda: recorder.heard == ["lost"])
            assert peer.sock.recv(100) == b""

    loop_runs(main())


def test_a_protocol_that_ends_within_what_it_is_told_hears_no_more(
    loop_runs: Both, ours: ssl.SSLContext, theirs: ssl.SSLContext
) -> None:
    async def main() -> None:
        for end in ("abort", "close"):
            async with pair(ours, theirs) as (made, recorder, peer):

                def hear(data: bytes, recorder: Recorder = recorder, end: str = end) -> None:
                    recorder.data += data
                    getattr(made, end)()

                recorder.data_received = hear  # type: ignore[method-assign]
                peer.sock.send(peer.encrypted(b"x") + peer.encrypted(b"y") + peer.goodbye())
                await until(lambda recorder=recorder: recorder.heard == ["lost"])
                assert recorder.data == b"xy"

    loop_runs(main())
