"""`currval()` and `lastval()` of the session's own.

A server process remembers what each sequence gave to whoever had the connection. What a session reads there is its own
only if all that it has drawn was drawn there (`draws_alone`), and nobody else has drawn there since the connection was
new or reset: both are known from `uses`, the number of times a connection has been lent. Who asks is served where that
is so. Otherwise, between transactions, the connection first forgets what it remembers, so that the server itself says
that nothing is defined; within a transaction that is said here.

From then on the pool's sessions keep what they draw (`keeps_sequences`), and so do those of users configured so: the
connection is clean when they come, and behind each transaction the server is asked whether it has drawn. If so the
session is pinned. What one has drawn before that counts as not drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.client.waits import AnswersFirst, wait_for_answers
from proxy.errors import SequenceUndefined, TiergateError
from proxy.model import PinReason, PoolMode
from proxy.protocol import pipeline as owed
from proxy.protocol.pipeline import DROP, Expect
from proxy.protocol.statements import PREFIX
from proxy.server.connection import IDLE, ServerConnection
from proxy.sql.verdict import Verdict
from proxy.wire import encode

if TYPE_CHECKING:
    from proxy.client.conversation import Conversation

_STATEMENT = PREFIX + b"sequences"


def said(
    session: Conversation, server: ServerConnection, verdict: Verdict, *, works: bool
) -> TiergateError | None:
    """Of a statement that has to do with the last number of a sequence: what the client reads in its place. `works`:
    its batch has done something before."""
    if session.mode is PoolMode.SESSION:
        return None
    if verdict.sets_sequences and session.keeps_sequences:
        session.doubted().numbered = True
    if not verdict.asks_sequences:
        return None
    learn(session)
    if session.draws_alone:
        session.doubted().sequences = True
        return None
    wait_for_answers(server)
    if server.status == IDLE and not works:
        server.send(_forget(session, server))
        return None
    session.drawn_on = None
    return SequenceUndefined(
        "currval() and lastval() are not yet defined in this session",
        hint="What its earlier transactions drew is not known. From now on it keeps what it draws.",
    )


def refuses(
    session: Conversation, server: ServerConnection, kind: int, verdict: Verdict, ahead: bytes = b""
) -> bool:
    """Whether a Parse or Bind has been answered so. `ahead` is to be sent ahead of it."""
    if not (verdict.asks_sequences or verdict.sets_sequences):
        return False
    try:
        works = kind == owed.PARSE or session.bound_in == server.pipeline.asked
        refused = said(session, server, verdict, works=works)
    except AnswersFirst:
        raise AnswersFirst(ahead) from None
    if refused is not None:
        server.expect(Expect(kind, error=encode.refusal(refused)))
    return refused is not None


def learn(session: Conversation) -> None:
    """All sessions of the pool keep what they draw from now on."""
    if session.keeps_sequences:
        return
    keeping, pool = session.plane.keeping_sequences, session.pool
    keeping.add(pool.key)
    for other in session.plane.sessions:
        if other.pool is pool:
            other.keeps_sequences = True


def arrive(session: Conversation, server: ServerConnection) -> None:
    """A session that keeps what it draws has got this connection, on which nothing of it is remembered."""
    if not session.draws_alone:
        server.send(_forget(session, server))
    session.doubted().sequences = True


def _forget(session: Conversation, server: ServerConnection) -> bytes:
    def failed(_: bool) -> None:
        session.draws_alone = False

    session.draws_alone = True
    session.drawn_on, session.drawn_use = server, server.uses
    session.doubted().sequences = True
    for kind in (owed.PARSE, owed.BIND, owed.EXECUTE, owed.CLOSE, owed.CLOSE):
        undo = failed if kind == owed.EXECUTE else None
        server.expect(Expect(kind, DROP, tolerant=True, undo=undo))
    server.expect(Expect(owed.SYNC, DROP, tolerant=True))
    return (
        encode.parse(_STATEMENT, b"DISCARD SEQUENCES")
        + encode.bind(_STATEMENT, _STATEMENT, [])
        + encode.execute(_STATEMENT)
        + encode.close(b"P", _STATEMENT)
        + encode.close(b"S", _STATEMENT)
        + encode.SYNC
    )


def learned(session: Conversation, server: ServerConnection, drawn: bool) -> set[PinReason]:
    """Takes the server's answer. Returns which pins have ended."""
    if drawn or not session.draws_alone:
        return set()
    session.drawn_on = None
    server.clean_at = server.uses
    return {PinReason.SEQUENCE}
