"""The steps of SCRAM's messages, which are C where that is compiled, against what Python has for them."""

from __future__ import annotations

import base64
import os
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.auth import octets
from tests.examples import examples

LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


@settings(max_examples=examples(100))
@given(st.binary(max_size=80), st.binary(max_size=10), st.binary(max_size=10))
def test_base64_goes_there_and_back(data: bytes, before: bytes, behind: bytes) -> None:
    text = octets.encoded(data)
    assert text == base64.b64encode(data)
    assert octets.decoded(before + text + behind, len(before), len(before) + len(text)) == data


@settings(max_examples=examples(300))
@given(st.text("AQz9+/=-_ \n\0", max_size=16))
def test_what_is_no_base64_is_none(text: str) -> None:
    said = text.encode()
    is_whole = re.fullmatch(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", said)
    assert octets.decoded(said, 0, len(said)) == (base64.b64decode(said) if is_whole else None)


def test_every_octet_is_a_letter_of_base64_or_none() -> None:
    for octet in range(256):
        for at in range(4):
            text = bytearray(b"AAAA")
            text[at] = octet
            is_letter = octet in LETTERS or (at == 3 and octet == b"="[0])
            assert (octets.decoded(bytes(text), 0, 4) is not None) == is_letter


@settings(max_examples=examples(50))
@given(st.binary(max_size=30), st.integers(0, 40))
def test_a_comma_or_the_end(message: bytes, at: int) -> None:
    found = message.find(b",", at)
    assert octets.comma(message, at) == (found if found >= 0 else len(message))


def test_what_is_printable() -> None:
    for octet in range(256):
        assert octets.is_printable(b"\0ab" + bytes([octet]) + b"\0", 1, 4) == (0x21 <= octet <= 0x7E)


@settings(max_examples=examples(50))
@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=40))
def test_what_is_put_together(one: bytes, two: bytes, three: bytes) -> None:
    assert octets.listed(one, two, three) == b",".join((one, two, three))
    assert (
        octets.request(11, one, two) == b"R" + (8 + len(one)).to_bytes(4, "big") + b"\0\0\0\x0b" + one + two
    )
    if len(one) == len(two):
        assert octets.xor(one, two) == bytes(left ^ right for left, right in zip(one, two, strict=True))
    else:
        with pytest.raises(ValueError, match="longer"):
            octets.xor(one, two)


def test_no_nonce_comes_twice_and_none_in_a_child_of_this_process() -> None:
    seen = {octets.nonce() for _ in range(1_000)}
    assert len(seen) == 1_000
    assert {len(nonce) for nonce in seen} == {24}
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, b"".join(octets.nonce() for _ in range(100)))
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    of_the_child = {said[at : at + 24] for at in range(0, len(said), 24)}
    assert len(of_the_child) == 100
    assert not of_the_child & {octets.nonce() for _ in range(200)}
