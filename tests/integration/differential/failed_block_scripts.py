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


def failed(name: str, *steps: Step, before: tuple[Step, ...] = ()) -> Script:
    end = (step(query("SELECT 'in it still'")), step(query("ROLLBACK")), step(query("SELECT 'behind'")))
    return Script(f"failed_block_{name}", (*before, _BEGIN_AND_FAIL, *steps, *end))


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
        "empty_portal",
        step(parse(""), bind(), describe("P"), execute(), SYNC),
        step(ask(""), SYNC),
        step(parse("ROLLBACK TO a"), bind(), describe("P"), execute(), SYNC),
        step(query("SELECT 'well again'")),
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
