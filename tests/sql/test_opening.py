from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.sql import opening as module
from proxy.sql.opening import (
    Openings,
    concerns_session_only,
    ends_block,
    ends_block_early,
    goes_back_to,
    opening,
    resets_early,
    works,
)
from proxy.sql.steps import Step, Verb
from tests.examples import examples

GUC = "app.tenant_id"


def steps(text: str) -> list[Verb]:
    found = opening(text.encode(), GUC)
    return [step.verb for step in found.steps] if found is not None else []


def only(text: str) -> Step:
    found = opening(text.encode(), GUC)
    assert found is not None
    assert found.sole is not None
    return found.sole


@pytest.mark.parametrize(
    ("text", "verb", "tag"),
    [
        ("BEGIN", Verb.BEGIN, "BEGIN"),
        ("begin work", Verb.BEGIN, "BEGIN"),
        ("  START TRANSACTION READ ONLY;", Verb.BEGIN, "START TRANSACTION"),
        ("/* a */ -- b\n BEGIN", Verb.BEGIN, "BEGIN"),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", Verb.SET_TRANSACTION, "SET"),
        ("SAVEPOINT a", Verb.SAVEPOINT, "SAVEPOINT"),
        ("RELEASE SAVEPOINT a", Verb.RELEASE, "RELEASE"),
        ("ROLLBACK TO a", Verb.ROLLBACK_TO, "ROLLBACK"),
        ("COMMIT", Verb.COMMIT, "COMMIT"),
        ("END TRANSACTION", Verb.COMMIT, "COMMIT"),
        ("ABORT", Verb.ROLLBACK, "ROLLBACK"),
        ("SHOW app.tenant_id", Verb.ASK, "SHOW"),
        ("SELECT current_setting('APP.tenant_id', true)", Verb.ASK, "SELECT 1"),
        ("SET app.tenant_id = 'x'", Verb.NAME, "SET"),
        ("RESET app.tenant_id", Verb.NAME, "RESET"),
        ("SELECT set_config('app.tenant_id', 'x', false)", Verb.NAME, "SELECT 1"),
    ],
)
def test_steps(text: str, verb: Verb, tag: str) -> None:
    step = only(text)
    assert (step.verb, step.tag) == (verb, tag)
    assert step.text.decode() in text


@pytest.mark.parametrize(
    ("text", "value", "local"),
    [
        ("SET app.tenant_id = 'acme'", "acme", False),
        ("SET SESSION app.tenant_id TO acme", "acme", False),
        ("SET LOCAL App.Tenant_ID TO 'acme'", "acme", True),
        ('SET "app"."tenant_id" = 12', "12", False),
        ("SET app.tenant_id = 1.5", "1.5", False),
        ("SET app.tenant_id = E'ac\\x6de'", "acme", False),
        ("SET app.tenant_id TO DEFAULT", None, False),
        ("SET LOCAL app.tenant_id TO DEFAULT", None, True),
        ("RESET app.tenant_id", None, False),
        ("SELECT set_config('app.tenant_id', 'acme', true)", "acme", True),
        ("SELECT pg_catalog.set_config('app.tenant_id', 'acme'::text, 'f') AS x", "acme", False),
        ("SELECT set_config('app.tenant_id', NULL, false)", None, False),
        ("SELECT set_config(is_local => true, new_value => 'a', setting_name => 'app.tenant_id')", "a", True),
    ],
)
def test_names(text: str, value: str | None, local: bool) -> None:
    step = only(text)
    assert (step.value, step.local, step.value_from, step.local_from) == (value, local, 0, 0)


def test_a_cast_to_a_type_that_may_be_the_clients_own_is_told() -> None:
    for text in ("set_config('app.tenant_id', 'a'::text, true)", "set_config('app.tenant_id'::text, 'a', true)",
                 "set_config('app.tenant_id', $1::text, true)"):  # fmt: skip
        assert only("SELECT " + text).cast
        assert not only(
            "SELECT " + text.replace("::text", "::pg_catalog.text").replace("$1::pg_catalog.text", "$1")
        ).cast
    assert opening(b"SELECT set_config('app.tenant_id', 'a'::mine.text, true)", GUC) is None
    assert opening(b"SELECT set_config('app.tenant_id', $1::mine.text, true)", GUC) is None


def test_the_savepoints_that_a_text_goes_back_to() -> None:
    assert goes_back_to(b"ROLLBACK TO a; SELECT 1; ROLLBACK TO SAVEPOINT B") == {"a", "b"}
    assert goes_back_to(b"ROLLBACK; RELEASE a; SELECT 1") == frozenset()
    assert goes_back_to(b"ROLLBACK TO a AND MORE") is None


