"""What each message of a client means for the session and its server connection.

A handler gets the told frame `data[start:stop]` and returns what goes to the server in its place: None for
the frame as it is, bytes for another one, b"" for nothing. It queues the reply that is owed. Names of
prepared statements are the client's here and the catalog's on the server; a name that the client never
prepared is passed on, so that the server itself says that it does not exist.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.client import effects, remains, sequences, sql_prepared, unread
from proxy.client.batches import begins_with_bind, begins_with_parse
from proxy.client.entering import FOLLOWS, SENT, as_messages
from proxy.client.prepared import evict, on_bind, on_close, on_describe, on_parse
from proxy.client.preparing import SAID
from proxy.client.refusals import REFUSED, TooLong, frame_size, refusal, watch
from proxy.client.resetting import amended
from proxy.client.unnamed import unnamed_is
from proxy.client.waits import Owing, wait_for_answers
from proxy.errors import ProtocolViolation
from proxy.model import PinReason
from proxy.protocol import pipeline as owed
from proxy.protocol.pipeline import (
    FORWARD_BIND,
    FORWARD_DESCRIBE,
    FORWARD_EXECUTE,
    FORWARD_PARSE,
    FORWARD_PLAIN_QUERY,
    FORWARD_SYNC,
    Expect,
)
from proxy.protocol.statements import STRANGE
from proxy.server.connection import ServerConnection
from proxy.sql.calls import UNKNOWN, judge_call
from proxy.sql.verdict import PLAIN, Verdict
from proxy.sql.words import surely_plain
from proxy.wire import decode, encode
from proxy.wire.decode import query_within
from proxy.wire.frames import HEAD, HEADER_SIZE
from proxy.wire.pieces import end_of

if TYPE_CHECKING:
    from proxy.client.conversation import Conversation

_QUERY, _PARSE, _BIND, _DESCRIBE, _EXECUTE, _SYNC = b"QPBDES"
Handler = Callable[["Conversation", ServerConnection, bytes, int, int, int], bytes | None]


def on_query(
    session: Conversation, server: ServerConnection, data: bytes, start: int, stop: int, told: int
) -> bytes | None:
    if told == HEAD:
        return _on_unread_query(session, server, data, start, stop)
    at = start + HEADER_SIZE
    if (
        not (session.strict or session.confirming or session.pins or session.by_sql)
        and end_of(data, at) == stop - 1
        and surely_plain(data, at, stop - 1)
    ):
        return _on_plain_query(session, server)
    try:
        text = query_within(data, at, stop)
    except ProtocolViolation:
        _end_batch(session, server)
        raise
    if session.confirming == FOLLOWS:
        if server.entered:
            return as_messages(session, server, text)
        session.confirming = SENT
    verdict = session.judge.judge(text)
    if verdict is not PLAIN or session.strict:
        refused = refusal(session, text, verdict)
        if refused is not None and not session.unsynced and unread.is_strange(text, verdict):
            return _refused_by_server(session, server, text, verdict, encode.refusal(refused))
        if refused is not None:
            return _refused(session, server, encode.refusal(refused))
    if verdict is not PLAIN and (verdict.asks_sequences or verdict.sets_sequences):
        refused = sequences.said(session, server, verdict, works=session.unsynced)
        if refused is not None:
            return _refused(session, server, encode.refusal(refused))
    if session.pins:
        remains.look(session, text)
    # An EXECUTE may hide in a literal, for a function to run it.
    hides = (
        bool(session.by_sql) and verdict is PLAIN and session.maps_statements and b"execute" in text.lower()
    )
    # Of who may choose its tenant, the ends of transactions must be heard.
    if verdict is PLAIN and not hides and (session.chooser is None or not session.strict):
        return _on_plain_query(session, server)
    return _on_query_of_effect(session, server, data, start, stop, text, verdict, hides)


def _on_unread_query(
    session: Conversation, server: ServerConnection, data: bytes, start: int, stop: int
) -> bytes | None:
    """It is too long to be held: what has come of it is looked at, and the session keeps its connection."""
    if session.by_sql and session.maps_statements:
        error = sql_prepared.ready(session, server, sql_prepared.UNSEEN, query=True)[1]
        if error is SAID:
            raise TooLong("a statement that is too long to inspect may use what cannot be prepared any more")
    refused = watch(session, data[start + 5 : stop], frame_size(data, start) - 1)
    if refused is not None:
        return _refused(session, server, encode.refusal(refused))
    server.expect(_begun(session, server, owed.FORWARD_QUERY))
    effects.pin(session, PinReason.UNINSPECTED)
    return None


def _refused(session: Conversation, server: ServerConnection, error: bytes) -> bytes:
    """The server fails as well, where the client's Query would have: a transaction block is left as by any error."""
    server.expect(_begun(session, server, Expect(owed.QUERY, error=error)))
    return encode.query(REFUSED)


