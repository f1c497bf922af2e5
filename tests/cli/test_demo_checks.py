"""The demo's checks are all done, and one that fails is said and counts."""

from __future__ import annotations

from typing import cast

import psycopg
import pytest

from proxy.cli import demo_checks
from proxy.cli.demo_checks import Demo, Failed, run_checks


def nobody() -> Demo:
    """A demo to which nothing listens."""
    return Demo(1, 1, cast(demo_checks.Servers, None), {"acme": "acme"}, "erp", "app-secret", "admin-secret")


def broken(demo: Demo) -> str:
    raise Failed("saw [nothing]")


def unreachable(demo: Demo) -> str:
    demo.connect("app@acme").close()
    return "never"


def test_all_pass(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(
        demo_checks, "_CHECKS", {"one": lambda demo: f"tenants: {len(demo.homes)}", "two": lambda _: "[ok]"}
    )
    assert run_checks(nobody())
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == "The demo works."
    assert said.count(" ok ") == 2
    assert "tenants: 1" in said
    assert "[ok]" in said, "what was seen is no markup"


@pytest.mark.parametrize(
    ("check", "seen"),
    [(broken, "Failed: saw [nothing]"), (unreachable, psycopg.OperationalError.__name__)],
)
def test_one_that_fails_is_told_and_the_others_are_still_done(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    check: object,
    seen: str,
) -> None:
    done: list[str] = []

    def later(_: Demo) -> str:
        done.append("later")
        return "well"

    monkeypatch.setattr(demo_checks, "_CHECKS", {"bad": check, "good": later})
    assert not run_checks(nobody())
    said = capsys.readouterr().out
    assert "FAILED" in said
    assert seen in said
    assert done == ["later"]
    assert said.splitlines()[-1] == "The demo does NOT work."