def test_names_that_are_parameters() -> None:
    step = only("SELECT set_config('app.tenant_id', $1, $2)")
    assert (step.value_from, step.local_from, step.column) == (1, 2, "set_config")
    step = only("SELECT set_config('app.tenant_id', $1::text, false) AS x")
    assert (step.value_from, step.local_from, step.column) == (1, 0, "x")
    assert only("SELECT set_config('app.tenant_id', 'x', $1::bool)").local_from == 1


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1",
        "SELECT set_config('app.tenant_id', 'x', false), 1",
        "SELECT set_config('app.tenant_id', 'x', false) FROM t",
        "SELECT set_config('app.tenant_id', 'x', false) WHERE false",
        "SELECT set_config('app.tenant_id', lower('X'), false)",
        "SELECT set_config('app.tenant_id', $2, false)",
        "SELECT set_config('app.tenant_id', $1, $1)",
        "SELECT set_config('app.tenant_id', $1::varchar, false)",
        "SELECT set_config($1, 'x', false)",
        "SELECT set_config('app.other', 'x', false)",
        "SELECT mine.set_config('app.tenant_id', 'x', false)",
        "SELECT set_config('app.tenant_id', 'x', random() > 1)",
        "SELECT set_config('app.tenant_id', 'x')",
        "SELECT current_setting('app.other')",
        "WITH x AS (SELECT 1) SELECT set_config('app.tenant_id', 'x', false)",
        "SELECT set_config('app.tenant_id', 'x', false) UNION SELECT '1'",
        "SET app.other = 'x'",
        "SET app.tenant_id = 'a', 'b'",
        "SET app.tenant_id FROM CURRENT",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SET TRANSACTION SNAPSHOT 'x'",
        "SET TIME ZONE 'UTC'",
        "COMMIT AND CHAIN",
        "PREPARE TRANSACTION 'x'",
        "COMMIT PREPARED 'x'",
        "BEGI",
        "BEGIN ISOLATION LEVEL NONE",
        "SET app.tenant_id = 'a\\''; SELECT 1; --'",  # is another text where backslashes escape
        "SHOW work_mem",
        "BEGIN" + " " * 20_000,
    ],
)
def test_what_is_for_a_server(text: str) -> None:
    assert steps(text) == []


def test_a_text_that_is_no_utf8_is_for_a_server() -> None:
    assert opening(b"SET app.tenant_id = '\xe4'", GUC) is None


def test_where_a_text_goes_on() -> None:
    text = b"BEGIN; SET LOCAL app.tenant_id = 'a'; SELECT 1; COMMIT"
    found = opening(text, GUC)
    assert found is not None
    assert [step.verb for step in found.steps] == [Verb.BEGIN, Verb.NAME]
    assert text[found.rest :].strip().startswith(b"SELECT 1")
    assert found.statements == 4
    assert found.sole is None
    whole = opening(b"BEGIN; COMMIT;", GUC)
    assert whole is not None
    assert whole.rest == 14


# No byte search may say no to a text whose tree says yes.
_SPACES = st.sampled_from([" ", "\n", "\t", " /* x */ ", " -- x\n", "/**/", "\r\n", ";"])
_WORDS = st.sampled_from(
    ["BEGIN", "Start Transaction", "COMMIT", "end", "SAVEPOINT a", "set app.tenant_id = 'x'", "RESET app.tenant_id",
     "SELECT set_config('app.tenant_id', 'x', true)", "select/**/set_config('app.tenant_id',$1,true)", "SHOW app.tenant_id",
     "(SELECT current_setting('app.tenant_id'))", "SELECT pg_catalog . set_config('app.tenant_id', 'x', true)"]
)  # fmt: skip


@settings(max_examples=examples(100))
@given(st.lists(_SPACES, max_size=4).map("".join), _WORDS)
@example("", "SELECT\n--x\nset_config('app.tenant_id','x',true)")
def test_no_step_is_overlooked(space: str, word: str) -> None:
    text = (space + word).encode()
    found = opening(text, GUC)
    if found is None:
        every = module.may_open
        try:
            module.may_open = lambda text: True  # type: ignore[assignment,misc]
            assert opening(text, GUC) is None
        finally:
            module.may_open = every


_HEADS = st.sampled_from(
    [b"SELECT", b"Select ", b"sel", b"se", b"s", b"\0", b"insert", b"B", b"C", b"\x0d", b"\x0f", b"-", b"/"]
)


@settings(max_examples=examples(200))
@given(
    st.binary(max_size=6),
    st.lists(
        st.one_of(_SPACES.map(str.encode), _WORDS.map(str.encode), _HEADS, st.binary(max_size=3)), max_size=6
    ),
)
@example(b"", [b"SELECT", b"\n", b"Set_Config(", b"'a'"])
@example(b"Q\0\0\0\0", [b"select--"])
def test_what_is_work_at_first_sight_is_no_opening(ahead: bytes, parts: list[bytes]) -> None:
    data = ahead + b"".join(parts)
    at = len(ahead)
    assert works(data, at) == (module.may_open(data, at) is None)


