"""Listeners: they take whoever comes, survive a shortage of descriptors, and leave nothing."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import os
import resource
import socket
import stat
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy import log
from proxy.errors import ConfigError
from proxy.model import TcpOptions
from proxy.net import listen
from proxy.net.listen import Listener, tcp_sockets, unix_socket
from proxy.net.readiness import IN
from tests.server.fakes import run

Both = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["uvloop", "asyncio"])
def loop_runs(request: pytest.FixtureRequest) -> Both:
    return lambda main: run(main, stdlib=request.param == "asyncio")


class Guests:
    """Those who were let in; closed at the end."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self.addresses: list[tuple[str, int]] = []

    def __call__(self, fd: int, host: str, port: int) -> None:
        self.sockets.append(socket.socket(fileno=fd))
        self.addresses.append((host, port))

    async def number(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.sockets) < count:
                await asyncio.sleep(0.002)

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


@contextlib.contextmanager
def listening(sock: socket.socket) -> Iterator[tuple[Listener, Guests]]:
    guests = Guests()
    listener = Listener(asyncio.get_running_loop(), sock, guests)
    try:
        yield listener, guests
    finally:
        listener.close()
        guests.close()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_clients_come_in_ready_for_use(loop_runs: Both) -> None:
    async def main() -> None:
        (sock,) = tcp_sockets("127.0.0.1", 0, 16)
        with listening(sock) as (listener, guests):
            assert listener.port == sock.getsockname()[1]
            with socket.create_connection(("127.0.0.1", listener.port)):
                await guests.number(1)
                guest = guests.sockets[0]
                assert guests.addresses == [guest.getpeername()]
                assert not os.get_blocking(guest.fileno())
                assert guest.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert guest.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

    loop_runs(main())


def test_more_clients_than_a_turn_takes(loop_runs: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "_AT_ONCE", 3)

    async def main() -> None:
        (sock,) = tcp_sockets("127.0.0.1", 0, 64)
        with listening(sock) as (listener, guests), contextlib.ExitStack() as clients:
            for _ in range(20):
                clients.enter_context(socket.create_connection(("127.0.0.1", listener.port)))
            await guests.number(20)

    loop_runs(main())


def test_a_client_that_left_at_once_does_no_harm(loop_runs: Both) -> None:
    async def main() -> None:
        (sock,) = tcp_sockets("127.0.0.1", 0, 64)
        with listening(sock) as (listener, guests):
            gone = socket.create_connection(("127.0.0.1", listener.port))
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # a reset
            gone.close()
            with socket.create_connection(("127.0.0.1", listener.port)):
                await guests.number(2)

    loop_runs(main())


def test_clients_have_the_options_of_their_listener(loop_runs: Both) -> None:
    async def main() -> None:
        (sock,) = tcp_sockets("127.0.0.1", 0, 64)
        with listening(sock) as (listener, guests):
            for number, options in enumerate(
                (TcpOptions(), TcpOptions(tcp_keepidle=0, tcp_user_timeout=1.5)), 1
            ):
                listener.tune(options)
                with socket.create_connection(("127.0.0.1", listener.port)) as usual:
                    await guests.number(number)
                    guest = guests.sockets[-1]
                    kernels = usual.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
                    assert guest.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                    asked = [
                        guest.getsockopt(socket.IPPROTO_TCP, option)
                        for option in (
                            socket.TCP_KEEPIDLE,
                            socket.TCP_KEEPINTVL,
                            socket.TCP_KEEPCNT,
                            socket.TCP_USER_TIMEOUT,
                        )
                    ]
                    assert asked == [60 if number == 1 else kernels, 10, 6, 0 if number == 1 else 1500]


def test_a_bug_with_one_client_is_reported_and_keeps_nobody_out(loop_runs: Both) -> None:
    async def main() -> None:
        reported: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context["message"]))
        (sock,) = tcp_sockets("127.0.0.1", 0, 64)
        guests = Guests()

        def every_second_fails(fd: int, host: str, port: int) -> None:
            guests(fd, host, port)
            if len(guests.sockets) % 2:
                raise ValueError

        listener = Listener(loop, sock, every_second_fails)
        with contextlib.ExitStack() as clients:
            for _ in range(10):
                clients.enter_context(socket.create_connection(("127.0.0.1", listener.port)))
            await guests.number(10)
        assert reported == ["a client was not let in"] * 5
        listener.close()
        guests.close()

    loop_runs(main())


def test_a_shortage_of_descriptors_passes(loop_runs: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "_EMFILE_PAUSE", 0.01)
    said = io.StringIO()
    log.configure("json", "error", said)

    async def main() -> None:
        (sock,) = tcp_sockets("127.0.0.1", 0, 16)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with listening(sock) as (listener, guests), socket.socket() as client:
            client.setblocking(False)
            await asyncio.sleep(0)
            lowest = os.dup(0)
            os.close(lowest)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
            try:
                await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", listener.port))
                async with asyncio.timeout(5):
                    while not listener._again:
                        await asyncio.sleep(0.001)
                assert not guests.sockets
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            await guests.number(1)

    loop_runs(main())
    assert "Too many open files" in said.getvalue()


