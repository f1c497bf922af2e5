"""SCRAM-SHA-256 (RFC 5802, RFC 7677): keys and verifiers, the client's side and the server's side.

The exchanges are our own: scramp derives keys in Python, a hundred times slower than hashlib's PBKDF2, and inside
the interpreter lock; of scramp only its SASLprep is used. A salted password is kept for those who log in
again. Deriving one is the only slow step: `is_known` says whether it is still to be done.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections import OrderedDict
from functools import lru_cache
from hmac import compare_digest

from scramp import ScramException
from scramp.utils import saslprep

from proxy.auth import octets
from proxy.auth.mac import Mac, digest
from proxy.errors import FeatureNotSupported, NotAuthorized, ProtocolViolation
from proxy.wire.pieces import end_of, piece

MECHANISM = "SCRAM-SHA-256"
ITERATIONS = 4096
_MAX_ITERATIONS = 1_000_000
_REMEMBERED = 10_000
_KEY_LENGTH = 32
_EXTENSION, _NAME, _NONCE, _PROOF, _BOUND, _AUTHORIZATION, _COMMA, _EQUALS = b"mnrpca,="
_NOT, _YES = b"ny"
_END_POINT = b"p=tls-server-end-point"
_UNBOUND, _UNOFFERED = octets.encoded(b"n,,"), octets.encoded(b"y,,")


class Verifier:
    """What a server stores of a password. Nothing of it changes."""

    __slots__ = (
        "asks", "client_signature", "iterations", "salt", "server_key", "server_signature", "stored_key",
    )  # fmt: skip

    def __init__(self, salt: bytes, iterations: int, stored_key: bytes, server_key: bytes) -> None:
        self.salt = salt
        self.iterations = iterations
        self.stored_key = stored_key
        self.server_key = server_key
        self.client_signature = Mac(stored_key)
        self.server_signature = Mac(server_key)
        self.asks = b",s=%b,i=%d" % (octets.encoded(salt), iterations)  # the end of a server's first message


class BadExchange(ValueError):
    """A proof that does not fit; of a server, what is not SCRAM as well."""


class OtherVerifier(BadExchange):
    """The server has another verifier than the one whose keys are known."""


_salted: OrderedDict[tuple[bytes, bytes, int], bytes] = OrderedDict()


def _key(password: str, salt: bytes, iterations: int) -> tuple[bytes, bytes, int]:
    return hashlib.sha256(password.encode("utf-8", "surrogateescape")).digest(), salt, iterations


def is_known(password: str, salt: bytes, iterations: int) -> bool:
    return _key(password, salt, iterations) in _salted


def salted_password(password: str, salt: bytes, iterations: int) -> bytes:
    """PBKDF2: milliseconds, unless it was done before."""
    salted = _salted.get(_key(password, salt, iterations))
    if salted is None:
        salted = _derive(password, salt, iterations)
        _remember(password, salt, iterations, salted)
    return salted


def _derive(password: str, salt: bytes, iterations: int) -> bytes:
    try:
        prepared = saslprep(password) or password
    except ScramException:  # no text that SASLprep takes: PostgreSQL uses it as it is
        prepared = password
    raw = prepared.encode("utf-8", "surrogateescape")
    return hashlib.pbkdf2_hmac("sha256", raw, salt, iterations)


def _remember(password: str, salt: bytes, iterations: int, salted: bytes) -> None:
    _salted[_key(password, salt, iterations)] = salted
    if len(_salted) > _REMEMBERED:
        _salted.popitem(last=False)


def make_verifier(password: str, salt: bytes | None = None, iterations: int = ITERATIONS) -> Verifier:
    salt = secrets.token_bytes(16) if salt is None else salt
    return _verifier(salted_password(password, salt, iterations), salt, iterations)


@lru_cache(maxsize=_REMEMBERED)
def _verifier(salted: bytes, salt: bytes, iterations: int) -> Verifier:
    client_key = _hmac(salted, b"Client Key")
    return Verifier(salt, iterations, hashlib.sha256(client_key).digest(), _hmac(salted, b"Server Key"))


@lru_cache(maxsize=_REMEMBERED)
def read_verifier(text: str) -> Verifier:
    """PostgreSQL's `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`; ValueError if it is not one."""
    scheme, rest, keys = text.split("$")
    iterations, salt = rest.split(":")
    stored, server = keys.split(":")
    if scheme != MECHANISM or not 1 <= int(iterations) <= _MAX_ITERATIONS:
        raise ValueError("not a SCRAM-SHA-256 verifier")
    raw_salt, stored_key, server_key = (
        base64.b64decode(part, validate=True) for part in (salt, stored, server)
    )
    if not raw_salt or len(stored_key) != _KEY_LENGTH or len(server_key) != _KEY_LENGTH:
        raise ValueError("not a SCRAM-SHA-256 verifier")
    return Verifier(raw_salt, int(iterations), stored_key, server_key)


