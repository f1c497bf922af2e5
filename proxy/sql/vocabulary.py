"""The kinds of statements that a policy can forbid, by the words that people know them by.

Each has the groups of words that must stand in a text that holds such a statement (one of each group; keywords
cannot be escaped or quoted), so that a byte search can say of most texts that they hold none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

Search = Callable[[bytes], object]
Groups = tuple[str, ...]  # each a choice of words, "|" between them

_PLAIN = (
    "insert", "update", "delete", "merge", "truncate", "copy", "lock", "listen", "unlisten", "notify", "vacuum",
    "cluster", "reindex", "checkpoint", "load", "do", "call", "prepare", "execute", "deallocate", "declare", "discard",
    "explain", "grant", "revoke", "comment", "security label", "reassign owned", "drop owned", "import foreign schema",
    "refresh materialized view", "prepare transaction", "copy from", "copy to", "copy program", "select into",
    "alter system", "alter", "drop",
)  # fmt: skip
_OBJECTS: dict[str, Groups] = {
    **{
        name: tuple(name.split())
        for name in (
            "table", "foreign table", "index", "view", "materialized view", "trigger", "event trigger", "schema",
            "sequence", "type", "domain", "extension", "database", "policy", "rule", "server", "publication",
            "subscription", "tablespace", "language",
        )
    },
    "function": ("function|routine",),
    "procedure": ("procedure|routine",),
    "role": ("role|user|group",),
}  # fmt: skip

STATEMENTS: dict[str, Groups] = {
    **{name: tuple(name.split()) for name in _PLAIN},
    **{f"{verb} {name}": (verb, *words) for verb in ("create", "alter", "drop") for name, words in _OBJECTS.items()},
    "create extension": ("create", "extension|language"),  # CREATE LANGUAGE l is the same statement
    "analyze": ("analyze|analyse",),
    "do": (r"do(?!\s+nothing\b)(?!\s+update\b)",),  # not the one of ON CONFLICT
    "explain analyze": ("explain", "analyze|analyse"),
    "copy file": ("copy",),
    "select for update": ("for", "update|share"),
    "alter default privileges": ("alter", "default", "privileges"),
    "create": ("create|into",),
    "create table": ("create|into", "table|into"),
    # The schema of temporary tables can be spelled with escapes.
    "create temporary table": ("create|into", r"temp|temporary|pg_temp\w*|u&", "table|into"),
}  # fmt: skip


_BODIES = {*STATEMENTS["do"], "function", "procedure"}


def _either(words: str) -> str:
    return rf"(?<![a-z_])(?:{words})(?![a-z0-9_])"


@lru_cache(256)  # many tenants may say the same
def finder(names: frozenset[str]) -> Search:
    """Finds nothing in a lowercased text only if it holds no such statement, also none within a DO block or
    function, where its words can be spelled with escapes."""
    # The last group is the rarest.
    words = {word for name in names for word in STATEMENTS[name][-1].split("|")}
    return search_for(words | _BODIES if words else words)


def _letters(word: str) -> bytes:
    return re.split("[^a-z_&]", word, maxsplit=1)[0].encode()


def search_for(words: Iterable[str]) -> Search:
    """Finds any of the words in a lowercased text, as a word: an expression that begins with letters."""
    known = sorted(words)
    if not known:
        return lambda _: None
    exactly = re.compile(_either("|".join(known)).encode()).search
    # To look for each as mere bytes is several times quicker, and most texts have none.
    literals = tuple({_letters(word) for word in known})

    def search(low: bytes) -> object:
        for literal in literals:
            if literal in low:
                return exactly(low)
        return None

    return search


has_body = search_for(_BODIES)


class Words:
    """For texts that no parser takes: do all the words of a statement stand in it?"""

    def __init__(self, names: frozenset[str]) -> None:
        self._groups = {
            name: [re.compile(_either(group).encode()).search for group in STATEMENTS[name]]
            for name in sorted(names)
        }

    def found(self, low: bytes) -> str:
        """The name of a statement that the lowercased text may hold, "" if none."""
        for name, searches in self._groups.items():
            if all(search(low) for search in searches):
                return name
        return ""


@lru_cache(256)
def words_of(names: frozenset[str]) -> Words:
    return Words(names)


# --- from the parse tree ------------------------------------------------------------------------

Node = dict[str, Any]
_NAMES: dict[str, str] = {
    "InsertStmt": "insert",
    "UpdateStmt": "update",
    "DeleteStmt": "delete",
    "MergeStmt": "merge",
    "TruncateStmt": "truncate",
    "LockStmt": "lock",
    "ListenStmt": "listen",
    "UnlistenStmt": "unlisten",
    "NotifyStmt": "notify",
    "ClusterStmt": "cluster",
    "ReindexStmt": "reindex",
    "CheckPointStmt": "checkpoint",
    "LoadStmt": "load",
    "DoStmt": "do",
    "CallStmt": "call",
    "PrepareStmt": "prepare",
    "ExecuteStmt": "execute",
    "DeallocateStmt": "deallocate",
    "DeclareCursorStmt": "declare",
    "DiscardStmt": "discard",
    "CommentStmt": "comment",
    "SecLabelStmt": "security label",
    "ReassignOwnedStmt": "reassign owned",
    "DropOwnedStmt": "drop owned",
    "ImportForeignSchemaStmt": "import foreign schema",
    "RefreshMatViewStmt": "refresh materialized view",
    "AlterSystemStmt": "alter system",
    "AlterDefaultPrivilegesStmt": "alter default privileges",
    "CreateStmt": "create table",
    "CreateForeignTableStmt": "create foreign table",
    "IndexStmt": "create index",
    "ViewStmt": "create view",
    "CreateTrigStmt": "create trigger",
    "CreateEventTrigStmt": "create event trigger",
    "CreateSchemaStmt": "create schema",
    "CreateSeqStmt": "create sequence",
    "CreateEnumStmt": "create type",
    "CreateRangeStmt": "create type",
    "CompositeTypeStmt": "create type",
    "CreateDomainStmt": "create domain",
    "CreateExtensionStmt": "create extension",
    "CreateRoleStmt": "create role",
    "CreatedbStmt": "create database",
    "CreatePolicyStmt": "create policy",
    "RuleStmt": "create rule",
    "CreateForeignServerStmt": "create server",
    "CreatePublicationStmt": "create publication",
    "CreateSubscriptionStmt": "create subscription",
    "CreateTableSpaceStmt": "create tablespace",
    "CreatePLangStmt": "create language",
    "AlterSeqStmt": "alter sequence",
    "AlterEventTrigStmt": "alter event trigger",
    "AlterEnumStmt": "alter type",
    "AlterTypeStmt": "alter type",
    "AlterDomainStmt": "alter domain",
    "AlterExtensionStmt": "alter extension",
    "AlterExtensionContentsStmt": "alter extension",
    "AlterRoleStmt": "alter role",
    "AlterRoleSetStmt": "alter role",
    "AlterDatabaseStmt": "alter database",
    "AlterDatabaseSetStmt": "alter database",
    "AlterDatabaseRefreshCollStmt": "alter database",
    "AlterPolicyStmt": "alter policy",
    "AlterForeignServerStmt": "alter server",
    "AlterPublicationStmt": "alter publication",
    "AlterSubscriptionStmt": "alter subscription",
    "AlterTableSpaceOptionsStmt": "alter tablespace",
    "DropdbStmt": "drop database",
    "DropRoleStmt": "drop role",
    "DropTableSpaceStmt": "drop tablespace",
    "DropSubscriptionStmt": "drop subscription",
}
# Of kinds without a name of their own.
_VERBS = {
    "Create": "create",
    "Define": "create",
    "Alter": "alter",
    "Rename": "alter",
    "Drop": "drop",
}
# Which field of a statement about objects says of what kind these are.
_OBJECT_FIELDS = {
    "AlterTableStmt": "objtype",
    "AlterTableMoveAllStmt": "objtype",
    "AlterFunctionStmt": "objtype",
    "AlterObjectSchemaStmt": "objectType",
    "AlterOwnerStmt": "objectType",
    "AlterObjectDependsStmt": "objectType",
    "DropStmt": "removeType",
    "RenameStmt": "renameType",
    "DefineStmt": "kind",
    "CreateTableAsStmt": "objtype",
}
_PARTS = frozenset({"OBJECT_COLUMN", "OBJECT_ATTRIBUTE", "OBJECT_TABCONSTRAINT"})
_KINDS = {
    "OBJECT_MATVIEW": ("materialized view",),
    "OBJECT_FOREIGN_SERVER": ("server",),
    "OBJECT_DOMCONSTRAINT": ("domain",),
    "OBJECT_ROUTINE": ("function", "procedure"),
}


def names_of(kind: str, fields: Node) -> Iterator[str]:
    """What a statement of this node type is called, the closest name first; not all have one."""
    if kind == "CopyStmt":
        yield "copy"
        yield "copy from" if fields.get("is_from") else "copy to"
        if fields.get("filename"):
            yield "copy program" if fields.get("is_program") else "copy file"
    elif kind == "ExplainStmt":
        yield "explain"
        if any(o.get("DefElem", {}).get("defname") == "analyze" for o in fields.get("options", ())):
            yield "explain analyze"
    elif kind == "VacuumStmt":
        yield "vacuum" if fields.get("is_vacuumcmd") else "analyze"
    elif kind in ("GrantStmt", "GrantRoleStmt"):
        yield "grant" if fields.get("is_grant") else "revoke"
    elif kind == "TransactionStmt":
        if fields.get("kind") == "TRANS_STMT_PREPARE":
            yield "prepare transaction"
    elif kind == "CreateFunctionStmt":
        yield "create procedure" if fields.get("is_procedure") else "create function"
        yield "create"
    else:
        name = _NAMES.get(kind, "")
        if name:
            yield name
        verb = _verb(kind, name)
        if kind in _OBJECT_FIELDS:
            for what in _objects(fields, _OBJECT_FIELDS[kind]):
                yield f"{verb} {what}"
        if verb:
            yield verb


def _verb(kind: str, name: str) -> str:
    first = name.partition(" ")[0]
    if first in ("create", "alter", "drop"):
        return first
    return next((verb for start, verb in _VERBS.items() if kind.startswith(start)), "")


def _objects(fields: Node, key: str) -> tuple[str, ...]:
    said = fields.get(key, "")
    if said in _PARTS:
        said = fields.get("relationType", "")
    return _KINDS.get(said) or (said.removeprefix("OBJECT_").lower().replace("_", " "),)
