"""`tiergate serve` as a process of its own: started, signalled, and ended with the test."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import wait_until

COMMAND = (sys.executable, "-m", "proxy")
ROOT = Path(__file__).resolve().parents[2]


class Serve:
    """The process and the events it has logged. The configuration must say log_format = "json"."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.events: list[dict[str, Any]] = []
        self.other: list[str] = []
        self.process = subprocess.Popen(
            [*COMMAND, "serve", "--config", str(config)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, cwd=ROOT,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                self.events.append(json.loads(line))
            except json.JSONDecodeError:
                self.other.append(line)

    def event(self, name: str, count: int = 1) -> dict[str, Any]:
        """The `count`th event of that name, once it has been logged."""

        def found() -> dict[str, Any] | None:
            seen = [event for event in self.events if event["event"] == name]
            if len(seen) >= count:
                return seen[count - 1]
            assert self._reader.is_alive(), f"it has ended: {self.events} {self.other}"
            return None

        try:
            event = wait_until(found, 60, what=f"event {name}")
        except AssertionError as error:
            raise AssertionError(f"{error}; {self.events} {self.other}") from None
        assert event is not None
        return event

    def event_names(self) -> list[str]:
        return [event["event"] for event in self.events]

    @property
    def port(self) -> int:
        return int(self.event("listening")["port"])

    @property
    def http_port(self) -> int:
        return int(self.event("listening")["http_port"])

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit code."""
        code = self.process.wait(60)
        self._reader.join(20)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(20)
        assert self.process.stderr is not None
        self.process.stderr.close()


class Ahead:
    """Processes that are alike, for those tests of a module that use `fixture`: while one works with its own, the next
    one starts."""

    def __init__(
        self,
        request: pytest.FixtureRequest,
        directories: pytest.TempPathFactory,
        fixture: str,
        text: Callable[[], str],
    ) -> None:
        here = [item for item in request.session.items if item.path == request.path]
        self._left = sum(fixture in getattr(item, "fixturenames", ()) for item in here)
        self._directories, self._fixture, self._text = directories, fixture, text
        self._next: Serve | None = None

    def _begin(self) -> Serve:
        config = self._directories.mktemp(self._fixture) / "tiergate.toml"
        config.write_text(self._text())
        return Serve(config)

    def take(self) -> Serve:
        found = self._next or self._begin()
        self._left -= 1
        self._next = self._begin() if self._left > 0 else None
        return found

    def close(self) -> None:
        """Where not all have been taken."""
        if self._next is not None:
            self._next.signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._next.wait()
            self._next.close()


@contextmanager
def serving(config: Path) -> Iterator[Serve]:
    serve = Serve(config)
    try:
        serve.event("listening")
        yield serve
    finally:
        serve.close()
