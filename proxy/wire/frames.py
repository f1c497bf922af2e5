# cython: boundscheck=False, wraparound=False
# (every index below is checked where it is used)
"""Cuts a byte stream into frames without copying and without waiting for bodies that nobody reads.

Theory. A frame is a type byte, a four-byte length that counts itself, and a body. For most frames the
proxy needs nothing but to pass them on, and a body may be a gigabyte; so the scanner looks at the five
bytes of the header and an *interest table* (one byte for each type) says what happens next:

- PASS: nobody is told. The body passes on as it arrives, in as many chunks as it comes.
- NOTE: the reader is told that the frame begins; the body passes on as it arrives.
- READ: the frame is held until it is whole. If it is longer than `max_read`, it is told as a HEAD as
  soon as `HEAD_SIZE` bytes of it are there, and the rest passes on as it arrives.
- BAD: not a frame of this direction: ProtocolViolation.

Use: `feed(chunk)`, then `next()` until it says MORE. After each call `data[:pos]` has been scanned.
`start` and `stop` bound the frame last told (of a HEAD or NOTE: as much of it as there is). What was
held back (an unfinished READ, a cut header) is kept by the scanner and appears at the front of `data`
after a later `feed`. The reader forwards slices of `data`; when nothing is held and nothing changed, that
slice is the chunk itself. Cost of a chunk: one table look-up and one length a frame; a held frame's
pieces are joined once, so a frame that comes byte by byte costs no more than its length.

The reader may exchange `interest` between two calls of `next()`.
"""

from __future__ import annotations

from proxy.errors import ProtocolViolation

PASS, NOTE, READ, BAD, COUNT = 0, 1, 2, 3, 4
MORE, FRAME, NOTED, HEAD = 0, 1, 2, 3

HEADER_SIZE = 5
HEAD_SIZE = 16_384
MAX_READ = 1 << 20
MAX_LENGTH = 0x3FFFFFFF  # PostgreSQL's MaxAllocSize

# The same as C integers where this is compiled (see frames.pxd), which other modules could not import.
_PASS, _NOTE, _READ, _BAD, _COUNT = PASS, NOTE, READ, BAD, COUNT
_MORE, _FRAME, _NOTED, _HEAD = MORE, FRAME, NOTED, HEAD
_HEADER_SIZE, _HEAD_SIZE, _MAX_LENGTH = HEADER_SIZE, HEAD_SIZE, MAX_LENGTH


def interest_table(
    *, passing: bytes = b"", noted: bytes = b"", read: bytes = b"", counted: bytes = b""
) -> bytes:
    table = bytearray([BAD]) * 256
    for kinds, look in ((passing, PASS), (noted, NOTE), (read, READ), (counted, COUNT)):
        for kind in kinds:
            table[kind] = look
    return bytes(table)


class Scanner:
    """The position in one direction of one conversation."""

    __slots__ = (
        "_have", "_held", "_need", "counted", "data", "interest", "kind", "max_read", "pos", "skip", "start", "stop",
    )  # fmt: skip

    def __init__(self, interest: bytes, max_read: int = MAX_READ) -> None:
        self.interest = interest
        self.max_read = max_read
        self.data = b""
        self.pos = 0
        self.kind = 0
        self.start = 0
        self.stop = 0
        self.skip = 0  # bytes still to come of a frame that has been passed on in part
        self.counted = 0  # frames that have passed and are to be counted
        self._held: list[bytes] | None = None
        self._have = 0
        self._need = 0

    @property
    def holding(self) -> bool:
        """Bytes of an unfinished frame are kept here."""
        return self._have > 0

    def feed(self, chunk: bytes) -> None:
        if self._held is not None:
            self._held.append(chunk)
            self._have += len(chunk)
            if self._have < self._need:
                self.data = b""
                self.pos = 0
                return
            chunk = b"".join(self._held)
            self._held = None
            self._have = 0
        self.data = chunk
        skip = self.skip
        if skip:
            size = len(chunk)
            if skip >= size:
                self.skip = skip - size
                self.pos = size
            else:
                self.skip = 0
                self.pos = skip
        else:
            self.pos = 0

    def next(self) -> int:
        """MORE, FRAME, NOTED or HEAD. Raises ProtocolViolation at a length or type that cannot be."""
        kept, pos, looks = self.data, self.pos, self.interest
        size = len(kept)
        data, interest = kept, looks  # as bytes in C
        while True:
            if pos == size:
                self.pos = pos
                return _MORE
            if size - pos < _HEADER_SIZE:
                return self._hold(pos, size, _HEADER_SIZE)
            kind = data[pos]
            look = interest[kind]
            length = data[pos + 1] << 24 | data[pos + 2] << 16 | data[pos + 3] << 8 | data[pos + 4]
            if look == _BAD or length < 4 or length > _MAX_LENGTH:
                self.pos = pos
                raise ProtocolViolation(
                    f"invalid frontend message type {kind}" if look == _BAD else "invalid message length"
                )
            end = pos + 1 + length
            if look == _COUNT:
                self.counted += 1
                look = _PASS
            if look == _PASS:
                if end <= size:
                    pos = end
                    continue
                self.skip = end - size
                self.pos = size
                return _MORE
            self.kind = kind
            self.start = pos
            if end <= size:
                self.pos = self.stop = end
                return _FRAME if look == _READ else _NOTED
            if look == _NOTE:
                told = _NOTED
            elif length <= self.max_read:
                return self._hold(pos, size, end - pos)
            elif size - pos < _HEAD_SIZE:
                return self._hold(pos, size, _HEAD_SIZE)
            else:
                told = _HEAD
            self.skip = end - size
            self.pos = self.stop = size
            return told

    def _hold(self, pos: int, size: int, need: int) -> int:
        if pos < size:
            self._held = [self.data[pos:]]
            self._have = size - pos
            self._need = need
            self.data = self.data[:pos]
        self.pos = pos
        return _MORE

    def forget(self) -> None:
        """What has been passed on is kept no longer: an idle client would keep its last batch."""
        if self.pos == len(self.data):
            self.data = b""
            self.pos = self.start = self.stop = 0

    def rewind(self) -> bytes:
        """Takes out everything from the frame last told on, so that it can be fed again later."""
        rest, start = self.data, self.start
        if start:
            self.data, rest = rest[:start], rest[start:]
        else:
            self.data = b""
        self.pos = start
        self.skip = 0
        return rest


# What a session's client may send, and what the session wants to see of it.
FROM_CLIENT = interest_table(passing=b"d", read=b"QPBDCESHFXcf")
# What a server may send after its login. While replies are forwarded, rows and notices just pass.
FROM_SERVER = interest_table(passing=b"DdcN", noted=b"123nTtsIGHWV", read=b"ZSECA")
# The same where the answer to a Describe is to be known.
FROM_SERVER_DESCRIBING = interest_table(passing=b"DdcN", noted=b"123sIGHWV", read=b"ZSECAnTt")
# The replies to a simple query that leaves nothing behind: only its end matters.
FROM_SERVER_ROWS = interest_table(passing=b"DdcNTCI", noted=b"123ntsGHWV", read=b"ZSEA")
# The replies to a batch of the client's that is known as one: each but the last is the end of one of its requests.
FROM_SERVER_BATCH = interest_table(passing=b"DdcNt", counted=b"12TnCIs", noted=b"3GHWV", read=b"ZSEA")
# While replies are dropped, every frame is told, so that it can be left out.
FROM_SERVER_DROPPING = interest_table(read=b"DdcNA123nTtsIGHWVZSEC")
