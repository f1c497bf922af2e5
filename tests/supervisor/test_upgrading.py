from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from proxy.errors import ConfigError, TiergateError
from proxy.supervisor import upgrading
from proxy.supervisor.process import State


def worker(number: int, **channel: Any) -> Any:
    said = {"busy": False, "closed": False, "fileno": lambda: 40 + number, "hand_on": lambda: {"number": 9}}
    return SimpleNamespace(
        number=number, slot=number - 1, pid=1000 + number, version="1", state=State.READY, started_at=0.0,
        channel=SimpleNamespace(**(said | channel)),
    )  # fmt: skip


def crew(*workers: Any) -> Any:
    return SimpleNamespace(processes={each.number: each for each in workers})


class Vault:
    busy = False

    def hand_on(self, number: int, descriptors: list[int]) -> dict[str, Any]:
        descriptors.append(60 + number)
        return {"end": 60 + number}


def test_a_program_that_refuses_the_file_or_does_not_run_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(upgrading, "program", lambda: ["sh", "-c", "echo no such key; exit 1", "-"])
    with pytest.raises(ConfigError, match="no such key"):
        asyncio.run(upgrading.try_program("tiergate.toml"))
    monkeypatch.setattr(upgrading, "program", lambda: [str(tmp_path / "gone")])
    with pytest.raises(ConfigError, match="does not run"):
        asyncio.run(upgrading.try_program("tiergate.toml"))
    monkeypatch.setattr(upgrading, "program", lambda: ["true"])
    asyncio.run(upgrading.try_program("tiergate.toml"))


def test_it_waits_for_what_is_under_way_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrading, "_PATIENCE", 0.02)
    asks = worker(1, busy=True)
    vault: Any = Vault()

    async def main() -> None:
        asyncio.get_running_loop().call_later(0.005, setattr, asks.channel, "busy", False)
        await upgrading.come_to_rest(crew(asks, worker(2)), vault)
        assert not asks.channel.busy
        await upgrading.until_all_is_said([asks, worker(3, busy=True, closed=True)])
        asks.channel.busy = True
        await upgrading.come_to_rest(crew(asks), vault)
        with pytest.raises(TiergateError, match="does not read"):
            await upgrading.until_all_is_said([asks])

    asyncio.run(main())


def test_each_worker_is_handed_on_with_its_descriptors() -> None:
    vault: Any = Vault()
    rows, descriptors = upgrading.workers(crew(worker(1), worker(2, closed=True)), vault)
    assert [(row["number"], row["fd"], row["custody"]) for row in rows] == [
        (1, 41, {"end": 61}),
        (2, None, {"end": 62}),
    ]
    assert descriptors == [61, 62, 41]
