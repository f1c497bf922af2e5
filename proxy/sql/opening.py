"""How a text begins: transaction control and the choice of a tenant, which need no server yet.

A text is a run of statements; its opening are the first of them that a proxy can perform itself as long as
nothing else of the transaction has been done: BEGIN and what belongs to it, savepoints, COMMIT and ROLLBACK, and
SET, RESET, SHOW, set_config() and current_setting() of the tenant's parameter in their plain forms. Whatever is
not in one of these forms is no opening; it is for a server, and other rules say whether it may go there.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from enum import Enum
from typing import NamedTuple

from proxy.sql import constants, escapes, tree
from proxy.sql.constants import Node, string, text_of

MAX_KEPT = 4096
_LONGEST = 16_384  # an opening longer than this is no opening


class Verb(Enum):
    BEGIN = "begin"
    SET_TRANSACTION = "set transaction"
    SAVEPOINT = "savepoint"
    RELEASE = "release"
    ROLLBACK_TO = "rollback to"
    COMMIT = "commit"
    ROLLBACK = "rollback"
    NAME = "name"  # the tenant
    ASK = "ask"  # for it


class Step(NamedTuple):
    """One statement. `column` is "" where it answers with no row. A tenant is `value` (None: the session's own),
    or the parameter of that number (from 1); so is `local`. `cast`: that is what it says, but a type of the client's
    own may stand between, so that a server might read something else."""

    verb: Verb
    tag: str
    text: bytes = b""
    start: int = 0
    name: str = ""  # of the savepoint
    options: bool = False  # a BEGIN with some
    column: str = ""
    value: str | None = None
    value_from: int = 0
    local: bool = False
    local_from: int = 0
    cast: bool = False


class Opening(NamedTuple):
    """`rest`: where the text goes on behind the steps; its length if it does not."""

    steps: tuple[Step, ...]
    rest: int
    statements: int

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
_ENDS = re.compile(rb"\b(?:commit|end|rollback|abort|prepare)\b", re.IGNORECASE).search
_ENDERS = frozenset({"TRANS_STMT_COMMIT", "TRANS_STMT_ROLLBACK", "TRANS_STMT_PREPARE"})
_OF_BLOCKS = {
    "TRANS_STMT_SAVEPOINT": (Verb.SAVEPOINT, "SAVEPOINT"),
    "TRANS_STMT_RELEASE": (Verb.RELEASE, "RELEASE"),
    "TRANS_STMT_ROLLBACK_TO": (Verb.ROLLBACK_TO, "ROLLBACK"),
    "TRANS_STMT_COMMIT": (Verb.COMMIT, "COMMIT"),
    "TRANS_STMT_ROLLBACK": (Verb.ROLLBACK, "ROLLBACK"),
}


def opening(text: bytes, guc: str) -> Opening | None:
    """None where the text begins with something else. `guc` is the tenant's parameter, in lower case."""
    statements = _in_one_reading(text) if len(text) <= _LONGEST and may_open(text) else None
    if statements is None:
        return None
    steps: list[Step] = []
    rest = len(text)
    for kind, fields, start, stop in statements:
        step = _step(kind, fields, guc)
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


def _step(kind: str, fields: Node, guc: str) -> Step | None:
    if kind == "TransactionStmt":
        return _of_block(fields)
    if kind == "VariableSetStmt":
        return _set(fields, guc)
    if kind == "VariableShowStmt":
        return Step(Verb.ASK, "SHOW", column=guc) if constants.guc(fields.get("name", "")) == guc else None
    if kind == "SelectStmt":
        return _select(fields, guc)
    return None


def _of_block(fields: Node) -> Step | None:
    kind = fields.get("kind", "")
    if kind in ("TRANS_STMT_BEGIN", "TRANS_STMT_START"):
        tag = "BEGIN" if kind == "TRANS_STMT_BEGIN" else "START TRANSACTION"
        return Step(Verb.BEGIN, tag, options=bool(fields.get("options")))
    if kind not in _OF_BLOCKS or fields.get("chain"):
        return None
    verb, tag = _OF_BLOCKS[kind]
    return Step(verb, tag, name=fields.get("savepoint_name", ""))


def _set(fields: Node, guc: str) -> Step | None:
    kind = fields.get("kind")
    if kind == "VAR_SET_MULTI":
        if fields.get("name", "").lower() != "transaction":
            return None
        return Step(Verb.SET_TRANSACTION, "SET")
    if constants.guc(fields.get("name", "")) != guc:
        return None
    local = fields.get("is_local", False)
    if kind == "VAR_RESET":
        return Step(Verb.NAME, "RESET")
    if kind == "VAR_SET_DEFAULT":
        return Step(Verb.NAME, "SET", local=local)
    arguments = fields.get("args", ())
    if kind != "VAR_SET_VALUE" or len(arguments) != 1:
        return None
    value = _literal(arguments[0])
    return None if value is None else Step(Verb.NAME, "SET", value=value, local=local)


def _literal(node: Node) -> str | None:
    constant = node.get("A_Const", {})
    if "ival" in constant:
        return str(constant["ival"].get("ival", 0))
    if "fval" in constant:
        number: str = constant["fval"].get("fval", "")
        return number
    return text_of(node)


_SELECTS = frozenset({"targetList", "limitOption", "op"})


def _select(fields: Node, guc: str) -> Step | None:
    targets = fields.get("targetList", ())
    if fields.keys() - _SELECTS or fields.get("op") != "SETOP_NONE" or len(targets) != 1:
        return None
    target = targets[0].get("ResTarget", {})
    call = target.get("val", {}).get("FuncCall", {})
    if target.get("indirection") or call.keys() - {"funcname", "args", "funcformat", "location"}:
        return None
    path = [string(part) for part in call.get("funcname", ())]
    if path[:-1] not in ([], ["pg_catalog"]) or not path:
        return None
    column = target.get("name", path[-1])
    if path[-1] == "set_config":
        return _set_config(_arguments(call, ("setting_name", "new_value", "is_local")), guc, column)
    if path[-1] == "current_setting":
        arguments = _arguments(call, ("setting_name", "missing_ok"))
        name = text_of(arguments.get("setting_name"), trusting=True) or ""
        known = arguments.keys() <= {"setting_name", "missing_ok"}
        if (
            known
            and constants.guc(name) == guc
            and constants.is_true(_plain(arguments, "missing_ok")) is not None
        ):
            return Step(Verb.ASK, "SELECT 1", column=column)
    return None


def _plain(arguments: dict[str, Node], name: str) -> Node:
    return arguments.get(name, {"A_Const": {"boolval": {"boolval": True}}})


def _arguments(call: Node, names: tuple[str, ...]) -> dict[str, Node]:
    """By name; what is not known by one has the name ""."""
    given: dict[str, Node] = {}
    for at, argument in enumerate(call.get("args", ())):
        if "NamedArgExpr" in argument:
            named = argument["NamedArgExpr"]
            given[named.get("name", "")] = named.get("arg", {})
        else:
            given[names[at] if at < len(names) else ""] = argument
    return given


def _set_config(arguments: dict[str, Node], guc: str, column: str) -> Step | None:
    if arguments.keys() != {"setting_name", "new_value", "is_local"}:
        return None
    if constants.guc(text_of(arguments["setting_name"], trusting=True) or "") != guc:
        return None
    value_from = _parameter(arguments["new_value"], "text")
    local_from = _parameter(arguments["is_local"], "bool")
    if sorted(n for n in (value_from, local_from) if n) not in ([], [1], [1, 2]):
        return None
    value = None if value_from else text_of(arguments["new_value"], trusting=True)
    if not value_from and value is None and not _is_null(arguments["new_value"]):
        return None
    local = False if local_from else constants.is_true(arguments["is_local"])
    if local is None:
        return None
    cast = not (_as_written(arguments["setting_name"]) and _as_written(arguments["new_value"]))
    return Step(
        Verb.NAME, "SELECT 1", column=column, value=value, value_from=value_from, local=local,
        local_from=local_from, cast=cast,
    )  # fmt: skip


def _as_written(argument: Node) -> bool:
    cast = argument.get("TypeCast")
    return cast is None or (constants.keeps_text(cast) and _as_written(cast.get("arg", {})))


def _is_null(node: Node) -> bool:
    while "TypeCast" in node:
        node = node["TypeCast"].get("arg", {})
    return bool(node.get("A_Const", {}).get("isnull"))


def _parameter(node: Node, type_name: str) -> int:
    """The number of the parameter that the argument is, 0 if it is none."""
    if "TypeCast" in node:
        names = [string(part) for part in node["TypeCast"].get("typeName", {}).get("names", ())]
        if names not in ([type_name], ["pg_catalog", type_name]):
            return 0
        node = node["TypeCast"].get("arg", {})
    number: int = node.get("ParamRef", {}).get("number", 0)
    return number


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
    if kind != "SelectStmt" or fields.keys() - _SELECTS or fields.get("op") != "SETOP_NONE":
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
        if not may_open(text):
            return None
        kept = self._kept
        if text in kept:
            kept.move_to_end(text)
            return kept[text]
        found = opening(text, self.guc)
        if len(text) <= _LONGEST // 16:
            kept[text] = found
            if len(kept) > MAX_KEPT:
                kept.popitem(last=False)
        return found
