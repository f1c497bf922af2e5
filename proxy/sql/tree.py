"""Walks a parse tree once and notes what the statements would leave behind in their session.

The tree is taken as libpg_query's JSON, not as pglast's node objects: that is several times cheaper, and a
deeply nested expression is then an error, where building the objects would overflow the C stack.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from pglast.parser import ParseError, parse_sql_json

from proxy.model import PinReason
from proxy.sql import constants, databases, escapes, lookups, preparing, words
from proxy.sql.constants import Node, guc, is_true, options, string, text_of
from proxy.sql.findings import ALL, Findings
from proxy.sql.hidden import Hidden

# A tree above this size (as JSON) is not walked: it would hold up every other session for too long.
MAX_TREE = 524_288

_CURSOR_HOLD = 0x20  # CURSOR_OPT_HOLD of parsenodes.h

_SESSION_FUNCTIONS = {
    **dict.fromkeys((
        "pg_advisory_lock", "pg_advisory_lock_shared", "pg_try_advisory_lock", "pg_try_advisory_lock_shared",
    ), PinReason.ADVISORY_LOCK),
    **dict.fromkeys(("pg_backup_start", "pg_start_backup", "dblink_connect"), PinReason.UNINSPECTED),
    "dblink_connect_u": PinReason.UNINSPECTED,
    "setseed": PinReason.SET,
}  # fmt: skip
_SET_LIMIT = "pg_trgm.similarity_threshold"  # what pg_trgm's set_limit() sets
# They run a text that need not stand in the statement.
_TEXT_RUNNERS = frozenset(
    {"query_to_xml", "query_to_xmlschema", "query_to_xml_and_xmlschema", "ts_stat", "ts_rewrite"}
)
# Where a name in pg_temp does not make a new object.
_MAKES = {"ExplainStmt", "DeclareCursorStmt", "CreateTableAsStmt", "ExecuteStmt"}
_USES_ONLY = constants.RUNS_AT_ONCE - _MAKES | {"DropStmt"}


class Unreadable(Exception):
    """PostgreSQL's parser, in the version at hand, does not take the text, or its tree is too large."""


class TooLarge(Unreadable):
    """It may take it, but nobody is to wait for that."""


def parse(text: bytes) -> list[tuple[str, Node]]:
    """The statements as (node type, fields)."""
    try:
        source = text.decode()
    except UnicodeDecodeError:
        # Another client encoding: every byte a character, so that names come back as they were sent.
        return _parse(text.decode("latin-1"), _restored)
    return _parse(source, None)


def _restored(fields: Node) -> Node:
    for key, value in fields.items():
        if type(value) is str:
            fields[key] = value.encode("latin-1", "replace").decode("utf-8", "surrogateescape")
    return fields


def _parse(source: str, hook: Callable[[Node], Node] | None) -> list[tuple[str, Node]]:
    try:
        written = parse_sql_json(source)
        if len(written) > MAX_TREE:
            raise TooLarge
        tree = json.loads(written, object_hook=hook)
    except RecursionError as error:
        raise TooLarge from error
    except (ParseError, ValueError) as error:
        raise Unreadable from error
    statements = list(_statements(tree))
    preparing.cut(source, statements, hook is not None)
    return [next(iter(item["stmt"].items())) for item in statements]


def _statements(tree: Node) -> Iterator[Node]:
    return (item for item in tree.get("stmts", ()) if item.get("stmt"))


def located(text: bytes) -> list[tuple[str, Node, int, int]]:
    """The statements as (node type, fields, start, stop), where they stand in the text. Raises Unreadable."""
    try:
        written = parse_sql_json(text.decode())
        if len(written) > MAX_TREE:
            raise Unreadable
        tree = json.loads(written)
    except (ParseError, ValueError, RecursionError) as error:
        raise Unreadable from error
    found = []
    for item in _statements(tree):
        start = item.get("stmt_location", 0)
        length = item.get("stmt_len", 0)
        kind, fields = next(iter(item["stmt"].items()))
        found.append((kind, fields, start, start + length if length else len(text)))
    return found


def complaint(text: bytes, unreadable: Unreadable) -> tuple[str, int] | None:
    """What PostgreSQL says of it, and where (from 1, in characters); None where that is not why."""
    error = unreadable.__cause__
    if not isinstance(error, ParseError):
        return None
    message, at = error.args
    return message, (len(text.decode()) if at is None else at) + 1


