"""Statements of our own on a connection that nobody else has yet, one at a time, with bound values."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.errors import ServerProtocolError, ServerRefused
from proxy.net.stream import LoginStream
from proxy.wire import decode, encode

Row = tuple[str | None, ...]
_MAX_MESSAGE = 1 << 20


async def ask(stream: LoginStream, text: str, *values: str | None) -> list[Row]:
    """The rows of one statement. Raises ServerRefused."""
    bound = [None if value is None else value.encode() for value in values]
    stream.write(
        encode.parse(b"", text.encode())
        + encode.bind(b"", b"", bound)
        + encode.execute()
        + encode.close(b"S", b"")
        + encode.SYNC
    )
    return await _answers(stream)


async def run(stream: LoginStream, script: str) -> None:
    """Any number of statements as one transaction. Raises ServerRefused."""
    stream.write(encode.query(script.encode()))
    await _answers(stream)


async def _answers(stream: LoginStream) -> list[Row]:
    rows: list[Row] = []
    refused: ServerRefused | None = None
    while True:
        kind, body = await stream.read_message(_MAX_MESSAGE)
        match chr(kind):
            case "D":
                rows.append(_text(decode.data_row(body)))
            case "E":
                fields = decode.error_fields(body)
                refused = ServerRefused(
                    fields.get("M", ""), fields.get("C", "08006"), encode.frame(b"E", body)
                )
                if fields.get("V", fields.get("S")) != "ERROR":
                    raise refused  # and it hangs up
            case "Z":
                if refused is not None:
                    raise refused
                return rows
            case "1" | "2" | "3" | "C" | "I" | "N" | "S" | "T" | "A" | "s":
                continue
            case _:
                raise ServerProtocolError(
                    "the server sent something that is not the protocol",
                    internal=f"a message of type {chr(kind)!r} for a statement of ours",
                )


def _text(row: Sequence[bytes | None]) -> Row:
    return tuple(None if value is None else value.decode("utf-8", "replace") for value in row)
