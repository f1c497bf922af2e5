"""Worker processes that start, fail, hang, talk nonsense and end, played by a stub that speaks the channel."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from proxy import log
from proxy.errors import ConfigError, ShuttingDown, TiergateError
from proxy.supervisor import crew as crew_module
from proxy.supervisor.crew import Crew
from proxy.supervisor.process import State, WorkerProcess
from proxy.supervisor.sockets import Sockets

# Answers "start" as the first line of a file says that is then removed; ends when it is told to or left alone.
STUB = textwrap.dedent("""
    import json, os, socket, sys, time
    sock = socket.socket(fileno=int(sys.argv[1]))
    plan = sys.argv[2]

    def say(number, kind, fields):
        body = json.dumps([number, kind, fields]).encode()
        sock.sendall(len(body).to_bytes(4, "big") + body)

    def hear():
        head = sock.recv(4, socket.MSG_WAITALL)
        if len(head) < 4:
            raise SystemExit(0)
        return json.loads(sock.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL))

    wish = "ready"
    for name in sorted(os.listdir(plan)):
        try:
            mine = f"{plan}/../mine-{os.getpid()}"
            os.rename(os.path.join(plan, name), mine)
            with open(mine) as file:
                wish = file.read()
            break
        except FileNotFoundError:
            continue
    while True:
        number, kind, fields = hear()
        if kind == "start":
            if wish == "dies":
                raise SystemExit(7)
            if wish == "refuses":
                say(-number, "error", {"names": ["ConfigError"], "message": "no such file", "sqlstate": "F0000",
                                       "hint": "", "detail": "", "internal": ""})
            elif wish != "hangs":
                say(-number, "", {})
            if wish == "nonsense":
                sock.sendall(b"\\xff" * 8)
        elif kind == "alive":
            say(-number, "", {})
        elif kind in ("stop", "drain"):
            if wish == "stubborn":
                time.sleep(60)
            say(0, "leaving", {})
            raise SystemExit(0)
""")


class Stage:
    """A crew of stubs; `ended` are those that are gone."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, slots: int, *plan: str) -> None:
        self.plan = directory / "plan"
        self.plan.mkdir()
        for number, wish in enumerate(plan):
            (self.plan / str(number)).write_text(wish)
        monkeypatch.setattr(crew_module, "spawn", self.spawn)
        self.pids: list[int] = []
        self.ended: list[int] = []
        self.watch: asyncio.Task[None] | None = None
        self.crew = Crew(slots, Sockets(), lambda: {"text": "x"}, self.handlers, self.gone)

    def spawn(self, number: int, sockets: Sequence[socket.socket]) -> tuple[int, socket.socket]:
        ours, its = socket.socketpair()
        os.set_inheritable(its.fileno(), True)
        command = [sys.executable, "-S", "-c", STUB, str(its.fileno()), str(self.plan)]
        pid = os.posix_spawn(command[0], command, os.environ)
        its.close()
        self.pids.append(pid)
        return pid, ours

    def handlers(self, process: WorkerProcess) -> dict[str, Any]:
        return {"leaving": lambda _: self.crew.leaving(process)}

    def gone(self, process: WorkerProcess) -> None:
        assert not Path(f"/proc/{process.pid}").exists()
        self.ended.append(process.number)

    def watched(self, limit: float) -> None:
        self.watch = asyncio.get_running_loop().create_task(self.crew.watch(lambda: limit))

    def states(self) -> dict[int, State]:
        return {number: process.state for number, process in self.crew.processes.items()}

    async def until(self, done: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not done():
                await asyncio.sleep(0.005)

    def run(self, scenario: Callable[[], Awaitable[None]]) -> None:
        async def main() -> None:
            try:
                await scenario()
            finally:
                if self.watch is not None:
                    self.watch.cancel()
                await self.crew.stop()
                await asyncio.sleep(0.01)

        asyncio.run(main())
        assert not any(Path(f"/proc/{pid}").exists() for pid in self.pids)
        assert sorted(self.ended) == list(range(1, len(self.pids) + 1))


def test_all_slots_are_filled_and_a_worker_that_ends_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, monkeypatch, 3)

    async def scenario() -> None:
        await stage.crew.start()
        assert stage.states() == dict.fromkeys((1, 2, 3), State.READY)
        stage.crew.processes[2].kill()
        await stage.until(lambda: stage.states() == dict.fromkeys((1, 3, 4), State.READY))
        assert sum(stage.crew.restarts) == 1
        assert stage.crew.processes[4].slot not in {stage.crew.processes[n].slot for n in (1, 3)}
        await stage.crew.drain(5)
        assert not stage.crew.processes

    stage.run(scenario)


