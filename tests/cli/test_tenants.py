"""`tiergate tenants`: the file's tenants with their routes."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner, Result

from proxy.cli import main

CONFIG = Path(__file__).resolve().parents[2] / "config" / "tiergate.toml"


def tenants(*arguments: str, config: Path = CONFIG) -> Result:
    return CliRunner().invoke(main, ["tenants", *arguments, "--config", str(config)])


def test_list() -> None:
    result = tenants("list")
    assert result.exit_code == 0
    (row,) = [line.split() for line in result.stdout.splitlines() if line.startswith(" enterprise_001")]
    primary = "pg-ent-001-master.internal:5432"
    assert row == ["enterprise_001", "enterprise", "enterprise_001", "dedicated", primary, "yes"]


def test_list_as_json() -> None:
    found = {row["tenant"]: row for row in json.loads(tenants("list", "--json").stdout)}
    assert found.keys() == {"enterprise_001", "vip_001", "vip_026", "std_12345", "free_001"}
    assert found["vip_001"]["cluster"] == "vip-1"
    assert found["vip_001"]["servers"] == ["pg-vip-coord-1:5432", "pg-vip-coord-2:5432"]
    assert len(found["enterprise_001"]["replicas"]) == 3
    assert found["free_001"]["active"] is True


def test_show_tells_the_route_and_the_limits() -> None:
    result = tenants("show", "vip_001")
    assert result.exit_code == 0
    for words in (
        ["cluster", "vip-1"],
        ["endpoint", "pg-vip-coord-2:5432"],
        ["max_connections", "200"],
        ["query_timeout", "1m"],
    ):
        assert [line for line in result.stdout.splitlines() if line.split()[:2] == words], words


def test_show_by_id_as_json() -> None:
    found = json.loads(tenants("show", "0B5A1D5E-6f0f-4f0e-9a53-0d5f2a1c7e01", "--json").stdout)
    assert found["tenant"] == "enterprise_001"
    assert [step["value"] for step in found["route"] if step["step"] == "endpoint"] == found["servers"]
    assert found["limits"]["query_wait_timeout"] == 120


def test_show_tells_the_rules_on_sql() -> None:
    lines = [line.split() for line in tenants("show", "free_001").stdout.splitlines()]
    assert ["max_joins", "3", "tier", '"free"'] in lines
    assert ["locked_parameters", "statement_timeout,", "work_mem", "tier", '"free"'] in lines
    assert not any(
        line[:1] == ["rule"] for line in map(str.split, tenants("show", "vip_001").stdout.splitlines())
    )
    found = json.loads(tenants("show", "free_001", "--json").stdout)["sql_rules"]
    assert {"rule": "max_joins", "value": "3", "said by": 'tier "free"'} in found


def test_show_of_nobody() -> None:
    result = tenants("show", "nobody")
    assert result.exit_code == 1
    assert result.stderr == f'tiergate: {CONFIG}: no tenant is called "nobody"\n'


def test_a_wrong_file(tmp_path: Path) -> None:
    config = tmp_path / "wrong.toml"
    config.write_text("[proxy]\nlisten_prot = 1\n")
    for arguments in (["list"], ["show", "x"]):
        result = tenants(*arguments, config=config)
        assert result.exit_code == 1
        assert "listen_prot" in result.stderr


def test_an_empty_file_has_no_tenants(tmp_path: Path) -> None:
    config = tmp_path / "empty.toml"
    config.write_text("")
    assert json.loads(tenants("list", "--json", config=config).stdout) == []
    assert tenants("list", config=config).exit_code == 0
