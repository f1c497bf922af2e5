"""What each message of a client means for the session and its server connection.

A handler gets the told frame `data[start:stop]` and returns what goes to the server in its place: None for
the frame as it is, bytes for another one, b"" for nothing. It queues the reply that is owed. Names of
prepared statements are the client's here and the catalog's on the server; a name that the client never
prepared is passed on, so that the server itself says that it does not exist.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.client import effects
from proxy.client.refusals import REFUSED, TooLong, error_frame, refusal, watch
from proxy.errors import ProtocolViolation
from proxy.model import PinReason, PoolMode
from proxy.protocol import pipeline as owed
from proxy.protocol.pipeline import (
    FORWARD_BIND,
    FORWARD_DESCRIBE,
    FORWARD_EXECUTE,
    FORWARD_PARSE,
    FORWARD_PLAIN_QUERY,
    FORWARD_SYNC,
    INJECT,
    Expect,
    expect_of,
)
from proxy.protocol.statements import PREFIX, STRANGE, Statement
from proxy.server.connection import FAILED, ServerConnection
from proxy.sql.calls import UNKNOWN, judge_call
from proxy.sql.verdict import PLAIN, Verdict
from proxy.wire import decode, encode
from proxy.wire.decode import bind_names, parse_fields
from proxy.wire.decode import query as read_query
from proxy.wire.frames import HEAD, HEADER_SIZE

if TYPE_CHECKING:
    from proxy.client.conversation import Conversation

_QUERY, _BIND, _DESCRIBE, _EXECUTE, _SYNC, _PORTAL = b"QBDESP"
_BIND_REPLY = owed.BIND
_STATEMENT_MODE = PoolMode.STATEMENT

Handler = Callable[["Conversation", ServerConnection, bytes, int, int, int], bytes | None]


class EvictFirst(Exception):
    """The statement needs databases to which no idle connection may exist."""

    def __init__(self, databases: tuple[str, ...]) -> None:
        super().__init__()
        self.databases = databases


def on_query(
    session: Conversation, server: ServerConnection, data: bytes, start: int, stop: int, told: int
) -> bytes | None:
    session.unnamed = server.unnamed = None
    if session.unsynced:
        _end_batch(session, server)
    if told == HEAD:
        watch(session, data[start + 5 : stop])
        server.expect(owed.FORWARD_QUERY)
        effects.pin(session, PinReason.UNINSPECTED)
        return None
    text = read_query(data[start + 5 : stop])
    verdict = session.judge.judge(text)
    if verdict is PLAIN and session.mode is not _STATEMENT_MODE:
        server.expect(FORWARD_PLAIN_QUERY)
        return None
    refused = refusal(session, text, verdict)
    if refused is not None:
        server.expect(Expect(owed.QUERY, error=error_frame(refused)))
        return encode.query(REFUSED)
    _evict(session, verdict)
    frame = None
    if verdict.deallocates and session.maps_statements:
        frame = _deallocate(session, server, verdict)
    restored = effects.restored(session, verdict)
    server.expect(Expect(owed.QUERY, restores=restored) if restored else owed.FORWARD_QUERY)
    effects.obey(session, verdict)
    again = effects.reassert(session, restored)
    if again:
        return (frame or data[start:stop]) + again
    return frame


def _end_batch(session: Conversation, server: ServerConnection) -> None:
    """A Query ends an extended batch that has no Sync. PostgreSQL 18 then believes a transaction to be open that
    is not, and fails what comes next (XX000): nobody else is to meet that connection."""
    if session.unsynced:
        session.unsynced = False
        server.generation = -1
        server.unnamed = STRANGE  # the server may have skipped the query


def _evict(session: Conversation, verdict: Verdict) -> None:
    if verdict.drops_databases and not session.evicted:
        raise EvictFirst(verdict.drops_databases)
    session.evicted = False


def _deallocate(session: Conversation, server: ServerConnection, verdict: Verdict) -> bytes | None:
    """`DEALLOCATE name` of a statement that was prepared by message: the server knows it by another name."""
    name = verdict.deallocates[0].encode("utf-8", "surrogateescape")
    statement = session.statements.get(name)
    if statement is None or verdict.statements != 1 or server.status == FAILED:
        return None
    out = server.prepare(statement)
    server.prepared.remove(statement)
    del session.statements[name]
    return out + encode.query(b'DEALLOCATE "' + statement.name + b'"')


def on_parse(
    session: Conversation, server: ServerConnection, data: bytes, start: int, stop: int, told: int
) -> bytes | None:
    session.unsynced = True
    if told == HEAD:
        watch(session, data[start + 5 : stop])
        server.expect(FORWARD_PARSE)
        effects.pin(session, PinReason.UNINSPECTED)
        session.unnamed = server.unnamed = None
        return None
    name, text, oids = parse_fields(data[start + 5 : stop])
    verdict = session.judge.judge(text)
    refused = refusal(session, text, verdict)
    if refused is not None:
        server.expect(Expect(owed.PARSE, error=error_frame(refused)))
        return encode.parse(b"", REFUSED)
    _evict(session, verdict)
    if not session.maps_statements:
        undo_reset = effects.resetting(session, b"S", name, effects.restored(session, verdict))
        server.expect(expect_of(owed.PARSE, None, undo_reset))
        if name:
            effects.pin(session, PinReason.SQL_PREPARE)
        effects.obey(session, verdict)
        return None
    if not name:
        _parse_unnamed(session, server, Statement(b"", text, oids, verdict))
        return None
    known = session.statements.get(name)
    if known is not None:
        out = server.prepare(known)
        server.expect(FORWARD_PARSE)
        return out + encode.parse(known.name, text, oids)
    statement = session.plane.pools.catalog.statement(text, oids, verdict)
    session.statements[name] = statement
    if statement in server.prepared and server.status != FAILED:
        server.prepared.use(statement)
        server.expect(
            Expect(
                owed.PARSE,
                INJECT,
                says=encode.PARSE_COMPLETE,
                undo=lambda _: effects.forget(session, name, statement),
            )
        )
        return b""
    closing = b""
    if statement in server.prepared:
        server.prepared.remove(statement)
        server.to_close.append(statement.name)
    closing = server.make_room(statement)

    def undo(_: bool) -> None:
        server.prepared.remove(statement)
        effects.forget(session, name, statement)

    server.expect(expect_of(owed.PARSE, statement, undo))
    return closing + encode.parse(statement.name, text, oids)


class UnnamedIs:
    """Makes `own` the unnamed statement of both; called, takes that back unless something newer has come. The
    client's own Parse (`fresh`) leaves none if it fails; of a server that skipped the request nothing is known."""

    __slots__ = ("_before", "_fresh", "_own", "_server", "_session")

    def __init__(
        self, session: Conversation, server: ServerConnection, own: Statement | None, fresh: bool
    ) -> None:
        self._session, self._server, self._own, self._fresh = session, server, own, fresh
        self._before = session.unnamed
        session.unnamed = server.unnamed = own

    def __call__(self, failed: bool) -> None:
        if self._session.unnamed is self._own:
            self._session.unnamed = None if failed and self._fresh else self._before
        if self._server.unnamed is self._own:
            self._server.unnamed = None if failed else STRANGE


