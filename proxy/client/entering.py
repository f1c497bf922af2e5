"""How a session comes to speak on a connection that knows another state, if it can without waiting.

A change must have succeeded before a request is run that would otherwise run in somebody else's state: on a
connection that speaks for another tenant (a cancel or a timeout that strikes the change would let it run as that
tenant), with a state that no server of the pool has taken yet or that it may refuse by now, and on a connection whose
timeouts could cut the change short. So the request follows the change in the same write, and the server itself skips it
where the change has failed (`stated.py`). What comes behind that batch, or behind the Query, waits for both answers.

A Query that is skipped has no Sync of its own, by which the server would go on; but it is skipped only if the change
has failed, after which nobody uses the connection any more. (The server's own statement_timeout runs from the first
message behind the change on. It does not strike between two messages: what comes next is read, and fails as
what it is.) Otherwise nothing is to be seen of what stands ahead of it: it takes no snapshot, runs nothing and opens
no block, so that VACUUM is not in one and BEGIN may still say how it is isolated.

What waits for the confirmation, one round trip, are Queries that leave something behind (which may take more messages
than their own) outside of a block of ours, what has not come whole, calls by number, and requests of who keeps its
connection.

A BEGIN by itself touches nothing and follows without ado. And cheaper than a batch of its own for the change is, where
all that is to change is the tenant, that it enters the transaction of others:

- with a whole batch of plain statements, or a SELECT by itself, the change enters their transaction. It is undone with
  that, so that what comes next waits for the end;
- with the first statement of a block that was held back and that leaves the tenant with its end, the change enters
  the block (see `choosing.py`, which lets nothing stand behind that end).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from proxy.errors import ProtocolViolation
from proxy.model import PoolMode
from proxy.protocol import pipeline as owed
from proxy.protocol.pipeline import DROP, FORWARD_DESCRIBE, FORWARD_EXECUTE, FORWARD_SYNC, Expect
from proxy.protocol.state import State, certain
from proxy.protocol.statements import PREFIX, STRANGE, Statement
from proxy.server.connection import ServerConnection
from proxy.sql.verdict import PLAIN
from proxy.wire import decode, encode
from proxy.wire.frames import HEADER_SIZE

if TYPE_CHECKING:
    from proxy.client.conversation import Conversation

# What `confirming` says of a session: nothing, that the batch at hand may follow at once, or that it has.
NOTHING, FOLLOWS, SENT = 0, 1, 2

_QUERY, _SYNC, _PARSE, _BIND = b"QSPB"
_OF_BATCHES = b"PBDECS"
_LONGEST = 65_536
_NAME = PREFIX + b"query"
_AS_MESSAGES = Statement(_NAME, b"", b"\0\0", PLAIN)
_BEHIND = encode.bind(b"", _NAME, []) + encode.describe(b"P", b"") + encode.execute() + encode.SYNC
_ANSWERS = (
    Expect(owed.PARSE, DROP, statement=_AS_MESSAGES),
    Expect(owed.BIND, DROP, statement=_AS_MESSAGES),
    FORWARD_DESCRIBE,
    FORWARD_EXECUTE,
    FORWARD_SYNC,
)

_opens = re.compile(rb"\s*(?:begin|start)\b[\w\s,]*;?\s*", re.IGNORECASE).fullmatch
_plans = re.compile(rb"\s*(?:select|values|table|with|insert|update|delete|merge)\b", re.IGNORECASE).match
# One statement without parameters, of which no parser says anything (as it does of escapes and of long names).
_asks = re.compile(rb"\s*select\b[^;$\\]*;?\s*", re.IGNORECASE).fullmatch
_differs_so = re.compile(rb"\binto\b|[\w\x80-\xff]{60}|\"[^\"]{60}", re.IGNORECASE).search
_has_of_word = re.compile(rb"[\w\x80-\xff]").search


def at_once(session: Conversation, server: ServerConnection, opener: Any, guc: str) -> bytes:
    """What is to be sent ahead of the batch at hand, which may follow; b"" where it must wait."""
    ahead = _at_once(session, server, opener, guc) or _assured(session, server, opener)
    if server.entered and session.told is not server.reported:
        session.tell(server.reported)
    return ahead


def _at_once(session: Conversation, server: ServerConnection, opener: Any, guc: str) -> bytes:
    if session.pins or session.unsynced or session.mode is PoolMode.SESSION or server.pipeline.owes():
        return b""
    needs = session.state_needed
    if opener is not None:
        tenancy = opener.tenancy
        # Behind a ROLLBACK the session speaks for another tenant, and so finds out if it still has the connection.
        leaves = tenancy.value.name != tenancy.own.name
        enters = tenancy.begins and leaves and server.can_enter(needs, guc)
        ahead: bytes = opener.serves(server, needs) if enters else b""
        return ahead
    if session.keeps_sequences:
        return b""  # it may keep a connection on which the change was undone
    data, start = _at_hand(session)
    if not HEADER_SIZE < len(data) - start <= _LONGEST or session.by_sql or not session.maps_statements:
        return b""
    if data[start] != _QUERY:
        follows = _is_plain_batch(session, data, start)
    else:
        text = data[start + HEADER_SIZE : -1]
        if not _is_whole(data, start) or b"\0" in text:
            return b""
        if _opens(text):
            ahead = server.apply(needs)
            session.confirming = FOLLOWS if ahead else NOTHING
            return ahead
        follows = _is_plain_question(session, text)
    if not follows or not server.can_enter(needs, guc):
        return b""
    session.confirming = FOLLOWS
    return server.enter(needs, guc, alone=True)


def _assured(session: Conversation, server: ServerConnection, opener: Any) -> bytes:
    """The change, a batch of its own, and what makes the server skip the batch at hand if that fails."""
    if session.pins or session.unsynced or session.mode is PoolMode.SESSION or server.pipeline.owes():
        return b""
    data, start = _at_hand(session)
    stop = start + 1 + int.from_bytes(data[start + 1 : start + HEADER_SIZE], "big")
    if not start + HEADER_SIZE <= stop <= len(data):
        return b""
    if data[start] == _QUERY:
        begins = opener is not None and opener.tenancy.begins
        if not begins and not _is_plain_text(session, data[start + HEADER_SIZE : stop - 1]):
            return b""
    elif data[start] not in _OF_BATCHES:
        return b""
    ahead = server.apply_assured(session.state_needed)
    if ahead:
        session.confirming = FOLLOWS
        if opener is not None:
            ahead += opener.serves(server)
    return ahead


def is_sure(session: Conversation, server: ServerConnection, needs: State, guc: str) -> bool:
    """Whatever it is, it may follow a change that is not confirmed."""
    before, new = server.values.parameters, needs.parameters
    same_tenant = before.get(guc, new.get(guc)) == new.get(guc)
    return same_tenant and needs in session.pool.accepted and certain(before, new)


def _at_hand(session: Conversation) -> tuple[bytes, int]:
    """What has been read and not been sent, from its first frame on."""
    if not session.parked:
        return session.scanner.data, session.scanner.start
    return session.parked, 0


def _is_whole(data: bytes, start: int) -> bool:
    """It is one frame."""
    return start + 1 + int.from_bytes(data[start + 1 : start + 5], "big") == len(data)


def _is_plain_question(session: Conversation, text: bytes) -> bool:
    """A SELECT by itself that can be asked by messages, and reads the same."""
    return (
        not session.strict
        and _asks(text) is not None
        and not _differs(text)
        and session.judge.judge(text) is PLAIN
    )


def _differs(text: bytes) -> bool:
    """The pattern is slow, and a long word would have a letter at one of the places that are 60 bytes apart."""
    long = len(text) >= 60 and _has_of_word(text[59::60]) is not None
    may = long or b'"' in text or b"into" in text.lower()
    return may and _differs_so(text) is not None


def _is_plain_text(session: Conversation, text: bytes) -> bool:
    """One statement that leaves nothing behind; nothing else goes ahead of it."""
    return (
        len(text) <= _LONGEST
        and b"\0" not in text
        and not session.by_sql
        and session.judge.judge(text) is PLAIN
    )


def _is_plain_batch(session: Conversation, data: bytes, start: int) -> bool:
    """One batch and its Sync, of statements that leave nothing behind and end no transaction."""
    parsed: set[bytes] = set()
    at = stop = start
    kind = 0
    try:
        while at < len(data) and kind != _SYNC:
            kind = data[at]
            stop = at + 1 + int.from_bytes(data[at + 1 : at + 5], "big")
            if kind not in _OF_BATCHES or not at + HEADER_SIZE <= stop <= len(data):
                return False
            if kind == _PARSE:
                name, text, _ = decode.parse_within(data, at + HEADER_SIZE, stop)
                if not _plans(text) or session.judge.judge(text) is not PLAIN:
                    return False
                parsed.add(name)
            elif kind == _BIND:
                name = decode.bind_names_within(data, at + HEADER_SIZE, stop)[1]
                if name not in parsed and not _is_plain(session, name):
                    return False
            at = stop
    except ProtocolViolation:
        return False
    return kind == _SYNC and stop == len(data)


def _is_plain(session: Conversation, name: bytes) -> bool:
    """The statement is one that the client has prepared before. (If it parses the name anew, that fails.)"""
    statement = session.statements.get(name) if name else session.unnamed
    return statement is not None and statement.verdict is PLAIN and _plans(statement.text) is not None


def as_messages(session: Conversation, server: ServerConnection, text: bytes) -> bytes:
    """A SELECT by itself, of which PostgreSQL 18 would not know that it ends the batch that the change began."""
    session.confirming = SENT
    session.unnamed = session.unnamed_by = None
    server.unnamed = STRANGE  # a Query would have taken it away
    asked = server.close_stale()  # that of the last time among them
    server.to_close.append(_NAME)
    for entry in _ANSWERS:
        server.expect(entry)
    return asked + encode.parse(_NAME, text) + _BEHIND
