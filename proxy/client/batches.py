"""Extended batches of the usual form, taken up as one: [Parse] Bind [Describe] Execute Sync, which have come whole.

Most drivers send these. Where the text that is parsed is plain (that of the last Parse is known to be), or the Bind is of
a statement that its connection has, where nothing is owed and nothing of what makes a session's requests to be looked
at one by one is on, there is nothing to find out: one entry for all of it goes into the pipeline, which unfolds if its
replies are not the usual ones. Whatever is not certain here is left to the handlers of the single messages.
"""

from __future__ import annotations

from proxy.client.conversation import Conversation
from proxy.client.unnamed import unnamed_is
from proxy.protocol.pipeline import BIND, DESCRIBE, EXECUTE, PARSE, SYNC, batch_of
from proxy.protocol.statements import Statement, unnamed_statement
from proxy.server.connection import ServerConnection
from proxy.sql.verdict import PLAIN
from proxy.wire.pieces import end_of, piece, rebound, same, word

_DESCRIBE = b"D\0\0\0\x06P\0"  # of the unnamed portal, as the two others
_EXECUTE = b"E\0\0\0\x09\0"
_SYNC = b"S\0\0\0\x04"
_MOST_ROWS = 4  # bytes behind the portal of an Execute
_BIND_UNNAMED = b"\0\0"
_BIND = ord("B")

_KINDS = bytes([BIND, EXECUTE, SYNC])
_KINDS_DESCRIBED = bytes([BIND, DESCRIBE, EXECUTE, SYNC])
_KINDS_PARSED = bytes([PARSE, BIND, EXECUTE, SYNC])
_KINDS_ALL = bytes([PARSE, BIND, DESCRIBE, EXECUTE, SYNC])


def _usual(session: Conversation, server: ServerConnection) -> bool:
    """Requests are only passed on, and nothing is owed."""
    chooser = session.chooser
    return (
        (chooser is None or chooser.calm)
        and session.maps_statements
        and not (
            session.unsynced
            or session.strict
            or session.confirming
            or session.answers_first
            or session.skipping
            or session.lasting_in >= 0
            or session.lasting
            or session.pins
            or session.by_sql
            or (session.account.gate is not None and not session.paid)
            or server.copy_in
            or server.entered
            or server.to_close
            or server.pipeline.owes()
        )
    )


def _behind_bind(data: bytes, at: int) -> int:
    """Where the batch ends of which the Bind has ended at `at`; 0 if it is not of the usual form or has not come whole."""
    if same(data, at, _DESCRIBE):
        at += len(_DESCRIBE)
    if not same(data, at, _EXECUTE):
        return 0
    at += len(_EXECUTE) + _MOST_ROWS
    return at + len(_SYNC) if same(data, at, _SYNC) else 0


def _parsed(session: Conversation, data: bytes, start: int, stop: int) -> Statement | None:
    """What the Parse that is `data[start:stop]` makes the unnamed statement; None if that is not certain here."""
    text_end = end_of(data, start + 6)
    if data[start + 5] or text_end < 0 or text_end + 3 > stop:
        return None
    own = session.unnamed
    if (
        own is not None
        and own.verdict is PLAIN
        and len(own.text) == text_end - start - 6
        and len(own.oids) == stop - text_end - 1
        and same(data, start + 6, own.text)
        and same(data, text_end + 1, own.oids)
    ):
        return unnamed_statement(own.text, own.oids, PLAIN)
    oids = piece(data, text_end + 1, stop)
    if len(oids) != 2 + 4 * (oids[0] << 8 | oids[1]):
        return None
    text = piece(data, start + 6, text_end)
    return unnamed_statement(text, oids, PLAIN) if session.judge.judge(text) is PLAIN else None


def begins_with_parse(
    session: Conversation, server: ServerConnection, data: bytes, start: int, stop: int
) -> bool:
    """The Parse that is `data[start:stop]` and what follows it are taken up; they go to the server as they are."""
    if stop + 7 > len(data) or data[stop] != _BIND or not same(data, stop + 5, _BIND_UNNAMED):
        return False
    length = word(data, stop + 1)
    bound = stop + 1 + length
    if length < 6 or bound > len(data) or not _usual(session, server):
        return False
    end = _behind_bind(data, bound)
    if not end:
        return False
    own = _parsed(session, data, start, stop)
    if own is None:
        return False
    undo = unnamed_is(session, server, own, True)
    session.bound_in = server.pipeline.asked
    described = end - bound > len(_EXECUTE) + _MOST_ROWS + len(_SYNC)
    server.expect_batch(batch_of(_KINDS_ALL if described else _KINDS_PARSED, own, undo))
    session.paid = False  # all of it is one query
    session.scanner.pos = end
    return True


def begins_with_bind(
    session: Conversation, server: ServerConnection, data: bytes, start: int, stop: int
) -> bytes:
    """The same of the Bind that is `data[start:stop]`: what goes to the server in its place; b"" if it is not taken up."""
    if data[start + 5] or not _usual(session, server):
        return b""
    end = _behind_bind(data, stop)
    if not end:
        return b""
    name_end = end_of(data, start + 6)
    if name_end < 0 or name_end >= stop or name_end == start + 6:
        return b""
    name = piece(data, start + 6, name_end)
    statement = session.statements.get(name)
    if statement is None or statement.verdict is not PLAIN:
        return b""
    if session.described:
        told = session.described.get(name)
        if told is not None and server.prepared.described(statement) is not told:
            return b""
    if not server.prepared.use(statement):
        return b""
    session.bound_in = server.pipeline.asked
    described = end - stop > len(_EXECUTE) + _MOST_ROWS + len(_SYNC)
    server.expect_batch(batch_of(_KINDS_DESCRIBED if described else _KINDS, statement, None))
    session.paid = False  # all of it is one query
    session.scanner.pos = end
    return rebound(data, start, stop, name_end, statement.name)