@pytest.mark.parametrize(("wish", "said"), [("dies", "has ended"), ("refuses", "no such file")])
def test_what_cannot_start_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wish: str, said: str
) -> None:
    stage = Stage(tmp_path, monkeypatch, 2, wish)

    async def scenario() -> None:
        with pytest.raises(ConfigError, match=said):
            await stage.crew.start()

    stage.run(scenario)


def test_a_start_that_is_called_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(tmp_path, monkeypatch, 1, "hangs")

    async def scenario() -> None:
        start = asyncio.ensure_future(stage.crew.start())
        await stage.until(lambda: stage.states() == {1: State.STARTING})
        await stage.crew.stop()
        with pytest.raises(ShuttingDown):
            await start

    stage.run(scenario)


def test_one_that_does_not_start_in_time_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_module, "_START_TIMEOUT", 0.2)
    stage = Stage(tmp_path, monkeypatch, 1, "hangs")

    async def scenario() -> None:
        with pytest.raises(TiergateError, match="has not answered"):
            await stage.crew.start()
        monkeypatch.setattr(crew_module, "_START_TIMEOUT", 20.0)
        await stage.until(lambda: State.READY in stage.states().values())

    stage.run(scenario)


def test_one_that_talks_nonsense_or_does_not_stop_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew_module, "_DYING", 0.05)
    stage = Stage(tmp_path, monkeypatch, 1, "nonsense", "stubborn")

    async def scenario() -> None:
        await stage.crew.start()
        await stage.until(lambda: stage.states() == {2: State.READY})
        monkeypatch.setattr(crew_module, "_AT_ONCE", 0.1)
        await stage.crew.stop()
        assert not stage.crew.processes

    stage.run(scenario)


