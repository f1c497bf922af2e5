"""What is found out about a text that is parsed and no more."""

from __future__ import annotations

import pytest

from proxy.errors import BadSyntax
from proxy.sql.aborted import Reading, read, way_out
from proxy.sql.opening import Opening
from proxy.sql.steps import Step, Verb
from proxy.sql.tree import MAX_TREE


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"", Reading()),
        (b" ; -- nothing\n;", Reading()),
        (b"SELECT 1; SELECT 2", Reading(2)),
        (b"SELECT $1, $3", Reading(1, rows=True, parameters=3)),
        (b"SELECT 1 INTO t", Reading(1)),
        (b"INSERT INTO t VALUES ($2) RETURNING x", Reading(1, rows=True, parameters=2)),
        (b"DELETE FROM t", Reading(1)),
        (b"SHOW work_mem", Reading(1, rows=True)),
        (b"FETCH c", Reading(1, rows=True)),
        (b"MOVE c", Reading(1)),
        (b"COMMIT", Reading(1)),
        (b"BEGIN", Reading(1)),
        (b"SELECT '\xff'", None),
    ],
)
def test_what_is_found(text: bytes, found: Reading | None) -> None:
    assert read(text) == found


def test_nobody_walks_a_large_tree() -> None:
    assert read(b"SELECT " + b"1+" * (MAX_TREE // 40) + b"1") is None


@pytest.mark.parametrize(
    ("text", "message", "position"),
    [
        ("SELECT 'ü'; oops", 'syntax error at or near "oops"', 13),
        ("SELECT (1", "syntax error at end of input", 10),
        ("SELECT 'ü", 'unterminated quoted string at or near "\'ü"', 8),
    ],
)
def test_what_is_no_sql(text: str, message: str, position: int) -> None:
    with pytest.raises(BadSyntax) as caught:
        read(text.encode())
    assert (caught.value.message, caught.value.position) == (message, position)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"END WORK", Step(Verb.COMMIT, "ROLLBACK")),
        (b"ABORT AND NO CHAIN", Step(Verb.ROLLBACK, "ROLLBACK")),
        (b"COMMIT AND CHAIN", Step(Verb.COMMIT, "ROLLBACK", chain=True)),
        (b"ROLLBACK TO SAVEPOINT A", Step(Verb.ROLLBACK_TO, "ROLLBACK", name="a")),
        (b"PREPARE TRANSACTION 'x'", Step(Verb.ROLLBACK, "ROLLBACK")),
        (b"SAVEPOINT a", None),
        (b"COMMIT PREPARED 'x'", None),
        (b"SELECT 1; COMMIT", None),
        (b" ; -- nothing", None),
        (b"COMMIT; oops", None),
    ],
)
def test_what_leads_out(text: bytes, found: Step | None) -> None:
    way = way_out(text)
    assert way == (None if found is None else Opening((found._replace(text=text),), len(text), 1))


def test_what_follows_the_way_out_is_left() -> None:
    way = way_out(b"/* a */ ABORT AND CHAIN; SELECT 1; SELECT 2")
    assert way is not None
    assert (way.rest, way.statements, way.sole) == (25, 3, None)
