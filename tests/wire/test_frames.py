"""Any chunking of a stream gives the same frames and the same bytes passed on; lengths are never trusted."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ProtocolViolation
from proxy.wire import encode
from proxy.wire.frames import (
    FRAME,
    FROM_CLIENT,
    FROM_SERVER,
    HEAD,
    HEAD_SIZE,
    MORE,
    NOTED,
    Scanner,
    interest_table,
)

frames = st.lists(
    st.builds(
        encode.frame, st.sampled_from([b"D", b"d", b"T", b"C", b"Z", b"1", b"S"]), st.binary(max_size=80)
    ),
    max_size=12,
)


def run(scanner: Scanner, chunks: list[bytes]) -> tuple[list[tuple[int, int, bytes]], bytes]:
    """What is told (how, type, bytes of READ frames) and everything that was passed on or told."""
    told, passed = [], []
    for chunk in chunks:
        scanner.feed(chunk)
        sent = 0
        while (how := scanner.next()) != MORE:
            frame = scanner.data[scanner.start : scanner.stop]
            told.append((how, scanner.kind, frame if how == FRAME else b""))
            passed.append(scanner.data[sent : scanner.stop])
            sent = scanner.stop
        passed.append(scanner.data[sent : scanner.pos])
    return told, b"".join(passed)


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({c % (len(stream) + 1) for c in cuts} | {0, len(stream)})
    return [stream[a:b] for a, b in itertools.pairwise(at)]


@given(frames, st.lists(st.integers(min_value=0, max_value=2000)))
def test_any_chunking_gives_the_same(sent: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(sent)
    whole_told, whole_passed = run(Scanner(FROM_SERVER), [stream] if stream else [])
    told, passed = run(Scanner(FROM_SERVER), cut(stream, cuts))
    assert told == whole_told
    assert passed == whole_passed == stream


@given(frames)
def test_byte_by_byte_tells_every_noted_and_read_frame(sent: list[bytes]) -> None:
    stream = b"".join(sent)
    told, passed = run(Scanner(FROM_SERVER), [stream[i : i + 1] for i in range(len(stream))])
    assert [kind for _, kind, _ in told] == [f[0] for f in sent if f[:1] not in (b"D", b"d")]
    assert passed == stream


def test_a_read_frame_beyond_the_limit_is_told_by_its_head_and_passes() -> None:
    scanner = Scanner(FROM_CLIENT, max_read=100_000)
    frame = encode.query(b"x" * 300_000)
    told, passed = run(scanner, [frame[i : i + 10_000] for i in range(0, len(frame), 10_000)])
    assert [(how, kind) for how, kind, _ in told] == [(HEAD, ord("Q"))]
    assert passed == frame
    assert not scanner.skip
    assert not scanner.holding


def test_a_head_is_told_only_when_enough_of_it_is_there() -> None:
    scanner = Scanner(FROM_CLIENT, max_read=100_000)
    frame = encode.query(b"x" * 300_000)
    scanner.feed(frame[: HEAD_SIZE - 1])
    assert scanner.next() == MORE
    assert scanner.holding
    scanner.feed(frame[HEAD_SIZE - 1 : HEAD_SIZE])
    assert scanner.next() == HEAD
    assert scanner.skip


def test_passing_bodies_are_not_kept() -> None:
    scanner = Scanner(FROM_SERVER)
    scanner.feed(b"D" + (1 << 29).to_bytes(4, "big") + b"x" * 1000)
    assert scanner.next() == MORE
    assert not scanner.holding
    assert scanner.skip


def test_rewind_gives_back_the_told_frame_and_all_behind_it() -> None:
    scanner = Scanner(FROM_CLIENT)
    scanner.feed(encode.SYNC + encode.query(b"SELECT 1") + encode.TERMINATE[:3])
    assert scanner.next() == FRAME
    assert scanner.next() == FRAME
    rest = scanner.rewind()
    assert rest == encode.query(b"SELECT 1") + encode.TERMINATE[:3]
    assert scanner.next() == MORE
    scanner.feed(rest + encode.TERMINATE[3:])
    assert [scanner.next(), scanner.kind] == [FRAME, ord("Q")]
    assert [scanner.next(), scanner.kind] == [FRAME, ord("X")]


@pytest.mark.parametrize("length", [0, 3, 0x40000000, 0xFFFFFFFF])
def test_impossible_lengths(length: int) -> None:
    scanner = Scanner(FROM_CLIENT)
    scanner.feed(b"Q" + length.to_bytes(4, "big"))
    with pytest.raises(ProtocolViolation, match="length"):
        scanner.next()


def test_unknown_types() -> None:
    scanner = Scanner(FROM_CLIENT)
    scanner.feed(b"y" + (4).to_bytes(4, "big"))
    with pytest.raises(ProtocolViolation, match="type"):
        scanner.next()


def test_the_interest_may_change_between_frames() -> None:
    scanner = Scanner(interest_table(noted=b"1", read=b"Z"))
    scanner.feed(encode.PARSE_COMPLETE + encode.frame(b"D", b"row"))
    assert scanner.next() == NOTED
    scanner.interest = interest_table(read=b"D")
    assert scanner.next() == FRAME
    assert scanner.data[scanner.start : scanner.stop] == encode.frame(b"D", b"row")


@given(st.lists(st.integers(1, 40), max_size=4))
def test_what_is_counted_passes(cuts: list[int]) -> None:
    said = encode.PARSE_COMPLETE + encode.data_row(["1"]) + encode.BIND_COMPLETE + encode.ready_for_query()
    scanner = Scanner(interest_table(passing=b"D", counted=b"12", read=b"Z"))
    told = []
    for piece in cut(said, cuts):
        scanner.feed(piece)
        while scanner.next() != MORE:
            told.append((scanner.kind, scanner.counted))
    assert told == [(ord("Z"), 2)]


def test_what_has_been_passed_on_is_forgotten_and_what_has_not_is_kept() -> None:
    whole, other = encode.query(b"SELECT 1"), encode.query(b"SELECT 2")
    scanner = Scanner(FROM_CLIENT)
    scanner.feed(whole + other[:7])
    assert scanner.next() == FRAME
    scanner.forget()
    assert scanner.data == whole + other[:7], "not all has been looked at"
    assert scanner.next() == MORE
    scanner.forget()
    assert (scanner.data, scanner.holding) == (b"", True)
    scanner.feed(other[7:])
    assert scanner.next() == FRAME
    assert scanner.data[scanner.start : scanner.stop] == other