def _refused_by_server(
    session: Conversation, server: ServerConnection, text: bytes, verdict: Verdict, error: bytes
) -> bytes:
    """What no parser has read may be an error to the server too, and then the client is told the server's own."""
    session.unnamed = session.unnamed_by = None
    server.unnamed = STRANGE  # a Query would have taken it away
    ahead = unread.refuse(server, text, verdict, error)
    server.expect(FORWARD_SYNC)
    return ahead + encode.SYNC


def _on_query_of_effect(
    session: Conversation,
    server: ServerConnection,
    data: bytes,
    start: int,
    stop: int,
    text: bytes,
    verdict: Verdict,
    hides: bool,
) -> bytes | None:
    """It changes what the session has, or uses what is known by a name in SQL. `hides`: it may do so unseen."""
    restored = effects.restored(session, verdict)
    several = verdict.statements != 1
    changing = bool(verdict.prepares or verdict.deallocates)
    resets = None
    if restored and several:
        wait_for_answers(server)
        resets = amended(server, text, restored)
    evict(session, verdict)
    instead = changes = None
    if (verdict.by_name or session.by_sql) and session.maps_statements:
        seen = sql_prepared.UNSEEN if hides else verdict
        ahead, error = sql_prepared.ready(session, server, seen, query=True)
        if error:
            return _failed_ahead(session, server, error)
        if ahead:
            instead = ahead + data[start:stop]
        if changing:
            changes = sql_prepared.Changes(session, server, verdict)
    if instead is not None or changes is not None:
        resets = None
    lost = session.startup.parameters if verdict.discards_all else restored if resets is None else None
    server.expect(_begun(session, server, Expect(owed.QUERY, restores=lost or None, learn=changes or resets)))
    effects.obey(session, verdict)
    if verdict.deallocates_all or verdict.discards_all or changing:
        session.answers_first = True
    if not restored:
        return instead
    if resets is not None:
        return encode.query(resets.text)
    if several:
        # Behind a COPY FROM STDIN it would be read as data; and whether there was a RESET shows in the end only.
        session.answers_first = True
        session.owing = Owing(restored, server.last_error)
        return instead
    return (instead or data[start:stop]) + server.set_again(restored)


def _on_plain_query(session: Conversation, server: ServerConnection) -> bytes | None:
    if session.unsynced:
        server.expect(_begun(session, server, FORWARD_PLAIN_QUERY))
    else:
        session.unnamed = session.unnamed_by = server.unnamed = None
        server.expect(FORWARD_PLAIN_QUERY)
    return None


def _failed_ahead(session: Conversation, server: ServerConnection, error: bytes) -> bytes:
    """The Query cannot run: what it needs could not be brought to its connection."""
    if error is not SAID:
        return _refused(session, server, error)
    _end_batch(session, server)
    session.unnamed = session.unnamed_by = None
    return b""


def _end_batch(session: Conversation, server: ServerConnection) -> None:
    """A Query ends an extended batch that has no Sync. PostgreSQL 18 then believes a transaction to be open that
    is not, and fails what comes next (XX000): nobody else is to meet that connection."""
    if session.unsynced:
        session.unsynced = False
        server.generation = -1


