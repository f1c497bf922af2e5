"""What a policy asks about a text, counted in its parse tree and kept by text.

A **join** is each explicit JOIN, each item of a FROM behind the first (also where commas part them), each item of
the FROM of an UPDATE or the USING of a DELETE (their table is the first), and the one of a MERGE. They are counted
over a whole statement, all query levels together: subqueries, CTEs, the branches of a UNION, and what stands in
a PREPARE, EXPLAIN, DECLARE, COPY, CREATE VIEW or the like. The most of any statement counts for a text. What a
view or a function joins cannot be seen here.

Kept by text and not by pglast's fingerprint, which is the same for `FROM t` and for `FROM t, t, t, t`.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from proxy.sql import escapes, lookups, tree
from proxy.sql.constants import Node, guc, is_true, string, text_of
from proxy.sql.tree import given_to_set_config
from proxy.sql.verdict import MAX_KEPT, MAX_KEPT_BYTES, MAX_PARSE
from proxy.sql.vocabulary import names_of

READ_ONLY = frozenset({"transaction_read_only", "default_transaction_read_only"})

# All other statements write, or might.
_READS = frozenset({
    "SelectStmt", "ExplainStmt", "PrepareStmt", "ExecuteStmt", "DeallocateStmt", "DeclareCursorStmt", "FetchStmt",
    "ClosePortalStmt", "TransactionStmt", "VariableSetStmt", "VariableShowStmt", "DiscardStmt", "ListenStmt",
    "UnlistenStmt", "NotifyStmt", "LockStmt", "ConstraintsSetStmt",
})  # fmt: skip
_RESETS = ("VAR_RESET", "VAR_SET_DEFAULT")


@dataclass(frozen=True, slots=True)
class Measure:
    """joins: the most of any statement. statements: how many there are. names: what kinds of statements, in the words
    of `vocabulary`. writes: the first that is no reading one, in words, "" if none is. opens: it may make a
    transaction READ WRITE. resets_early: parameters that it resets (in lower case, "*": all) while statements
    follow. bodies: those of DO blocks, and of functions that are written as a text; lowercased. unread: no parser
    took it ("syntax") or it is too long ("size"); it may have been measured as another kind of server reads it
    all the same.
    """

    joins: int = 0
    statements: int = 0
    names: frozenset[str] = frozenset()
    writes: str = ""
    opens: bool = False
    resets_early: frozenset[str] = frozenset()
    bodies: bytes = b""
    unread: str = ""


class _Counting:
    def __init__(self) -> None:
        self.most = self.joins = self.statements = 0
        self.names: set[str] = set()
        self.writes = ""
        self.opens = False
        self.resets: set[str] = set()
        self.bodies: list[bytes] = []

    def add(self, statements: list[tuple[str, Node]]) -> None:
        self.statements = max(self.statements, len(statements))
        for number, (kind, fields) in enumerate(statements, start=1):
            if number < len(statements):
                self._resets(kind, fields)
            self.joins = 0
            if kind == "SelectStmt":
                lookups.name_told(fields)
            self._walk(kind, fields)
            self.most = max(self.most, self.joins)

    def _resets(self, kind: str, fields: Node) -> None:
        if kind == "VariableSetStmt":
            if fields.get("kind") == "VAR_RESET_ALL":
                self.resets.add("*")
            elif fields.get("kind") in _RESETS:
                self.resets.add(guc(fields.get("name", "")))
        elif kind == "DiscardStmt":
            self.resets.add("*")

    def _walk(self, top: str, fields: Node) -> None:
        pending: list[Any] = [{top: fields}]
        while pending:
            node = pending.pop()
            if type(node) is list:
                pending.extend(n for n in node if type(n) is dict or type(n) is list)
                continue
            self._parts(node)
            for key, value in node.items():
                if type(value) is dict:
                    # Fields begin with a small letter, node types do not.
                    if key.endswith("Stmt") and key[0].isupper():
                        self._statement(key, value)
                    elif key == "JoinExpr":
                        self.joins += 1
                    elif key == "action":  # of ALTER DEFAULT PRIVILEGES
                        self.names.update(names_of("GrantStmt", value))
                    pending.append(value)
                elif type(value) is list:
                    pending.append(value)

    def _parts(self, node: Node) -> None:
        """What stands in fields of a node of whatever type; a SELECT below a UNION is not wrapped in one."""
        if "fromClause" in node:
            self.joins += len(node["fromClause"]) - 1
        if "intoClause" in node:
            self.names |= {"select into", "create table", "create"}
            self.writes = self.writes or "select into"
            self._temporary(node["intoClause"].get("rel", {}))
        if "lockingClause" in node:
            self.names.add("select for update")
        if "funcformat" in node and string((node.get("funcname") or [None])[-1]) == "set_config":
            self._set_config(given_to_set_config(node))

    def _statement(self, kind: str, fields: Node) -> None:
        names = list(names_of(kind, fields))
        self.names.update(names)
        if kind == "UpdateStmt":
            self.joins += "fromClause" in fields
        elif kind == "DeleteStmt":
            self.joins += len(fields.get("usingClause", ()))
        elif kind == "MergeStmt":
            self.joins += 1
        elif kind == "CreateStmt":
            self._temporary(fields.get("relation", {}))
        elif kind == "CreateTableAsStmt":
            self._temporary(fields.get("into", {}).get("rel", {}))
        elif kind == "DoStmt":
            self._body(fields.get("args", ()))
        elif kind == "CreateFunctionStmt":
            self._body(fields.get("options", ()))
        elif kind == "TransactionStmt":
            self._characteristics(fields.get("options", ()))
        elif kind == "VariableSetStmt":
            self._set(fields)
        reads = kind in _READS or (
            kind == "CopyStmt" and not fields.get("is_from") and not fields.get("filename")
        )
        if not reads and not self.writes:
            self.writes = names[0] if names else kind.removesuffix("Stmt").lower()

    def _body(self, options: Any) -> None:
        for option in options:
            element = option.get("DefElem", {})
            if element.get("defname") == "as":
                written = element.get("arg", {})
                for part in written.get("List", {}).get("items", [written]):
                    self.bodies.append(string(part).encode("utf-8", "surrogateescape").lower())

    def _temporary(self, relation: Node) -> None:
        if relation.get("relpersistence") == "t" or relation.get("schemaname", "").startswith("pg_temp"):
            self.names.add("create temporary table")

    # --- READ WRITE -----------------------------------------------------------------------------

    def _characteristics(self, options: Any) -> None:
        for option in options:
            element = option.get("DefElem", {})
            if element.get("defname") == "transaction_read_only" and not is_true(element.get("arg")):
                self.opens = True

    def _set(self, fields: Node) -> None:
        kind = fields.get("kind")
        if kind == "VAR_SET_MULTI":
            self._characteristics(fields.get("args", ()))
        elif (name := guc(fields.get("name", ""))) in READ_ONLY:
            arguments = fields.get("args", ())
            if kind in _RESETS and not fields.get("is_local") and name == "default_transaction_read_only":
                return  # back to what the session began with
            self.opens |= kind != "VAR_SET_VALUE" or len(arguments) != 1 or not is_true(arguments[0])

    def _set_config(self, given: dict[str, Node | None]) -> None:
        """What it sets by a name that is no constant, the text's verdict says to be hidden."""
        if guc(text_of(given.get("setting_name")) or "") in READ_ONLY:
            self.opens |= not is_true(given.get("new_value"))