def matches(verifier: Verifier, password: str) -> bool:
    """Only what fits is remembered, so that guesses do not push out what is known."""
    salt, iterations = verifier.salt, verifier.iterations
    salted = _salted.get(_key(password, salt, iterations)) or _derive(password, salt, iterations)
    fits = compare_digest(_verifier(salted, salt, iterations).stored_key, verifier.stored_key)
    if fits:
        _remember(password, salt, iterations, salted)
    return fits


def client_key(verifier: Verifier, password: str) -> bytes:
    """Of a password that matches."""
    return _hmac(salted_password(password, verifier.salt, verifier.iterations), b"Client Key")


def fits(client_key: bytes, verifier: Verifier) -> bool:
    return compare_digest(hashlib.sha256(client_key).digest(), verifier.stored_key)


def _hmac(key: bytes, data: bytes) -> bytes:
    return Mac(key).of(data)


def _attributes(message: bytes) -> dict[str, str]:
    said: dict[str, str] = {}
    try:
        for part in message.decode("ascii").split(","):
            name, value = part.split("=", 1)
            said[name] = value
    except ValueError:
        raise BadExchange("malformed SCRAM message") from None
    if "m" in said:
        raise BadExchange("an unsupported SCRAM extension is required")
    return said


def _nonce() -> bytes:
    return octets.nonce()


def _malformed(detail: str) -> ProtocolViolation:
    return ProtocolViolation("malformed SCRAM message", detail=detail)


def _check(message: bytes) -> None:
    if not message:
        raise _malformed("The message is empty.")
    if end_of(message, 0) >= 0:
        raise _malformed("Message length does not match input length.")


def _value(message: bytes, at: int, name: int) -> int:
    """Where the value of the attribute at `at` ends, which must be that one."""
    if at + 1 >= len(message) or message[at] != name or message[at + 1] != _EQUALS:
        raise _malformed("Another attribute was expected.")
    return octets.comma(message, at + 2)


def _any_value(message: bytes, at: int) -> int:
    """The same of whatever attribute that is."""
    if at + 1 >= len(message) or message[at + 1] != _EQUALS or not 0x61 <= message[at] | 0x20 <= 0x7A:
        raise _malformed("An attribute was expected.")
    return octets.comma(message, at + 2)


class ServerExchange:
    """The server's side: `first` answers the client's first message, `final` its proof, which gives its `client_key`.
    What is wrong with a message is told as PostgreSQL tells it; BadExchange is a proof that does not fit.

    `binding` is what it can be bound to, and so whether that was offered.
    """

    __slots__ = ("_binding", "_bound", "_first_bare", "_nonce", "_server_first", "_verifier", "client_key")

    def __init__(self, verifier: Verifier, binding: bytes = b"") -> None:
        self._verifier = verifier
        self._binding = binding
        self._bound = b""  # what the proof must say of that
        self._first_bare = b""
        self._server_first = b""
        self._nonce = b""
        self.client_key = b""

    def first(self, message: bytes, plus: bool = False) -> bytes:
        _check(message)
        at = self._flag(message, plus)
        if at >= len(message) or message[at] != _COMMA:
            raise _malformed("Comma expected.")
        at += 1
        if at < len(message) and message[at] == _AUTHORIZATION:
            raise FeatureNotSupported("client uses authorization identity, but it is not supported")
        if at >= len(message) or message[at] != _COMMA:
            raise _malformed("Comma expected.")
        at += 1
        bare = at
        if at < len(message) and message[at] == _EXTENSION:
            raise FeatureNotSupported("client requires an unsupported SCRAM extension")
        at = _value(message, at, _NAME) + 1  # PostgreSQL's clients leave it empty: the startup packet has it
        end = _value(message, at, _NONCE)
        if end == at + 2:
            raise _malformed("The nonce is empty.")
        if not octets.is_printable(message, at + 2, end):
            raise ProtocolViolation("non-printable characters in SCRAM nonce")
        said = piece(message, at + 2, end)
        while end + 1 < len(message):
            end = _any_value(message, end + 1)
        self._first_bare = piece(message, bare, len(message))
        own = _nonce()
        self._server_first = b"".join((b"r=", said, own, self._verifier.asks))
        self._nonce = piece(self._server_first, 2, 2 + len(said) + len(own))
        return self._server_first

    def _flag(self, message: bytes, plus: bool) -> int:
        """Takes up what the client says of channel binding; where that ends."""
        flag = message[0]
        if flag == _PROOF and plus:
            end = octets.comma(message, 0)
            if piece(message, 0, end) != _END_POINT:
                raise ProtocolViolation("unsupported SCRAM channel-binding type")
            self._bound = octets.encoded(_END_POINT + b",," + self._binding)
            return end
        if plus or flag == _PROOF:
            raise _malformed("The channel binding does not fit the mechanism.")
        if flag == _YES:
            if self._binding:  # somebody in the middle may have taken the offer away
                raise NotAuthorized(
                    "SCRAM channel binding negotiation error",
                    detail="The client supports SCRAM channel binding but thinks the server does not."
                    "  However, this server does support channel binding.",
                )
            self._bound = _UNOFFERED
        elif flag == _NOT:
            self._bound = _UNBOUND
        else:
            raise _malformed("Unexpected channel-binding flag.")
        return 1

    def final(self, message: bytes) -> bytes:
        """The server's final message; BadExchange if the proof is wrong."""
        _check(message)
        end = _value(message, 0, _BOUND)
        if piece(message, 2, end) != self._bound:
            if self._bound != _UNBOUND and self._bound != _UNOFFERED:
                raise NotAuthorized("SCRAM channel binding check failed")
            raise ProtocolViolation("unexpected SCRAM channel-binding attribute in client-final-message")
        at = end + 1
        end = _value(message, at, _NONCE)
        nonce = piece(message, at + 2, end)
        while True:
            at = end + 1
            stop = _any_value(message, at)
            if message[at] == _PROOF:
                break
            end = stop
        if stop != len(message):
            raise _malformed("Garbage found at the end of client-final-message.")
        proof = octets.decoded(message, at + 2, stop)
        if proof is None or len(proof) != _KEY_LENGTH:
            raise _malformed("Malformed proof in client-final-message.")
        if not compare_digest(nonce, self._nonce):
            raise ProtocolViolation("invalid SCRAM response", detail="Nonce does not match.")
        return self._prove(octets.listed(self._first_bare, self._server_first, piece(message, 0, end)), proof)

    def _prove(self, said: bytes, proof: bytes) -> bytes:
        verifier = self._verifier
        client_key = octets.xor(proof, verifier.client_signature.of(said))
        if not compare_digest(digest(client_key), verifier.stored_key):
            raise BadExchange("wrong proof")
        self.client_key = client_key
        return b"v=" + octets.encoded(verifier.server_signature.of(said))


