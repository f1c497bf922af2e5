"""uvicorn as a guest on the process's loop: no signal handlers, no logs of its own, nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Sequence
from typing import Protocol

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from proxy.control.api.app import make_app
from proxy.control.api.desk import Desk
from proxy.errors import ConfigError

MOST_CONNECTIONS = 200
PATIENCE = 10.0  # seconds for a request to begin, and to have come


class _Guest(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listening(host: str, port: int) -> socket.socket:
    """The socket of `http_addr`. Raises ConfigError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host if host != "*" else "", port))
        sock.listen(128)
    except OSError as error:
        sock.close()
        raise ConfigError(f"cannot listen on {host}:{port} (http_addr): {error.strerror or error}") from None
    return sock


class _Bounded(H11Protocol):
    """Not more connections than the process can spare, which has clients to serve, and none that says nothing."""

    _silence: asyncio.TimerHandle | None = None
    _seen: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        else:
            self._silence = self.loop.call_later(PATIENCE, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._silence is not None:
            self._silence.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        """Closes it if there was no request since the last look, and none is under way."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is self._seen and (cycle is None or cycle.response_complete):
            self.transport.close()
        else:
            self._seen = cycle
            self._silence = self.loop.call_later(PATIENCE, self._look)


class Companion(Protocol):
    def start(self) -> None: ...
    async def stop(self) -> None: ...


class Http:
    """`certificate` and key are files for TLS, or empty. The `companions` live as long as it serves."""

    def __init__(
        self, desk: Desk, certificate: str = "", key: str = "", companions: Sequence[Companion] = ()
    ) -> None:
        self._desk = desk
        self._companions = companions
        self._certificate = certificate
        self._key = key
        self._config: uvicorn.Config | None = None
        self._server: _Guest | None = None
        self._task: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Returns when it answers. Raises ConfigError if it cannot listen."""
        await self.serve(listening(host, port))

    async def serve(self, sock: socket.socket) -> None:
        """The same on a socket that listens already, which it closes at its end."""
        self.port = sock.getsockname()[1]
        config = uvicorn.Config(
            make_app(self._desk), log_config=None, log_level="warning", access_log=False, lifespan="off", ws="none",
            http=_Bounded, timeout_graceful_shutdown=1,
            ssl_certfile=self._certificate or None, ssl_keyfile=self._key or None,
        )  # fmt: skip
        try:
            config.load()
        except (OSError, ValueError) as error:
            sock.close()
            raise ConfigError(f"cannot use {self._certificate} (http_tls_cert_file): {error}") from None
        self._config = config
        self._server = _Guest(config)
        self._task = asyncio.get_running_loop().create_task(self._server.serve(sockets=[sock]))
        while not self._server.started and not self._task.done():
            await asyncio.sleep(0.005)
        for companion in self._companions:
            companion.start()

    def reload(self) -> None:
        """A certificate that was renewed is for those who come from now on. Raises ConfigError."""
        if self._config is not None and self._config.ssl is not None:
            try:
                self._config.ssl.load_cert_chain(self._certificate, self._key)
            except (OSError, ValueError) as error:
                raise ConfigError(f"cannot use {self._certificate} (http_tls_cert_file): {error}") from None

    async def rest(self) -> None:
        """The companions do what is left to do, and no more: for a while in which nobody can be asked."""
        for companion in self._companions:
            await companion.stop()

    async def stop(self) -> None:
        if self._server is None or self._task is None:
            return
        await self.rest()
        self._server.should_exit = True
        await self._task
        self._server = self._task = None
        await self._desk.tenancy.close()
