"""What every method towards clients looks like, and what is known of who asks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from proxy.errors import InvalidPassword


class Step(NamedTuple):
    """What to send to the client, and whether it is who it says it is."""

    send: bytes
    done: bool


@dataclass(frozen=True, slots=True)
class Asking:
    """`stored` is the user's secret as configured: plain, md5... or a SCRAM verifier. `binding` is the channel
    binding data of the TLS connection (tls-server-end-point), b"" without one. `said_name` is the user as the
    client named it, with a tenant perhaps: what md5 digests on that side; "" is as `user`."""

    user: str
    known: bool
    stored: str = field(repr=False)
    certificate_name: str = ""
    binding: bytes = b""
    said_name: str = ""


class Exchange(Protocol):
    """`start` and then `respond` for each message of the client, until a Step is done. Both raise
    InvalidPassword or NotAuthorized. `slow` says that the next call may take milliseconds. Then `client_key` is what
    stands for the password where its verifier is known, b"" where the proof does not give it."""

    @property
    def slow(self) -> bool: ...
    @property
    def client_key(self) -> bytes: ...
    def start(self) -> Step: ...
    def respond(self, body: bytes) -> Step: ...


def failed(user: str) -> InvalidPassword:
    return InvalidPassword(f'password authentication failed for user "{user}"')