def read(text: bytes) -> Findings:
    """Raises Unreadable."""
    findings = Findings()
    statements = parse(text)
    findings.statements = len(statements)
    if b'&"' in text:  # U&"..." can spell any name
        findings.looks = "pg_prepared_statement" in json.dumps(statements, default=repr)
    _note_all(findings, statements, text)
    other = escapes.reread(text)
    if other is not text:
        # If no parser takes this reading, no server that reads it so does.
        with suppress(Unreadable):
            _note_all(findings, parse(other), other)
        if findings.prepares or findings.deallocates:
            findings.pins.add(PinReason.SQL_PREPARE)  # in which order what is done cannot be told
    if PinReason.SQL_PREPARE in findings.pins:
        findings.prepares.clear()
    if escapes.doubtful(text):
        findings.hides = Hidden.QUOTING
        findings.pins.add(PinReason.UNINSPECTED)
    return findings


def _note_all(findings: Findings, statements: list[tuple[str, Node]], text: bytes) -> None:
    for kind, fields in statements:
        if kind == "VariableSetStmt":
            _set_statement(findings, fields)
        elif kind == "PrepareStmt":
            _prepare(findings, fields, fields.get("text", text))
        else:
            if kind == "SelectStmt":
                lookups.name_told(fields)
            findings.stores = kind not in constants.RUNS_AT_ONCE
            _walk(findings, kind, fields)


def begins(text: bytes) -> bool:
    """A BEGIN or START TRANSACTION is among the statements. Raises Unreadable."""
    statements = parse(text)
    other = escapes.reread(text)
    if other is not text:
        with suppress(Unreadable):
            statements += parse(other)
    return any(
        kind == "TransactionStmt" and fields.get("kind") in ("TRANS_STMT_BEGIN", "TRANS_STMT_START")
        for kind, fields in statements
    )


# --- SET and RESET ------------------------------------------------------------------------------


def _set_statement(findings: Findings, fields: Node) -> None:
    kind = fields.get("kind")
    name = guc(fields.get("name", ""))
    local = fields.get("is_local", False)
    if kind == "VAR_RESET_ALL":
        findings.resets_all = True
    elif kind == "VAR_SET_MULTI":
        if name == "session characteristics":
            for option in fields.get("args", ()):
                findings.set("default_" + guc(option.get("DefElem", {}).get("defname", "")))
    elif kind == "VAR_RESET" or (kind == "VAR_SET_DEFAULT" and not local):
        findings.reset(name)
    else:
        values = [text_of(a) or "" for a in fields.get("args", ())]
        if name == "search_path" and any("pg_temp" in v for v in values):
            findings.pins.add(PinReason.TEMP_TABLE)  # whatever is created next may be temporary
        if local:
            findings.touch(name)
        else:
            findings.set(name)


def given_to_set_config(call: Node) -> dict[str, Node | None]:
    """The arguments of a call by their names."""
    given = dict(zip(("setting_name", "new_value", "is_local"), call.get("args", ()), strict=False))
    for argument in call.get("args", ()):
        if "NamedArgExpr" in argument:
            named = argument["NamedArgExpr"]
            given[named.get("name", "")] = named.get("arg")
    return given


def _set_config(findings: Findings, call: Node) -> None:
    given = given_to_set_config(call)
    name = None if call.get("func_variadic") else text_of(given.get("setting_name"))
    local = is_true(given.get("is_local"))
    if findings.stores and not local:
        findings.pins.add(PinReason.SET)  # no text will tell when it is called
    # With standard_conforming_strings off a backslash means something else than was parsed here.
    if name is None or "\\" in name:
        findings.hides = Hidden.COMPUTED_NAME
        if not local:
            number = constants.parameter_number(given.get("setting_name"))
            if number and not call.get("func_variadic"):
                findings.bound_names[number] = None
            else:
                findings.pins.add(PinReason.SET)
        return
    name = guc(name)
    if local:
        findings.touch(name)
    else:
        findings.set(name)
    if name == "search_path":
        value = text_of(given.get("new_value"))
        if value is not None and "pg_temp" not in value:
            return
        findings.pins.add(PinReason.TEMP_TABLE)


# --- all other statements -----------------------------------------------------------------------


def _walk(findings: Findings, top: str, fields: Node) -> None:
    creates = top not in _USES_ONLY
    pending: list[Any] = [{top: fields}]
    while pending:
        node = pending.pop()
        if type(node) is list:
            if creates and len(node) > 1 and _is_temporary_schema(string(node[0])):
                findings.pins.add(PinReason.TEMP_TABLE)
            pending.extend(n for n in node if type(n) is dict or type(n) is list)
            continue
        if "funcformat" in node and "funcname" in node:
            _call(findings, node)
        if node.get("relpersistence") == "t" or (creates and _is_temporary_schema(node.get("schemaname"))):
            findings.pins.add(PinReason.TEMP_TABLE)
        # Gone at the commit: not worth a pin.
        fleeting = "ONCOMMIT_DROP" in (node.get("oncommit"), node.get("onCommit"))
        for key, value in node.items():
            if type(value) is dict:
                if key in ("relation", "rel") and fleeting:
                    continue
                if key == "rel" and _is_temporary_schema(value.get("schemaname")):
                    findings.pins.add(PinReason.TEMP_TABLE)
                note = _NOTES.get(key)
                if note is not None:
                    note(findings, value)
                pending.append(value)
            elif type(value) is list:
                pending.append(value)


