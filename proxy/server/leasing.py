"""Carries what a worker's leases have to say to the supervisor, and what the ledger there orders back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, Protocol

from proxy.admission.lease import Leases
from proxy.admission.ledger import Order


class Tells(Protocol):
    """The end of a channel."""

    def tell(self, kind: str, **fields: Any) -> None: ...


class Lessee:
    """`handlers` are for the channel that `tells` belongs to."""

    def __init__(self, channel: Callable[[], Tells]) -> None:
        self.leases = Leases(self._later)
        self._channel = channel

    def handlers(self) -> Mapping[str, Callable[[dict[str, Any]], None]]:
        return {"permits": self._ordered, "report": self._report}

    def _later(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if seconds:
            loop.call_later(seconds, self._settle)
        else:
            loop.call_soon(self._settle)

    def _settle(self) -> None:
        told = self.leases.settle(monotonic())
        if told:
            self._channel().tell("lease", rows=told)

    def _ordered(self, fields: dict[str, Any]) -> None:
        self.leases.obey([Order(*row) for row in fields["rows"]], monotonic())

    def _report(self, fields: dict[str, Any]) -> None:
        self._channel().tell("reported", time=fields["time"], rows=self.leases.report())
