"""The supervisor holds a second descriptor of each server connection, so that it can end it when the worker cannot.

A worker that is killed leaves backends behind: one that is busy does not notice for as long as it has nothing to
say. Its permits must not be used before it is gone, and the only one to know is who has its socket. So every
socket is passed on as soon as it is connected, with what a cancel request needs once that is known, and let go
when it is closed here. The messages, JSON, go over a socket pair of their own (SOCK_SEQPACKET), in their order.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections import deque
from typing import Any

from proxy import log
from proxy.model import Endpoint

_log = log.get("custody")


class Custody:
    """The worker's end."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._number = 0
        self._unsent: deque[tuple[bytes, int | None]] = deque()

    def hold(self, endpoint: Endpoint, caps: tuple[str, ...]) -> Held:
        return Held(self, endpoint, caps)

    def number(self) -> int:
        self._number += 1
        return self._number

    def say(self, what: dict[str, Any], descriptor: int | None = None) -> None:
        data = json.dumps(what, separators=(",", ":")).encode()
        if self._unsent or not self._send(data, descriptor):
            if not self._unsent:
                asyncio.get_running_loop().add_writer(self._sock.fileno(), self._send_on)
            self._unsent.append((data, os.dup(descriptor) if descriptor is not None else None))

    def _send(self, data: bytes, descriptor: int | None) -> bool:
        """False: later."""
        try:
            if descriptor is None:
                self._sock.send(data)
            else:
                socket.send_fds(self._sock, [data], [descriptor])
        except BlockingIOError:
            return False
        except OSError as error:
            _log.warning("a server connection is not in custody", error=str(error))
        return True

    def _send_on(self) -> None:
        while self._unsent:
            data, descriptor = self._unsent[0]
            if not self._send(data, descriptor):
                return
            self._unsent.popleft()
            if descriptor is not None:
                os.close(descriptor)
        asyncio.get_running_loop().remove_writer(self._sock.fileno())

    def close(self) -> None:
        if self._unsent:
            asyncio.get_running_loop().remove_writer(self._sock.fileno())
        for _, descriptor in self._unsent:
            if descriptor is not None:
                os.close(descriptor)
        self._unsent.clear()
        self._sock.close()


class Held:
    """One connection on its way and afterwards; there may be several sockets until one of them is good."""

    __slots__ = ("_caps", "_custody", "_endpoint", "_number")

    def __init__(self, custody: Custody, endpoint: Endpoint, caps: tuple[str, ...]) -> None:
        self._custody = custody
        self._endpoint = endpoint
        self._caps = caps
        self._number = 0

    def connected(self, sock: socket.socket) -> None:
        self.closed()
        self._number = self._custody.number()
        host, port, role = self._endpoint
        what = {"hold": self._number, "endpoint": [host, port, role.value], "caps": self._caps}
        self._custody.say(what, sock.fileno())

    def known(self, pid: int, key: bytes) -> None:
        self._custody.say({"know": self._number, "pid": pid, "key": key.decode("latin-1")})

    def closed(self) -> None:
        number, self._number = self._number, 0
        if number:
            self._custody.say({"drop": number})
