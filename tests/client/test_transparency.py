"""Whatever clients ask, and however their bytes are cut and mixed, each reads what a server of its own would say."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy import log
from proxy.wire import encode
from tests.client.play import STARTUPS, TURNS, check, scripts
from tests.client.simulated import LOOK
from tests.examples import examples

SIMPLE = (
    "SELECT 1", "SELECT 2", "FAIL", "BEGIN", "COMMIT", "ROLLBACK", "SET timezone = 'CET'", "SET timezone = 'MST'",
    "SET application_name = 'x'", "RESET timezone", "RESET ALL", "DISCARD ALL", "DEALLOCATE ALL", "DEALLOCATE a",
    "LISTEN x", "SELECT 1; RESET timezone", "RESET timezone; FAIL", "UNLISTEN x", "SET work_mem = '1MB'",
    "SET work_mem = '2MB'", "RESET work_mem", "BEGIN; SET work_mem = '3MB'; ROLLBACK", "SET work_mem = '5MB'; FAIL",
    "LISTEN x; UNLISTEN x",
)  # fmt: skip
PREPARED = (
    "SELECT 1",
    "SELECT 2",
    "SELECT 3",
    "SELEC",
    "FAIL",
    "BEGIN",
    "COMMIT",
    "SET timezone = 'CET'",
    "SET work_mem = '1MB'",
    "RESET work_mem",
    "RESET ALL",
    "DISCARD ALL",
    "DEALLOCATE ALL",
    "DEALLOCATE a",
)
NAMES = (b"", b"a", b"a", b"b")

_text = st.sampled_from(PREPARED).map(str.encode)
_name = st.sampled_from(NAMES)
_step = st.one_of(
    st.builds(encode.parse, _name, _text),
    st.builds(lambda name: encode.bind(b"", name, []) + encode.execute(), _name),
    st.builds(lambda name: encode.bind(b"", name, []), _name),
    st.builds(lambda name: encode.describe(b"S", name), _name),
    st.builds(lambda name: encode.close(b"S", name), _name),
    st.just(encode.execute()),
)
_batch = st.lists(_step, min_size=1, max_size=5).map(lambda steps: b"".join(steps) + encode.SYNC)
_simple = st.sampled_from(SIMPLE).map(lambda text: encode.query(text.encode()))
_copy = st.tuples(
    st.sampled_from([b"COPY t FROM STDIN", b"RESET timezone; COPY t FROM STDIN"]).map(
        lambda text: encode.query(text) + encode.frame(b"d", b"row\n")
    ),
    st.sampled_from(
        [encode.frame(b"c", b""), encode.frame(b"f", b"no\0"), encode.SYNC + encode.frame(b"c", b"")]
    ),
).map(b"".join)
_cycle = st.one_of(_simple, _batch, _batch, _copy)

IN_SQL = (
    "PREPARE a AS SELECT 1", "PREPARE b AS SELECT 2", "PREPARE a AS SELECT 3", "PREPARE b AS " + LOOK, "PREPARE c AS SELEC",
    "PREPARE tiergate_1 AS SELECT 4", "EXECUTE a", "EXECUTE a", "EXECUTE b", "EXECUTE b", "EXECUTE tiergate_1",
    "EXECUTE tiergate_2", "DEALLOCATE a", "DEALLOCATE b", "DEALLOCATE tiergate_1", LOOK, "DEALLOCATE ALL", "DISCARD ALL",
    "BEGIN", "COMMIT", "FAIL",
)  # fmt: skip
SEVERAL = (
    "PREPARE a AS SELECT 1; EXECUTE a; DEALLOCATE a", "DEALLOCATE a; PREPARE a AS SELECT 5; CLOSE fails",
    "EXECUTE a; EXECUTE b", "PREPARE b AS SELECT 6; PREPARE a AS SELECT 7",
    "DEALLOCATE ALL; PREPARE a AS SELECT 8", "DEALLOCATE b; " + LOOK,
)  # fmt: skip
_sql_text = st.sampled_from(IN_SQL).map(str.encode)
_sql_step = st.one_of(
    _step,
    st.builds(encode.parse, _name, _sql_text),
    st.builds(
        lambda name, text: encode.parse(name, text) + encode.bind(b"", name, []) + encode.execute(),
        _name,
        _sql_text,
    ),
    st.builds(lambda text: encode.parse(b"", text) + encode.bind(b"", b"", []) + encode.execute(), _sql_text),
)
_sql_batch = st.lists(_sql_step, min_size=1, max_size=5).map(lambda steps: b"".join(steps) + encode.SYNC)
_sql_simple = st.sampled_from(IN_SQL + SEVERAL).map(lambda text: encode.query(text.encode()))
_sql_cycle = st.one_of(_sql_simple, _sql_simple, _sql_batch, _simple)


@pytest.fixture(autouse=True, scope="module")
def quiet() -> None:
    log.configure("json", "error", io.StringIO())


@settings(max_examples=examples(80), deadline=None)
@given(scripts(_cycle), TURNS, st.integers(1, 2), st.sampled_from([1, 2, 200]))
def test_clients_that_wait_for_their_answers(
    script: list[Any], turns: list[tuple[int, int]], servers: int, statements: int
) -> None:
    check(script, turns, servers, statements, waits=True)


@settings(max_examples=examples(80), deadline=None)
@given(scripts(_cycle), TURNS, st.integers(1, 2), st.sampled_from([1, 2, 200]))
def test_clients_that_do_not(
    script: list[Any], turns: list[tuple[int, int]], servers: int, statements: int
) -> None:
    check(script, turns, servers, statements, waits=False)


@settings(max_examples=examples(80), deadline=None)
@given(scripts(_sql_cycle), TURNS, st.integers(1, 2), st.sampled_from([1, 2, 200]), st.booleans())
def test_clients_that_prepare_in_sql(
    script: list[Any], turns: list[tuple[int, int]], servers: int, statements: int, waits: bool
) -> None:
    check(script, turns, servers, statements, waits=waits)


RESET_A = encode.parse(b"a", b"RESET ALL") + encode.bind(b"", b"a", []) + encode.execute()
SELECT = encode.parse(b"", b"SELECT 1")
RUN = encode.bind(b"", b"", []) + encode.execute()


@pytest.mark.parametrize(
    "cycles",
    [
        [SELECT + RESET_A + RUN + encode.SYNC],
        [SELECT + RUN + RESET_A + RUN + encode.SYNC],
        [SELECT + RESET_A + encode.FLUSH + RUN + encode.execute() + encode.SYNC],
        [SELECT + RESET_A + encode.SYNC, encode.bind(b"", b"a", []) + encode.execute() + RUN + encode.SYNC],
        [
            RESET_A + encode.parse(b"", b"SET timezone = 'MST'") + RUN + encode.SYNC,
            SELECT + RUN + encode.SYNC,
        ],
        [encode.query(b"BEGIN"), RESET_A + SELECT + RUN + encode.SYNC, encode.query(b"FAIL")],
        [
            encode.query(b"SET timezone = 'MST'"),
            RESET_A
            + encode.bind(b"p", b"a", [])
            + encode.close(b"P", b"p")
            + encode.execute(b"p")
            + encode.SYNC,
            SELECT + RUN + encode.SYNC,
        ],
    ],
)
@pytest.mark.parametrize("startup", STARTUPS)
def test_behind_a_reset_the_same_batch_goes_on_as_it_began(
    startup: dict[str, str], cycles: list[bytes]
) -> None:
    check([("acme", startup, cycles)], [], 1, 200, waits=True)


def test_a_reset_that_fails_with_its_batch_has_reset_nothing() -> None:
    reset = encode.parse(b"", b"RESET ALL") + encode.bind(b"", b"", []) + encode.execute()
    failing = encode.bind(b"", b"missing", []) + encode.SYNC
    cycles = [encode.query(b"SET timezone = 'MST'"), reset + failing, encode.query(b"SELECT 1")]
    check([("acme", {"timezone": "CET"}, cycles)], [], 1, 200, waits=True)


def test_a_statement_that_executes_what_servers_might_call_it() -> None:
    describe = encode.parse(b"b", b"EXECUTE tiergate_1") + encode.describe(b"S", b"b")
    runs = encode.bind(b"", b"b", []) + encode.execute() + encode.SYNC
    prepares = encode.query(b"PREPARE tiergate_1 AS SELECT 4")
    for cycles in ([describe + runs], [prepares, describe + runs, describe + runs]):
        check([("acme", {}, cycles)], [], 1, 1, waits=True)


def test_nobody_is_told_of_a_statement_before_it_is_known_that_the_transaction_goes_on() -> None:
    """The connection has it already: another client's."""
    parse = encode.parse(b"b", b"SELECT 1") + encode.SYNC
    cycles = [encode.query(b"BEGIN"), encode.query(b"FAIL"), parse]
    turns = [
        (0, 5_000),
        *[(1, 5_000)] * 4,
        *[(2, 5_000)] * 3,
    ]  # one is answered, and then the other says all of it
    check([("acme", {}, [parse]), ("acme", {}, cycles)], turns, 1, 200, waits=False)


