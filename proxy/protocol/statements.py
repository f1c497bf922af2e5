"""Prepared statements shared by content: what clients name, what servers have, and how the two meet.

A client's `Parse` becomes a Statement that is the same object for the same text and parameter types,
whoever prepares it; servers know it by its one global name. A server connection keeps at most
`max_prepared_statements` of them, least recently used first to go.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import count
from weakref import WeakValueDictionary

from proxy.sql.verdict import PLAIN, Verdict

PREFIX = b"tiergate_"


class Statement:
    """One text with its parameter types, under the name that servers know it by."""

    __slots__ = ("__weakref__", "name", "oids", "text", "verdict")

    def __init__(self, name: bytes, text: bytes, oids: bytes, verdict: Verdict) -> None:
        self.name = name
        self.text = text
        self.oids = oids
        self.verdict = verdict


# The unnamed statement of a server that has one which nobody knows.
STRANGE = Statement(b"", b"", b"\0\0", PLAIN)


class Catalog:
    """All statements of the process that somebody still holds."""

    __slots__ = ("_by_content", "_numbers")

    def __init__(self) -> None:
        self._by_content: WeakValueDictionary[tuple[bytes, bytes], Statement] = WeakValueDictionary()
        self._numbers = count(1)

    def __len__(self) -> int:
        return len(self._by_content)

    def statement(self, text: bytes, oids: bytes, verdict: Verdict) -> Statement:
        known = self._by_content.get((text, oids))
        if known is None:
            known = Statement(b"%s%d" % (PREFIX, next(self._numbers)), text, oids, verdict)
            self._by_content[text, oids] = known
        return known

    def retire(self, statement: Statement) -> None:
        """The text gets a new statement when it is next prepared: its result type has changed."""
        if self._by_content.get((statement.text, statement.oids)) is statement:
            del self._by_content[statement.text, statement.oids]


class Prepared:
    """What one server connection has prepared, least recently used first."""

    __slots__ = ("_limit", "_names")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._names: OrderedDict[Statement, None] = OrderedDict()

    def __contains__(self, statement: Statement) -> bool:
        return statement in self._names

    def __len__(self) -> int:
        return len(self._names)

    def use(self, statement: Statement) -> bool:
        """Whether it is prepared; then it is the last to go."""
        if statement not in self._names:
            return False
        self._names.move_to_end(statement)
        return True

    def add(self, statement: Statement) -> list[Statement]:
        """Adds it and returns those that must be closed for it."""
        self._names[statement] = None
        evicted = []
        while len(self._names) > self._limit:
            evicted.append(self._names.popitem(last=False)[0])
        return evicted

    def remove(self, statement: Statement) -> None:
        self._names.pop(statement, None)

    def clear(self) -> None:
        self._names.clear()
