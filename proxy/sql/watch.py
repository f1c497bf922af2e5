"""Texts that are too long to be held and parsed, looked at as they pass: may they speak for another tenant?

The server runs nothing before it has the whole message, so a text that is found out half-way is still stopped
in time. Everything else that such a text may do is met by the pin that it gets.
"""

from __future__ import annotations

from proxy.sql import words

_OVERLAP = 128  # longer than any word that is looked for


class Dropped:
    """A text that has been refused: no piece of it is for the server."""


DROPPED = Dropped()


class Watch:
    """One text; `suspicious` is called with each piece of it in turn."""

    __slots__ = ("_entered", "_name", "_tail")

    def __init__(self, tenant_guc: str, *, entered: bool = False) -> None:
        self._entered = entered  # behind a ROLLBACK in it the connection speaks for another tenant
        self._name = tenant_guc.lower().rpartition(".")[2].encode("utf-8", "surrogateescape")
        self._tail = b""

    def suspicious(self, piece: bytes) -> bool:
        low = self._tail + piece.lower()
        self._tail = low[-_OVERLAP:]
        return self._name in low or words.hides_sets(low) or (self._entered and words.goes_back(low))
