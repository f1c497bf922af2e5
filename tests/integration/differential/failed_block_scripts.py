"""Scripts of blocks that have failed before a server has had any of their work, and of portals that control them.

A session that may choose its tenant is answered by the proxy alone there."""

from __future__ import annotations

from tests.integration.differential.script import Script, Step, step
from tests.rawclient import (
    FLUSH,
    SYNC,
    ask,
    bind,
    close,
    describe,
    execute,
    function_call,
    parse,
    query,
)

_BEGIN_AND_FAIL = step(query("BEGIN"), query("SAVEPOINT a"), query("ROLLBACK TO SAVEPOINT nowhere"), ready=3)


def failed(name: str, *steps: Step, before: tuple[Step, ...] = (), only_on_one: str = "") -> Script:
    end = (step(query("SELECT 'in it still'")), step(query("ROLLBACK")), step(query("SELECT 'behind'")))
    steps = (*before, _BEGIN_AND_FAIL, *steps, *end)
    return Script(f"failed_block_{name}", steps, on_one=bool(only_on_one), why=only_on_one)


_FAIL = step(query("ROLLBACK TO SAVEPOINT nowhere"))
_HOW = "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')"
_CHARACTERS = (
    (query("BEGIN"), query("SAVEPOINT a")),
    (query("BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY"),),
    (
        query("BEGIN READ ONLY"),
        query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"),
        query("SAVEPOINT a"),
    ),
)
_WAYS_OUT = (
    "COMMIT", "COMMIT WORK", "commit transaction", "END", "END WORK", "ABORT", "ABORT TRANSACTION", "ROLLBACK WORK",
    "/* a */ ROLLBACK -- b\n /* /* c */ d */;", "COMMIT AND NO CHAIN", "COMMIT AND CHAIN", "END AND CHAIN",
    "ABORT WORK AND CHAIN", "ROLLBACK AND CHAIN", "-- a\nROLLBACK/*b*/AND CHAIN;", "PREPARE TRANSACTION 'x'",
    "/**/ PREPARE/**/TRANSACTION 'it''s'; ;", "ROLLBACK TO a", "ROLLBACK WORK TO SAVEPOINT a", "ROLLBACK TO \"a\"",
    "ROLLBACK TRANSACTION TO A", "ROLLBACK TO SAVEPOINT \"A\"", "ROLLBACK /* \\' */ AND CHAIN", "COMMIT /*é \\'*/ AND CHAIN",
    "ROLLBACK AND CHAIN -- " + "long " * 4000, "PREPARE TRANSACTION '%s'" % ("x" * 300),
)  # fmt: skip
_WAYS_OUT_AND_ON = (
    "COMMIT AND CHAIN; SELECT 1", "ROLLBACK AND CHAIN; COMMIT", "COMMIT AND CHAIN; COMMIT AND CHAIN; SELECT 2",
    "COMMIT AND CHAIN; BEGIN READ WRITE; SELECT 3", "PREPARE TRANSACTION 'x'; SELECT 4", "END; SELECT 5 /* \\' */",
    "ROLLBACK AND CHAIN; SELECT 6; FAIL", "ROLLBACK TO a; COMMIT AND CHAIN; SELECT 7", "COMMIT; ROLLBACK AND CHAIN",
    "ROLLBACK AND CHAIN; SELECT 8, oops", "COMMIT AND CHAIN; SAVEPOINT b; SELECT 9", "ABORT; SELECT 'x\\', 10",
)  # fmt: skip


def each(*frames: bytes) -> tuple[Step, ...]:
    return tuple(step(one, SYNC) for one in frames)


_PREPARED = (
    step(
        parse("SELECT $1::int", "rows"),
        parse("CREATE TABLE never (n int)", "none"),
        parse("", "empty"),
        parse("ROLLBACK", "back"),
        parse("COMMIT", "done"),
        parse("ROLLBACK TO a", "to_a"),
        parse("SAVEPOINT b", "save"),
        parse("SELECT 1", "no_parameters"),
        SYNC,
    ),
)

