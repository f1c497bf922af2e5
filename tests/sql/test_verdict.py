from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.model import PinReason
from proxy.sql import verdict as verdict_module
from proxy.sql import words
from proxy.sql.hidden import Hidden
from proxy.sql.verdict import MAX_KEPT, MAX_PARSE, PLAIN, Judge, Verdict, begins, inspect
from tests.examples import examples

P, H = PinReason, Hidden


def expect(*pins: PinReason, touched: tuple[str, ...] | None = None, statements: int = 1, **said) -> Verdict:
    if touched is None:
        touched = said.get("sets", ()) + said.get("resets", ())
    changed = said.pop("changed", set(touched) - set(said.get("resets", ())))
    return Verdict(
        pins=frozenset(pins),
        touched=frozenset(touched),
        changed=frozenset(changed),
        statements=statements,
        **said,
    )


def judge(sql: str) -> Verdict:
    return Judge(10).judge(sql.encode())


PLAIN_TEXTS = [
    "",
    ";",
    "SELECT 1",
    "select * from orders where id = $1 and reset_at is null",
    "UPDATE accounts SET balance = balance + 1 WHERE id = 3",
    "UPDATE accounts\n   SET balance = 0",
    "INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 2",
    "INSERT INTO t VALUES ('set x to 1', 'LISTEN', 'reset all')",
    "INSERT INTO t SELECT temperature, template, contemporary FROM weather",
    "WITH x AS (SELECT 1) DELETE FROM t USING x",
    "BEGIN",
    "COMMIT; BEGIN ISOLATION LEVEL SERIALIZABLE",
    "SAVEPOINT a; ROLLBACK TO a",
    "SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock(2)",
    "SELECT current_setting('app.tenant_id'), pg_advisory_unlock(1)",
    "NOTIFY ch, 'x'",
    "FETCH 10 FROM c",
    "CLOSE ALL",
    "COPY t FROM STDIN",
    "SHOW search_path",
    "VALUES (1), (2)",
    "TRUNCATE t",
    "VACUUM ANALYZE t",
    "GRANT SELECT ON t TO bob",
    "SELECT load, prepare FROM listen",
    "LOCK TABLE t",
]


@pytest.mark.parametrize("sql", PLAIN_TEXTS)
def test_plain_texts_cost_no_parser(sql, monkeypatch):
    monkeypatch.setattr(verdict_module, "inspect", lambda text: pytest.fail("parsed"))
    assert Judge(10).judge(sql.encode()) is PLAIN


@pytest.mark.parametrize("sql", PLAIN_TEXTS)
def test_plain_texts_are_plain_to_the_parser_too(sql):
    assert replace(inspect(sql.encode()), statements=0) == PLAIN


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("EXECUTE p('{}')", Verdict(executes=("p",))),
        (" execute\tInsert_1 ( '{}', 2 )", Verdict(executes=("insert_1",))),
        ("EXECUTE p('{}'); EXECUTE q('x')", None),
        ("EXECUTE p('{}', set_config('x', '1', false))", None),
        ("EXECUTE \"P\"('{}')", None),
        ("EXECUTE/**/p('{}')", None),
    ],
)
def test_an_execute_with_large_values_needs_no_parser(text, verdict):
    long = text.format("x" * MAX_PARSE).encode()
    found = inspect(long)
    assert found == verdict if verdict else found.pins == {P.UNINSPECTED}


PG_DUMP = (
    "SELECT set_config(name, 'view, foreign-table', false) FROM pg_settings"
    " WHERE name = 'restrict_nonsystem_relation_kind'"
)
# What each makes of it may have another name than the one that stands there.
OTHERS = [
    ("FROM pg_settings", "FROM pg_settings AS s"),
    ("FROM pg_settings", "FROM pg_settings AS pg_settings (setting, name)"),
    ("FROM pg_settings", "FROM mine.pg_settings"),
    ("FROM pg_settings", "FROM other"),
    ("FROM pg_settings", "FROM pg_settings, other"),
    ("FROM pg_settings", "FROM pg_settings JOIN other USING (name)"),
    ("FROM pg_settings", "FROM (SELECT $1 AS name) pg_settings"),
    (" = '", " <> '"),
    (" = '", " OPERATOR(mine.=) '"),
    (" = '", " ~ '"),
    ("name = ", "setting = "),
    ("name = ", "other.name = "),
    ("name = ", "NOT name = "),
    ("name = ", "name = $1 OR name = "),
    ("name = ", "lower(name) = "),
    ("name = ", "name = 'another' AND name = "),
    (" WHERE name = 'restrict_nonsystem_relation_kind'", ""),
    ("_kind'", "_kind' || $1"),
    ("set_config(name", "set_config(name || ''"),
    ("set_config(name", "set_config(setting"),
    ("set_config(name", "set_config(setting_name => name"),
    (
        "SELECT set_config(name, 'view, foreign-table', false)",
        "SELECT (SELECT set_config(name, '', false) FROM t)",
    ),
]

