"""Sockets that only record: a transport without a loop, and a network of servers that answer when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator, Mapping
from typing import Any, cast

import pytest

from proxy.errors import TiergateError
from proxy.model import Endpoint, Role, ServerOptions
from proxy.net.stream import LoginStream
from proxy.net.tls import ServerTls
from proxy.server import cancel, login
from proxy.server.pools import Pools
from proxy.stats import ProcessStats
from proxy.wire import encode

PLAIN_TEXT = ServerTls("disable", None)
REPORTED = {"server_version": "18.0", "client_encoding": "UTF8", "TimeZone": "UTC", "application_name": ""}


class Transport(asyncio.Transport):
    """Keeps what is written. As in asyncio, `connection_lost` comes after `close` and `abort`, not within."""

    def __init__(self, protocol: asyncio.BaseProtocol | None = None) -> None:
        super().__init__()
        self.protocol = protocol
        self.written = bytearray()
        self.reading = True
        self.closed = False
        self.aborted = False
        self.lost = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self.protocol is not None
        return self.protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        assert not self.lost, "written to a lost connection"
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def is_reading(self) -> bool:
        return self.reading

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.closed, "reading resumed on a closed transport"
        self.reading = True

    # --- what a test does ---------------------------------------------------------------------------

    def take(self) -> bytes:
        """What has been written since the last time."""
        data = bytes(self.written)
        self.written.clear()
        return data

    def say(self, *data: bytes) -> None:
        """The peer's bytes arrive, all in one chunk."""
        assert self.reading, "the peer is not read"
        assert not self.lost
        cast(asyncio.Protocol, self.protocol).data_received(b"".join(data))

    def hang_up(self, error: Exception | None = None) -> None:
        """The connection is over, whoever ended it."""
        if not self.lost:
            self.lost = self.closed = True
            cast(asyncio.Protocol, self.protocol).connection_lost(error)


class _Stream:
    """What a login to a server leaves."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    def take_over(self, protocol: asyncio.BaseProtocol) -> bytes:
        self.transport.set_protocol(protocol)
        return b""


class Gate:
    """Coroutines that wait here go on when it is opened."""

    def __init__(self) -> None:
        self.open = True

    def __await__(self) -> Generator[None]:
        while not self.open:
            yield


class _Turn:
    def __await__(self) -> Generator[None]:
        yield


async def _next_step(_: float) -> None:
    await _Turn()


class Network:
    """All servers there are. What is asked of them is kept; they answer at once while their gates are open."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.servers: list[Transport] = []
        self.endpoints: list[Endpoint] = []
        self.logins: list[dict[str, Any]] = []
        self.cancels: list[int] = []
        self.connecting, self.cancelling = Gate(), Gate()
        self.refusal: BaseException | None = None
        self.down: dict[Endpoint, TiergateError] = {}
        self.cancel_fails: TiergateError | None = None
        self.reported: Mapping[str, str] = REPORTED
        self.born_dead = 0  # how many of the next connections are lost before anybody has them
        monkeypatch.setattr(asyncio, "sleep", _next_step)
        monkeypatch.setattr(login, "connect", self._connect)
        monkeypatch.setattr(cancel, "cancel", self._cancel)

    async def _connect(self, endpoint: Endpoint, **asked: Any) -> login.ServerLogin:
        self.logins.append(asked | {"endpoint": endpoint})
        await self.connecting
        if self.refusal is not None:
            raise self.refusal
        if endpoint in self.down:
            raise self.down[endpoint]
        transport = Transport()
        transport.closed = self.born_dead > 0
        self.born_dead -= transport.closed
        self.servers.append(transport)
        self.endpoints.append(endpoint)
        stream = cast(LoginStream, _Stream(transport))
        return login.ServerLogin(stream, dict(self.reported), 100 + len(self.servers), b"key!")

    async def _cancel(self, endpoint: Endpoint, pid: int, *_: Any) -> None:
        await self.cancelling
        self.cancels.append(pid)
        if self.cancel_fails is not None:
            raise self.cancel_fails

    def hang_ups(self) -> None:
        """Servers that were told goodbye, or were cut off, hang up."""
        for transport in self.servers:
            if transport.aborted or transport.written.endswith(encode.TERMINATE):
                transport.hang_up()

    @property
    def open(self) -> list[Transport]:
        return [transport for transport in self.servers if not transport.closed]


class SteppedPools(Pools):
    """Pools whose tasks run when a test says so, without a loop."""

    def __init__(self, options: ServerOptions | None = None) -> None:
        super().__init__(options or ServerOptions(), PLAIN_TEXT, ProcessStats())
        self._work: list[Coroutine[Any, Any, None]] = []

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        self._work.append(work)

    def step(self) -> None:
        """Every task runs until it waits or is over; so do those that they start."""
        waiting = []
        while self._work:
            work = self._work.pop(0)
            try:
                work.send(None)
            except StopIteration:
                continue
            waiting.append(work)
        self._work = waiting

    @property
    def busy(self) -> int:
        return len(self._work)


def endpoint(host: str = "db", port: int = 5432, role: Role = Role.PRIMARY) -> Endpoint:
    return Endpoint(host, port, role)