def _parse_unnamed(session: Conversation, server: ServerConnection, statement: Statement) -> None:
    server.expect(expect_of(owed.PARSE, None, UnnamedIs(session, server, statement, True)))


def _foreign(name: bytes) -> bytes:
    """A name that the client never prepared, so that it cannot mean a statement of ours."""
    return b"?" + name if name.startswith(PREFIX) else name


def _statement_for_use(
    session: Conversation, server: ServerConnection, name: bytes
) -> tuple[bytes, bytes, Statement | None]:
    """What must be sent ahead, the server's name, and the statement if the client has it."""
    if name:
        statement = session.statements.get(name)
        if statement is None:
            return b"", _foreign(name), None
        return server.prepare(statement), statement.name, statement
    statement = session.unnamed
    if statement is server.unnamed:
        return b"", name, statement
    undo = UnnamedIs(session, server, statement, False)
    if statement is None:
        server.expect(expect_of(owed.CLOSE, None, undo, owed.DROP))
        return encode.close(b"S", b""), name, None
    server.expect(expect_of(owed.PARSE, statement, undo, owed.DROP))
    return encode.parse(b"", statement.text, statement.oids), name, statement


def on_bind(
    session: Conversation, server: ServerConnection, data: bytes, start: int, stop: int, told: int
) -> bytes | None:
    session.unsynced = True
    if not session.maps_statements:
        undo = None
        if session.resets:
            portal, name, _ = bind_names(data[start + 5 : stop])
            undo = effects.resetting(session, b"P", portal, session.resets.get(b"S" + name))
        server.expect(FORWARD_BIND if undo is None else expect_of(_BIND_REPLY, None, undo))
        return None
    portal, name, rest = bind_names(data[start + 5 : stop])
    ahead, known_as, statement = _statement_for_use(session, server, name)
    if statement is None:
        server.expect(FORWARD_BIND)
    elif statement.verdict is PLAIN and not session.resets:
        server.expect(expect_of(_BIND_REPLY, statement, None))
    else:
        verdict = statement.verdict
        undo = effects.resetting(session, b"P", portal, effects.restored(session, verdict))
        server.expect(expect_of(_BIND_REPLY, statement, undo))
        effects.obey(session, verdict)
    if known_as == name:
        return ahead + data[start:stop] if ahead else None
    length = int.from_bytes(data[start + 1 : start + 5], "big") + len(known_as) - len(name)
    head = b"B" + length.to_bytes(4, "big") + portal + b"\0" + known_as + b"\0"
    return ahead + head + data[start + 5 + rest : stop]


