"""The small steps of SCRAM's messages: the end of an attribute, base64, what is signed, the request that it goes in.

Each is asked several times a login. Compiled there is a twin in C (`octets.pyx`), which makes no object on the way.
"""

from __future__ import annotations

import binascii
import re
from os import urandom

_whole = re.compile(
    rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
).fullmatch  # binascii lets padding behind a whole group pass

_NONCE = 18  # random bytes, 24 letters


def comma(message: bytes, at: int) -> int:
    """Where the next comma is from `at` on, or else the message ends."""
    found = message.find(b",", at)
    return found if found >= 0 else len(message)


def is_printable(message: bytes, start: int, stop: int) -> bool:
    """There is nothing but ASCII's visible characters in between."""
    return all(0x21 <= octet <= 0x7E for octet in message[start:stop])


def decoded(message: bytes, start: int, stop: int) -> bytes | None:
    """What is written there in base64, with its padding and nothing else; None where that is not so."""
    text = message[start:stop]
    return binascii.a2b_base64(text) if _whole(text) is not None else None


def nonce() -> bytes:
    """Random letters, which nobody has had before."""
    return encoded(urandom(_NONCE))


def encoded(data: bytes) -> bytes:
    return binascii.b2a_base64(data, newline=False)


def xor(one: bytes, other: bytes) -> bytes:
    """Of two that are equally long."""
    if len(one) != len(other):
        raise ValueError("one is longer than the other")
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(len(one), "big")


def listed(one: bytes, two: bytes, three: bytes) -> bytes:
    """With commas in between."""
    return b"%b,%b,%b" % (one, two, three)


def request(code: int, data: bytes, behind: bytes) -> bytes:
    """The authentication request with these data, and what is said right behind it."""
    return b"R%b%b%b%b" % ((8 + len(data)).to_bytes(4, "big"), code.to_bytes(4, "big"), data, behind)
