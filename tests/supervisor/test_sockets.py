"""The sockets that all workers accept from: shared out, handed on, and refused where the port is taken."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from proxy.cli.embedded import free_port
from proxy.errors import ConfigError
from proxy.settings import ProcessSettings
from proxy.supervisor.sockets import Sockets


def settings(port: int = 0, directory: str = "") -> ProcessSettings:
    return ProcessSettings(listen_port=port or free_port(), unix_socket_dir=directory)


@pytest.mark.parametrize("slots", [1, 3, 5])
def test_every_socket_has_a_worker_and_every_worker_one(slots: int, tmp_path: Path) -> None:
    sockets = Sockets.open(settings(directory=str(tmp_path)), 4)
    try:
        shares = [sockets.share(slot, slots) for slot in range(slots)]
        tcp = [sock for share in shares for sock in share if sock.family == socket.AF_INET]
        assert len(tcp) == len(set(tcp)) == 4
        assert {sock.getsockname()[1] for sock in tcp} == {sockets.port}
        assert all(share[-1].family == socket.AF_UNIX for share in shares)
    finally:
        sockets.close()
    assert not list(tmp_path.iterdir())


def test_all_of_them_get_connections() -> None:
    sockets = Sockets.open(settings(), 2)
    clients = []
    try:
        waiting = set()
        for _ in range(200):
            clients.append(socket.create_connection(("127.0.0.1", sockets.port), 5))
            for sock in sockets.all():
                try:
                    sock.accept()[0].close()
                except BlockingIOError:
                    continue
                waiting.add(sock)
            if len(waiting) == 2:
                break
        assert len(waiting) == 2
    finally:
        for client in clients:
            client.close()
        sockets.close()


@pytest.mark.parametrize("shares", [False, True])
def test_a_port_that_is_taken_is_refused_also_if_it_could_be_shared(shares: bool) -> None:
    with socket.socket() as taken:
        if shares:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="Address already in use"):
            Sockets.open(settings(taken.getsockname()[1]), 2)


def test_what_cannot_be_opened_leaves_nothing_open(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigError, match="cannot listen"):
        Sockets.open(settings(directory=str(tmp_path / "none")), 2)
    assert set(os.listdir("/proc/self/fd")) == before


def test_another_program_finds_the_same_sockets(tmp_path: Path) -> None:
    first = Sockets.open(settings(directory=str(tmp_path)), 3)
    handed = first.hand_on()
    handed["tcp"] = [[os.dup(fd) for fd in fds] for fds in handed["tcp"]]
    handed["unix"] = os.dup(handed["unix"])
    second = Sockets.adopt(handed)
    try:
        assert second.port == first.port
        assert len(second.all()) == 4
        # The path stays as long as one of them is responsible for it.
        first._inode = 0
        first.close()
        with socket.create_connection(("127.0.0.1", second.port), 5):
            pass
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(next(tmp_path.iterdir())))
    finally:
        second.close()
    assert not list(tmp_path.iterdir())
