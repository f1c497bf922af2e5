"""What a text leaves behind on a real server is never more than its verdict says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import psycopg

from proxy.model import PinReason
from proxy.sql import calls
from proxy.sql.verdict import Judge, Verdict
from tests.sql.test_verdict import PLAIN_TEXTS, TABLE

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer

# Beside the table of the unit tests: what is written so that a reader could miss it.
MORE = [
    "SELECT 'a\\'';SET app.x TO 1;--'",
    "SET standard_conforming_strings = off",
    "SET work_mem = '1MB'; SELECT 1/0",
    "BEGIN; SET work_mem = '1MB'; ROLLBACK",
    "BEGIN; SET LOCAL work_mem = '1MB'; COMMIT",
    "BEGIN; CREATE TEMP TABLE t (a int) ON COMMIT DROP; COMMIT",
    "BEGIN; CREATE TEMP TABLE t (a int); COMMIT",
    "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT",
    "BEGIN; DECLARE c CURSOR FOR SELECT 1; COMMIT",
    "UPDATE pg_settings SET setting = '2MB' WHERE name = 'work_mem'",
    "SELECT query_to_xml('select set_config(''app.' || 'x'', ''1'', false)', true, false, '')",
    "SELECT * FROM ts_stat('select to_tsvector(set_' || 'config(''app.x'', ''1'', false))')",
    "DO $$begin execute 'se' || 't app.x = 1'; end$$",
    "DO $$begin perform pg_advisory_lock(3); end$$",
    "DO $$begin create temp table t (a int); end$$",
    "DO $$begin /* */set/**/app.x = 1; end$$",
    "DO $$begin --\n set app.x = 1; end$$",
    "DO $$begin if true then set app.x = 1; end if; end$$",
    "DO $$declare set int; begin set := 1; set session app.x = 1; end$$",
    "SET TIME ZONE 'Asia/Tokyo'",
    "SET NAMES 'latin1'",
    "SET DateStyle = 'German'",
    "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY",
    "SET search_path = pg_temp; CREATE TABLE t (a int)",
    "SELECT set_config('search_path', 'pg_temp', true); CREATE TABLE t (a int)",
    "SELECT 1 INTO TABLE pg_temp.t",
    "CREATE TABLE pg_temp.t AS SELECT 1",
    "CREATE VIEW pg_temp.v AS SELECT 1; CREATE VIEW v2 AS SELECT * FROM pg_temp.v",
    "EXPLAIN ANALYZE CREATE TEMP TABLE t AS SELECT 1",
    "WITH x AS (SELECT 1 a) SELECT a INTO TEMPORARY t FROM x",
    "PREPARE p AS SELECT 1; EXECUTE p",
    "LISTEN ch; UNLISTEN ch",
    "LISTEN ch; NOTIFY ch",
    "SELECT U&\"set\\005fconfig\"('app.x', '1', false)",
    "SELECT pg_try_advisory_lock(7); SELECT pg_advisory_unlock(7)",
    "SELECT pg_try_advisory_lock(7)",
    "SELECT pg_advisory_xact_lock(7)",
    "CREATE TABLE made (a text DEFAULT set_config('app.x', '1', false)); INSERT INTO made DEFAULT VALUES",
    "SET ROLE bob",
    "SET SESSION AUTHORIZATION bob",
]

OTHERS = {
    PinReason.SQL_PREPARE: "SELECT count(*) FROM pg_prepared_statements",
    PinReason.LISTEN: "SELECT count(*) FROM pg_listening_channels()",
    PinReason.ADVISORY_LOCK: "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    PinReason.HOLD_CURSOR: "SELECT count(*) FROM pg_cursors WHERE is_holdable",
    PinReason.TEMP_TABLE: """
        SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema())
             + (SELECT count(*) FROM pg_proc WHERE pronamespace = pg_my_temp_schema())
             + (SELECT count(*) FROM pg_type WHERE typnamespace = pg_my_temp_schema())""",
    PinReason.ROLE: "SELECT (session_user <> 'postgres')::int",
}
SETTINGS = """
    SELECT lower(name), setting FROM pg_settings WHERE name NOT LIKE 'transaction%'
    UNION ALL SELECT name, current_setting(name, true)
    FROM unnest(ARRAY['app.x', 'app.y', 'app.tenant_id', 'role']) name"""


def settings(connection: psycopg.Connection) -> dict[str, str]:
    return {name: value or "" for name, value in connection.execute(SETTINGS).fetchall()}


def left_behind(
    server: EmbeddedServer, text: str, at_first: dict[bool, dict[str, str]], *, escapes: bool
) -> tuple[set[str], set[PinReason]]:
    """The parameters that are not what they were, and what else is there that was not.

    With `escapes`, where standard_conforming_strings is off. `at_first` are the parameters of any new connection."""
    with psycopg.connect(
        host=server.host,
        port=server.port,
        user="postgres",
        dbname="postgres",
        autocommit=True,
        prepare_threshold=None,
    ) as connection:
        connection.execute("SET statement_timeout = '10s'")
        if escapes:
            connection.execute("SET standard_conforming_strings = off")
        before = at_first.get(escapes) or at_first.setdefault(escapes, settings(connection))
        connection.pgconn.exec_(text.encode())
        if connection.pgconn.transaction_status:
            if b"COPY" in text.encode():
                return set(), set()
            connection.pgconn.exec_(b"COMMIT")
        connection.pgconn.exec_(b"RESET client_encoding")
        after = settings(connection)
        connection.execute("SET search_path = pg_catalog")
        row = connection.execute(f"SELECT {', '.join(f'({count})' for count in OTHERS.values())}").fetchone()
        assert row is not None
        pins = {reason for reason, count in zip(OTHERS, row, strict=True) if count}
    return {name for name, value in before.items() if after.get(name, value) != value}, pins


def test_nothing_is_left_behind_that_the_verdict_does_not_tell(victim: EmbeddedServer) -> None:
    victim.sql("CREATE ROLE bob; CREATE TABLE t (a int); CREATE SCHEMA a")
    texts = [re.sub(r"\bx\b", "app.x", sql) for sql in [*(sql for sql, _ in TABLE), *PLAIN_TEXTS]] + MORE
    judge = Judge(1000)
    wrong: list[tuple[str, set[str], set[PinReason], Verdict]] = []
    seen: set[PinReason | str] = set()
    at_first: dict[bool, dict[str, str]] = {}
    for text in texts:
        sent = text.replace("$1", "'app.y'").replace("$2", "'false'")
        if re.search(r"\b(ALTER SYSTEM|DISCARD|RESET|COPY)\b", sent):
            continue
        names, pins = left_behind(victim, sent, at_first, escapes="\\'" in sent)
        seen |= names | pins
        verdict = judge.judge(text.encode())
        told = set(verdict.sets) | set(verdict.resets)
        names_told = names <= told or verdict.hides is not None
        carried = {PinReason.SQL_PREPARE} if verdict.prepares else set()
        pins_told = pins - carried <= verdict.pins or PinReason.UNINSPECTED in verdict.pins
        kept = not names or bool(verdict.pins or verdict.bound_names) or names <= told
        if not (names_told and pins_told and kept):
            wrong.append((text, names, pins, verdict))
    for w in wrong:
        print(w)
    assert wrong == []
    # The check would be worth nothing if little was left behind at all.
    assert seen >= {
        *OTHERS,
        "role",
        "app.x",
        "app.tenant_id",
        "search_path",
        "work_mem",
        "timezone",
        "datestyle",
    }


def test_functions_have_the_oids_that_are_known(shared: EmbeddedServer) -> None:
    known = shared.sql(
        """SELECT oid::int FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND proname ~
        '^(pg_(try_)?advisory_lock(_shared)?|setseed|currval|lastval|setval|pg_backup_start|query_to_xml.*|ts_stat|ts_rewrite)$'
        AND prosrc <> 'tsquery_rewrite'"""
    )
    assert {oid for (oid,) in known} == set(calls._VERDICTS)
    assert shared.sql("SELECT 'set_config(text,text,boolean)'::regprocedure::oid::int") == [
        (calls._SET_CONFIG,)
    ]
