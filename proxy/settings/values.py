"""The kinds of value that a key may have: what is accepted, what it becomes, what would be right."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any

from proxy.routing import addresses

Read = Callable[[object], Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """`read` turns a TOML value into ours or raises ValueError, whose text, if any, says what is wrong.

    `from_text` turns the text of an environment variable into the value TOML would have given. A `secret`
    value is never shown; one that is `kept` has no effect in this version.
    """

    says: str
    read: Read
    from_text: Callable[[str], object] = str
    secret: bool = False
    kept: bool = False


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)?", re.ASCII)
_SIZE = re.compile(r"\d+(\.\d+)?\s*([kmgt]i?)?b", re.ASCII | re.IGNORECASE)
_BYTES = re.compile(r"(\d+)\s*([kmg]?)b?", re.ASCII | re.IGNORECASE)
_PERCENT = re.compile(r"\d+(\.\d+)?%", re.ASCII)
_WINDOW = re.compile(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d", re.ASCII)


def duration(value: object) -> float:
    """Seconds. A bare number is seconds, as in PgBouncer; ValueError for anything that is no duration."""
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            raise ValueError
        return float(match[1]) * _UNITS[match[2] or "s"] if match[2] != "ms" else float(match[1]) / 1000
    return number(value)


def format_duration(seconds: float) -> str:
    """The shortest text that `duration` reads back as the same value."""
    if seconds == 0:
        return "0"
    for unit in ("d", "h", "m"):
        if seconds % _UNITS[unit] == 0:
            return f"{int(seconds // _UNITS[unit])}{unit}"
    if seconds < 1:
        for text in (f"{round(seconds * 1000)}ms", f"{_plain(seconds * 1000)}ms"):
            if duration(text) == seconds:
                return text
    return f"{_plain(seconds)}s"


def _plain(value: float) -> str:
    if value == int(value):
        return str(int(value))
    text = repr(value)
    return text if "e" not in text else f"{value:.400f}".rstrip("0")


def _bytes(value: object) -> int:
    """Units are PostgreSQL's: 1kB is 1024 bytes."""
    if not isinstance(value, str):
        result: int = _integer(0)(value)
        return result
    match = _BYTES.fullmatch(value.strip())
    if match is None:
        raise ValueError
    return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[match[2].lower()]


def number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError
    return float(value)


def _integer(low: int, high: int | None = None) -> Read:
    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError
        if value < low or (high is not None and value > high):
            raise ValueError
        return value

    return read


def _integer_from_text(text: str) -> object:
    try:
        return int(text)
    except ValueError:
        return text


