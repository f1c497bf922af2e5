"""When a changed file is read: once, when it is whole, however it has come into its place."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy import settings
from proxy.cli import watching
from proxy.cli.watching import Watch
from proxy.errors import ConfigError

NEW, WRONG = "[proxy]\nquery_timeout = '1s'\n", "[proxy]\nquery_timeoot = '1s'\n"


class Scene:
    def __init__(self, directory: Path) -> None:
        self.path = directory / "tiergate.toml"
        self.path.write_text("# old\n")
        self.running = settings.load(str(self.path), {})
        self.reloads = 0
        self.watch = Watch(lambda: self.running, self._reload)
        assert not self.look()
        assert not self.look()

    async def _reload(self) -> None:
        self.reloads += 1
        with contextlib.suppress(ConfigError):
            self.running = settings.load(str(self.path), {})

    def look(self) -> str:
        return self.watch.look(self.running)

    def looks(self) -> list[bool]:
        return [bool(self.look()) for _ in range(4)]

    def write(self, text: str) -> None:
        """In place, and never within the clock's last tick."""
        before = self.path.stat()
        self.path.write_text(text)
        os.utime(self.path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))

    def replace(self, text: str) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(self.path)

    def swap(self, text: str) -> None:
        """As Kubernetes does with a ConfigMap."""
        version = self.path.parent / f"version-{self.reloads}-{len(text)}"
        version.mkdir()
        (version / "tiergate.toml").write_text(text)
        link = self.path.parent / "..data"
        fresh = self.path.parent / "..new"
        fresh.symlink_to(version)
        fresh.rename(link)
        if not self.path.is_symlink():
            self.path.unlink()
            self.path.symlink_to(link / "tiergate.toml")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.mark.parametrize("how", [Scene.write, Scene.replace, Scene.swap])
def test_a_change_is_read_once(scene: Scene, how: Callable[[Scene, str], None]) -> None:
    how(scene, NEW)
    assert scene.looks() == [False, True, False, False]
    scene.running = settings.load(str(scene.path), {})
    how(scene, NEW + "# and more\n")
    assert scene.looks() == [False, True, False, False]


def test_what_is_still_being_written_is_waited_for(scene: Scene) -> None:
    for length in range(10, len(NEW), 5):
        scene.write(NEW[:length])
        assert not scene.look()
    scene.write(NEW)
    assert scene.looks() == [False, True, False, False]


def test_an_empty_or_missing_file_is_waited_for(scene: Scene) -> None:
    scene.write("\n")
    assert scene.looks() == [False] * 4
    scene.path.unlink()
    assert scene.looks() == [False] * 4
    scene.path.write_text(NEW)
    assert scene.looks() == [False, True, False, False]


def test_what_says_the_same_is_not_reloaded(scene: Scene) -> None:
    scene.replace("# old\n")
    assert scene.looks() == [False] * 4


def test_it_reloads_what_is_good_and_tries_what_is_wrong_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_LOOKS", 0)

    async def play() -> None:
        task = asyncio.create_task(scene.watch.run())
        for text, reloads in (
            (NEW, 1),
            (WRONG, 2),
            ("", 2),
            (WRONG, 2),
            (NEW, 3),
            (NEW, 3),
            (WRONG, 4),
            ("[proxy]\n", 5),
        ):
            scene.replace(text)
            for _ in range(20):
                await asyncio.sleep(0)
            assert scene.reloads == reloads
        task.cancel()

    asyncio.run(play())


def test_it_can_be_told_not_to(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_LOOKS", 0)
    scene.replace("[proxy]\nwatch_config = false\n")
    scene.running = loaded = settings.load(str(scene.path), {})

    async def play() -> None:
        task = asyncio.create_task(scene.watch.run())
        scene.replace(NEW)
        for _ in range(20):
            await asyncio.sleep(0)
        task.cancel()

    asyncio.run(play())
    assert scene.running is loaded