TABLE = [
    # SET and RESET
    ("SET app.tenant_id = 'x'", expect(sets=("app.tenant_id",))),
    ('set "App"."Tenant_Id" to \'x\'', expect(sets=("app.tenant_id",))),
    ('SET U&"\\0061pp".tenant_id = 1', expect(sets=("app.tenant_id",))),
    ("SET/**/x=1", expect(sets=("x",))),
    (" \t\r\n SET x = 1", expect(sets=("x",))),
    ("/* a /* nested */ b */ SET x = 1", expect(sets=("x",))),
    ("-- a comment\nSET x = 1", expect(sets=("x",))),
    ("-- a comment\r  -- another\r\n\n  SET x = 1", expect(sets=("x",))),
    ("SELECT 1;SET x = 1", expect(sets=("x",), statements=2)),
    ("SELECT 1; /* c */ SET x = 1; SET y = 2; SET x = 3", expect(sets=("x", "y"), statements=4)),
    ("BEGIN; SET LOCAL x = 1", expect(touched=("x",), statements=2)),
    ("SET LOCAL x TO DEFAULT", expect(touched=("x",))),
    ("SET SESSION x = 1", expect(sets=("x",))),
    ("SET x FROM CURRENT", expect(sets=("x",))),
    ("SET x TO DEFAULT", expect(resets=("x",))),
    ("SET TIME ZONE 'UTC'", expect(sets=("timezone",))),
    ("SET TIME ZONE LOCAL", expect(resets=("timezone",))),
    ("SET NAMES 'utf8'", expect(sets=("client_encoding",))),
    ("SET SCHEMA 's'", expect(sets=("search_path",))),
    ("SET DateStyle = 'ISO', 'MDY'", expect(sets=("datestyle",))),
    ("SET search_path = a, pg_temp", expect(P.TEMP_TABLE, sets=("search_path",))),
    ("SET LOCAL search_path = 'pg_temp'", expect(P.TEMP_TABLE, touched=("search_path",))),
    ("RESET x", expect(resets=("x",))),
    ("RESET ALL", expect(resets_all=True)),
    # sequences
    ("SELECT currval('s')", expect(asks_sequences=True)),
    ("select 1; Select pg_catalog.LastVal()", expect(asks_sequences=True, statements=2)),
    ("SELECT setval('s', 7)", expect(sets_sequences=True)),
    ("INSERT INTO t VALUES (\"currval\"('s'))", expect(asks_sequences=True)),
    ("PREPARE p AS SELECT currval('s')", expect(P.SQL_PREPARE, asks_sequences=True)),
    ("CREATE TABLE t (n bigint DEFAULT currval('s'))", expect()),
    ("DO $$BEGIN PERFORM setval('s', lastval()); END$$", expect(asks_sequences=True, sets_sequences=True)),
    ("SELECT 'currval'", expect()),
    ("SET TRANSACTION READ ONLY", expect()),
    ("SET TRANSACTION SNAPSHOT '1-1'", expect()),
    ("SET transaction_read_only = on", expect(touched=("transaction_read_only",))),
    ("RESET TRANSACTION ISOLATION LEVEL", expect(touched=("transaction_isolation",), changed=())),
    (
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE",
        expect(sets=("default_transaction_read_only", "default_transaction_isolation")),
    ),
    # roles
    ("SET ROLE bob", expect(sets=("role",))),
    ("SET role = 'bob'", expect(sets=("role",))),
    ("SET ROLE NONE", expect(sets=("role",))),
    ("RESET ROLE", expect(resets=("role",))),
    ("SET LOCAL ROLE bob", expect(touched=("role",))),
    ("SET SESSION AUTHORIZATION bob", expect(P.ROLE, sets=("session_authorization",))),
    ("SET SESSION AUTHORIZATION DEFAULT", expect(resets=("session_authorization",))),
    ("SELECT set_config('role', 'bob', false)", expect(sets=("role",))),
    # set_config
    ("SELECT set_config('App.Tenant_id', 'x', false)", expect(sets=("app.tenant_id",))),
    ("SELECT pg_catalog.SET_CONFIG('x', $1, 'f')", expect(sets=("x",))),
    ("SELECT \"set_config\"('x'::pg_catalog.text, $1, FALSE)", expect(sets=("x",))),
    ("SELECT set_config('x'::varchar, 'y', true)", expect(touched=frozenset({"x"}))),
    ("SELECT U&\"set\\005fconfig\"('x', $1, false)", expect(sets=("x",))),
    ("SELECT U&\"set!005fconfig\" UESCAPE '!'('x', $1, false)", expect(sets=("x",))),
    ("SELECT set_config(E'\\x78', $1, false)", expect(sets=("x",))),
    ("SELECT set_config(U&'\\0078', $1, false)", expect(sets=("x",))),
    ("SELECT set_config($$x$$, $1, false)", expect(sets=("x",))),
    ("SELECT set_config('x', $1, true)", expect(touched=("x",))),
    ("SELECT set_config('x', $1, 'yes'::bool)", expect(touched=("x",))),
    ("SELECT set_config('x', $1, 1::boolean)", expect(touched=("x",))),
    ("SELECT set_config('x', $1, $2)", expect(sets=("x",))),
    ("SELECT set_config($1, $2, true)", expect(hides=H.COMPUTED_NAME)),
    ("SELECT set_config($1, $2, false)", expect(bound_names=(1,), hides=H.COMPUTED_NAME)),
    ("SELECT set_config($2::text, $1, $3)", expect(bound_names=(2,), hides=H.COMPUTED_NAME)),
    (
        "SELECT set_config(new_value => 'x', setting_name => $2, is_local => false)",
        expect(bound_names=(2,), hides=H.COMPUTED_NAME),
    ),
    ("SELECT set_config($1::regclass, $2, false)", expect(P.SET, hides=H.COMPUTED_NAME)),
    ("SELECT set_config($1::varchar(3), $2, false)", expect(P.SET, hides=H.COMPUTED_NAME)),
    ("SELECT set_config($1 || 'x', $2, false)", expect(P.SET, hides=H.COMPUTED_NAME)),
    ("SELECT set_config(VARIADIC $1)", expect(P.SET, hides=H.COMPUTED_NAME)),
    ("SELECT set_config('search_path', $1, false)", expect(P.TEMP_TABLE, sets=("search_path",))),
    ("SELECT set_config('search_path', 'a, b', false)", expect(sets=("search_path",))),
    # ... by a later statement
    ("CREATE TABLE t (a text DEFAULT set_config('x', 'y', false))", expect(P.SET, sets=("x",))),
    ("CREATE TABLE t (a text DEFAULT set_config('x', 'y', true))", expect(touched=("x",))),
    ("CREATE VIEW v AS SELECT set_config('x', 'y', false)", expect(P.SET, sets=("x",))),
    ("CREATE RULE r AS ON INSERT TO t DO SELECT set_config('x', 'y', false)", expect(P.SET, sets=("x",))),
    ("CREATE TABLE t AS SELECT set_config('x', 'y', false)", expect(sets=("x",))),
    ("EXPLAIN ANALYZE SELECT set_config('x', 'y', false)", expect(sets=("x",))),
    ("COPY (SELECT set_config('x', 'y', false)) TO STDOUT", expect(sets=("x",))),
    ("DECLARE c CURSOR FOR SELECT set_config('x', 'y', false)", expect(sets=("x",))),
    ("SELECT set_config('a' || 'b', $2, false)", expect(P.SET, hides=H.COMPUTED_NAME)),
    ("SELECT set_config('app.tenant\\_id', $2, false)", expect(P.SET, hides=H.COMPUTED_NAME)),
    ("SELECT set_config('xy'::char(1), $2, false)", expect(P.SET, hides=H.COMPUTED_NAME)),
    # Types that take another text from it, or are called like one of PostgreSQL's.
    ("SELECT set_config('x '::bpchar, '1', true)", expect(hides=H.COMPUTED_NAME)),
    ("SELECT set_config(name 'x', '1', true)", expect(hides=H.COMPUTED_NAME)),
    ("SELECT set_config('x'::text, '1', true)", expect(hides=H.COMPUTED_NAME)),
    ("SELECT set_config('1234'::mine.text::pg_catalog.text, '1', true)", expect(hides=H.COMPUTED_NAME)),
    ("SELECT set_config(name, setting, false) FROM saved", expect(P.SET, hides=H.COMPUTED_NAME)),
    ("SELECT set_config(VARIADIC ARRAY['x', '1', 'f'])", expect(P.SET, hides=H.COMPUTED_NAME)),
    (
        "SELECT set_config(is_local => false, new_value => '1', setting_name => 'x')",
        expect(sets=("x",)),
    ),
    ("SELECT set_config('search_path', 'pg_temp, a', false)", expect(P.TEMP_TABLE, sets=("search_path",))),
    ("SELECT * FROM set_config('x', '1', false)", expect(sets=("x",))),
    ("INSERT INTO t VALUES ((SELECT set_config('x', '1', false)))", expect(sets=("x",))),
    ("CALL p(set_config('x', '1', false))", expect(sets=("x",))),
    ("INSERT INTO log VALUES ('set_config; set x = 1')", expect()),
    ("COPY (SELECT set_config('x', '1', false)) TO STDOUT", expect(sets=("x",))),
    # pg_dump 17 and newer
    (PG_DUMP, expect(sets=("restrict_nonsystem_relation_kind",))),
    (
        "SELECT 1, pg_catalog.set_config(pg_settings.name, $1, true) FROM pg_catalog.pg_settings"
        " WHERE 'X'::pg_catalog.text OPERATOR(pg_catalog.=) name AND vartype = 'enum'",
        expect(touched=("x",)),
    ),
    (PG_DUMP.replace("restrict_nonsystem_relation_kind", "app.tenant_id"), expect(sets=("app.tenant_id",))),
    *((PG_DUMP.replace(*change), expect(P.SET, hides=H.COMPUTED_NAME)) for change in OTHERS),
    ("WITH pg_settings AS (SELECT $1 AS name) " + PG_DUMP, expect(P.SET, hides=H.COMPUTED_NAME)),
    (PG_DUMP + " UNION " + PG_DUMP, expect(P.SET, hides=H.COMPUTED_NAME)),
    (f"SELECT ({PG_DUMP})", expect(P.SET, hides=H.COMPUTED_NAME)),
    ("UPDATE pg_settings SET setting = 'x' WHERE name = $1", expect(P.SET, hides=H.PG_SETTINGS)),
    (
        "WITH u AS (UPDATE pg_catalog.pg_settings SET setting = 'x' RETURNING 1) SELECT 1",
        expect(P.SET, hides=H.PG_SETTINGS),
    ),
    ("SELECT * FROM pg_settings", expect()),
    ("SELECT query_to_xml($1, true, false, '')", expect(P.UNINSPECTED, hides=H.TEXT_RUNNER)),
    ("SELECT * FROM ts_stat('select ' || $1)", expect(P.UNINSPECTED, hides=H.TEXT_RUNNER)),
    ("SELECT ts_rewrite(q, $1) FROM t", expect(P.UNINSPECTED, hides=H.TEXT_RUNNER)),
    ("CREATE AGGREGATE a(text, bool) (sfunc = set_config, stype = text)", expect(hides=H.AGGREGATE)),
    (
        'CREATE AGGREGATE a(text, bool) (msfunc = pg_catalog."set_config", mstype = text)',
        expect(hides=H.AGGREGATE),
    ),
    ("CREATE AGGREGATE a(text) (sfunc = textcat, stype = text, initcond = 'set_config')", expect()),
    # what only stores a SET
    ("ALTER ROLE bob SET app.tenant_id = 'x'", expect(touched=("app.tenant_id",), alters_role=True)),
    ("ALTER DATABASE d SET app.tenant_id = 'x'", expect(touched=("app.tenant_id",), alters_role=True)),
    ("ALTER ROLE bob RESET ALL", expect(changed=("*",), alters_role=True)),
    (
        "ALTER USER CURRENT_USER IN DATABASE d SET search_path = a, b",
        expect(touched=("search_path",), alters_role=True),
    ),
    ("ALTER ROLE bob PASSWORD 'x'", expect(alters_role=True)),
    ("ALTER ROLE bob CREATEDB", expect()),
    ("ALTER GROUP g ADD USER bob", expect()),
    ("DO $$begin alter role bob set x = 1; end$$", expect(P.UNINSPECTED, hides=H.BLOCK)),
    ("DO $$begin alter/**/database d reset x; end$$", expect(P.UNINSPECTED, hides=H.BLOCK)),
    ("DO $$begin alter --\n user bob password 'x'; end$$", expect(P.UNINSPECTED, hides=H.BLOCK)),
    ("DO $$begin alter table role add user_id int; end$$", expect()),
    ("ALTER SYSTEM SET x = 1", expect(touched=("x",))),
    ("ALTER FUNCTION f() SET x = 1", expect(touched=("x",))),
    (
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET search_path = a, pg_temp AS 'select 1; set x = 1'",
        expect(touched=("search_path",)),
    ),
    ("CREATE PROCEDURE p() LANGUAGE plpgsql AS $$begin execute 'listen x'; end$$", expect()),
    # prepared statements
    ("PREPARE p AS SELECT 1", expect(prepares=(("p", b"PREPARE p AS SELECT 1"),))),
    (
        ' PREPARE "P" (int) AS INSERT INTO t VALUES ($1);; /* x */ prepare q as values (1) -- y',
        expect(
            prepares=(
                ("P", b'PREPARE "P" (int) AS INSERT INTO t VALUES ($1)'),
                ("q", b"prepare q as values (1) -- y"),
            ),
            statements=2,
        ),
    ),
    (
        "PREPARE é AS SELECT 'ü'; SELECT 1",
        expect(prepares=(("é", "PREPARE é AS SELECT 'ü'".encode()),), statements=2),
    ),
    ("PREPARE p AS SELECT pg_advisory_lock(1)", expect(P.SQL_PREPARE, P.ADVISORY_LOCK)),
    ("PREPARE p AS SELECT 1; PREPARE q AS SELECT setseed(1)", expect(P.SQL_PREPARE, P.SET, statements=2)),
    ("PREPARE p AS SELECT 'a\\''; SELECT 1 --'", expect(P.SQL_PREPARE)),
    (
        "PREPARE p AS SELECT * FROM pg_temp.t",
        expect(prepares=(("p", b"PREPARE p AS SELECT * FROM pg_temp.t"),)),
    ),
    ("EXECUTE p(1)", expect(executes=("p",))),
    ("EXPLAIN (ANALYZE) EXECUTE p (set_config('x', '1', false))", expect(sets=("x",), executes=("p",))),
    (
        "CREATE TEMP TABLE t AS EXECUTE p; EXECUTE q; EXECUTE p",
        expect(P.TEMP_TABLE, executes=("p", "q"), statements=3),
    ),
    ("TABLE PG_Prepared_Statements", expect(looks=True)),
    ("SELECT count(*) FROM pg_catalog.pg_prepared_statement()", expect(looks=True)),
    ('SELECT * FROM U&"pg\\005fprepared_statements"', expect(looks=True)),
    ("PREPARE p AS SELECT set_config('x', $1, true)", expect(P.SQL_PREPARE, touched=("x",))),
    ("PREPARE TRANSACTION 'gid'", expect()),
    ("DEALLOCATE p", expect(deallocates=("p",))),
    ('DEALLOCATE PREPARE "P"; DEALLOCATE q; DEALLOCATE q', expect(deallocates=("P", "q", "q"), statements=3)),
    ("DEALLOCATE ALL", expect(deallocates_all=True)),
    ("DISCARD ALL", expect(discards_all=True)),
    ("discard plans", expect()),
    ("DISCARD TEMPORARY", expect()),
    ("DISCARD SEQUENCES", expect()),
    # LISTEN and the like
    ("LISTEN ch", expect(P.LISTEN)),
    ("UNLISTEN *", expect(unlistens=True)),
    ("LOAD 'auto_explain'", expect(P.LOAD)),
    ("SELECT pg_advisory_lock(1)", expect(P.ADVISORY_LOCK)),
    ("SELECT pg_try_advisory_lock_shared(1, 2)", expect(P.ADVISORY_LOCK)),
    ('SELECT U&"pg_advisory\\005flock"(1)', expect(P.ADVISORY_LOCK)),
    ("SELECT setseed(0.5)", expect(P.SET)),
    ("SELECT set_limit(0.5)", expect(sets=("pg_trgm.similarity_threshold",))),
    ('SELECT Public."set_limit"(0.5)', expect(sets=("pg_trgm.similarity_threshold",))),
    ("CREATE VIEW v AS SELECT set_limit(0.5)", expect(P.SET, sets=("pg_trgm.similarity_threshold",))),
    ("SELECT dblink_connect('c', $1)", expect(P.UNINSPECTED)),
    ("SELECT pg_backup_start('x')", expect(P.UNINSPECTED)),
    # cursors
    ("DECLARE c CURSOR FOR SELECT 1", expect()),
    ("DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1", expect()),
    ("DECLARE c BINARY SCROLL CURSOR WITH HOLD FOR SELECT 1", expect(P.HOLD_CURSOR)),
    # temporary objects
    ("CREATE TEMP TABLE t (a int)", expect(P.TEMP_TABLE)),
    ("CREATE LOCAL TEMPORARY TABLE t (a int)", expect(P.TEMP_TABLE)),
    ("CREATE TEMP TABLE t AS SELECT 1", expect(P.TEMP_TABLE)),
    ("CREATE TEMP TABLE t (a int) ON COMMIT DELETE ROWS", expect(P.TEMP_TABLE)),
    ("CREATE TEMP TABLE t (a int) ON COMMIT DROP", expect()),
    ("CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1", expect()),
    ("CREATE TABLE pg_temp.t (a int)", expect(P.TEMP_TABLE)),
    ('CREATE TABLE U&"pg_t\\0065mp".t (a int)', expect(P.TEMP_TABLE)),
    ("CREATE TABLE pg_temp_3.t (a int)", expect(P.TEMP_TABLE)),
    ("CREATE TEMP VIEW v AS SELECT 1", expect(P.TEMP_TABLE)),
    ("CREATE TEMP SEQUENCE s", expect(P.TEMP_TABLE)),
    ("CREATE VIEW pg_temp.v AS SELECT 1", expect(P.TEMP_TABLE)),
    ("CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'select 1'", expect(P.TEMP_TABLE)),
    ("CREATE TYPE pg_temp.t AS (a int)", expect(P.TEMP_TABLE)),
    ("CREATE TYPE pg_temp.t AS ENUM ('a')", expect(P.TEMP_TABLE)),
    ("CREATE DOMAIN pg_temp.d AS int", expect(P.TEMP_TABLE)),
    ("CREATE SCHEMA s CREATE TEMP TABLE t (a int)", expect(P.TEMP_TABLE)),
    ("SELECT 1 INTO TEMP t", expect(P.TEMP_TABLE)),
    ("SELECT 1 INTO/**/TEMPORARY/**/TABLE t", expect(P.TEMP_TABLE)),
    ("SELECT 1 INTO pg_temp.t", expect(P.TEMP_TABLE)),
    ("WITH x AS (SELECT 1) SELECT * INTO TEMP t FROM x", expect(P.TEMP_TABLE)),
    ("EXPLAIN ANALYZE CREATE TEMP TABLE t AS SELECT 1", expect(P.TEMP_TABLE)),
    ("SELECT * FROM pg_temp.t", expect()),
    ("SELECT temp FROM weather", expect()),
    ("DROP TABLE pg_temp.t", expect()),
    ("CREATE TABLE t (a int)", expect()),
    ("CREATE UNLOGGED TABLE t (a int)", expect()),
    # DO
    ("DO $$begin perform 1; end$$", expect()),
    ("DO $$begin update t set a = 1; insert into t values (1) on conflict do nothing; end$$", expect()),
    ("DO $$begin\n update t\n set a = 1; end$$", expect()),
    ("DO $$begin set app.tenant_id = 'x'; end$$", expect(P.UNINSPECTED, hides=H.BLOCK)),
    ("DO $$begin if a then/**/set x = 1; end if; end$$", expect(P.UNINSPECTED, hides=H.BLOCK)),
    ("DO $$begin if 1=1then set x = 1; end if; end$$", expect(P.UNINSPECTED, hides=H.BLOCK)),
    ("DO $$begin -- c\n set x = 1; end$$", expect(P.UNINSPECTED, hides=H.BLOCK)),
    ("DO $$begin <<a>> reset x; end$$", expect(P.UNINSPECTED, hides=H.BLOCK)),
    ("DO $$begin perform set_config('x', '1', false); end$$", expect(P.UNINSPECTED, hides=H.BLOCK)),
    ("DO 'begin execute ''x''; end'", expect(P.UNINSPECTED, hides=H.BLOCK)),
    ("DO $$begin create temp table t (); end$$", expect(P.UNINSPECTED)),
    ("DO $$begin listen x; end$$", expect(P.UNINSPECTED)),
    ("DO $$begin perform pg_advisory_lock(1); end$$", expect(P.UNINSPECTED)),
    ("DO LANGUAGE plpython3u $$x = 1$$", expect(P.UNINSPECTED, hides=H.FOREIGN_BLOCK)),
    # databases
    ("DROP DATABASE IF EXISTS d WITH (FORCE)", expect(drops_databases=("d",))),
    ("CREATE DATABASE d", expect(drops_databases=("template1",))),
    ("CREATE DATABASE d TEMPLATE DEFAULT", expect(drops_databases=("template1",))),
    ('CREATE DATABASE d WITH OWNER bob TEMPLATE = "Src"', expect(drops_databases=("Src",))),
    ("ALTER DATABASE d RENAME TO e", expect(drops_databases=("d",))),
    ("ALTER DATABASE d SET TABLESPACE s", expect(drops_databases=("d",))),
    ("ALTER DATABASE d CONNECTION LIMIT 3", expect()),
    ("ALTER TABLE t RENAME TO u", expect()),
    # several at once, as drivers send them
    (
        "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;",
        expect(unlistens=True, resets_all=True, statements=4),
    ),
]


