from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pglast.parser import fingerprint

from proxy.sql import measure as measure_module
from proxy.sql import tree
from proxy.sql.measure import Measure, Measures, joins_at_most, measure
from proxy.sql.verdict import MAX_KEPT, MAX_PARSE
from tests.examples import examples

JOINS = [
    ("SELECT 1", 0),
    ("SELECT a, b, c FROM t WHERE x IN (1, 2, 3)", 0),
    ("TABLE t", 0),
    ("SELECT * FROM a JOIN b USING (x, y, z)", 1),
    ("SELECT * FROM a NATURAL LEFT JOIN b CROSS JOIN c", 2),
    ("SELECT * FROM (a JOIN b ON true) JOIN (c JOIN d ON true) ON true", 3),
    ("SELECT * FROM a, b, c", 2),
    ("SELECT * FROM a, b JOIN c ON true", 2),
    ("SELECT * FROM a, LATERAL f(a.x), generate_series(1, 3)", 2),
    ("SELECT * FROM ROWS FROM (f(), g())", 0),
    ("SELECT * FROM (SELECT * FROM a, b) x, c", 2),
    ("SELECT (SELECT 1 FROM a, b), EXISTS (SELECT 1 FROM c JOIN d ON true)", 2),
    ("SELECT * FROM a WHERE x IN (SELECT x FROM b)", 0),
    ("WITH x AS (SELECT * FROM a, b) SELECT * FROM x, c", 2),
    ("WITH RECURSIVE x AS (SELECT 1 FROM a, b UNION SELECT 2 FROM c, x) SELECT * FROM x", 2),
    ("SELECT 1 FROM a, b UNION ALL SELECT 1 FROM c, d UNION ALL SELECT 1 FROM e JOIN f ON true", 3),
    ("INSERT INTO t SELECT * FROM a, b", 1),
    ("INSERT INTO t (a, b, c) VALUES (1, 2, 3), (4, 5, 6)", 0),
    ("UPDATE t SET x = 1", 0),
    ("UPDATE t SET x = 1 FROM a", 1),
    ("UPDATE t SET x = 1, y = 2 FROM a, b JOIN c ON true", 3),
    ("DELETE FROM t", 0),
    ("DELETE FROM t USING a", 1),
    ("DELETE FROM t USING a, b", 2),
    ("MERGE INTO t USING a ON true WHEN MATCHED THEN DELETE", 1),
    ("MERGE INTO t USING (SELECT * FROM a, b) x ON true WHEN MATCHED THEN DELETE", 2),
    ("PREPARE p AS SELECT * FROM a, b", 1),
    ("EXPLAIN (ANALYZE) SELECT * FROM a, b", 1),
    ("DECLARE c CURSOR FOR SELECT * FROM a, b", 1),
    ("COPY (SELECT * FROM a, b) TO STDOUT", 1),
    ("CREATE TABLE t AS SELECT * FROM a, b", 1),
    ("CREATE VIEW v AS SELECT * FROM a, b", 1),
    ("CREATE MATERIALIZED VIEW v AS SELECT * FROM a JOIN b ON true", 1),
    ("CREATE RULE r AS ON INSERT TO t DO INSTEAD SELECT * FROM a, b", 1),
    ("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 FROM a, b; SELECT 1 FROM c, d; END", 2),
    ("CREATE POLICY p ON t USING (EXISTS (SELECT 1 FROM a, b))", 1),
    ("SELECT 'a JOIN b', 1 /* JOIN , */ FROM \"a JOIN b\" -- JOIN", 0),
    ("SELECT 1; SELECT * FROM a, b, c; SELECT * FROM a, b", 2),
    ("SELECT", 0),
    ("", 0),
]


@pytest.mark.parametrize(("sql", "joins"), JOINS)
def test_joins_of_a_text_are_those_of_the_statement_that_has_most(sql: str, joins: int) -> None:
    tree.parse(sql.encode())
    assert measure(sql.encode()).joins == joins


def test_joins_of_a_deep_nest() -> None:
    sql = "SELECT 1 FROM a, b"
    for _ in range(20):
        sql = f"SELECT 1 FROM ({sql}) x, c"
    assert measure(sql.encode()).joins == 21


def test_the_fingerprint_says_nothing_of_joins() -> None:
    """The reason why measures are kept by text."""
    assert fingerprint("SELECT * FROM t") == fingerprint("SELECT * FROM t, t, t, t")


def test_strings_are_read_as_both_kinds_of_servers_read_them() -> None:
    assert measure(rb"SELECT 'a\'' FROM a, b;--', c, d FROM t").joins == 1
    found = measure(rb"SELECT 'a\'', 1 FROM a, b, c; SELECT 2")
    assert (found.unread, found.joins, found.statements) == ("syntax", 2, 2)
    assert "truncate" in measure(rb"SELECT 'a\''; TRUNCATE t; --'").names


