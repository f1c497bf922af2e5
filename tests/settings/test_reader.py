"""Reading tables: problems name file, key and the nearest known key; secrets come from where they should."""

# ruff: noqa: E501  a case of a table stays on one line

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.settings import values as v
from proxy.settings.reader import Reader, Schema, dotted, nearest

LIMITS: Schema = {"max_connections": v.COUNT, "max_qps": v.NUMBER}
SCHEMA: Schema = {"tier": v.WORD, "password": v.SECRET, "limits": LIMITS, "old": v.kept(v.TEXT)}


def reader(**environ: str) -> Reader:
    return Reader("dir/file.toml", environ)


def test_values_are_converted_table_by_table() -> None:
    r = reader()
    assert r.read({"tier": "vip", "limits": {"max_qps": 5}}, SCHEMA, "tenant.a") == {
        "tier": "vip",
        "limits": {"max_qps": 5.0},
    }
    assert r.problems == []


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ({"teir": "x"}, '[tenant.a] teir: unknown key; the nearest known one is "tier"'),
        ({"max_conections": 1}, '[tenant.a] max_conections: unknown key; the nearest known one is "limits.max_connections"'),
        ({"limits": {"max_gps": 1}}, '[tenant.a.limits] max_gps: unknown key; the nearest known one is "max_qps"'),
        ({"limits": 5}, "[tenant.a.limits]: must be a table, not 5"),
        ({"tier": 5}, "[tenant.a] tier: must be text in quotes, not empty, not 5"),
        ({"limits": {"max_qps": "x"}}, '[tenant.a.limits] max_qps: must be a number, 0 or more, not "x"'),
        ({"tier": "${NOPE}"}, "[tenant.a] tier: the environment has no variable NOPE"),
        ({"a b": 1}, '[tenant.a] "a b": unknown key; the nearest known one is'),
    ],
)  # fmt: skip
def test_a_problem_names_file_key_and_what_is_right(raw: object, problem: str) -> None:
    r = reader()
    r.read(raw, SCHEMA, "tenant.a")
    assert len(r.problems) == 1
    assert r.problems[0].startswith(f"dir/file.toml: {problem}")


def test_a_wrong_secret_is_not_shown() -> None:
    r = reader()
    r.read({"password": 12345}, SCHEMA, "user.a")
    assert len(r.problems) == 1
    assert "12345" not in r.problems[0]


def test_a_long_value_is_cut_and_a_problem_stays_on_one_line() -> None:
    r = reader()
    r.read({"limits": "x\n" * 500}, SCHEMA, "tenant.a")
    assert len(r.problems[0]) < 200
    r.problem("x", "y", "one\ntwo")
    assert all("\n" not in problem for problem in r.problems)


def test_variables_are_expanded_in_any_text() -> None:
    r = reader(A="1", B="${A}")
    assert r.expand("x${A}y${B}", "w", "k") == "x1y${A}"
    assert r.expand(["${A}", {"k": "${A}"}, 5], "w", "k") == ["1", {"k": "1"}, 5]
    assert r.expand("$${A} $A {A}", "w", "k") == "${A} $A {A}"
    assert r.problems == []


def test_kept_keys_are_kept_as_written() -> None:
    r = reader(TOKEN="hush")
    r.read({"old": "${TOKEN}"}, SCHEMA, "tenant.a")
    assert r.unused == {"tenant.a.old": "${TOKEN}"}


def test_a_secret_from_a_file_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("hush\n")
    r = Reader(str(tmp_path / "x.toml"), {})
    assert r.secret({"password_file": "pw"}, "password", "user.a") == "hush"
    assert r.secret({"password": "direct"}, "password", "user.a") == "direct"
    assert r.secret({}, "password", "user.a") == ""
    assert r.problems == []


def test_a_secret_file_that_does_not_serve(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    (tmp_path / "pw").write_text("hush")
    r = Reader(str(tmp_path / "x.toml"), {})
    for said, text in (
        ({"password_file": "nope"}, "No such file"),
        ({"password_file": "empty"}, "is empty"),
        ({"password_file": "bytes"}, "not UTF-8"),
        ({"password_file": "pw", "password": "x"}, "keep one of them"),
    ):
        r.problems.clear()
        r.secret(said, "password", "user.a")
        assert len(r.problems) == 1
        assert text in r.problems[0]
        assert "[user.a] password_file" in r.problems[0]


def test_full_keys_are_written_as_toml_writes_them() -> None:
    assert dotted("tenant", "acme-1_x") == "tenant.acme-1_x"
    assert dotted("tenant", 'a.b "c"') == 'tenant."a.b \\"c\\""'
    assert dotted("tenant", "") == 'tenant.""'


KNOWN = ["pool_size", "pool_mode", "limits.max_connections", "limits.max_client_connections", "password"]


@given(st.sampled_from(KNOWN), st.data())
def test_one_slip_of_the_finger_is_found(known: str, data: st.DataObject) -> None:
    name = known.rpartition(".")[2]
    at = data.draw(st.integers(0, len(name) - 1))
    slip = data.draw(
        st.sampled_from([name[:at] + name[at + 1 :], name[:at] + name[at] + name[at:], name.upper(), name[:at] + "#" + name[at + 1 :]])
    )  # fmt: skip
    assert nearest(slip, KNOWN) == known


@given(st.text())
def test_there_is_always_a_nearest_key(name: str) -> None:
    assert nearest(name, KNOWN) in KNOWN


def test_nothing_known_nothing_suggested() -> None:
    assert nearest("x", []) == ""
