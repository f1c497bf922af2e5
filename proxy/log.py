"""The log: one line an event on standard error, as JSON or for people, without secrets.

Whoever logs imports `get` and knows no library. Other libraries' logging comes out in the same form.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from functools import lru_cache
from typing import Any, Literal, TextIO, cast

import structlog

Format = Literal["console", "json"]
Level = Literal["debug", "info", "warning", "error"]

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_SECRET_WORDS = frozenset({"password", "passwd", "secret", "verifier", "token"})
_SECRET_KEYS = frozenset({"key", "secret_key", "private_key", "cancel_key", "api_key"})
REDACTED = "[redacted]"

Event = MutableMapping[str, Any]
_threshold = _LEVELS["info"]
_process: dict[str, object] = {}
_bound: Any = None  # structlog's logger as it was configured: to ask for it anew takes as long as a line
_BARE = re.compile(r'[^ "=]+')


class Logger:
    """Events with fields. `event` is a fixed text that can be counted; what varies is a field."""

    __slots__ = ("_fields", "_name")

    def __init__(self, name: str, fields: dict[str, object]) -> None:
        self._name = name
        self._fields = fields

    def bind(self, **fields: object) -> Logger:
        """A logger that says these fields with every event."""
        return Logger(self._name, self._fields | fields)

    def enabled(self, level: Level) -> bool:
        """Whether it is worth making the fields of a costly event."""
        return _LEVELS[level] >= _threshold

    def debug(self, event: str, **fields: object) -> None:
        if _threshold <= 10:
            self._emit("debug", event, fields)

    def info(self, event: str, **fields: object) -> None:
        if _threshold <= 20:
            self._emit("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        if _threshold <= 30:
            self._emit("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        self._emit("error", event, fields)

    def exception(self, event: str, error: BaseException, **fields: object) -> None:
        """An error with its traceback: for bugs, not for what clients and servers do."""
        self._emit("error", event, fields | {"exc_info": error})

    def log(self, level: Level, event: str, **fields: object) -> None:
        if _LEVELS[level] >= _threshold:
            self._emit(level, event, fields)

    def _emit(self, level: Level, event: str, fields: dict[str, object]) -> None:
        logger = structlog.get_logger() if _bound is None else _bound
        getattr(logger, level)(event, **{"logger": self._name} | _process | self._fields | fields)


def identify(**fields: object) -> None:
    """Fields that this process says with every event."""
    _process.update(fields)


def get(name: str, **fields: object) -> Logger:
    return Logger(name.removeprefix("proxy."), fields)


def configure(format: Format = "console", level: Level = "info", stream: TextIO | None = None) -> None:
    """May be called again, for a reload."""
    global _threshold, _bound
    _threshold = _LEVELS[level]
    outlet = _Outlet(stream or sys.stderr or sys.stdout)
    out = cast(TextIO, outlet)
    shared: list[structlog.types.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        outlet.tell,
        redact,
    ]
    render: structlog.types.Processor = (
        structlog.processors.JSONRenderer(default=str) if format == "json" else _line
    )
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(_threshold),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    _bound = structlog.get_logger().bind()
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old.formatter, structlog.stdlib.ProcessorFormatter):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(_threshold, logging.INFO))


class _Outlet:
    """Where lines go. One that cannot be written (a full disk, a pipe without a reader) is lost and nothing else: it
    must not end what it tells of."""

    def __init__(self, out: TextIO) -> None:
        self.lost = 0  # lines, since one was written
        self._out = out

    def write(self, text: str) -> None:
        try:
            self._out.write(text)
            self._out.flush()
        except (OSError, ValueError):  # ValueError: it has been closed
            self.lost += 1
        else:
            self.lost = 0

    def flush(self) -> None:
        """Each line has been flushed when it was written."""

    def tell(self, logger: Any, method: str, event: Event) -> Event:
        """The first line that gets through says how many did not."""
        if self.lost:
            event["lines_lost"] = self.lost
        return event


def redact(logger: Any, method: str, event: Event) -> Event:
    """Hide values by the name of their key, at any depth."""
    for key, value in event.items():
        event[key] = _hide(key, value)
    return event


@lru_cache(maxsize=1_000)
def is_secret(key: str) -> bool:
    """Whether what has that name must not be shown."""
    name = key.lower()
    return name in _SECRET_KEYS or not _SECRET_WORDS.isdisjoint(name.replace("-", "_").split("_"))


def _hide(key: object, value: object) -> object:
    if isinstance(key, str) and value not in ("", None) and is_secret(key):
        return REDACTED
    if isinstance(value, dict):
        return {inner: _hide(inner, item) for inner, item in value.items()}
    if isinstance(value, list | tuple):
        return [_hide("", item) for item in value]
    return value


def _line(logger: Any, method: str, event: Event) -> str:
    """`time level event key=value ...`; what clients sent cannot start a new line, a traceback does."""
    fields = dict(event)
    head = f"{fields.pop('timestamp', '')} {fields.pop('level', method):<7} {_plain(fields.pop('event', ''))}"
    trace = fields.pop("exception", None)
    line = " ".join([head, *(f"{key}={_quoted(value)}" for key, value in fields.items())])
    if trace:
        line += "".join(f"\n    {_plain(row)}" for row in str(trace).splitlines())
    return line


def _plain(value: object) -> str:
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _quoted(value: object) -> str:
    text = str(value)
    if _BARE.fullmatch(text) and text.isprintable():
        return text
    return '"' + _plain(text.replace("\\", "\\\\")).replace('"', '\\"') + '"'
