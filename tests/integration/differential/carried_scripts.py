"""Scripts of what follows a session from connection to connection, and of pins that end: each step is a transaction of
its own and meets another connection, which a session that was still pinned would keep from the others."""

from __future__ import annotations

from tests.integration.differential.script import Script, step
from tests.integration.differential.simple_scripts import simple
from tests.rawclient import SYNC, ask, bind, describe, execute, function_call, parse, query

OWN = (
    "work_mem",
    "statement_timeout",
    "enable_seqscan",
    "search_path",
    "default_transaction_isolation",
    "role",
)
SET_CONFIG = 2078
ALL = "SELECT current_user, " + ", ".join(f"current_setting('{name}')" for name in OWN)
LEFT = (
    "SELECT (SELECT count(*) FROM pg_listening_channels()),"
    " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),"
    " (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()),"
    " (SELECT count(*) FROM pg_cursors)"
)


def every(name: str, *texts: str, **more: object) -> Script:
    """Behind each of the texts, what the parameters are."""
    return simple(name, *(each for text in texts for each in (text, ALL)), apart=True, **more)


def set_extended(name: str, value: str | None) -> bytes:
    return ask("SELECT set_config($1, $2, false)", [name, value])


SCRIPTS = (
    every(
        "carried_parameters",
        "SET work_mem = '5MB'",
        "SET work_mem TO '6 MB'; SET statement_timeout = 4000",
        "SET enable_seqscan = off",
        "SET work_mem = DEFAULT",
        "SET search_path = pg_catalog, public",
        "RESET statement_timeout",
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SHOW transaction_isolation",
        "RESET ALL",
        "SET work_mem = '5MB'",
        "DISCARD ALL",
    ),
    every(
        "carried_or_rolled_back",
        "BEGIN; SET work_mem = '6MB'; ROLLBACK",
        "BEGIN; SET work_mem = '6MB'; COMMIT",
        "BEGIN; SET work_mem = '7MB'; SAVEPOINT a; SET work_mem = '8MB'; SET enable_seqscan = off; ROLLBACK TO a; COMMIT",
        "BEGIN; SAVEPOINT a; SET work_mem = '8MB'; RELEASE a; COMMIT",
        "BEGIN; RESET work_mem; ROLLBACK",
        "BEGIN; RESET ALL; ROLLBACK",
        "BEGIN; SET LOCAL work_mem = '9MB'; SET work_mem = '10MB'; COMMIT",
        "BEGIN; SET work_mem = '11MB'; SET LOCAL work_mem = '12MB'; COMMIT",
        "SET work_mem = '13MB'; SELECT 1 / 0",
        "SET work_mem = 'nonsense'",
        "SET enable_seqscan = off; COMMIT; SELECT 1 / 0",
        "RESET work_mem; SELECT 1 / 0",
        "BEGIN; RESET work_mem; SET work_mem = '14MB'; COMMIT",
        "BEGIN; SET work_mem = '15MB'; RESET work_mem; COMMIT",
        "SET LOCAL work_mem = '16MB'",
    ),
    simple(
        "carried_placeholders",
        "SET own.first = 'one'",
        "SHOW own.first",
        "RESET own.first",
        "SHOW own.first",
        "BEGIN; SET own.second = 'two'; ROLLBACK",
        "SHOW own.second",
        "SELECT set_config('own.third', 'it''s; \\ three', false)",
        "SHOW own.third",
        "SELECT set_config('own.third', NULL, false)",
        "SHOW own.third",
        "SELECT set_config('own.fourth', repeat('x', 20000), false) IS NULL",
        "SELECT length(current_setting('own.fourth'))",
        "RESET ALL",
        "SHOW own.fourth",
        apart=True,
    ),
    every(
        "carried_role",
        "SET ROLE app_reader",
        "SET work_mem = '5MB'",
        "SET ROLE no_login",
        "RESET ALL",
        "RESET ROLE",
        "BEGIN; SET ROLE app_reader; ROLLBACK",
        "BEGIN; SET ROLE app_reader; SET work_mem = '6MB'; COMMIT",
        "SET ROLE NONE",
        "SELECT set_config('role', 'app_reader', false)",
        "SELECT set_config('role', NULL, false)",
        "SET ROLE app_reader",
        "DISCARD ALL",
    ),
    Script(
        "carried_extended",
        (
            step(ask("SET work_mem = '5MB'"), SYNC),
            step(ask(ALL), SYNC),
            step(parse("SET work_mem = '6MB'", "s"), SYNC),
            step(ask(ALL), SYNC),
            step(bind(name="s"), SYNC),
            step(ask(ALL), SYNC),
            step(bind(name="s"), execute(), SYNC),
            step(ask(ALL), SYNC),
            step(set_extended("work_mem", "7MB"), SYNC),
            step(ask(ALL), SYNC),
            step(set_extended("enable_seqscan", "off"), ask("SELECT 1 / 0"), SYNC),
            step(ask(ALL), SYNC),
            step(parse("SELECT set_config($2, $1, $3)", "f"), describe("S", "f"), SYNC),
            step(bind(["8MB", "Work_Mem", "false"], name="f"), execute(), SYNC),
            step(ask(ALL), SYNC),
            step(bind(["9MB", "work_mem", "true"], name="f"), execute(), SYNC),
            step(ask(ALL), SYNC),
            step(bind(["9MB", None, "true"], name="f"), execute(), SYNC),
            step(bind([None, "work_mem", "false"], name="f"), execute(), SYNC),
            step(ask(ALL), SYNC),
            step(
                set_extended("transaction_isolation", "serializable"), ask("SHOW transaction_isolation"), SYNC
            ),
            step(ask("SHOW transaction_isolation"), SYNC),
            step(set_extended("search_path", "pg_catalog"), SYNC),
            step(ask(ALL), SYNC),
            step(ask("BEGIN"), ask("SET work_mem = '3MB'"), SYNC, ask("ROLLBACK"), SYNC, ready=2),
            step(ask(ALL), SYNC),
            step(ask("SET work_mem = '3MB'"), SYNC, ask(ALL), SYNC, ask("RESET work_mem"), SYNC, ready=3),
            step(ask(ALL), SYNC),
            step(function_call(SET_CONFIG, b"work_mem", b"4MB", b"f")),
            step(ask(ALL), SYNC),
        ),
        apart=True,
    ),
    Script(
        "carried_over_startup_values",
        (
            step(query(ALL)),
            step(query("SET work_mem = '9MB'")),
            step(query(ALL)),
            step(query("BEGIN; SET work_mem = '10MB'; SET statement_timeout = '9s'; ROLLBACK")),
            step(query(ALL)),
            step(query("RESET work_mem")),
            step(query(ALL)),
            step(query("SET work_mem = '9MB'")),
            step(query("SET ROLE NONE")),
            step(query("RESET ALL")),
            step(query(ALL)),
            step(query("DISCARD ALL")),
            step(query(ALL)),
        ),
        parameters={"options": "-c work_mem=8MB -c statement_timeout=8s -c role=app_reader"},
        apart=True,
    ),
    simple(
        "pins_that_end_in_their_transaction",
        "LISTEN heard; UNLISTEN heard",
        "BEGIN; LISTEN heard; ROLLBACK",
        LEFT,
        "SELECT pg_advisory_lock(5); SELECT pg_advisory_unlock(5)",
        LEFT,
        "CREATE TEMP TABLE mine (n int); DROP TABLE mine",
        LEFT,
        "CREATE TEMP TABLE mine (n int); SELECT 1 / 0",
        LEFT,
        "CREATE TEMP TABLE mine AS SELECT 1; DISCARD TEMP",
        "CREATE TEMP TABLE mine AS SELECT 1 AS n; CREATE TEMP VIEW seen AS TABLE mine; DROP TABLE mine CASCADE",
        LEFT,
        "BEGIN; DECLARE held CURSOR WITH HOLD FOR SELECT 1; COMMIT; CLOSE held",
        "BEGIN; DECLARE held CURSOR WITH HOLD FOR SELECT 1; ROLLBACK",
        LEFT,
        "SET SESSION AUTHORIZATION app; SET SESSION AUTHORIZATION DEFAULT",
        "SELECT session_user, current_user",
        apart=True,
    ),
    Script(
        "pins_that_end_in_their_batch",
        (
            step(
                ask("SELECT pg_advisory_lock($1)", ["5"]),
                SYNC,
                ask("SELECT pg_advisory_unlock_all()"),
                SYNC,
                ready=2,
            ),
            step(ask(LEFT), SYNC),
            step(ask("CREATE TEMP TABLE mine (n int)"), SYNC, ask("DROP TABLE mine"), SYNC, ready=2),
            step(ask(LEFT), SYNC),
            step(ask("LISTEN heard"), SYNC, ask("NOTIFY heard"), SYNC, ask("UNLISTEN *"), SYNC, ready=3),
            step(ask(LEFT), SYNC),
        ),
        apart=True,
    ),
)
