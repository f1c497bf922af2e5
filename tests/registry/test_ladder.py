"""The order in which stores are asked, one flight a name, and what changes and outages do to answers under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from proxy.model import ClientOptions, Cluster, ClusterKind, Directory, Endpoint, Role, Tenant, Tier
from proxy.registry.cache import Cache
from proxy.registry.ladder import Ladder
from proxy.registry.memory import Registry, RegistryDown
from proxy.registry.rows import Row
from proxy.registry.sources import SourceDown, State, Ticket

ID = "0b5a1d5e-6f0f-4f0e-9a53-0d5f2a1c7e01"
ACME = Row(ID, "acme", "standard", "shared_pool")
UP, DOWN = State(True, 0.0), State(False, 0.0, "refused")
SHARED = Cluster("shared", ClusterKind.SHARED, (Endpoint("c", 5432, Role.COORDINATOR),))
DIRECTORY = Directory(
    {}, {"shared": SHARED}, {"standard": Tier("standard")}, {"file": Tenant("file", "standard", "shared")}
)


class Table:
    """A source whose answers are held back while `gate` is closed."""

    def __init__(self) -> None:
        self.state = UP
        self.stored = {"acme": ACME}
        self.asked: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    @property
    def worth_asking(self) -> bool:
        return self.state.up

    async def rows(self, names: Sequence[str]) -> list[Row]:
        self.asked.append(list(names))
        if not self.state.up:
            raise SourceDown(self.state.reason)
        found = [row for row in self.stored.values() if row.tenant_code in names or row.tenant_id in names]
        await self.gate.wait()
        return found


class Copies:
    def __init__(self) -> None:
        self.state = UP
        self.kept: dict[str, Row] = {}
        self.asked: list[str] = []
        self.void: list[str] = []
        self.renewed = 0

    async def get(self, names: Sequence[str]) -> tuple[dict[str, Row], Ticket]:
        self.asked += names
        return {name: self.kept[name] for name in names if name in self.kept}, Ticket(
            "1", dict.fromkeys(names, "0")
        )

    async def put(self, rows: Mapping[str, Row], ticket: Ticket) -> None:
        self.kept |= rows

    async def invalidate(self, names: Collection[str]) -> None:
        self.void += names
        for name in names:
            self.kept.pop(name, None)

    async def renew(self, *, begins: bool) -> None:
        self.renewed += 1
        self.kept.clear()


class Stage:
    def __init__(self) -> None:
        self.rows = Cache(1000, 300.0, 5.0)
        self.registry = Registry(DIRECTORY, ClientOptions(), rows=self.rows)
        self.used: set[str] = set()
        self.rows.in_use = self.used.__contains__
        self.told: list[str] = []
        self.table, self.copies = Table(), Copies()
        self.ladder = Ladder(self.registry, self.rows, self.told.extend, lambda: self.used)
        self.ladder.source, self.ladder.near = self.table, self.copies
        self.registry.finder = self.ladder

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


def play(scene: Callable[[Stage], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        stage = Stage()
        try:
            await scene(stage)
        finally:
            await stage.ladder.close()

    asyncio.run(run())


def test_ten_thousand_logins_of_a_cold_tenant_are_one_question() -> None:
    async def scene(stage: Stage) -> None:
        found = await asyncio.gather(*(stage.registry.find("acme") for _ in range(10_000)))
        assert {tenant.name for tenant in found if tenant} == {"acme"}
        assert stage.table.asked == [["acme"]]
        assert await stage.registry.find(ID.upper()) is found[0]
        assert stage.table.asked == [["acme"]]

    play(scene)


def test_all_that_is_wanted_meanwhile_is_one_batch() -> None:
    async def scene(stage: Stage) -> None:
        stage.table.gate.clear()
        first = asyncio.ensure_future(stage.registry.find("acme"))
        await stage.settle()
        others = [asyncio.ensure_future(stage.registry.find(f"n{n}")) for n in range(1200)]
        await stage.settle()
        stage.table.gate.set()
        assert await first is not None
        assert await asyncio.gather(*others) == [None] * 1200
        assert [len(names) for names in stage.table.asked] == [1, 500, 500, 200]

    play(scene)


def test_redis_goes_before_postgresql_and_gets_what_it_did_not_have() -> None:
    async def scene(stage: Stage) -> None:
        stage.ladder.heard_all()  # before, nobody knows whether the copies have been watched
        await stage.settle()
        assert await stage.registry.find("acme") is not None
        await stage.settle()
        assert stage.copies.kept == {"acme": ACME}
        stage.rows.doubt(["acme"])
        assert await stage.registry.find("acme") is not None
        assert len(stage.table.asked) == 1
        assert [(s.name, s.asked, s.found) for s in stage.ladder.stores()] == [
            ("redis", 2, 1), ("postgresql", 1, 1),
        ]  # fmt: skip

    play(scene)


def test_without_redis_postgresql_is_asked() -> None:
    async def scene(stage: Stage) -> None:
        stage.copies.state = DOWN
        assert await stage.registry.find("acme") is not None
        assert not stage.copies.asked

    play(scene)


def test_rows_win_over_the_file_which_is_served_where_there_is_no_row() -> None:
    async def scene(stage: Stage) -> None:
        assert await stage.registry.find("file") is DIRECTORY.tenants["file"]
        stage.table.stored["file"] = replace(ACME, tenant_code="file", max_connections=7)
        stage.ladder.heard(["file"])
        found = await stage.registry.find("file")
        assert found is not None
        assert found.limits.max_connections == 7
        assert [tenant.name for tenant in stage.registry.tenants()] == ["file"]

    play(scene)


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 300, "\udcff"])
def test_names_that_no_registry_could_have_are_not_asked_for(name: str) -> None:
    async def scene(stage: Stage) -> None:
        assert await stage.registry.find(name) is None
        assert not stage.table.asked

    play(scene)


# --- outages ----------------------------------------------------------------------------------------


def test_in_an_outage_the_known_are_served_and_the_unknown_may_exist() -> None:
    async def scene(stage: Stage) -> None:
        acme = await stage.registry.find("acme")
        stage.rows.hold(1000, 0.0, 0.0)
        stage.table.state = DOWN
        stage.rows.find("acme").fresh_until = 0.0  # type: ignore[union-attr]
        assert await stage.registry.find("acme") is acme
        assert len(stage.table.asked) == 1  # nobody waits for what will not come
        with pytest.raises(RegistryDown, match="cannot be looked up now"):
            await stage.registry.find("other")
        assert await stage.registry.find("file") is DIRECTORY.tenants["file"]
        assert stage.registry.unasked("other")
        assert not stage.registry.unasked("file")
        stage.table.state = UP
        stage.ladder.heard_all()
        assert await stage.registry.find("other") is None

    play(scene)


def test_what_breaks_on_the_way_is_an_outage_and_not_an_absence() -> None:
    async def scene(stage: Stage) -> None:
        stage.table.rows = None  # type: ignore[assignment,method-assign]
        with pytest.raises(RegistryDown):
            await stage.registry.find("acme")

    play(scene)


# --- changes ----------------------------------------------------------------------------------------


def test_a_change_is_read_anew_where_it_is_used_and_told_once() -> None:
    async def scene(stage: Stage) -> None:
        await stage.registry.find("acme")
        stage.used.add("acme")
        stage.table.stored["acme"] = replace(ACME, max_connections=3)
        stage.ladder.heard(["acme", ID])
        before = stage.registry.known("acme")
        assert before is not None
        assert before.limits.max_connections is None
        await stage.settle()
        after = stage.registry.known("acme")
        assert after is not None
        assert after.limits.max_connections == 3
        assert stage.registry.limits(before).max_connections == 3
        assert sorted(stage.copies.void) == sorted(["acme", ID])
        stage.ladder.heard(["acme", ID])
        await stage.settle()
        assert stage.told == ["acme"]
        assert stage.registry.known("acme") is after

    play(scene)


def test_many_changes_at_once_make_all_copies_void_and_what_is_used_is_read_anew() -> None:
    async def scene(stage: Stage) -> None:
        await stage.registry.find("acme")
        stage.used.add("acme")
        stage.table.stored["acme"] = replace(ACME, max_connections=3)
        before = stage.copies.renewed
        for number in range(2000):
            stage.ladder.heard([f"n{number}"])
        stage.ladder.heard(["acme", ID])
        await stage.settle()
        assert (stage.copies.renewed, stage.copies.void) == (before + 1, [])
        assert stage.told == ["acme"]
        assert stage.table.asked == [["acme"], ["acme"]]
        assert not stage.ladder._doubted  # nothing of it was under way

    play(scene)


def test_what_nobody_uses_is_not_read_anew() -> None:
    async def scene(stage: Stage) -> None:
        await stage.registry.find("acme")
        stage.ladder.heard(["acme"])
        await stage.settle()
        assert len(stage.table.asked) == 1
        assert stage.registry.known("acme") is None
        assert not stage.registry.settled("acme")
        assert not stage.told

    play(scene)


def test_a_name_that_is_doubted_while_it_flies_is_asked_for_again() -> None:
    async def scene(stage: Stage) -> None:
        stage.table.gate.clear()
        asking = asyncio.ensure_future(stage.registry.find("acme"))
        await stage.settle()
        stage.table.stored["acme"] = replace(ACME, max_connections=3)
        stage.ladder.heard(["acme"])
        stage.table.gate.set()
        found = await asking
        assert found is not None
        assert found.limits.max_connections == 3
        assert stage.table.asked == [["acme"], ["acme"]]

    play(scene)


def test_a_tenant_that_is_deleted_is_told_and_so_is_one_that_appears_over_the_files() -> None:
    async def scene(stage: Stage) -> None:
        await stage.registry.find("acme")
        stage.used |= {"acme", "file"}
        del stage.table.stored["acme"]
        stage.table.stored["file"] = replace(ACME, tenant_code="file")
        stage.ladder.heard(["acme", "file", ID])
        await stage.settle()
        assert sorted(stage.told) == ["acme", "file"]
        assert stage.registry.known("acme") is None
        assert stage.registry.ended("acme") == "has been deleted"

    play(scene)


def test_a_feed_that_begins_again_doubts_all_once() -> None:
    async def scene(stage: Stage) -> None:
        await stage.registry.find("acme")
        await stage.settle()
        stage.used.add("acme")
        stage.table.stored["acme"] = replace(ACME, active=False)
        stage.ladder.heard_all()
        await stage.settle()
        assert stage.copies.renewed == 1
        assert stage.told == ["acme"]
        assert stage.registry.ended("acme") == "has been suspended"

    play(scene)


def test_another_proxy_is_believed_where_our_own_feed_is_lost() -> None:
    async def scene(stage: Stage) -> None:
        await stage.registry.find("acme")
        stage.ladder.heard_from_others(["acme"])
        assert stage.registry.known("acme") is not None
        stage.table.state = DOWN
        stage.ladder.heard_from_others(["acme"])
        assert stage.registry.known("acme") is None

    play(scene)
