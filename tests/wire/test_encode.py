from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire import encode


@given(st.sampled_from([b"Q", b"D", b"Z"]), st.binary(max_size=300))
def test_a_frame_counts_itself_but_not_its_type(kind, body):
    frame = encode.frame(kind, body)
    assert frame[:1] == kind
    assert int.from_bytes(frame[1:5], "big") == len(body) + 4
    assert frame[5:] == body


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (encode.SYNC, b"S\0\0\0\4"),
        (encode.FLUSH, b"H\0\0\0\4"),
        (encode.TERMINATE, b"X\0\0\0\4"),
        (encode.PARSE_COMPLETE, b"1\0\0\0\4"),
        (encode.BIND_COMPLETE, b"2\0\0\0\4"),
        (encode.CLOSE_COMPLETE, b"3\0\0\0\4"),
        (encode.NO_DATA, b"n\0\0\0\4"),
        (encode.EMPTY_QUERY, b"I\0\0\0\4"),
        (encode.AUTHENTICATION_OK, b"R\0\0\0\x08\0\0\0\0"),
        (encode.SSL_REQUEST, b"\0\0\0\x08\x04\xd2\x16\x2f"),
        (encode.startup({}), b"\0\0\0\x09\0\3\0\0\0"),
        (encode.startup({"user": "é"}, encode.PROTOCOL_3_0 | 2), b"\0\0\0\x11\0\3\0\2user\0\xc3\xa9\0\0"),
        (encode.cancel_request(1, b"keys"), b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\1keys"),
        (encode.query(b"SELECT 1"), b"Q\0\0\0\x0dSELECT 1\0"),
        (encode.parse(b"n", b"t", b"\0\1\0\0\0\x17"), b"P\0\0\0\x0en\0t\0\0\1\0\0\0\x17"),
        (
            encode.bind(b"p", b"s", [b"v", None]),
            b"B\0\0\0\x17p\0s\0\0\0\0\2\0\0\0\1v\xff\xff\xff\xff\0\0",
        ),
        (encode.describe(b"S", b"n"), b"D\0\0\0\x07Sn\0"),
        (encode.close(b"P", b""), b"C\0\0\0\x06P\0"),
        (encode.execute(), b"E\0\0\0\x09\0\0\0\0\0"),
        (encode.execute(b"p", 7), b"E\0\0\0\x0ap\0\0\0\0\7"),
        (encode.password(b"secret"), b"p\0\0\0\x0bsecret\0"),
        (encode.sasl_initial(b"M", b"xy"), b"p\0\0\0\x0cM\0\0\0\0\2xy"),
        (encode.sasl_response(b"xy"), b"p\0\0\0\6xy"),
        (encode.authentication(10, b"M\0\0"), b"R\0\0\0\x0b\0\0\0\x0aM\0\0"),
        (encode.ready_for_query(), b"Z\0\0\0\5I"),
        (encode.ready_for_query(b"T"), b"Z\0\0\0\5T"),
        (encode.parameter_status(b"a", b"b"), b"S\0\0\0\x08a\0b\0"),
        (encode.backend_key_data(-1, b"keys"), b"K\0\0\0\x0c\xff\xff\xff\xffkeys"),
        (encode.negotiate_protocol_version(2, [b"_pq_.x"]), b"v\0\0\0\x13\0\0\0\2\0\0\0\1_pq_.x\0"),
        (encode.negotiate_protocol_version(0, []), b"v\0\0\0\x0c\0\0\0\0\0\0\0\0"),
        (encode.command_complete("SHOW"), b"C\0\0\0\x09SHOW\0"),
        (encode.data_row([]), b"D\0\0\0\6\0\0"),
        (encode.data_row(["é", None, ""]), b"D\0\0\0\x14\0\3\0\0\0\2\xc3\xa9\xff\xff\xff\xff\0\0\0\0"),
        (encode.error("m", "XX000"), b"E\0\0\0\x1dSERROR\0VERROR\0CXX000\0Mm\0\0"),
        (encode.notice("m"), b"N\0\0\0\x1fSNOTICE\0VNOTICE\0C00000\0Mm\0\0"),
    ],
)
def test_every_message_byte_by_byte(frame, expected):
    assert frame == expected


def test_row_description():
    frame = encode.row_description([("name", 25, 0), ("n", 20, 1)])
    assert frame[:7] == b"T" + struct.pack("!IH", len(frame) - 1, 2)
    assert frame[7:30] == b"name\0" + struct.pack("!IhIhih", 0, 0, 25, -1, -1, 0)
    assert frame[30:] == b"n\0" + struct.pack("!IhIhih", 0, 0, 20, -1, -1, 1)


def test_what_a_peer_sent_as_no_utf_8_can_be_said():
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert encode.data_row([name])[-4:] == b"caf?"
    assert b"Mcaf?\0" in encode.error(name, "XX000")


def test_a_zero_in_a_text_ends_no_field():
    assert b"Mab\0" in encode.error("a\0b", "XX000")


def test_an_error_with_another_severity():
    fatal = encode.error("m", "57P01", severity="FATAL", detail="Severe.")
    assert encode.with_severity(fatal, "ERROR") == encode.error("m", "57P01", detail="Severe.")
