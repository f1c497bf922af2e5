"""Where a field of a frame ends, the piece of a frame that it is, and a word of four bytes.

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


def word(data: bytes, at: int) -> int:
    """The four bytes from `at` on, which must be there."""
    return data[at] << 24 | data[at + 1] << 16 | data[at + 2] << 8 | data[at + 3]
