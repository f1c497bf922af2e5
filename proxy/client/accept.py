"""Sockets from the listeners, until each has logged in: how many there may be, for how long, and what is known of them.

The connections that have not logged in yet are counted, all together and by address: those that have not said yet for
whom they speak, and those that have, by tenant too. One deadline covers everything up to the welcome; all deadlines
share one timer. What was made of a startup packet is remembered for those who say the same: only of clients that have
authenticated, so that strangers push out nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine
from sys import intern
from typing import Any

from proxy import log
from proxy.client.applicants import Applicant, Login
from proxy.client.arrival import Arrival, Reception
from proxy.client.doorstep import Doorstep
from proxy.errors import CapReached, TiergateError
from proxy.model import ClientOptions
from proxy.net.clock import monotonic
from proxy.net.sockets import send
from proxy.net.tls import ClientTls
from proxy.net.transport import SocketTransport
from proxy.registry.memory import Registry
from proxy.stats import ProcessStats
from proxy.wire import encode
from proxy.wire.startup import CancelRequest

_log = log.get("accept")
_SAID = "too many clients are logging in"
_TOO_MANY, _TOO_MANY_HERE = (
    encode.error(_SAID, "53300", severity="FATAL", detail=f"{what} is reached.", hint="Try again.")
    for what in ("max_logins", "max_logins_per_address")
)
_REMEMBERED = 1_000
_LONGEST = 512  # bytes of a packet that is remembered
_NEVER = float("inf")
_LEFT = 4  # one part in so many of an address's logins is left to other tenants than one that storms


class Acceptor(Reception):
    """Takes sockets from listeners; calls `logged_in` with each client that has authenticated: it hands the socket on
    at once, or by the end of what it returns."""

    def __init__(
        self,
        options: ClientOptions,
        tls: ClientTls | None,
        registry: Registry,
        logged_in: Callable[[Login, Arrival], Coroutine[Any, Any, None] | None],
        on_cancel: Callable[[CancelRequest], list[asyncio.Task[None]]],
        process: ProcessStats,
    ) -> None:
        self.options = options
        self.tls = tls
        self.registry = registry
        self.logged_in = logged_in
        self._on_cancel = on_cancel
        self._process = process
        self._present: dict[Arrival, None] = {}  # all that have neither been handed on nor are gone
        self._pending = 0
        self._by_address: dict[str, int] = {}  # those that claim no tenant yet
        self._claims_from: dict[str, int] = {}  # by address, the others
        self._by_tenant: dict[str, dict[str, int]] = {}  # and address; which they claim, and may not know
        self._familiar: dict[bytes, Applicant] = {}  # the oldest first
        self._epoch = registry.epoch  # of what is familiar
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _NEVER
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def pending(self) -> int:
        """Connections that have not authenticated yet."""
        return self._pending

    def reload(self, options: ClientOptions, tls: ClientTls | None) -> None:
        self.options = options
        self.tls = tls
        self._familiar.clear()

    def accept(self, fd: int, host: str, port: int) -> None:
        """`host` is "" for a client that is local."""
        options, by_address = self.options, self._by_address
        here = by_address.get(host, 0) if host else 0
        if self._pending >= options.max_logins or here >= options.max_logins_per_address:
            self._process.rejected_connections += 1
            _refuse(fd, _TOO_MANY if self._pending >= options.max_logins else _TOO_MANY_HERE)
            return
        if host:
            host = intern(host)  # one for all that come from there
            by_address[host] = here + 1
        self._pending += 1
        self._process.client_connections += 1
        timeout = options.client_login_timeout
        deadline = monotonic() + timeout if timeout else _NEVER
        arrival = Arrival(self, host, port, deadline)
        self._present[arrival] = None
        if deadline < self._timer_at:
            self.expect(deadline)
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        if host and self.tls is not None:
            arrival.doorstep = Doorstep(loop, fd, arrival, self.tls)
            return
        transport = SocketTransport(loop, fd, arrival, False)
        arrival.connection_made(transport)
        transport.look()  # most have said who they are by now

    async def close(self) -> None:
        """Ends all logins under way."""
        tasks = [arrival.task for arrival in self._present if arrival.task is not None]
        for arrival in list(self._present):
            arrival.close_at_once()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()

    # --- what arrivals ask --------------------------------------------------------------------------

    def cancel(self, request: CancelRequest, arrival: Arrival) -> None:
        under_way = self._on_cancel(request)
        if under_way:
            arrival.wait_for(self._hang_up_behind(under_way, arrival))
        else:
            arrival.close_at_once()

    async def _hang_up_behind(self, under_way: list[asyncio.Task[None]], arrival: Arrival) -> None:
        """As PostgreSQL hangs up: when the signal has been sent. Who waits for that may ask the next thing, and it will
        not be struck instead."""
        await asyncio.wait(under_way)  # they go on when it has gone
        arrival.close_at_once()

    def recall(self, packet: bytes) -> Applicant | None:
        if self._epoch != self.registry.epoch:
            self._familiar.clear()
            self._epoch = self.registry.epoch
        return self._familiar.get(packet)

    def remember(self, packet: bytes, who: Applicant) -> None:
        if len(packet) > _LONGEST or self._epoch != who.epoch:
            return
        self._familiar[packet] = who
        if len(self._familiar) > _REMEMBERED:
            del self._familiar[next(iter(self._familiar))]

    def claims(self, arrival: Arrival, tenant: str) -> None:
        """Before it is proved: whoever claims a tenant falsely is not to keep others from it. So where there are too
        many it is the addresses with more than their equal part of them that get no more. And of an address, from which
        an application speaks for many, it is the tenants, who leave some to others."""
        sources = self._by_tenant.get(tenant)
        host, most = arrival.host, self.options.max_logins_per_tenant
        here = 0
        if sources is not None:
            here = sources.get(host, 0)
            if most and here and here * len(sources) >= most and sum(sources.values()) >= most:
                raise _too_many_of_one("max_logins_per_tenant", most)
        if host:
            self._claim_from(host, here)
        if sources is None:
            sources = self._by_tenant[tenant] = {}
        sources[host] = here + 1
        arrival.claim = tenant

    def _claim_from(self, host: str, here: int) -> None:
        """One more of a tenant that has so many under way from that address."""
        claims, most = self._claims_from.get(host, 0), self.options.max_logins_per_address
        if claims >= most:
            raise CapReached(_SAID, detail=f"max_logins_per_address is {most}.", hint="Try again.")
        enough = most - most // _LEFT
        if here and claims >= enough:
            parties = sum(host in sources for sources in self._by_tenant.values())
            if here * parties >= enough:
                raise _too_many_of_one("max_logins_per_address", most)
        self._claims_from[host] = claims + 1
        _forget(self._by_address, host)

    def arrived(self, arrival: Arrival) -> None:
        if not arrival.counted:
            return
        arrival.counted = False
        self._pending -= 1
        host, claim = arrival.host, arrival.claim
        if host:
            _forget(self._claims_from if claim else self._by_address, host)
        if claim:
            sources = self._by_tenant[claim]
            _forget(sources, host)
            if not sources:
                del self._by_tenant[claim]

    def gone(self, arrival: Arrival) -> None:
        if arrival in self._present:
            self.arrived(arrival)
            del self._present[arrival]

    def failed(self, arrival: Arrival, error: TiergateError) -> None:
        self.arrived(arrival)
        self._process.login_failures += 1
        if type(error) is not TiergateError:
            _log.log(
                error.level, "login failed", address=arrival.address, error=error.message, sqlstate=error.sqlstate,
                internal=error.internal,
            )  # fmt: skip

    # --- deadlines ----------------------------------------------------------------------------------

    def expect(self, deadline: float) -> None:
        """The timer is left alone by those who arrive in time: it finds nobody, or is set again."""
        if deadline >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = asyncio.get_running_loop().call_later(max(0.0, deadline - monotonic()), self._expire)

    def _expire(self) -> None:
        self._timer, self._timer_at = None, _NEVER
        now = monotonic()
        for arrival in list(self._present):
            if arrival.deadline <= now:
                arrival.deadline = _NEVER  # unless it is given another
                arrival.expire()
        nearest = min((arrival.deadline for arrival in self._present), default=_NEVER)
        if nearest < _NEVER:
            self.expect(nearest)


def _forget(counts: dict[str, int], host: str) -> None:
    """One less from there."""
    left = counts[host] - 1
    if left:
        counts[host] = left
    else:
        del counts[host]


def _too_many_of_one(limit: str, most: int) -> CapReached:
    return CapReached(
        "too many clients of the tenant are logging in", detail=f"{limit} is {most}.", hint="Try again."
    )


def _refuse(fd: int, said: bytes) -> None:
    """Says so where that costs nothing, as PostgreSQL does when it cannot fork."""
    with contextlib.suppress(OSError):
        send(fd, said)
    os.close(fd)
