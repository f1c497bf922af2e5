"""The README says what is so: every key with its default, the test command, the signals' documents."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

import pytest
from typer.models import CommandInfo

from proxy import errors, settings
from proxy.cli import main
from proxy.control.api import Desk
from proxy.control.api.app import make_app
from proxy.control.console.commands import HELP
from proxy.settings import keys
from proxy.settings.reader import Schema
from proxy.sql.policy import Rules
from proxy.sql.vocabulary import STATEMENTS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def section(title: str) -> str:
    return README.split(f"\n{title}\n", 1)[1].split("\n#", 1)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of a table's rows without its head."""
    found = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in found[2:]]


def words(cell: str) -> set[str]:
    return set(re.findall(r"`([a-z0-9_]+)`", cell))


def test_every_key_of_proxy_with_default_and_restart() -> None:
    documented = {
        re.sub(r"[`() ]|r\)$", "", row[0].replace("(r)", "")): row for row in rows(section("### `[proxy]`"))
    }
    assert documented.keys() == keys.PROXY_TABLE.keys()
    for key, _, default, changeable in settings.describe(settings.parse("", "empty.toml")):
        assert documented[key][1].strip("`") == default, key
        assert ("(r)" in documented[key][0]) == (changeable == "no"), key


@pytest.mark.parametrize(
    ("title", "schema"),
    [
        ("### `limits = { ... }`", keys.LIMITS),
        ("### `[user.NAME]`", keys.USER),
        ("### `[cluster.NAME]`", keys.CLUSTER),
        ("### `[tier.NAME]`", keys.TIER),
    ],
)
def test_every_key_of_a_table(title: str, schema: Schema) -> None:
    assert {word for row in rows(section(title)) for word in words(row[0])} == schema.keys()


def test_every_key_of_a_tenant() -> None:
    text = section("### `[tenant.NAME]`")
    inner = keys.TENANT["postgresql"]
    assert not isinstance(inner, keys.v.Kind)
    assert {word for row in rows(text) for word in words(row[0])} | {"postgresql"} == keys.TENANT.keys()
    (described,) = [row[1] for row in rows(text) if "postgresql" in row[0]]
    assert words(described) >= inner.keys()


def test_every_kind_of_statement_that_can_be_forbidden() -> None:
    _, listed = section("## Rules on SQL").split("\nStatements: ")
    names = set(re.findall(r"`([a-z ]+)`", listed.split("\n\n")[0]))
    for name in STATEMENTS:
        verb, _, what = name.partition(" ")
        assert name in names or {verb, what} <= names, name
    for name in names:
        assert name in STATEMENTS or f"create {name}" in STATEMENTS, name


def test_the_example_of_rules_loads() -> None:
    (text,) = re.findall(r"```toml\n(\[tier.free\]\nmax_joins.*?)```", README, re.DOTALL)
    loaded = settings.parse('[cluster.shared]\nkind = "shared"\nprimary = "a"\n' + text, "readme.toml")
    rules = Rules.of(loaded.directory.tiers["free"], loaded.directory.tenants["demo"])
    assert rules is not None
    assert len(rules.said) == len(keys.POLICY)


def test_what_has_no_effect_is_said_to_have_none() -> None:
    without = {key for key, kind in keys.TIER.items() if isinstance(kind, keys.v.Kind) and kind.kept}
    (row,) = [row for row in rows(section("### `[tier.NAME]`")) if "no effect" in row[1]]
    assert without <= words(row[0])


def test_every_sqlstate_of_an_error() -> None:
    documented = {
        code for row in rows(section("## SQLSTATEs")) for code in re.findall(r"[0-9A-Z]{5}", row[0])
    }
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    raised = {kind.sqlstate for kind in kinds if issubclass(kind, errors.TiergateError)}
    assert raised - {errors.ConfigError.sqlstate} <= documented


def test_every_route_of_the_api() -> None:
    listed = section("## The HTTP API")
    for path in make_app(cast(Desk, None)).openapi()["paths"]:
        if path.startswith("/v1/"):
            words = [part for part in path.split("/") if part and not part.startswith("{")]
            assert re.search(rf"`[^`]*\b{words[-1]}\b[^`]*`", listed), path


def test_every_metric() -> None:
    source = (ROOT / "proxy" / "control" / "metrics.py").read_text()
    names = {
        re.sub(r"_(bucket|count|sum)$", "", name) if "duration" in name else name
        for name in re.findall(r'"((?:tiergate|db|tenant)_[a-z_]+)"', source)
    } - {"tenant_id"}
    listed = {
        name for row in rows(section("## Metrics and health")) for name in words(re.sub(r"{.*?}", "", row[0]))
    }
    assert listed == names


def test_every_command_of_the_console() -> None:
    text = section("## The console")
    for line in HELP:
        for word in re.findall(r"[A-Z_]{3,}", line):
            assert re.search(rf"\b{word}\b", text), line


def test_the_test_command_is_what_ci_runs() -> None:
    (command,) = re.findall(r"^python3 -m venv .* -m pytest -q$", README, re.MULTILINE)
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_what_replaces_pgbouncers_configuration_loads() -> None:
    (text,) = re.findall(r"```toml\n(# In the place of pgbouncer.ini\n.*?)```", README, re.DOTALL)
    loaded = settings.parse(text, "readme.toml")
    assert loaded.client.default_tenant in loaded.directory.tenants


def test_the_first_configuration_loads() -> None:
    text = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)[0]
    assert list(settings.parse(text, "readme.toml").directory.tenants) == ["acme"]


def test_the_key_of_a_seal_is_one() -> None:
    (text,) = re.findall(r"```toml\n(\[cluster.shared\]\nseal_keys.*?)```", README, re.DOTALL)
    text = text.replace("[cluster.shared]", '[cluster.shared]\nprimary = "a"')
    loaded = settings.parse(text, "readme.toml", {"TIERGATE_SEAL": "0" * 64})
    seal = loaded.directory.clusters["shared"].seal
    assert seal is not None
    assert seal.keys[0].id == "2025-11"


def test_every_command() -> None:
    typed = {group.name: group.typer_instance for group in main.registered_groups}
    commands = [
        f"tiergate {name} {_name(c)}" for name, app in typed.items() if app for c in app.registered_commands
    ]
    commands += [f"tiergate {_name(c)}" for c in main.registered_commands if not c.hidden]
    documented = " ".join(row[0] for row in rows(section("## The command")))
    for command in commands:
        assert re.search(rf"`{re.escape(command)}[ `]", documented), command


def _name(command: CommandInfo) -> str:
    assert command.callback is not None
    return command.name or command.callback.__name__


def test_files_that_it_names_exist() -> None:
    for name in re.findall(r"`((?:deploy|config|\.ci|proxy)/[^`]*)`", README):
        assert (ROOT / name).exists(), name
