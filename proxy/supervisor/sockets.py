"""The listening sockets of all workers, opened and kept by the supervisor.

Each worker slot has a socket of its own on the same port (SO_REUSEPORT): the kernel spreads new connections over
them by a hash of the addresses. Of one socket that all inherit, whoever wakes first takes all that has come: with
500 clients at once the busiest of four workers gets 1.3 times the mean instead of 1.1, with 64 even 1.9 instead of
1.2 (`benchmarks/spread.py`). The supervisor keeps all sockets open, so what has arrived for a worker that died
waits for its replacement instead of being reset. Unix sockets have no such spreading: one, inherited by all.
"""

from __future__ import annotations

import socket
from typing import Any

from proxy.net import listen
from proxy.settings import ProcessSettings

Handed = dict[str, Any]


class Sockets:
    def __init__(self) -> None:
        self._by_slot: list[list[socket.socket]] = []
        self._unix: socket.socket | None = None
        self._inode = 0

    @classmethod
    def open(cls, process: ProcessSettings, slots: int) -> Sockets:
        """Raises ConfigError."""
        opened = cls()
        try:
            if process.listen_port:
                # Another program of this user that shares the port as well would not be noticed otherwise.
                for probe in listen.tcp_sockets(process.listen_addr, process.listen_port, 1):
                    probe.close()
                for _ in range(slots):
                    opened._by_slot.append(
                        listen.tcp_sockets(
                            process.listen_addr, process.listen_port, process.listen_backlog,
                            shares_port=True,
                        )
                    )  # fmt: skip
            if process.unix_socket_dir:
                opened._unix = listen.unix_socket(
                    process.unix_socket_dir, process.listen_port, process.unix_socket_mode,
                    process.listen_backlog,
                )  # fmt: skip
                opened._inode = listen.inode(opened._unix.getsockname())
        except BaseException:
            opened.close()
            raise
        return opened

    @property
    def port(self) -> int:
        return self._by_slot[0][0].getsockname()[1] if self._by_slot else 0

    def share(self, slot: int, slots: int) -> list[socket.socket]:
        """What the worker of `slot` accepts from: every socket has one, also when there are more than slots."""
        mine = [sock for sockets in self._by_slot[slot::slots] for sock in sockets]
        return [*mine, self._unix] if self._unix is not None else mine

    # --- an upgrade ---------------------------------------------------------------------------------

    def hand_on(self) -> Handed:
        return {
            "tcp": [[sock.fileno() for sock in sockets] for sockets in self._by_slot],
            "unix": self._unix.fileno() if self._unix is not None else None,
            "inode": self._inode,
        }

    def all(self) -> list[socket.socket]:
        found = [sock for sockets in self._by_slot for sock in sockets]
        return [*found, self._unix] if self._unix is not None else found

    @classmethod
    def adopt(cls, handed: Handed) -> Sockets:
        """Those of the program before: an upgrade keeps the addresses, and as many sockets."""
        adopted = cls()
        adopted._by_slot = [[socket.socket(fileno=fd) for fd in fds] for fds in handed["tcp"]]
        adopted._unix = socket.socket(fileno=handed["unix"]) if handed["unix"] is not None else None
        adopted._inode = handed["inode"]
        return adopted

    def close(self) -> None:
        """Refuses who comes from now on."""
        path = self._unix.getsockname() if self._unix is not None else ""
        for sock in self.all():
            sock.close()
        listen.remove_path(path, self._inode)
        self._by_slot, self._unix = [], None
