"""`tiergate check`: all problems at once, or that there are none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from typer.testing import CliRunner, Result

from proxy import __version__
from proxy.cli import main
from proxy.supervisor import heritage

ROOT = Path(__file__).resolve().parents[2]


def check(config: Path, *more: str) -> Result:
    return CliRunner().invoke(main, ["check", "--config", str(config), *more])


@pytest.mark.parametrize("name", ["minimal.toml", "tiergate.toml"])
def test_the_examples_are_right(name: str) -> None:
    result = check(ROOT / "config" / name)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "configuration OK"


def test_keys_without_effect_are_told() -> None:
    notes = check(ROOT / "config" / "tiergate.toml").stdout
    assert "note: tenant.std_12345.expected_qps has no effect in this version\n" in notes


def test_every_problem_with_file_key_and_nearest_key(tmp_path: Path) -> None:
    config = tmp_path / "wrong.toml"
    config.write_text(
        '[proxy]\nworkers = -4\nlisten_prot = 1\n[tenant.a]\ntier = "gold"\n[user.u]\ntenants = ["b"]\n'
    )
    result = check(config)
    assert result.exit_code == 1
    assert result.stdout == ""
    problems = result.stderr.splitlines()
    assert all(problem.startswith(f"tiergate: {config}: [") for problem in problems)
    for wanted in (
        '[proxy] listen_prot: unknown key; the nearest known one is "listen_port"',
        "workers",
        '"gold"',
    ):
        assert [problem for problem in problems if wanted in problem], wanted


def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    for name in ("cert", "key"):
        (tmp_path / name).write_text("no certificate\n")
    config = tmp_path / "tls.toml"
    config.write_text(
        '[proxy]\nclient_tls_sslmode = "require"\nclient_tls_cert_file = "cert"\nclient_tls_key_file = "key"\n'
    )
    result = check(config)
    assert result.exit_code == 1
    assert "TLS files cannot be used" in result.stderr


@pytest.mark.parametrize(("days", "said"), [(-1, "has expired on"), (20, "expires on"), (30, "")])
def test_a_certificate_that_is_good_for_days(tmp_path: Path, days: int, said: str) -> None:
    until = datetime.now(UTC) + timedelta(days=days)
    made = trustme.CA().issue_cert("localhost", not_before=until - timedelta(days=60), not_after=until)
    made.cert_chain_pems[0].write_to_path(tmp_path / "cert")
    made.private_key_pem.write_to_path(tmp_path / "key")
    config = tmp_path / "tls.toml"
    config.write_text(
        '[proxy]\nclient_tls_sslmode = "require"\nclient_tls_cert_file = "cert"\nclient_tls_key_file = "key"\n'
    )
    result = check(config)
    assert result.exit_code == 0
    notes = [line for line in result.stdout.splitlines() if line.startswith("note: ")]
    assert notes == (
        [f"note: the certificate of client_tls_cert_file {said} {until:%Y-%m-%d %H:%M} UTC"] if said else []
    )


def test_version() -> None:
    assert CliRunner().invoke(main, ["--version"]).stdout == f"tiergate {__version__}\n"


def test_a_program_that_cannot_take_over_says_so() -> None:
    config = ROOT / "config" / "minimal.toml"
    assert check(config, "--heritage", str(heritage.FORMAT)).exit_code == 0
    refused = check(config, "--heritage", str(heritage.FORMAT + 1))
    assert refused.exit_code == 1
    assert "not possible" in refused.stderr
