"""One statement as a step that a proxy can perform itself: transaction control, and the tenant's parameter."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from proxy.sql import constants
from proxy.sql.constants import Node, string, text_of

_TEXT, _BOOL = 25, 16
_OF_SET_CONFIG = ("setting_name", "new_value", "is_local")
SELECTS = frozenset({"targetList", "limitOption", "op"})


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
    own may stand between, so that a server might read something else. `columns`: it sets other parameters as well, which
    is for a server that knows the tenant; its own parameters have these `types`."""

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
    columns: tuple[str, ...] = ()
    types: tuple[int, ...] = ()
    chain: bool = False


_OF_BLOCKS = {
    "TRANS_STMT_SAVEPOINT": (Verb.SAVEPOINT, "SAVEPOINT"),
    "TRANS_STMT_RELEASE": (Verb.RELEASE, "RELEASE"),
    "TRANS_STMT_ROLLBACK_TO": (Verb.ROLLBACK_TO, "ROLLBACK"),
    "TRANS_STMT_COMMIT": (Verb.COMMIT, "COMMIT"),
    "TRANS_STMT_ROLLBACK": (Verb.ROLLBACK, "ROLLBACK"),
}


def step_of(kind: str, fields: Node, guc: str) -> Step | None:
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


def _select(fields: Node, guc: str) -> Step | None:
    targets = fields.get("targetList", ())
    if fields.keys() - SELECTS or fields.get("op") != "SETOP_NONE" or not targets:
        return None
    if len(targets) > 1:
        return _several(targets, guc)
    called = _called(targets[0])
    if called is None:
        return None
    function, column, call = called
    if function == "set_config":
        return _set_config(_arguments(call, _OF_SET_CONFIG), guc, column)
    if function == "current_setting":
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


def _called(target: Node) -> tuple[str, str, Node] | None:
    """The built-in function that a column calls, what the column is called, and the call."""
    target = target.get("ResTarget", {})
    call = target.get("val", {}).get("FuncCall", {})
    if target.get("indirection") or call.keys() - {"funcname", "args", "funcformat", "location"}:
        return None
    path = [string(part) for part in call.get("funcname", ())]
    if path[:-1] not in ([], ["pg_catalog"]) or not path:
        return None
    return path[-1], target.get("name", path[-1]), call


def _several(targets: Sequence[Node], guc: str) -> Step | None:
    """The tenant is set once, and other parameters beside it whose names and values can be told."""
    named: Step | None = None
    columns: list[str] = []
    types: dict[int, int] = {}
    for target in targets:
        function, column, call = _called(target) or ("", "", {})
        arguments = _arguments(call, _OF_SET_CONFIG)
        if function != "set_config" or arguments.keys() != set(_OF_SET_CONFIG):
            return None
        parameter = text_of(arguments["setting_name"])
        if parameter is None:
            return None
        for argument, type_name, oid in (("new_value", "text", _TEXT), ("is_local", "bool", _BOOL)):
            number = _parameter(arguments[argument], type_name)
            if types.setdefault(number, oid) != oid and number:
                return None
        if constants.guc(parameter) == guc:
            step = _set_config(arguments, guc, column, alone=False)
            if step is None or step.cast or named is not None:
                return None
            named = step
        elif not _is_told(arguments):
            return None
        columns.append(column)
    types.pop(0, None)
    if named is None or sorted(types) != list(range(1, len(types) + 1)):
        return None
    return named._replace(columns=tuple(columns), types=tuple(types[number] for number in sorted(types)))


def _is_told(arguments: dict[str, Node]) -> bool:
    """Value and scope are constants or parameters."""
    value, local = arguments["new_value"], arguments["is_local"]
    return (text_of(value) is not None or _is_null(value) or bool(_parameter(value, "text"))) and (
        constants.is_true(local) is not None or bool(_parameter(local, "bool"))
    )


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


def _set_config(arguments: dict[str, Node], guc: str, column: str, *, alone: bool = True) -> Step | None:
    if arguments.keys() != {"setting_name", "new_value", "is_local"}:
        return None
    if constants.guc(text_of(arguments["setting_name"], trusting=True) or "") != guc:
        return None
    value_from = _parameter(arguments["new_value"], "text")
    local_from = _parameter(arguments["is_local"], "bool")
    if alone and sorted(n for n in (value_from, local_from) if n) not in ([], [1], [1, 2]):
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
