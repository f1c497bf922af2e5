"""Reads the fields of whole frames' bodies. Bodies are given without type and length.

What is not the protocol raises ProtocolViolation; nothing here trusts a length it was given.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from proxy.errors import ProtocolViolation
from proxy.wire.pieces import end_of, piece

_I16 = struct.Struct("!H")
_I32 = struct.Struct("!I")
_OID_COUNT = struct.Struct("!IH")
_NULL = 0xFFFFFFFF


def cstring(body: bytes, at: int = 0) -> tuple[bytes, int]:
    """The zero-terminated bytes at `at` and the position behind the zero."""
    end = end_of(body, at)
    if end < 0:
        raise ProtocolViolation("invalid string in message")
    return piece(body, at, end), end + 1


def query(body: bytes) -> bytes:
    return query_within(body, 0, len(body))


def query_within(data: bytes, start: int, stop: int) -> bytes:
    """The same of the body that is `data[start:stop]`, which need not be cut out for it."""
    text = piece(data, start, stop - 1)
    if end_of(text, 0) >= 0:
        raise ProtocolViolation("invalid message format")
    if start >= stop or data[stop - 1] != 0:
        raise ProtocolViolation("invalid string in message")
    return text


class Parse(NamedTuple):
    name: bytes
    text: bytes
    oids: bytes  # count and list of parameter types, as on the wire


def parse(body: bytes) -> Parse:
    return Parse(*parse_fields(body))


def parse_fields(body: bytes) -> tuple[bytes, bytes, bytes]:
    """The fields of `parse` as a bare tuple."""
    return parse_within(body, 0, len(body))


def parse_within(data: bytes, start: int, stop: int) -> tuple[bytes, bytes, bytes]:
    """The same of the body that is `data[start:stop]`, which need not be cut out for it."""
    name_end = end_of(data, start)
    text_end = end_of(data, name_end + 1)
    if name_end < 0 or text_end < 0 or text_end >= stop:
        raise ProtocolViolation("invalid string in message")
    oids = piece(data, text_end + 1, stop)
    if len(oids) < 2 or len(oids) != 2 + 4 * (oids[0] << 8 | oids[1]):
        raise ProtocolViolation("invalid message format")
    return piece(data, start, name_end), piece(data, name_end + 1, text_end), oids


def bind_names(body: bytes) -> tuple[bytes, bytes, int]:
    """Portal, statement and where the rest begins; `body` may be only the head of a Bind."""
    return bind_names_within(body, 0, len(body))


def bind_names_within(data: bytes, start: int, stop: int) -> tuple[bytes, bytes, int]:
    """The same of the body that is `data[start:stop]`, which need not be cut out for it; the rest from `start`."""
    portal_end = end_of(data, start)
    end = end_of(data, portal_end + 1)
    if portal_end < 0 or end < 0 or end >= stop:
        raise ProtocolViolation("invalid string in message")
    return piece(data, start, portal_end), piece(data, portal_end + 1, end), end + 1 - start


def bind_values(body: bytes, at: int) -> tuple[list[bytes | None], list[int], list[int]]:
    """The parameters of a Bind, their format codes (one for each), and those of the results, from `at` on."""
    try:
        (count,) = _I16.unpack_from(body, at)
        formats = list(struct.unpack_from(f"!{count}H", body, at + 2))
        at += 2 + 2 * count
        (wanted,) = _I16.unpack_from(body, at)
        at += 2
        values: list[bytes | None] = []
        for _ in range(wanted):
            (size,) = _I32.unpack_from(body, at)
            at += 4
            if size == _NULL:
                values.append(None)
                continue
            values.append(body[at : at + size])
            at += size
        (count,) = _I16.unpack_from(body, at)
        results = list(struct.unpack_from(f"!{count}H", body, at + 2))
    except struct.error:
        raise ProtocolViolation("insufficient data left in message") from None
    if at + 2 + 2 * count != len(body):
        raise ProtocolViolation("invalid message format")
    if len(formats) not in (0, 1, wanted):
        raise ProtocolViolation(f"bind message has {len(formats)} parameter formats but {wanted} parameters")
    return values, (formats or [0]) * (wanted if len(formats) < 2 else 1), results


def execute(body: bytes) -> tuple[bytes, int]:
    """Portal, and the most rows that are wanted (0: all)."""
    portal, at = cstring(body)
    if at + 4 != len(body):
        raise ProtocolViolation("invalid message format")
    return portal, int.from_bytes(body[at:], "big")


def target(body: bytes) -> tuple[bytes, bytes]:
    """Of a Describe or Close: b"S" or b"P", and the name."""
    if not body or body[:1] not in (b"S", b"P"):
        raise ProtocolViolation(f"invalid DESCRIBE or CLOSE message subtype {body[0] if body else 0}")
    name, end = cstring(body, 1)
    if end != len(body):
        raise ProtocolViolation("invalid message format")
    return body[:1], name


class FunctionCall(NamedTuple):
    oid: int
    arguments: tuple[bytes | None, ...]


def function_call(body: bytes) -> FunctionCall:
    """Arguments as they are on the wire, whatever their formats."""
    try:
        oid, formats = _OID_COUNT.unpack_from(body)
        at = 6 + 2 * formats
        (count,) = _I16.unpack_from(body, at)
        at += 2
        arguments: list[bytes | None] = []
        for _ in range(count):
            (size,) = _I32.unpack_from(body, at)
            at += 4
            if size == _NULL:
                arguments.append(None)
                continue
            arguments.append(body[at : at + size])
            at += size
    except struct.error:
        raise ProtocolViolation("insufficient data left in message") from None
    if at + 2 != len(body):
        raise ProtocolViolation("invalid message format")
    return FunctionCall(oid, tuple(arguments))


def parameter_status(body: bytes) -> tuple[str, str]:
    name, at = cstring(body)
    value, _ = cstring(body, at)
    return name.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")


def backend_key_data(body: bytes) -> tuple[int, bytes]:
    if len(body) < 8:
        raise ProtocolViolation("invalid BackendKeyData")
    return _I32.unpack_from(body)[0], body[4:]


def data_row(body: bytes) -> list[bytes | None]:
    """The values of a DataRow."""
    values: list[bytes | None] = []
    at = 2
    for _ in range(int.from_bytes(body[:2], "big")):
        length = int.from_bytes(body[at : at + 4], "big", signed=True)
        at += 4
        if at + max(length, 0) > len(body):
            raise ProtocolViolation("a DataRow that is shorter than its values")
        if length < 0:
            values.append(None)
        else:
            values.append(body[at : at + length])
            at += length
    return values


def sqlstate(frame: bytes) -> str:
    """The SQLSTATE of a whole ErrorResponse, header and all."""
    at = frame.find(b"\0C", 5)
    return frame[at + 2 : at + 7].decode("ascii", "replace") if at >= 0 else ""


def error_fields(body: bytes) -> dict[str, str]:
    """The fields of an ErrorResponse or NoticeResponse by their one-letter codes."""
    fields: dict[str, str] = {}
    at = 0
    while at < len(body) and body[at]:
        code = chr(body[at])
        text, at = cstring(body, at + 1)
        fields[code] = text.decode("utf-8", "replace")
    return fields


def authentication(body: bytes) -> tuple[int, bytes]:
    if len(body) < 4:
        raise ProtocolViolation("invalid authentication request")
    return _I32.unpack_from(body)[0], body[4:]