def on_describe(
    session: Conversation, server: ServerConnection, data: bytes, start: int, stop: int, told: int
) -> bytes | None:
    session.unsynced = True
    if not session.maps_statements or (stop - start > HEADER_SIZE and data[start + 5] == _PORTAL):
        server.expect(FORWARD_DESCRIBE)
        return None
    kind, name = decode.target(data[start + 5 : stop])
    ahead, known_as, statement = _statement_for_use(session, server, name)
    server.expect(FORWARD_DESCRIBE if statement is None else Expect(owed.DESCRIBE, statement=statement))
    if known_as == name:
        return ahead + data[start:stop] if ahead else None
    return ahead + encode.describe(kind, known_as)


def on_close(
    session: Conversation, server: ServerConnection, data: bytes, start: int, stop: int, told: int
) -> bytes | None:
    session.unsynced = True
    kind, name = decode.target(data[start + 5 : stop])
    if session.resets and (kind == b"P" or not session.maps_statements):
        server.expect(Expect(owed.CLOSE, undo=effects.resetting(session, kind, name, None)))
        return None
    statement = session.statements.get(name) if kind == b"S" else None
    if statement is None:
        if kind == b"S" and not name:
            server.expect(Expect(owed.CLOSE, undo=UnnamedIs(session, server, None, False)))
        else:
            server.expect(owed.FORWARD_CLOSE)
        foreign = _foreign(name) if kind == b"S" and session.maps_statements else name
        return None if foreign == name else encode.close(kind, foreign)

    def undo(_: bool) -> None:
        session.statements.setdefault(name, statement)

    del session.statements[name]
    server.expect(Expect(owed.CLOSE, INJECT, says=encode.CLOSE_COMPLETE, undo=undo))
    return b""


def on_execute(
    session: Conversation, server: ServerConnection, data: bytes, start: int, stop: int, told: int
) -> bytes | None:
    session.unsynced = True
    if not session.resets:
        server.expect(FORWARD_EXECUTE)
        return None
    again = effects.reassert_within(session, server, data[start + 5 : data.find(b"\0", start + 5)])
    return data[start:stop] + again if again else None


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
    refused = refusal(session, b"", verdict)
    if refused is not None:
        if told == HEAD:
            raise TooLong("a function call that is too long to inspect", hint="Call it in a query.")
        server.expect(Expect(owed.QUERY, error=error_frame(refused)))
        return encode.query(REFUSED)
    server.expect(owed.FORWARD_QUERY)
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
    ord("P"): on_parse,
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
    if kind == _BIND:
        return on_bind(session, server, data, start, stop, told)
    if kind == _EXECUTE:
        return on_execute(session, server, data, start, stop, told)
    if kind == _SYNC:
        return on_sync(session, server, data, start, stop, told)
    if kind == _DESCRIBE:
        return on_describe(session, server, data, start, stop, told)
    return _OTHERS[kind](session, server, data, start, stop, told)
