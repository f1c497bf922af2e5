"""The untyped packets that open a conversation: StartupMessage, CancelRequest, SSLRequest, GSSENCRequest.

The body given is what follows the length word. `parse_options` reads libpq's `options` as
PostgreSQL's pg_split_opts does: blanks separate, a backslash takes the next character as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.errors import InvalidParameter, ProtocolViolation
from proxy.wire import decode

CANCEL = 80877102
SSL = 80877103
GSSENC = 80877104

MAX_STARTUP_LENGTH = 10_000  # PostgreSQL's MAX_STARTUP_PACKET_LENGTH
MAX_CANCEL_KEY = 256


@dataclass(frozen=True, slots=True)
class Startup:
    """`parameters` holds all the client sent, in order, "user" and "database" among them;
    `protocol_options` the names that begin with `_pq_.`."""

    major: int
    minor: int
    parameters: dict[str, str]
    protocol_options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CancelRequest:
    pid: int
    key: bytes


def decode_cancel(body: bytes) -> CancelRequest:
    if not 8 + 1 <= len(body) <= 8 + MAX_CANCEL_KEY:
        raise ProtocolViolation("invalid cancel request")
    return CancelRequest(int.from_bytes(body[4:8], "big"), body[8:])


def decode_startup(body: bytes) -> Startup:
    version = int.from_bytes(body[:4], "big")
    if version >> 16 != 3:
        raise ProtocolViolation(
            f"unsupported frontend protocol {version >> 16}.{version & 0xFFFF}: server supports 3.0 to 3.2"
        )
    parameters: dict[str, str] = {}
    options: list[str] = []
    at = 4
    while at < len(body) and body[at]:
        raw_name, at = decode.cstring(body, at)
        raw_value, at = decode.cstring(body, at)
        try:
            name, value = raw_name.decode(), raw_value.decode()
        except UnicodeDecodeError:
            raise ProtocolViolation("startup parameters must be UTF-8") from None
        if name.startswith("_pq_."):
            options.append(name)
        else:
            parameters[name] = value
    if at != len(body) - 1:
        raise ProtocolViolation("invalid startup packet layout: expected terminator as last byte")
    return Startup(version >> 16, version & 0xFFFF, parameters, tuple(options))


def split_options(text: str) -> list[str]:
    words: list[str] = []
    word: list[str] = []
    inside = escaped = False
    for char in text:
        if escaped:
            word.append(char)
            escaped = False
        elif char == "\\":
            inside = escaped = True
        elif char.isspace():
            if inside:
                words.append("".join(word))
                word, inside = [], False
        else:
            word.append(char)
            inside = True
    if inside:
        words.append("".join(word))
    return words


def parse_options(text: str) -> dict[str, str]:
    """`-c name=value`, `-cname=value` and `--name=value`; dashes in names are underscores.

    Anything else that a server's command line takes (`-F`, `-e`, ...) raises InvalidParameter.
    """
    settings: dict[str, str] = {}
    words = iter(split_options(text))
    for word in words:
        if word == "-c":
            assignment = next(words, "")
        elif word.startswith("-c"):
            assignment = word[2:]
        elif word.startswith("--"):
            assignment = word[2:]
        else:
            raise InvalidParameter(f"unsupported startup option: {word}")
        name, equals, value = assignment.partition("=")
        if not equals or not name:
            raise InvalidParameter(f"-c {assignment} requires a value")
        settings[name.strip().replace("-", "_")] = value
    return settings