@pytest.mark.parametrize(("sql", "verdict"), TABLE, ids=[sql for sql, _ in TABLE])
def test_verdict(sql, verdict):
    found = judge(sql)
    assert found == verdict
    assert inspect(sql.encode()) == verdict


@pytest.mark.parametrize(
    ("sql", "touches"),
    [
        ("SET app.tenant_id = 1", True),
        ("SET LOCAL APP.TENANT_ID = 1", True),
        ("RESET app.tenant_id", True),
        ("SELECT set_config('app.tenant_id', '1', true)", True),
        ("ALTER ROLE bob SET app.tenant_id = 'x'", True),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql SET app.tenant_id = 1 AS 'select 1'", True),
        ("PREPARE p AS SELECT set_config('app.tenant_id', $1, true)", True),
        ("SET app.tenant = 1", False),
        ("RESET ALL", False),
        ("SELECT current_setting('app.tenant_id') INTO TEMP t", False),
        # no parser takes these
        ("SET app . tenant_id = = 1", True),
        ("SET foo bar", False),
        ("SELECT tenant_id FRM app", False),
        ("SELECT tenant_id FRM t; SET ROLE app_reader", False),
        ('SET "app" . "tenant_id" = = 1', True),
        ("SET app/* x */.tenant_id = = 1", True),
        ("SET app -- x\n.tenant_id = = 1", True),
        ("SELECT current_setting('app.tenant_id') FRM t", False),
        ("ALTER FUNCTION f() COST 1SET app.tenant_id = 'x' SOMETHING NEW", True),
    ],
)
def test_touches_the_tenant(sql, touches):
    assert judge(sql).touches_tenant("App.Tenant_Id") is touches


