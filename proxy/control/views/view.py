"""The shape of what is shown: named columns and plain rows, which faces translate."""

from __future__ import annotations

from typing import NamedTuple

Value = str | int | float | None


class View(NamedTuple):
    columns: tuple[str, ...]
    rows: list[tuple[Value, ...]]


def split_microseconds(seconds: float) -> tuple[int, int]:
    return int(seconds), int(seconds % 1 * 1_000_000)
