"""Where a field of a frame ends, the piece of a frame that it is, whether that is the same, whether a text may be of several
statements, a word of four bytes, a Bind with another name of its statement, a BackendKeyData among what is said with it,
and what is to be sent in pieces.

These are asked several times a message. Compiled there is a twin in C (`pieces.pyx`), without a method's call and a
slice's object.
"""

from __future__ import annotations


def end_of(data: bytes, at: int) -> int:
    """The position of the first zero from `at` on; -1 if there is none."""
    return data.find(b"\0", at)


def piece(data: bytes, start: int, stop: int) -> bytes:
    """`data[start:stop]`, for a `start` that is not negative."""
    return data[start:stop] if start < stop else b""


def put(pieces: list[bytes] | None, more: bytes) -> list[bytes] | None:
    """The pieces with one more, in a list that is made for the first."""
    if more:
        if pieces is None:
            return [more]
        pieces.append(more)
    return pieces


def joined(pieces: list[bytes] | None, last: bytes) -> bytes:
    """All of them and the last."""
    if pieces is None:
        return last
    if last:
        pieces.append(last)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def word(data: bytes, at: int) -> int:
    """The four bytes from `at` on, which must be there."""
    return data[at] << 24 | data[at + 1] << 16 | data[at + 2] << 8 | data[at + 3]


def same(data: bytes, at: int, wanted: bytes) -> bool:
    """`wanted` stands in `data` at `at`, which is not negative."""
    return data.startswith(wanted, at)


def parted(text: bytes, start: int, stop: int) -> bool:
    """A semicolon stands in `text[start:stop]`, a piece within it, with more behind it than spaces, zeros and others."""
    return text.find(b";", start, stop) >= 0 and b";" in text[start:stop].rstrip(b"; \n\0")


def rebound(data: bytes, start: int, stop: int, name_end: int, name: bytes) -> bytes:
    """The Bind of the unnamed portal that is `data[start:stop]`, of the statement `name` in place of the one whose name
    ends at `name_end`."""
    length = 5 + len(name) + stop - name_end
    return b"B" + length.to_bytes(4, "big") + b"\0" + name + data[name_end:stop]


def key_between(before: bytes, pid: int, key: bytes, behind: bytes) -> bytes:
    """The BackendKeyData of a client, of which `before` and `behind` are said to it at once."""
    return b"%bK%b%b%b%b" % (
        before, (8 + len(key)).to_bytes(4, "big"), (pid & 0xFFFFFFFF).to_bytes(4, "big"), key, behind
    )  # fmt: skip
