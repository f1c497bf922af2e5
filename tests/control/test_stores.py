"""What operators see of the stores of tenants, and of what they are warned."""

from __future__ import annotations

import pytest

from proxy.control.views import View
from proxy.control.views.stores import registry, warnings
from proxy.registry.cache import Cache
from proxy.registry.rows import Row
from proxy.registry.sources import State, StoreState
from tests.client.stage import Stage

ROW = Row("0b5a1d5e-6f0f-4f0e-9a53-0d5f2a1c7e01", "stored", "standard", "shared_pool")


class Finder:
    up = True

    def stores(self) -> list[StoreState]:
        return [
            StoreState("redis", State(False, 0.0, "refused"), 5, 2),
            StoreState("postgresql", State(True, 0.0), 3, 1),
        ]

    async def find(self, name: str) -> None:
        raise NotImplementedError


def told(view: View) -> list[dict[str, object]]:
    return [dict(zip(view.columns, row, strict=True)) for row in view.rows]


def test_without_a_registry_there_is_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    (file,) = told(registry(Stage(monkeypatch).plane))
    assert (file["store"], file["up"], file["tenants"]) == ("file", 1, 3)


def test_stores_stand_in_the_order_in_which_they_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    stage.registry.rows, stage.registry.finder = Cache(10, 300.0, 5.0), Finder()
    stage.registry.take(ROW)
    found = told(registry(stage.plane))
    assert [row["store"] for row in found] == ["memory", "redis", "postgresql", "file"]
    assert [row["up"] for row in found] == [1, 0, 1, 1]
    assert (found[0]["tenants"], found[1]["reason"], found[2]["asked"]) == (1, "refused", 3)
    (warning,) = warnings(registry(stage.plane))
    assert warning.startswith("redis of the registry has not been reached for ")


class Mute(Finder):
    def stores(self) -> list[StoreState]:
        return [StoreState("postgresql", State(True, 0.0, "it tells of no changes"), 0, 0)]


def test_what_is_up_may_have_its_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    stage.registry.rows, stage.registry.finder = Cache(10, 300.0, 5.0), Mute()
    assert warnings(registry(stage.plane)) == ["postgresql of the registry: it tells of no changes"]