@pytest.mark.parametrize(
    ("sql", "hides"),
    [
        ("CREATE TABLE (", False),
        ("SET x = = 1", False),
        ("SET x; SELECT 'unfinished", False),
        ("SELECT set_config('x', 'y', false) FRON t", True),
        ("CREATE TABLE (; ALTER ROLE bob SET search_path = a", True),
        ("CREATE TABLE (; ALTER /* */ DATABASE d SET search_path = a", True),
        ("CREATE TABLE (; ALTER TABLE t ADD role text", False),
        ('SET U&"x" y', True),
        ("DO $$begin end$$ SOMETHING NEW", True),
    ],
)
def test_what_the_parser_rejects_pins(sql, hides):
    found = judge(sql)
    assert found.pins == {P.UNINSPECTED}
    assert found.hides is (H.UNREADABLE if hides else None)
    assert found.statements == 0


def test_a_rejected_text_without_a_trigger_is_plain():
    assert judge("SELEC 1") is PLAIN


def test_large_texts_are_not_parsed(monkeypatch):
    monkeypatch.setattr(verdict_module.tree, "read", lambda text: pytest.fail("parsed"))
    found = Judge(10).judge(b"SET x = '" + b"y" * MAX_PARSE + b"'")
    assert found.pins == {P.UNINSPECTED}
    assert not found.touches_tenant("app.tenant_id")
    assert Judge(10).judge(b"SELECT '" + b"y" * MAX_PARSE + b"'") is PLAIN