def test_what_an_execute_names_may_come_after_it_was_described() -> None:
    cycles = [
        encode.parse(b"a", b"EXECUTE q") + encode.describe(b"S", b"a") + encode.SYNC,
        encode.query(b"PREPARE q AS SELECT 4"),
        encode.parse(b"b", b"SELECT 1") + encode.bind(b"", b"b", []) + encode.execute() + encode.SYNC,
        encode.bind(b"", b"a", []) + encode.execute() + encode.SYNC,
    ]
    check([("acme", {}, cycles)], [], 1, 1, waits=True)


def test_a_name_that_is_taken_is_taken_in_a_failed_transaction_too() -> None:
    begin = encode.parse(b"a", b"BEGIN") + encode.bind(b"", b"a", []) + encode.execute()
    fails = encode.parse(b"b", b"SELECT 1") + begin + encode.bind(b"", b"", []) + encode.SYNC
    cycles = [
        fails,
        encode.parse(b"b", b"COMMIT") + encode.SYNC,
        encode.query(b"COMMIT"),
        SELECT + RUN + encode.SYNC,
    ]
    cycles += [encode.bind(b"", b"b", []) + encode.execute() + encode.SYNC]
    check([("acme", {}, cycles)], [], 1, 1, waits=True)


PREPARE_A = encode.parse(b"a", b"SELECT 1")
RUN_A = encode.bind(b"", b"a", []) + encode.execute()
FAILS = encode.bind(b"", b"missing", [])


