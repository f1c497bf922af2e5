"""A RESET amid a text goes back to what the session began with, not to what its server connection began with.

What stands behind it in the same text, and in the same transaction, must already find the session's own values, its
tenant among them. So a SELECT that sets them is written into the text behind each RESET. It returns no rows, its
column has a name that nobody else can have made up, by which its answer is known and left out, and errors that tell a
place in the text tell that of the client's own. Values are written as hexadecimal digits, so that nothing of them is
ever read as SQL.

Where that cannot be (a text that no parser of ours takes), the values are set behind the text, in which what follows the
RESET has none of them and speaks for nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from secrets import token_hex

from proxy.protocol.statements import PREFIX
from proxy.server.connection import ServerConnection
from proxy.sql.resetting import resets
from proxy.wire import encode

_DESCRIPTION, _COMPLETE, _ERROR = b"TCE"
_MARK = PREFIX + b"again_" + token_hex(8).encode()


class Amended:
    """The text with what is written into it, and what is heard of its answers."""

    __slots__ = ("_hides", "_inserted", "text")

    def __init__(self, text: bytes, insertions: list[tuple[int, bytes]]) -> None:
        self._hides = False
        self._inserted: list[tuple[int, int]] = []  # before which character, and how many
        out: list[bytes] = []
        done = 0
        for at, inserted in insertions:
            out += (text[done:at], inserted)
            done = at
            self._inserted.append((len(text[:at].decode()), len(inserted)))
        self.text = b"".join(out) + text[done:]

    def __call__(self, kind: int, body: bytes, whole: bool) -> bool | bytes:
        """Of a reply: whether it is left out; of an error, what is said in its place, if that is another."""
        if kind == _DESCRIPTION:
            self._hides = _MARK in body
            return self._hides
        if kind == _COMPLETE:
            hides, self._hides = self._hides, False
            return hides
        return self._moved(body) if kind == _ERROR else False

    def _moved(self, frame: bytes) -> bytes:
        fields = frame[5:].split(b"\0")
        moved = [
            b"P%d" % self._place(int(field[1:])) if field.startswith(b"P") else field for field in fields
        ]
        return encode.frame(b"E", b"\0".join(moved)) if moved != fields else b""

    def _place(self, told: int) -> int:
        for at, size in self._inserted:
            if told > at:
                told = max(at + 1, told - size)
        return told


def amended(server: ServerConnection, text: bytes, restored: Mapping[str, str]) -> Amended | None:
    """The text in which RESETs go back to `restored`; None if it needs nothing, or nobody can say what."""
    insertions = []
    for at, name in resets(text):
        again: dict[str, str | None] = {}
        again.update(restored if not name else {name: restored[name]} if name in restored else {})
        if server.sealer is not None:
            server.sealer.add(again)
        if again:
            try:
                insertions.append((at, _setting(again)))
            except UnicodeEncodeError:  # in the client's own encoding, whatever that is
                return None
    return Amended(text, insertions) if insertions else None


def _setting(values: Mapping[str, str | None]) -> bytes:
    calls = [
        f"pg_catalog.set_config({_literal(name)}, {_literal(value or '')}, false)"
        for name, value in values.items()
    ]
    return (
        f'\n; SELECT 1 AS "{_MARK.decode()}" WHERE pg_catalog.int4lt('
        f"pg_catalog.length(pg_catalog.concat({', '.join(calls)})), 0)"
    ).encode()


def _literal(value: str) -> str:
    return f"pg_catalog.convert_from(pg_catalog.decode('{value.encode().hex()}', 'hex'), 'UTF8')"
