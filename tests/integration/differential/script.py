"""A script of raw frames, and how its answers are made comparable.

The same script runs direct and through the proxy, and the answers must be the same frame by frame. What
may differ, and is therefore replaced (nothing else is):

- BackendKeyData: the proxy has cancel keys of its own, and in transaction mode process ids of its own.
  The length of the key stays.
- The order of the ParameterStatus messages of the welcome: PostgreSQL promises none.
- The process id in a NotificationResponse.
- OIDs of tables and types made by the script (16384 and above, in RowDescription and ParameterDescription):
  they are numbered in the order they appear.
- The number in the name of the schema of a server process's temporary tables (pg_temp_N).
- Of a script with `own_words`: file, line and routine of errors, which the proxy does not have where it says
  PostgreSQL's error itself, or learns it from another place of PostgreSQL's source (startup parameters).
"""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tests.rawclient import V3_0, Closed, Frame, RawClient, error_fields, startup

EOF = -1
NOBODY: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Step:
    """Bytes to send, and what to wait for: so many frames of the kinds of `until`, or EOF."""

    send: bytes
    count: int = 1
    until: str = "Z"


def step(*frames: bytes, ready: int = 1, until: str = "Z") -> Step:
    return Step(b"".join(frames), ready, until)


def to_eof(*frames: bytes) -> Step:
    return Step(b"".join(frames), EOF)


@dataclass(frozen=True)
class Script:
    name: str
    steps: tuple[Step, ...]
    user: str = "app"
    database: str = "appdb"
    parameters: Mapping[str, str] = field(default_factory=lambda: NOBODY)
    protocol: int = V3_0
    setup: str = ""  # by the superuser, before each run
    session_only: bool = False  # what transaction pooling cannot promise; `why` says so
    why: str = ""
    on_one: bool = (
        False  # what is asked there is known on the server connection that was asked before; `why` says so
    )
    apart: bool = False  # each step is a transaction of its own, which may meet another server connection
    own_words: bool = False
    chunked: bool = True  # also sent in pieces

    @property
    def size(self) -> int:
        return sum(len(s.send) for s in self.steps)


Cut = Callable[[bytes], Iterable[bytes]]


def whole(data: bytes) -> Iterable[bytes]:
    return [data]


def byte_by_byte(data: bytes) -> Iterable[bytes]:
    return (data[i : i + 1] for i in range(len(data)))


class RandomCut:
    """Pieces of a random size, the same for the same seed."""

    def __init__(self, seed: int, most: int = 40) -> None:
        self._random = random.Random(seed)
        self._most = most

    def __call__(self, data: bytes) -> Iterable[bytes]:
        at = 0
        most = max(self._most, len(data) // 200)
        while at < len(data):
            size = self._random.randint(1, most)
            yield data[at : at + size]
            at += size


def nothing() -> None:
    pass


def run(
    script: Script, port: int, cut: Cut = whole, between: Callable[[], None] = nothing
) -> list[list[Frame]]:
    """What is answered to the login and to each step. A connection that is closed early ends it with a frame
    "EOF". `between` is called before each step."""
    answers: list[list[Frame]] = []
    with RawClient(port, timeout=10.0) as client:
        said = {"user": script.user, "database": script.database, **script.parameters}
        steps = [Step(startup(said, script.protocol), until="ZE"), *script.steps]
        for now in steps:
            between()
            # Where the peer has gone, what it said before is still to be read.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.send_in_pieces(cut(now.send))
            if now.count == EOF:
                answers.append([*client.read_to_eof(), Frame("EOF", b"")])
                break
            try:
                answers.append(client.read_until(now.until, now.count) if now.count else [])
            except Closed as closed:
                answers.append([*closed.frames, Frame("EOF", b"")])
                break
            if now is steps[0] and answers[0][-1].kind == "E":
                answers[0] += [*client.read_to_eof(), Frame("EOF", b"")]
                break
    return answers


# --- what may differ --------------------------------------------------------------------------------


def comparable(script: Script, answers: list[list[Frame]]) -> list[list[Frame]]:
    oids: dict[int, int] = {}
    found = []
    for number, frames in enumerate(answers):
        changed = [_comparable(script, frame, oids) for frame in frames]
        if number == 0:
            changed = [
                frame
                for is_status, group in itertools.groupby(changed, key=lambda f: f.kind == "S")
                for frame in (sorted(group) if is_status else group)
            ]
        found.append(changed)
    return found


def _comparable(script: Script, frame: Frame, oids: dict[int, int]) -> Frame:
    body = frame.body
    if frame.kind == "K":
        body = b"a process id and a key of %d bytes" % (len(body) - 4)
    elif frame.kind == "A":
        body = b"\0\0\0\0" + body[4:]
    elif frame.kind == "T":
        body = _columns(body, oids)
    elif frame.kind == "t":
        (count,) = struct.unpack_from("!H", body)
        types = struct.unpack_from(f"!{count}I", body, 2)
        body = body[:2] + struct.pack(f"!{count}I", *(_numbered(oid, oids) for oid in types))
    elif frame.kind in "EN":
        body = re.sub(rb"pg_temp_\d+", b"pg_temp_N", body)
    found = Frame(frame.kind, body)
    return without_source(found) if script.own_words else found


def without_source(frame: Frame) -> Frame:
    """Without file, line and routine of an error or notice."""
    if frame.kind not in "EN":
        return frame
    kept = [f for f in frame.body.split(b"\0") if f and f[:1] not in (b"F", b"L", b"R")]
    return Frame(frame.kind, b"\0".join(kept) + b"\0\0")


def _numbered(oid: int, oids: dict[int, int]) -> int:
    return oid if oid < 16384 else oids.setdefault(oid, 4_000_000_000 + len(oids))


def _columns(body: bytes, oids: dict[int, int]) -> bytes:
    out = [body[:2]]
    at = 2
    for _ in range(int.from_bytes(body[:2], "big")):
        end = body.index(0, at) + 1
        table, column, kind, size, modifier, form = struct.unpack_from("!IhIhih", body, end)
        out.append(body[at:end])
        out.append(
            struct.pack(
                "!IhIhih", _numbered(table, oids), column, _numbered(kind, oids), size, modifier, form
            )
        )
        at = end + 18
    return b"".join(out)


# --- for people -------------------------------------------------------------------------------------


def describe(frame: Frame) -> str:
    if frame.kind in "EN" and frame.kind != "EOF":
        return f"{frame.kind} {error_fields(frame.body)}"
    body = frame.body if len(frame.body) <= 120 else frame.body[:100] + b"... (%d bytes)" % len(frame.body)
    return f"{frame.kind} {body!r}"


def difference(expected: list[list[Frame]], found: list[list[Frame]]) -> str:
    """The first difference in words; "" if there is none."""
    none: list[Frame] = []
    for number, (want, have) in enumerate(itertools.zip_longest(expected, found, fillvalue=none)):
        if want == have:
            continue
        at = next(
            (i for i, (a, b) in enumerate(zip(want, have, strict=False)) if a != b), min(len(want), len(have))
        )
        lines = [f"step {number} (0 is the login), frame {at}:"]
        for title, frames in (("direct", want), ("proxy", have)):
            lines.append(f"  {title}: {len(frames)} frames")
            start = max(0, at - 2)
            lines += [f"    [{start + i}] {describe(f)}" for i, f in enumerate(frames[start : at + 4])]
        return "\n".join(lines)
    return ""
