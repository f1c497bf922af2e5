"""What a client prepares after a change of the tables is what it would be on a connection of its own, although
others have had the same text prepared before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.running import column_names
from tests.integration.servers import connect
from tests.rawclient import SYNC, RawClient, bind, describe, execute, parse, rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy

TEXT = "SELECT * FROM altered"


@pytest.fixture
def proxy(start_proxy: StartProxy, shared: EmbeddedServer) -> Proxy:
    tables: dict[str, dict[str, Any]] = {
        "cluster.one": {"kind": "dedicated", "primary": f"{shared.host}:{shared.port}", "pool_size": 1},
        "tenant.one": {"tier": "enterprise", "cluster": "one"},
        "user.app": {"tenants": "*"},
    }
    with connect(shared) as connection:
        connection.execute("DROP SCHEMA IF EXISTS altering CASCADE; DROP TABLE IF EXISTS altered")
        connection.execute(
            "CREATE SCHEMA altering; CREATE TABLE altering.altered AS SELECT 1 AS a, 2 AS b, 3 AS c"
        )
        connection.execute("CREATE TABLE altered AS SELECT 1 AS a, 2 AS b")
        connection.execute("ALTER TABLE altered OWNER TO app; GRANT ALL ON SCHEMA altering TO app")
        connection.execute("GRANT ALL ON altering.altered TO app")
    return start_proxy(tables, default_tenant="one")


def prepared(client: RawClient, name: str = "s") -> list[str]:
    """The columns of the statement, prepared and described in one batch."""
    frames = client.checked(client.ask(parse(TEXT, name) + describe("S", name) + SYNC))
    return next(column_names(frame.body) for frame in frames if frame.kind == "T")


def executed(client: RawClient, name: str = "s") -> list[list[str | None]]:
    return rows(client.checked(client.ask(bind(name=name) + execute() + SYNC)))


def simple(text: str) -> Callable[[RawClient], None]:
    def alter(client: RawClient) -> None:
        client.checked(client.query(text))

    return alter


def extended(text: str) -> Callable[[RawClient], None]:
    def alter(client: RawClient) -> None:
        client.checked(client.ask(parse(text) + bind() + execute() + SYNC))

    return alter


@pytest.mark.parametrize(
    "alter",
    [
        simple("ALTER TABLE altered ALTER COLUMN b TYPE text, ADD COLUMN c int"),
        extended("ALTER TABLE altered ALTER COLUMN b TYPE text, ADD COLUMN c int"),
        simple("DROP TABLE altered; CREATE TABLE altered AS SELECT 1 AS a, 'two' AS b, NULL::int AS c"),
        simple("BEGIN; ALTER TABLE altered ALTER COLUMN b TYPE text, ADD COLUMN c int; COMMIT"),
    ],
)
def test_a_change_of_a_table(proxy: Proxy, alter: Callable[[RawClient], None]) -> None:
    first, other, second = (proxy.raw("app") for _ in range(3))
    assert prepared(first) == ["a", "b"]
    assert executed(first) == [["1", "2"]]
    alter(other)
    assert prepared(second) == ["a", "b", "c"]
    assert len(executed(second)[0]) == 3
    assert prepared(first, "t") == ["a", "b", "c"]
    frames = first.ask(bind(name="s") + execute() + SYNC)
    assert [frame.kind for frame in frames] == ["E", "Z"], "it was told something else"


def test_a_search_path_of_ones_own(proxy: Proxy) -> None:
    first = proxy.raw("app")
    second = proxy.raw("app", parameters={"options": "-c search_path=altering"})
    third = proxy.raw("app")
    for turn in range(3):
        for client, columns in ((first, 2), (second, 3), (third, 2)):
            assert len(prepared(client, f"s{turn}")) == columns
            for before in range(turn + 1):
                assert len(executed(client, f"s{before}")[0]) == columns
