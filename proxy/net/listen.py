"""Listening sockets: opened, and accepted from without blocking, a bounded number at once.

They are watched as the sockets of clients are (see `readiness.py`): told once that somebody has come, and asked again
about those who are left behind the bound. Out of descriptors, nobody is let in for a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable
from typing import Any

from proxy import log
from proxy.errors import ConfigError
from proxy.model import TcpOptions
from proxy.net import tcp
from proxy.net.readiness import Readiness, Watched, readiness
from proxy.net.sockets import accept

_log = log.get("listen")
_TCP = TcpOptions()
_AT_ONCE = 16
_EMFILE_PAUSE = 0.1
_QUIET = 10.0  # seconds, behind a failure that was told


class Listener(Watched):
    """Calls `accepted(descriptor, host, port)` with each new client until it is closed."""

    __slots__ = (
        "_accepted", "_again", "_closed", "_inode", "_loop", "_path", "_quiet_until", "_readiness", "_sock", "family",
        "port",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        accepted: Callable[[int, str, int], None],
        *,
        options: TcpOptions = _TCP,
        owns_path: bool = True,
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._accepted = accepted
        self._again: asyncio.TimerHandle | None = None
        self._closed = False
        self._quiet_until = 0.0
        self.family = sock.family
        self.port: int = 0 if sock.family == socket.AF_UNIX else sock.getsockname()[1]
        self._path: str = sock.getsockname() if sock.family == socket.AF_UNIX and owns_path else ""
        self._inode = inode(self._path)
        self.tune(options)
        self._readiness: Readiness | None = None  # while it watches
        self._watch()

    def tune(self, options: TcpOptions) -> None:
        """Each client's socket has these from the one that it comes by."""
        if self.family != socket.AF_UNIX:
            tcp.tune(self._sock, options)

    def _watch(self) -> None:
        self._again = None
        self._readiness = readiness(self._loop)
        self._readiness.add(self._sock.fileno(), self, False)

    def _unwatch(self) -> None:
        watch, self._readiness = self._readiness, None
        if watch is not None:
            watch.remove(self._sock.fileno(), False)

    def ready(self, events: int) -> None:
        for _ in range(_AT_ONCE):
            try:
                client = accept(self._sock)
            except OSError as error:
                now = self._loop.time()
                if now >= self._quiet_until:
                    self._quiet_until = now + _QUIET
                    _log.error("accept failed", error=str(error))
                self._unwatch()
                self._again = self._loop.call_later(_EMFILE_PAUSE, self._watch)
                return
            if client is None:
                return
            try:
                self._accepted(*client)
            except Exception as bug:  # of those behind it nothing would tell
                self._loop.call_exception_handler({"message": "a client was not let in", "exception": bug})
            if self._closed:
                return  # by whoever was told
        if self._readiness is not None:
            self._readiness.again(self._sock.fileno(), False, False)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._again is not None:
            self._again.cancel()
        self._unwatch()
        self._sock.close()
        remove_path(self._path, self._inode)


def remove_path(path: str, its_inode: int) -> None:
    """Unlinks a unix socket's path unless another has replaced it."""
    if path and inode(path) == its_inode:
        with contextlib.suppress(OSError):
            os.unlink(path)


def tcp_sockets(address: str, port: int, backlog: int, *, shares_port: bool = False) -> list[socket.socket]:
    """One socket for each address that `address` means ("*": all, IPv4 and IPv6; several: with commas). Raises
    ConfigError.

    With `shares_port` more may be opened on the same port later (SO_REUSEPORT), also by others of this user.
    """
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    try:
        for family, kind, proto, where in _meant(address, port):
            if not port and sockets:
                where = (where[0], sockets[0].getsockname()[1], *where[2:])
            try:
                sockets.append(_bound(socket.socket(family, kind, proto), where, backlog, shares_port))
            except OSError as error:
                if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise
                failure = error  # this machine does not have it; the others will do
        if not sockets:
            raise failure or OSError("no such address")
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise ConfigError(f"cannot listen on {address}:{port}: {error.strerror or error}") from None
    return sockets


def _meant(addresses: str, port: int) -> dict[Any, None]:
    """Family, kind, protocol and address of each, once: `localhost, 127.0.0.1` is one."""
    return {
        (family, kind, proto, where): None
        for address in addresses.split(",")
        for family, kind, proto, _name, where in socket.getaddrinfo(
            None if address.strip() == "*" else address.strip(),
            port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
    }


def _bound(sock: socket.socket, where: Any, backlog: int, shares_port: bool) -> socket.socket:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shares_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
        sock.listen(backlog)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def inode(path: str) -> int:
    try:
        return os.stat(path).st_ino if path else 0
    except OSError:
        return 0


def unix_socket(directory: str, port: int, mode: int, backlog: int) -> socket.socket:
    """The socket `.s.PGSQL.<port>` in `directory`; a dead process's is replaced. Raises ConfigError."""
    path = os.path.join(directory, f".s.PGSQL.{port}")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.exists(path) and stat.S_ISSOCK(os.stat(path).st_mode) and not _alive(path):
            os.unlink(path)
        sock.bind(path)
        os.chmod(path, mode)
        sock.listen(backlog)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ConfigError(f"cannot listen on {path}: {error.strerror or error}") from None
    return sock


def _alive(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
