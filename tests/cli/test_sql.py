"""`tiergate sql`: the kit in a real database, its keys stored, rotated and reported, and no secret said."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner, Result

from proxy.cli import main
from proxy.cli.embedded import EmbeddedServer
from proxy.cli.sql import scripts
from proxy.settings.seals import parse_keys
from tests.integration.servers import APP_PASSWORD, connect

ROOT = Path(__file__).resolve().parents[2]
OLD, NEW = "o" * 40, "n" * 40


@pytest.fixture
def database(dedicated: EmbeddedServer) -> Iterator[str]:
    with connect(dedicated, "postgres") as admin:
        admin.execute("CREATE DATABASE kits OWNER app")
    yield "kits"
    with connect(dedicated, "postgres") as admin:
        admin.execute("DROP DATABASE kits WITH (FORCE)")


class Command:
    def __init__(self, directory: Path, server: EmbeddedServer) -> None:
        self.config, self.server = directory / "tiergate.toml", server
        self.keys = directory / "keys"

    def configure(self, keys: str, guc: str = "app.tenant_id") -> None:
        self.config.write_text(
            f'[proxy]\ntenant_guc = "{guc}"\nserver_tls_sslmode = "disable"\n[cluster.shared]\nkind = "shared"\n'
            f'primary = "{self.server.host}:{self.server.port}"\n{keys}\n'
        )

    def __call__(self, *arguments: str) -> Result:
        result = CliRunner().invoke(
            main, ["sql", *arguments, "--config", str(self.config), "--cluster", "shared"]
        )
        assert OLD not in result.output
        assert NEW not in result.output
        return result


@pytest.fixture
def command(tmp_path: Path, dedicated: EmbeddedServer) -> Command:
    return Command(tmp_path, dedicated)


def test_the_files_of_the_kit_stand_in_deploy() -> None:
    found = sorted((ROOT / "deploy" / "sql").glob("*.sql"))
    assert [file.read_text() for file in found] == list(scripts().values())
    assert [int(file.name[:3]) for file in found] == list(range(1, len(found) + 1))


def test_install_is_repeatable_and_stores_the_keys(
    command: Command, database: str, dedicated: EmbeddedServer
) -> None:
    command.configure(f'seal_keys = ["old:{OLD}"]', guc="my.tenant")
    for said in ("kit 1 installed", "kit 1 is now 1"):
        result = command("install", "--database", database)
        assert (result.exit_code, said in result.stdout) == (0, True), result.output
    with connect(dedicated, database) as admin:
        assert admin.execute("SELECT id FROM tiergate.seal_key").fetchall() == [("old",)]
        assert admin.execute("SELECT tiergate.tenant_guc()").fetchall() == [("my.tenant",)]
    assert OLD not in dedicated.log()


def test_the_server_writes_no_key_down_even_if_it_logs_everything(
    command: Command, database: str, dedicated: EmbeddedServer
) -> None:
    with connect(dedicated, "postgres") as admin:
        admin.execute("ALTER ROLE postgres SET log_statement = 'all'")
        try:
            command.configure(f'seal_keys = ["old:{OLD}"]')
            assert command("install", "--database", database).exit_code == 0
        finally:
            admin.execute("ALTER ROLE postgres RESET log_statement")
    assert OLD not in dedicated.log()


def test_status_tells_versions_keys_policies_and_what_is_wrong(
    command: Command, database: str, dedicated: EmbeddedServer
) -> None:
    command.configure(f'seal_keys = ["old:{OLD}"]')
    result = command("status", "--database", database)
    assert (result.exit_code, "there is no kit; tiergate sql install" in result.output) == (1, True)
    assert command("upgrade", "--database", database).exit_code == 1, "there is nothing to upgrade"
    command("install", "--database", database)
    with connect(dedicated, database) as admin:
        admin.execute(
            "CREATE TABLE a (t text); CREATE TABLE b (t text);"
            " CREATE POLICY good ON a USING (t = (SELECT tiergate.current_tenant()));"
            " CREATE POLICY open ON b USING (t = current_setting('app.tenant_id', true));"
            " GRANT SELECT ON tiergate.seal_key TO app_reader"
        )
    command.configure(f'seal_keys = ["old:{OLD}", "new:{NEW}"]')
    said = command("status").stdout
    for line in (
        "kits: kit 1\n",
        "kits: key old: good, stored 20",
        "kits: key new: configured, NOT stored",
        "kits: policy public.a: good",
        "kits: WARNING: role app can read the keys",
        "kits: WARNING: policy public.b: open asks the parameter, not its seal",
    ):
        assert line in said, said


def test_keys_of_the_configuration_are_stored_and_those_gone_from_it_retired(
    command: Command, database: str, dedicated: EmbeddedServer
) -> None:
    def retired() -> list[tuple[str, bool | None]]:
        with connect(dedicated, database) as admin:
            return admin.execute(
                "SELECT id, retired_at > now() FROM tiergate.seal_key ORDER BY id DESC"
            ).fetchall()

    command.configure(f'seal_keys = ["old:{OLD}"]')
    command("install", "--database", database)
    command.configure(f'seal_keys = ["old:{OLD}", "new:{NEW}"]')
    assert command("rotate-key").exit_code == 0
    assert retired() == [("old", None), ("new", None)]
    command.configure(f'seal_keys = ["new:{NEW}"]')
    assert "key old retires in 15m" in command("rotate-key").stdout
    assert retired() == [("old", True), ("new", None)]
    command.configure(f'seal_keys = ["old:{OLD}"]')
    assert "key new retires now" in command("rotate-key", "--now").stdout
    assert retired() == [("old", None), ("new", False)], "and the one that is back is good again"


def test_a_file_gets_a_new_key_that_the_database_knows_already(
    command: Command, database: str, dedicated: EmbeddedServer
) -> None:
    command.keys.write_text(f"older:{NEW}\nold:{OLD}\n")
    command.keys.chmod(0o640)
    command.configure('seal_keys_file = "keys"')
    command("install", "--database", database)
    result = command("rotate-key")
    assert result.exit_code == 0, result.output
    kept, fresh = parse_keys(command.keys.read_text())
    assert kept.id == "old"
    assert re.fullmatch(r"\d{8}-[0-9a-f]{6}", fresh.id)
    assert len(fresh.secret) >= 43
    assert fresh.secret not in result.output
    assert "key older retires in 15m" in result.stdout
    assert command.keys.stat().st_mode & 0o777 == 0o640
    assert list(command.keys.parent.glob("*.new")) == []
    with connect(dedicated, database) as admin:
        assert (fresh.id,) in admin.execute("SELECT id FROM tiergate.seal_key").fetchall()


def test_a_file_stays_as_it_is_if_the_database_did_not_take_the_key(command: Command) -> None:
    before = f"old:{OLD}\n"
    command.keys.write_text(before)
    command.configure('seal_keys_file = "keys"')
    result = command("rotate-key")
    assert (result.exit_code, "no database has the kit" in result.output) == (1, True)
    assert command.keys.read_text() == before


def test_what_cannot_be_done(command: Command, dedicated: EmbeddedServer) -> None:
    command.configure("")
    for arguments, said in {
        ("install",): "say --database",
        ("rotate-key",): "has neither seal_keys nor seal_keys_file",
        ("install", "--dsn", "host=x"): "the DSN must be postgresql://",
        ("install", "--database", "no such one"): 'database "no such one" does not exist',
        ("install", "--dsn", "postgresql://app:wrong@127.0.0.1:1/x"): "cannot be reached",
    }.items():
        result = command(*arguments)
        assert result.exit_code == 1, arguments
        assert said in result.output, result.output
    assert CliRunner().invoke(main, ["sql", "install"]).exit_code == 1
    command.config.write_text("")
    assert 'no cluster is called "shared"' in command("status").output


def test_a_dsn_without_a_configuration(database: str, dedicated: EmbeddedServer) -> None:
    dsn = f"postgresql://postgres@{dedicated.host}:{dedicated.port}/{database}"
    result = CliRunner().invoke(main, ["sql", "install", "--dsn", dsn])
    assert result.exit_code == 0, result.output
    with (
        connect(dedicated, database, "app", password=APP_PASSWORD) as app,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        app.execute("SELECT * FROM tiergate.seal_key")
