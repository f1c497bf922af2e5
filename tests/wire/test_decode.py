from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ProtocolViolation
from proxy.wire import decode, encode

_NAME = st.binary(max_size=20).map(lambda b: b.replace(b"\0", b""))
_TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"))


def body(frame: bytes) -> bytes:
    """Without type and length, which must be right."""
    assert int.from_bytes(frame[1:5], "big") == len(frame) - 1
    return frame[5:]


@given(_NAME)
def test_query(text):
    assert decode.query(body(encode.query(text))) == text


@given(_NAME, _NAME, st.lists(st.integers(0, 0xFFFFFFFF), max_size=5))
def test_parse(name, text, oids):
    raw = len(oids).to_bytes(2, "big") + b"".join(o.to_bytes(4, "big") for o in oids)
    assert decode.parse(body(encode.parse(name, text, raw))) == (name, text, raw)
    assert decode.parse(body(encode.parse(name, text))).oids == b"\0\0"


@given(_NAME, _NAME, st.lists(st.none() | st.binary(max_size=20), max_size=5))
def test_bind_names(portal, statement, values):
    raw = body(encode.bind(portal, statement, values))
    found = decode.bind_names(raw)
    assert found[:2] == (portal, statement)
    # What follows: no parameter formats, the values, no result formats.
    at = found[2]
    assert raw[at : at + 4] == b"\0\0" + len(values).to_bytes(2, "big")
    at += 4
    for value in values:
        size = int.from_bytes(raw[at : at + 4], "big", signed=True)
        at += 4
        if value is None:
            assert size == -1
        else:
            assert raw[at : at + size] == value
            at += size
    assert raw[at:] == b"\0\0"
    assert decode.bind_names(raw[: found[2]]) == found


def call(oid, formats, arguments):
    values = [b"\xff\xff\xff\xff" if a is None else len(a).to_bytes(4, "big") + a for a in arguments]
    head = oid.to_bytes(4, "big") + len(formats).to_bytes(2, "big") + b"".join(formats)
    return head + len(values).to_bytes(2, "big") + b"".join(values) + b"\0\1"


@given(
    st.integers(0, 0xFFFFFFFF),
    st.lists(st.sampled_from([b"\0\0", b"\0\1"]), max_size=3),
    st.lists(st.none() | st.binary(max_size=9), max_size=4),
)
def test_function_call(oid, formats, arguments):
    raw = call(oid, formats, arguments)
    assert decode.function_call(raw) == (oid, tuple(arguments))
    for wrong in (raw + b"x", *(raw[:n] for n in range(len(raw)))):
        with pytest.raises(ProtocolViolation):
            decode.function_call(wrong)


@given(st.sampled_from([b"S", b"P"]), _NAME)
def test_target(kind, name):
    assert decode.target(body(encode.describe(kind, name))) == (kind, name)
    assert decode.target(body(encode.close(kind, name))) == (kind, name)


@given(_NAME, _NAME)
def test_parameter_status(name, value):
    found = decode.parameter_status(body(encode.parameter_status(name, value)))
    assert tuple(s.encode("utf-8", "surrogateescape") for s in found) == (name, value)


@given(st.integers(0, 0xFFFFFFFF), st.binary(min_size=4, max_size=256))
def test_backend_key_data(pid, key):
    assert decode.backend_key_data(body(encode.backend_key_data(pid, key))) == (pid, key)


@given(st.integers(0, 0xFFFFFFFF), st.binary(max_size=20))
def test_authentication(code, data):
    assert decode.authentication(body(encode.authentication(code, data))) == (code, data)


@given(_TEXT, _TEXT, _TEXT)
def test_error_fields(message, hint, detail):
    fields = decode.error_fields(body(encode.error(message, "53300", hint=hint, detail=detail)))
    expected = {"S": "ERROR", "V": "ERROR", "C": "53300", "M": message, "D": detail, "H": hint}
    assert fields == {key: value for key, value in expected.items() if value or key == "M"}


@pytest.mark.parametrize("values", [[], ["a"], ["", None, "b" * 300]])
def test_data_row(values):
    row = encode.data_row(values)
    assert decode.data_row(row[5:]) == [None if value is None else value.encode() for value in values]


def test_the_sqlstate_of_a_frame():
    assert decode.sqlstate(encode.error("no", "53300")) == "53300"
    assert decode.sqlstate(b"E\0\0\0\5\0") == ""


def test_error_fields_of_a_server_in_another_encoding():
    assert decode.error_fields(b"SFATAL\0M\xe9\0\0behind the end") == {"S": "FATAL", "M": "�"}
    assert decode.error_fields(b"") == {}


@pytest.mark.parametrize(
    ("read", "raw"),
    [
        (decode.cstring, b""),
        (decode.cstring, b"abc"),
        (decode.query, b""),
        (decode.query, b"SELECT 1"),
        (decode.query, b"SELECT 1\0;"),
        (decode.query, b"\0\0"),
        (decode.parse, b""),
        (decode.parse, b"a\0b"),
        (decode.parse, b"a\0b\0"),
        (decode.parse, b"a\0b\0\0"),
        (decode.parse, b"a\0b\0\0\1"),
        (decode.parse, b"a\0b\0\0\0\0"),
        (decode.parse, b"a\0b\0\xff\xff\0\0\0\0"),
        (decode.bind_names, b"a"),
        (decode.bind_names, b"a\0b"),
        (decode.target, b""),
        (decode.target, b"S"),
        (decode.target, b"Sa"),
        (decode.target, b"Sa\0b"),
        (decode.target, b"Xa\0"),
        (decode.parameter_status, b"a\0b"),
        (decode.parameter_status, b"a"),
        (decode.backend_key_data, b"\0\0\0\1\0\0\0"),
        (decode.authentication, b"\0\0\0"),
        (decode.error_fields, b"Mabc"),
        (decode.error_fields, b"Mabc\0S"),
        (decode.data_row, b"\0\1"),
        (decode.data_row, b"\0\1\0\0\0\2a"),
        (decode.data_row, b"\0\1\xff\xff\xff"),
    ],
)
def test_what_is_not_the_protocol(read, raw):
    with pytest.raises(ProtocolViolation):
        read(raw)


@pytest.mark.parametrize(
    "read",
    [
        decode.query,
        decode.parse,
        decode.bind_names,
        decode.target,
        decode.parameter_status,
        decode.backend_key_data,
        decode.error_fields,
        decode.authentication,
        decode.function_call,
        decode.data_row,
    ],
)
def test_any_bytes_are_read_or_refused(read):
    @given(st.binary(max_size=40))
    def check(raw):
        with suppress(ProtocolViolation):
            read(raw)

    check()


@given(st.binary(max_size=30), st.binary(max_size=30))
def test_what_stands_behind_a_body_is_not_part_of_it(inner: bytes, behind: bytes) -> None:
    for read, within in (
        (decode.query, decode.query_within),
        (decode.parse_fields, decode.parse_within),
        (decode.bind_names, decode.bind_names_within),
    ):
        try:
            expected = read(inner)
        except ProtocolViolation as error:
            with pytest.raises(ProtocolViolation, match=str(error)):
                within(b"\0" + inner + behind, 1, 1 + len(inner))
        else:
            assert within(b"\0" + inner + behind, 1, 1 + len(inner)) == expected
