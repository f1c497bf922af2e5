"""Whoever brings PgBouncer's configuration along is told what stands where."""

from __future__ import annotations

import pytest

from proxy.settings.keys import PROXY_TABLE
from proxy.settings.pgbouncer import INSTEAD
from tests.settings.parsing import bad


def test_only_what_is_not_here() -> None:
    assert not INSTEAD.keys() & PROXY_TABLE.keys()


@pytest.mark.parametrize("key", ["auth_file", "max_db_connections", "logfile"])
def test_a_key(key: str) -> None:
    told = bad(f"[proxy]\n{key} = 1\n")
    assert told.endswith(f"[proxy] {key}: unknown key, as PgBouncer has it; here {INSTEAD[key]}")


def test_elsewhere_it_is_no_key_of_pgbouncers() -> None:
    assert bad(
        "[tenant.a]\ntier = 'free'\nuser = 'x'\n[cluster.s]\nprimary = 'a'\nkind = 'shared'\n"
    ).endswith('[tenant.a] user: unknown key; the nearest known one is "postgresql.user"')


def test_a_section() -> None:
    assert INSTEAD["databases"] in bad("[databases]\nerp = 'host=127.0.0.1'\n")
