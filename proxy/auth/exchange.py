"""What every method towards clients looks like, and what is known of who asks."""

from __future__ import annotations

from proxy.auth.scram import Verifier
from proxy.errors import InvalidPassword


class Step:
    """What to send to the client, and whether it is who it says it is."""

    __slots__ = ("done", "send")

    def __init__(self, send: bytes, done: bool) -> None:
        self.send = send
        self.done = done


class Asking:
    """`stored` is the user's secret as configured: plain, md5... or a SCRAM verifier. `binding` is the channel
    binding data of the TLS connection (tls-server-end-point), b"" without one. `said_name` is the user as the
    client named it, with a tenant perhaps: what md5 digests on that side; "" is as `user`. Nothing of it changes;
    `verifier` is what SCRAM has read or made of `stored`."""

    __slots__ = ("binding", "certificate_name", "known", "said_name", "stored", "user", "verifier")

    def __init__(
        self,
        user: str,
        known: bool,
        stored: str,
        certificate_name: str = "",
        binding: bytes = b"",
        said_name: str = "",
    ) -> None:
        self.user = user
        self.known = known
        self.stored = stored
        self.certificate_name = certificate_name
        self.binding = binding
        self.said_name = said_name
        self.verifier: Verifier | None = None


class Exchange:
    """`start` and then `respond` for each message of the client, until a Step is done. Both raise what the client is to
    read. `is_slow` says that the next call may take milliseconds. Then `client_key` is what stands for the password where
    its verifier is known, b"" where the proof does not give it. One that `is_for_all` keeps nothing of who talks."""

    __slots__ = ("asking", "client_key", "is_for_all")

    def __init__(self, asking: Asking) -> None:
        self.asking = asking
        self.client_key = b""
        self.is_for_all = False

    def is_slow(self) -> bool:
        return False

    def start(self) -> Step:
        raise NotImplementedError

    def respond(self, body: bytes) -> Step:
        raise NotImplementedError


def failed(user: str) -> InvalidPassword:
    return InvalidPassword(f'password authentication failed for user "{user}"')
