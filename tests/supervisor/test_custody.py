"""What becomes of the connections of a worker that has died."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from proxy.model import Endpoint, TlsOptions
from proxy.net.tls import server_tls
from proxy.server.custody import Custody
from proxy.supervisor import custody
from proxy.supervisor.custody import Vault
from tests.server.fakes import run, serving

NO_TLS = server_tls(TlsOptions("disable"))


class Scene:
    """A vault and one worker's end of it."""

    def __init__(self) -> None:
        self.released: list[tuple[int, tuple[str, ...]]] = []
        self.buried: list[int] = []
        self.vault = Vault(
            lambda: NO_TLS, lambda worker, caps: self.released.append((worker, caps)), self.buried.append
        )
        self.worker = Custody(self.vault.new(7))

    async def connect(self, endpoint: Endpoint) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (endpoint.host, endpoint.port))
        return sock

    async def dead(self) -> None:
        """The worker ends, and its funeral is over."""
        self.worker.close()
        self.vault.bury(7)
        async with asyncio.timeout(10):
            while not self.buried:
                await asyncio.sleep(0.005)

    async def close(self) -> None:
        await self.vault.close()


def test_an_idle_backend_takes_the_end_for_goodbye() -> None:
    async def main() -> None:
        ended = asyncio.Event()

        async def backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert await reader.read() == b""
            assert not scene.released
            ended.set()

        scene = Scene()
        async with serving(backend) as endpoint:
            sock = await scene.connect(endpoint)
            scene.worker.hold(endpoint, ("cluster c", "all")).connected(sock)
            sock.close()
            await scene.dead()
        assert ended.is_set()
        assert scene.released == [(7, ("cluster c", "all"))]
        assert scene.buried == [7]
        await scene.close()

    run(main())


def test_a_busy_backend_is_cancelled_until_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(custody, "_AGAIN", 0.1)

    async def main() -> None:
        cancels: list[bytes] = []
        enough = asyncio.Event()

        async def backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            first = await reader.read(4)
            if first:  # a cancel request
                cancels.append(await reader.readexactly(int.from_bytes(first, "big") - 4))
                if len(cancels) == 2:
                    enough.set()
                return
            writer.write(b"D" * 500_000)  # what it had to say is read, or it would never end
            await writer.drain()
            await enough.wait()
            assert not scene.released

        scene = Scene()
        async with serving(backend) as endpoint:
            sock = await scene.connect(endpoint)
            held = scene.worker.hold(endpoint, ("c",))
            held.connected(sock)
            held.known(4711, b"key!")
            sock.close()
            await scene.dead()
        assert [body[4:] for body in cancels] == [(4711).to_bytes(4, "big") + b"key!"] * 2
        assert scene.released == [(7, ("c",))]
        await scene.close()

    run(main())


def test_a_backend_that_never_goes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(custody, "_AGAIN", 0.05)
    monkeypatch.setattr(custody, "_LONGEST", 0.15)

    async def main() -> None:
        async def backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(100)

        scene = Scene()
        async with serving(backend) as endpoint:
            sock = await scene.connect(endpoint)
            scene.worker.hold(endpoint, ("c",)).connected(sock)
            sock.close()
            await scene.dead()
        assert scene.released == [(7, ("c",))]
        await scene.close()

    run(main())


def test_what_was_let_go_is_closed_at_once() -> None:
    async def main() -> None:
        async def backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            gone.set()

        gone = asyncio.Event()
        scene = Scene()
        async with serving(backend) as endpoint:
            sock = await scene.connect(endpoint)
            held = scene.worker.hold(endpoint, ("c",))
            held.connected(sock)
            held.closed()
            held.closed()
            sock.close()
            scene.vault.hear(7)
            await asyncio.wait_for(gone.wait(), 5)
            await scene.dead()
        assert scene.released == []
        await scene.close()

    run(main())


def test_only_the_last_of_several_sockets_is_held() -> None:
    async def main() -> None:
        async def backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        scene = Scene()
        async with serving(backend) as endpoint:
            held = scene.worker.hold(endpoint, ("c",))
            for _ in range(3):
                sock = await scene.connect(endpoint)
                held.connected(sock)
                sock.close()
            await scene.dead()
        assert scene.released == [(7, ("c",))]
        await scene.close()

    run(main())


def test_many_at_once_wait_for_the_reader() -> None:
    async def main() -> None:
        async def backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        scene = Scene()
        async with serving(backend) as endpoint:
            sock = await scene.connect(endpoint)
            every = [scene.worker.hold(endpoint, ("c" * 200,)) for _ in range(400)]
            for held in every:
                held.connected(sock)
            for held in every[1:]:
                held.closed()
            sock.close()
            async with asyncio.timeout(10):
                while scene.worker._unsent:
                    await asyncio.sleep(0.005)
            await scene.dead()
        assert len(scene.released) == 1
        await scene.close()

    run(main())


def test_a_vault_is_handed_on() -> None:
    async def main() -> None:
        async def backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        before, after = Scene(), Scene()
        after.worker.close()
        after.vault.bury(7)
        after.buried.clear()
        async with serving(backend) as endpoint:
            sock = await before.connect(endpoint)
            held = before.worker.hold(endpoint, ("c",))
            held.connected(sock)
            before.vault.hear(7)
            held.known(1, b"key!")  # on its way
            descriptors: list[int] = []
            handed = before.vault.hand_on(7, descriptors)
            assert len(descriptors) == 2
            new = {fd: os.dup(fd) for fd in descriptors}
            handed["end"] = new[handed["end"]]
            handed["held"] = [[row[0], new[row[1]], *row[2:]] for row in handed["held"]]
            await before.vault.close()
            after.vault.adopt(7, handed)
            sock.close()
            before.worker.close()
            after.vault.bury(7)
            async with asyncio.timeout(10):
                while not after.buried:
                    await asyncio.sleep(0.005)
        assert after.released == [(7, ("c",))]
        await after.close()

    run(main())
