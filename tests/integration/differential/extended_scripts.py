"""Scripts of the extended query protocol: portals, pipelines and their errors, sizes, COPY."""

from __future__ import annotations

from tests.integration.differential.script import Script, Step, step, to_eof
from tests.rawclient import (
    COPY_DONE,
    FLUSH,
    SYNC,
    TERMINATE,
    ask,
    bind,
    close,
    copy_data,
    copy_fail,
    describe,
    execute,
    frame,
    function_call,
    parse,
    query,
)

TEXT, INT4, INT8 = 25, 23, 20

SCRIPTS = (
    Script(
        "parse_bind_describe_execute",
        (
            step(parse("SELECT $1::int + 1 AS next, $2::text AS said"), SYNC),
            step(describe("S"), SYNC),
            step(bind(["41", "hello"]), describe("P"), execute(), SYNC),
            step(bind([None, None]), execute(), SYNC),
            step(bind(["not a number", "x"]), execute(), SYNC),
            step(bind(["1"]), execute(), SYNC),
            step(bind(["1", "after"]), execute(), SYNC),
        ),
    ),
    Script(
        "binary_values",
        (
            step(parse("SELECT $1 + 1, $2 || '!'", "bin", [INT4, TEXT]), describe("S", "bin"), SYNC),
            step(
                bind([b"\0\0\0\x29", b"raw"], name="bin", formats=[1, 0], results=[1, 0]),
                describe("P"),
                execute(),
                SYNC,
            ),
            step(bind([b"\0\0\0\x29", b"raw"], name="bin", formats=[1], results=[1]), execute(), SYNC),
            step(bind([b"\0\0", b"raw"], name="bin", formats=[1, 0]), execute(), SYNC),
        ),
    ),
    Script(
        "empty_statement", (step(ask(""), SYNC), step(parse("-- nothing", "e"), describe("S", "e"), SYNC))
    ),
    Script(
        "no_result_rows",
        (
            step(ask("CREATE TEMP TABLE x (n int)"), SYNC),
            step(ask("INSERT INTO x VALUES ($1), ($2)", ["1", "2"]), SYNC),
            step(ask("SELECT n FROM x WHERE n > $1", ["10"]), SYNC),
            step(ask("DELETE FROM x RETURNING n"), SYNC),
            step(ask("DROP TABLE x"), SYNC),
        ),
    ),
    Script(
        "row_limits",
        (
            step(query("BEGIN")),
            step(parse("SELECT id FROM items ORDER BY id"), bind(portal="p"), execute("p", 3), SYNC),
            step(execute("p", 2), SYNC),
            step(execute("p", 2), execute("p", 1), execute("p", 4), SYNC),
            step(execute("p"), SYNC),
            step(execute("p"), SYNC),
            step(close("P", "p"), SYNC),
            step(execute("p"), SYNC),
            step(query("ROLLBACK")),
        ),
    ),
    Script(
        "portal_ends_with_the_transaction",
        (
            step(parse("SELECT id FROM items ORDER BY id"), bind(portal="p"), execute("p", 3), SYNC),
            step(execute("p", 3), SYNC),
            step(bind(), execute(rows=3), SYNC),
            step(execute(rows=3), SYNC),
        ),
    ),
    Script(
        "suspended_within_one_batch",
        (
            step(
                parse("SELECT g FROM generate_series(1, 5) g"),
                bind(),
                execute(rows=2),
                execute(rows=2),
                execute(rows=2),
                execute(rows=2),
                SYNC,
            ),
        ),
    ),
    Script(
        "portals",
        (
            step(describe("P", "nowhere"), SYNC),
            step(execute("nowhere"), SYNC),
            step(close("P", "nowhere"), SYNC),
            step(query("BEGIN")),
            step(parse("SELECT $1::text", "s"), SYNC),
            step(bind(["a"], name="s", portal="a"), bind(["b"], name="s", portal="b"), SYNC),
            step(execute("b"), execute("a"), describe("P", "a"), SYNC),
            step(bind(["c"], name="s", portal="a"), SYNC),
            step(query("ROLLBACK")),
        ),
    ),
    Script(
        "flush_without_sync",
        (
            step(parse("SELECT $1::int"), FLUSH, until="1"),
            step(describe("S"), FLUSH, until="T"),
            step(bind(["1"]), FLUSH, until="2"),
            step(execute(), FLUSH, until="C"),
            step(SYNC),
            step(parse("SELECT 1 / $1::int"), bind(["0"]), execute(), FLUSH, until="E"),
            Step(ask("SELECT 'skipped'"), 0),
            step(SYNC),
            step(SYNC),
        ),
    ),
    Script(
        "bodies_where_there_are_none",
        (
            step(frame("S", b"x")),
            step(ask("SELECT 1"), frame("S", b"x")),
            step(query("BEGIN")),
            step(frame("S", b"x")),
            step(ask("SELECT 'not run'"), SYNC),
            step(query("ROLLBACK")),
            step(frame("H", b"x"), until="E"),
            Step(ask("SELECT 'skipped'"), 0),
            step(SYNC),
            step(frame("H", b"x"), ask("SELECT 'skipped'"), SYNC),
            step(ask("SELECT 2"), frame("H", b"xyz"), ask("SELECT 'skipped'"), frame("H", b"x"), SYNC),
            step(ask("SELECT 1 / 0"), frame("H", b"x"), frame("S", b"x")),
            step(parse("SELECT 3", "s"), frame("H", b"x"), close("S", "s"), SYNC),
            step(bind(name="s"), execute(), SYNC),
            step(frame("c", b"x"), SYNC),
            step(query("CREATE TEMP TABLE x (n int)")),
            step(parse("COPY x FROM STDIN"), bind(), execute(), FLUSH, until="G"),
            step(copy_data(b"1\n"), frame("H", b"x"), frame("S", b"x"), frame("c", b"x"), SYNC),
            step(ask("SELECT n FROM x"), SYNC),
            step(query("DROP TABLE x")),
            to_eof(frame("X", b"x")),
        ),
    ),
    Script("syncs_alone", (step(SYNC), step(SYNC, SYNC, SYNC, ready=3), step(FLUSH, SYNC))),
    Script(
        "many_syncs_in_one_write",
        (
            step(*(ask(f"SELECT {n}, $1::text", [f"v{n}"]) + SYNC for n in range(30)), ready=30),
            step(
                ask("SELECT 1"),
                SYNC,
                ask("SELECT 1 / 0"),
                SYNC,
                ask("SELECT 2"),
                SYNC,
                ask("SELEC"),
                SYNC,
                query("SELECT 3"),
                ask("SELECT 4"),
                SYNC,
                ready=6,
            ),
        ),
    ),
    Script(
        "error_skips_to_sync",
        (
            step(ask("SELECT 1"), ask("SELECT 1 / 0"), ask("SELECT 2"), describe("S", "no"), SYNC),
            step(ask("SELECT 3"), SYNC),
            step(
                parse("SELEC"),
                bind(),
                describe("P"),
                execute(),
                close("S"),
                SYNC,
                ask("SELECT 4"),
                SYNC,
                ready=2,
            ),
        ),
    ),
    Script(
        "query_is_skipped_after_an_error",
        (
            step(
                ask("SELECT 1 / 0"),
                query("SELECT 'skipped'"),
                function_call(871, b"skipped"),
                ask("SELECT 1"),
                SYNC,
            ),
            step(query("SELECT 'heard'")),
        ),
    ),
    # PostgreSQL is confused after a Sync that follows a Query like this (XX000), so nothing comes after.
    Script(
        "query_after_an_execute",
        (step(parse("SELECT 1"), bind(), execute(), query("SELECT 2"), SYNC, ready=2),),
    ),
    Script(
        "query_between_parse_and_bind",
        (step(parse("SELECT 3", "s"), query("SELECT 4"), bind(name="s"), execute(), SYNC, ready=2),),
    ),
    Script(
        "failing_query_after_an_execute",
        (step(parse("SELECT 1"), bind(), execute(), query("SELECT 1 / 0"), SYNC, ready=2),),
    ),
    Script(
        "implicit_transaction_of_a_batch",
        (
            step(ask("INSERT INTO notes VALUES (1, 'one')"), ask("SELECT 1 / 0"), SYNC),
            step(query("SELECT count(*) FROM notes")),
            step(
                ask("INSERT INTO notes VALUES (2, 'two')"), ask("INSERT INTO notes VALUES (3, 'three')"), SYNC
            ),
            step(query("SELECT count(*) FROM notes")),
        ),
        setup="TRUNCATE notes",
    ),
    Script(
        "transaction_in_one_batch",
        (
            step(ask("BEGIN"), ask("INSERT INTO notes VALUES (1, 'one')"), ask("COMMIT"), SYNC),
            step(
                ask("BEGIN"), ask("SELECT 1 / 0"), SYNC, ask("SELECT 1"), SYNC, ask("ROLLBACK"), SYNC, ready=3
            ),
            step(
                ask("BEGIN"),
                SYNC,
                ask("INSERT INTO notes VALUES (2, 'two')"),
                SYNC,
                ask("COMMIT"),
                SYNC,
                ready=3,
            ),
            step(ask("BEGIN"), ask("SELECT 1 / 0"), ask("ROLLBACK"), SYNC),
            step(ask("SAVEPOINT a"), SYNC, ask("ROLLBACK"), SYNC, ready=2),
            step(query("SELECT * FROM notes ORDER BY id")),
        ),
        setup="TRUNCATE notes",
    ),
    # --- sizes
    Script(
        "five_megabytes_as_a_value",
        (
            step(ask("SELECT length($1), md5($1)", ["m" * 5_000_000]), SYNC),
            step(ask("SELECT $1::text", ["n" * 5_000_000]), SYNC),
            step(ask("SELECT 'after'"), SYNC),
        ),
        chunked=False,
    ),
    Script(
        "two_megabytes_of_statement",
        (
            step(ask("SELECT length('" + "k" * 2_000_000 + "')"), SYNC),
            step(parse("SELECT length('" + "l" * 2_000_000 + "')", "large"), SYNC),
            step(bind(name="large"), execute(), SYNC),
            step(ask("SELECT 'after'"), SYNC),
        ),
        chunked=False,
    ),
    Script(
        "five_thousand_parameters",
        (
            step(
                ask(
                    "SELECT " + " + ".join(f"${n}::bigint" for n in range(1, 1001)),
                    [str(n) for n in range(1000)],
                ),
                SYNC,
            ),
            step(
                ask(
                    "SELECT count(*) FROM (VALUES "
                    + ", ".join(f"(${n}::int)" for n in range(1, 5001))
                    + ") v",
                    ["7"] * 5000,
                ),
                SYNC,
            ),
        ),
        chunked=False,
    ),
    Script(
        "twenty_thousand_rows_by_portal",
        (
            step(query("BEGIN")),
            step(
                parse("SELECT g, repeat('y', 50) FROM generate_series(1, 20000) g"),
                bind(portal="big"),
                execute("big", 5000),
                SYNC,
            ),
            step(execute("big", 5000), FLUSH, execute("big", 5000), SYNC),
            step(execute("big", 9999), SYNC),
            step(query("COMMIT")),
        ),
        chunked=False,
    ),
    # --- COPY
    Script(
        "copy_in_extended",
        (
            step(parse("COPY notes FROM STDIN"), bind(), describe("P"), execute(), FLUSH, until="G"),
            step(copy_data(b"1\tone\n"), COPY_DONE, SYNC),
            step(ask("SELECT * FROM notes"), SYNC),
        ),
        setup="TRUNCATE notes",
    ),
    Script(
        "copy_in_extended_with_an_early_sync",
        (
            step(ask("COPY notes FROM STDIN"), SYNC, until="G"),
            step(copy_data(b"1\tone\n"), COPY_DONE, SYNC),
            step(ask("SELECT * FROM notes"), SYNC),
        ),
        setup="TRUNCATE notes",
    ),
    Script(
        "copy_in_extended_in_one_write",
        (
            step(ask("COPY notes FROM STDIN"), copy_data(b"1\tone\n"), COPY_DONE, ask("SELECT 1"), SYNC),
            step(ask("COPY notes FROM STDIN"), SYNC, copy_data(b"2\ttwo\n"), COPY_DONE, SYNC),
            step(ask("SELECT * FROM notes ORDER BY id"), SYNC),
        ),
        setup="TRUNCATE notes",
    ),
    Script(
        "copy_in_extended_done_before_it_began",
        (
            step(ask("COPY notes FROM STDIN"), copy_data(b"1\tone\n"), COPY_DONE, FLUSH, until="C"),
            step(ask("SELECT 1"), SYNC),
            step(ask("COPY notes FROM STDIN"), copy_data(b"2\ttwo\n"), copy_fail("no"), FLUSH, until="E"),
            step(ask("SELECT 'skipped'"), SYNC),
            step(query("TABLE notes")),
        ),
        setup="TRUNCATE notes",
    ),
    Script(
        "copy_fail_extended",
        (
            step(ask("COPY notes FROM STDIN"), FLUSH, until="G"),
            step(copy_data(b"1\tone\n"), copy_fail("no more"), ask("SELECT 'skipped'"), SYNC),
            step(ask("SELECT count(*) FROM notes"), SYNC),
        ),
        setup="TRUNCATE notes",
    ),
    Script(
        "copy_error_extended",
        (
            step(ask("COPY notes FROM STDIN"), FLUSH, until="G"),
            step(copy_data(b"bad\n"), copy_data(b"2\ttwo\n"), COPY_DONE, SYNC),
            step(ask("SELECT count(*) FROM notes"), SYNC),
        ),
        setup="TRUNCATE notes",
    ),
    Script(
        "copy_out_extended",
        (
            step(ask("COPY (SELECT id FROM items ORDER BY id) TO STDOUT"), SYNC),
            step(
                ask("COPY (SELECT 10 / (5 - g) FROM generate_series(1, 9) g) TO STDOUT"),
                ask("SELECT 1"),
                SYNC,
            ),
            step(ask("SELECT 2"), SYNC),
        ),
    ),
    # --- the rest
    Script(
        "notices_extended",
        (
            step(
                ask("SELECT complain('notice', $1)", ["one"]),
                ask("SELECT complain('warning', $1)", ["two"]),
                SYNC,
            ),
            step(ask("SELECT complain('exception', $1)", ["three"]), SYNC),
        ),
    ),
    Script(
        "function_call_within_a_batch",
        (step(parse("SELECT 1"), function_call(871, b"between"), bind(), execute(), SYNC, ready=2),),
    ),
    Script("terminate_after_a_batch", (to_eof(ask("SELECT 1"), SYNC, ask("SELECT 2"), SYNC, TERMINATE),)),
    Script("statements_in_one_parse", (step(ask("SELECT 1; SELECT 2"), SYNC), step(ask("SELECT 3"), SYNC))),
)
