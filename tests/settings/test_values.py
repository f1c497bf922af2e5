"""Kinds of value: what each takes, what it makes of it, what it refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model import PoolMode
from proxy.settings import values as v


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("500ms", 0.5), ("30s", 30.0), ("5m", 300.0), ("5min", 300.0), ("1h", 3600.0), ("2d", 172800.0), ("0", 0.0),
        (0, 0.0), (15, 15.0), (1.5, 1.5), ("1.5s", 1.5), ("15", 15.0), (" 5 m ", 300.0),
    ],
)  # fmt: skip
def test_durations(written: object, seconds: float) -> None:
    assert v.duration(written) == seconds


@pytest.mark.parametrize(
    "written",
    [
        "",
        "s",
        "-1s",
        "5 parsecs",
        "1h30m",
        "1e3s",
        "٣s",
        ".5s",
        True,
        -1,
        float("nan"),
        float("inf"),
        None,
        [],
    ],
)
def test_not_a_duration(written: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        v.duration(written)


@given(st.integers(0, 10**12))
def test_milliseconds_survive_the_round_trip(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert v.duration(v.format_duration(seconds)) == seconds


@given(st.floats(0, 1e15, allow_nan=False))
def test_any_duration_survives_the_round_trip(seconds: float) -> None:
    assert v.duration(v.format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0"),
        (0.5, "500ms"),
        (30, "30s"),
        (90, "90s"),
        (300, "5m"),
        (3600, "1h"),
        (86400, "1d"),
        (1.5, "1.5s"),
    ],
)
def test_durations_are_written_as_people_write_them(seconds: float, text: str) -> None:
    assert v.format_duration(seconds) == text


@pytest.mark.parametrize(
    ("kind", "written", "expected"),
    [
        (v.COUNT, 0, 0),
        (v.POSITIVE, 1, 1),
        (v.PORT, 65535, 65535),
        (v.NUMBER, 2, 2.0),
        (v.BOOLEAN, False, False),
        (v.TEXT, "", ""),
        (v.WORD, " a ", "a"),
        (v.NAMES, "a, b,", ("a", "b")),
        (v.NAMES, ["a", "b"], ("a", "b")),
        (v.NAME_SET, "", frozenset()),
        (v.TENANTS, "*", None),
        (v.TENANTS, ["acme"], frozenset({"acme"})),
        (v.TENANTS, [], frozenset()),
        (v.UUID, "0B5A1D5E6F0F4F0E9A530D5F2A1C7E01", "0b5a1d5e-6f0f-4f0e-9a53-0d5f2a1c7e01"),
        (v.UUID, "", ""),
        (v.SIZE, "64gb", "64gb"),
        (v.SIZE, "1.5 TiB", "1.5 TiB"),
        (v.PERCENT, "30%", "30%"),
        (v.WINDOW, "02:00-06:00", "02:00-06:00"),
        (v.SOCKET_MODE, "0770", 0o770),
        (v.SOCKET_MODE, 0o700, 0o700),
        (v.ADDRESSES, "a:1", (("a", 1),)),
        (v.ADDRESSES, ["a:1", "b"], (("a", 1), ("b", 5432))),
        (v.PRIMARY, {"host": "a"}, ("a", 5432)),
        (v.PRIMARY, {"host": "a:1"}, ("a", 1)),
        (v.PRIMARY, {"host": "a", "port": 2}, ("a", 2)),
        (v.PRIMARY, "a:3", ("a", 3)),
        (v.member(PoolMode), "Transaction", PoolMode.TRANSACTION),
        (v.choice("a", "b"), "B", "b"),
        (v.choices("a", "b"), ["b", "a"], ("b", "a")),
    ],
)
def test_taken(kind: v.Kind, written: object, expected: object) -> None:
    assert kind.read(written) == expected


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        (v.COUNT, -1), (v.COUNT, True), (v.COUNT, "5"), (v.COUNT, 1.0), (v.POSITIVE, 0), (v.PORT, 65536),
        (v.NUMBER, "1"), (v.NUMBER, -0.1), (v.BOOLEAN, 1), (v.BOOLEAN, "true"), (v.TEXT, 1), (v.TEXT, "a\0b"),
        (v.WORD, " "), (v.NAMES, [1]), (v.NAMES, 1), (v.NAMES, [""]), (v.TENANTS, 5), (v.UUID, "acme"), (v.UUID, 5),
        (v.SIZE, "64"), (v.PERCENT, "30"), (v.WINDOW, "2-6"), (v.WINDOW, "25:00-26:00"), (v.SOCKET_MODE, "0888"),
        (v.ADDRESSES, ["a", 5]), (v.PRIMARY, {}), (v.PRIMARY, {"host": "a", "port": "2"}), (v.PRIMARY, {"hots": "a"}),
        (v.member(PoolMode), "statements"), (v.choice("a"), "c"), (v.choices("a"), ["a", "c"]),
        (v.choices("a"), ["a", "a"]), (v.PARAMETERS, "x"), (v.PARAMETERS, {"a": ["b"]}), (v.TABLE, 1),
    ],
)  # fmt: skip
def test_refused(kind: v.Kind, written: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        kind.read(written)


def test_parameters_are_flat_text() -> None:
    raw = {"work_mem": "4MB", "jit": False, "app": {"region": "eu", "level": 3}, "x": 1.5}
    assert v.PARAMETERS.read(raw) == {
        "work_mem": "4MB", "jit": "off", "app.region": "eu", "app.level": "3", "x": "1.5",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (v.COUNT, "5", 5),
        (v.NUMBER, "0.5", 0.5),
        (v.BOOLEAN, "ON", True),
        (v.BOOLEAN, "0", False),
        (v.DURATION, "5m", 300.0),
        (v.NAMES, "a,b", ("a", "b")),
    ],
)
def test_the_environment_speaks_text(kind: v.Kind, text: str, expected: object) -> None:
    assert kind.read(kind.from_text(text)) == expected


@pytest.mark.parametrize(("kind", "text"), [(v.COUNT, "five"), (v.BOOLEAN, "maybe"), (v.NUMBER, "x")])
def test_text_that_cannot_be_meant_is_refused(kind: v.Kind, text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        kind.read(kind.from_text(text))
