"""Time that a test owns."""

from __future__ import annotations

from types import ModuleType

import pytest

from proxy.net import clock


class PlaneClock:
    """`now` is the time of whoever asks the data plane's clock; `tests.conftest` lets that go again."""

    @property
    def now(self) -> float:
        return self._now

    @now.setter
    def now(self, now: float) -> None:
        self._now = now
        clock.stand(now)


class OwnClock(PlaneClock):
    """`now` is the time of these modules, too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
        self.now = 1_000.0
        for module in modules:
            monkeypatch.setattr(module, "monotonic", lambda: self.now)
