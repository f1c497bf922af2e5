"""Where a field of a frame ends, and the piece of a frame that it is.

These two are asked several times a message. Compiled there is a twin in C (`pieces.pyx`), without a method's call and a
slice's object.
"""

from __future__ import annotations


def end_of(data: bytes, at: int) -> int:
    """The position of the first zero from `at` on; -1 if there is none."""
    return data.find(b"\0", at)


def piece(data: bytes, start: int, stop: int) -> bytes:
    """`data[start:stop]`, for a `start` that is not negative."""
    return data[start:stop] if start < stop else b""
