"""The server connections of all workers in a second hand (see server/custody.py), and the end of a dead worker's.

A worker that has ended is buried: each of its connections is closed for writing here, which an idle backend takes for
goodbye. One that goes on is cancelled, again every second. What it still says is read and thrown away until it hangs
up, which it does when it is gone; then its permits are free. A backend that is not gone after half a minute (its host
cannot be reached, say) is given up, and the log says so.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from proxy import log
from proxy.errors import TiergateError
from proxy.model import Endpoint, Role
from proxy.net.tls import ServerTls
from proxy.server.cancel import cancel

_log = log.get("custody")
_MOST = 4096  # bytes of a message
_GOODBYE = 0.05  # seconds for a backend that is idle
_AGAIN = 1.0
_LONGEST = 30.0
_CANCELS_AT_ONCE = 16


@dataclass(slots=True)
class _Connection:
    sock: socket.socket
    endpoint: Endpoint
    caps: tuple[str, ...]
    pid: int = 0
    key: bytes = b""


class Vault:
    """`released` is called with a dead worker's number and the caps of each backend that is gone, `buried` with its
    number when all are."""

    def __init__(
        self,
        tls: Callable[[], ServerTls],
        released: Callable[[int, tuple[str, ...]], None],
        buried: Callable[[int], None],
    ) -> None:
        self._tls = tls
        self._released = released
        self._buried = buried
        self._ends: dict[int, socket.socket] = {}  # of the workers' socket pairs
        self._held: dict[int, dict[int, _Connection]] = {}
        self._burials: set[asyncio.Task[None]] = set()
        self._cancels = asyncio.Semaphore(_CANCELS_AT_ONCE)

    def new(self, worker: int) -> socket.socket:
        """The worker's end of a new socket pair."""
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.open(worker, ours)
        return its

    @property
    def busy(self) -> bool:
        return bool(self._burials)

    def open(self, worker: int, end: socket.socket) -> None:
        end.setblocking(False)
        self._ends[worker] = end
        self._held.setdefault(worker, {})
        asyncio.get_running_loop().add_reader(end.fileno(), self.hear, worker)

    def hear(self, worker: int) -> None:
        """All that the worker has said: also to be called before what it says elsewhere about permits is believed."""
        end = self._ends.get(worker)
        while end is not None:
            try:
                data, descriptors, _, _ = socket.recv_fds(end, _MOST, 1)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:
                self._close_end(worker)
                return
            self._heard(self._held[worker], json.loads(data), descriptors)

    def _heard(self, held: dict[int, _Connection], what: dict[str, Any], descriptors: list[int]) -> None:
        if "hold" in what and descriptors:
            host, port, role = what["endpoint"]
            os.set_inheritable(descriptors[0], False)
            sock = socket.socket(fileno=descriptors[0])
            held[what["hold"]] = _Connection(sock, Endpoint(host, port, Role(role)), tuple(what["caps"]))
        elif "know" in what and what["know"] in held:
            connection = held[what["know"]]
            connection.pid, connection.key = what["pid"], what["key"].encode("latin-1")
        elif "drop" in what and what["drop"] in held:
            held.pop(what["drop"]).sock.close()

    def _close_end(self, worker: int) -> None:
        end = self._ends.pop(worker, None)
        if end is not None:
            asyncio.get_running_loop().remove_reader(end.fileno())
            end.close()

    # --- burials --------------------------------------------------------------------------------------

    def bury(self, worker: int) -> None:
        """The worker has ended."""
        self.hear(worker)
        self._close_end(worker)
        connections = list(self._held.pop(worker, {}).values())
        if not connections:
            self._buried(worker)
            return
        _log.info("a worker has left server connections", worker=worker, connections=len(connections))
        task = asyncio.get_running_loop().create_task(self._bury(worker, connections))
        self._burials.add(task)
        task.add_done_callback(self._burials.discard)

    async def _bury(self, worker: int, connections: list[_Connection]) -> None:
        try:
            await asyncio.gather(*(self._end(worker, connection) for connection in connections))
        finally:
            for connection in connections:
                connection.sock.close()
        self._buried(worker)

    async def _end(self, worker: int, connection: _Connection) -> None:
        connection.sock.setblocking(False)
        gone = asyncio.ensure_future(_gone(connection.sock))
        try:
            await asyncio.wait({gone}, timeout=_GOODBYE)
            tries = 0
            while not gone.done() and tries < _LONGEST / _AGAIN:
                tries += 1
                await self._cancel(connection)
                await asyncio.wait({gone}, timeout=_AGAIN)
            if not gone.done():
                _log.error("a backend is given up", endpoint=str(connection.endpoint), pid=connection.pid)
        finally:
            gone.cancel()
        self._released(worker, connection.caps)

    async def _cancel(self, connection: _Connection) -> None:
        if not connection.pid:
            return
        async with self._cancels:
            try:
                await cancel(connection.endpoint, connection.pid, connection.key, self._tls(), _AGAIN)
            except TiergateError as error:
                _log.warning("cancel failed", endpoint=str(connection.endpoint), error=error.message)

    # --- the end, and an upgrade ----------------------------------------------------------------------

    async def close(self) -> None:
        for worker in list(self._ends):
            self._close_end(worker)
        for task in self._burials:
            task.cancel()
        await asyncio.gather(*self._burials, return_exceptions=True)
        for held in self._held.values():
            for connection in held.values():
                connection.sock.close()
        self._held.clear()

    def hand_on(self, worker: int, descriptors: list[int]) -> dict[str, Any]:
        """For the program that takes over; the descriptors that it needs are added to `descriptors`."""
        held = self._held.get(worker, {})
        end = self._ends.get(worker)
        rows = [
            [number, c.sock.fileno(), [*c.endpoint[:2], c.endpoint.role.value], c.caps, c.pid, c.key.decode("latin-1")]
            for number, c in held.items()
        ]  # fmt: skip
        fd = end.fileno() if end is not None else None
        descriptors += [c.sock.fileno() for c in held.values()]
        if fd is not None:
            descriptors.append(fd)
        return {"end": fd, "held": rows}

    def adopt(self, worker: int, handed: dict[str, Any] | None) -> None:
        """`handed` is None from a program that had no custody."""
        if handed is None:
            return
        held = self._held.setdefault(worker, {})
        for number, fd, (host, port, role), caps, pid, key in handed["held"]:
            sock = socket.socket(fileno=fd)
            endpoint = Endpoint(host, port, Role(role))
            held[number] = _Connection(sock, endpoint, tuple(caps), pid, key.encode("latin-1"))
        if handed["end"] is not None:
            self.open(worker, socket.socket(fileno=handed["end"]))


async def _gone(sock: socket.socket) -> None:
    """Says goodbye, and returns when the other side has hung up."""
    loop = asyncio.get_running_loop()
    try:
        sock.shutdown(socket.SHUT_WR)
        while await loop.sock_recv(sock, 1 << 16):
            pass
    except OSError:
        return  # reset: nobody is there any more
