"""SHA-256, and HMAC-SHA-256 (RFC 2104) with a key that is prepared: two hashes, which go on from copies of those of the key.

OpenSSL's own HMAC looks up its algorithm each time, as a new hash does, and that takes longer than all the rest. Compiled
there is a twin in C (`mac.pyx`), which calls the library's functions without an object for each hash.
"""

from __future__ import annotations

import hashlib

_BLOCK = 64  # bytes that SHA-256 takes at once
_INNER, _OUTER = bytes(x ^ 0x36 for x in range(256)), bytes(x ^ 0x5C for x in range(256))
_sha256 = hashlib.sha256
_nothing = _sha256()


def digest(data: bytes) -> bytes:
    whole = _nothing.copy()
    whole.update(data)
    return whole.digest()


class Mac:
    """Of a key of at most 64 bytes."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        padded = key.ljust(_BLOCK, b"\0")
        self._inner = _sha256(padded.translate(_INNER))
        self._outer = _sha256(padded.translate(_OUTER))

    def of(self, data: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(data)
        outer.update(inner.digest())
        return outer.digest()