def _is_temporary_schema(name: str | None) -> bool:
    return name is not None and name.startswith("pg_temp")


def _call(findings: Findings, call: Node) -> None:
    name = string(call["funcname"][-1])
    if name == "set_config":
        _set_config(findings, call)
    elif name in _TEXT_RUNNERS:
        findings.pins.add(PinReason.UNINSPECTED)
        findings.hides = Hidden.TEXT_RUNNER
    elif name == "set_limit":
        findings.set(_SET_LIMIT)
        if findings.stores:
            findings.pins.add(PinReason.SET)
    elif name in _SESSION_FUNCTIONS:
        findings.pins.add(_SESSION_FUNCTIONS[name])
    elif name in ("currval", "lastval"):
        findings.asks_sequences = findings.asks_sequences or not findings.stores
    elif name == "setval":
        findings.sets_sequences = findings.sets_sequences or not findings.stores


def _stored_set(findings: Findings, fields: Node) -> None:
    """A SET that a function, role, database or the server will do later."""
    if "name" in fields:
        findings.touch(guc(fields["name"]))
    elif fields.get("kind") == "VAR_RESET_ALL":
        findings.changed.add(ALL)


def _define(findings: Findings, fields: Node) -> None:
    """An aggregate calls its functions with what its caller names."""
    for _, value in options(fields, "definition"):
        names = value.get("TypeName", {}).get("names", ())
        if names and string(names[-1]) in _TEXT_RUNNERS | {"set_config"}:
            findings.hides = Hidden.AGGREGATE


def _update(findings: Findings, fields: Node) -> None:
    if fields.get("relation", {}).get("relname") == "pg_settings":  # its rule calls set_config
        findings.pins.add(PinReason.SET)
        findings.hides = Hidden.PG_SETTINGS


def _do(findings: Findings, fields: Node) -> None:
    body, language = "", "plpgsql"
    for name, value in options(fields, "args"):
        if name == "as":
            body = value.get("String", {}).get("sval", "")
        elif name == "language":
            language = value.get("String", {}).get("sval", "")
    low = body.encode("utf-8", "surrogateescape").lower()
    foreign = language != "plpgsql"
    if foreign or words.body_sets(low):
        findings.hides = Hidden.FOREIGN_BLOCK if foreign else Hidden.BLOCK
        findings.pins.add(PinReason.UNINSPECTED)
    elif words.body_keeps(low):
        findings.pins.add(PinReason.UNINSPECTED)
    findings.asks_sequences = findings.asks_sequences or words.asks_sequences(low)
    findings.sets_sequences = findings.sets_sequences or b"setval" in low


def _prepare(findings: Findings, fields: Node, text: bytes) -> None:
    kind, statement = next(iter(fields["query"].items()))
    alone = Findings()
    _walk(alone, kind, statement)
    if vars(alone) == vars(Findings()):
        findings.prepares.append((fields["name"], text))
    else:
        findings.pins.add(PinReason.SQL_PREPARE)
        findings.asks_sequences = findings.asks_sequences or alone.asks_sequences
        findings.sets_sequences = findings.sets_sequences or alone.sets_sequences
        findings.stores = True
        _walk(findings, kind, statement)


def _declare(findings: Findings, fields: Node) -> None:
    if fields.get("options", 0) & _CURSOR_HOLD:
        findings.pins.add(PinReason.HOLD_CURSOR)


def _deallocate(findings: Findings, fields: Node) -> None:
    if "name" in fields:
        findings.deallocates.append(fields["name"])
    else:
        findings.deallocates_all = True


def _discard(findings: Findings, fields: Node) -> None:
    if fields.get("target") == "DISCARD_ALL":
        findings.discards_all = True


def _unlisten(findings: Findings, _: Node) -> None:
    findings.unlistens = True


def _pins(reason: PinReason) -> Callable[[Findings, Node], None]:
    return lambda findings, _: findings.pins.add(reason)


_NOTES: dict[str, Callable[[Findings, Node], None]] = {
    "VariableSetStmt": _stored_set,
    "setstmt": _stored_set,
    "DefineStmt": _define,
    "UpdateStmt": _update,
    "DoStmt": _do,
    "DeclareCursorStmt": _declare,
    "ExecuteStmt": lambda findings, fields: findings.executes.setdefault(fields["name"]),
    "ListenStmt": _pins(PinReason.LISTEN),
    "LoadStmt": _pins(PinReason.LOAD),
    "UnlistenStmt": _unlisten,
    "DeallocateStmt": _deallocate,
    "DiscardStmt": _discard,
    **databases.NOTES,
}
