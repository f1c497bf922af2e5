"""A fuzz target for all that reads a stranger's bytes: startup packets, frames, fields, SQL texts.

`check(data)` takes any bytes; the first says which reader gets the rest. It raises AssertionError, or what
escapes from the reader, where a property does not hold; ProtocolViolation and InvalidParameter are answers.

    python -m tests.fuzz.wire_target run --seconds 60 --seed 7     mutates the corpus, needs nothing else
    python -m tests.fuzz.wire_target guided DIR [libFuzzer args]   coverage-guided, where atheris is installed
    python -m tests.fuzz.wire_target pack DIR                      adds to the corpus what reaches new lines

An input that fails is printed as hex; `check(bytes.fromhex(...))` repeats it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from types import FrameType

from proxy.errors import InvalidParameter, ProtocolViolation
from proxy.sql import words
from proxy.sql.calls import judge_call
from proxy.sql.escapes import doubtful
from proxy.sql.verdict import PLAIN, Judge, begins, inspect
from proxy.wire import decode, encode
from proxy.wire.frames import (
    BAD,
    FRAME,
    FROM_CLIENT,
    FROM_SERVER,
    FROM_SERVER_DROPPING,
    HEAD,
    HEAD_SIZE,
    MAX_LENGTH,
    MORE,
    NOTE,
    NOTED,
    PASS,
    READ,
    Scanner,
)
from proxy.wire.startup import CANCEL, decode_cancel, decode_startup, parse_options

CORPUS = Path(__file__).parent / "corpus.hex"
MAX_INPUT = 4096


# --- startup packets ----------------------------------------------------------------------------


def check_startup(data: bytes) -> None:
    with suppress(ProtocolViolation):
        packet = decode_startup(data)
        again = decode_startup(encode.startup(packet.parameters, packet.major << 16 | packet.minor)[4:])
        assert again == replace(packet, protocol_options=())
        strings = data[4:-1].split(b"\0")
        assert data[-1:] == strings.pop() + b"\0" == b"\0"
        assert len(strings) % 2 == 0
        assert {*packet.parameters, *packet.protocol_options} == {name.decode() for name in strings[::2]}
        with suppress(InvalidParameter):
            for name in parse_options(packet.parameters.get("options", "")):
                assert "-" not in name
    with suppress(ProtocolViolation):
        request = decode_cancel(data)
        assert encode.cancel_request(request.pid, request.key)[8:] == data[4:]
    with suppress(InvalidParameter):
        parse_options(data.decode("utf-8", "replace"))


# --- fields of frames ---------------------------------------------------------------------------


def _same(frame: bytes, body: bytes) -> None:
    assert frame[5:] == body


def _bind(body: bytes) -> None:
    portal, statement, at = decode.bind_names(body)
    assert body[:at] == portal + b"\0" + statement + b"\0"


def _parameter_status(body: bytes) -> None:
    name, value = (s.encode("utf-8", "surrogateescape") for s in decode.parameter_status(body))
    assert body.startswith(name + b"\0" + value + b"\0")


def _error_fields(body: bytes) -> None:
    for code, text in decode.error_fields(body).items():
        assert len(code) == 1
        encode.error(text, "XX000")


def _call(body: bytes) -> None:
    oid, arguments = decode.function_call(body)
    verdict = judge_call(oid, arguments)
    assert verdict.touches_tenant("x") in (True, False)


_FIELDS: tuple[Callable[[bytes], None], ...] = (
    lambda body: _same(encode.query(decode.query(body)), body),
    lambda body: _same(encode.parse(*decode.parse(body)), body),
    _bind,
    lambda body: _same(encode.describe(*decode.target(body)), body),
    _parameter_status,
    lambda body: _same(encode.backend_key_data(*decode.backend_key_data(body)), body),
    _error_fields,
    lambda body: _same(encode.authentication(*decode.authentication(body)), body),
    _call,
)


def check_fields(data: bytes) -> None:
    if data:
        with suppress(ProtocolViolation):
            _FIELDS[data[0] % len(_FIELDS)](data[1:])


# --- frames -------------------------------------------------------------------------------------

_TABLES = (
    (FROM_CLIENT, FROM_CLIENT),
    (FROM_SERVER, FROM_SERVER_DROPPING),
    (FROM_SERVER_DROPPING, FROM_SERVER),
)


@dataclass(frozen=True)
class Told:
    """What a reader of a stream is told of a frame, wherever the stream was cut."""

    kind: int
    start: int
    noted: bool


def told_by_reference(
    stream: bytes, tables: tuple[bytes, bytes], max_read: int
) -> tuple[list[Told], int, bool]:
    """What must be told, how much must have been passed on, and whether the stream is broken there.

    The table changes at each frame Z that is told, as it does on a server connection."""
    told: list[Told] = []
    turn = pos = 0
    while len(stream) - pos >= 5:
        kind, length = stream[pos], int.from_bytes(stream[pos + 1 : pos + 5], "big")
        look = tables[turn][kind]
        if look == BAD or not 4 <= length <= MAX_LENGTH:
            return told, pos, True
        there = len(stream) - pos
        whole = there >= 1 + length
        if look == READ and not whole and (length <= max_read or there < HEAD_SIZE):
            return told, pos, False
        if look != PASS:
            told.append(Told(kind, pos, look == NOTE))
            if kind == ord("Z"):
                turn = 1 - turn
        pos += 1 + length
    return told, min(pos, len(stream)), False


class Reading:
    """A scanner and the stream that it has been given, in pieces."""

    def __init__(self, stream: bytes, tables: tuple[bytes, bytes], max_read: int) -> None:
        self.stream = stream
        self.tables = tables
        self.turn = 0
        self.scanner = Scanner(tables[0], max_read)
        self.told: list[Told] = []
        self.passed = bytearray()
        self.broken = False

    def feed(self, chunk: bytes, random: Random) -> None:
        scanner = self.scanner
        scanner.feed(chunk)
        while True:
            try:
                told = scanner.next()
            except ProtocolViolation:
                self.passed += scanner.data[: scanner.pos]
                self.broken = True
                return
            if told == MORE:
                self.passed += scanner.data[: scanner.pos]
                return
            at = len(self.passed) + scanner.start
            said = scanner.data[scanner.start : scanner.stop]
            assert scanner.stop == scanner.pos
            assert self.stream[at : at + len(said)] == said
            assert scanner.kind == said[0]
            size = 1 + int.from_bytes(said[1:5], "big")
            if told == FRAME:
                assert len(said) == size
            else:
                assert len(said) <= size
                assert (scanner.skip > 0) == (len(said) < size)
            if told == HEAD:
                assert len(said) >= HEAD_SIZE
                assert size - 1 > scanner.max_read
            if random.random() < 0.1:
                rest = scanner.rewind()
                self.passed += scanner.data
                assert self.stream[len(self.passed) :].startswith(rest)
                scanner.feed(rest)
                continue
            self.told.append(Told(scanner.kind, at, told == NOTED))
            if scanner.kind == ord("Z"):
                self.turn = 1 - self.turn
                scanner.interest = self.tables[self.turn]


def _script(data: bytes) -> bytes:
    """A stream of mostly well-formed frames, two bytes each: type, and how long."""
    out = []
    for kind, size in zip(data[::2], data[1::2], strict=False):
        length = size if size < 0xE0 else (HEAD_SIZE - 8 + (size & 15)) if size < 0xF0 else 4 << (size & 15)
        out.append(bytes([kind]) + (4 + length).to_bytes(4, "big") + bytes(i & 0xFF for i in range(length)))
        if sum(map(len, out)) > 200_000:
            break
    return b"".join(out)


def _chunks(stream: bytes, random: Random) -> Iterator[bytes]:
    small = random.random() < 0.5 and len(stream) < 20_000
    at = 0
    while at < len(stream):
        if small:
            size = random.choice((1, 1, 2, 4, 5, 6, 9))
        else:
            size = random.choice((5, random.randint(1, 40_000), HEAD_SIZE + random.randint(-9, 9)))
        yield stream[at : at + size]
        at += size


def check_frames(data: bytes) -> None:
    if len(data) < 3:
        return
    tables = _TABLES[data[0] % len(_TABLES)]
    random = Random(data[1])
    stream = _script(data[2:]) if data[0] & 0x80 else data[2:]
    max_read = HEAD_SIZE + (data[0] & 0x70)
    reading = Reading(stream, tables, max_read)
    for chunk in _chunks(stream, random):
        reading.feed(chunk, random)
        if reading.broken:
            break
    told, pos, broken = told_by_reference(stream, tables, max_read)
    assert reading.told == told
    assert reading.broken == broken
    assert reading.passed == stream[:pos]
    if not broken:
        assert reading.scanner.holding == (pos < len(stream))


# --- SQL texts ----------------------------------------------------------------------------------


def check_verdict(data: bytes) -> None:
    text = data.replace(b"\0", b" ")
    verdict = Judge(2).judge(text)
    assert verdict.touches_tenant("app.tenant_id") in (True, False)
    assert begins(text) in (True, False)
    for name in (*verdict.sets, *verdict.resets, *verdict.deallocates, *verdict.drops_databases):
        name.encode("utf-8", "surrogateescape")
    if words.plain(text):
        assert verdict is PLAIN
        by_tree = inspect(text)
        assert by_tree.unread or doubtful(text) or replace(by_tree, statements=0) == PLAIN


# --- running ------------------------------------------------------------------------------------

_CHECKS = (check_startup, check_fields, check_frames, check_verdict)


def check(data: bytes) -> None:
    if data:
        _CHECKS[data[0] % len(_CHECKS)](data[1:MAX_INPUT])


def read_corpus() -> list[bytes]:
    return [bytes.fromhex(line) for line in CORPUS.read_text().split()]


_PIECES = (
    b"\0",
    b"\0\0\0\0",
    b"\0\0\0\4",
    b"\0\0\0\5",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x3f\xff\xff\xff",
    b"\0\0@\0",
    b"\0\0@\1",
    b"\0\3\0\0",
    b"\0\3\0\2",
    CANCEL.to_bytes(4, "big"),
    b"Z\0\0\0\5I",
    b"S\0\0\0\4",
    b"options\0",
    b"-c ",
    b"_pq_.",
    b"\\",
    b"'",
    b'"',
    b"$$",
    b"/*",
    b"*/",
    b"--",
    b"\n",
    b";",
    b"SET x=1",
    b"set_config('x',$1,false)",
    b"E'\\'",
    b'U&"',
    b"DO $$",
    b"\x83\\",
)


def mutate(data: bytes, corpus: list[bytes], random: Random) -> bytes:
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randint(0, len(out))
        end = min(len(out), at + random.choice((1, 1, 2, 4, 16)))
        match random.randrange(6):
            case 0 if at < len(out):
                out[at] ^= 1 << random.randrange(8)
            case 1 if at < len(out):
                out[at] = random.randrange(256)
            case 2:
                del out[at:end]
            case 3:
                out[at:at] = random.choice(_PIECES)
            case 4:
                out[at:end] = random.choice(_PIECES)
            case _:
                other = random.choice(corpus)
                begin = random.randint(0, len(other))
                out[at:end] = other[begin : begin + random.choice((1, 4, 16, 64))]
    return bytes(out[:MAX_INPUT])


def run(seconds: float, seed: int) -> int:
    """How many inputs have been tried. The first that fails is named in a note of the error."""
    corpus = read_corpus()
    random = Random(seed)
    deadline = time.monotonic() + seconds
    tried = 0
    pending = list(corpus)
    while pending or time.monotonic() < deadline:
        data = pending.pop() if pending else mutate(random.choice(corpus), corpus, random)
        try:
            check(data)
        except BaseException as error:
            error.add_note(f"input: {data.hex()}")
            raise
        tried += 1
    return tried


def reached(data: bytes) -> set[tuple[str, int, int, int]]:
    """The steps from line to line that the input takes through the readers, and how often, roughly."""
    steps: Counter[tuple[str, int, int]] = Counter()

    def trace(frame: FrameType, event: str, _: object) -> object:
        name = frame.f_code.co_filename
        if "/proxy/wire/" not in name and "/proxy/sql/" not in name:
            return None
        last = frame.f_lineno

        def local(frame: FrameType, event: str, _: object) -> object:
            nonlocal last
            if event == "line":
                steps[name, last, frame.f_lineno] += 1
                last = frame.f_lineno
            return local

        return local

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        check(data)
    finally:
        sys.settrace(before)
    return {(*step, times.bit_length()) for step, times in steps.items()}


def pack(directory: Path) -> int:
    """Adds to the corpus, shortest first, what takes a step that nothing in it takes. How many it holds then."""
    kept = read_corpus()
    seen = set().union(*(reached(data) for data in kept))
    found = {path.read_bytes()[:MAX_INPUT] for path in directory.iterdir() if path.is_file()}
    for data in sorted(found, key=lambda data: (len(data), data)):
        steps = reached(data)
        if not steps <= seen:
            seen |= steps
            kept.append(data)
    CORPUS.write_text("".join(f"{data.hex()}\n" for data in sorted(kept)))
    return len(kept)


def guided(directory: Path, arguments: list[str]) -> None:
    import atheris

    directory.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(read_corpus()):
        (directory / f"seed-{number}").write_bytes(data)
    atheris.instrument_all()
    atheris.Setup([sys.argv[0], f"-max_len={MAX_INPUT}", *arguments, str(directory)], check)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("--seconds", type=float, default=60.0)
    running.add_argument("--seed", type=int, default=0)
    for name in ("guided", "pack"):
        commands.add_parser(name).add_argument("directory", type=Path)
    said, rest = parser.parse_known_args()
    if said.command == "run":
        print(f"{run(said.seconds, said.seed)} inputs, no failure")
    elif said.command == "pack":
        print(f"{pack(said.directory)} inputs kept")
    else:
        guided(said.directory, rest)


if __name__ == "__main__":
    main()
