"""The rows of a view as frames, in the text or binary format that the client has asked for."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from proxy.control.views import Value, View
from proxy.errors import ProtocolViolation
from proxy.wire import decode, encode

_TEXT, _INT8, _FLOAT8 = 25, 20, 701
Oids = tuple[int, ...]


def oids(view: View) -> Oids:
    """The types of the columns, from what stands in them now."""
    return tuple(_oid(view, at) for at in range(len(view.columns)))


def _oid(view: View, at: int) -> int:
    kinds = {type(row[at]) for row in view.rows if row[at] is not None}
    if kinds == {int}:
        return _INT8
    return _FLOAT8 if kinds and kinds <= {int, float} else _TEXT


def description(view: View, types: Oids, formats: Sequence[int] = ()) -> bytes:
    return encode.row_description(list(zip(view.columns, types, _each(formats, len(types)), strict=True)))


def data(view: View, types: Oids, formats: Sequence[int] = ()) -> bytes:
    """`types` are those that were described, which the client holds on to: the values of now are made to fit."""
    kinds = list(zip(types, _each(formats, len(types)), strict=True))
    return b"".join(
        encode.data_row([_value(v, oid, form) for v, (oid, form) in zip(row, kinds, strict=True)])
        for row in view.rows
    )


def _each(formats: Sequence[int], columns: int) -> list[int]:
    """PostgreSQL's rule: none is text, one is for all, else one a column."""
    if len(formats) in (0, 1):
        return list(formats or (0,)) * columns
    if len(formats) != columns:
        raise ProtocolViolation(
            f"bind message has {len(formats)} result formats but query has {columns} columns"
        )
    return list(formats)


def _value(value: Value, oid: int, form: int) -> str | bytes | None:
    if value is None:
        return None
    if oid == _INT8 and not isinstance(value, str):
        return struct.pack("!q", int(value)) if form else str(int(value))
    if oid == _FLOAT8 and not isinstance(value, str):
        return struct.pack("!d", value) if form else str(value)
    return str(value) if oid == _TEXT or not form else None


def result_formats(bind: bytes) -> tuple[int, ...]:
    """The last part of a Bind. Raises ProtocolViolation."""
    try:
        at = decode.bind_names(bind)[2]
        (count,) = struct.unpack_from("!H", bind, at)
        at += 2 + 2 * count
        (count,) = struct.unpack_from("!H", bind, at)
        if count:
            raise ProtocolViolation(f"bind message supplies {count} parameters, but the console takes none")
        (count,) = struct.unpack_from("!H", bind, at + 2)
        formats: tuple[int, ...] = struct.unpack_from(f"!{count}H", bind, at + 4)
    except struct.error:
        raise ProtocolViolation("insufficient data left in message") from None
    if any(form not in (0, 1) for form in formats):
        raise ProtocolViolation("unsupported format code")
    return formats
