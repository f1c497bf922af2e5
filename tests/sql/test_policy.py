from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.errors import ParameterLocked, StatementRefused, TiergateError
from proxy.model import SqlPolicy, Tenant, Tier
from proxy.sql import policy as policy_module
from proxy.sql import tree
from proxy.sql.calls import judge_call
from proxy.sql.measure import Measures, measure
from proxy.sql.policy import Answers, Rules
from proxy.sql.verdict import MAX_KEPT, MAX_PARSE, PLAIN, Judge
from proxy.sql.vocabulary import STATEMENTS
from tests.examples import examples
from tests.sql.test_measure import JOINS, READS
from tests.sql.test_vocabulary import EXAMPLES

BROKEN = "SELECT FROM WHERE ("  # no SQL of any version


def rules(**policy: Any) -> Rules:
    for key in ("forbidden_statements", "locked_parameters"):
        if key in policy:
            policy[key] = frozenset(policy[key])
    found = Rules.of(Tier("free", policy=SqlPolicy(**policy)))
    assert found is not None
    return found


def refused(own: Rules, sql: str | bytes) -> TiergateError | None:
    text = sql.encode() if isinstance(sql, str) else sql
    return own.judge(text, Judge().judge(text), Measures())


def said(own: Rules, sql: str | bytes) -> str:
    error = refused(own, sql)
    assert error is not None
    return f"{error.sqlstate} {error.message}"


# --- whose rules ------------------------------------------------------------------------------------


def test_no_rules_are_none() -> None:
    assert Rules.of(Tier("free")) is None
    nothing = SqlPolicy(0, 0, 0, False, frozenset(), frozenset())
    assert Rules.of(Tier("free", policy=nothing), Tenant("acme", "free", "c", policy=nothing)) is None


def test_a_tenant_goes_before_its_tier_rule_by_rule() -> None:
    tier = Tier(
        "free", policy=SqlPolicy(max_joins=3, read_only=True, locked_parameters=frozenset({"a", "b"}))
    )
    own = Rules.of(tier, Tenant("acme", "free", "c", policy=SqlPolicy(max_joins=5, read_only=False)))
    assert own is not None
    assert own.said == [
        ("max_joins", "5", 'tenant "acme"'),
        ("locked_parameters", "a, b", 'tier "free"'),
    ]
    assert str(own) == "max_joins = 5; locked_parameters = a, b"
    assert said(own, "SELECT 1 FROM a, b, c, d, e, f, g") == (
        '0A000 the statement has 6 joins; tenant "acme" allows 5 (max_joins)'
    )
    assert said(own, "SET a = 1") == (
        '42501 parameter "a" cannot be changed: locked by tier "free" (locked_parameters)'
    )
    assert refused(own, "INSERT INTO t VALUES (1)") is None


# --- joins, statements, size ------------------------------------------------------------------------


@pytest.mark.parametrize(("sql", "joins"), JOINS)
def test_joins(sql: str, joins: int) -> None:
    error = refused(rules(max_joins=1), sql)
    assert (error is not None) == (joins > 1)
    if error is not None:
        assert isinstance(error, StatementRefused)
        assert error.message == f'the statement has {joins} joins; tier "free" allows 1 (max_joins)'


def test_what_postgresql_would_reject_passes_so_that_it_says_so() -> None:
    own = rules(max_joins=1, max_statements=1)
    assert refused(own, "SELECT * FROM a JOIN b JOIN c JOIN d WHERE (") is None
    assert refused(own, "SELECT 1; SELEC 2; SELECT 3") is None


def test_a_text_that_is_too_long_to_read_passes_where_no_rule_needs_that() -> None:
    long = "INSERT INTO t VALUES " + ", ".join(["(1, 2)"] * MAX_PARSE)
    own = rules(max_joins=1, forbidden_statements={"copy to", "drop"})
    assert refused(own, long) is None
    assert refused(own, long + " ON CONFLICT DO NOTHING -- to") is None
    assert refused(own, "DO /*" + "x" * MAX_PARSE + "*/ E'begin dr\\x6fp table t; end'") is not None
    assert said(own, long + " -- from a, b, c") == (
        '0A000 the statement is too long to be inspected for max_joins of tier "free"'
    )
    assert said(own, long + " -- drop") == (
        '0A000 the statement is too long to be inspected for forbidden_statements of tier "free"'
    )