def test_wide_texts_are_not_walked(monkeypatch):
    wide = b"SET x = 1; SELECT " + b",".join([b"1"] * 20_000)
    monkeypatch.setattr(verdict_module.tree, "_walk", lambda *_: pytest.fail("walked"))
    assert Judge(10).judge(wide).pins == {P.UNINSPECTED}
    monkeypatch.undo()
    body = b"CREATE FUNCTION f() RETURNS int LANGUAGE sql AS '" + b"select 1;\n" * 6_000 + b"'"
    assert Judge(10).judge(body).pins == frozenset()


@pytest.mark.parametrize(
    "deep",
    [
        "SELECT " + "+".join("1" * 30_000),
        "SELECT " + "(" * 20_000 + "1" + ")" * 20_000,
        "SELECT 1" + " union select 1" * 4_000,
        "SELECT 1" + "::int" * 12_000,
        "SELECT * FROM a" + " JOIN a ON true" * 4_000,
        "SELECT " + "case when a then " * 3_500,
        "SELECT " + "array[" * 5_000 + "]" * 5_000,
    ],
    ids=lambda sql: sql[:20],
)
def test_deep_nesting_is_a_verdict_and_not_a_crash(deep):
    text = f"SET x = 1; {deep}".encode()
    assert len(text) <= MAX_PARSE
    assert judge(text.decode()).pins == {P.UNINSPECTED}


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 'a\\'';SET x TO 1;--'",
        "SELECT N'a\\'';SET x TO 1;--'",
        "SELECT 'a'\n 'b\\'';SET x TO 1;--'",
        "SELECT $a$'$a$, E'\\'', \"'\", /* ' /* */ */ x'1', 'a\\'';SET x TO 1;--'",
    ],
)
def test_a_set_hidden_from_conforming_strings_is_seen(sql):
    assert "x" in judge(sql).sets
    assert judge(sql.replace("SET x TO", "LISTEN x; --")).pins >= {P.LISTEN}
    assert begins(sql.replace("SET x TO 1", "BEGIN").encode())


