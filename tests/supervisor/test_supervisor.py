"""The supervisor's own work where no process is needed for it: what it takes of a file, and an upgrade that fails."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from proxy import settings
from proxy.control.api import Http
from proxy.errors import ConfigError
from proxy.supervisor import upgrading
from proxy.supervisor.crew import Crew
from proxy.supervisor.supervisor import Supervisor
from tests.server.fakes import run

FILE = """
[cluster.shared]
kind = "shared"
primary = "127.0.0.1:5432"
"""


class Mute:
    """A worker that is told things and answers when it is let to."""

    number, silent = 1, False

    def __init__(self) -> None:
        self.channel = self
        self.asked: list[str] = []
        self.answers = asyncio.Event()

    async def ask(self, kind: str, timeout: float | None, **_: Any) -> None:
        self.asked.append(kind)
        await self.answers.wait()

    def pause(self) -> None:
        self.asked.append("pause")

    def resume(self) -> None:
        self.asked.append("resume")


class OneMute:
    """A crew of it."""

    slots, resting = 1, False

    def __init__(self) -> None:
        self.mute = Mute()
        self.processes = {1: self.mute}

    def members(self, *, starting: bool) -> dict[int, Mute]:
        return self.processes


class Serving:
    """An HTTP face that knows how often it serves."""

    def __init__(self) -> None:
        self.serves = 1

    async def serve(self, sock: object) -> None:
        self.serves += 1

    async def stop(self) -> None:
        self.serves = 0

    async def rest(self) -> None:
        pass

    def reload(self) -> None:
        pass


class Dup:
    def dup(self) -> Dup:
        return self


def supervisor_of(config: Path) -> tuple[Supervisor, Mute]:
    config.write_text(FILE)
    made = Supervisor(settings.parse(FILE, str(config)), FILE)
    crew = OneMute()
    made.crew = cast(Crew, crew)
    return made, crew.mute


def refused(supervisor: Supervisor) -> int:
    return int(supervisor.own_counts()["most"]["config_refused"])


def test_a_file_is_taken_before_all_workers_have_said_so(tmp_path: Path) -> None:
    """Or one that hangs would let a good file be called a refused one, until it is killed."""

    async def main() -> None:
        supervisor, mute = supervisor_of(tmp_path / "tiergate.toml")
        config = Path(supervisor.settings.path)
        config.write_text(FILE + "[tenant.acme]\ntier = 'gold'\n")
        with pytest.raises(ConfigError):
            await supervisor.reload()
        assert refused(supervisor) == 1
        assert "acme" not in supervisor.settings.directory.tenants
        config.write_text(FILE + "[tenant.acme]\ntier = 'standard'\n")
        reload = asyncio.ensure_future(supervisor.reload())
        while not (mute.asked or reload.done()):
            await asyncio.sleep(0)
        assert not reload.done(), reload
        assert refused(supervisor) == 0
        assert "acme" in supervisor.settings.directory.tenants
        mute.answers.set()
        assert await reload == {"needs_restart": [], "without": []}

    run(main())


@pytest.mark.parametrize("where", ["until_all_is_said", "workers"])
def test_an_upgrade_that_fails_half_way_leaves_one_http_face(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    async def fails(*_: object) -> None:
        raise OSError("no memory")

    async def does_not(*_: object) -> None:
        pass

    async def main() -> None:
        supervisor, mute = supervisor_of(tmp_path / "tiergate.toml")
        http = Serving()
        supervisor.http = cast(Http, http)
        supervisor._http_sock = cast(Any, Dup())
        monkeypatch.setattr(upgrading, "come_to_rest", does_not)
        monkeypatch.setattr(
            upgrading, "until_all_is_said", fails if where == "until_all_is_said" else does_not
        )
        monkeypatch.setattr(supervisor, "_replace_program", lambda: 1 / 0)
        await supervisor._exec()
        assert http.serves == 1
        assert mute.asked == ["pause", "resume"]
        assert not supervisor.crew.resting

    run(main())