def test_statements() -> None:
    own = rules(max_statements=2)
    assert refused(own, "SELECT 1; SELECT ';;;';;;") is None
    assert said(own, "SELECT 1; SELECT 2; SELECT 3") == (
        '0A000 the text has 3 statements; tier "free" allows 2 (max_statements)'
    )
    assert (
        refused(own, "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; SELECT 3; END") is None
    )


def test_size() -> None:
    own = rules(max_statement_size=10)
    assert refused(own, "SELECT 123") is None
    assert said(own, "SELECT 1234") == (
        '0A000 the statement has 11 bytes; tier "free" allows 10 (max_statement_size)'
    )
    assert said(own, BROKEN).startswith("0A000 the statement has")


def test_texts_that_are_not_held_whole() -> None:
    size = 2_000_000
    error = rules(max_statement_size=1_000_000).long_refusal(size)
    assert error is not None
    assert error.message == (
        'the statement has 2000000 bytes; tier "free" allows 1000000 (max_statement_size)'
    )
    assert rules(max_statement_size=3_000_000).long_refusal(size) is None
    for policy in (
        {"max_joins": 3},
        {"max_statements": 3},
        {"read_only": True},
        {"forbidden_statements": {"do"}},
        {"locked_parameters": {"a"}, "max_statement_size": 3_000_000},
    ):
        error = rules(**policy).long_refusal(size)
        assert error is not None
        assert "too long to be inspected" in error.message
        assert error.sqlstate == "0A000"


# --- forbidden statements ---------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "sql"), EXAMPLES.items())
def test_each_kind_of_statement_can_be_forbidden(name: str, sql: str) -> None:
    assert said(rules(forbidden_statements={name}), sql) == (
        f'0A000 {name.upper()} is forbidden for tier "free" (forbidden_statements)'
    )


@pytest.mark.parametrize(
    "sql",
    [
        "tRuNcAtE t",
        "/* */truncate/**/t",
        "--\ntruncate t",
        ";;truncate t",
        "SELECT 1; BEGIN; TRUNCATE t",
        "DO $$ BEGIN TRUNCATE t; END $$",
        "do language plpgsql E'begin trun\\x63ate t; end'",
        "SELECT 'a\\''; TRUNCATE t; --'",
        "TRUNCATE t WITH SOMETHING NEW",
    ],
)
def test_spellings_of_what_is_forbidden(sql: str) -> None:
    assert "TRUNCATE" in said(rules(forbidden_statements={"truncate"}), sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 'truncate t'",
        'SELECT "truncate" FROM t',
        "SELECT $$; TRUNCATE t$$",
        BROKEN,
        "EXPLAIN SELECT 1",
    ],
)
def test_what_is_not_forbidden(sql: str) -> None:
    assert refused(rules(forbidden_statements={"truncate", "drop"}), sql) is None


def test_the_closest_name_is_said() -> None:
    own = rules(forbidden_statements={"drop", "drop table", "create"})
    assert said(own, "DROP TABLE t").startswith("0A000 DROP TABLE is")
    assert said(own, "DROP VIEW t").startswith("0A000 DROP is")


@pytest.mark.parametrize(
    "sql",
    [
        "DO 'BEGIN DROP TABLE t; END'",
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'DROP TABLE t'",
        "CREATE PROCEDURE f() LANGUAGE plpgsql AS $$BEGIN DROP/**/TABLE t; END$$",
        "CREATE PROCEDURE f() LANGUAGE sql AS E'DR\\x4fP T\\x41BLE t'",
    ],
)
def test_within_a_block_or_function(sql: str) -> None:
    assert said(rules(forbidden_statements={"drop table"}), sql) == (
        '0A000 DROP TABLE within a function or block is forbidden for tier "free" (forbidden_statements)'
    )


# --- read_only --------------------------------------------------------------------------------------


