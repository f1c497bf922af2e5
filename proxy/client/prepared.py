"""The statements that clients prepare by message, and the portals made of them.

Names of prepared statements are the client's here and the catalog's on the server; a name that the client
never prepared is passed on, so that the server itself says that it does not exist.

A batch that fails has parsed and closed nothing of what stood behind the error. Whoever sends the next batch
before it has been answered may rely on that: a request that uses what an unanswered earlier batch has parsed
or closed waits for the answers.
"""

from __future__ import annotations

from proxy.client import effects, remains, sequences, sql_prepared, unread
from proxy.client.conversation import Conversation
from proxy.client.refusals import frame_size, refusal, watch
from proxy.client.told import (
    CHANGED,
    CHANGED_ERROR,
    describe_unnamed,
    describing,
    named_as_told,
    refused_description,
    unnamed_as_told,
)
from proxy.client.unnamed import unnamed_is
from proxy.client.waits import AnswersFirst, EvictFirst, wait_for_answers
from proxy.model import PinReason, PoolMode
from proxy.protocol import pipeline as owed
from proxy.protocol.pipeline import FORWARD_BIND, FORWARD_DESCRIBE, FORWARD_PARSE, INJECT, Expect, expect_of
from proxy.protocol.statements import PREFIX, Statement, unnamed_statement
from proxy.server.connection import FAILED, ServerConnection
from proxy.sql.verdict import PLAIN, Verdict
from proxy.sql.watch import DROPPED
from proxy.wire import decode, encode
from proxy.wire.decode import bind_names_within, parse_within
from proxy.wire.frames import HEAD, HEADER_SIZE

_PORTAL = ord("P")
_SESSION_MODE = PoolMode.SESSION
_MISSING = unread.MISSING
_PARSE_REPLY, _BIND_REPLY = owed.PARSE, owed.BIND


def evict(session: Conversation, verdict: Verdict) -> None:
    if verdict is not PLAIN and verdict.drops_databases and not session.evicted:
        raise EvictFirst(verdict.drops_databases)
    session.evicted = False


def _is_the_clients(session: Conversation, name: bytes) -> bool:
    """The server knows the statement by the client's name. The unnamed one of a connection that is shared does not
    become another's, even where named ones are not shared."""
    return not session.maps_statements and (name != b"" or session.mode is _SESSION_MODE)


def on_parse(
    session: Conversation, server: ServerConnection, data: bytes, start: int, stop: int, told: int
) -> bytes | None:
    session.unsynced = True
    if told == HEAD:
        # Behind the text stand its end and the types of its parameters, of which mostly none are told.
        before = data.find(b"\0", start + 5) + 1 - (start + 5)
        refused = watch(session, data[start + 5 : stop], frame_size(data, start) - before - 3)
        if refused is not None:
            server.expect(Expect(owed.PARSE, error=encode.refusal(refused)))
            return _MISSING
        server.expect(FORWARD_PARSE)
        effects.pin(session, PinReason.UNINSPECTED)
        session.unnamed = server.unnamed = None
        return None
    name, text, oids = parse_within(data, start + 5, stop)
    verdict = session.judge.judge(text)
    refused = refusal(session, text, verdict)
    if refused is not None:
        return unread.refuse(server, text, verdict, encode.refusal(refused))
    evict(session, verdict)
    if _is_the_clients(session, name):
        if sequences.refuses(session, server, owed.PARSE, verdict):
            return _MISSING
        effects.settle(session, server)
        undo = effects.remember(session, b"S", name, verdict)
        server.expect(expect_of(owed.PARSE, None, undo))
        if name:
            effects.pin(session, PinReason.SQL_PREPARE)
        effects.obey(session, verdict)
        return None
    if verdict is not PLAIN and verdict.executes:
        error = sql_prepared.ready_to_name(session, server, verdict)
        if error:
            server.expect(Expect(owed.PARSE, error=error))
            return _MISSING
    if not name:
        own = unnamed_statement(text, oids, verdict)
        server.expect(expect_of(_PARSE_REPLY, None, unnamed_is(session, server, own, True)))
        return None
    if session.by_sql:
        ahead = sql_prepared.taken(session, server, name)
        if ahead is not None:
            server.expect(FORWARD_PARSE)
            return ahead + data[start:stop]
    return _parse_named(session, server, name, text, oids, verdict)


