"""Builds frames: every message that the proxy itself says, to clients or to servers.

Each function returns one whole frame (type, length, body) as bytes. Text is UTF-8; byte strings that
came from a peer pass unchanged. Source: PostgreSQL documentation, "Message Formats".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

from proxy.errors import TiergateError

_LENGTH = struct.Struct("!I")
_SHORT = struct.Struct("!H")
_KEY_DATA = struct.Struct("!cII")

SYNC = b"S\x00\x00\x00\x04"
FLUSH = b"H\x00\x00\x00\x04"
TERMINATE = b"X\x00\x00\x00\x04"
PARSE_COMPLETE = b"1\x00\x00\x00\x04"
BIND_COMPLETE = b"2\x00\x00\x00\x04"
CLOSE_COMPLETE = b"3\x00\x00\x00\x04"
NO_DATA = b"n\x00\x00\x00\x04"
EMPTY_QUERY = b"I\x00\x00\x00\x04"
AUTHENTICATION_OK = b"R\x00\x00\x00\x08\x00\x00\x00\x00"

PROTOCOL_3_0 = 0x00030000
SSL_REQUEST = struct.pack("!II", 8, 80877103)
CANCEL_CODE = 80877102


def _utf8(text: str) -> bytes:
    """What a peer sent as no UTF-8 may be part of what is said to another: a `?` for each such byte."""
    return text.encode("utf-8", "replace")


def frame(kind: bytes, body: bytes) -> bytes:
    return kind + _LENGTH.pack(len(body) + 4) + body


def startup(parameters: Mapping[str, str], protocol: int = PROTOCOL_3_0) -> bytes:
    body = b"".join(k.encode() + b"\0" + v.encode() + b"\0" for k, v in parameters.items())
    return _LENGTH.pack(len(body) + 9) + _LENGTH.pack(protocol) + body + b"\0"


def cancel_request(pid: int, key: bytes) -> bytes:
    return _LENGTH.pack(12 + len(key)) + _LENGTH.pack(CANCEL_CODE) + _LENGTH.pack(pid) + key


def query(text: bytes) -> bytes:
    return frame(b"Q", text + b"\0")


def parse(name: bytes, text: bytes, oids: bytes = b"\0\0") -> bytes:
    """`oids` is the count and list of parameter types as the wire has it."""
    return frame(b"P", name + b"\0" + text + b"\0" + oids)


def bind(portal: bytes, statement: bytes, values: Sequence[bytes | None]) -> bytes:
    """All parameters and results in text format."""
    parts = [portal, b"\0", statement, b"\0\0\0", _SHORT.pack(len(values))]
    for value in values:
        parts.append(b"\xff\xff\xff\xff" if value is None else _LENGTH.pack(len(value)) + value)
    parts.append(b"\0\0")
    return frame(b"B", b"".join(parts))


def describe(kind: bytes, name: bytes) -> bytes:
    return frame(b"D", kind + name + b"\0")


def execute(portal: bytes = b"", max_rows: int = 0) -> bytes:
    return frame(b"E", portal + b"\0" + _LENGTH.pack(max_rows))


def close(kind: bytes, name: bytes) -> bytes:
    """`kind` is b"S" for a statement, b"P" for a portal."""
    return frame(b"C", kind + name + b"\0")


def password(secret: bytes) -> bytes:
    return frame(b"p", secret + b"\0")


def sasl_initial(mechanism: bytes, data: bytes) -> bytes:
    return frame(b"p", mechanism + b"\0" + _LENGTH.pack(len(data)) + data)


def sasl_response(data: bytes) -> bytes:
    return frame(b"p", data)


def authentication(code: int, data: bytes = b"") -> bytes:
    return frame(b"R", _LENGTH.pack(code) + data)


def ready_for_query(status: bytes = b"I") -> bytes:
    """`status` is b"I" (idle), b"T" (in a transaction) or b"E" (in a failed one)."""
    return b"Z\x00\x00\x00\x05" + status


def parameter_status(name: bytes, value: bytes) -> bytes:
    return frame(b"S", name + b"\0" + value + b"\0")


def backend_key_data(pid: int, key: bytes) -> bytes:
    return _KEY_DATA.pack(b"K", 8 + len(key), pid & 0xFFFFFFFF) + key


def negotiate_protocol_version(newest_minor: int, unknown_options: Iterable[bytes]) -> bytes:
    options = list(unknown_options)
    body = _LENGTH.pack(newest_minor) + _LENGTH.pack(len(options))
    return frame(b"v", body + b"".join(o + b"\0" for o in options))


def error(
    message: str,
    sqlstate: str,
    *,
    severity: str = "ERROR",
    hint: str = "",
    detail: str = "",
    position: int = 0,
    kind: bytes = b"E",
) -> bytes:
    """ErrorResponse, or NoticeResponse with kind=b"N"."""
    fields = [("S", severity), ("V", severity), ("C", sqlstate), ("M", message)]
    if detail:
        fields.append(("D", detail))
    if hint:
        fields.append(("H", hint))
    if position:
        fields.append(("P", str(position)))
    body = b"".join(code.encode() + _utf8(text.replace("\0", "")) + b"\0" for code, text in fields)
    return frame(kind, body + b"\0")


def refusal(refused: TiergateError, severity: str = "ERROR") -> bytes:
    """The ErrorResponse that tells it."""
    return error(
        refused.message,
        refused.sqlstate,
        severity=severity,
        hint=refused.hint,
        detail=refused.detail,
        position=refused.position,
    )


def with_severity(error_response: bytes, severity: str) -> bytes:
    """The same error with another severity: a server's FATAL as the ERROR of a session that goes on."""
    fields = []
    for field in error_response[5:].split(b"\0"):
        if field[:1] in (b"S", b"V"):
            field = field[:1] + severity.encode()
        fields.append(field)
    return frame(error_response[:1], b"\0".join(fields))


def notice(message: str, *, sqlstate: str = "00000", severity: str = "NOTICE", hint: str = "") -> bytes:
    return error(message, sqlstate, severity=severity, hint=hint, kind=b"N")


def command_complete(tag: str) -> bytes:
    return frame(b"C", tag.encode() + b"\0")


def row_description(columns: Sequence[tuple[str, int, int]]) -> bytes:
    """Columns as (name, type oid, format)."""
    parts = [_SHORT.pack(len(columns))]
    for name, oid, form in columns:
        parts.append(name.encode() + b"\0" + struct.pack("!IhIhih", 0, 0, oid, -1, -1, form))
    return frame(b"T", b"".join(parts))


def data_row(values: Sequence[str | bytes | None]) -> bytes:
    parts = [_SHORT.pack(len(values))]
    for value in values:
        if value is None:
            parts.append(b"\xff\xff\xff\xff")
        else:
            raw = value if isinstance(value, bytes) else _utf8(value)
            parts.append(_LENGTH.pack(len(raw)) + raw)
    return frame(b"D", b"".join(parts))