def _begun(session: Conversation, server: ServerConnection, entry: Expect) -> Expect:
    """A Query takes the unnamed statement away, unless it ends a batch that has failed: then it is skipped."""
    if not session.unsynced:
        session.unnamed = session.unnamed_by = server.unnamed = None
        return entry
    _end_batch(session, server)
    undo = unnamed_is(session, server, None, False)
    return Expect(owed.QUERY, error=entry.error, restores=entry.restores, undo=undo, learn=entry.learn)


def on_execute(
    session: Conversation, server: ServerConnection, data: bytes, start: int, stop: int, told: int
) -> bytes | None:
    session.unsynced = True
    if session.chooser is not None and session.chooser.ends:
        session.chooser.executing(data[start + 5 : data.find(b"\0", start + 5)])
    if not session.lasting:
        server.expect(FORWARD_EXECUTE)
        return None
    return effects.execute(session, server, data[start:stop])


def on_flush(
    session: Conversation, server: ServerConnection, data: bytes, start: int, stop: int, told: int
) -> bytes | None:
    if stop - start != HEADER_SIZE and not server.copy_in:
        session.unsynced = True
        raise ProtocolViolation("invalid message format")
    return None


def on_sync(
    session: Conversation, server: ServerConnection, data: bytes, start: int, stop: int, told: int
) -> bytes | None:
    if server.copy_in:
        return None
    session.unsynced = False
    if session.confirming:
        session.confirming = SENT
    server.expect(FORWARD_SYNC)
    return None


def on_function_call(
    session: Conversation, server: ServerConnection, data: bytes, start: int, stop: int, told: int
) -> bytes | None:
    _end_batch(session, server)
    if told != HEAD:
        verdict = judge_call(*decode.function_call(data[start + 5 : stop]))
    else:
        verdict = UNKNOWN
    refused = refusal(session, b"", verdict) or sequences.said(
        session, server, verdict, works=session.unsynced
    )
    if refused is not None:
        if told == HEAD:
            raise TooLong("a function call that is too long to inspect", hint="Call it in a query.")
        server.expect(Expect(owed.QUERY, error=encode.refusal(refused)))
        return encode.query(REFUSED)
    server.expect(owed.FORWARD_QUERY)
    for reason in session.pins:
        remains.pinned(session, reason)  # it may be a function that unlocks
    effects.obey(session, verdict)
    return None


def on_copy_end(
    session: Conversation, server: ServerConnection, data: bytes, start: int, stop: int, told: int
) -> bytes | None:
    if not server.copy_in:
        server.expect(owed.COPY_ENDS)
    server.copy_in = False
    return None


# What the server is to answer to a message that it will find malformed.
MALFORMED: dict[int, Expect] = {
    ord("Q"): owed.FORWARD_QUERY,
    ord("P"): FORWARD_PARSE,
    ord("B"): FORWARD_BIND,
    ord("D"): FORWARD_DESCRIBE,
    ord("C"): owed.FORWARD_CLOSE,
    ord("F"): owed.FORWARD_QUERY,
    ord("H"): FORWARD_EXECUTE,
}

_OTHERS: dict[int, Handler] = {
    ord("C"): on_close,
    ord("H"): on_flush,
    ord("F"): on_function_call,
    ord("c"): on_copy_end,
    ord("f"): on_copy_end,
}


def handle(
    kind: int,
    session: Conversation,
    server: ServerConnection,
    data: bytes,
    start: int,
    stop: int,
    told: int,
) -> bytes | None:
    """Calls the handler of `kind`. The frequent ones stand here for the compiler, which then calls them directly."""
    if kind == _QUERY:
        return on_query(session, server, data, start, stop, told)
    if kind == _PARSE:
        if told != HEAD and begins_with_parse(session, server, data, start, stop):
            return None
        return on_parse(session, server, data, start, stop, told)
    if kind == _BIND:
        if told != HEAD:
            instead = begins_with_bind(session, server, data, start, stop)
            if instead:
                return instead
        return on_bind(session, server, data, start, stop, told)
    if kind == _EXECUTE:
        return on_execute(session, server, data, start, stop, told)
    if kind == _SYNC:
        return on_sync(session, server, data, start, stop, told)
    if kind == _DESCRIBE:
        return on_describe(session, server, data, start, stop, told)
    return _OTHERS[kind](session, server, data, start, stop, told)