PG_DUMPS = (
    "SELECT set_config(name, 'x', false) FROM pg_settings WHERE name = 'restrict_nonsystem_relation_kind'"
)


@pytest.mark.parametrize(
    "sql", [*READS, BROKEN, PG_DUMPS, "SELECT updated_at, do_it FROM writes", "BEGIN READ ONLY"]
)
def test_a_read_only_tenant_may_read(sql: str) -> None:
    assert refused(rules(read_only=True), sql) is None


@pytest.mark.parametrize(
    "sql",
    [
        *(sql for sql in EXAMPLES.values() if measure(sql.encode()).writes),
        "ALTER ROLE me SET default_transaction_read_only = off",
        "SELECT 1; INSERT INTO t VALUES (1)",
    ],
)
def test_a_read_only_tenant_may_not_write(sql: str) -> None:
    assert said(rules(read_only=True), sql).endswith(
        'is no reading statement; tier "free" is read-only (read_only)'
    )


@pytest.mark.parametrize(
    "sql",
    [
        "BEGIN READ WRITE",
        "begin/**/read/**/write",
        "COMMIT AND CHAIN; SET TRANSACTION READ WRITE",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "SET transaction_read_only = off",
        'SET "default_Transaction_read_only" TO 0',
        'SET U&"default\\005ftransaction\\005fread\\005fonly" = off',
        "SELECT set_config('transaction_read_only', 'off', true)",
        "SELECT set_config(E'transaction\\x5fread_only', 'off', true)",
        "SELECT U&\"set\\005fconfig\"(U&'transaction\\005fread_only', 'off', true)",
        "SELECT set_config('default_transaction_read_only', $1, false)",
        "BEGIN READ WRITE SOMETHING NEW",
        "SELECT 'a\\''; BEGIN READ WRITE; --'",
    ],
)
def test_its_transactions_stay_read_only(sql: str) -> None:
    assert said(rules(read_only=True), sql) == '0A000 transactions of tier "free" are read-only (read_only)'


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT set_config('default_' || 'x', 'off', false)",
        "SELECT query_to_xml('SET x = 1', true, true, '')",
        "RESET ALL; BEGIN",
        "RESET default_transaction_read_only; SELECT f()",
    ],
)
def test_what_could_undo_it_is_refused(sql: str) -> None:
    assert said(rules(read_only=True), sql).startswith("42501 ")


# --- locked parameters ------------------------------------------------------------------------------

LOCKED = rules(locked_parameters={"work_mem", "app.region"})


@pytest.mark.parametrize(
    "sql",
    [
        "SET work_mem = '1GB'",
        "set Work_MEM to '1GB'",
        'SET "WORK_mem" = 1',
        'SET U&"work\\005fmem" = 1',
        "SET U&\"work!005fmem\" UESCAPE '!' = 1",
        "SET LOCAL work_mem = 1",
        "SET SESSION work_mem = 1",
        "SET LOCAL work_mem TO DEFAULT",
        "SET/**/work_mem/**/TO/**/1",
        "--\nSET work_mem = 1",
        "SELECT 1; SET work_mem = 1",
        "SELECT set_config('Work_Mem', '1GB', true)",
        "SELECT pg_catalog.set_config(E'work\\x5fmem', '1GB', false)",
        "SELECT \"set_config\"(setting_name => 'work_mem', new_value => '1', is_local => true)",
        "INSERT INTO t SELECT set_config('work_mem', '1GB', true)",
        "PREPARE p AS SELECT set_config('work_mem', '1GB', true)",
        "ALTER ROLE me SET work_mem = '1GB'",
        "ALTER ROLE me IN DATABASE d RESET work_mem",
        "ALTER DATABASE d SET work_mem FROM CURRENT",
        "ALTER SYSTEM SET work_mem = 1",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET work_mem = '1GB' RETURN 1",
        "CREATE PROCEDURE f() LANGUAGE sql SET work_mem TO DEFAULT AS ''",
        "ALTER FUNCTION f() SET work_mem = '1GB'",
        "ALTER ROUTINE f() RESET work_mem",
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'SET work_mem = 1'",
        "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$SELECT set_config('work_mem', '1GB', false)$$",
        "CREATE OR REPLACE PROCEDURE f() LANGUAGE plpgsql AS $$BEGIN SET LOCAL Work_Mem = 1; END$$",
        "SET work_mem = 1 SOMETHING NEW",
        "SELECT 'a\\''; SET work_mem = 1; --'",
    ],
)
def test_a_locked_parameter_stays(sql: str) -> None:
    assert said(LOCKED, sql) == (
        '42501 parameter "work_mem" cannot be changed: locked by tier "free" (locked_parameters)'
    )


