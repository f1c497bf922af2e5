"""Where in a text of several statements parameters are reset."""

from __future__ import annotations

import re

from proxy.sql import constants, escapes, tree

_LONGEST = 65_536
_RESETS = frozenset({"VAR_RESET", "VAR_SET_DEFAULT"})
_may_reset = re.compile(rb"\b(?:reset|default)\b", re.IGNORECASE).search


_may_begin_so = re.compile(rb"[\s;]*reset\b", re.IGNORECASE).match
_begins_so = re.compile(rb"[\s;]*reset\s+all\s*", re.IGNORECASE).fullmatch


def resets_first(text: bytes) -> bool:
    """It begins with a RESET ALL, and something follows."""
    if _may_begin_so(text) is None:
        return False
    found = resets(text)
    return (
        bool(found)
        and _begins_so(text[: found[0][0]]) is not None
        and text[found[0][0] :].strip(b"; \t\r\n") != b""
    )


def resets(text: bytes) -> list[tuple[int, str]]:
    """Where each such statement ends, and what it resets ("": all). None are told where no parser takes the text, or
    where its meaning depends on the session."""
    if len(text) > _LONGEST or not _may_reset(text):
        return []
    if escapes.reread(text) is not text or escapes.doubtful(text):
        return []
    try:
        statements = tree.located(text)
    except tree.Unreadable:
        return []
    found = []
    for kind, fields, _, stop in statements:
        if kind != "VariableSetStmt":
            continue
        what = fields.get("kind")
        if what == "VAR_RESET_ALL":
            found.append((stop, ""))
        elif what in _RESETS and not fields.get("is_local"):
            found.append((stop, constants.guc(fields.get("name", ""))))
    return found
