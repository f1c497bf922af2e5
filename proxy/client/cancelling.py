"""Where a client's CancelRequest goes: to a session of this process, to another worker, or to another host.

It is looked up here first, whatever it says, since most land where they belong. Else the way that the key holds
is followed (see wire/way.py). Whoever has sent it is hung up on when it has been passed on for good, wherever that is
done: what it asks next is not struck by what it sent before. A request without a way is one for a
session that shows its server's own process id with a short secret; it is shown to all workers of the host, and once
to every other host. Nobody is told whether it was found, as in PostgreSQL. Peers are spoken to as servers are:
server_tls_sslmode holds for them.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Protocol

from proxy import log
from proxy.client.plane import Plane
from proxy.errors import TiergateError
from proxy.model import Endpoint, Role
from proxy.server.login import say_and_wait
from proxy.wire import encode
from proxy.wire.startup import CancelRequest
from proxy.wire.way import MAX_HOPS, Way, arrived, passed_on, way_of

_log = log.get("cancel")
OVER_WITHIN = 10.0  # seconds that other workers have for one, and peers where no time is set
_MOST_AT_ONCE = 64  # requests on their way to one peer; anybody may send one, so more are dropped


class Asks(Protocol):
    """The end of a channel to the supervisor."""

    async def ask(self, kind: str, timeout: float | None = ..., **fields: Any) -> dict[str, Any]: ...


class Canceller:
    """`supervisor` is None in a process that is alone."""

    def __init__(self, plane: Plane, supervisor: Asks | None) -> None:
        self._plane = plane
        self._supervisor = supervisor
        self._under_way: dict[tuple[str, int], int] = {}  # a peer that hangs keeps none from another

    def landed(self, request: CancelRequest) -> list[asyncio.Task[None]]:
        """From a client, or from a peer; what it is to wait for."""
        request, hops = arrived(request)
        under_way = self._plane.cancel(request)
        return self._elsewhere(request, hops) if under_way is None else under_way

    def _elsewhere(self, request: CancelRequest, hops: int) -> list[asyncio.Task[None]]:
        way = way_of(request)
        here = self._plane.way
        peers = self._plane.options.peers
        if way is None:
            others = [] if hops else [address for peer, address in peers.items() if peer != here.peer]
            to_peers = [task for address in others for task in self._to_peer(address, request, 1)]
            return [*self._to_workers(request, None), *to_peers]
        elif way.peer != here.peer:
            if way.peer in peers and hops < MAX_HOPS:
                return self._to_peer(peers[way.peer], request, hops + 1)
        elif way.worker != here.worker:
            return self._to_workers(request, way)
        return []

    def _to_workers(self, request: CancelRequest, way: Way | None) -> list[asyncio.Task[None]]:
        if self._supervisor is None:
            return []
        return [self._plane.pools.spawn(self._show(self._supervisor, request, way))]

    async def _show(self, supervisor: Asks, request: CancelRequest, way: Way | None) -> None:
        worker = way.worker if way is not None else None
        key = request.key.decode("latin-1")
        with contextlib.suppress(TiergateError):  # it has gone, or is about to
            await supervisor.ask("cancel", OVER_WITHIN, worker=worker, pid=request.pid, key=key)

    async def told(self, fields: dict[str, Any]) -> None:
        """By the supervisor: it landed in another worker."""
        under_way = self._plane.cancel(CancelRequest(fields["pid"], fields["key"].encode("latin-1")))
        if under_way:
            await asyncio.wait(under_way)

    def _to_peer(
        self, address: tuple[str, int], request: CancelRequest, hops: int
    ) -> list[asyncio.Task[None]]:
        under_way = self._under_way.get(address, 0)
        if under_way >= _MOST_AT_ONCE:
            _log.warning("too many cancel requests for a peer", peer=f"{address[0]}:{address[1]}")
            return []
        self._under_way[address] = under_way + 1
        return [self._plane.pools.spawn(self._say(address, passed_on(request, hops)))]

    async def _say(self, address: tuple[str, int], request: CancelRequest) -> None:
        pools = self._plane.pools
        packet = encode.cancel_request(request.pid, request.key)
        try:
            timeout = pools.options.cancel_wait_timeout or OVER_WITHIN
            await say_and_wait(Endpoint(*address, Role.PRIMARY), pools.tls, packet, timeout)
        except TiergateError as error:
            _log.warning("cancel not passed on", peer=f"{address[0]}:{address[1]}", error=error.message)
        finally:
            self._under_way[address] -= 1
            if not self._under_way[address]:  # the list may be another after a reload
                del self._under_way[address]