@pytest.mark.parametrize(
    "text", ["", "s", "SELECT", "SELECT ", "SELECT 1", "UPDATE t SET a = 1", "WITH a AS (SELECT 1) SELECT 2"]
)
def test_most_texts_are_work(text: str) -> None:
    assert works(text.encode(), 0)


@pytest.mark.parametrize(
    ("text", "ends", "early"),
    [
        ("COMMIT", True, False),
        ("/* */ END;", True, False),
        ("SELECT 1; ROLLBACK", True, False),
        ("COMMIT; SELECT 1", True, True),
        ("COMMIT AND CHAIN", True, True),
        ("PREPARE TRANSACTION 'x'; SELECT 1", True, True),
        ("ROLLBACK TO a; SELECT 1", False, False),
        ("SELECT 'commit'; SELECT 2", False, False),
        ("COMMIT PREPARED 'x'; SELECT 1", False, False),
        ("SELECT 1", False, False),
        ("commit nonsense", True, True),  # if in doubt
        ("SELECT 'a\\''; COMMIT; SELECT 1; --'", True, True),
    ],
)
def test_ends_of_blocks(text: str, ends: bool, early: bool) -> None:
    assert (ends_block(text.encode()), ends_block_early(text.encode())) == (ends, early)


@pytest.mark.parametrize(
    ("text", "early"),
    [
        ("RESET ALL", False),
        ("SELECT * FROM t; RESET ALL;", False),
        ("RESET ALL; SHOW x; SET y = 1; SELECT pg_advisory_unlock_all()", False),
        ("RESET ALL; SELECT * FROM t", True),
        ("SELECT 1; RESET ALL; SELECT 1; SELECT f()", True),
        ("RESET x; SELECT * FROM t", False),
        ("RESET ALL; SELECT FROM FROM", True),  # if in doubt
        ("SELECT 'a\\''; RESET ALL; SELECT f(); --'", True),
    ],
)
def test_what_stands_behind_a_reset(text: str, early: bool) -> None:
    assert resets_early(text.encode()) is early


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ; ",
        "SHOW server_version",
        "select pg_catalog.version()",
        "SELECT current_schema()",
        "SET TIME ZONE 'UTC'",
        "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;",
        "DISCARD ALL",
        "BEGIN; SHOW transaction_isolation; COMMIT",
        "SELECT current_setting('x')",
        "SELECT 1",
        "SELECT 'x', NULL",
        "SELECT set_config('TimeZone', 'UTC', false)",
        "SELECT pg_catalog.set_config('TimeZone', $1, $2)",
    ],
)
def test_what_concerns_the_session_only(text: str) -> None:
    assert concerns_session_only(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        "COMMIT PREPARED 'x'",
        "ROLLBACK PREPARED 'x'",
        "SELECT 1 + 1",
        "SELECT 1 FROM t",
        "SELECT $1",
        "SELECT set_config('role', 'someone', false)",
        "SELECT set_config('Session_Authorization', $1, false)",
        "SELECT set_config($1, 'x', false)",
        "SELECT set_config('x', (SELECT x FROM t), false)",
        "SELECT set_config('x', f(), false)",
        "SELECT set_config('x', 'y')",
        "SELECT mine.set_config('x', 'y', false)",
        "SELECT * FROM t",
        "SELECT version() FROM t",
        "SELECT mine.version()",
        "SELECT version((SELECT 1))",
        "SELECT current_setting((SELECT x FROM t))",
        "SELECT f()",
        "SELECT version() WHERE (SELECT true)",
        "SET ROLE someone",
        "SET SESSION AUTHORIZATION someone",
        "CREATE TABLE t ()",
        "SHOW x; TABLE t",
        "EXECUTE p",
        "FETCH c",
        "nonsense",
        "SELECT version" + "(" * 20_000,
    ],
)
def test_what_is_for_somebodys_server(text: str) -> None:
    assert not concerns_session_only(text.encode())


def test_openings_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bytes] = []
    asked = module.opening
    monkeypatch.setattr(module, "opening", lambda text, guc: calls.append(text) or asked(text, guc))
    monkeypatch.setattr(module, "MAX_KEPT", 2)
    kept = Openings("App.Tenant_ID")
    for text in (b"BEGIN", b"BEGIN", b"SELECT 1", b"COMMIT", b"SET x TO 1", b"COMMIT", b"BEGIN"):
        kept.of(text)
    assert calls == [b"BEGIN", b"COMMIT", b"SET x TO 1", b"BEGIN"]
