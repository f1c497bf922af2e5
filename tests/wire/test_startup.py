from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import InvalidParameter, ProtocolViolation
from proxy.wire import encode
from proxy.wire.startup import (
    MAX_CANCEL_KEY,
    CancelRequest,
    Startup,
    decode_cancel,
    decode_startup,
    parse_options,
    split_options,
)

_NAMES = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1).filter(
    lambda name: not name.startswith("_pq_.")
)
_VALUES = st.text(st.characters(exclude_characters="\0", codec="utf-8"))


def body(*strings: bytes, version: int = 0x30000) -> bytes:
    return struct.pack("!I", version) + b"".join(s + b"\0" for s in strings) + b"\0"


@given(st.dictionaries(_NAMES, _VALUES), st.integers(0, 0xFFFF))
def test_what_is_encoded_is_decoded(parameters, minor):
    packet = encode.startup(parameters, 0x30000 | minor)
    assert int.from_bytes(packet[:4], "big") == len(packet)
    assert decode_startup(packet[4:]) == Startup(3, minor, parameters, ())
    assert list(decode_startup(packet[4:]).parameters) == list(parameters)


def test_protocol_options_are_told_apart():
    found = decode_startup(body(b"user", b"a", b"_pq_.x", b"1", b"b", b"", b"_pq_.y", b"2", version=0x30002))
    assert found == Startup(3, 2, {"user": "a", "b": ""}, ("_pq_.x", "_pq_.y"))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0\3",
        b"\0\3\0\0",
        b"\0\2\0\0\0",
        b"\0\4\0\0\0",
        b"\0\3\0\0user\0a\0",  # no terminator
        b"\0\3\0\0user\0a\0\0x",  # something behind it
        b"\0\3\0\0user\0a",
        b"\0\3\0\0user\0",
        b"\0\3\0\0user",
        b"\0\3\0\0user\0\xff\0\0",
        b"\xff" * 40,
    ],
)
def test_what_is_no_startup_packet(raw):
    with pytest.raises(ProtocolViolation):
        decode_startup(raw)


def test_an_old_protocol_is_named():
    with pytest.raises(ProtocolViolation, match=r"unsupported frontend protocol 2\.0"):
        decode_startup(body(version=0x20000))


@given(st.integers(0, 0xFFFFFFFF), st.binary(min_size=1, max_size=MAX_CANCEL_KEY))
def test_cancel_requests_of_any_key(pid, key):
    packet = encode.cancel_request(pid, key)
    assert int.from_bytes(packet[:4], "big") == len(packet)
    assert decode_cancel(packet[4:]) == CancelRequest(pid, key)


@pytest.mark.parametrize("size", [0, 4, 8, 8 + MAX_CANCEL_KEY + 1])
def test_cancel_requests_of_a_wrong_size(size):
    with pytest.raises(ProtocolViolation):
        decode_cancel(b"x" * size)


# --- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("  \t\n", []),
        ("-c a=b", ["-c", "a=b"]),
        ("  -ca=b\v\f-x  ", ["-ca=b", "-x"]),
        (r"-c a=b\ c", ["-c", "a=b c"]),
        (r"a\\b \c", ["a\\b", "c"]),
        ("\\", [""]),
        ("a\u00a0b\u2003c\x1cd", ["a\u00a0b\u2003c\x1cd"]),  # blanks to Python, not to PostgreSQL
    ],
)
def test_split_options(text, words):
    assert split_options(text) == words


@given(st.lists(st.text(min_size=1)))
def test_escaped_words_come_back(words):
    text = " ".join("".join("\\" + c for c in word) for word in words)
    assert split_options(text) == words


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", {}),
        ("-c a=b", {"a": "b"}),
        ("-ca=b", {"a": "b"}),
        ("--a=b", {"a": "b"}),
        ("--work-mem=64MB -c statement-timeout=5", {"work_mem": "64MB", "statement_timeout": "5"}),
        ("-c app.tenant_id=acme", {"app.tenant_id": "acme"}),
        ("-c a= -c b=c=d", {"a": "", "b": "c=d"}),
        ("-c a=1 --a=2", {"a": "2"}),
        (r"-c search_path=a,\ b", {"search_path": "a, b"}),
        ("-e -S 64 -fs -f h", {"datestyle": "euro", "work_mem": "64", "enable_seqscan": "false",
                               "enable_hashjoin": "false"}),
        ("-seS64", {"log_statement_stats": "true", "datestyle": "euro", "work_mem": "64"}),
        ("-tpa -t planner -te", {"log_parser_stats": "true", "log_planner_stats": "true",
                                 "log_executor_stats": "true"}),
        ("-F -ec a=1", {"fsync": "false", "datestyle": "euro", "a": "1"}),
    ],
)  # fmt: skip
def test_parse_options(text, settings):
    assert parse_options(text) == settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-c", "-c  requires a value"),
        ("-c a", "-c a requires a value"),
        ("-c =a", "-c =a requires a value"),
        ("--a", "--a requires a value"),
        ("a=b", "invalid command-line argument for server process: a=b"),
        ("-", "invalid command-line argument for server process: -"),
        ("--", "invalid command-line argument for server process: --"),
        ("-d 5", "invalid command-line argument for server process: -d"),
        ("-ez", "invalid command-line argument for server process: -ez"),
        ("-f z", "invalid command-line argument for server process: -f"),
        ("-t x", "invalid command-line argument for server process: -t"),
    ],
)
def test_options_that_set_nothing(text, message):
    with pytest.raises(InvalidParameter) as caught:
        parse_options(text)
    assert caught.value.message == message
    assert caught.value.sqlstate == "42601"