def test_a_backslash_at_the_end_of_a_string_is_no_offence():
    assert judge("SELECT set_config('app.path', 'C:\\', false), 'x'") == expect(sets=("app.path",))
    assert judge("SET x = E'\\''") == expect(sets=("x",))


def test_a_backslash_that_may_belong_to_a_character_is_doubtful():
    found = Judge(10).judge(b"SELECT E'\x83\\';SET x TO 1;--'")
    assert found.hides is H.QUOTING
    assert P.UNINSPECTED in found.pins
    assert not Judge(10).judge("SET x = 'é\\é'".encode()).hides


def test_names_in_another_encoding_come_back_as_they_were_sent():
    found = Judge(10).judge(b'DEALLOCATE "caf\xe9"')
    assert [n.encode("utf-8", "surrogateescape") for n in found.deallocates] == [b"caf\xe9"]
    assert judge('DEALLOCATE "café"').deallocates == ("café",)
    assert Judge(10).judge(b"SET app.tenant_id = 'caf\xe9'").sets == ("app.tenant_id",)


@pytest.mark.parametrize(
    ("sql", "is_begin"),
    [
        ("BEGIN", True),
        ("begin isolation level serializable", True),
        ("START TRANSACTION READ ONLY", True),
        ("SELECT 1; /* c */ BEGIN", True),
        ("SELECT 1; -- c\n start/**/transaction", True),
        ("BEGIN WORK NONSENSE", True),
        ("SELECT 1", False),
        ("COMMIT", False),
        ("INSERT INTO t VALUES ('x; begin')", False),
        ("SELECT begin FROM start", False),
        ("CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ begin perform 1; end $$", False),
        ("SELECT 1;\nBEGIN" + " " * MAX_PARSE, True),
    ],
)
def test_begins(sql, is_begin):
    assert begins(sql.encode()) is is_begin


