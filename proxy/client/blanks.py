"""What a rate does not hold up: the end of a block, and what asks the server nothing.

The end of a block passes outside of a block, too, though it is counted: who was refused a BEGIN rolls back, and is not to
be refused that as well.

A text of spaces, comments and semicolons, by which pools see whether a connection lives, asks nothing. It is no query to a
tenant's rate and quota: a pool that is refused for a question which is none would throw its connection
away and log in anew. By messages it is a batch of one Execute at most whose texts are all so. It must have come whole, as
what follows a request that was let through is not held up any more.
"""

from __future__ import annotations

from proxy.client.conversation import Conversation
from proxy.sql.words import ends_block, says_nothing
from proxy.wire.frames import HEADER_SIZE
from proxy.wire.pieces import end_of, same, word

_QUERY, _PARSE, _BIND, _EXECUTE, _SYNC = b"QPBES"
_ASIDE = b"DCH"  # Describe, Close, Flush
_NO_VALUES = b"\0\0\0\0"  # of a Bind, behind its names: neither formats nor values
_LAST = ord(";")  # of all bytes that may begin what says nothing
COUNTS, FREE, FREE_EXECUTE, PASSES = 0, 1, 2, 3


def blank(session: Conversation, kind: int) -> int:
    """Of the request at hand, ahead of which no batch is open. FREE_EXECUTE: its batch has an Execute, which is not to be
    counted either; PASSES: it is counted, but neither waits nor is refused."""
    scanner = session.scanner
    data, start = scanner.data, scanner.start
    text = start + HEADER_SIZE
    if kind == _PARSE and text < len(data) and not data[text]:
        text += 1  # of an unnamed one
    elif kind != _QUERY:
        text = len(data)
    if text < len(data) and data[text] > _LAST and not (kind == _QUERY and data[text] | 0x20 in b"crea"):
        return COUNTS  # as nearly all do; a COMMIT, ROLLBACK, END or ABORT may pass
    if kind == _QUERY:
        stop = _end(data, start)
        if stop and says_nothing(data, start + HEADER_SIZE, stop - 1):
            return FREE
        return PASSES if stop and ends_block(data, start + HEADER_SIZE, stop - 1) else COUNTS
    return _batch(session, data, start) if kind in (_PARSE, _BIND) else COUNTS


def _end(data: bytes, start: int) -> int:
    """Of the frame that begins there; 0 if it has not come whole."""
    if start + HEADER_SIZE > len(data):
        return 0
    stop = start + 1 + word(data, start + 1)
    return stop if start + HEADER_SIZE <= stop <= len(data) else 0


def _batch(session: Conversation, data: bytes, start: int) -> int:
    parsed: set[bytes] | None = None
    bound = executed = False
    while stop := _end(data, start):
        kind = data[start]
        if kind == _PARSE:
            name_end = end_of(data, start + HEADER_SIZE)
            text_end = end_of(data, name_end + 1)
            if not (0 <= name_end < text_end < stop) or not says_nothing(data, name_end + 1, text_end):
                return COUNTS
            if parsed is None:
                parsed = set()
            parsed.add(data[start + HEADER_SIZE : name_end])
        elif kind == _BIND:
            if not _binds_nothing(session, data, start, stop, parsed):
                return COUNTS
            bound = True
        elif kind == _EXECUTE:
            if executed or not bound or stop == start + HEADER_SIZE or data[start + HEADER_SIZE]:
                return COUNTS
            executed = True
        elif kind == _SYNC:
            return FREE_EXECUTE if executed else FREE
        elif kind not in _ASIDE:
            return COUNTS
        start = stop
    return COUNTS


def _binds_nothing(
    session: Conversation, data: bytes, start: int, stop: int, parsed: set[bytes] | None
) -> bool:
    """The Bind that is `data[start:stop]` makes a blank text the unnamed portal."""
    at = start + HEADER_SIZE
    name_end = end_of(data, at + 1) if at < stop else -1
    if not 0 <= name_end < stop or data[at] or not same(data, name_end + 1, _NO_VALUES):
        return False
    name = data[at + 1 : name_end]
    if parsed is not None and name in parsed:
        return True
    statement = session.statements.get(name) if name else session.unnamed
    return statement is not None and says_nothing(statement.text, 0, len(statement.text))
