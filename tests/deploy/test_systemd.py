"""The systemd unit: reload and stop mean what the signals mean."""

from __future__ import annotations

from proxy.settings import ProcessSettings
from tests.deploy.documents import DEPLOY


def unit() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "systemd" / "tiergate.service").read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_reload_is_sighup_after_a_check_and_stop_is_sigterm() -> None:
    check, hup = unit()["ExecReload"]
    assert " check --config " in check
    assert hup.endswith("-HUP $MAINPID")
    assert unit()["KillSignal"] == ["SIGTERM"]


def test_one_configuration_file_everywhere() -> None:
    commands = [*unit()["ExecStartPre"], *unit()["ExecStart"], unit()["ExecReload"][0]]
    assert {command.partition("--config ")[2] for command in commands} == {"/etc/tiergate/tiergate.toml"}


def test_a_drain_fits_into_the_stop_timeout() -> None:
    assert int(unit()["TimeoutStopSec"][0]) > ProcessSettings().shutdown_timeout


def test_not_root_and_enough_descriptors() -> None:
    assert unit()["User"] != ["root"]
    assert int(unit()["LimitNOFILE"][0]) > 10_000
    assert unit()["NoNewPrivileges"] == ["yes"]