def test_other_encodings_do_not_hide_anything() -> None:
    assert measure("SELECT 'é' FROM a, b".encode("latin-1")).joins == 1


@pytest.mark.parametrize(
    ("sql", "count"),
    [("", 0), (";;", 0), ("SELECT ';'", 1), ("SELECT 1; SELECT 2;", 2), ("BEGIN; SELECT 1; COMMIT", 3)],
)
def test_statements(sql: str, count: int) -> None:
    assert measure(sql.encode()).statements == count


READS = [
    "SELECT * FROM t FOR UPDATE",
    "SELECT insert, update FROM delete_log",
    "VALUES (1)",
    "TABLE t",
    "WITH x AS (SELECT 1) SELECT * FROM x",
    "EXPLAIN ANALYZE SELECT 1",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DEALLOCATE p",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    "FETCH ALL FROM c",
    "CLOSE c",
    "BEGIN; COMMIT; SAVEPOINT a; ROLLBACK TO a",
    "SET x = 1",
    "SHOW x",
    "RESET ALL",
    "DISCARD ALL",
    "LISTEN c; UNLISTEN c; NOTIFY c",
    "LOCK TABLE t IN ACCESS SHARE MODE",
    "SET CONSTRAINTS ALL DEFERRED",
    "COPY t TO STDOUT",
    "COPY (SELECT 1) TO STDOUT",
]


@pytest.mark.parametrize("sql", READS)
def test_what_reads(sql: str) -> None:
    tree.parse(sql.encode())
    assert measure(sql.encode()).writes == ""


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("INSERT INTO t VALUES (1)", "insert"),
        ("SELECT 1; UPDATE t SET x = 1", "update"),
        ("WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x", "delete"),
        ("EXPLAIN ANALYZE MERGE INTO t USING a ON true WHEN MATCHED THEN DELETE", "merge"),
        ("PREPARE p AS INSERT INTO t VALUES (1)", "insert"),
        ("COPY (DELETE FROM t RETURNING *) TO STDOUT", "delete"),
        ("COPY t FROM STDIN", "copy"),
        ("COPY t TO '/x'", "copy"),
        ("COPY t TO PROGRAM 'x'", "copy"),
        ("SELECT 1 INTO t", "select into"),
        ("SELECT 1 INTO t UNION SELECT 2", "select into"),
        ("CREATE TABLE t AS SELECT 1", "create table"),
        ("CREATE CAST (a AS b) WITHOUT FUNCTION", "create"),
        ("ALTER ROLE a SET x = 1", "alter role"),
        ("GRANT a TO b", "grant"),
        ("VACUUM", "vacuum"),
        ("CALL p()", "call"),
        ("DO ''", "do"),
        ("REFRESH MATERIALIZED VIEW m", "refresh materialized view"),
        ("CHECKPOINT", "checkpoint"),
    ],
)
def test_what_writes(sql: str, what: str) -> None:
    tree.parse(sql.encode())
    assert measure(sql.encode()).writes == what


@pytest.mark.parametrize(
    "sql",
    [
        "BEGIN READ WRITE",
        "BEGIN ISOLATION LEVEL SERIALIZABLE, READ WRITE, DEFERRABLE",
        "START TRANSACTION READ ONLY, READ WRITE",
        "SET TRANSACTION READ WRITE",
        "SET LOCAL TRANSACTION READ WRITE",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "SET transaction_read_only = off",
        "SET \"Transaction_Read_Only\" TO 'no'",
        'SET U&"transaction\\005fread_only" = 0',
        "SET LOCAL default_transaction_read_only = false",
        "SET default_transaction_read_only FROM CURRENT",
        "SET LOCAL default_transaction_read_only TO DEFAULT",
        "SET transaction_read_only TO DEFAULT",
        "RESET transaction_read_only",
        "SELECT set_config('transaction_read_only', 'off', true)",
        "SELECT pg_catalog.set_config(E'default\\x5ftransaction_read_only', 'f', false)",
        "SELECT set_config('default_transaction_read_only', $1, false)",
        "SELECT set_config(is_local => false, new_value => 'off', setting_name => 'default_transaction_read_only')",
    ],
)
def test_what_opens_a_read_only_session(sql: str) -> None:
    tree.parse(sql.encode())
    assert measure(sql.encode()).opens