def _parse_named(
    session: Conversation, server: ServerConnection, name: bytes, text: bytes, oids: bytes, verdict: Verdict
) -> bytes:
    if server.pipeline.answered <= server.named_in < server.pipeline.asked:
        wait_for_answers(server)
    server.named_in = server.pipeline.asked
    known = session.statements.get(name)
    if known is not None:
        return _taken(server, known, encode.parse(known.name, text, oids))
    meaning = session.pool.schema.version, session.state_needed.parameters.get("search_path", "")
    statement = session.plane.pools.catalog.statement(text, oids, verdict, meaning)
    session.name_statement(name, statement)
    if session.described:
        session.described.pop(name, None)
    # Where the answers to earlier batches are to come, nobody knows yet whether their transaction has failed.
    would_do = server.status != FAILED and server.pipeline.answered == server.pipeline.asked
    if would_do and statement in server.prepared:
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
    if statement in server.prepared:
        server.prepared.remove(statement)
        server.to_close.append(statement.name)
    closing = server.make_room(statement)

    def undo(_: bool) -> None:
        server.prepared.remove(statement)
        effects.forget(session, name, statement)

    server.expect(expect_of(owed.PARSE, statement, undo))
    return closing + encode.parse(statement.name, text, oids)


def _taken(server: ServerConnection, known: Statement, again: bytes) -> bytes:
    """A Parse of a name that the client has already: the server says so, or what else is wrong with it."""
    if known not in server.prepared and server.prepared.own.pop(known.name, None) is not None:
        server.to_close.append(known.name)
    out = server.close_stale()
    if known not in server.prepared:
        # An empty text can be prepared always, in a failed transaction too.
        server.expect(Expect(owed.PARSE, owed.DROP, statement=known))
        out += encode.parse(known.name, b"")
        server.to_close.append(known.name)
    server.expect(FORWARD_PARSE)
    return out + again


def _foreign(name: bytes) -> bytes:
    """A name that the client never prepared, so that it cannot mean a statement of ours."""
    return b"?" + name if name.startswith(PREFIX) else name


def _is_amiss(session: Conversation, server: ServerConnection, statement: Statement) -> bool:
    """What the statement executes cannot be what the client knows it as."""
    return bool(sql_prepared.ready_to_name(session, server, statement.verdict))


def _prepared_in_sql(
    session: Conversation, server: ServerConnection, name: bytes
) -> tuple[bytes, bytes, Statement | None]:
    ahead, statement, error = sql_prepared.named(session, server, name)
    return (b"", CHANGED.name, CHANGED) if error else (ahead, name, statement)


def _statement_for_use(
    session: Conversation, server: ServerConnection, name: bytes
) -> tuple[bytes, bytes, Statement | None]:
    """What must be sent ahead, the server's name, and the statement if the client has it."""
    pipeline = server.pipeline
    if name:
        if pipeline.answered <= server.named_in < pipeline.asked:
            wait_for_answers(server)
        statement = session.statements.get(name)
        if statement is None:
            if session.by_sql and name in session.by_sql:
                return _prepared_in_sql(session, server, name)
            return b"", _foreign(name), None
        if (
            statement.verdict is not PLAIN
            and statement.verdict.executes
            and _is_amiss(session, server, statement)
        ):
            return b"", CHANGED.name, CHANGED
        if session.described:
            told = session.described.get(name)
            if told is not None and server.prepared.described(statement) is not told:
                statement = named_as_told(session, server, name, statement, told)
                if statement is CHANGED:
                    return b"", CHANGED.name, CHANGED
        return server.prepare(statement), statement.name, statement
    if pipeline.answered <= server.unnamed_in < pipeline.asked and session.unnamed_by is not None:
        wait_for_answers(server)
    statement = session.unnamed
    if (
        statement is not None
        and statement.verdict is not PLAIN
        and statement.verdict.executes
        and _is_amiss(session, server, statement)
    ):
        return b"", CHANGED.name, CHANGED
    if statement is not None and statement.told is not None:
        told = statement.told
        if statement is not server.unnamed or server.unnamed_as is not told:
            asked = unnamed_as_told(session, server, statement, told)
            if asked is CHANGED:
                return b"", CHANGED.name, CHANGED
            if asked is not None:
                server.expect(
                    expect_of(owed.PARSE, asked, unnamed_is(session, server, asked, False), owed.DROP)
                )
                ahead = encode.parse(b"", asked.text, asked.oids)
                raise AnswersFirst(ahead + describe_unnamed(session, server, asked))
    if statement is server.unnamed:
        return b"", name, statement
    undo = unnamed_is(session, server, statement, False)
    if statement is None:
        server.expect(expect_of(owed.CLOSE, None, undo, owed.DROP))
        return encode.close(b"S", b""), name, None
    server.expect(expect_of(owed.PARSE, statement, undo, owed.DROP))
    return encode.parse(b"", statement.text, statement.oids), name, statement


def _refused_since(session: Conversation, server: ServerConnection, name: bytes) -> bool:
    """The rules have changed since the statement was prepared, and do not allow it any more."""
    statement = session.statements.get(name) if name else session.unnamed
    rules = session.rules
    if statement is None or rules is None:
        return False
    refused = session.plane.answers.refusal(rules, statement.text, statement.verdict)
    if refused is None:
        return False
    server.expect(Expect(owed.BIND, error=encode.refusal(refused)))
    return True


