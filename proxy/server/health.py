"""Which endpoints are set aside because they could not be reached, and until when."""

from __future__ import annotations

from proxy.model import Endpoint


class Health:
    __slots__ = ("_down",)

    def __init__(self) -> None:
        self._down: dict[Endpoint, tuple[float, str]] = {}

    def healthy(self, endpoint: Endpoint, now: float) -> bool:
        down = self._down.get(endpoint)
        return down is None or now >= down[0]

    def eject(self, endpoint: Endpoint, until: float, reason: str) -> None:
        self._down[endpoint] = (until, reason)

    def restore(self, endpoint: Endpoint) -> None:
        self._down.pop(endpoint, None)

    def reason(self, endpoint: Endpoint) -> str:
        down = self._down.get(endpoint)
        return down[1] if down else ""

    def ejected(self, now: float) -> list[Endpoint]:
        return [endpoint for endpoint, (until, _) in self._down.items() if now < until]