@pytest.mark.parametrize(
    "sql",
    [
        "BEGIN",
        "BEGIN READ ONLY",
        "SET TRANSACTION READ ONLY",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE",
        "SET default_transaction_read_only = on",
        "SET transaction_read_only TO true",
        "RESET default_transaction_read_only",
        "SET default_transaction_read_only TO DEFAULT",
        "SELECT set_config('transaction_read_only', 'on', true)",
        "SELECT set_config('work_mem', 'off', true)",
        "SELECT current_setting('transaction_read_only')",
        "SELECT set_config(setting_name => 'work_mem', new_value => '1MB', is_local => true)",
        "SELECT set_config(new_value => 'on', setting_name => 'transaction_read_only', is_local => true)",
        "SELECT set_config(name, 'view', false) FROM pg_settings WHERE name = 'restrict_nonsystem_relation_kind'",
    ],
)
def test_what_leaves_it_read_only(sql: str) -> None:
    tree.parse(sql.encode())
    assert not measure(sql.encode()).opens


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("RESET a", ()),
        ("SELECT 1; RESET ALL", ()),
        ("SELECT 1; RESET ALL; DISCARD ALL", ("*",)),
        ("RESET A; SET b TO DEFAULT; SELECT 1", ("a", "b")),
        ("DISCARD ALL; SELECT 1", ("*",)),
        ("SET a = 1; SELECT 1", ()),
    ],
)
def test_resets_ahead_of_statements(sql: str, names: tuple[str, ...]) -> None:
    assert measure(sql.encode()).resets_early == set(names)


def test_bodies_of_functions() -> None:
    assert measure(b"CREATE PROCEDURE p() LANGUAGE sql AS 'Truncate t'").bodies == b"truncate t"
    assert measure(b"CREATE FUNCTION f() RETURNS int LANGUAGE sql RETURN 1").bodies == b""


def test_bodies_of_do_blocks() -> None:
    assert measure(b"DO 'BEGIN Truncate t; END'; DO $$ X $$").bodies == b"begin truncate t; end\n x "


def test_what_no_parser_takes() -> None:
    assert measure(b"SELEC 1") == Measure(unread="syntax")
    assert measure(b"SELECT " + b"1," * MAX_PARSE + b"1") == Measure(unread="size")
    assert measure(b"SELECT " + b"1," * 20_000 + b"1").unread == "size"  # its tree is too large
    assert measure(b"SELECT " + b"NOT " * 5_000 + b"true").unread == "size"  # too deep


# --- the byte search --------------------------------------------------------------------------------

_PIECES = st.sampled_from(
    [
        "SELECT ", "a, b ", "* ", "FROM a", " FROM a, b, c", " JOIN d ON true", ", e", " NATURAL JOIN f", "/* , */",
        "-- from\n", " WHERE x IN (1, 2)", "(SELECT 1 FROM g, h)", "UPDATE t SET x = 1", "DELETE FROM t", " USING i, j",
        "MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE", " UNION ", "WITH k AS (", ") ", "INSERT INTO t ", "; ",
        "VALUES (1, 2)", "'from'", "\"using\"", "f(", "extract(year FROM y)", " CROSS\tJOIN\nl", "JOIN",
        "join m USING (n, o)",
    ]
)  # fmt: skip


@settings(max_examples=examples(400), deadline=None)
@given(st.lists(_PIECES, max_size=9), st.booleans())
@example(["UPDATE t SET x = 1", "FROM a"], False)
@example(["DELETE FROM t", " USING i, j"], True)
def test_joins_are_never_more_than_the_byte_search_says(pieces: list[str], upper: bool) -> None:
    text = "".join(pieces)
    low = (text.upper() if upper else text).encode().lower()
    assert measure(text.encode()).joins <= joins_at_most(low)


@pytest.mark.parametrize(("sql", "joins"), JOINS)
def test_the_byte_search_on_what_is_known(sql: str, joins: int) -> None:
    assert joins_at_most(sql.encode().lower()) >= joins


@pytest.mark.parametrize(
    "low", [b"select a, b, c from t", b"insert into t (a, b, c, d) values (1, 2, 3, 4)", b"select 1"]
)
def test_the_byte_search_clears_the_usual(low: bytes) -> None:
    assert joins_at_most(low) == 0


# --- what is kept -----------------------------------------------------------------------------------


def test_a_measure_is_kept_by_text(monkeypatch: pytest.MonkeyPatch) -> None:
    measures = Measures(2)
    first = measures.measure(b"SELECT 1")
    assert measures.measure(b"SELECT " + b"1") is first
    measures.measure(b"SELECT 2")
    measures.measure(b"SELECT 1")
    measures.measure(b"SELECT 3")
    assert len(measures) == 2
    monkeypatch.setattr(measure_module, "measure", lambda _: pytest.fail("parsed again"))
    assert measures.measure(b"SELECT 1") is first


def test_kept_texts_are_bounded_together_and_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_module, "MAX_KEPT_BYTES", 30)
    measures = Measures()
    for number in range(10):
        measures.measure(b"SELECT %d" % number)
    assert len(measures) == 3
    measures.measure(b"SELECT 1 /*" + b"x" * MAX_KEPT + b"*/")
    assert len(measures) == 3