def on_bind(
    session: Conversation, server: ServerConnection, data: bytes, start: int, stop: int, told: int
) -> bytes | None:
    session.unsynced = True
    portal, name, rest = bind_names_within(data, start + 5, stop)
    if session.lasting_in >= 0:
        effects.settle(session, server)
    if session.chooser is not None:
        known = session.statements.get(name) if name else session.unnamed
        if known is not None:
            refused = session.chooser.binding(known, name, data[start:stop], told != HEAD)
            if refused is not None:
                server.expect(Expect(owed.BIND, error=encode.refusal(refused)))
                return _MISSING
    if session.rules is not None and _refused_since(session, server, name):
        if told == HEAD:
            session.watch = DROPPED
        return _MISSING
    if not session.maps_statements and _is_the_clients(session, name):
        undo = None
        if session.lasting:
            verdict = session.lasting.get(b"S" + name, PLAIN)
            undo = effects.remember(session, b"P", portal, verdict)
            effects.obey(session, verdict, data[start + 5 + rest : stop])
        server.expect(FORWARD_BIND if undo is None else expect_of(_BIND_REPLY, None, undo))
        return None
    ahead, known_as, statement = _statement_for_use(session, server, name)
    if statement is None:
        server.expect(FORWARD_BIND)
    elif statement.verdict is PLAIN and not session.lasting:
        server.expect(expect_of(_BIND_REPLY, statement, None))
    elif statement is CHANGED:
        server.expect(Expect(owed.BIND, error=CHANGED_ERROR))
    elif sequences.refuses(session, server, owed.BIND, statement.verdict, ahead):
        return ahead + _MISSING
    else:
        undo = effects.remember(session, b"P", portal, statement.verdict)
        server.expect(expect_of(_BIND_REPLY, statement, undo))
        effects.obey(session, statement.verdict, data[start + 5 + rest : stop])
    session.bound_in = server.pipeline.asked
    if statement is not None and session.pins:
        remains.look(session, statement.text)
    if known_as == name:
        return ahead + data[start:stop] if ahead else None
    length = int.from_bytes(data[start + 1 : start + 5], "big") + len(known_as) - len(name)
    head = b"B" + length.to_bytes(4, "big") + portal + b"\0" + known_as + b"\0"
    return ahead + head + data[start + 5 + rest : stop]


def on_describe(
    session: Conversation, server: ServerConnection, data: bytes, start: int, stop: int, told: int
) -> bytes | None:
    session.unsynced = True
    if stop - start > HEADER_SIZE and data[start + 5] == _PORTAL:
        server.expect(FORWARD_DESCRIBE)
        return None
    kind, name = decode.target(data[start + 5 : stop])
    if _is_the_clients(session, name):
        server.expect(FORWARD_DESCRIBE)
        return None
    ahead, known_as, statement = _statement_for_use(session, server, name)
    if statement is None:
        server.expect(FORWARD_DESCRIBE)
    elif statement is CHANGED:
        server.expect(refused_description(session, name))
    else:
        server.expect(describing(session, server, name, statement))
    if known_as == name:
        return ahead + data[start:stop] if ahead else None
    return ahead + encode.describe(kind, known_as)


def on_close(
    session: Conversation, server: ServerConnection, data: bytes, start: int, stop: int, told: int
) -> bytes | None:
    session.unsynced = True
    kind, name = decode.target(data[start + 5 : stop])
    # Amid a COPY the server ends the session.
    if kind == b"P" or server.copy_in or _is_the_clients(session, name):
        effects.settle(session, server)
        undo_lasting = effects.remember(session, kind, name, PLAIN) if session.lasting else None
        server.expect(expect_of(owed.CLOSE, None, undo_lasting))
        return None
    if not name:
        server.expect(Expect(owed.CLOSE, undo=unnamed_is(session, server, None, False)))
        return None
    if server.pipeline.answered <= server.named_in < server.pipeline.asked:
        wait_for_answers(server)
    statement = session.statements.get(name)
    if statement is None:
        closed = sql_prepared.close(session, server, name)
        if closed is not None:
            server.expect(closed)
            return None
        server.expect(owed.FORWARD_CLOSE)
        foreign = _foreign(name)
        return None if foreign == name else encode.close(kind, foreign)

    def undo(_: bool) -> None:
        session.statements.setdefault(name, statement)

    server.named_in = server.pipeline.asked
    del session.statements[name]
    held = server.prepared.own.pop(name, None) if server.prepared.own else None
    if held is None:
        server.expect(Expect(owed.CLOSE, INJECT, says=encode.CLOSE_COMPLETE, undo=undo))
        return b""

    def undo_both(_: bool) -> None:
        undo(_)
        server.prepared.own.setdefault(name, held)

    server.expect(Expect(owed.CLOSE, undo=undo_both))
    return None
