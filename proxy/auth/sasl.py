"""scram-sha-256 towards clients, with channel binding where it is known; unknown users get a mock."""

from __future__ import annotations

import hmac
import secrets
from functools import lru_cache

from proxy.auth import scram
from proxy.auth.exchange import Asking, Exchange, Step, failed
from proxy.auth.octets import request
from proxy.auth.scram import ServerExchange, Verifier
from proxy.errors import ProtocolViolation
from proxy.wire import encode
from proxy.wire.pieces import end_of, piece, word

# Of this process: an unknown user gets the same salt each time, as a known one does.
_MOCK_SECRET = secrets.token_bytes(32)
_MOCKS = 1_000
_PLUS = scram.MECHANISM + "-PLUS"
_VERIFIER = scram.MECHANISM + "$"
_OFFER = Step(encode.authentication(10, f"{scram.MECHANISM}\0\0".encode()), False)
_OFFER_BINDING = Step(encode.authentication(10, f"{_PLUS}\0{scram.MECHANISM}\0\0".encode()), False)
_PLAIN_NAME, _PLUS_NAME = scram.MECHANISM.encode(), _PLUS.encode()
_IN = encode.AUTHENTICATION_OK
_LONGEST = 1_020  # bytes of a message, as PostgreSQL has it


class Sasl(Exchange):
    __slots__ = ("_exchange",)

    def __init__(self, asking: Asking) -> None:
        self.asking = asking
        self.client_key = b""
        self.is_for_all = False
        self._exchange: ServerExchange | None = None

    def is_slow(self) -> bool:
        asking = self.asking
        if self._exchange is not None or asking.verifier is not None:
            return False
        if not asking.known or asking.stored.startswith(_VERIFIER):
            return False
        return not scram.is_known(asking.stored, _mock(asking.user).salt, scram.ITERATIONS)

    def start(self) -> Step:
        return _OFFER_BINDING if self.asking.binding else _OFFER

    def respond(self, body: bytes) -> Step:
        if len(body) > _LONGEST:
            raise failed(self.asking.user)
        if self._exchange is None:
            return self._respond_first(body)
        asking = self.asking
        try:
            said = self._exchange.final(body)
        except scram.BadExchange:
            raise failed(asking.user) from None
        if not asking.known:
            raise failed(asking.user)
        self.client_key = self._exchange.client_key
        return Step(request(12, said, _IN), True)

    def _respond_first(self, body: bytes) -> Step:
        asking = self.asking
        end = end_of(body, 0)
        mechanism = piece(body, 0, end)
        plus = mechanism == _PLUS_NAME
        if (not plus and mechanism != _PLAIN_NAME) or (plus and not asking.binding):
            raise ProtocolViolation("client selected an invalid SASL authentication mechanism")
        at = end + 5
        if at > len(body) or word(body, end + 1) != len(body) - at:
            raise ProtocolViolation("invalid message format")
        if asking.verifier is None:
            asking.verifier = self._verifier()
        self._exchange = ServerExchange(asking.verifier, asking.binding)
        return Step(request(11, self._exchange.first(piece(body, at, len(body)), plus), b""), False)

    def _verifier(self) -> Verifier:
        asking = self.asking
        stored = asking.stored
        if asking.known and stored.startswith(_VERIFIER):
            try:
                return scram.read_verifier(stored)
            except ValueError:
                return _mock(asking.user)  # what is no verifier fits nobody
        elif asking.known and stored and not (stored.startswith("md5") and len(stored) == 35):
            return scram.make_verifier(stored, _mock(asking.user).salt)
        return _mock(asking.user)


@lru_cache(maxsize=_MOCKS)
def _mock(user: str) -> Verifier:
    """Nobody knows the password; remembered, as a known user's is, so that it takes as long."""
    salt = hmac.digest(_MOCK_SECRET, user.encode(), "sha256")[:16]
    return Verifier(salt, scram.ITERATIONS, secrets.token_bytes(32), secrets.token_bytes(32))
