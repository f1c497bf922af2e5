"""Elements of DER, in which certificates are written: as much as it takes to find something in them."""

from __future__ import annotations


def inside(der: bytes, at: int, tag: int) -> tuple[int, int]:
    """Where the contents of the element at `at` begin and end. Raises ValueError or IndexError."""
    if der[at] != tag:
        raise ValueError(f"element {der[at]:#x} where {tag:#x} is wanted")
    length = der[at + 1]
    at += 2
    if length & 0x80:
        size = length & 0x7F
        length = int.from_bytes(der[at : at + size], "big")
        at += size
    if at + length > len(der):
        raise ValueError("an element longer than the whole")
    return at, at + length


def past(der: bytes, at: int, tag: int) -> int:
    """Where the element behind the one at `at` begins."""
    return inside(der, at, tag)[1]
