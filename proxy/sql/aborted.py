"""What PostgreSQL finds out about a text in a transaction that has failed, where it is parsed and no more."""

from __future__ import annotations

from typing import Any, NamedTuple

from proxy.errors import BadSyntax
from proxy.sql import tree
from proxy.sql.constants import Node
from proxy.sql.opening import Opening
from proxy.sql.steps import Step, Verb

# What is prepared there is rolled back.
_EXITS = {
    "TRANS_STMT_COMMIT": Verb.COMMIT,
    "TRANS_STMT_ROLLBACK": Verb.ROLLBACK,
    "TRANS_STMT_ROLLBACK_TO": Verb.ROLLBACK_TO,
    "TRANS_STMT_PREPARE": Verb.ROLLBACK,
}
_ANSWER_WITH_ROWS = frozenset({"ExplainStmt", "VariableShowStmt", "ExecuteStmt", "CallStmt"})


class Reading(NamedTuple):
    """statements: how many. rows: the only one answers with rows, or may. parameters: how many it has at least."""

    statements: int = 0
    rows: bool = False
    parameters: int = 0


def read(text: bytes) -> Reading | None:
    """None: nobody knows. Raises BadSyntax."""
    try:
        statements = tree.located(text)
    except tree.Unreadable as error:
        refused = tree.complaint(text, error)
        if refused is None:
            return None
        message, position = refused
        raise BadSyntax(message, position=position) from None
    if len(statements) != 1:
        return Reading(len(statements))
    kind, fields, _, _ = statements[0]
    return Reading(1, _rows(kind, fields), _parameters(fields))


def way_out(text: bytes) -> Opening | None:
    """The first statement, if that is one which ends the block or its failure; None for any other, or if nobody
    knows. Those among them are found that nowhere else are for a proxy."""
    try:
        statements = tree.located(text)
    except tree.Unreadable:
        return None
    kind, fields, start, stop = statements[0] if statements else ("", {}, 0, 0)
    verb = _EXITS.get(fields.get("kind", "")) if kind == "TransactionStmt" else None
    if verb is None:
        return None
    step = Step(
        verb,
        "ROLLBACK",
        text[start:stop],
        start,
        fields.get("savepoint_name", ""),
        chain=fields.get("chain", False),
    )
    return Opening((step,), statements[1][2] if len(statements) > 1 else len(text), len(statements))


def _rows(kind: str, fields: Node) -> bool:
    if kind == "SelectStmt":
        return "intoClause" not in fields
    if kind == "FetchStmt":
        return not fields.get("ismove")
    return kind in _ANSWER_WITH_ROWS or "returningClause" in fields


def _parameters(node: Any) -> int:
    """The highest number of any."""
    highest, left = 0, [node]
    while left:
        node = left.pop()
        if isinstance(node, list):
            left += node
        elif isinstance(node, dict):
            highest = max(highest, node.get("ParamRef", {}).get("number", 0))
            left += node.values()
    return highest
