"""Scripts of the simple query protocol: statements, transactions, cursors, notices, sizes."""

from __future__ import annotations

from tests.integration.differential.script import Script, step, to_eof
from tests.rawclient import COPY_DONE, copy_data, copy_fail, frame, function_call, query


def simple(name: str, *texts: str | bytes, **more: object) -> Script:
    """A script of simple queries, each awaited."""
    return Script(name, tuple(step(query(text)) for text in texts), **more)  # type: ignore[arg-type]


SCRIPTS = (
    simple("one_row", "SELECT 1 AS one, 'two' AS two, NULL AS three"),
    simple("empty_queries", "", ";", "-- only a comment", "  \n ", "/* ; */;;"),
    simple(
        "many_statements",
        "SELECT 1; SELECT 2, 3; SELECT id, name FROM items WHERE id < 4 ORDER BY id; SELECT 'end'",
    ),
    simple("error_in_the_middle", "SELECT 1; SELECT 1 / 0; SELECT 3", "SELECT 4"),
    simple(
        "errors_of_many_kinds",
        "SELEC 1",
        "SELECT * FROM no_such_table",
        "SELECT no_such_column FROM items",
        "SELECT 'a'::int",
        "INSERT INTO items VALUES (1, 'twice', 1)",
        "SELECT complain('exception', 'on purpose')",
        "SELECT ''' AND 1 = 1",
        "CREATE DATABASE appdb",
        "SELECT 1",
    ),
    simple("bytes_that_are_no_utf8", b"SELECT '\xff\xfe'", b"SELECT '\xc3\xa9\xe2\x82\xac'", "SELECT 1"),
    simple("no_columns_and_no_rows", "SELECT", "SELECT FROM items LIMIT 3", "SELECT 1 WHERE false"),
    simple(
        "tags",
        "CREATE TEMP TABLE tags (n int)",
        "INSERT INTO tags SELECT generate_series(1, 7)",
        "UPDATE tags SET n = n + 1 WHERE n > 3",
        "DELETE FROM tags WHERE n = 1 RETURNING n",
        "TRUNCATE tags",
        "SELECT count(*) FROM tags",
        "DROP TABLE tags",
    ),
    simple(
        "twenty_thousand_rows", "SELECT g, repeat('x', 100) FROM generate_series(1, 20000) g", chunked=False
    ),
    simple("wide_row", "SELECT " + ", ".join(f"{n} AS c{n}" for n in range(1600))),
    simple("five_megabytes_in_a_cell", "SELECT repeat('0123456789', 500000)"),
    simple(
        "five_megabytes_of_text",
        "SELECT length('" + "y" * 5_000_000 + "')",
        "SELECT 'after'",
        chunked=False,
    ),
    simple("many_small_queries", *(f"SELECT {n}" for n in range(100)), chunked=False),
    Script(
        "queries_in_one_write",
        (
            step(*(query(f"SELECT {n}") for n in range(50)), ready=50),
            step(query("SELECT 1 / 0"), query(""), query("SELECT 1; SELECT 2"), ready=3),
        ),
    ),
    # --- transactions
    simple(
        "commit",
        "BEGIN",
        "INSERT INTO notes VALUES (1, 'a')",
        "COMMIT",
        "TABLE notes",
        setup="TRUNCATE notes",
    ),
    simple(
        "rollback",
        "BEGIN",
        "INSERT INTO notes VALUES (1, 'a')",
        "ROLLBACK",
        "TABLE notes",
        setup="TRUNCATE notes",
    ),
    simple(
        "failed_transaction",
        "BEGIN",
        "SELECT 1 / 0",
        "SELECT 1",
        "SAVEPOINT a",
        "SHOW work_mem",
        "COMMIT",
        "SELECT 2",
    ),
    simple(
        "savepoints",
        "BEGIN; INSERT INTO notes VALUES (1, 'kept'); SAVEPOINT a",
        "INSERT INTO notes VALUES (2, 'gone'); SELECT 1 / 0",
        "ROLLBACK TO a",
        "SAVEPOINT b; INSERT INTO notes VALUES (3, 'kept too'); RELEASE b",
        "RELEASE nothing",
        "ROLLBACK TO a",
        "COMMIT",
        "SELECT * FROM notes ORDER BY id",
        setup="TRUNCATE notes",
    ),
    simple(
        "transaction_words",
        "COMMIT",
        "ROLLBACK",
        "BEGIN; BEGIN",
        "START TRANSACTION",
        "COMMIT AND CHAIN",
        "ROLLBACK AND CHAIN",
        "END",
        "ABORT",
        "SAVEPOINT outside",
    ),
    simple(
        "transactions_within_one_query",
        "SELECT 1; BEGIN; SELECT 2; COMMIT; SELECT 3",
        "BEGIN; SELECT 1",
        "COMMIT; BEGIN; SELECT 2",
        "ROLLBACK; SELECT 1 / 0; SELECT 2",
        "SELECT 1; COMMIT; SELECT 2",
        "BEGIN; SELECT 1 / 0; COMMIT",
        "SELECT 3",
        "ROLLBACK",
    ),
    simple(
        "isolation",
        "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY",
        "SHOW transaction_isolation",
        "INSERT INTO notes VALUES (1, 'no')",
        "ROLLBACK",
        "BEGIN",
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "SELECT 1",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "COMMIT",
        "SHOW transaction_isolation",
    ),
    simple(
        "deferred_error_at_commit",
        "CREATE TEMP TABLE late (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)",
        "BEGIN; INSERT INTO late VALUES (1), (1)",
        "COMMIT",
        "TABLE late",
    ),
    simple(
        "two_phase_commit",
        "BEGIN",
        "INSERT INTO notes VALUES (1, 'two phases')",
        "PREPARE TRANSACTION 'differential'",
        "TABLE notes",
        "COMMIT PREPARED 'differential'",
        "TABLE notes",
        "COMMIT PREPARED 'differential'",
        "BEGIN; INSERT INTO notes VALUES (2, 'no'); PREPARE TRANSACTION 'differential'",
        "ROLLBACK PREPARED 'differential'",
        "TABLE notes",
        setup="TRUNCATE notes",
    ),
    simple(
        "procedure_that_commits",
        "CALL commit_between()",
        "TABLE notes",
        "BEGIN",
        "CALL commit_between()",
        "ROLLBACK",
        setup="TRUNCATE notes",
    ),
    # --- cursors
    simple(
        "cursor",
        "BEGIN",
        "DECLARE c CURSOR FOR SELECT id FROM items ORDER BY id",
        "FETCH 3 FROM c",
        "MOVE 10 IN c",
        "FETCH c",
        "FETCH BACKWARD 2 FROM c",
        "CLOSE c",
        "FETCH c",
        "ROLLBACK",
        "DECLARE outside CURSOR FOR SELECT 1",
    ),
    simple(
        "cursor_with_hold",
        "DECLARE held CURSOR WITH HOLD FOR SELECT id FROM items ORDER BY id",
        "FETCH 2 FROM held",
        "BEGIN; FETCH 2 FROM held; COMMIT",
        "FETCH 2 FROM held",
        "CLOSE held",
        "FETCH held",
    ),
    # --- notices
    simple(
        "notices",
        "SELECT complain('notice', 'one')",
        "DO $$ BEGIN RAISE NOTICE 'two'; RAISE WARNING 'three' USING ERRCODE = '01234'; END $$",
        "SET client_min_messages = error",
        "SELECT complain('notice', 'unheard')",
        "RESET client_min_messages",
        "SELECT complain('warning', 'four'); SELECT complain('exception', 'five')",
        "DROP TABLE IF EXISTS no_such_table",
        "SELECT complain('notice', g::text) FROM generate_series(1, 50) g",
    ),
    # --- COPY
    Script(
        "copy_in",
        (
            step(query("COPY notes FROM STDIN"), until="G"),
            step(copy_data(b"1\tone\n2\tt"), copy_data(b"wo\n"), copy_data(b"3\t\\N\n"), COPY_DONE),
            step(query("SELECT * FROM notes ORDER BY id")),
        ),
        setup="TRUNCATE notes",
    ),
    Script(
        "copy_in_of_nothing",
        (step(query("COPY notes FROM STDIN"), until="G"), step(COPY_DONE), step(query("TABLE notes"))),
        setup="TRUNCATE notes",
    ),
    Script(
        "copy_in_without_waiting",
        (
            step(
                query("COPY notes FROM STDIN (FORMAT csv)"),
                copy_data(b"1,one\n"),
                COPY_DONE,
                query("SELECT count(*) FROM notes"),
                ready=2,
            ),
        ),
        setup="TRUNCATE notes",
    ),
    Script(
        "copy_in_large",
        (
            step(query("COPY notes FROM STDIN"), until="G"),
            step(*(copy_data(b"%d\t%s\n" % (n, b"z" * 500)) for n in range(10_000)), COPY_DONE),
            step(query("SELECT count(*), sum(length(note)) FROM notes")),
        ),
        setup="TRUNCATE notes",
        chunked=False,
    ),
    Script(
        "copy_fail",
        (
            step(query("COPY notes FROM STDIN"), until="G"),
            step(copy_data(b"1\tone\n"), copy_fail("the client changed its mind")),
            step(query("SELECT count(*) FROM notes")),
        ),
        setup="TRUNCATE notes",
    ),
    Script(
        "copy_in_error",
        (
            step(query("COPY notes FROM STDIN"), until="G"),
            step(copy_data(b"not a number\tone\n"), copy_data(b"2\ttwo\n"), COPY_DONE),
            step(query("SELECT count(*) FROM notes")),
        ),
        setup="TRUNCATE notes",
    ),
    Script(
        "copy_in_error_in_a_transaction",
        (
            step(query("BEGIN")),
            step(query("COPY notes FROM STDIN"), until="G"),
            step(copy_data(b"1\n"), *(copy_data(b"2\ttwo\n") for _ in range(200)), COPY_DONE),
            step(query("SELECT 1")),
            step(query("ROLLBACK")),
        ),
    ),
    Script(
        "query_during_copy_in",
        (
            step(query("COPY notes FROM STDIN"), until="G"),
            step(copy_data(b"1\tone\n"), query("SELECT 1")),
            step(query("SELECT 2")),
        ),
        setup="TRUNCATE notes",
    ),
    Script(
        "sync_and_flush_during_copy_in",
        (
            step(query("COPY notes FROM STDIN"), until="G"),
            step(frame("S"), frame("H"), copy_data(b"1\tone\n"), frame("S"), COPY_DONE),
            step(query("TABLE notes")),
        ),
        setup="TRUNCATE notes",
    ),
    Script(
        "two_copies_in_one_query",
        (
            step(query("COPY notes FROM STDIN; SELECT 1; COPY notes FROM STDIN"), until="G"),
            step(copy_data(b"1\tone\n"), COPY_DONE, until="G"),
            step(copy_data(b"2\ttwo\n"), COPY_DONE),
            step(query("SELECT * FROM notes ORDER BY id")),
        ),
        setup="TRUNCATE notes",
    ),
    simple(
        "copy_out",
        "COPY (SELECT id, name FROM items ORDER BY id) TO STDOUT",
        "COPY items TO STDOUT (FORMAT csv, HEADER)",
        "COPY (SELECT id FROM items ORDER BY id LIMIT 3) TO STDOUT (FORMAT binary)",
        "COPY (SELECT 10 / (5 - g) FROM generate_series(1, 9) g) TO STDOUT",
        "COPY no_such_table TO STDOUT",
        "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 3000)) TO STDOUT",
        "SELECT 1",
    ),
    Script(
        "stray_copy_frames",
        (
            step(copy_data(b"1\tone\n"), COPY_DONE, copy_fail("why"), query("SELECT 1")),
            step(query("SELECT 2")),
        ),
    ),
    # --- function calls
    Script(
        "function_call",
        (
            step(function_call(871, b"shout")),  # upper(text)
            step(function_call(177, b"2", b"40")),  # int4pl(int4, int4)
            step(function_call(177, b"\0\0\0\2", b"\0\0\0\50", argument_format=1, result_format=1)),
            step(function_call(871, None)),
            step(function_call(1, b"no such function")),
            step(function_call(177, b"two", b"40")),
            step(query("BEGIN")),
            step(function_call(871, b"inside")),
            step(function_call(177, b"x", b"y")),
            step(function_call(871, b"failed")),
            step(query("ROLLBACK")),
            step(function_call(871, b"a"), query("SELECT 1"), function_call(871, b"b"), ready=3),
        ),
    ),
    simple(
        "large_objects",
        "BEGIN; SELECT lo_create(990001)",
        "SELECT lo_open(990001, x'60000'::int)",
        "SELECT lowrite(0, 'large object')",
        "SELECT lo_lseek(0, 6, 0); SELECT loread(0, 6)",
        "SELECT lo_close(0); COMMIT",
        "SELECT lo_get(990001)",
        "SELECT lo_unlink(990001)",
        "SELECT lo_unlink(990001)",
        setup="SELECT lo_unlink(oid) FROM pg_largeobject_metadata WHERE oid = 990001",
    ),
    # --- the server's own word
    Script("terminated_by_itself", (to_eof(query("SELECT pg_terminate_backend(pg_backend_pid())")),)),
    Script(
        "idle_in_transaction_by_the_server",
        (step(query("BEGIN; SET LOCAL idle_in_transaction_session_timeout = '100ms'")), to_eof()),
    ),
    simple(
        "statement_timeout",
        "SET statement_timeout = '50ms'",
        "SELECT pg_sleep(10)",
        "SELECT 1",
        "BEGIN",
        "SELECT pg_sleep(10)",
        "SELECT 1",
        "ROLLBACK",
        "RESET statement_timeout",
        "SELECT 2",
    ),
    simple("canceled_by_itself", "SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(10)", "SELECT 1"),
    Script("terminate_after_query", (to_eof(query("SELECT 1"), frame("X")),)),
    Script("terminate_in_transaction", (step(query("BEGIN")), to_eof(frame("X")))),
    # The proxy reads the type before PostgreSQL would.
    Script("unknown_message_type", (step(query("SELECT 1")), to_eof(frame("\x01"))), own_words=True),
    Script(
        "unknown_message_type_in_transaction",
        (step(query("BEGIN")), to_eof(frame("y", b"garbage"))),
        own_words=True,
    ),
)
