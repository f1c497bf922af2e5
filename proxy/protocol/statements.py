"""Prepared statements shared by content: what clients name, what servers have, and how the two meet.

A client's `Parse` becomes a Statement that is the same object for the same text and parameter types,
whoever prepares it; servers know it by its one global name. A server connection keeps at most
`max_prepared_statements` of them, least recently used first to go.

What a text means depends on the schema and on the search path too. PostgreSQL does not let a statement that is
prepared become another, so what is prepared after a change of the schema, or with another path, is another one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from itertools import count
from weakref import WeakValueDictionary

from proxy.sql.verdict import PLAIN, Verdict

PREFIX = b"tiergate_"


class Description:
    """What a Describe says of a statement as far as clients rely on it: the types of its parameters (as a Parse has
    them), and name, type and type modifier of each column. There is one of each."""

    __slots__ = ("__weakref__", "columns", "parameters")

    def __init__(self, parameters: bytes, columns: bytes) -> None:
        self.parameters = parameters
        self.columns = columns


_descriptions: WeakValueDictionary[tuple[bytes, bytes], Description] = WeakValueDictionary()


def describe(parameters: bytes, row: bytes) -> Description:
    """From the bodies of ParameterDescription and RowDescription (b"" for NoData)."""
    columns = []
    at = 2
    while at < len(row):
        end = row.index(b"\0", at) + 1
        # Behind the name: table (4), column (2), type (4), its size (2), its modifier (4), format (2).
        columns.append(row[at:end] + row[end + 6 : end + 10] + row[end + 12 : end + 16])
        at = end + 18
    key = parameters, b"".join(columns)
    known = _descriptions.get(key)
    if known is None:
        known = _descriptions[key] = Description(*key)
    return known


class Preparation:
    """That a server has prepared a statement, once."""

    __slots__ = ("description",)

    def __init__(self) -> None:
        self.description: Description | None = None


class Schema:
    """The definitions in one database; `version` changes with them, as far as the process has seen."""

    __slots__ = ("__weakref__", "version")

    def __init__(self) -> None:
        self.version = 0


Meaning = tuple[int, str]  # the schema's version, and the search path
_ANY: Meaning = (0, "")


class Statement:
    """One text with its parameter types, under the name that servers know it by."""

    __slots__ = ("__weakref__", "meaning", "name", "oids", "text", "told", "verdict")

    def __init__(
        self, name: bytes, text: bytes, oids: bytes, verdict: Verdict, meaning: Meaning = _ANY
    ) -> None:
        self.meaning = meaning
        self.name = name
        self.text = text
        self.oids = oids
        self.verdict = verdict
        self.told: Description | None = None  # of one without a name, which is one client's own


def unnamed_statement(text: bytes, oids: bytes, verdict: Verdict) -> Statement:
    """The unnamed one of a client, of which nothing has been told yet."""
    made: Statement = Statement.__new__(Statement)
    made.name = b""
    made.text = text
    made.oids = oids
    made.verdict = verdict
    made.meaning = _ANY
    made.told = None
    return made


class SqlStatement(Statement):
    """One that a client has prepared in SQL, where it gave the name: `text` is the whole PREPARE."""

    __slots__ = ()

    def __init__(self, text: bytes, verdict: Verdict) -> None:
        super().__init__(b"", text, b"\0\0", verdict)


# The unnamed statement of a server that has one which nobody knows.
STRANGE = Statement(b"", b"", b"\0\0", PLAIN)


class Catalog:
    """All statements of the process that somebody still holds."""

    __slots__ = ("_by_content", "_in_sql", "_numbers", "_schemas")

    def __init__(self) -> None:
        self._by_content: WeakValueDictionary[tuple[bytes, bytes, Meaning], Statement] = WeakValueDictionary()
        self._in_sql: WeakValueDictionary[tuple[bytes, bool, object], SqlStatement] = WeakValueDictionary()
        self._schemas: WeakValueDictionary[tuple[str, str], Schema] = WeakValueDictionary()
        self._numbers = count(1)

    def __len__(self) -> int:
        return len(self._by_content)

    def schema(self, cluster: str, database: str) -> Schema:
        known = self._schemas.get((cluster, database))
        if known is None:
            known = self._schemas[cluster, database] = Schema()
        return known

    def statement(self, text: bytes, oids: bytes, verdict: Verdict, meaning: Meaning = _ANY) -> Statement:
        known = self._by_content.get((text, oids, meaning))
        if known is None:
            known = Statement(self._name(verdict.executes), text, oids, verdict, meaning)
            if not verdict.executes:  # what that is, is each client's own affair
                self._by_content[text, oids, meaning] = known
        return known

    def _name(self, executed: Collection[str]) -> bytes:
        """None of those that the text executes: what has such a name makes way for what the client calls so."""
        while (name := b"%s%d" % (PREFIX, next(self._numbers))).decode() in executed:
            pass
        return name

    def in_sql(self, text: bytes, verdict: Verdict, state: object) -> SqlStatement:
        """What `text` prepares. Clients share it that have done that in the same state, so that one finds it where
        the other has left it."""
        key = text, verdict.looks, state
        known = self._in_sql.get(key)
        if known is None:
            known = self._in_sql[key] = SqlStatement(text, verdict)
        return known

    def retire(self, statement: Statement) -> None:
        """The text gets a new statement when it is next prepared: its result type has changed."""
        key = statement.text, statement.oids, statement.meaning
        if self._by_content.get(key) is statement:
            del self._by_content[key]


class Prepared:
    """What one server connection has prepared, least recently used first."""

    __slots__ = ("_latest", "_limit", "_names", "own")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._latest: Statement | None = None  # the last to go
        self._names: OrderedDict[Statement, Preparation] = OrderedDict()
        self.own: dict[bytes, Statement] = {}  # what it has under the names of the client that used it last

    def __contains__(self, statement: Statement) -> bool:
        return statement in self._names

    def __len__(self) -> int:
        return len(self._names)

    def use(self, statement: Statement) -> bool:
        """Whether it is prepared; then it is the last to go."""
        if statement is self._latest:
            return True
        if statement not in self._names:
            return False
        self._names.move_to_end(statement)
        self._latest = statement
        return True

    def get(self, statement: Statement) -> Preparation | None:
        return self._names.get(statement)

    def described(self, statement: Statement) -> Description | None:
        """What it describes as, if it is prepared and that is known."""
        found = self._names.get(statement)
        return None if found is None else found.description

    def add(self, statement: Statement) -> list[Statement]:
        """Adds it and returns those that must be closed for it."""
        self._names[statement] = Preparation()
        self._latest = None
        evicted = []
        if self.own and self.own.pop(statement.name, None) is not None:
            evicted.append(statement)
        while len(self._names) > self._limit:
            evicted.append(self._names.popitem(last=False)[0])
        return evicted

    def remove(self, statement: Statement) -> None:
        self._names.pop(statement, None)
        self._latest = None

    def named(self, name: bytes) -> Statement | None:
        """The one of this global name."""
        for statement in self._names:
            if statement.name == name:
                return statement
        return None

    def take_all(self) -> list[bytes]:
        """Forgets all but `own`, and returns their names."""
        names = [statement.name for statement in self._names]
        self._names.clear()
        self._latest = None
        return names

    def clear(self) -> None:
        self._names.clear()
        self._latest = None
        self.own.clear()
