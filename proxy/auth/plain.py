"""plain: the password itself, compared with whatever is stored."""

from __future__ import annotations

import hashlib
import hmac

from proxy.auth import scram
from proxy.auth.exchange import Asking, Exchange, Step, failed
from proxy.wire import encode

_ASK = encode.authentication(3)


def md5_hash(password: bytes, user: str) -> bytes:
    """PostgreSQL's stored form: "md5" and the digest of password and user."""
    return b"md5" + hashlib.md5(password + user.encode(), usedforsecurity=False).hexdigest().encode()


def fits(asking: Asking, password: bytes) -> bool:
    stored = asking.stored
    if stored.startswith(scram.MECHANISM + "$"):
        try:
            verifier = scram.read_verifier(stored)
        except ValueError:  # what is no verifier fits nobody
            return False
        return scram.matches(verifier, password.decode("utf-8", "surrogateescape"))
    if stored.startswith("md5") and len(stored) == 35:
        return hmac.compare_digest(md5_hash(password, asking.user), stored.encode())
    return bool(stored) and hmac.compare_digest(password, stored.encode())


class Plain(Exchange):
    __slots__ = ()

    def is_slow(self) -> bool:
        return True

    def start(self) -> Step:
        return Step(_ASK, False)

    def respond(self, body: bytes) -> Step:
        if not body.endswith(b"\0") or not fits(self.asking, body[:-1]) or not self.asking.known:
            raise failed(self.asking.user)
        if self.asking.stored.startswith(scram.MECHANISM + "$"):
            verifier = scram.read_verifier(self.asking.stored)
            self.client_key = scram.client_key(verifier, body[:-1].decode("utf-8", "surrogateescape"))
        return Step(encode.AUTHENTICATION_OK, True)
