"""How a text begins: transaction control and the choice of a tenant, which need no server yet.

A text is a run of statements; its opening are the first of them that a proxy can perform itself as long as
nothing else of the transaction has been done: BEGIN and what belongs to it, savepoints, COMMIT and ROLLBACK, and
SET, RESET, SHOW, set_config() and current_setting() of the tenant's parameter in their plain forms. Whatever is
not in one of these forms is no opening; it is for a server, and other rules say whether it may go there.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import NamedTuple

from proxy.sql import constants, escapes, tree
from proxy.sql.constants import Node, string, text_of
from proxy.sql.steps import SELECTS, Step, step_of

MAX_KEPT = 4096
_LONGEST = 16_384  # an opening longer than this is no opening


class Opening(NamedTuple):
    """`rest`: where the text goes on behind the steps; its length if it does not."""

    steps: tuple[Step, ...]
    rest: int
    statements: int

    @property
    def typed(self) -> bool:
        """One of the steps has parameters of its own."""
        return any(step.types for step in self.steps)

    @property
    def sole(self) -> Step | None:
        """The one step that is all."""
        return self.steps[0] if self.statements == 1 and len(self.steps) == 1 else None


_Located = tuple[str, Node, int, int]
_WORD = (
    rb"(?:begin|start|set|savepoint|release|rollback|abort|commit|end|reset|show)\b"
    rb"|select\s+(?:pg_catalog\s*\.\s*)?(?:set_config|current_setting)\b|/\*|--|select\s*/\*|select\s*--|\("
)
may_open = re.compile(rb"[\s;]*(?:%s)" % _WORD, re.IGNORECASE).match
_SPACE = b" \t\n\r\f\v"
# What a byte may be: that with which `may_open` begins, a space, and what stands behind a SELECT there.
_OPENS, _IS_SPACE, _SELECTED = 1, 2, 4
_S, _E, _L = b"sel"


def _marks() -> bytes:
    table = bytearray(256)
    for mark, letters in ((_OPENS, b"bsrace/-(;"), (_SELECTED, b"psc/-")):
        for byte in letters + letters.upper():
            table[byte] |= mark
    for byte in _SPACE:
        table[byte] |= _OPENS | _IS_SPACE
    return bytes(table)


_MARKS = _marks()
_ENDS = re.compile(rb"\b(?:commit|end|rollback|abort|prepare)\b", re.IGNORECASE).search
_ENDERS = frozenset({"TRANS_STMT_COMMIT", "TRANS_STMT_ROLLBACK", "TRANS_STMT_PREPARE"})


def works(data: bytes, at: int) -> bool:
    """The text that begins there is no opening. A few bytes say so of most, ahead of the pattern."""
    size = len(data)
    if at + 3 <= size:
        first = data[at]
        if not _MARKS[first] & _OPENS:
            return True
        if first | 0x20 == _S and data[at + 1] | 0x20 == _E and data[at + 2] | 0x20 == _L:
            at_list = at + 6
            while at_list < size and _MARKS[data[at_list]] & _IS_SPACE:
                at_list += 1
            if at_list < size and not _MARKS[data[at_list]] & _SELECTED:
                return True
    return may_open(data, at) is None


def opening(text: bytes, guc: str) -> Opening | None:
    """None where the text begins with something else. `guc` is the tenant's parameter, in lower case."""
    statements = _in_one_reading(text) if len(text) <= _LONGEST and may_open(text) else None
    if statements is None:
        return None
    steps: list[Step] = []
    rest = len(text)
    for kind, fields, start, stop in statements:
        step = step_of(kind, fields, guc)
        if step is None:
            rest = start
            break
        steps.append(step._replace(text=text[start:stop], start=start))
    return Opening(tuple(steps), rest, len(statements)) if steps else None


def _in_one_reading(text: bytes) -> list[_Located] | None:
    """The statements; None where no parser takes the text, or where its meaning depends on the session."""
    try:
        statements = tree.located(text)
    except tree.Unreadable:
        return None
    return None if escapes.reread(text) is not text or escapes.doubtful(text) else statements


def _in_both_readings(text: bytes) -> list[_Located]:
    """The statements, with and without escapes in strings. Raises Unreadable."""
    statements = tree.located(text)
    other = escapes.reread(text)
    return statements if other is text else statements + tree.located(other)


def ends_block(text: bytes) -> bool:
    """One of the statements ends a transaction block. If in doubt it does."""
    return _enders(text) != 0


def ends_block_early(text: bytes) -> bool:
    """The same, and something follows, be it in the next transaction of a chain."""
    return _enders(text) == 2