# --- the cache ----------------------------------------------------------------------------------


def test_a_text_is_parsed_once(monkeypatch):
    seen = []
    real = verdict_module.inspect
    monkeypatch.setattr(verdict_module, "inspect", lambda text: seen.append(text) or real(text))
    judge = Judge(2)
    first = judge.judge(b"SET a = 1")
    assert judge.judge(b"SET a = 1") is first
    judge.judge(b"SET b = 1")
    judge.judge(b"SET a = 1")
    judge.judge(b"SET c = 1")  # b goes, a was used last
    judge.judge(b"SET a = 1")
    assert len(judge) == 2
    assert seen == [b"SET a = 1", b"SET b = 1", b"SET c = 1"]


def test_kept_texts_are_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(verdict_module, "MAX_KEPT_BYTES", 100)
    judge = Judge(1000)
    for i in range(50):
        judge.judge(b"SET a = %d" % i)
    assert len(judge) == 10
    judge.judge(b"SET a = '" + b"x" * MAX_KEPT + b"'")
    assert len(judge) == 10


# --- the search never misses what the tree says ---------------------------------------------------

_SPACES = st.sampled_from(
    ["", " ", "\n", "\t", "\r", "\f", "/**/", "/* x /* y */ */", "--\n", "-- ;\r", "  "]
)
_WORD_LIST = """
    set reset listen unlisten prepare load discard deallocate declare create alter drop do explain select
    insert update delete into temp temporary table view function role session local authorization all to
    default from values where cursor with hold for as begin commit database template set_config pg_catalog
    currval lastval setval
    pg_temp pg_advisory_lock pg_try_advisory_lock pg_settings setting query_to_xml ts_stat ts_rewrite setseed
    set_limit role user database alter
    true false on conflict nothing transaction characteristics read only x t a tenant_id app language plpgsql
"""
_ATOM_LIST = """
    ; , ( ) . = => || * + - 1 0.5 $1 $2 'x' 'app.tenant_id' 'set_config' E'\\x73et' U&'\\0061' "x"
    "set_config" U&"\\0073et_config" U&"!0070g_temp"uescape'!' u&"x" $$x$$ $a$;set$a$ '' ':' :: [ ] ; ; --
"""
_WORDS = st.sampled_from(_WORD_LIST.split())
_ATOMS = st.sampled_from(_ATOM_LIST.split())


