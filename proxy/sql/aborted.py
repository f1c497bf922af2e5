"""What PostgreSQL finds out about a text in a transaction that has failed, where it is parsed and no more."""

from __future__ import annotations

from typing import Any, NamedTuple

from proxy.errors import BadSyntax
from proxy.sql import tree
from proxy.sql.constants import Node

_EXITS = frozenset(
    {"TRANS_STMT_COMMIT", "TRANS_STMT_ROLLBACK", "TRANS_STMT_ROLLBACK_TO", "TRANS_STMT_PREPARE"}
)
_ANSWER_WITH_ROWS = frozenset({"ExplainStmt", "VariableShowStmt", "ExecuteStmt", "CallStmt"})


class Reading(NamedTuple):
    """statements: how many. exits: the only one ends the block or its failure. rows: it answers with rows, or may.
    parameters: how many it has at least."""

    statements: int = 0
    exits: bool = False
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
    exits = kind == "TransactionStmt" and fields.get("kind") in _EXITS
    return Reading(1, exits, _rows(kind, fields), _parameters(fields))


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
