"""Cancel requests to servers: what they say, when they are over, and that they leave nothing."""

from __future__ import annotations

import asyncio
import struct

import pytest

from proxy.cli.embedded import EmbeddedServer
from proxy.errors import ServerLost
from proxy.model import Endpoint, Role, TlsOptions
from proxy.net.tls import ServerTls, server_tls
from proxy.server.cancel import cancel
from proxy.wire import decode, encode
from tests.integration.servers import Certificates, DebianServer, Server, backends
from tests.server.fakes import packet, reset, run, serving, silent_port
from tests.server.test_login import log_in, of

PLAIN = server_tls(TlsOptions("disable"))


def test_what_is_said_and_that_it_waits_for_the_end() -> None:
    async def main() -> None:
        hang_up = asyncio.Event()
        seen: list[bytes] = []
        arrived = asyncio.Event()

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await packet(reader))
            arrived.set()
            await hang_up.wait()

        async with serving(handler) as endpoint:
            for key in (b"key!", bytes(range(32))):
                hang_up.clear()
                arrived.clear()
                task = asyncio.create_task(cancel(endpoint, 0xFFFFFFFE, key, PLAIN, 10))
                await arrived.wait()
                assert not task.done()
                hang_up.set()
                await task
                assert seen.pop() == struct.pack("!II", 80877102, 0xFFFFFFFE) + key

    run(main())


def test_a_server_that_resets_has_hung_up_too() -> None:
    async def main() -> None:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await packet(reader)
            reset(writer)

        async with serving(handler) as endpoint:
            await cancel(endpoint, 1, b"key!", PLAIN, 10)

    run(main())


def test_a_server_that_does_not_hang_up_is_left() -> None:
    async def main() -> None:
        gone = asyncio.Event()

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await packet(reader)
            await reader.read()
            gone.set()

        async with serving(handler) as endpoint:
            with pytest.raises(ServerLost, match="cancel_wait_timeout"):
                await cancel(endpoint, 1, b"key!", PLAIN, 0.05)
            await gone.wait()

    run(main())


def test_a_server_that_is_not_there() -> None:
    sock, port = silent_port()

    async def main() -> None:
        with pytest.raises(ServerLost):
            await cancel(Endpoint("127.0.0.1", port, Role.PRIMARY), 1, b"key!", PLAIN, 10)

    try:
        run(main())
    finally:
        sock.close()


async def cancelled(server: Server, tls: ServerTls) -> str:
    """A query that would take a minute: cancelled with a wrong key, then with its own. Its SQLSTATE."""
    endpoint = of(server)
    login = await log_in(endpoint, tls=tls)
    try:
        login.stream.write(encode.query(b"SELECT pg_sleep(60)"))
        running = f"pid = {login.pid} AND state = 'active' AND wait_event = 'PgSleep'"
        while not await asyncio.to_thread(backends, server, running):
            pass
        wrong = bytes(byte ^ 1 for byte in login.key)
        await cancel(endpoint, login.pid, wrong, tls, 10)
        assert await asyncio.to_thread(backends, server, running)
        await cancel(endpoint, login.pid, login.key, tls, 10)
        while True:
            kind, body = await login.stream.read_message()
            if kind == ord("E"):
                return decode.error_fields(body)["C"]
    finally:
        login.stream.transport.abort()


def test_postgresql_cancels(dedicated: EmbeddedServer) -> None:
    for sslmode in ("disable", "prefer"):
        assert run(cancelled(dedicated, server_tls(TlsOptions(sslmode)))) == "57014"


def test_postgresql_cancels_over_tls(tls_server: DebianServer, certificates: Certificates) -> None:
    assert (
        run(cancelled(tls_server, server_tls(TlsOptions("verify-full", ca_file=certificates.ca)))) == "57014"
    )
