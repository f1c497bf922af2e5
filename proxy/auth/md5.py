"""md5: a digest of the stored hash and a salt of four bytes."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from proxy.auth.exchange import Asking, Exchange, Step, failed
from proxy.auth.plain import md5_hash
from proxy.wire import encode


def salted(hashed: bytes, salt: bytes) -> bytes:
    """What is sent for the stored form `hashed`."""
    return b"md5" + hashlib.md5(hashed[3:] + salt, usedforsecurity=False).hexdigest().encode()


class Md5(Exchange):
    __slots__ = ("_salt",)

    def __init__(self, asking: Asking) -> None:
        super().__init__(asking)
        self._salt = secrets.token_bytes(4)

    def start(self) -> Step:
        return Step(encode.authentication(5, self._salt), False)

    def respond(self, body: bytes) -> Step:
        asking = self.asking
        stored = asking.stored.encode()
        if stored.startswith(b"md5") and len(stored) == 35:
            hashed = stored
        else:
            hashed = md5_hash(stored, asking.said_name or asking.user)
        right = hmac.compare_digest(body.removesuffix(b"\0"), salted(hashed, self._salt))
        if not (right and asking.known and stored):
            raise failed(asking.user)
        return Step(encode.AUTHENTICATION_OK, True)