@pytest.mark.parametrize("sql", ["ALTER ROLE me RESET ALL", "ALTER FUNCTION f() RESET ALL"])
def test_what_would_change_all_changes_those_that_are_locked(sql: str) -> None:
    assert said(LOCKED, sql).startswith('42501 parameter "app.region"')


@pytest.mark.parametrize(
    "sql",
    [
        "DO $$ BEGIN SET work_mem = '1GB'; END $$",
        "DO $$ BEGIN EXECUTE 'SET work' || '_mem = 1'; END $$",
        "DO LANGUAGE plpython3u 'x'",
        "SELECT set_config(lower('WORK_MEM'), '1GB', true)",
        "SELECT set_config($1, $2, $3)",
        "UPDATE pg_settings SET setting = 1 WHERE name = 'work_mem'",
        "SELECT query_to_xml('SET work_mem = 1', true, true, '')",
        "SELECT set_config($1, $2, $3) SOMETHING NEW (",
        "RESET ALL; SELECT f() SOMETHING NEW (",
    ],
)
def test_what_hides_a_parameter_is_refused_where_some_are_locked(sql: str) -> None:
    assert isinstance(refused(LOCKED, sql), ParameterLocked)


@pytest.mark.parametrize(
    "sql",
    [
        "RESET ALL; SELECT 1",
        "RESET work_mem; SELECT 1",
        "SET work_mem TO DEFAULT; SELECT 1",
        "SELECT 1; RESET App.Region; SELECT 2",
        "DISCARD ALL; SELECT 1",
        "SELECT 'a\\''; RESET ALL; SELECT 1; --'",
    ],
)
def test_a_reset_ahead_of_statements(sql: str) -> None:
    assert "cannot be reset while statements follow" in said(LOCKED, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "RESET work_mem",
        "RESET ALL",
        "DISCARD ALL",
        "SET work_mem TO DEFAULT",
        "SELECT 1; CLOSE ALL; UNLISTEN *; RESET ALL;",
        "RESET other; SELECT 1",
        "SET other = 1",
        "SET region = 1",
        "SHOW work_mem",
        "SELECT current_setting('work_mem')",
        "SELECT set_config('other', '1', false)",
        "UPDATE t SET work_mem = 1",
        BROKEN,
        "DO $$ BEGIN PERFORM 1; END $$",
        "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$SELECT current_setting('work_mem')$$",
    ],
)
def test_what_leaves_locked_parameters_alone(sql: str) -> None:
    assert refused(LOCKED, sql) is None


def test_a_function_call() -> None:
    def called(*arguments: bytes) -> TiergateError | None:
        return LOCKED.judge(b"", judge_call(2078, arguments), Measures())

    assert called(b"work_mem", b"1", b"f") is not None
    assert called(b"work_mem", b"1", b"t") is not None
    assert called(b"work_mem") is not None
    assert called(b"other", b"1", b"t") is None
    reading = rules(read_only=True)
    for name in (b"transaction_read_only", b"default_transaction_read_only"):
        assert reading.judge(b"", judge_call(2078, [name, b"off", b"t"]), Measures()) is not None


def test_parameters_of_the_startup_packet() -> None:
    assert LOCKED.asked_refusal("other", "1", None) is None
    assert LOCKED.asked_refusal("work_mem", "4MB", "4MB") is None
    error = LOCKED.asked_refusal("Work_Mem", "4GB", "4MB")
    assert isinstance(error, ParameterLocked)
    assert 'parameter "work_mem"' in error.message
    reading = rules(read_only=True)
    assert reading.asked_refusal("default_transaction_read_only", "true", "on") is None
    assert reading.asked_refusal("default_transaction_read_only", "off", "on") is not None


