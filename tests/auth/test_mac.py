"""HMAC and SHA-256 against the library's own, whichever way they are compiled."""

from __future__ import annotations

import hashlib
import hmac

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.auth.mac import Mac, digest
from tests.examples import examples


@settings(max_examples=examples(50))
@given(st.binary(max_size=64), st.lists(st.binary(max_size=300), min_size=1, max_size=3))
def test_a_mac_is_hmac_sha_256_as_often_as_it_is_asked(key: bytes, said: list[bytes]) -> None:
    mac = Mac(key)
    for data in said:
        assert mac.of(data) == hmac.digest(key, data, "sha256")


def test_a_digest_is_sha_256_at_any_length() -> None:
    for size in range(200):
        assert digest(b"x" * size) == hashlib.sha256(b"x" * size).digest()
