"""Statements that a client's SQL knows by name: PREPARE, EXECUTE, DEALLOCATE, and who looks at pg_prepared_statements.

SQL text says the client's own names, so that a server has these statements under them, beside those that clients
prepare by message (see `prepared.py`). What the client has prepared in SQL is known when the server says that it
has done it. A connection keeps what it has under a client's names until somebody else comes, who has it closed
first; a session brings what it lacks when a request needs it: the text of the PREPARE is executed again, and the
request waits for that, since it must fail for what fails there. Result types are those that the first connection
told, as PostgreSQL has it (see `told.py`).

A name that is only to exist (for a PREPARE, which fails, or for a DEALLOCATE) is given an empty statement, and an
EXECUTE may name a statement that was prepared by message. Before a look at pg_prepared_statements the connection
is brought to have exactly what the client has, each under the client's own name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from proxy.client.conversation import Conversation
from proxy.client.preparing import DOUBTFUL, Ahead, wanted
from proxy.client.waits import AnswersFirst, wait_for_answers
from proxy.errors import TiergateError
from proxy.model import PinReason
from proxy.protocol.pipeline import CLOSE, DROP_CLOSE, Expect
from proxy.protocol.statements import PREFIX, STRANGE, SqlStatement, Statement
from proxy.server.connection import FAILED, ServerConnection
from proxy.sql.verdict import PLAIN, Verdict
from proxy.wire import encode

# More than this of one client, and it is pinned instead.
MOST = 100
MOST_BYTES = 262_144

LOOKS = Verdict(looks=True)
UNSEEN = Verdict(pins=frozenset({PinReason.UNINSPECTED}))

_COMPLETE = ord("C")
_HIDING = frozenset({PinReason.UNINSPECTED, PinReason.SQL_PREPARE})


# What else can be prepared by message may end a transaction, and so on.
_plans = re.compile(rb"\s*(?:select|insert|update|delete|merge|values|with|table)\b", re.IGNORECASE).match


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _executable(session: Conversation, name: bytes) -> Statement | None:
    """What the client has under this name, if an EXECUTE of it has no effect that only its own verdict would tell."""
    statement = wanted(session, name)
    if statement is None or isinstance(statement, SqlStatement):
        return statement
    verdict = statement.verdict
    harmless = verdict is PLAIN or replace(verdict, looks=False, statements=0) == PLAIN
    return statement if harmless and _plans(statement.text) else None


def _refused_since(session: Conversation, executed: Mapping[bytes, Statement | None]) -> TiergateError | None:
    """What is executed is not allowed any more: the rules have changed since it was prepared."""
    rules = session.rules
    if rules is None:
        return None
    for statement in executed.values():
        if statement is not None:
            refused = session.plane.answers.refusal(rules, statement.text, statement.verdict)
            if refused is not None:
                return refused
    return None


def close_others(session: Conversation, server: ServerConnection) -> None:
    """Closes all that others left on the connection under their names."""
    own = server.prepared.own
    others = [name for name, statement in own.items() if wanted(session, name) is not statement]
    for name in others:
        del own[name]
        server.expect(DROP_CLOSE)
    if others:  # what comes next may wait for the answers
        server.send(b"".join([encode.close(b"S", name) for name in others]) + encode.FLUSH)


def exceeds(session: Conversation, verdict: Verdict) -> bool:
    """With these PREPAREs the client would have more than is carried for it."""
    known = session.by_sql or {}
    size = sum(len(statement.text) for statement in known.values())
    size += sum(len(text) for _, text in verdict.prepares)
    return len(known) + len(verdict.prepares) > MOST or size > MOST_BYTES


# --- ahead of a request -----------------------------------------------------------------------------


# What is to stand under a name: a statement, nothing, or (STRANGE) whatever is there already.
Targets = dict[bytes, Statement | None]


def ready(
    session: Conversation, server: ServerConnection, verdict: Verdict, *, query: bool = False
) -> tuple[bytes, bytes]:
    """Before a text runs: what is to be sent ahead of it, and the error that it gets instead (b"": none).

    Raises AnswersFirst where what is sent ahead may fail. `query`: ahead of a Query."""
    executed = {name: _executable(session, name) for name in map(_encoded, verdict.executes)}
    only_prepares = verdict.prepares and verdict.statements == 1
    refused = _refused_since(session, executed)
    if refused is not None:
        return b"", encode.refusal(refused)
    looks = (verdict.looks and not only_prepares) or any(
        found is not None and found.verdict.looks for found in executed.values()
    )
    targets: Targets = {}
    if looks:
        for name in (*server.prepared.own, *session.statements, *(session.by_sql or ())):
            targets[name] = wanted(session, name)
    elif session.by_sql and not _HIDING.isdisjoint(verdict.pins):
        targets.update(session.by_sql)
    implied = frozenset(targets) - executed.keys()
    for name in map(_encoded, (*(name for name, _ in verdict.prepares), *verdict.deallocates)):
        if name not in targets:
            targets[name] = None if wanted(session, name) is None else STRANGE
    for name, statement in executed.items():
        if statement is not None or targets.get(name) is not STRANGE:
            targets[name] = statement
    return _bring(session, server, targets, implied, looks, query)


def ready_to_name(session: Conversation, server: ServerConnection, verdict: Verdict) -> bytes:
    """The same for a statement that is not executed yet: its columns are those of what it names. Returns the error."""
    executed = {name: _executable(session, name) for name in map(_encoded, verdict.executes)}
    ahead, error = _bring(session, server, executed)
    if ahead:
        raise AnswersFirst(ahead)
    return error


def _bring(
    session: Conversation,
    server: ServerConnection,
    targets: Targets,
    implied: frozenset[bytes] = frozenset(),
    looks: bool = False,
    query: bool = False,
) -> tuple[bytes, bytes]:
    """Makes of names on the connection what they are to be; if it `looks`, there is to be nothing besides. For the
    `implied` ones, which the request does not name, it is done if it can be."""
    error, session.amiss = session.amiss, b""
    pipeline, prepared = server.pipeline, server.prepared
    if pipeline.skipping or server.copy_in:
        return b"", b""
    if error:
        return b"", error
    if pipeline.answered <= server.named_in < pipeline.asked:
        wait_for_answers(server)
    steps = {
        name: target
        for name, target in targets.items()
        if not _stands(server, name, target)
        and not (name in implied and prepared.own.get(name) is DOUBTFUL)  # it was tried
    }
    shared = looks and (len(prepared) or server.to_close)
    if not steps and not shared:
        return b"", b""
    if any(entry is not DROP_CLOSE for entry in pipeline.entries):  # those cannot fail
        wait_for_answers(server)
    if server.status == FAILED and query:  # the server refuses what would need more
        steps = {name: target for name, target in steps.items() if target is None or target is STRANGE}
    out = []
    for name in (*steps, *(_taken_aside(server) if shared else ())):
        prepared.own.pop(name, None)
        if name.startswith(PREFIX):
            _forget(server, name)
        server.expect(DROP_CLOSE)
        out.append(encode.close(b"S", name))
    ahead = Ahead(session, server, implied, alone=query or not session.unsynced)
    for name, target in sorted(steps.items(), key=lambda step: step[0] not in implied):
        if target is not None:
            prepared.own[name] = target
            out.append(ahead.prepare(name, target))
    if not ahead.may_fail:
        return b"".join(out), b""
    if ahead.alone:
        server.expect(ahead.sync)
        out.append(encode.SYNC)
    raise AnswersFirst(b"".join(out))


def _stands(server: ServerConnection, name: bytes, target: Statement | None) -> bool:
    """The name is what it is to be."""
    if name.startswith(PREFIX) and (server.prepared.named(name) is not None or name in server.to_close):
        return False  # it is not the client's
    held = server.prepared.own.get(name)
    return held is target or (target is STRANGE and held is not None and held is not DOUBTFUL)


def _forget(server: ServerConnection, name: bytes) -> None:
    """Of this name the connection has nothing that a client has prepared by message."""
    statement = server.prepared.named(name)
    if statement is not None:
        server.prepared.remove(statement)
    if name in server.to_close:
        server.to_close.remove(name)


def _taken_aside(server: ServerConnection) -> list[bytes]:
    """The names of all that clients have prepared by message, which the connection is to forget."""
    names = [*server.prepared.take_all(), *server.to_close]
    server.to_close.clear()
    return names


# --- what requests do -------------------------------------------------------------------------------


class Changes:
    """Hears which PREPAREs and DEALLOCATEs of a text are done."""

    def __init__(self, session: Conversation, server: ServerConnection, verdict: Verdict) -> None:
        self._session, self._server = session, server
        self._looks = verdict.looks
        self._prepares: Iterator[tuple[str, bytes]] = iter(verdict.prepares)
        self._deallocates = iter(verdict.deallocates)

    def __call__(self, kind: int, body: bytes, whole: bool) -> None:
        if kind != _COMPLETE:
            return
        if body == b"PREPARE\0":
            name, text = next(self._prepares, ("", b""))
            if text:
                self._prepared(_encoded(name), text)
        elif body == b"DEALLOCATE\0":
            self._deallocated(_encoded(next(self._deallocates, "")))

    def _prepared(self, name: bytes, text: bytes) -> None:
        session = self._session
        catalog = session.plane.pools.catalog
        statement = catalog.in_sql(text, LOOKS if self._looks else PLAIN, session.state_needed)
        if session.by_sql is None:
            session.by_sql = {}
        if len(session.by_sql) < MOST:
            session.by_sql[name] = self._server.prepared.own[name] = statement
            session.undescribed = [*(session.undescribed or ()), (name, statement)]

    def _deallocated(self, name: bytes) -> None:
        session = self._session
        self._server.prepared.own.pop(name, None)
        session.statements.pop(name, None)
        if session.by_sql is not None:
            session.by_sql.pop(name, None)


def named(
    session: Conversation, server: ServerConnection, name: bytes
) -> tuple[bytes, SqlStatement | None, bytes]:
    """A statement prepared in SQL that the client uses by message, if it has one of this name: what is to be sent
    ahead, and the error that the request gets."""
    statement = session.by_sql.get(name) if session.by_sql is not None else None
    if statement is None:
        return b"", None, b""
    ahead, error = _bring(session, server, {name: statement})
    return ahead, statement, error


def taken(session: Conversation, server: ServerConnection, name: bytes) -> bytes | None:
    """If the client has prepared this name in SQL: what goes ahead of a Parse of it, which fails."""
    if session.by_sql is None or name not in session.by_sql:
        return None
    return _bring(session, server, {name: STRANGE})[0]


def close(session: Conversation, server: ServerConnection, name: bytes) -> Expect | None:
    """The client closes by message what it has prepared in SQL, if it has."""
    by_sql, own = session.by_sql, server.prepared.own
    statement = by_sql.pop(name, None) if by_sql is not None else None
    if by_sql is None or statement is None:
        return None
    held = own.pop(name, None)

    def undo(_: bool) -> None:
        by_sql.setdefault(name, statement)
        if held is not None:
            own.setdefault(name, held)

    server.named_in = server.pipeline.asked
    return Expect(CLOSE, undo=undo)
