"""The text of each PREPARE where several statements stand in one text."""

from __future__ import annotations

from proxy.sql.constants import Node


def cut(source: str, statements: list[Node], restored: bool) -> None:
    """Gives each PREPARE among `statements` its own text; `restored`: every byte of it had become a character."""
    whole = b""
    if len(statements) < 2:
        return
    for item in statements:
        fields = item["stmt"].get("PrepareStmt")
        if fields is not None:
            whole = whole or source.encode()
            start = item.get("stmt_location", 0)
            text = whole[start : start + item["stmt_len"] if "stmt_len" in item else None].strip()
            fields["text"] = text.decode().encode("latin-1") if restored else text