SCRIPTS = (
    failed(
        "queries",
        *(
            step(query(text))
            for text in (
                "",
                "  -- nothing\n ; ;",
                "SELECT 1",
                "SELECT 1; COMMIT",
                "SELECT 1; oops",
                "SELEC 1",
                "ROLLBACK TO a; SELECT oops oops oops",
                "COMMIT; SELEC 1",
                "SELECT 'not ended",
                'SELECT "not ended',
                "SELECT $$not ended",
                "SELECT /* not ended",
                "SELECT (1",
                "SELECT ü FROM WHERE",
                "BEGIN",
                "SAVEPOINT a",
                "RELEASE a",
                "SET work_mem = '3MB'",
                "SET TRANSACTION READ ONLY",
                "SHOW work_mem",
                "SHOW app.tenant_id",
                "ROLLBACK TO nowhere",
                "COMMIT PREPARED 'never'",
                "VACUUM",
                "COPY items FROM STDIN",
                "SELECT 1 +",
                "SELECT '\\",
                "SELECT E'\\",
                "SELECT 1 FROM a b c d",
            )
        ),
    ),
    failed(
        "parses",
        *each(
            parse(""),
            parse("SELECT 1"),
            parse("SELEC 1"),
            parse("SELECT 1; SELECT 2"),
            parse("ROLLBACK"),
            parse("ROLLBACK TO a"),
            parse("ROLLBACK; SELECT 1"),
            parse("SAVEPOINT c"),
            parse("", "e"),
            parse("", "e"),
            parse("COMMIT", "c"),
            parse("COMMIT", "c"),
            parse("SELECT 1", "c"),
            parse("oops", "c"),
            describe("S", "c"),
            describe("S", "e"),
            describe("S"),
        ),
    ),
    failed(
        "binds",
        *each(
            bind(name="nowhere"),
            bind(name="rows"),
            bind(["1"], name="rows"),
            bind(["x"], name="rows"),
            bind(["1"], name="rows", formats=[0, 0]),
            bind(name="none"),
            bind(name="empty"),
            bind(["1"], name="empty"),
            bind(name="save"),
            bind(name="back"),
            bind(["1"], name="back"),
            bind(name="no_parameters"),
            bind(),
            describe("P"),
            execute(),
            describe("P", "nowhere"),
            execute("nowhere"),
        ),
        before=_PREPARED,
    ),
    failed(
        "descriptions",
        *each(
            *(describe("S", name) for name in ("nowhere", "rows", "none", "empty", "back", "to_a", "save")),
            describe("S"),
            close("S", "rows"),
            describe("S", "rows"),
            close("P", "nowhere"),
            close("S", "nowhere"),
            FLUSH,
            function_call(1598),
            describe("S", "done"),
        ),
        before=_PREPARED,
    ),
    failed(
        "parameters",
        *each(
            *(describe("S", name) for name in ("told", "typed", "typed_more", "rows_told", "spoken")),
            describe("S"),
            bind(["1"], name="told"),
            bind(["1", "x"], name="told"),
            bind(["1"], name="typed_more"),
            bind(["1", "x"], name="typed_more"),
            bind(name="spoken"),
        ),
        before=(
            step(
                parse("DELETE FROM items WHERE id = $1 AND name = $2", "told"),
                parse("DELETE FROM items WHERE id = $1 AND name = $2", "typed", [20, 25]),
                parse("DELETE FROM items WHERE id = $1", "typed_more", [20, 25]),
                parse("UPDATE items SET id = $1 WHERE false RETURNING name", "rows_told"),
                SYNC,
            ),
            step(query("PREPARE spoken(int) AS DELETE FROM items WHERE id = $1")),
            step(describe("S", "told"), describe("S", "rows_told"), describe("S", "spoken"), SYNC),
            step(parse("DELETE FROM items WHERE name = $1"), describe("S"), SYNC),
        ),
        only_on_one="no server parses in a failed block what it does not have yet",
    ),
    failed(
        "empty_portal",
        step(parse(""), bind(), describe("P"), execute(), SYNC),
        step(ask(""), SYNC),
        step(parse("ROLLBACK TO a"), bind(), describe("P"), execute(), SYNC),
        step(query("SELECT 'well again'")),
    ),
    *(
        Script(
            f"failed_block_ways_out_{number}",
            tuple(
                piece
                for text in _WAYS_OUT + _WAYS_OUT_AND_ON
                for piece in (
                    step(*begin, ready=len(begin)),
                    _FAIL,
                    step(query(text), query(_HOW), query("ROLLBACK"), query("SELECT 'behind'"), ready=4),
                )
            ),
        )
        for number, begin in enumerate(_CHARACTERS)
    ),
    Script(
        "failed_block_ways_out_in_batches",
        tuple(
            piece
            for text in _WAYS_OUT
            for piece in (
                step(*_CHARACTERS[2], ready=3),
                _FAIL,
                step(parse(text), describe("S"), bind(), describe("P"), SYNC),
                step(execute(), SYNC),
                step(query(_HOW)),
                step(query("ROLLBACK")),
            )
        ),
    ),
    Script(
        "failed_block_goes_on_in_one_batch",
        (
            step(query("BEGIN READ ONLY")),
            _FAIL,
            step(ask("COMMIT AND CHAIN"), ask(_HOW), SYNC),
            step(query("ROLLBACK TO nowhere")),
            step(ask("PREPARE TRANSACTION 'x'"), ask(_HOW), SYNC),
            step(query("SELECT 'behind'")),
        ),
    ),
    Script(
        "failed_block_ways_out_are_prepared_before_and_used_behind",
        (
            step(parse("COMMIT AND CHAIN", "chain"), parse("PREPARE TRANSACTION 'x'", "two"), SYNC),
            _BEGIN_AND_FAIL,
            step(parse("ROLLBACK AND CHAIN", "back"), describe("S", "chain"), describe("S", "two"), SYNC),
            step(bind(name="two", portal="p"), bind(name="back", portal="q"), SYNC),
            step(query("ROLLBACK TO a")),
            step(execute("p"), SYNC),
            step(query("ROLLBACK TO a")),
            step(execute("q"), SYNC),
            step(bind(name="chain"), execute(), SYNC),
            step(query("SELECT 1")),
            step(bind(name="back"), execute(), SYNC),
            step(query("ROLLBACK")),
            step(bind(name="back"), execute(), SYNC),
        ),
    ),
    Script(
        "portals_of_control_and_savepoints",
        (
            step(query("BEGIN")),
            step(parse("COMMIT", "c"), bind(name="c", portal="outer"), SYNC),
            step(query("SAVEPOINT a"), query("SAVEPOINT b"), ready=2),
            step(bind(name="c", portal="inner"), SYNC),
            step(query("ROLLBACK TO nowhere")),
            step(bind(name="c", portal="late"), SYNC),
            step(execute("inner"), SYNC),
            step(query("ROLLBACK TO b")),
            step(execute("inner"), SYNC),
            step(query("ROLLBACK TO b")),
            step(execute("late"), SYNC),
            step(query("ROLLBACK TO a")),
            step(bind(name="c", portal="released"), SYNC),
            step(query("RELEASE a")),
            step(query("ROLLBACK TO nowhere")),
            step(execute("released"), SYNC),
            step(execute("outer"), SYNC),
            step(query("ROLLBACK")),
            step(query("BEGIN"), query("SAVEPOINT a"), ready=2),
            step(bind(name="c", portal="inner"), SYNC),
            step(query("ROLLBACK TO a")),
            step(execute("inner"), SYNC),
            step(query("ROLLBACK")),
            step(query("BEGIN")),
            step(bind(name="c", portal="outer"), SYNC),
            step(query("SAVEPOINT a")),
            _FAIL,
            step(execute("outer"), SYNC),
            step(query("SELECT 'behind'")),
        ),
    ),
    Script(
        "portals_that_nobody_has_in_a_block_of_no_work",
        (
            step(query("BEGIN"), query("SAVEPOINT a"), ready=2),
            step(close("P", "nowhere"), SYNC),
            step(describe("P", "nowhere"), SYNC),
            step(query("ROLLBACK TO a")),
            step(execute("nowhere"), SYNC),
            step(query("ROLLBACK")),
        ),
    ),
    Script(
        "portals_of_control_run_behind_work",
        (
            step(parse("COMMIT", "c"), parse("SAVEPOINT b", "s"), parse("ROLLBACK TO a", "r"), SYNC),
            step(query("BEGIN")),
            step(bind(name="c", portal="commit"), bind(name="s", portal="save"), SYNC),
            step(query("SAVEPOINT a")),
            step(bind(name="r", portal="back"), bind(name="s", portal="inner"), SYNC),
            step(query("SELECT 1")),
            step(execute("save"), execute("inner"), SYNC),
            step(describe("P", "commit"), execute("back"), SYNC),
            step(execute("inner"), SYNC),
            step(query("ROLLBACK TO a")),
            step(execute("commit"), SYNC),
            step(execute("commit"), SYNC),
            step(query("BEGIN")),
            step(bind(name="c", portal="commit"), SYNC),
            step(ask("SELECT 1"), execute("commit"), SYNC),
            step(query("SELECT 'behind'")),
        ),
    ),
    Script(
        "begin_again_behind_a_savepoint",
        (
            step(query("BEGIN"), query("SAVEPOINT a"), ready=2),
            step(query("BEGIN READ ONLY")),
            step(query(_HOW)),
            step(query("ROLLBACK TO a")),
            step(query(_HOW)),
            step(query("BEGIN ISOLATION LEVEL SERIALIZABLE")),
            step(query("ROLLBACK")),
        ),
    ),
    Script(
        "failed_block_in_one_batch",
        (
            step(ask("BEGIN"), ask("ROLLBACK TO nowhere"), ask("SELECT 1"), SYNC),
            step(ask("SELECT 2"), SYNC),
            step(bind(name="nowhere"), bind(), SYNC, query("")),
            step(ask("COMMIT"), SYNC),
        ),
    ),
    Script(
        "failed_block_ended_by_commit",
        (
            _BEGIN_AND_FAIL,
            step(bind(name="nowhere"), SYNC),
            step(query("")),
            step(ask("COMMIT"), SYNC),
            step(query("SELECT 1")),
        ),
    ),
    Script(
        "failed_block_portals_of_before",
        (
            step(query("BEGIN")),
            step(parse("COMMIT", "c"), bind(name="c", portal="p"), SYNC),
            step(query("ROLLBACK TO nowhere")),
            step(describe("P", "p"), SYNC),
            step(execute("p"), SYNC),
            step(close("P", "p"), SYNC),
            step(execute("p"), SYNC),
            step(query("ROLLBACK")),
        ),
    ),
    Script(
        "portals_of_control_bound_again",
        (
            step(query("BEGIN")),
            step(parse("SAVEPOINT a", "s"), bind(name="s", portal="p"), SYNC),
            step(bind(name="s", portal="p"), SYNC),
            step(query("ROLLBACK")),
            step(parse("BEGIN"), bind(portal="p"), bind(portal="p"), SYNC),
            step(parse("BEGIN"), bind(portal="p"), close("P", "p"), bind(portal="p"), execute("p"), SYNC),
            step(bind(), bind(), SYNC),
            step(query("ROLLBACK")),
        ),
    ),
    Script(
        "portals_of_control_run_again",
        (
            step(query("BEGIN")),
            step(parse("SAVEPOINT a"), bind(portal="p"), execute("p"), SYNC),
            step(execute("p"), SYNC),
            step(query("ROLLBACK")),
        ),
    ),
)