def test_a_shortage_that_lasts_is_told_once_in_a_while(
    loop_runs: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = io.StringIO()
    log.configure("json", "error", said)

    def short(listening: socket.socket) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async def main() -> None:
        (sock,) = tcp_sockets("127.0.0.1", 0, 16)
        with listening(sock) as (listener, _guests):
            monkeypatch.setattr(listen, "accept", short)
            for _ in range(5):
                listener.ready(IN)
                timer = listener._again
                assert timer is not None
                timer.cancel()

    loop_runs(main())
    assert len(said.getvalue().splitlines()) == 1


def test_closed_in_a_shortage_it_does_not_come_back(loop_runs: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        (sock,) = tcp_sockets("127.0.0.1", 0, 16)
        with listening(sock) as (listener, _guests):
            real = listener._sock

            def short(listening: socket.socket) -> None:
                raise OSError(errno.EMFILE, "Too many open files")

            monkeypatch.setattr(listen, "accept", short)
            listener.ready(IN)
            timer = listener._again
            assert timer is not None
            listener.close()
            assert timer.cancelled()
            assert real.fileno() < 0

    loop_runs(main())


def test_a_listener_may_be_closed_by_whom_it_tells(loop_runs: Both) -> None:
    async def main() -> None:
        (sock,) = tcp_sockets("127.0.0.1", 0, 16)
        guests = Guests()

        def only_one(fd: int, host: str, port: int) -> None:
            guests(fd, host, port)
            listener.close()

        listener = Listener(asyncio.get_running_loop(), sock, only_one)
        with socket.create_connection(("127.0.0.1", listener.port)):
            await guests.number(1)
            assert listener._again is None
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", listener.port))
        listener.close()
        guests.close()

    loop_runs(main())


def test_a_closed_listeners_port_can_be_taken_at_once(loop_runs: Both) -> None:
    async def main() -> None:
        (sock,) = tcp_sockets("127.0.0.1", 0, 16)
        with listening(sock) as (listener, guests):
            client = socket.create_connection(("127.0.0.1", listener.port))
            await guests.number(1)
        client.close()
        (again,) = tcp_sockets("127.0.0.1", listener.port, 16)
        again.close()

    loop_runs(main())


def test_several_addresses_on_one_port() -> None:
    sockets = tcp_sockets("127.0.0.1, 127.0.0.2,127.0.0.1", 0, 16)
    try:
        (one, port), (two, same) = [sock.getsockname() for sock in sockets]
        assert (one, two) == ("127.0.0.1", "127.0.0.2")
        assert port == same
    finally:
        for sock in sockets:
            sock.close()


def test_all_addresses() -> None:
    sockets = tcp_sockets("*", 0, 16)
    try:
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
        families = {sock.family for sock in sockets}
        assert socket.AF_INET in families
        assert (socket.AF_INET6 in families) == has_ipv6()
    finally:
        for sock in sockets:
            sock.close()


def test_an_address_that_is_missing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    here = socket.getaddrinfo("127.0.0.1", 0, type=socket.SOCK_STREAM)
    elsewhere = socket.getaddrinfo(
        "192.0.2.1", 0, type=socket.SOCK_STREAM
    )  # for documentation: nobody has it
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: elsewhere + here)
    (sock,) = tcp_sockets("both", 0, 16)
    assert sock.getsockname()[0] == "127.0.0.1"
    sock.close()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: elsewhere)
    with pytest.raises(ConfigError, match="cannot listen on both:0: Cannot assign requested address"):
        tcp_sockets("both", 0, 16)


def test_what_cannot_be_listened_on_is_said() -> None:
    (sock,) = tcp_sockets("127.0.0.1", 0, 16)
    port = sock.getsockname()[1]
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
        tcp_sockets("127.0.0.1", port, 16)
    sock.close()
    with pytest.raises(ConfigError, match=r"cannot listen on no\.such\.host\.invalid:0"):
        tcp_sockets("no.such.host.invalid", 0, 16)


def test_a_unix_socket(loop_runs: Both, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / ".s.PGSQL.6432"
        with listening(unix_socket(str(tmp_path), 6432, 0o770, 16)) as (listener, guests):
            assert listener.port == 0
            assert stat.S_IMODE(path.stat().st_mode) == 0o770
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                await guests.number(1)
        assert not path.exists()

    loop_runs(main())


def test_a_dead_processs_unix_socket_is_replaced_and_a_living_ones_is_not(tmp_path: Path) -> None:
    first = unix_socket(str(tmp_path), 6432, 0o700, 16)
    with pytest.raises(ConfigError, match="Address already in use"):
        unix_socket(str(tmp_path), 6432, 0o700, 16)
    first.close()  # as a crash does: the file stays
    assert (tmp_path / ".s.PGSQL.6432").exists()
    unix_socket(str(tmp_path), 6432, 0o700, 16).close()


def test_something_else_at_the_path_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / ".s.PGSQL.6432"
    path.write_text("a file")
    with pytest.raises(ConfigError, match="cannot listen on"):
        unix_socket(str(tmp_path), 6432, 0o700, 16)
    assert path.read_text() == "a file"
    with pytest.raises(ConfigError, match="No such file"):
        unix_socket(str(tmp_path / "missing"), 6432, 0o700, 16)


def test_a_successors_unix_socket_is_left_alone(loop_runs: Both, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / ".s.PGSQL.6432"
        with listening(unix_socket(str(tmp_path), 6432, 0o700, 16)) as (listener, _):
            path.rename(tmp_path / "old")
            successor = unix_socket(str(tmp_path), 6432, 0o700, 16)
            listener.close()
        assert path.exists()
        successor.close()

    loop_runs(main())
