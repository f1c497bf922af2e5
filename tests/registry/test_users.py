"""Stored users: asked about at each login, in one question, and what an outage leaves of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from proxy.model import ClientOptions, Directory, User
from proxy.registry.memory import Registry, UserUnknown
from proxy.registry.sources import SourceDown, Stored
from proxy.registry.users import StoredUsers

ANNA = Stored("club", "anna", "SCRAM-SHA-256$4096:a$b:c")


class Table:
    def __init__(self) -> None:
        self.stored = [ANNA]
        self.asked: list[list[tuple[str, str]]] = []
        self.up = True

    async def users(self, names: Sequence[tuple[str, str]]) -> list[Stored]:
        self.asked.append(list(names))
        await asyncio.sleep(0)
        if not self.up:
            raise SourceDown("refused")
        return [one for one in self.stored if (one.tenant, one.user) in names]


class Scene:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("proxy.registry.users.monotonic", lambda: self.now)
        self.used: set[str] = set()
        self.told: list[str] = []
        self.table = Table()
        self.users = StoredUsers(self.table, self.told.extend, lambda: self.used, lambda: 3)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def test_a_user_is_its_tenants_alone(scene: Scene) -> None:
    asyncio.run(scene.users.find("anna@club"))
    assert scene.users.get("anna@club") == User(
        "anna@club",
        ANNA.verifier,
        frozenset({"club"}),
        auth_type="scram-sha-256",
        server_user="anna",
        server_password=ANNA.verifier,
    )


def test_a_storm_is_one_question_and_the_next_second_another(scene: Scene) -> None:
    async def play() -> None:
        for _ in range(2):
            await asyncio.gather(*(scene.users.find(name) for name in ["anna@club", "otto@club"] * 500))
            scene.now += 1.1
        assert [sorted(names) for names in scene.table.asked] == [[("club", "anna"), ("club", "otto")]] * 2
        assert scene.users.get("otto@club") is None

    asyncio.run(play())


def test_who_was_found_last_is_served_in_an_outage_and_others_may_exist(scene: Scene) -> None:
    async def play() -> None:
        await scene.users.find("anna@club")
        scene.table.up = False
        scene.now += 100
        await scene.users.find("anna@club")
        assert scene.users.get("anna@club") is not None
        with pytest.raises(UserUnknown, match="cannot be looked up now"):
            await scene.users.find("otto@club")

    asyncio.run(play())


def test_those_that_are_connected_are_asked_about_and_told(scene: Scene) -> None:
    async def play() -> None:
        await scene.users.find("anna@club")
        before = scene.users.get("anna@club")
        scene.used = {"anna@club", "app"}
        scene.users.refresh()
        await scene.users.find("otto@club")
        assert scene.users.get("anna@club") is before
        assert not scene.told
        scene.table.stored = []
        scene.users.refresh()
        await scene.users.find("ida@club")
        assert scene.told == ["anna@club"]
        assert scene.users.get("anna@club") is None
        await scene.users.close()

    asyncio.run(play())


def test_no_more_are_kept_than_may_be_but_for_the_connected(scene: Scene) -> None:
    async def play() -> None:
        await scene.users.find("anna@club")
        scene.used = {"anna@club"}
        for number in range(10):
            await scene.users.find(f"u{number}@club")
        assert len(scene.users._found) <= 4
        assert scene.users.get("anna@club") is not None

    asyncio.run(play())


@pytest.mark.parametrize(
    ("name", "so"),
    [
        ("anna@club", True),
        ("app@club", False),
        ("a@b", False),
        ("anna", False),
        ("a\0@club", False),
        ("\udcff@c", False),
    ],
)
def test_which_names_may_be_stored(scene: Scene, name: str, so: bool) -> None:
    file = {user: User(user) for user in ("app", "a@b")}
    registry = Registry(Directory(file, {}, {}, {}), ClientOptions())
    assert not registry.may_be_stored(name)
    registry.logins = scene.users
    assert registry.may_be_stored(name) is so
    assert registry.user("app") is file["app"]
