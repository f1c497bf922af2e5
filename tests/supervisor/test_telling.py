"""Who has taken up a configuration is told apart from who has not said so, and nobody waits for who hangs."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from proxy.errors import ConfigError, TiergateError
from proxy.net.channel import NoAnswer
from proxy.supervisor.process import WorkerProcess
from proxy.supervisor.telling import tell_all


class Told:
    """A worker that answers so, or raises so."""

    def __init__(self, number: int, error: Exception | None = None, *, silent: bool = False) -> None:
        self.number, self.silent, self._error = number, silent, error
        self.channel = self
        self.patience: list[float] = []
        self.orders: list[dict[str, Any]] = []

    async def ask(self, kind: str, timeout: float, **orders: Any) -> None:
        assert kind == "reload"
        self.patience.append(timeout)
        self.orders.append(orders)
        if self._error is not None:
            raise self._error


def without(*workers: Told) -> list[int]:
    return asyncio.run(tell_all(cast(list[WorkerProcess], workers), {"text": "a"}))


def test_those_without_are_named_and_all_are_told() -> None:
    workers = [
        Told(1),
        Told(2, NoAnswer("late")),
        Told(3, ConfigError("wrong")),
        Told(4, TiergateError(), silent=True),
    ]
    assert without(*workers) == [2, 3, 4]
    assert [worker.orders for worker in workers] == [[{"text": "a"}]] * 4


def test_for_one_that_is_silent_nobody_waits_long() -> None:
    spoken, silent = Told(1), Told(2, silent=True)
    assert without(spoken, silent) == []
    assert silent.patience[0] < 1 < spoken.patience[0] < 5


def test_what_is_no_answer_is_a_bug_and_seen() -> None:
    with pytest.raises(ZeroDivisionError):
        without(Told(1, ZeroDivisionError()))
