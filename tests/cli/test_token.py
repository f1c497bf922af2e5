"""`tiergate token new`: what it prints fits together."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from proxy.auth import token
from proxy.cli import main
from proxy.model import ApiRole
from tests.settings.parsing import good


def test_the_table_is_the_tokens() -> None:
    result = CliRunner().invoke(main, ["token", "new", "a b", "--role", "tenant-admin", "--tenant", 'x"y'])
    assert result.exit_code == 0
    (found,) = good(result.stderr).api_tokens.values()
    assert (found.name, found.role, found.tenant) == ("a b", ApiRole.TENANT_ADMIN, 'x"y')
    assert token.owner(result.stdout.strip(), [found]) is found


def test_as_json() -> None:
    result = CliRunner().invoke(main, ["token", "new", "ops", "--role", "operator", "--json"])
    made = json.loads(result.stdout)
    assert (result.stderr, made["name"], made["role"]) == ("", "ops", "operator")
    assert made["hash"] == token.hashed(made["token"])


@pytest.mark.parametrize("options", [["--role", "x"], ["--tenant", "x"], ["--role", "tenant-admin"]])
def test_roles_are_checked(options: list[str]) -> None:
    assert CliRunner().invoke(main, ["token", "new", *options]).exit_code == 2