def _number_from_text(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _boolean_from_text(text: str) -> object:
    words = {
        "true": True,
        "on": True,
        "yes": True,
        "1": True,
        "false": False,
        "off": False,
        "no": False,
        "0": False,
    }
    return words.get(text.strip().lower(), text)


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError
    return value


def _word(value: object) -> str:
    text = _text(value).strip()
    if not text:
        raise ValueError
    return text


def _names(value: object) -> tuple[str, ...]:
    """A list, or PgBouncer's one text with commas."""
    if isinstance(value, str):
        return tuple(name for part in value.split(",") if (name := part.strip()))
    if not isinstance(value, list):
        raise ValueError
    return tuple(_word(item) for item in value)


def _matching(pattern: re.Pattern[str]) -> Read:
    def read(value: object) -> str:
        if not pattern.fullmatch(_text(value).strip()):
            raise ValueError
        return _text(value).strip()

    return read


def _count_or_share(value: object) -> float:
    """A share is less than 1, a count is not."""
    if isinstance(value, str) and _PERCENT.fullmatch(value) and float(value[:-1]) < 100:
        return float(value[:-1]) / 100
    return float(_integer(0)(value))


def _uuid(value: object) -> str:
    return str(uuid.UUID(_text(value))) if value else ""


def _socket_mode(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"(0o?)?[0-7]{1,3}", value, re.ASCII):
        return int(value.removeprefix("0o"), 8)
    result: int = _integer(0, 0o777)(value)
    return result


def _tenants(value: object) -> frozenset[str] | None:
    return None if value == "*" else frozenset(_names(value))


def _parameters(value: object) -> Mapping[str, str]:
    """Flat names: `parameters.app.region = "eu"` is how TOML spells the setting `app.region`."""
    found: dict[str, str] = {}

    def walk(prefix: str, table: object) -> None:
        if not isinstance(table, dict):
            raise ValueError
        for key, item in table.items():
            if isinstance(item, dict):
                walk(f"{prefix}{key}.", item)
            elif isinstance(item, bool):
                found[prefix + key] = "on" if item else "off"
            elif isinstance(item, int | float):
                found[prefix + key] = str(item)
            else:
                found[prefix + key] = _text(item)

    walk("", value)
    return MappingProxyType(found)


def _table(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError
    return value


def _address(value: object) -> tuple[str, int]:
    return addresses.parse(_word(value))


def _primary(value: object) -> tuple[str, int]:
    """`"host:port"`, or the architecture document's `primary.host` with an optional `primary.port`."""
    if not isinstance(value, dict):
        return _address(value)
    if strange := value.keys() - {"host", "port"}:
        raise ValueError(f"unknown key {', '.join(sorted(strange))}; the known ones are host and port")
    host, port = _address(value.get("host", ""))
    return host, _integer(1, 65535)(value["port"]) if "port" in value else port


def _addresses(value: object) -> tuple[tuple[str, int], ...]:
    return tuple(_address(item) for item in ([value] if isinstance(value, str) else _list(value)))


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise ValueError
    return value


def choice(*words: str) -> Kind:
    def read(value: object) -> str:
        text = _text(value).strip().lower()
        if text not in words:
            raise ValueError
        return text

    return Kind("one of " + ", ".join(words), read)


def choices(*words: str) -> Kind:
    def read(value: object) -> tuple[str, ...]:
        names = _names(value)
        if strange := [name for name in names if name not in words]:
            raise ValueError(f'"{strange[0]}" is not one of {", ".join(words)}')
        if len(set(names)) != len(names):
            raise ValueError("says the same thing twice")
        return names

    return Kind("a list of " + ", ".join(words), read)


def member(words: type[Enum]) -> Kind:
    def read(value: object) -> Enum:
        return words(_text(value).strip().lower())

    return Kind("one of " + ", ".join(str(m.value) for m in words), _quiet(read))


def _quiet(read: Read) -> Read:
    """Where the library's text would say less than ours."""

    def wrapped(value: object) -> object:
        try:
            return read(value)
        except ValueError:
            raise ValueError from None

    return wrapped


def integer(low: int, high: int) -> Kind:
    return Kind(f"a whole number from {low} to {high}", _integer(low, high), _integer_from_text)


def kept(kind: Kind) -> Kind:
    return Kind(kind.says, kind.read, kind.from_text, kind.secret, kept=True)


_SEAL_KEY = re.compile(r"[A-Za-z0-9_-]{1,32}:.{32,}", re.ASCII | re.DOTALL)


def seal_key(text: str) -> tuple[str, str]:
    """Id and secret of `id:secret`."""
    if not _SEAL_KEY.fullmatch(text):
        raise ValueError
    name, _, secret = text.partition(":")
    return name, secret


def _seal_keys(value: object) -> tuple[tuple[str, str], ...]:
    return tuple(seal_key(_text(item)) for item in _list(value))


TEXT = Kind("text in quotes", _text)
WORD = Kind("text in quotes, not empty", _word)
SECRET = Kind("text in quotes", _text, secret=True)
SEAL_KEYS = Kind(
    'a list of "id:secret" with ids of at most 32 letters, digits, "_" and "-", and secrets of at least 32 characters',
    _seal_keys,
    secret=True,
)
BOOLEAN = Kind("true or false", _boolean, _boolean_from_text)
COUNT = Kind("a whole number, 0 or more", _integer(0), _integer_from_text)
POSITIVE = Kind("a whole number, 1 or more", _integer(1), _integer_from_text)
NUMBER = Kind("a number, 0 or more", number, _number_from_text)
DURATION = Kind('a duration such as "500ms", "30s", "5m", "1h" or 0', duration)
PORT = integer(0, 65535)
NAMES = Kind("a list of names", _names)
NAME_SET = Kind("a list of names", lambda value: frozenset(_names(value)))
TENANTS = Kind('"*" or a list of tenants', _tenants)
UUID = Kind("a UUID", _quiet(_uuid))
PARAMETERS = Kind("a table of server parameters", _parameters)
TABLE = Kind("a table", _table)
SIZE = Kind('a size such as "64gb"', _matching(_SIZE))
BYTES = Kind('a number of bytes, or a size such as "64kB"', _bytes)
PERCENT = Kind('a percentage such as "30%"', _matching(_PERCENT))
COUNT_OR_SHARE = Kind('a whole number, or a percentage below 100 such as "20%"', _count_or_share)
WINDOW = Kind('a time window such as "02:00-06:00"', _matching(_WINDOW))
SOCKET_MODE = Kind('an octal mode such as "0777"', _socket_mode)
PEER = Kind('a host such as "proxy2" or "proxy2:6433"', lambda value: addresses.parse(_word(value), 6432))
PRIMARY = Kind(addresses.EXAMPLE, _primary)
ADDRESSES = Kind(f"a list, each {addresses.EXAMPLE}", _addresses)
