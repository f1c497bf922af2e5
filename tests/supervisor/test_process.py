"""What is known of one worker process: its states, how it has ended, when it is tried again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from proxy.supervisor.process import Backoff, State, WorkerProcess, how_it_ended, program


def child(code: str) -> int:
    return os.posix_spawn(sys.executable, [sys.executable, "-c", code], os.environ)


def process(pid: int = 1) -> WorkerProcess:
    async def main() -> WorkerProcess:
        return WorkerProcess(1, 0, pid, "1")

    return asyncio.run(main())


def test_the_way_of_a_worker() -> None:
    worker = process()
    seen = [worker.state]
    for event in ("ready", "retire", "end", "end", "gone"):
        worker.step(event)
        seen.append(worker.state)
    assert seen == [State.STARTING, State.READY, State.RETIRING, State.ENDING, State.ENDING, State.GONE]


@pytest.mark.parametrize(
    ("events", "state"),
    [
        (["gone", "ready"], State.GONE),
        (["gone", "end"], State.GONE),
        (["end", "ready"], State.ENDING),
        (["retire", "ready"], State.RETIRING),
    ],
)
def test_what_comes_too_late_changes_nothing(events: list[str], state: State) -> None:
    worker = process()
    for event in events:
        worker.step(event)
    assert worker.state is state


def test_nobody_is_gone_twice() -> None:
    worker = process()
    worker.step("gone")
    with pytest.raises(KeyError):
        worker.step("gone")


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("pass", "exit 0"),
        ("raise SystemExit(3)", "exit 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("import os; os.kill(os.getpid(), 40)", "signal 40"),
    ],
)
def test_how_it_ended(code: str, how: str) -> None:
    _, status = os.waitpid(child(code), 0)
    assert how_it_ended(status) == how


def test_one_that_has_ended_is_reaped_once_and_never_killed_again() -> None:
    worker = process(child("import time; time.sleep(60)"))
    assert worker.has_ended() == ""
    worker.kill()
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    assert worker.has_ended() == "SIGKILL"
    assert worker.has_ended() == "unknown"
    worker.step("gone")
    worker.pid = os.getpid()
    worker.kill(signal.SIGKILL)


def test_tries_come_slower_unless_it_has_lived() -> None:
    backoff = Backoff(0.1, 5.0, 10.0)
    assert [backoff.after(0.5) for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert [backoff.after(60), backoff.after(0.5)] == [0.1, 0.2]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["python", "-m", "proxy", "serve", "-c", "x"], [sys.executable, "-m", "proxy"]),
        (["python", "-O", "/bin/tiergate", "serve"], [sys.executable, "-O", "/bin/tiergate"]),
        (["python", "-m", "pytest"], [sys.executable, "-m", "proxy"]),
    ],
)
def test_the_program_is_what_was_started(
    given: list[str], found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "orig_argv", given)
    assert program() == found
