"""Bearer tokens of the HTTP API: 256 random bits, of which only a SHA-256 is kept.

A fast hash is enough: there is nothing to guess in them.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable

from proxy.model import ApiToken

_PREFIX = "sha256$"
_HASH = re.compile(r"sha256\$[0-9a-f]{64}", re.ASCII)


def new() -> str:
    return "tg_" + secrets.token_urlsafe(32)


def hashed(token: str) -> str:
    return _PREFIX + hashlib.sha256(token.encode()).hexdigest()


def is_hash(text: str) -> bool:
    return _HASH.fullmatch(text) is not None


def bearer(authorization: str) -> str:
    """The token of an Authorization header; "" where it has none."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def owner(token: str, known: Iterable[ApiToken]) -> ApiToken | None:
    """Whose token it is. Every known one is compared, in a time that says nothing of where it differs."""
    wanted, found = hashed(token).encode(), None
    for candidate in known:
        if hmac.compare_digest(candidate.hash.encode(), wanted):
            found = candidate
    return found if token else None
