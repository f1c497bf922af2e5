"""set_config() over pg_settings with the name in the WHERE, as pg_dump 17 and newer writes it:

    SELECT set_config(name, '...', false) FROM pg_settings WHERE name = 'restrict_nonsystem_relation_kind'

The name is a column, and yet it can only be the one that the text says: a row with another is not selected.
Only this shape is told, since any other source, alias or CTE could give `name` another meaning. (Whoever puts a
view of its own in the place of pg_settings can make functions too, whose bodies nobody sees either.)
"""

from __future__ import annotations

from collections.abc import Iterator

from proxy.sql.constants import Node, string, text_of

_PARTS = frozenset({"targetList", "fromClause", "whereClause", "limitOption", "op"})


def name_told(select: Node) -> None:
    """Puts the name of such a top-level SELECT into its calls of set_config."""
    if not select.keys() <= _PARTS or select.get("op") != "SETOP_NONE":
        return
    source = select.get("fromClause", [])
    if len(source) != 1 or not _is_pg_settings(source[0].get("RangeVar", {})):
        return
    names = set(_demanded(select.get("whereClause", {})))
    if len(names) != 1:
        return
    for target in select.get("targetList", ()):
        call = target.get("ResTarget", {}).get("val", {}).get("FuncCall", {})
        arguments = call.get("args", [])
        if (
            string((call.get("funcname") or [None])[-1]) == "set_config"
            and arguments
            and _is_name(arguments[0])
        ):
            arguments[0] = {"A_Const": {"sval": {"sval": next(iter(names))}}}


def _is_pg_settings(source: Node) -> bool:
    return (
        source.get("relname") == "pg_settings"
        and source.get("schemaname", "pg_catalog") == "pg_catalog"
        and not source.keys() & {"catalogname", "alias"}
    )


def _demanded(where: Node) -> Iterator[str]:
    """The names that every row must have."""
    if "BoolExpr" in where:
        if where["BoolExpr"].get("boolop") == "AND_EXPR":
            for part in where["BoolExpr"].get("args", ()):
                yield from _demanded(part)
        return
    compared = where.get("A_Expr", {})
    operator = [string(part) for part in compared.get("name", ())]
    if compared.get("kind") != "AEXPR_OP" or operator not in (["="], ["pg_catalog", "="]):
        return
    for column, constant in (("lexpr", "rexpr"), ("rexpr", "lexpr")):
        name = text_of(compared.get(constant))
        if name is not None and _is_name(compared.get(column, {})):
            yield name


def _is_name(node: Node) -> bool:
    fields = [string(part) for part in node.get("ColumnRef", {}).get("fields", ())]
    return fields in (["name"], ["pg_settings", "name"])