def measure(text: bytes) -> Measure:
    """Nothing is ever raised for a text."""
    if len(text) > MAX_PARSE:
        return Measure(unread="size")
    counting = _Counting()
    unread = ""
    try:
        counting.add(tree.parse(text))
    except tree.TooLarge:
        unread = "size"
    except tree.Unreadable:
        unread = "syntax"
    other = escapes.reread(text)
    if other is not text:
        # As a server reads it whose standard_conforming_strings is off.
        with suppress(tree.Unreadable):
            counting.add(tree.parse(other))
    return Measure(
        joins=counting.most,
        statements=counting.statements,
        names=frozenset(counting.names),
        writes=counting.writes,
        opens=counting.opens,
        resets_early=frozenset(counting.resets),
        bodies=b"\n".join(counting.bodies),
        unread=unread,
    )


def joins_at_most(low: bytes) -> int:
    """A number that the joins of the lowercased text do not exceed, whatever its tree is."""
    froms, usings = low.find(b"from"), low.find(b"using")
    first = froms if usings < 0 or 0 <= froms < usings else usings
    count = low.count(b"join")
    if first < 0:
        return count
    count += low.count(b",", first)
    if b"update" in low or b"delete" in low or b"merge" in low:
        count += low.count(b"from") + low.count(b"using")
    return count


class Measures:
    """Measures by text, the last ones kept."""

    def __init__(self, max_entries: int = 4096) -> None:
        self._max_entries = max_entries
        self._kept: OrderedDict[bytes, Measure] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def measure(self, text: bytes) -> Measure:
        kept = self._kept
        found = kept.get(text)
        if found is not None:
            kept.move_to_end(text)
            return found
        found = measure(text)
        if len(text) <= MAX_KEPT:
            kept[text] = found
            self._bytes += len(text)
            while len(kept) > self._max_entries or self._bytes > MAX_KEPT_BYTES:
                self._bytes -= len(kept.popitem(last=False)[0])
        return found
