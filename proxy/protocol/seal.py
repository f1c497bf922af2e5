"""The seal: what proves to a database that it was the proxy that named the tenant of a connection.

A seal is the text `1.KEY.EXPIRES.HMAC` in the parameter `tiergate.seal`. The HMAC-SHA-256 is over the version, the
key's id, the expiry (in seconds of the server's clock), the backend as the server itself names it, and the
tenant, one a line. It is of no use with another tenant, on another connection, or later; what verifies it
is `tiergate.current_tenant()` of the SQL kit.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from proxy.model import Seal

PARAMETER = "tiergate.seal"
INTRODUCE = "SELECT tiergate.introduce()"
_VERSION = "1"


@dataclass(frozen=True, slots=True)
class Introduction:
    """What a new connection's server says of itself: its time in seconds, and which backend it is."""

    time: float
    backend: str


def read_introduction(text: str) -> Introduction:
    """Raises ValueError for what is none, or of a kit that wants other seals."""
    version, _, rest = text.partition(" ")
    time, _, backend = rest.partition(" ")
    if version != _VERSION or not time.isdigit() or not backend:
        raise ValueError("its SQL kit is of another version than this proxy")
    return Introduction(float(time), backend)


def sign(seal: Seal, tenant: str, backend: str, expires: int) -> str:
    """The seal's text, signed with the newest key."""
    key = seal.keys[-1]
    lines = (f"tiergate seal {_VERSION}", key.id, str(expires), backend, tenant)
    message = "\n".join(lines).encode("utf-8", "surrogateescape")
    digest = hmac.digest(key.secret.encode(), message, "sha256").hex()
    return f"{_VERSION}.{key.id}.{expires}.{digest}"
