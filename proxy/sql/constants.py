"""The values of constants in a parse tree, as far as they can be told without the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Node = dict[str, Any]

# These parameters hold for one transaction whatever the SET says.
TRANSACTION_ONLY = frozenset({"transaction_isolation", "transaction_read_only", "transaction_deferrable"})
# What they call is called now; others (CREATE TABLE, CREATE VIEW, ...) keep the call for later statements.
RUNS_AT_ONCE = frozenset({
    "SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "CallStmt", "CopyStmt", "ExplainStmt",
    "DeclareCursorStmt", "CreateTableAsStmt", "ExecuteStmt",
})  # fmt: skip
_TEXT_TYPES = frozenset({"text", "varchar", "unknown"})
_TRUE = frozenset({"t", "tr", "tru", "true", "y", "ye", "yes", "on", "1"})


def guc(name: str) -> str:
    """A parameter's name as PostgreSQL compares it: ASCII letters without case."""
    return name.encode("utf-8", "surrogateescape").lower().decode("utf-8", "surrogateescape")


def keeps_text(cast: Node, *, trusting: bool = False) -> bool:
    """A TypeCast to a type that takes any text as it is: bpchar drops blanks at its end, name all that is too long,
    and what is called `text` in another schema may be anything. Without a schema it may be such a one, too; who is
    `trusting` does not mind."""
    target = cast.get("typeName", {})
    path = [string(part) for part in target.get("names", ())]
    known = path[:-1] == ["pg_catalog"] or (trusting and len(path) == 1)
    return known and path[-1] in _TEXT_TYPES and not target.keys() & {"typmods", "arrayBounds"}


def text_of(node: Node | None, *, trusting: bool = False) -> str | None:
    """The text of a string constant, None if it is not one, or might be another by the time it is used."""
    while node is not None and "TypeCast" in node:
        cast = node["TypeCast"]
        if not keeps_text(cast, trusting=trusting):
            return None
        node = cast.get("arg")
    constant = (node or {}).get("A_Const", {})
    if "sval" not in constant:
        return None
    text: str = constant["sval"].get("sval", "")
    return text


def parameter_number(node: Node | None) -> int:
    """Of a parameter ($1, $1::text), 0 for anything else."""
    while node is not None and "TypeCast" in node:
        cast = node["TypeCast"]
        if cast.get("typeName", {}).get("names", [{}])[-1].get("String", {}).get("sval") not in (
            "text",
            "varchar",
        ):
            return 0
        if "typmods" in cast["typeName"]:
            return 0
        node = cast.get("arg")
    number: int = (node or {}).get("ParamRef", {}).get("number", 0)
    return number


def is_true(node: Node | None) -> bool | None:
    """The value of a boolean constant, None if it is not one."""
    while node is not None and "TypeCast" in node:
        node = node["TypeCast"].get("arg")
    constant = (node or {}).get("A_Const", {})
    if "boolval" in constant:
        return bool(constant["boolval"].get("boolval", False))
    if "ival" in constant:
        return bool(constant["ival"].get("ival", 0))
    if "sval" in constant:
        return says_true(constant["sval"].get("sval", ""))
    return None


def says_true(text: str) -> bool:
    return guc(text).strip() in _TRUE


def string(node: Any) -> str:
    """The text of a String node, which names something; "" for any other."""
    if type(node) is not dict:
        return ""
    text: str = node.get("String", {}).get("sval", "")
    return text


def options(fields: Node, key: str = "options") -> Iterator[tuple[str, Node]]:
    """The DefElems of a statement: the name of each, and what it says."""
    for option in fields.get(key, ()):
        element = option.get("DefElem", {})
        yield element.get("defname", ""), element.get("arg", {})
