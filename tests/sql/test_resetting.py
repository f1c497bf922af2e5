"""Where a text goes back to what the session began with."""

from __future__ import annotations

import pytest

from proxy.sql.resetting import resets, resets_first


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("RESET ALL; SELECT 1", [("RESET ALL", "")]),
        ("SELECT 1; RESET ALL ; SELECT 2", [("SELECT 1; RESET ALL ", "")]),
        ("SELECT 'é'; RESET Work_Mem; SELECT 2", [("SELECT 'é'; RESET Work_Mem", "work_mem")]),
        ("SET TimeZone TO DEFAULT; SELECT 1", [("SET TimeZone TO DEFAULT", "timezone")]),
        ("RESET ALL; RESET ALL; SELECT 1", [("RESET ALL", ""), ("RESET ALL; RESET ALL", "")]),
        ("SET LOCAL TimeZone TO DEFAULT; SELECT 1", []),
        ("SELECT 1; RESET ALL -- and", [("SELECT 1; RESET ALL -- and", "")]),
        ("SELECT 'RESET ALL'; SELECT 1", []),
        ("RESET ALL; SELECT nonsense nonsense nonsense", []),
        (r"SELECT 'a\''; RESET ALL; SELECT 2 --'", []),
        ("RESET ALL; SELECT '" + "x" * 70_000 + "'", []),
    ],
)
def test_the_ends_of_resets(text: str, found: list[tuple[str, str]]) -> None:
    assert resets(text.encode()) == [(len(ahead.encode()), name) for ahead, name in found]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("RESET ALL; SELECT 1", True),
        (" ;reset\nall ;; SELECT 1", True),
        ("RESET ALL", False),
        ("RESET ALL; ", False),
        ("RESET work_mem; SELECT 1", False),
        ("SELECT 1; RESET ALL; SELECT 1", False),
    ],
)
def test_what_begins_with_one(text: str, first: bool) -> None:
    assert resets_first(text.encode()) is first