@st.composite
def _respelled(draw: st.DrawFn) -> str:
    word = draw(_WORDS)
    how = draw(st.integers(0, 5))
    if how == 0:
        return word.upper()
    if how == 1:
        return word.title()
    if how == 2:
        return f'"{word}"'
    if how == 3:
        at = draw(st.integers(0, len(word) - 1))
        return f'U&"{word[:at]}\\{ord(word[at]):04x}{word[at + 1 :]}"'
    return word


_LOOSE = st.lists(st.tuples(st.one_of(_respelled(), _ATOMS), _SPACES), max_size=14).map(
    lambda parts: "".join(a + b for a, b in parts)
)


@st.composite
def _statements(draw: st.DrawFn) -> str:
    """Statements of the tables above, with every blank, word and joint written differently."""
    texts = [sql for sql, _ in TABLE] + PLAIN_TEXTS
    out = []
    for _ in range(draw(st.integers(1, 3))):
        out.append(draw(_SPACES))
        for char in draw(st.sampled_from(texts)):
            if char == " ":
                out.append(draw(_SPACES.filter(bool)))
            else:
                out.append(char.upper() if draw(st.booleans()) else char.lower())
        out.append(draw(_SPACES) + ";")
    return "".join(out)


@settings(max_examples=examples(300), deadline=None)
@given(st.one_of(_LOOSE, _statements()))
@example("SELECT U&\"\\0073et_config\"('x', $1, false)")
@example("select 1;--\rset x=1")
def test_the_search_never_calls_plain_what_the_tree_does_not(sql):
    text = sql.encode()
    if words.plain(text):
        by_tree = inspect(text)
        if not by_tree.unread:
            assert replace(by_tree, statements=0) == PLAIN
    if not words.may_begin(text):
        with_tree = inspect(text)
        assert with_tree.unread or not verdict_module.tree.begins(text)


def test_the_search_finds_what_the_tree_objects_to():
    """Texts that the tree objects to and that the search must therefore find."""
    for sql, expected in TABLE:
        if replace(expected, statements=0) != PLAIN:
            assert not words.plain(sql.encode()), sql


@settings(max_examples=examples(300), deadline=None)
@given(
    _LOOSE,
    st.sampled_from(["", "xSET ", "set", "se", ";", "u", "set_con"]),
    st.sampled_from(["", " x", "_", "t"]),
)
def test_a_text_within_others_is_looked_at_by_itself(sql, before, behind):
    start = len(before.encode())
    text, within = sql.encode(), (before + sql + behind).encode()
    surely = words.surely_plain(within, start, start + len(text))
    assert surely == words.surely_plain(text, 0, len(text))
    assert words.plain(text) or not surely


@settings(max_examples=examples(80), deadline=None)
@given(st.binary(max_size=60).map(lambda b: b.replace(b"\0", b"")), st.sampled_from([b"", b"SET ", b"DO "]))
def test_any_bytes_give_a_verdict(data, prefix):
    found = Judge(4).judge(prefix + data)
    assert isinstance(found, Verdict)
    assert isinstance(begins(prefix + data), bool)


def test_a_verdict_is_frozen_and_small():
    with pytest.raises(AttributeError):
        PLAIN.statements = 3
    assert not hasattr(PLAIN, "__dict__")
    assert {f.name for f in fields(Verdict)} >= {"pins", "sets", "resets", "hides", "drops_databases"}
