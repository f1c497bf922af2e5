"""Result types that clients have been told, and their statements on servers where these may be others.

A client that has had a statement described decodes the rows of its later executions as it was told. PostgreSQL
keeps that promise: after a change of a table it refuses to run the statement rather than answer otherwise. Where
the statement is prepared anew on another connection, the promise is ours: it is described there first, while the
client's bytes wait, and refused in PostgreSQL's words if it has become another. Clients that never have a statement
described pay nothing, and neither do those whose connection has described it as they were told.
"""

from __future__ import annotations

from proxy.client.conversation import Conversation
from proxy.client.waits import AnswersFirst
from proxy.errors import ServerProtocolError
from proxy.protocol.pipeline import DESCRIBE, DROP, Expect
from proxy.protocol.statements import PREFIX, Description, Preparation, Statement, describe
from proxy.server.connection import FAILED, ServerConnection
from proxy.sql.verdict import Verdict
from proxy.wire import encode

_PARAMETERS, _COLUMNS, _NONE = b"tTn"

# Stands for a statement whose result type has changed: no server has it.
CHANGED = Statement(PREFIX + b"changed", b"", b"\0\0", Verdict())
CHANGED_ERROR = encode.frame(
    b"E",
    b"SERROR\0VERROR\0C0A000\0Mcached plan must not change result type\0"
    b"Fplancache.c\0RRevalidateCachedQuery\0\0",
)


class Learning:
    """Hears the answer to a Describe of what the connection has prepared: a Preparation, or an unnamed statement."""

    __slots__ = ("_of", "_parameters", "_server")

    def __init__(self, server: ServerConnection, of: Preparation | Statement | None) -> None:
        self._server = server
        self._of = of
        self._parameters = b""

    def __call__(self, kind: int, body: bytes, whole: bool) -> None:
        if not whole:
            raise ServerProtocolError(internal="a description too long to be true")
        if kind == _PARAMETERS:
            self._parameters = body
        elif kind in (_COLUMNS, _NONE):
            self.learned(describe(self._parameters, body if kind == _COLUMNS else b""))

    def learned(self, found: Description) -> None:
        of = self._of
        if isinstance(of, Preparation):
            of.description = found
        elif of is not None and self._server.unnamed is of:
            self._server.unnamed_as = found


class Telling(Learning):
    """The same where the client hears it too."""

    __slots__ = ("_name", "_session", "_statement")

    def __init__(
        self,
        session: Conversation,
        server: ServerConnection,
        name: bytes,
        statement: Statement,
        of: Preparation | Statement | None,
    ) -> None:
        super().__init__(server, of)
        self._session, self._name, self._statement = session, name, statement

    def learned(self, found: Description) -> None:
        super().learned(found)
        session = self._session
        if not self._name:
            self._statement.told = found
        elif session.statements.get(self._name) is self._statement:
            if session.described is None:
                session.described = {}
            session.described[self._name] = found


def describing(session: Conversation, server: ServerConnection, name: bytes, statement: Statement) -> Expect:
    """The client has a statement described."""
    of = server.prepared.get(statement) if name else statement
    return Expect(DESCRIBE, statement=statement, learn=Telling(session, server, name, statement, of))


def refused_description(session: Conversation, name: bytes) -> Expect:
    """PostgreSQL says what the parameters are before it sees that the rest has changed."""
    told = session.described.get(name) if name and session.described else None
    if not name and session.unnamed is not None:
        told = session.unnamed.told
    ahead = b"" if told is None else encode.frame(b"t", told.parameters)
    return Expect(DESCRIBE, error=ahead + CHANGED_ERROR)


def _cannot_tell(server: ServerConnection) -> bool:
    """Where nothing can be asked the request fails in any case."""
    return server.status == FAILED or server.pipeline.skipping or server.copy_in


def _typed(session: Conversation, statement: Statement, told: Description) -> Statement | None:
    """The same text with the parameter types that the client was told, if those are what it now lacks."""
    if statement.oids == told.parameters:
        return None
    if statement.name:
        catalog = session.plane.pools.catalog
        return catalog.statement(statement.text, told.parameters, statement.verdict, statement.meaning)
    typed = Statement(b"", statement.text, told.parameters, statement.verdict)
    typed.told = told
    return typed


def _named_nothing(statement: Statement, told: Description) -> bool:
    """An EXECUTE was described when there was nothing of the name, which is no promise of what it returns."""
    return bool(statement.verdict.executes) and not told.columns


def named_as_told(
    session: Conversation, server: ServerConnection, name: bytes, statement: Statement, told: Description
) -> Statement:
    """What to use for a named statement that has not been described here as the client was told; CHANGED if it
    never will be. Raises AnswersFirst to have it described."""
    if _cannot_tell(server):
        return statement
    found = server.prepared.get(statement)
    if found is not None and found is session.checked and found.description is not None:
        session.checked = None
        typed = _typed(session, statement, told) if found.description.parameters != told.parameters else None
        if typed is None:
            return statement if _named_nothing(statement, told) else CHANGED
        statement = typed
        session.name_statement(name, typed)
        found = server.prepared.get(statement)
        if found is not None and found.description is told:
            return statement
    if found is not None:  # since when, and as what, nobody knows
        server.prepared.remove(statement)
        server.to_close.append(statement.name)
    ahead = server.prepare(statement)
    session.checked = of = server.prepared.get(statement)
    server.expect(Expect(DESCRIBE, DROP, statement=statement, learn=Learning(server, of)))
    raise AnswersFirst(ahead + encode.describe(b"S", statement.name))


def unnamed_as_told(
    session: Conversation, server: ServerConnection, statement: Statement, told: Description
) -> Statement | None:
    """The same for the unnamed one: CHANGED, or what is to be parsed and described first, or None for neither."""
    found = server.unnamed_as if server.unnamed is statement else None
    if _cannot_tell(server):
        return None
    if found is None or statement is not session.checked:
        return statement
    session.checked = None
    typed = _typed(session, statement, told) if found.parameters != told.parameters else None
    return CHANGED if typed is None else typed


def describe_unnamed(session: Conversation, server: ServerConnection, statement: Statement) -> bytes:
    """Asks what has just been parsed describes as."""
    session.checked = statement
    server.expect(Expect(DESCRIBE, DROP, statement=statement, learn=Learning(server, statement)))
    return encode.describe(b"S", b"")
