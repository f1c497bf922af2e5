"""The registry's own database: what is found by which names, what is heard, and what its loss means to whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

import pytest

from proxy.cli.sql import scripts
from proxy.registry.sources import SourceDown, postgresql
from proxy.registry.sources.postgresql import PostgreSQL
from tests.integration.registry import Book, tenant_id


class Ear:
    def __init__(self) -> None:
        self.names: set[str] = set()
        self.all = 0

    def heard(self, names: Collection[str]) -> None:
        self.names |= set(names)

    def heard_all(self, *, begins: bool = False) -> None:
        self.all += 1


async def until(so: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not so():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def joined(dsn: str) -> AsyncIterator[tuple[PostgreSQL, Ear]]:
    ear = Ear()
    source = PostgreSQL(dsn, ear)
    source.start()
    try:
        yield source, ear
    finally:
        await source.close()


def test_rows_are_found_by_code_and_by_id(registry: Book) -> None:
    registry.add("one", "two", "Drei-ü", max_qps=5)

    async def scene() -> None:
        async with joined(registry.dsn) as (source, _):
            found = await source.rows(
                ["one", tenant_id("two"), "Drei-ü", "none", tenant_id("none"), "one' OR true --"]
            )
            assert {row.tenant_code: row.max_qps for row in found} == {"one": 5, "two": 5, "Drei-ü": 5}
            assert await source.rows(["ONE"]) == []

    asyncio.run(scene())


def test_changes_are_heard(registry: Book) -> None:
    async def scene() -> None:
        async with joined(registry.dsn) as (source, ear):
            await source.rows([])
            assert ear.all == 1  # that it begins
            await asyncio.to_thread(registry.add, "heard")
            await until(lambda: ear.names == {"heard", tenant_id("heard")})
            for payload in ("no JSON", "{}", '{"all": true}', '{"names": 3}', "7"):
                await asyncio.to_thread(registry.run, "SELECT pg_notify('tiergate_registry', %s)", payload)
            await until(lambda: ear.all == 6)

    asyncio.run(scene())


def test_of_a_flood_of_notices_none_is_read(registry: Book) -> None:
    flood = "SELECT pg_notify('tiergate_registry', '{\"names\": [\"n' || n || '\"]}') FROM generate_series(1, %s) n"

    async def scene() -> None:
        async with joined(registry.dsn) as (source, ear):
            await source.rows([])
            await asyncio.to_thread(registry.run, flood, 20)
            await until(lambda: len(ear.names) == 20)
            assert ear.all == 1
            await asyncio.to_thread(registry.run, flood, 30_000)
            await until(lambda: ear.all > 1)

    asyncio.run(scene())


def test_it_says_whether_it_has_heard_everything(registry: Book) -> None:
    async def scene() -> None:
        async with joined(registry.dsn) as (source, ear):
            assert not await source.hears()
            await source.rows([])
            for number in range(20):
                await asyncio.to_thread(registry.add, f"vouched_{number}")
                assert await source.hears()
                assert f"vouched_{number}" in ear.names
            connection = source._connection
            assert connection is not None
            connection.terminate()
            assert not await source.hears()

    asyncio.run(scene())


def test_a_table_made_by_hand_has_rows_too(registry: Book) -> None:
    registry.add("by_hand", cluster_name=None)

    async def scene() -> None:
        async with joined(registry.dsn) as (source, _):
            (row,) = await source.rows(["by_hand"])
            assert (row.tenant_code, row.version, row.cluster_name) == ("by_hand", 0, None)

    registry.run("ALTER TABLE tenant_registry RENAME COLUMN version TO version_")
    registry.run("ALTER TABLE tenant_registry RENAME COLUMN cluster_name TO cluster_name_")
    try:
        asyncio.run(scene())
    finally:
        registry.run("ALTER TABLE tenant_registry RENAME COLUMN version_ TO version")
        registry.run("ALTER TABLE tenant_registry RENAME COLUMN cluster_name_ TO cluster_name")


def test_tables_that_tell_of_no_changes_are_seen_until_they_do(
    registry: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "_PING_EVERY", 0.01)
    registry.add("mute")
    registry.add_user("late", "mute", "secret")
    registry.run("DROP TRIGGER tiergate_tell_updated ON tenant_registry")
    registry.run("ALTER TABLE tenant_users RENAME TO users_of_later")

    async def scene() -> None:
        async with joined(registry.dsn) as (source, ear):
            assert await source.users([("mute", "late")]) == []
            assert (source.state.up, "tell of no changes" in source.state.reason) == (True, True)
            await asyncio.to_thread(registry.run, "ALTER TABLE users_of_later RENAME TO tenant_users")
            for script in scripts("registry_kit").values():
                await asyncio.to_thread(registry.run, script)
            await until(lambda: not source.state.reason)
            assert ear.all >= 2  # what has changed meanwhile nobody has told
            await until(lambda: source._has_users)
            assert [found.user for found in await source.users([("mute", "late")])] == ["late"]

    asyncio.run(scene())


def test_a_look_up_outlives_a_connection_that_is_cut(registry: Book) -> None:
    registry.add("cut")

    async def scene() -> None:
        async with joined(registry.dsn) as (source, ear):
            await source.rows([])
            for _ in range(3):
                await asyncio.to_thread(registry.cut, "SELECT 1")
                assert [row.tenant_code for row in await source.rows(["cut"])] == ["cut"]
            assert ear.all >= 3

    asyncio.run(scene())


def test_who_asks_while_it_is_down_is_told_at_once(registry: Book) -> None:
    async def scene() -> None:
        async with joined("postgresql://nobody@127.0.0.1:1/none") as (source, _):
            assert source.worth_asking
            with pytest.raises(SourceDown, match="failed"):
                await source.rows(["x"])
            assert not source.worth_asking
            began = asyncio.get_running_loop().time()
            with pytest.raises(SourceDown):
                await source.rows(["x"])
            assert asyncio.get_running_loop().time() - began < 1.0
        async with joined(registry.dsn + "_that_is_not_there") as (source, _):
            with pytest.raises(SourceDown, match="does not exist"):
                await source.rows(["x"])

    asyncio.run(scene())


def test_a_table_that_does_not_answer_is_no_reason_to_wait(
    registry: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.registry.sources.postgresql._ANSWER", 0.2)

    async def scene() -> None:
        async with joined(registry.dsn) as (source, _):
            with registry.locked(), pytest.raises(SourceDown):
                await source.rows(["one"])
            assert await source.rows(["nobody"]) == []
            assert source.worth_asking

    asyncio.run(scene())


def test_a_table_that_may_not_be_read_is_an_outage_until_it_may(registry: Book) -> None:
    registry.run("CREATE ROLE reader LOGIN")

    async def scene() -> None:
        async with joined(registry.dsn.replace("postgres@", "reader@")) as (source, _):
            with pytest.raises(SourceDown, match="permission denied"):
                await source.rows(["one"])
            assert (source.state.up, source.worth_asking) == (False, True)
            await asyncio.to_thread(registry.run, "GRANT SELECT ON tenant_registry TO reader")
            await source.rows(["one"])
            assert source.state.up

    asyncio.run(scene())


def test_a_name_that_the_database_cannot_spell_spoils_no_others(registry: Book) -> None:
    registry.run("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    registry.run_in("latin", "CREATE TABLE tenant_registry (tenant_id uuid, tenant_code text, tier text,"
                    " cluster_endpoint_type text)")  # fmt: skip
    registry.run_in(
        "latin", f"INSERT INTO tenant_registry VALUES ('{tenant_id('x')}', 'x', 'free', 'shared_pool')"
    )

    async def scene() -> None:
        async with joined(registry.dsn.removesuffix("registry") + "latin") as (source, _):
            assert [row.tenant_code for row in await source.rows(["x", "€", "漢"])] == ["x"]

    asyncio.run(scene())


def test_users_that_may_log_in(registry: Book) -> None:
    registry.add("club", "rival")
    registry.add_user("anna", "club", "x")
    registry.add_user("anna", "rival", "x", locked=True)
    registry.add_user("otto", "club", "x", valid_until="2020-01-01")
    registry.add_user("ida", "club", "x", valid_until="2999-01-01")
    asked = [(tenant, user) for tenant in ("club", "rival", "none") for user in ("anna", "otto", "ida", "€")]

    async def scene() -> None:
        async with joined(registry.dsn) as (source, _):
            found = await source.users(asked)
            assert {(one.tenant, one.user) for one in found} == {("club", "anna"), ("club", "ida")}
            assert all(one.verifier.startswith("SCRAM-SHA-256$") for one in found)
        async with joined(registry.dsn.replace("postgres@", "narrow@")) as (source, _):
            await source.rows([])
            assert await source.users(asked) == []
            assert source.state.up

    registry.run("CREATE ROLE narrow LOGIN")
    registry.run("GRANT SELECT ON tenant_registry TO narrow")
    asyncio.run(scene())
