"""`tiergate sql --registry`: the tables from nothing, on tables made by hand, twice; and what they tell of a change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from proxy.cli import main
from proxy.cli.embedded import EmbeddedServer
from proxy.cli.sql import Where, run_install, scripts
from tests.control.api.calling import BY_HAND
from tests.integration.servers import connect

ROOT = Path(__file__).resolve().parents[2]
ACME, ID = "acme", "0b0e7a34-3c55-4b60-9c3c-3b9f7d1e2a01"
INSERT = f"""
INSERT INTO tenant_registry (tenant_id, tenant_code, tenant_name, tier, cluster_endpoint_type)
VALUES ('{ID}', '{ACME}', 'Acme', 'standard', 'shared_pool')
"""


@pytest.fixture
def database(shared: EmbeddedServer) -> Iterator[str]:
    with connect(shared, "postgres") as admin:
        admin.execute("CREATE DATABASE registries")
    yield f"postgresql://postgres@{shared.host}:{shared.port}/registries"
    with connect(shared, "postgres") as admin:
        admin.execute("DROP DATABASE registries WITH (FORCE)")


def run(verb: str, dsn: str, *more: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["sql", verb, "--registry", "--dsn", dsn, *more])
    return result.exit_code, result.output


def told(connection: psycopg.Connection[Any], statement: str) -> dict[str, Any]:
    connection.execute("LISTEN tiergate_registry")
    connection.execute(statement.encode())
    (notice,) = connection.notifies(timeout=5, stop_after=1)
    said: dict[str, Any] = json.loads(notice.payload)
    return said


def test_the_files_stand_in_deploy() -> None:
    found = sorted((ROOT / "deploy" / "sql" / "registry").glob("*.sql"))
    assert [file.read_text() for file in found] == list(scripts("registry_kit").values())


def test_from_nothing_and_again(database: str) -> None:
    assert run("status", database)[0] == run("upgrade", database)[0] == 1
    assert run("install", database)[1].endswith("registry 4 installed\n")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(INSERT.encode())
        assert run("install", database)[1].endswith("registry 4 is now 4\n")
        code, said = run("status", database)
        assert (code, "tenants: 1, of which 1 are served" in said, "WARNING" in said) == (0, True, False)
        connection.execute("DROP TRIGGER tiergate_tell_updated ON tenant_registry")
        assert "WARNING: changes are not told" in run("status", database)[1]
        assert run("upgrade", database)[0] == 0
        assert "WARNING" not in run("status", database)[1]


def test_tables_made_by_hand_keep_their_rows(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(BY_HAND.encode())
        connection.execute(INSERT.encode())
        assert "made by hand" in run("status", database)[1]
        assert run("upgrade", database)[1].endswith("registry made by hand is now registry 4\n")
        assert connection.execute("SELECT tenant_code, version FROM tenant_registry").fetchall() == [
            (ACME, 1)
        ]
        assert set(told(connection, "UPDATE tenant_registry SET max_qps = 5")["names"]) == {ACME, ID}


def test_every_change_is_told_once_with_a_number_of_its_own(database: str) -> None:
    run("install", database)
    with psycopg.connect(database, autocommit=True) as connection:
        said = [
            told(connection, INSERT),
            told(connection, "UPDATE tenant_registry SET tenant_code = 'other'"),
        ]
        assert [set(one["names"]) for one in said] == [{ACME, ID}, {ACME, "other", ID}]
        assert connection.execute("SELECT version FROM tenant_registry").fetchall() == [(2,)]
        said.append(told(connection, "DELETE FROM tenant_registry"))
        assert set(said[2]["names"]) == {"other", ID}
        said.append(told(connection, "TRUNCATE tenant_registry CASCADE"))
        assert said[3]["all"] is True
        assert len({one["change"] for one in said}) == 4


def test_a_statement_tells_once_of_all_its_rows(database: str) -> None:
    run("install", database)
    add = (
        "INSERT INTO tenant_registry (tenant_id, tenant_code, tenant_name, tier, cluster_endpoint_type)"
        " SELECT gen_random_uuid(), '{}' || n, 'x', 'free', 'shared_pool' FROM generate_series(1, {}) n"
    )
    with psycopg.connect(database, autocommit=True) as connection:
        few = told(connection, add.format("few", 3))["names"]
        assert {name for name in few if name.startswith("few")} == {"few1", "few2", "few3"}
        assert len(few) == 6
        assert told(connection, add.format("many", 1000)) == {"all": True, "change": 3}
        assert told(connection, add.format("\u20ac" * 47, 49)).keys() == {
            "all",
            "change",
        }  # 8000 bytes are less
        assert told(connection, "UPDATE tenant_registry SET max_qps = 1").keys() == {"all", "change"}
        connection.execute("DELETE FROM tenant_registry WHERE tenant_code = 'nobody'")  # nothing to tell
        assert "few2" in told(connection, "DELETE FROM tenant_registry WHERE tenant_code = 'few2'")["names"]


def test_a_user_has_a_verifier_and_no_password(database: str) -> None:
    run("install", database)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(INSERT.encode())
        add = f"INSERT INTO tenant_users (tenant_id, user_name, verifier) VALUES ('{ID}', 'app', %s)"
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute(add.encode(), ["secret"])
        connection.execute(add.encode(), ["SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy"])


def test_a_configuration_says_where_the_registry_is(tmp_path: Path) -> None:
    config = tmp_path / "tiergate.toml"
    config.write_text("[proxy]\n")
    result = CliRunner().invoke(main, ["sql", "status", "--registry", "--config", str(config)])
    assert result.exit_code == 1
    assert "there is no registry_dsn; say --dsn" in result.output


def test_what_is_newer_than_the_program_stays_as_it_is(database: str) -> None:
    run("install", database)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "CREATE OR REPLACE FUNCTION tiergate_registry.version() RETURNS int LANGUAGE sql AS 'SELECT 99'"
        )
        for verb in ("install", "upgrade"):
            code, said = run(verb, database)
            assert (code, "registry 99 is newer than this program, which knows 4" in said) == (1, True)
        assert "registry 99, which is newer than this program" in run("status", database)[1]
        assert connection.execute("SELECT tiergate_registry.version()").fetchone() == (99,)


def test_several_may_install_at_once(database: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        codes = list(threads.map(lambda _: run_install(Where(dsn=database, registry=True)), range(4)))
    assert codes == [0] * 4


def test_as_json(database: str) -> None:
    code, said = run("install", database, "--json")
    (one,) = json.loads(said)
    assert (code, one["said"], one["error"]) == (0, ["registry 4 installed"], None)
    assert one["at"].endswith("/registries")
    code, said = run("status", database.replace("registries", "postgres"), "--json")
    (one,) = json.loads(said)
    assert (code, one["said"], one["error"].startswith("there is no registry")) == (1, [], True)
