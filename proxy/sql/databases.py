"""What a statement does to databases and roles: it is for all of their sessions, not only for its own."""

from __future__ import annotations

from collections.abc import Callable

from proxy.sql.constants import Node, options, string
from proxy.sql.findings import Findings


def _alter_for_all(findings: Findings, _: Node) -> None:
    findings.alters_role = True


def _alter_role(findings: Findings, fields: Node) -> None:
    findings.alters_role |= any(name == "password" for name, _ in options(fields))


def _create(findings: Findings, fields: Node) -> None:
    template = "template1"
    for name, value in options(fields):
        if name == "template":
            template = string(value) or template
    findings.drops_databases[template] = None


def _drop(findings: Findings, fields: Node) -> None:
    findings.drops_databases[fields.get("dbname", "")] = None


def _move(findings: Findings, fields: Node) -> None:
    if any(name == "tablespace" for name, _ in options(fields)):
        _drop(findings, fields)


def _rename(findings: Findings, fields: Node) -> None:
    if fields.get("renameType") == "OBJECT_DATABASE":
        findings.drops_databases[fields.get("subname", "")] = None


NOTES: dict[str, Callable[[Findings, Node], None]] = {
    "AlterRoleSetStmt": _alter_for_all,
    "AlterDatabaseSetStmt": _alter_for_all,
    "AlterRoleStmt": _alter_role,
    "DropdbStmt": _drop,
    "CreatedbStmt": _create,
    "AlterDatabaseStmt": _move,
    "RenameStmt": _rename,
}