def goes_back_to(text: bytes) -> frozenset[str] | None:
    """The savepoints to which its statements go back; None for nobody knows."""
    if not _ENDS(text):
        return frozenset()
    try:
        statements = _in_both_readings(text)
    except tree.Unreadable:
        return None
    return frozenset(
        fields.get("savepoint_name", "")
        for kind, fields, _, _ in statements
        if kind == "TransactionStmt" and fields.get("kind") == "TRANS_STMT_ROLLBACK_TO"
    )


def resets_early(text: bytes) -> bool:
    """Behind a RESET ALL stands what does not concern the session only. If in doubt it does."""
    try:
        statements = _in_both_readings(text)
    except tree.Unreadable:
        return True
    reset = False
    for kind, fields, _, _ in statements:
        if reset and not _of_session(kind, fields):
            return True
        reset = reset or fields.get("kind") == "VAR_RESET_ALL"
    return False


def _enders(text: bytes) -> int:
    if not _ENDS(text):
        return 0
    try:
        statements = _in_both_readings(text)
    except tree.Unreadable:
        return 2
    found = 0
    for at, (kind, fields, _, _) in enumerate(statements, 1):
        if kind == "TransactionStmt" and fields.get("kind") in _ENDERS:
            found = 2 if at < len(statements) or fields.get("chain") else max(found, 1)
    return found


# --- what may be asked where no tenant has been chosen -----------------------------------------------

_OF_SESSIONS = frozenset(
    {
        "VariableShowStmt",
        "DiscardStmt",
        "DeallocateStmt",
        "UnlistenStmt",
        "ClosePortalStmt",
        "TransactionStmt",
    }
)
_HARMLESS_CALLS = frozenset(
    {"version", "current_schema", "current_schemas", "current_database", "pg_backend_pid", "pg_is_in_recovery",
     "pg_advisory_unlock_all", "current_setting"}
)  # fmt: skip
_HARMLESS_WORDS = re.compile(
    rb"[\s;]*(?:show|reset|discard|deallocate|unlisten|close|set|select|begin|start|commit|end|rollback|abort"
    rb"|savepoint|release|/\*|--)",
    re.IGNORECASE,
).match
_ROLES = frozenset({"role", "session_authorization"})
_OF_SOME_CLUSTER = frozenset({"TRANS_STMT_COMMIT_PREPARED", "TRANS_STMT_ROLLBACK_PREPARED"})


def concerns_session_only(text: bytes) -> bool:
    """Every statement shows, sets or clears something of the session, and reads no data of anybody."""
    if not text.strip(b" \t\r\n;"):
        return True
    statements = _in_one_reading(text) if len(text) <= _LONGEST and _HARMLESS_WORDS(text) else None
    return statements is not None and all(_of_session(kind, fields) for kind, fields, _, _ in statements)


def _of_session(kind: str, fields: Node) -> bool:
    if kind == "VariableSetStmt":
        return constants.guc(fields.get("name", "")) not in _ROLES
    if kind in _OF_SESSIONS:
        return fields.get("kind") not in _OF_SOME_CLUSTER
    if kind != "SelectStmt" or fields.keys() - SELECTS or fields.get("op") != "SETOP_NONE":
        return False
    return all(
        _harmless(target.get("ResTarget", {}).get("val", {})) for target in fields.get("targetList", ())
    )


def _harmless(node: Node) -> bool:
    if _constant(node):
        return True  # SELECT 1, by which a driver's pool asks whether its connection works
    call = node.get("FuncCall", {})
    path = [string(part) for part in call.get("funcname", ())]
    if not path or path[:-1] not in ([], ["pg_catalog"]):
        return False
    arguments = call.get("args", ())
    if path[-1] == "set_config":
        name = text_of(arguments[0]) if len(arguments) == 3 else None
        if name is None or constants.guc(name) in _ROLES:
            return False
        return all(_constant(argument) or "ParamRef" in argument for argument in arguments[1:])
    return path[-1] in _HARMLESS_CALLS and all(_constant(argument) for argument in arguments)


def _constant(node: Node) -> bool:
    return "A_Const" in node


class Openings:
    """Openings by text, the last ones kept."""

    __slots__ = ("_kept", "guc")

    def __init__(self, guc: str) -> None:
        self.guc = constants.guc(guc)
        self._kept: OrderedDict[bytes, Opening | None] = OrderedDict()

    def of(self, text: bytes) -> Opening | None:
        kept = self._kept
        if text in kept:
            kept.move_to_end(text)
            return kept[text]
        if works(text, 0):
            return None
        found = opening(text, self.guc)
        if len(text) <= _LONGEST // 16:
            kept[text] = found
            if len(kept) > MAX_KEPT:
                kept.popitem(last=False)
        return found