class ClientExchange:
    """The client's side, towards servers: with a password, or with the keys of one whose verifier the server has. With
    `plus` the proof is bound to the TLS connection that `binding` stands for; without it, a `binding` says that it could
    have been."""

    def __init__(
        self,
        password: str,
        keys: tuple[Verifier, bytes] | None = None,
        binding: bytes = b"",
        *,
        plus: bool = False,
    ) -> None:
        self._password = password
        self._keys = keys
        self._gs2 = b"p=tls-server-end-point,," if plus else b"y,," if binding else b"n,,"
        self._bound = base64.b64encode(self._gs2 + (binding if plus else b"")).decode()
        self._nonce = _nonce().decode()
        self._bare = f"n=,r={self._nonce}"
        self._server_signature = b""

    def first(self) -> bytes:
        return self._gs2 + self._bare.encode()

    def is_slow(self, server_first: bytes) -> bool:
        return self._keys is None and not is_known(self._password, *self.parameters(server_first))

    def parameters(self, server_first: bytes) -> tuple[bytes, int]:
        """Salt and iterations that the server asks for."""
        said = _attributes(server_first)
        try:
            salt, iterations = base64.b64decode(said["s"], validate=True), int(said["i"])
        except (KeyError, ValueError):
            raise BadExchange("malformed SCRAM message") from None
        if not said.get("r", "").startswith(self._nonce) or not 1 <= iterations <= _MAX_ITERATIONS:
            raise BadExchange("malformed SCRAM message")
        return salt, iterations

    def final(self, server_first: bytes) -> bytes:
        """The proof. Raises OtherVerifier where the keys are of no use."""
        if self._server_signature:
            raise BadExchange("the proof was asked for twice")
        salt, iterations = self.parameters(server_first)
        client_key, server_key = self._derived(salt, iterations)
        without_proof = f"c={self._bound},r={_attributes(server_first)['r']}"
        auth_message = ",".join((self._bare, server_first.decode("ascii"), without_proof)).encode()
        signature = _hmac(hashlib.sha256(client_key).digest(), auth_message)
        proof = octets.xor(client_key, signature)
        self._server_signature = _hmac(server_key, auth_message)
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def _derived(self, salt: bytes, iterations: int) -> tuple[bytes, bytes]:
        if self._keys is not None:
            verifier, known = self._keys
            if (verifier.salt, verifier.iterations) != (salt, iterations):
                raise OtherVerifier("salt or iterations are others")
            return known, verifier.server_key
        salted = salted_password(self._password, salt, iterations)
        return _hmac(salted, b"Client Key"), _hmac(salted, b"Server Key")

    def verify(self, server_final: bytes) -> None:
        said = _attributes(server_final).get("v", "")
        if not self._server_signature:
            raise BadExchange("the server's signature came before the proof")
        if not compare_digest(said.encode(), base64.b64encode(self._server_signature)):
            raise BadExchange("the server's signature is wrong")