@pytest.mark.parametrize(
    "cycles",
    [
        [PREPARE_A + encode.SYNC, encode.query(b"DEALLOCATE ALL"), PREPARE_A + RUN_A + encode.SYNC],
        [PREPARE_A + encode.SYNC, encode.query(b"DISCARD ALL"), PREPARE_A + RUN_A + encode.SYNC],
        [
            encode.parse(b"d", b"DEALLOCATE ALL") + PREPARE_A + encode.bind(b"", b"d", []) + encode.execute()
            + PREPARE_A + RUN_A + encode.SYNC,
            RUN_A + encode.SYNC,
        ],
        [
            encode.parse(b"d", b"DISCARD ALL") + SELECT + encode.bind(b"", b"d", []) + encode.execute()
            + RUN + PREPARE_A + RUN_A + FAILS + encode.SYNC,
            RUN_A + encode.SYNC, RUN + encode.SYNC,
        ],
        [encode.parse(b"d", b"DEALLOCATE a") + PREPARE_A + encode.bind(b"", b"d", []) + encode.execute() + RUN_A],
    ],
)  # fmt: skip
@pytest.mark.parametrize("waits", [True, False])
def test_what_is_prepared_behind_a_deallocate_all_stays(cycles: list[bytes], waits: bool) -> None:
    if not waits:
        cycles = [b"".join(cycles)]
    check([("acme", {"timezone": "CET"}, cycles)], [], 1, 200, waits=waits)


@pytest.mark.parametrize(
    "cycles",
    [
        [FAILS + PREPARE_A + encode.SYNC, RUN_A + encode.SYNC],
        [FAILS + SELECT + encode.SYNC, RUN + encode.SYNC],
        [PREPARE_A + encode.SYNC, FAILS + encode.close(b"S", b"a") + encode.SYNC, RUN_A + encode.SYNC],
        [SELECT + encode.SYNC, FAILS + encode.parse(b"", b"SELECT 2") + encode.SYNC, RUN + encode.SYNC],
        [SELECT + encode.SYNC, FAILS + encode.close(b"S", b"") + encode.SYNC, RUN + encode.SYNC],
        [
            SELECT + encode.SYNC, FAILS + encode.parse(b"", b"SELECT 2") + encode.SYNC,
            FAILS + encode.parse(b"", b"SELECT 3") + encode.parse(b"", b"SELECT 3") + encode.SYNC,
            RUN + encode.SYNC,
        ],
        [SELECT + encode.SYNC, FAILS + encode.query(b"SELECT 2"), encode.SYNC, RUN + encode.SYNC],
    ],
)  # fmt: skip
@pytest.mark.parametrize("statements", [1, 200])
def test_what_a_batch_that_fails_leaves_is_what_the_next_one_meets(
    cycles: list[bytes], statements: int
) -> None:
    """Although that has been sent before the failure was known; and nobody meets what is another's."""
    other = [encode.parse(b"a", b"SELECT 9") + encode.parse(b"", b"SELECT 8") + PREPARE_A + encode.SYNC]
    script = [("acme", {}, other), ("acme", {}, [b"".join(cycles)]), ("beta", {}, cycles)]
    check(script, [], 1, statements, waits=False)


@pytest.mark.parametrize(
    "copy",
    [
        encode.frame(b"d", b"row\n") + encode.frame(b"c", b""),
        encode.SYNC + encode.frame(b"d", b"row\n") + encode.frame(b"c", b""),
        encode.frame(b"f", b"no\0"),
    ],
)
@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("begin", [[], [encode.query(b"BEGIN")]])
def test_what_is_set_again_behind_a_copy_is_not_its_data(
    begin: list[bytes], copy: bytes, waits: bool
) -> None:
    reset = encode.query(b"RESET timezone; COPY t FROM STDIN") + copy
    cycles = [*begin, reset, encode.query(b"SELECT 1"), encode.execute() + encode.SYNC]
    check([("acme", {"timezone": "CET"}, cycles)], [], 1, 200, waits=waits)


def test_a_reset_that_failed_with_its_text_has_reset_nothing() -> None:
    cycles = [
        encode.query(b"SET timezone = 'MST'"),
        encode.query(b"RESET timezone; FAIL"),
        encode.query(b"SELECT 1"),
    ]
    check([("acme", {"timezone": "CET"}, cycles)], [], 1, 200, waits=True)
