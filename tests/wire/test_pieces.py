from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire import encode
from proxy.wire.pieces import end_of, joined, key_between, parted, piece, put, rebound, same, word

_DATA = st.binary(max_size=40) | st.lists(st.sampled_from([b"\0", b"a"]), max_size=20).map(b"".join)
_AT = st.integers(0, 60)


@given(_DATA, _AT)
def test_the_end_is_the_first_zero(data: bytes, at: int) -> None:
    assert end_of(data, at) == data.find(b"\0", at)


@given(_DATA, _AT, st.integers(-3, 60))
def test_a_piece_is_a_slice_that_ends_not_before_it_begins(data: bytes, start: int, stop: int) -> None:
    assert piece(data, start, stop) == data[start : max(start, stop)]


@given(st.binary(max_size=20), st.integers(0, 20))
def test_a_word_is_four_bytes_without_a_sign(data: bytes, at: int) -> None:
    if at + 4 <= len(data):
        assert word(data, at) == int.from_bytes(data[at : at + 4], "big")
    else:
        with pytest.raises(IndexError):
            word(data, at)


_TEXTS = st.lists(st.sampled_from([b";", b" ", b"\n", b"\0", b"a"]), max_size=12).map(b"".join)


@given(_TEXTS, st.integers(0, 12), st.integers(0, 12))
def test_parted_is_what_has_more_behind_a_semicolon(data: bytes, start: int, stop: int) -> None:
    if stop <= len(data):
        _, semicolon, more = data[start:stop].partition(b";")
        assert parted(data, start, stop) == bool(semicolon and more.strip(b"; \n\0"))


@given(_DATA, _AT, _DATA)
def test_the_same_is_what_stands_there(data: bytes, at: int, wanted: bytes) -> None:
    assert same(data, at, wanted) == (data[at : at + len(wanted)] == wanted and at <= len(data))
    if at <= len(data):
        assert same(data, at, data[at:])


@given(
    st.binary(max_size=9),
    st.sampled_from([b"s", b"longer than ours"]),
    st.sampled_from([b"", b"tiergate_12"]),
)
def test_a_bind_is_of_another_statement(values: bytes, name: bytes, other: bytes) -> None:
    ahead, behind = b"ahead", b"behind"
    bind, wanted = encode.bind(b"", name, [values]), encode.bind(b"", other, [values])
    data = ahead + bind + behind
    name_end = len(ahead) + 6 + len(name)
    assert rebound(data, len(ahead), len(ahead) + len(bind), name_end, other) == wanted


@given(st.lists(_DATA), _DATA)
def test_what_is_put_one_behind_the_other_is_sent_whole(pieces: list[bytes], last: bytes) -> None:
    made: list[bytes] | None = None
    for more in pieces:
        made = put(made, more)
    assert (made is None) == (b"".join(pieces) == b"")
    assert joined(made, last) == b"".join(pieces) + last


@given(
    st.binary(max_size=20),
    st.integers(-(1 << 31), (1 << 32) - 1),
    st.binary(max_size=40),
    st.binary(max_size=6),
)
def test_a_key_is_said_between(before: bytes, pid: int, key: bytes, behind: bytes) -> None:
    assert key_between(before, pid, key, behind) == before + encode.backend_key_data(pid, key) + behind
