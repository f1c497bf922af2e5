"""Scripts of prepared statements: their names, ends, failures and replacements."""

from __future__ import annotations

from tests.integration.differential.script import Script, step
from tests.rawclient import (
    SYNC,
    ask,
    bind,
    close,
    describe,
    execute,
    parse,
    query,
)

TEXT, INT4, INT8 = 25, 23, 20

SHAPES = """
DROP TABLE IF EXISTS shapes;
CREATE TABLE shapes (id int, name varchar(20));
INSERT INTO shapes VALUES (1, 'round');
ALTER TABLE shapes OWNER TO app;
"""

SCRIPTS = (
    Script(
        "named_across_transactions",
        (
            step(parse("SELECT $1::int * 2", "double"), parse("SELECT count(*) FROM items", "n"), SYNC),
            *(
                step(bind([str(n)], name="double"), execute(), bind(name="n"), execute(), SYNC)
                for n in range(5)
            ),
            step(query("BEGIN")),
            step(bind(["21"], name="double"), execute(), SYNC),
            step(query("ROLLBACK")),
            step(bind(["22"], name="double"), execute(), SYNC),
        ),
    ),
    Script(
        "named_in_a_rolled_back_transaction",
        (
            step(query("BEGIN")),
            step(parse("SELECT 'survives'", "s"), SYNC),
            step(query("ROLLBACK")),
            step(bind(name="s"), execute(), SYNC),
        ),
    ),
    Script(
        "unnamed_across_syncs",
        (
            step(parse("SELECT $1::text || '?'"), SYNC),
            step(bind(["one"]), execute(), SYNC),
            step(bind(["two"]), execute(), SYNC),
            step(describe("S"), SYNC),
            step(parse("SELECT 'another'"), SYNC),
            step(bind(), execute(), SYNC),
            step(query("SELECT 'a simple query ends it'")),
            step(bind(), execute(), SYNC),
            step(describe("S"), SYNC),
        ),
    ),
    Script(
        "unnamed_after_failures",
        (
            step(parse("SELECT 'first'"), SYNC),
            step(parse("SELEC"), SYNC),
            step(bind(), execute(), SYNC),
            step(parse("SELECT 'second'"), SYNC),
            step(ask("SELECT 1 / 0", name="n"), parse("SELECT 'skipped'"), SYNC),
            step(bind(), execute(), SYNC),
            step(close("S"), SYNC),
            step(bind(), execute(), SYNC),
        ),
    ),
    Script(
        "duplicate_name",
        (
            step(parse("SELECT 1", "s"), SYNC),
            step(parse("SELECT 1", "s"), SYNC),
            step(parse("SELECT 2", "s"), bind(name="s"), execute(), SYNC),
            step(bind(name="s"), execute(), SYNC),
            step(parse("SELECT 3", "t"), parse("SELECT 4", "t"), SYNC),
            step(bind(name="t"), execute(), SYNC),
            step(close("S", "s"), parse("SELECT 5", "s"), bind(name="s"), execute(), SYNC),
            step(query("BEGIN")),
            step(parse("SELECT 6", "s"), SYNC),
            step(query("SELECT 7")),
            step(query("ROLLBACK")),
        ),
    ),
    Script(
        "unknown_names",
        (
            step(bind(name="unknown"), execute(), SYNC),
            step(describe("S", "unknown"), SYNC),
            step(describe("S"), SYNC),
            step(bind(), execute(), SYNC),
            step(close("S", "unknown"), SYNC),
            step(query("BEGIN")),
            step(bind(name="unknown"), SYNC),
            step(describe("S", "unknown"), SYNC),
            step(query("ROLLBACK")),
            step(query("EXECUTE unknown")),
            step(query("DEALLOCATE unknown")),
        ),
    ),
    Script(
        "close_statements",
        (
            step(parse("SELECT 1", "a"), parse("SELECT 2", "b"), SYNC),
            step(close("S", "a"), SYNC),
            step(bind(name="a"), SYNC),
            step(bind(name="b"), execute(), close("S", "b"), SYNC),
            step(bind(name="b"), SYNC),
            step(close("S", "b"), close("S", "b"), SYNC),
            step(ask("SELECT 1 / 0", name="c"), close("S", "c"), SYNC),
            step(bind(name="c"), SYNC),
        ),
    ),
    Script(
        "failed_parse_leaves_the_name_free",
        (
            step(parse("SELEC", "s"), SYNC),
            step(bind(name="s"), SYNC),
            step(parse("SELECT * FROM no_such_table", "s"), bind(name="s"), SYNC),
            step(parse("SELECT 'at last'", "s"), SYNC),
            step(bind(name="s"), execute(), SYNC),
        ),
    ),
    Script(
        "parse_skipped_after_an_error",
        (
            step(ask("SELECT 1 / 0"), parse("SELECT 'never parsed'", "s"), SYNC),
            step(bind(name="s"), execute(), SYNC),
            step(parse("SELECT 'parsed'", "s"), ask("SELECT 1 / 0"), SYNC),
            step(bind(name="s"), execute(), SYNC),
            step(query("BEGIN")),
            step(query("SELECT 1 / 0")),
            step(parse("SELECT 'refused'", "t"), SYNC),
            step(bind(name="s"), execute(), SYNC),
            step(query("ROLLBACK")),
            step(bind(name="t"), SYNC),
            step(parse("SELECT 'again'", "t"), bind(name="t"), execute(), SYNC),
            step(bind(name="s"), execute(), SYNC),
        ),
    ),
    Script(
        "same_text_under_many_names",
        (
            step(*(parse("SELECT $1::int", f"s{n}") for n in range(20)), SYNC),
            step(*(bind([str(n)], name=f"s{n}") + execute() for n in range(20)), SYNC),
            step(close("S", "s3"), SYNC),
            step(bind(["3"], name="s3"), SYNC),
            step(bind(["4"], name="s4"), execute(), SYNC),
        ),
    ),
    Script(
        "same_text_with_other_types",
        (
            step(parse("SELECT $1 AS v", "i", [INT4]), parse("SELECT $1 AS v", "b", [INT8]), SYNC),
            step(describe("S", "i"), describe("S", "b"), SYNC),
            step(parse("SELECT $1 AS v", "t"), describe("S", "t"), SYNC),
            step(bind(["5"], name="i"), describe("P"), execute(), SYNC),
            step(bind(["text"], name="t"), describe("P"), execute(), SYNC),
        ),
    ),
    Script(
        "three_hundred_statements",
        (
            step(*(parse(f"SELECT {n}, $1::int", f"many{n}") for n in range(300)), SYNC),
            step(*(bind([str(n)], name=f"many{n}") + execute() for n in range(300)), SYNC),
            step(
                *(bind([str(n)], name=f"many{n}") + execute() + SYNC for n in range(299, -1, -1)), ready=300
            ),
        ),
        chunked=False,
    ),
    Script(
        "deallocate_all",
        (
            step(parse("SELECT 1", "a"), parse("SELECT 2", "b"), SYNC),
            step(query("DEALLOCATE ALL")),
            step(bind(name="a"), SYNC),
            step(parse("SELECT 3", "a"), bind(name="a"), execute(), SYNC),
            step(ask("DEALLOCATE ALL"), SYNC),
            step(bind(name="a"), SYNC),
        ),
    ),
    Script(
        "deallocate_by_name",
        (
            step(parse("SELECT 1", "a"), parse("SELECT 2", "b"), SYNC),
            step(query("DEALLOCATE a")),
            step(bind(name="a"), SYNC),
            step(bind(name="b"), execute(), SYNC),
            step(query("DEALLOCATE a")),
        ),
    ),
    Script(
        "discard_all",
        (
            step(parse("SELECT 1", "a"), SYNC),
            step(query("SET application_name = 'before'; SET work_mem = '7MB'")),
            step(query("DISCARD ALL")),
            step(bind(name="a"), SYNC),
            step(query("SHOW work_mem")),
            step(query("SHOW application_name")),
            step(parse("SELECT 2", "a"), SYNC),
            step(ask("DISCARD ALL"), SYNC),
            step(bind(name="a"), SYNC),
            step(query("BEGIN")),
            step(query("DISCARD ALL")),
            step(query("ROLLBACK")),
        ),
    ),
    Script(
        "sql_prepare",
        (
            step(query("PREPARE plan (int) AS SELECT $1 + 1")),
            step(query("EXECUTE plan(41)")),
            step(query("BEGIN; EXECUTE plan(1); ROLLBACK")),
            step(query("PREPARE plan AS SELECT 2")),
            step(query("EXECUTE plan('x')")),
            step(bind(["5"], name="plan"), execute(), SYNC),
            step(query("DEALLOCATE plan")),
            step(query("EXECUTE plan(1)")),
        ),
    ),
    Script(
        "execute_of_a_parsed_statement",
        (
            step(parse("SELECT 1", "s"), SYNC),
            step(query("EXECUTE s")),
            step(query("SELECT name FROM pg_prepared_statements")),
        ),
    ),
    Script(
        "cached_plan_changes",
        (
            step(query("CREATE TEMP TABLE shape (a int)")),
            step(parse("SELECT * FROM shape", "s"), bind(name="s"), execute(), SYNC),
            step(query("ALTER TABLE shape ADD b int")),
            step(bind(name="s"), execute(), SYNC),
            step(
                close("S", "s"),
                parse("SELECT * FROM shape", "s"),
                bind(name="s"),
                describe("P"),
                execute(),
                SYNC,
            ),
        ),
    ),
    Script(
        "result_type_of_a_described_statement",
        (
            step(parse("SELECT * FROM shapes WHERE id = $1", "s"), describe("S", "s"), SYNC),
            step(bind(["1"], name="s"), execute(), SYNC),
            step(query("ALTER TABLE shapes ADD COLUMN more int")),
            step(ask("SELECT 1"), bind(["1"], name="s"), execute(), ask("SELECT 2"), SYNC),
            step(bind(["1"], name="s"), execute(), SYNC),
            step(describe("S", "s"), SYNC),
            step(parse("SELECT * FROM shapes WHERE id = $1", "t"), describe("S", "t"), SYNC),
            step(bind(["1"], name="t"), execute(), SYNC),
            step(bind(["1"], name="s"), execute(), SYNC),
            step(close("S", "s"), parse("SELECT * FROM shapes WHERE id = $1", "s"), describe("S", "s"), SYNC),
            step(bind(["1"], name="s"), execute(), SYNC),
            step(query("ALTER TABLE shapes ALTER COLUMN name TYPE varchar(30)")),
            step(bind(["1"], name="s"), execute(), SYNC),
            step(query("ALTER TABLE shapes RENAME COLUMN name TO called")),
            step(bind(["1"], name="t"), execute(), SYNC),
        ),
        setup=SHAPES,
        own_words=True,
        apart=True,
    ),
    Script(
        "result_type_in_a_transaction",
        (
            step(parse("SELECT * FROM shapes", "s"), describe("S", "s"), SYNC),
            step(query("ALTER TABLE shapes ADD COLUMN more int")),
            step(query("BEGIN")),
            step(bind(name="s"), execute(), SYNC),
            step(bind(name="s"), execute(), SYNC),
            step(query("ROLLBACK")),
            step(query("BEGIN")),
            step(query("ALTER TABLE shapes DROP COLUMN more")),
            step(bind(name="s"), execute(), SYNC),
            step(query("ROLLBACK")),
            step(bind(name="s"), execute(), SYNC),
        ),
        setup=SHAPES,
        own_words=True,
    ),
    Script(
        "result_type_of_the_unnamed_statement",
        (
            step(parse("SELECT * FROM shapes WHERE id = $1"), describe("S"), SYNC),
            step(SYNC),
            step(
                parse("ALTER TABLE shapes ADD COLUMN more int", "alter"), bind(name="alter"), execute(), SYNC
            ),
            step(bind(["1"]), execute(), SYNC),
            step(describe("S"), SYNC),
            step(parse("SELECT * FROM shapes WHERE id = $1"), describe("S"), SYNC),
            step(bind(["1"]), execute(), SYNC),
        ),
        setup=SHAPES,
        own_words=True,
        apart=True,
    ),
    Script(
        "result_type_that_came_back",
        (
            step(parse("SELECT * FROM shapes", "s"), describe("S", "s"), SYNC),
            step(query("ALTER TABLE shapes ADD COLUMN more int")),
            step(query("ALTER TABLE shapes DROP COLUMN more")),
            step(bind(name="s"), execute(), SYNC),
            step(bind(name="s"), execute(), SYNC),
        ),
        setup=SHAPES,
        apart=True,
    ),
    Script(
        "types_of_parameters_stay",
        (
            step(parse("SELECT name FROM shapes WHERE id = $1", "s"), describe("S", "s"), SYNC),
            step(parse("SELECT name FROM shapes WHERE id = $1"), describe("S"), SYNC),
            step(
                parse("ALTER TABLE shapes ALTER COLUMN id TYPE bigint", "x"), bind(name="x"), execute(), SYNC
            ),
            *(
                step(bind([b"\0\0\0\1"], name=name, formats=[1]), execute(), SYNC)
                for name in ("s", "", "s", "", "s")
            ),
        ),
        setup=SHAPES,
        apart=True,
    ),
    Script(
        "a_described_table_that_has_gone",
        (
            step(parse("SELECT * FROM shapes", "s"), describe("S", "s"), SYNC),
            step(query("DROP TABLE shapes")),
            step(bind(name="s"), execute(), SYNC),
            step(bind(name="s"), execute(), SYNC),
        ),
        setup=SHAPES,
        own_words=True,
        apart=True,
    ),
    Script(
        "the_unnamed_statement_stays_behind_discard_all",
        (
            step(
                parse("SELECT 1"),
                parse("SELECT 2", "a"),
                parse("DISCARD ALL", "d"),
                bind(name="d"),
                execute(),
                bind(),
                execute(),
                parse("SELECT 3", "a"),
                bind(name="a"),
                execute(),
                SYNC,
            ),
            step(bind(), execute(), SYNC),
            step(bind(name="a"), execute(), SYNC),
            step(bind(name="d"), SYNC),
        ),
        apart=True,
    ),
    Script(
        "parsed_behind_deallocate_all",
        (
            step(
                parse("SELECT 1", "a"), SYNC, query("DEALLOCATE ALL"), parse("SELECT 2", "a"), SYNC, ready=3
            ),
            step(bind(name="a"), execute(), SYNC),
            step(
                parse("DEALLOCATE ALL", "d"),
                bind(name="d"),
                execute(),
                parse("SELECT 3", "a"),
                bind(name="a"),
                execute(),
                SYNC,
                bind(name="a"),
                execute(),
                SYNC,
                ready=2,
            ),
            step(bind(name="a"), execute(), SYNC),
        ),
        apart=True,
    ),
    Script(
        "deallocate_by_name_in_a_batch",
        (
            step(parse("SELECT 1", "a"), parse("SELECT 2", "b"), parse("DEALLOCATE a", "d"), SYNC),
            step(bind(name="d"), execute(), bind(name="b"), execute(), bind(name="a"), SYNC),
            step(bind(name="d"), execute(), SYNC),
            step(
                parse("SELECT 3", "a"),
                bind(name="a"),
                execute(),
                bind(name="missing"),
                bind(name="d"),
                execute(),
                SYNC,
            ),
            step(bind(name="a"), execute(), SYNC),
        ),
        apart=True,
    ),
    Script(
        "batches_sent_ahead_of_one_that_fails",
        (
            step(
                bind(name="missing"),
                parse("SELECT 1", "a"),
                SYNC,
                bind(name="a"),
                execute(),
                SYNC,
                parse("SELECT 2", "a"),
                SYNC,
                bind(name="a"),
                execute(),
                SYNC,
                ready=4,
            ),
            step(
                bind(name="missing"),
                close("S", "a"),
                SYNC,
                bind(name="a"),
                execute(),
                SYNC,
                close("S", "a"),
                SYNC,
                bind(name="a"),
                execute(),
                SYNC,
                ready=4,
            ),
            step(
                parse("SELECT 3"),
                SYNC,
                bind(name="missing"),
                parse("SELECT 4"),
                SYNC,
                bind(),
                execute(),
                SYNC,
                bind(name="missing"),
                close("S"),
                SYNC,
                bind(),
                execute(),
                SYNC,
                ready=5,
            ),
            step(
                query("BEGIN"),
                parse("SELECT 1 / 0"),
                bind(),
                execute(),
                SYNC,
                parse("SELECT 5"),
                SYNC,
                bind(),
                execute(),
                SYNC,
                query("ROLLBACK"),
                bind(),
                execute(),
                SYNC,
                ready=6,
            ),
        ),
    ),
)
