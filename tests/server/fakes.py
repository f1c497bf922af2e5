"""Servers that behave as a test says, and a run that leaves no socket and no task."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from proxy.model import Endpoint, Role
from proxy.net.readiness import Loop
from tests.integration.running import open_sockets

T = TypeVar("T")
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

SSL_REQUEST = struct.pack("!II", 8, 80877103)


def run(main: Coroutine[Any, Any, T], *, stdlib: bool = True) -> T:
    """Fails if a socket, a task or an unheard error is left.

    On asyncio's own loop unless told otherwise: closing a uvloop right behind a TLS connection that was aborted
    may wait for ever. The integration tests run on uvloop.
    """
    unheard: list[str] = []

    async def watched() -> T:
        before = open_sockets()  # the loop's own among them
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: unheard.append(repr(context)))
        async with asyncio.timeout(30):
            result = await main
        deadline = loop.time() + 10
        while left := asyncio.all_tasks() - {asyncio.current_task()}:
            assert loop.time() < deadline, left
            await asyncio.wait(left, timeout=0.01)
        while sockets := _new(before):
            gc.collect()
            assert loop.time() < deadline, sockets
            await asyncio.sleep(0.002)
        return result

    with asyncio.Runner(loop_factory=None if stdlib else Loop) as runner:
        result = runner.run(watched())
    assert not unheard
    return result


def _new(before: dict[str, str]) -> dict[str, str]:
    return {inode: text for inode, text in open_sockets().items() if inode not in before}


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[Endpoint]:
    """A listening server on loopback; each connection is given to `handler` and closed after it."""
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await handler(reader, writer)
        finally:
            tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield Endpoint("127.0.0.1", port, Role.PRIMARY)
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def packet(reader: asyncio.StreamReader) -> bytes:
    """An untyped packet (startup, SSLRequest, cancel) without its length."""
    length = int.from_bytes(await reader.readexactly(4), "big")
    return await reader.readexactly(length - 4)


async def message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    return head[:1], await reader.readexactly(int.from_bytes(head[1:], "big") - 4)


def saying(*said: bytes, stay: bool = True) -> Handler:
    """Reads the startup packet, says all of it, and stays until the client leaves."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await packet(reader)
        for data in said:
            writer.write(data)
            await writer.drain()
        if stay:
            await reader.read()

    return handler


def silent_port() -> tuple[socket.socket, int]:
    """A socket that is bound and does not listen: connecting to it is refused."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock, sock.getsockname()[1]


def reset(writer: asyncio.StreamWriter) -> None:
    """Ends the connection with a RST."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
