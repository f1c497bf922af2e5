"""Statements prepared ahead of the request that needs them under a client's own names, and what comes of it.

The text of a PREPARE is executed again by a statement and a portal of ours. If it fails, the request fails with it:
in a batch everything up to the Sync, and in place of a Query the client reads the error and the end of that Query.
What a request may need without naming it may fail, if no transaction of the client fails with it.

Result types are those that the client was told first: whatever is prepared is described, and what describes as
something else is not used (see `told.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.client.conversation import Conversation
from proxy.client.told import CHANGED_ERROR, Learning
from proxy.protocol.pipeline import BIND, CLOSE, DESCRIBE, DROP, EXECUTE, FORWARD, PARSE, SYNC, Expect
from proxy.protocol.statements import PREFIX, STRANGE, Description, SqlStatement, Statement
from proxy.server.connection import FAILED, IDLE, ServerConnection
from proxy.sql.verdict import PLAIN
from proxy.wire import encode

# What is amiss has been told to the client already.
SAID = b"-"
# Stands for one that the connection may have or not, or has as something else.
DOUBTFUL = Statement(b"", b"", b"\0\0", PLAIN)

_PREPARING = PREFIX + b"preparing"
# Stands for what is sent ahead here: if it fails, it fails for the client.
_AHEAD = Statement(b"", b"", b"\0\0", PLAIN)


def wanted(session: Conversation, name: bytes) -> Statement | None:
    """What the client has under this name."""
    if session.by_sql is not None and name in session.by_sql:
        return session.by_sql[name]
    return session.statements.get(name)


class Ahead:
    """What is sent ahead of one request. If it fails, the client reads its error, and in place of what was to follow
    a Query the end of that Query. What is only implied may fail, if no transaction fails with it."""

    def __init__(
        self, session: Conversation, server: ServerConnection, implied: frozenset[bytes], *, alone: bool
    ) -> None:
        self.session, self.server, self.alone = session, server, alone
        self.implied = implied
        chooser = session.chooser
        in_block = server.status != IDLE or (chooser is not None and chooser.tenancy.open)
        self.tolerates = alone and not (session.unsynced or in_block)
        self.statements: dict[bytes, Statement] = {}
        self.may_fail = False
        self.sync = Expect(SYNC, DROP, tolerant=True, statement=_AHEAD)

    def prepare(self, name: bytes, statement: Statement) -> bytes:
        server = self.server
        if statement is STRANGE:  # an empty text can be prepared always
            server.expect(Expect(PARSE, DROP))
            return encode.parse(name, b"")
        self.may_fail = True
        if name in self.implied and self.tolerates:
            out = self._send(name, statement, None, _Implied(server, name, statement))
            server.expect(Expect(SYNC, DROP, tolerant=True, statement=_AHEAD))
            return out + encode.SYNC
        self.statements[name] = statement
        return self._send(name, statement, _AHEAD, self.failed)

    def _send(
        self, name: bytes, statement: Statement, marked: Statement | None, undo: Callable[[bool], None]
    ) -> bytes:
        expect, tolerant = self.server.expect, marked is None
        if not isinstance(statement, SqlStatement):
            expect(Expect(PARSE, DROP, statement=marked, undo=undo, tolerant=tolerant))
            return encode.parse(name, statement.text, statement.oids)
        compared = _Compared(self.session, self.server, name, statement, True, name in self.implied)
        # An earlier one may have failed between the two: it is closed first.
        for kind in (CLOSE, PARSE, BIND, EXECUTE, DESCRIBE, CLOSE, CLOSE):
            expect(
                Expect(
                    kind,
                    DROP,
                    statement=marked,
                    undo=undo if kind == EXECUTE else None,
                    tolerant=tolerant,
                    learn=compared if kind == DESCRIBE else None,
                )
            )
        return (
            encode.close(b"S", _PREPARING)
            + encode.parse(_PREPARING, statement.text)
            + encode.bind(_PREPARING, _PREPARING, [])
            + encode.execute(_PREPARING)
            + encode.describe(b"S", name)
            + encode.close(b"P", _PREPARING)
            + encode.close(b"S", _PREPARING)
        )

    def failed(self, _: bool) -> None:
        own = self.server.prepared.own
        for name, statement in self.statements.items():
            if own.get(name) is statement:
                own[name] = DOUBTFUL
        if self.alone:
            self.sync.action = FORWARD
            self.session.amiss = SAID


class _Implied:
    """Notes that a statement could not be prepared."""

    def __init__(self, server: ServerConnection, name: bytes, statement: Statement) -> None:
        self._server, self._name, self._statement = server, name, statement

    def __call__(self, _: bool) -> None:
        own = self._server.prepared.own
        if own.get(self._name) is self._statement:
            own[self._name] = DOUBTFUL


class _Compared(Learning):
    """Hears what a statement that has been prepared describes as: `again`, or for the first time for this client."""

    def __init__(
        self,
        session: Conversation,
        server: ServerConnection,
        name: bytes,
        statement: SqlStatement,
        again: bool,
        implied: bool = False,
    ) -> None:
        super().__init__(server, None)
        self._session, self._name, self._statement = session, name, statement
        self._again, self._implied = again, implied

    def learned(self, found: Description) -> None:
        told = self._statement.told
        if told is None:
            self._statement.told = found
        elif told.columns == found.columns:
            return
        elif self._again:
            if not self._implied:
                self._session.amiss = CHANGED_ERROR
            self._server.prepared.own[self._name] = DOUBTFUL
        elif wanted(self._session, self._name) is self._statement and self._session.by_sql is not None:
            # Another client has prepared the same when its tables were others.
            own = SqlStatement(self._statement.text, self._statement.verdict)
            own.told = found
            self._session.by_sql[self._name] = self._server.prepared.own[self._name] = own


def describe_new(session: Conversation, server: ServerConnection) -> bytes:
    """Asks what has just been prepared describes as."""
    new, session.undescribed = session.undescribed or [], None
    if server.status == FAILED or server.pipeline.skipping:
        return b""
    out = []
    for name, statement in new:
        if wanted(session, name) is statement:
            server.expect(
                Expect(
                    DESCRIBE, DROP, tolerant=True, learn=_Compared(session, server, name, statement, False)
                )
            )
            out.append(encode.describe(b"S", name))
    if out and not session.unsynced:
        server.expect(Expect(SYNC, DROP, tolerant=True, statement=_AHEAD))
        out.append(encode.SYNC)
    return b"".join(out)
