"""The same as in test_transparency.py of what is rarer: portals that are read in part or outlive their batch, COPY by
messages and both ways, calls by message, LOCAL parameters and savepoints, texts in many pieces, and sessions that choose
their tenants or keep their server connection."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy import log
from proxy.wire import encode
from tests.client.play import TURNS, check, scripts
from tests.client.simulated import LOOK
from tests.examples import examples

LONG = "SELECT " + "1" * 20_000
TEXTS = (
    "SELECT 1", "SELECT several", "SELECT several", "FAIL", "SELEC", "", "BEGIN", "BEGIN", "COMMIT", "ROLLBACK",
    "COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "SAVEPOINT a", "SAVEPOINT b", "ROLLBACK TO a", "ROLLBACK TO b", "RELEASE a",
    "SET timezone = 'CET'", "SET LOCAL timezone = 'MST'", "SET work_mem = '1MB'", "SET LOCAL work_mem = '2MB'",
    "RESET timezone", "RESET work_mem", "RESET ALL", "DISCARD ALL", "LISTEN x", "UNLISTEN x", "PREPARE a AS SELECT 1",
    "EXECUTE a", "DEALLOCATE a", "DEALLOCATE ALL", LOOK, "COPY t TO STDOUT",
)  # fmt: skip
SEVERAL = (
    "SELECT 1; SELECT several", "SET LOCAL timezone = 'CET'; SELECT 1", "BEGIN; SAVEPOINT a; SET work_mem = '7MB'; FAIL",
    "ROLLBACK TO a; SELECT 1", "COMMIT; BEGIN", "COMMIT; SELECT 1", "BEGIN; SET LOCAL work_mem = '6MB'",
    "SELECT 1; FAIL; COMMIT", "COPY t FROM STDIN", "RESET timezone; COPY t FROM STDIN",
    "RESET ALL; COPY t TO STDOUT", "RESET timezone; ROLLBACK", "BEGIN; RESET ALL; COMMIT", "RESET ALL; BEGIN", LONG,
    "LISTEN x; FAIL", "DEALLOCATE ALL; SELECT 1", "PREPARE a AS SELECT 3; BEGIN", "ROLLBACK; RESET timezone; SELECT 4",
)  # fmt: skip
CALL = encode.frame(b"F", (1397).to_bytes(4, "big") + b"\0\0\0\1\0\0\0\1" + b"5" + b"\0\0")
RUN = encode.bind(b"", b"", []) + encode.execute()
DATA, DONE, GIVEN_UP = encode.frame(b"d", b"row\n"), encode.frame(b"c", b""), encode.frame(b"f", b"no\0")

_name = st.sampled_from((b"", b"", b"a", b"b"))
_portal = st.sampled_from((b"", b"", b"p", b"q"))
_most = st.sampled_from((0, 0, 1, 2, 5, 9))
_texts = st.sampled_from(TEXTS).map(str.encode)
_copied = st.lists(st.just(DATA), max_size=2).map(b"".join)
_ended = st.builds(bytes.__add__, _copied, st.sampled_from((DONE, GIVEN_UP)))
_step = st.one_of(
    st.builds(encode.parse, _name, _texts),
    st.builds(encode.bind, _portal, _name, st.just([])),
    st.builds(encode.execute, _portal, _most),
    st.builds(encode.describe, st.sampled_from((b"S", b"P")), _name),
    st.builds(encode.describe, st.just(b"P"), _portal),
    st.builds(encode.close, st.just(b"S"), _name),
    st.builds(encode.close, st.just(b"P"), _portal),
    st.just(encode.FLUSH),
    st.builds(
        lambda text, most: encode.parse(b"", text) + encode.bind(b"", b"", []) + encode.execute(b"", most),
        _texts,
        _most,
    ),
    st.builds(
        lambda portal, name, most: (
            encode.bind(portal, name, []) + encode.execute(portal, most) + encode.FLUSH
        ),
        _portal,
        _name,
        _most,
    ),
)
# The statement is not left to be bound again, which would wait for data.
_copying = st.builds(
    lambda end: encode.parse(b"", b"COPY t FROM STDIN") + RUN + end + encode.close(b"S", b""), _ended
)
_steps = st.lists(_step, max_size=3).map(b"".join)
_copy_batch = st.builds(
    lambda before, copies, behind: (
        before + copies + behind + encode.SYNC + encode.parse(b"", b"SELECT 1") + encode.SYNC
    ),
    _steps,
    _copying,
    _steps,
)
_batch = st.lists(_step, min_size=1, max_size=7).map(lambda steps: b"".join(steps) + encode.SYNC)
_simple = st.builds(
    lambda text, end: encode.query(text.encode()) + (end if "FROM STDIN" in text else b""),
    st.sampled_from(TEXTS + SEVERAL),
    _ended,
)
_cycle = st.one_of(_simple, _simple, _batch, _batch, _batch, _copy_batch, st.just(CALL))

CHOICES = (
    "SET app.tenant_id = 'acme'", "SET app.tenant_id = 'beta'", "SET app.tenant_id = 'big'",
)  # fmt: skip
ALONE = (
    "BEGIN", "BEGIN", "COMMIT", "ROLLBACK", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "SAVEPOINT a", "SAVEPOINT b",
    "ROLLBACK TO a", "ROLLBACK TO b", "RELEASE a", "SELECT 1", "SELECT several", "SELECT fail", "SELEC", "RESET ALL",
    "SET timezone = 'CET'", "SET LOCAL timezone = 'MST'", "SET work_mem = '1MB'", "RESET timezone", "DISCARD ALL",
    "PREPARE a AS SELECT 1", "EXECUTE a", "", "DEALLOCATE a", *CHOICES,
)  # fmt: skip
_alone = st.sampled_from(ALONE).map(str.encode)
_run = st.builds(
    lambda text, asked: (
        encode.parse(b"", text) + encode.bind(b"", b"", []) + asked + encode.execute() + encode.SYNC
    ),
    _alone,
    st.sampled_from((b"", encode.describe(b"S", b""))),
)
_named = st.one_of(
    st.builds(lambda name, text: encode.parse(name, text) + encode.SYNC, _name, _alone),
    st.builds(lambda name: encode.bind(b"", name, []) + encode.execute() + encode.SYNC, _name),
    st.builds(lambda name: encode.close(b"S", name) + encode.SYNC, _name),
)
_choosing = st.one_of(_alone.map(encode.query), _run, _named, st.just(encode.SYNC), st.just(CALL))


@pytest.fixture(autouse=True, scope="module")
def quiet() -> None:
    log.configure("json", "error", io.StringIO())


@settings(max_examples=examples(60), deadline=None)
@given(scripts(_cycle), TURNS, st.integers(1, 2), st.sampled_from([1, 2, 200]), st.booleans())
def test_what_clients_seldom_say(
    script: list[Any], turns: list[tuple[int, int]], servers: int, statements: int, waits: bool
) -> None:
    check(script, turns, servers, statements, waits=waits)


@settings(max_examples=examples(60), deadline=None)
@given(scripts(_choosing), TURNS, st.integers(1, 2), st.sampled_from([1, 2, 200]), st.booleans())
def test_who_chooses_its_tenant(
    script: list[Any], turns: list[tuple[int, int]], servers: int, statements: int, waits: bool
) -> None:
    check(script, turns, servers, statements, waits=waits, kind="chooser")


@settings(max_examples=examples(30), deadline=None)
@given(scripts(_cycle), TURNS, st.sampled_from([1, 200]), st.booleans())
def test_who_keeps_a_server_connection(
    script: list[Any], turns: list[tuple[int, int]], statements: int, waits: bool
) -> None:
    check(script, turns, 0, statements, waits=waits, kind="session")
