"""uvicorn as a guest on the data plane's loop: no signal handlers, no logs of its own, nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn

from proxy.client.plane import Plane
from proxy.control.api.app import make_app
from proxy.errors import ConfigError


class _Guest(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Http:
    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._server: _Guest | None = None
        self._task: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Returns when it answers. Raises ConfigError if it cannot listen."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host if host != "*" else "", port))
            sock.listen(128)
        except OSError as error:
            sock.close()
            raise ConfigError(
                f"cannot listen on {host}:{port} (http_addr): {error.strerror or error}"
            ) from None
        self.port = sock.getsockname()[1]
        config = uvicorn.Config(
            make_app(self._plane), log_config=None, access_log=False, lifespan="off", ws="none",
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._server = _Guest(config)
        self._task = asyncio.get_running_loop().create_task(self._server.serve(sockets=[sock]))
        while not self._server.started and not self._task.done():
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        if self._server is None or self._task is None:
            return
        self._server.should_exit = True
        await self._task
        self._server = self._task = None
