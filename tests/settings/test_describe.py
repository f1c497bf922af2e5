"""SHOW CONFIG's rows, and what a reload cannot apply."""

from __future__ import annotations

import pytest

from proxy.settings import describe, parse, restart_needed
from proxy.settings.keys import PROXY


def test_every_key_has_a_row_with_its_value_and_default() -> None:
    rows = {row[0]: row[1:] for row in describe(parse("""
        [proxy]
        query_timeout = 90
        pool_mode = "session"
        identify = ["user"]
        pin_notice = true
        admin_users = ["b", "a"]
        unix_socket_mode = "0700"
    """, "f"))}  # fmt: skip
    assert rows.keys() == PROXY.keys()
    assert rows["query_timeout"] == ("90s", "0", "yes")
    assert rows["query_wait_timeout"] == ("2m", "2m", "yes")
    assert rows["pool_mode"] == ("session", "transaction", "yes")
    assert rows["identify"] == ("user", "startup, user, sni, session", "yes")
    assert rows["pin_notice"] == ("true", "false", "yes")
    assert rows["admin_users"] == ("a, b", "admin", "yes")
    assert rows["unix_socket_mode"] == ("0700", "0777", "no")
    assert rows["listen_port"] == ("6432", "6432", "no")


def test_every_value_shown_can_be_set_again() -> None:
    settings = parse('[proxy]\nquery_timeout = "1500ms"\nstats_users = ["x"]', "f")
    shown = {key: value for key, value, _, changeable in describe(settings) if changeable == "yes"}
    assert parse("", "f", {}, shown) == settings


@pytest.mark.parametrize(
    ("before", "after", "keys"),
    [
        ("", "listen_port = 7000\nquery_timeout = 5", ["listen_port"]),
        ('pidfile = "a"', 'pidfile = "a"', []),
        ('log_level = "debug"', 'log_level = "info"', []),
    ],
)
def test_what_needs_a_restart(before: str, after: str, keys: list[str]) -> None:
    assert restart_needed(parse("[proxy]\n" + before, "f"), parse("[proxy]\n" + after, "f")) == keys
