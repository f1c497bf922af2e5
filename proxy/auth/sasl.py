"""scram-sha-256 towards clients, with channel binding where it is known; unknown users get a mock."""

from __future__ import annotations

import hmac
import secrets
from functools import lru_cache

from proxy.auth import scram
from proxy.auth.exchange import Asking, Step, failed
from proxy.errors import ProtocolViolation
from proxy.wire import decode, encode

# Of this process: an unknown user gets the same salt each time, as a known one does.
_MOCK_SECRET = secrets.token_bytes(32)
_MOCKS = 1_000
_PLUS = scram.MECHANISM + "-PLUS"
_VERIFIER = scram.MECHANISM + "$"
_OFFER = Step(encode.authentication(10, f"{scram.MECHANISM}\0\0".encode()), False)
_OFFER_BINDING = Step(encode.authentication(10, f"{_PLUS}\0{scram.MECHANISM}\0\0".encode()), False)
_PLAIN_NAME, _PLUS_NAME = scram.MECHANISM.encode(), _PLUS.encode()


class Sasl:
    __slots__ = ("_asking", "_exchange", "_first", "client_key")

    def __init__(self, asking: Asking) -> None:
        self._asking = asking
        self._exchange: scram.ServerExchange | None = None
        self._first = True
        self.client_key = b""

    @property
    def slow(self) -> bool:
        asking = self._asking
        if not self._first or not asking.known or asking.stored.startswith(_VERIFIER):
            return False
        return not scram.is_known(asking.stored, _mock(asking.user).salt, scram.ITERATIONS)

    def start(self) -> Step:
        return _OFFER_BINDING if self._asking.binding else _OFFER

    def respond(self, body: bytes) -> Step:
        try:
            return self._respond_first(body) if self._first else self._respond_final(body)
        except scram.BadExchange:
            raise failed(self._asking.user) from None

    def _respond_first(self, body: bytes) -> Step:
        mechanism, at = decode.cstring(body)
        length, message = int.from_bytes(body[at : at + 4], "big"), body[at + 4 :]
        plus = mechanism == _PLUS_NAME
        if (not plus and mechanism != _PLAIN_NAME) or (plus and not self._asking.binding):
            raise ProtocolViolation("client selected an invalid SASL authentication mechanism")
        if length != len(message):
            raise ProtocolViolation("malformed SCRAM message")
        self._exchange = scram.ServerExchange(
            self._verifier(), channel_binding=self._asking.binding, offered_binding=bool(self._asking.binding)
        )
        self._first = False
        return Step(encode.authentication(11, self._exchange.first(message, plus=plus)), False)

    def _respond_final(self, body: bytes) -> Step:
        if self._exchange is None:
            raise AssertionError("the final message comes second")
        final = self._exchange.final(body)
        if not self._asking.known:
            raise failed(self._asking.user)
        self.client_key = self._exchange.client_key
        return Step(encode.authentication(12, final) + encode.AUTHENTICATION_OK, True)

    def _verifier(self) -> scram.Verifier:
        stored = self._asking.stored
        if self._asking.known and stored.startswith(_VERIFIER):
            try:
                return scram.read_verifier(stored)
            except ValueError:
                return _mock(self._asking.user)  # what is no verifier fits nobody
        elif self._asking.known and stored and not (stored.startswith("md5") and len(stored) == 35):
            return scram.make_verifier(stored, _mock(self._asking.user).salt)
        return _mock(self._asking.user)


@lru_cache(maxsize=_MOCKS)
def _mock(user: str) -> scram.Verifier:
    """Nobody knows the password; remembered, as a known user's is, so that it takes as long."""
    salt = hmac.digest(_MOCK_SECRET, user.encode(), "sha256")[:16]
    return scram.Verifier(salt, scram.ITERATIONS, secrets.token_bytes(32), secrets.token_bytes(32))
