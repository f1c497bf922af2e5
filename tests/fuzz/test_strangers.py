"""Whoever has not logged in yet, at random: requests, handshakes, alerts, records and plain text, hurt anywhere and cut
anywhere. Each must come to its end, leave nothing, and be no bug in the log; and those beside it are served.

An attempt is a right one up to some flight (what is said before an answer is waited for), which is then hurt.
"""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from random import Random

import pytest

from proxy import log
from proxy.model import TlsOptions
from proxy.net.tls import ALPN, client_tls
from tests.client.gate import OPTIONS, Gate, gate
from tests.examples import examples
from tests.integration.servers import Certificates
from tests.rawclient import GSSENC_REQUEST, SSL_REQUEST, cancel_request, query, startup

TRUSTED = startup({"user": "trusted@acme", "database": "db"})
PATIENCE = 20.0  # seconds for an end that must come at once


@pytest.fixture(scope="module")
def door(certificates: Certificates) -> Iterator[Gate]:
    made = client_tls(
        TlsOptions("prefer", cert_file=certificates.server_cert, key_file=certificates.server_key)
    )
    with gate(OPTIONS, made) as door:
        yield door


@pytest.fixture(scope="module")
def contexts(certificates: Certificates) -> list[ssl.SSLContext]:
    made = []
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = ssl.create_default_context(cafile=certificates.ca)
        context.maximum_version = version
        context.set_alpn_protocols([ALPN])
        made.append(context)
    return made


# --- how a flight is hurt ---------------------------------------------------------------------------


def _flipped(rng: Random, data: bytes) -> bytes:
    hurt = bytearray(data)
    for _ in range(rng.choice((1, 1, 8))):
        hurt[rng.randrange(len(hurt))] ^= 1 << rng.randrange(8)
    return bytes(hurt)


def _with(rng: Random, data: bytes, more: bytes) -> bytes:
    at = rng.choice((0, len(data), rng.randrange(len(data))))
    return data[:at] + more + data[at:]


def _alert(rng: Random) -> bytes:
    return b"\x15\x03\x03\0\x02" + bytes((rng.choice((0, 1, 2)), rng.choice((0, 10, 40, 90, 100, 255))))


def _record(rng: Random) -> bytes:
    kind, length = (
        rng.choice((0, 0x14, 0x15, 0x16, 0x17, 0x18, 0xFF)),
        rng.choice((0, 1, 300, 16_384, 65_535)),
    )
    there = rng.randrange(min(length, 400) + 1)
    return struct.pack("!BHH", kind, rng.choice((0x0300, 0x0303, 0x0304, 0xFFFF)), length) + rng.randbytes(
        there
    )


WAYS: dict[str, Callable[[Random, bytes], bytes]] = {
    "flipped": _flipped,
    "cut short": lambda rng, data: data[: rng.randrange(len(data))],
    "twice": lambda rng, data: data + data,
    "an alert": lambda rng, data: _with(rng, data, _alert(rng)),
    "alerts": lambda rng, data: _with(rng, data, _alert(rng) * 500),
    "a record": lambda rng, data: _with(rng, data, _record(rng)),
    "records without text": lambda rng, data: data + b"\x17\x03\x03\0\0" * 500,
    "changes of ciphers": lambda rng, data: data + b"\x14\x03\x03\0\x01\x01" * 500,
    "plain text": lambda rng, data: _with(rng, data, rng.choice((TRUSTED, query("SELECT 1"), SSL_REQUEST))),
    "garbage": lambda rng, data: _with(rng, data, rng.randbytes(rng.choice((1, 5, 70_000)))),
    "only garbage": lambda rng, data: rng.randbytes(rng.choice((4, 8, 200, 20_000))),
    "requests": lambda rng, data: rng.choice((SSL_REQUEST, GSSENC_REQUEST)) * 300 + data,
    "a cancel": lambda rng, data: cancel_request(
        rng.getrandbits(31), rng.randbytes(rng.choice((1, 4, 256, 300)))
    ),
    "nothing": lambda rng, data: data,
}


# --- one stranger -----------------------------------------------------------------------------------


class Stranger:
    """`say` hurts the flight whose turn it is, and says then that it is over."""

    def __init__(self, rng: Random, port: int, context: ssl.SSLContext, hurt: int, way: str) -> None:
        self._rng, self._hurt, self._way = rng, hurt, way
        self._flight = -1
        self._sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    def say(self, data: bytes) -> bool:
        self._flight += 1
        over = self._flight == self._hurt
        if over:
            data = WAYS[self._way](self._rng, data)
        step = self._rng.choice((1, 7, 100, len(data) or 1)) if len(data) < 2_000 else len(data)
        for at in range(0, len(data), step):
            self._sock.sendall(data[at : at + step])
        return not over

    def hear(self) -> bytes:
        data = self._sock.recv(65_536)
        if not data:
            raise ConnectionResetError
        return data

    def speak(self) -> None:
        """All that a client says until it has its first answer; returns earlier where it was hurt."""
        rng = self._rng
        if rng.random() < 0.7:  # else TLS at once
            request = rng.choice((SSL_REQUEST, SSL_REQUEST, GSSENC_REQUEST, TRUSTED))
            if not self.say(request):
                return
            if request != SSL_REQUEST:
                return
            self._sock.recv(1)
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                if not self.say(self._outgoing.read()):
                    return
            self._incoming.write(self.hear())
        for text in (TRUSTED, query("SELECT 1")):
            self._tls.write(text)
            if not self.say(self._outgoing.read()):
                return
            self._incoming.write(self.hear())

    def end(self) -> None:
        """In one of three ways; where it still listens, the other side must end as well."""
        how = self._rng.choice(("half", "half", "close", "reset"))
        if how == "reset":
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how == "half":
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                while self._sock.recv(65_536):
                    pass
        self._sock.close()


@pytest.mark.parametrize("way", WAYS)
def test_strangers(door: Gate, contexts: list[ssl.SSLContext], way: str) -> None:
    logged = io.StringIO()
    log.configure("json", "error", logged)
    rng = Random(way)
    for number in range(examples(16)):
        stranger = Stranger(rng, door.port, contexts[number % 2], rng.randrange(5), way)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            stranger.speak()
        stranger.end()
    client = door.client()
    client.start_tls(contexts[1], "localhost")
    client.log_in("trusted@acme")
    assert client.value("SELECT 1") == "trusted tls"
    client.close()
    door.nobody_pending()
    assert logged.getvalue() == ""
    assert door._unheard == []