def test_beside_others_it_is_tried_until_all_new_ones_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of before, which are ready, are not taken for new ones."""
    stage = Stage(tmp_path, monkeypatch, 2, "ready", "ready")

    async def scenario() -> None:
        await stage.crew.start()
        for keeper in stage.crew._keepers:
            keeper.cancel()
        for name, wish in enumerate(("dies", "refuses", "dies"), 5):
            (stage.plan / str(name)).write_text(wish)
        await stage.crew.start_beside_others()
        new = {number for number, state in stage.states().items() if number > 2 and state is State.READY}
        assert len(new) == 2
        assert len(stage.pids) == 7
        stage.crew.retire({1, 2}, 0)
        assert [stage.states()[number] for number in (1, 2)] == [State.RETIRING] * 2

    stage.run(scenario)


def test_one_that_drains_by_itself_has_a_successor_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, monkeypatch, 1, "stubborn")

    async def scenario() -> None:
        await stage.crew.start()
        stage.crew.leaving(stage.crew.processes[1])
        await stage.until(lambda: stage.states() == {1: State.ENDING, 2: State.READY})
        stage.crew.processes[1].kill()

    stage.run(scenario)


def test_one_whose_channel_was_lost_already_is_still_reaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path, monkeypatch, 1)

    async def scenario() -> None:
        await stage.crew.start()
        old = stage.crew.processes.pop(1)
        for keeper in stage.crew._keepers:
            keeper.cancel()
        old.channel.close()
        await stage.crew.adopt(
            {
                "number": 1, "slot": 0, "pid": old.pid, "fd": None, "version": "0", "handed": {},
                "state": "ready", "age": 5.0,
            }
        )  # fmt: skip
        await stage.until(lambda: stage.ended == [1])

    stage.run(scenario)


def test_those_of_another_program_are_adopted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(tmp_path, monkeypatch, 1)

    async def scenario() -> None:
        await stage.crew.start()
        old = stage.crew.processes.pop(1)
        old.channel.pause()
        row = {
            "number": 1, "slot": 0, "pid": old.pid, "fd": os.dup(old.channel.fileno()), "version": "0",
            "handed": json.loads(json.dumps(old.channel.hand_on())), "state": "ready", "age": 5.0,
        }  # fmt: skip
        old.channel.close()
        for keeper in stage.crew._keepers:
            keeper.cancel()
        await stage.crew.adopt(row)
        assert stage.states() == {1: State.READY}
        assert stage.crew.serves
        stage.crew.processes[1].channel.tell("stop")
        await stage.until(lambda: stage.ended == [1])

    stage.run(scenario)


# --- signs of life ----------------------------------------------------------------------------------


@pytest.fixture
def short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_module, "_LOOK", 0.05)
    monkeypatch.setattr(crew_module, "_SILENT", 0.1)


@pytest.mark.usefixtures("short_looks")
def test_nobody_waits_for_those_that_are_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(tmp_path, monkeypatch, 3)
    crew = stage.crew

    async def scenario() -> None:
        await crew.start()
        stage.watched(0)
        for number, others in ((2, {1, 3}), (3, {1})):  # the second also while the first still hangs
            os.kill(crew.processes[number].pid, signal.SIGSTOP)
            await stage.until(lambda others=others: crew.members().keys() == others)
            assert crew.members(starting=True).keys() == {1, 2, 3}, (
                "what is said to all, they shall read later"
            )
        for number in (2, 3):
            os.kill(crew.processes[number].pid, signal.SIGCONT)
        await stage.until(lambda: crew.members().keys() == {1, 2, 3})

    stage.run(scenario)


@pytest.mark.usefixtures("short_looks")
def test_one_that_hangs_while_it_ends_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(tmp_path, monkeypatch, 1)

    async def scenario() -> None:
        await stage.crew.start()
        stage.crew.leaving(stage.crew.processes[1])
        os.kill(stage.crew.processes[1].pid, signal.SIGSTOP)
        stage.watched(0.3)
        await stage.until(lambda: stage.ended == [1])

    stage.run(scenario)


@pytest.mark.usefixtures("short_looks")
def test_none_is_killed_for_what_was_not_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor itself stood still (stopped, or its host), and the answers are there unread."""
    stage = Stage(tmp_path, monkeypatch, 1)

    async def scenario() -> None:
        await stage.crew.start()
        (process,) = stage.crew.processes.values()
        os.kill(process.pid, signal.SIGSTOP)
        stage.watched(1.0)
        await stage.until(lambda: process.asked_at is not None)
        os.kill(process.pid, signal.SIGCONT)
        time.sleep(1.5)
        await stage.until(lambda: process.asked_at is None)
        assert stage.ended == []

    stage.run(scenario)


def test_it_says_so_where_workers_end_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage(tmp_path, monkeypatch, 1, "ready", "dies", "dies")

    async def scenario() -> None:
        await stage.crew.start()
        stage.crew.processes[1].kill()
        await stage.until(lambda: stage.states() == {4: State.READY})

    log.configure("json")
    stage.run(scenario)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [
        line["seconds"]
        for line in lines
        if line["event"] == "workers end soon after their start, the next waits"
    ] == [
        0.2,
        0.4,
    ]
