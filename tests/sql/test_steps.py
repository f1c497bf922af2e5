"""The tenant's parameter among others that one SELECT sets. Other steps are tested with what they open."""

from __future__ import annotations

import pytest

from proxy.sql.opening import opening
from proxy.sql.steps import Step, Verb

GUC = "app.tenant_id"


def step(text: str) -> Step | None:
    found = opening(text.encode(), GUC)
    return found.sole if found is not None else None


def test_the_tenant_is_told_and_so_are_columns_and_types() -> None:
    found = step("SELECT set_config('a.b', $3, $2) AS x, pg_catalog.set_config('App.tenant_id', $1, true)")
    assert found is not None
    assert (found.verb, found.value_from, found.local) == (Verb.NAME, 1, True)
    assert found.columns == ("x", "set_config")
    assert found.types == (25, 16, 25)


def test_with_constants_there_is_nothing_to_bind() -> None:
    found = step("SELECT set_config('app.tenant_id', 'acme', false), set_config('a.b', NULL, 'off')")
    assert found is not None
    assert (found.value, found.local, found.types) == ("acme", False, ())


@pytest.mark.parametrize(
    "text",
    [
        "SELECT set_config('app.tenant_id', 'x', false), 1",
        "SELECT set_config('app.tenant_id', 'x', false), now()",
        "SELECT set_config('app.tenant_id', 'x', false), (SELECT a FROM t)",
        "SELECT set_config('app.tenant_id', 'x', false), set_config('a.b', (SELECT a FROM t), false)",
        "SELECT set_config('app.tenant_id', 'x', false), set_config('a' || 'b', 'x', false)",
        "SELECT set_config('app.tenant_id', 'x', false), set_config($1, 'x', false)",
        "SELECT set_config('app.tenant_id', 'x', false), set_config('app.tenant_id', 'y', false)",
        "SELECT set_config('app.tenant_id'::text, 'x', false), set_config('a.b', 'x', false)",
        "SELECT set_config('app.tenant_id', $1, false), set_config('a.b', 'x', $1)",
        "SELECT set_config('app.tenant_id', $1, false), set_config('a.b', $3, false)",
        "SELECT set_config('app.tenant_id', 'x', false), mine.set_config('a.b', 'x', false)",
        "SELECT set_config('app.tenant_id', 'x', false), set_config('a.b', 'x', false) FROM t",
        "SELECT set_config('a.b', 'x', false), set_config('c.d', 'x', false)",
    ],
)
def test_anything_else_beside_it_is_no_step(text: str) -> None:
    assert step(text) is None
