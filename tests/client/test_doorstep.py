"""Not a byte more than a packet has is read in the clear, however the packets come."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest
import uvloop

from proxy.client.arrival import Arrival
from proxy.client.doorstep import Doorstep
from proxy.errors import ProtocolViolation
from proxy.net.stream import PeerGone
from proxy.net.tls import ClientTls
from proxy.wire import startup

SSL_REQUEST = (8).to_bytes(4, "big") + startup.SSL.to_bytes(4, "big")
GSSENC_REQUEST = (8).to_bytes(4, "big") + startup.GSSENC.to_bytes(4, "big")
STARTUP = (17).to_bytes(4, "big") + (3 << 16).to_bytes(4, "big") + b"user\0app\0"


class Guest:
    """An arrival that only notes what it is told."""

    address = "somewhere"

    def __init__(self) -> None:
        self.heard = b""
        self.errors: list[BaseException] = []
        self.transport: Any = None
        self.handshakes = 0

    def failed(self, error: BaseException) -> None:
        self.errors.append(error)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.heard += data

    def connection_lost(self, error: Exception | None) -> None: ...

    def wait_for(self, work: Coroutine[Any, Any, None]) -> None:
        self.handshakes += 1
        work.close()

    @property
    def decided(self) -> bool:
        return bool(self.errors or self.transport or self.handshakes)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


def meet(said: bytes, *, piecewise: bool = False, closing: bool = False) -> tuple[Guest, bytes, bytes]:
    """What became of a client that says so much, what it was answered, and what of it is still unread."""

    async def meeting() -> tuple[Guest, bytes, bytes]:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        loop = asyncio.get_running_loop()
        guest = Guest()
        doorstep = Doorstep(
            loop, ours.detach(), cast(Arrival, guest), cast(ClientTls, SimpleNamespace(context=None))
        )
        for piece in [said[i : i + 1] for i in range(len(said))] if piecewise else [said]:
            await loop.sock_sendall(theirs, piece)
            await asyncio.sleep(0.001 if piecewise else 0)
        if closing:
            theirs.shutdown(socket.SHUT_WR)
        await until(lambda: guest.decided)
        if guest.transport is not None:
            await until(lambda: guest.heard == said)
            guest.transport.abort()
            unread = b""
            await asyncio.sleep(0.001)
        else:
            unread = _unread(doorstep)
            doorstep.close()
        try:
            answered = theirs.recv(100)
        except BlockingIOError:
            answered = b""
        theirs.close()
        return guest, answered, unread

    return uvloop.run(meeting())


def _unread(doorstep: Doorstep) -> bytes:
    try:
        return doorstep._sock.recv(1000)
    except BlockingIOError:
        return b""


@pytest.mark.parametrize("piecewise", [False, True])
def test_who_asks_for_no_tls_goes_on_with_all_it_has_said(piecewise: bool) -> None:
    guest, answered, _ = meet(STARTUP, piecewise=piecewise)
    assert (guest.heard, answered, guest.errors) == (STARTUP, b"", [])


def test_what_stands_behind_an_ssl_request_is_left_to_tls() -> None:
    guest, answered, unread = meet(SSL_REQUEST + STARTUP)
    assert (guest.handshakes, guest.heard, answered) == (1, b"", b"S")
    assert unread == STARTUP


def test_a_handshake_that_comes_at_once_is_not_read_at_all() -> None:
    hello = b"\x16\x03\x01 the rest"
    guest, answered, unread = meet(hello)
    assert (guest.handshakes, answered, unread) == (1, b"", hello)


def test_gss_encryption_is_refused_once() -> None:
    guest, answered, unread = meet(GSSENC_REQUEST + SSL_REQUEST)
    assert (guest.handshakes, answered, unread) == (1, b"NS", b"")
    guest, answered, _ = meet(GSSENC_REQUEST * 2)
    assert [type(error) for error in guest.errors] == [ProtocolViolation]
    assert answered == b"N"


@pytest.mark.parametrize("said", [b"", STARTUP[:5]])
def test_who_leaves_within_its_first_packet_is_gone(said: bytes) -> None:
    guest, _, _ = meet(said, closing=True)
    assert [type(error) for error in guest.errors] == [PeerGone]


@pytest.mark.parametrize("said", [SSL_REQUEST[:7], GSSENC_REQUEST, GSSENC_REQUEST + STARTUP[:5]])
def test_who_resets_within_its_first_packet_is_gone(said: bytes) -> None:
    """What it said and the reset come at once, and of the reset the loop tells a single time."""

    async def meeting() -> list[BaseException]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            theirs = socket.create_connection(server.getsockname())
            ours, _ = server.accept()
        theirs.sendall(said)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        guest = Guest()
        doorstep = Doorstep(
            asyncio.get_running_loop(), ours.detach(), cast(Arrival, guest),
            cast(ClientTls, SimpleNamespace(context=None)),
        )  # fmt: skip
        await until(lambda: guest.decided)
        doorstep.close()
        return guest.errors

    (error,) = uvloop.run(meeting())
    assert isinstance(error, ConnectionError)
