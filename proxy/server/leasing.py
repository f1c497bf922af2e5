"""Carries what a worker's leases and slices have to say to the supervisor, and what it hears of caps and rates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, Protocol

from proxy.admission.lease import Leases
from proxy.admission.ledger import Order
from proxy.admission.slices import Grant, Slices


class Tells(Protocol):
    """The end of a channel."""

    def tell(self, kind: str, **fields: Any) -> None: ...


class Lessee:
    """`handlers` are for the channel that `tells` belongs to."""

    def __init__(self, channel: Callable[[], Tells]) -> None:
        self.leases = Leases(self._later)
        self.slices = Slices(self._tell_later)
        self._channel = channel
        self.decided: Callable[[list[list[Any]]], None] = lambda rows: None

    def handlers(self) -> Mapping[str, Callable[[dict[str, Any]], None]]:
        return {
            "permits": self._ordered,
            "rates": self._granted,
            "report": self._report,
            "concurrency": self._decided,
            "parts": self._divided,
        }

    def tell_strain(self, rows: list[list[Any]]) -> None:
        """What was measured of clusters whose limits follow latency."""
        self._channel().tell("strain", rows=rows)

    def _decided(self, fields: dict[str, Any]) -> None:
        self.decided(fields["rows"])

    def _later(self, seconds: float) -> None:
        _call(seconds, self._settle)

    def _tell_later(self, seconds: float) -> None:
        _call(seconds, self._tell)

    def _tell(self) -> None:
        told = self.slices.settle()
        if told:
            self._channel().tell("rates", rows=told)

    def _granted(self, fields: dict[str, Any]) -> None:
        self.slices.obey([Grant(*row) for row in fields["rows"]], monotonic())

    def _settle(self) -> None:
        told = self.leases.settle(monotonic())
        if told:
            self._channel().tell("lease", rows=told)

    def _ordered(self, fields: dict[str, Any]) -> None:
        self.leases.obey([Order(*row) for row in fields["rows"]], monotonic())

    def _divided(self, fields: dict[str, Any]) -> None:
        for name, parts in fields["rows"]:
            self.leases.divided(name, parts)

    def _report(self, fields: dict[str, Any]) -> None:
        self._channel().tell(
            "reported", time=fields["time"], rows=self.leases.report(), rates=self.slices.report()
        )


def _call(seconds: float, callback: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    if seconds:
        loop.call_later(seconds, callback)
    else:
        loop.call_soon(callback)