def test_read_only_may_be_locked_by_its_name_as_well() -> None:
    own = rules(locked_parameters={"default_transaction_read_only"})
    assert said(own, "SET default_transaction_read_only = on").startswith("42501")
    assert refused(rules(read_only=True), "SET default_transaction_read_only = on") is None


# --- the byte searches --------------------------------------------------------------------------------

_STATEMENTS = [
    *EXAMPLES.values(),
    *READS,
    *(sql for sql, _ in JOINS),
    "BEGIN READ WRITE",
    "SELECT set_config($1, $2, $3)",
]
_GAPS = st.sampled_from([" ", "\n", "\t", "/**/", "--x\n", "  "])


@st.composite
def _texts(draw: st.DrawFn) -> bytes:
    said = draw(st.lists(st.sampled_from(_STATEMENTS), min_size=1, max_size=3))
    gap = draw(_GAPS)
    text = draw(st.sampled_from([";", " ; ", ";--\n"])).join(sql.replace(" ", gap) for sql in said)
    return draw(st.sampled_from([str.upper, str.lower, str.title, str]))(text).encode()


@settings(max_examples=examples(300), deadline=None)
@given(_texts(), st.sets(st.sampled_from(sorted(STATEMENTS)), max_size=4))
@example(b"SELECT 1INTO t", {"select into"})
def test_a_text_that_no_search_suspects_breaks_no_rule(text: bytes, names: set[str]) -> None:
    own = rules(max_joins=1, max_statements=2, read_only=True, forbidden_statements=names)
    low = text.lower()
    found = measure(text)
    for policy in (
        {"max_joins": 1},
        {"max_statements": 2},
        {"read_only": True},
        {"forbidden_statements": names or {"do"}},
    ):
        one = rules(**policy)
        if not one._suspicion(low):
            assert one._measured(low, found) is None
    if not own._suspicion(low):
        assert own._measured(low, found) is None


def test_no_text_is_parsed_without_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "parse", lambda _: pytest.fail("parsed"))
    own = rules(
        max_joins=3, max_statements=2, read_only=True, forbidden_statements={"drop", "lock"}, locked_parameters={"a"},
        max_statement_size=1000,
    )  # fmt: skip
    for sql in (
        "SELECT * FROM orders o JOIN lines l ON l.id = o.id WHERE o.id = $1",
        "SELECT a, b, c, d, e FROM t WHERE id = $1 AND updated_at > $2",
        "BEGIN",
        "COMMIT",
    ):
        assert refused(own, sql) is None


# --- what is kept -----------------------------------------------------------------------------------


def test_an_answer_is_kept_by_rules_and_text(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers(2)
    strict, lax = rules(max_joins=1), rules(max_joins=9)
    sql = b"SELECT * FROM a, b, c"
    error = answers.refusal(strict, sql, PLAIN)
    assert error is not None
    assert answers.refusal(lax, sql, PLAIN) is None
    monkeypatch.setattr(Rules, "judge", lambda *_: pytest.fail("judged again"))
    assert answers.refusal(strict, sql, PLAIN) is error
    assert answers.refusal(lax, sql, PLAIN) is None
    monkeypatch.undo()
    answers.refusal(lax, b"SELECT 1", PLAIN)
    assert len(answers) == 2
    assert answers.refusal(strict, sql, PLAIN) is not error


def test_calls_and_long_texts_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers()
    assert answers.refusal(LOCKED, b"", judge_call(2078, [b"work_mem", b"1", b"f"])) is not None
    assert answers.refusal(LOCKED, b"", judge_call(2078, [b"other", b"1", b"f"])) is None
    answers.refusal(LOCKED, b"SELECT 1 --" + b"x" * MAX_KEPT, PLAIN)
    assert len(answers) == 0
    monkeypatch.setattr(policy_module, "MAX_KEPT_BYTES", 30)
    for number in range(10):
        answers.refusal(LOCKED, b"SELECT %d" % number, PLAIN)
    assert len(answers) == 3
