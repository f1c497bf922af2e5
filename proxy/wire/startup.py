"""The untyped packets that open a conversation: StartupMessage, CancelRequest, SSLRequest, GSSENCRequest.

The body given is what follows the length word. `parse_options` reads libpq's `options` as
PostgreSQL's pg_split_opts does: blanks separate, a backslash takes the next character as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.errors import InvalidParameter, ProtocolViolation, UnsupportedProtocol
from proxy.wire import decode

CANCEL = 80877102
SSL = 80877103
GSSENC = 80877104

MAX_STARTUP_LENGTH = 10_000  # PostgreSQL's MAX_STARTUP_PACKET_LENGTH
MAX_CANCEL_KEY = 256

_BLANKS = " \t\n\v\f\r"
# The switches of a server's command line, by what they set.
_FLAGS = {
    "e": ("datestyle", "euro"),
    "F": ("fsync", "false"),
    "i": ("listen_addresses", "*"),
    "l": ("ssl", "true"),
    "O": ("allow_system_table_mods", "true"),
    "P": ("ignore_system_indexes", "true"),
    "s": ("log_statement_stats", "true"),
}
_VALUES = {
    "B": "shared_buffers",
    "h": "listen_addresses",
    "k": "unix_socket_directories",
    "N": "max_connections",
    "p": "port",
    "S": "work_mem",
    "W": "post_auth_delay",
}
_PLANS = {
    "s": "enable_seqscan",
    "i": "enable_indexscan",
    "o": "enable_indexonlyscan",
    "b": "enable_bitmapscan",
    "t": "enable_tidscan",
    "n": "enable_nestloop",
    "m": "enable_mergejoin",
    "h": "enable_hashjoin",
}
_STATISTICS = {"pa": "log_parser_stats", "pl": "log_planner_stats", "e": "log_executor_stats"}


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
        raise UnsupportedProtocol(
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
        elif char in _BLANKS:
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
    """The parameters that a server's command line would set; in a name that stands there, a dash is an
    underscore. What sets none (`-d`, words that are no switch) raises InvalidParameter."""
    settings: dict[str, str] = {}
    words = split_options(text)
    while words:
        word = words.pop(0)
        if word.startswith("--") and len(word) > 2:
            _assign(settings, "--", word[2:])
            continue
        if not word.startswith("-") or len(word) == 1:
            raise _wrong(f"invalid command-line argument for server process: {word}")
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in _FLAGS:
                name, value = _FLAGS[letter]
                settings[name] = value
                continue
            if letter not in "cft" and letter not in _VALUES:
                raise _wrong(f"invalid command-line argument for server process: {word}")
            value = letters or (words.pop(0) if words else "")
            letters = ""
            if letter == "c":
                _assign(settings, "-c ", value)
            elif letter in _VALUES:
                settings[_VALUES[letter]] = value
            elif letter == "f" and value in _PLANS:
                settings[_PLANS[value]] = "false"
            elif letter == "t" and (whose := value[: 1 if value[:1] == "e" else 2]) in _STATISTICS:
                settings[_STATISTICS[whose]] = "true"
            else:
                raise _wrong(f"invalid command-line argument for server process: -{letter}")
    return settings


def _assign(settings: dict[str, str], switch: str, assignment: str) -> None:
    name, equals, value = assignment.partition("=")
    if not equals or not name:
        raise _wrong(f"{switch}{assignment} requires a value")
    settings[name.replace("-", "_")] = value


def _wrong(message: str) -> InvalidParameter:
    error = InvalidParameter(message)
    error.sqlstate = "42601"  # as PostgreSQL has it
    return error
