"""Scripts with messages amid a COPY FROM STDIN. PostgreSQL leaves out what it may, and ends the session with the rest."""

from __future__ import annotations

from tests.integration.differential.script import Script, step, to_eof
from tests.rawclient import (
    COPY_DONE,
    FLUSH,
    SYNC,
    ask,
    bind,
    close,
    copy_data,
    describe,
    execute,
    function_call,
    parse,
    query,
)

_TABLE = "DROP TABLE IF EXISTS amid; CREATE TABLE amid (n int); GRANT ALL ON amid TO PUBLIC"
_COPY = "COPY amid FROM STDIN"


def amid(name: str, *frames: bytes) -> Script:
    return Script(
        f"amid_copy_{name}",
        (
            step(parse("SELECT 1", "s"), SYNC),
            step(query(_COPY), until="G"),
            to_eof(copy_data(b"1\n"), *frames),
        ),
        setup=_TABLE,
        chunked=False,  # what comes behind it meets a server that has gone
    )


def amid_extended(name: str, *frames: bytes) -> Script:
    return Script(
        f"amid_copy_extended_{name}",
        (
            step(parse("SELECT 1", "s"), SYNC),
            step(ask(_COPY), until="G"),
            to_eof(copy_data(b"1\n"), *frames),
        ),
        setup=_TABLE,
        chunked=False,
    )


SCRIPTS = (
    amid("query", query("SELECT 1")),
    amid("parse", parse("SELECT 1", "s")),
    amid("close", close("S", "s")),
    amid("function_call", function_call(1598)),
    amid_extended("query", query("SELECT 1")),
    amid_extended("bind", bind()),
    amid_extended("describe", describe("S")),
    amid_extended("execute", execute()),
    Script(
        "amid_copy_sync_and_flush",
        (
            step(query(_COPY), until="G"),
            step(copy_data(b"1\n"), SYNC, FLUSH, copy_data(b"2\n"), SYNC, COPY_DONE),
            step(query("SELECT n FROM amid ORDER BY n")),
        ),
        setup=_TABLE,
    ),
)
