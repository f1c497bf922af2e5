"""A text that is refused because no parser of ours reads it. The server is asked to parse it, and no more: what it finds
wrong is what the client reads, in PostgreSQL's own words. Where it finds nothing (newer syntax), something fails behind
it that never can be run, and the client reads why it was refused.
"""

from __future__ import annotations

from proxy.client import effects
from proxy.protocol import pipeline as owed
from proxy.protocol.pipeline import DROP, Expect
from proxy.protocol.statements import PREFIX, Statement
from proxy.server.connection import ServerConnection
from proxy.sql.verdict import MAX_PARSE, PLAIN, Verdict
from proxy.wire import encode

# What is sent in place of a Parse that is refused: it fails, and leaves the unnamed statement.
MISSING = encode.bind(b"", effects.NOWHERE, [])
_NAME = PREFIX + b"unread"
_UNREAD = Statement(_NAME, b"", b"\0\0", PLAIN)


def is_strange(text: bytes, verdict: Verdict) -> bool:
    """It has been tried; one that is too long for us may well be good SQL."""
    return verdict.unread != b"" and len(text) <= MAX_PARSE


def refuse(server: ServerConnection, text: bytes, verdict: Verdict, refused: bytes) -> bytes:
    """What is sent in place of a Parse of the text."""
    out = b""
    if is_strange(text, verdict):
        out = server.close_stale()  # the name of the last time among them
        server.to_close.append(_NAME)
        server.named_in = server.pipeline.asked
        server.expect(Expect(owed.PARSE, DROP, statement=_UNREAD))
        out += encode.parse(_NAME, text)
    server.expect(Expect(owed.PARSE, error=refused))
    return out + MISSING
