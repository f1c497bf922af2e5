"""SCRAM-SHA-256 (RFC 5802, RFC 7677): keys and verifiers, the client's side and the server's side.

The exchanges are our own: scramp derives keys in Python, a hundred times slower than hashlib's PBKDF2, and inside
the interpreter lock; of scramp only its SASLprep is used. A salted password is kept for those who log in
again. Deriving one is the only slow step: `is_known` says whether it is still to be done.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import lru_cache
from os import urandom

from scramp import ScramException
from scramp.utils import saslprep

MECHANISM = "SCRAM-SHA-256"
ITERATIONS = 4096
_MAX_ITERATIONS = 1_000_000
_REMEMBERED = 10_000
_KEY_LENGTH = 32
_NONCE_SIZE = 18
_BLOCK = 64  # bytes that SHA-256 takes at once
_INNER, _OUTER = bytes(x ^ 0x36 for x in range(256)), bytes(x ^ 0x5C for x in range(256))
_sha256 = hashlib.sha256
_nothing = _sha256()


def _digest(data: bytes) -> bytes:
    whole = _nothing.copy()
    whole.update(data)
    return whole.digest()


class Mac:
    """HMAC-SHA-256 (RFC 2104) with a key of at most 64 bytes: two hashes, which go on from copies of those of the key.
    OpenSSL's own looks up its algorithm each time, as a new hash does, and that takes longer than all the rest."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        padded = key.ljust(_BLOCK, b"\0")
        self._inner = _sha256(padded.translate(_INNER))
        self._outer = _sha256(padded.translate(_OUTER))

    def __call__(self, data: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(data)
        outer.update(inner.digest())
        return outer.digest()


@dataclass(frozen=True, slots=True)
class Verifier:
    """What a server stores of a password."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes
    client_signature: Mac = field(init=False, repr=False, compare=False)
    server_signature: Mac = field(init=False, repr=False, compare=False)
    asks: str = field(init=False, repr=False, compare=False)  # the end of a server's first message

    def __post_init__(self) -> None:
        object.__setattr__(self, "client_signature", Mac(self.stored_key))
        object.__setattr__(self, "server_signature", Mac(self.server_key))
        salt = base64.b64encode(self.salt).decode()
        object.__setattr__(self, "asks", f",s={salt},i={self.iterations}")


class BadExchange(ValueError):
    """A message that is not SCRAM, or a proof that does not fit."""


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
    fits = hmac.compare_digest(_verifier(salted, salt, iterations).stored_key, verifier.stored_key)
    if fits:
        _remember(password, salt, iterations, salted)
    return fits


def client_key(verifier: Verifier, password: str) -> bytes:
    """Of a password that matches."""
    return _hmac(salted_password(password, verifier.salt, verifier.iterations), b"Client Key")


def fits(client_key: bytes, verifier: Verifier) -> bool:
    return hmac.compare_digest(hashlib.sha256(client_key).digest(), verifier.stored_key)


def _hmac(key: bytes, data: bytes) -> bytes:
    return Mac(key)(data)


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


def _xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(len(one), "big")


def _nonce() -> str:
    return binascii.b2a_base64(urandom(_NONCE_SIZE), newline=False).decode()


class ServerExchange:
    """The server's side: `first` answers the client's first message, `final` its proof, which gives its `client_key`."""

    __slots__ = (
        "_binding", "_first_bare", "_gs2", "_nonce", "_offered_binding", "_server_first", "_verifier", "client_key",
    )  # fmt: skip

    def __init__(
        self, verifier: Verifier, *, channel_binding: bytes = b"", offered_binding: bool = False
    ) -> None:
        self._verifier = verifier
        self._binding = channel_binding
        self._offered_binding = offered_binding
        self._first_bare = b""
        self._server_first = b""
        self._nonce = ""
        self._gs2 = b""
        self.client_key = b""

    def first(self, message: bytes, *, plus: bool = False) -> bytes:
        parts = message.split(b",", 2)
        if len(parts) != 3:
            raise BadExchange("malformed SCRAM message")
        flag, authzid, bare = parts
        if authzid:
            raise BadExchange("an authorization identity is not supported")
        if plus != flag.startswith(b"p="):
            raise BadExchange("channel binding does not fit the mechanism")
        if flag == b"y" and self._offered_binding:
            raise BadExchange("the client believes that channel binding is not supported")
        if not plus and flag not in (b"n", b"y"):
            raise BadExchange("malformed SCRAM message")
        if plus and flag != b"p=tls-server-end-point":
            raise BadExchange("unsupported channel binding type")
        self._gs2 = message[: len(message) - len(bare)]
        self._first_bare = bare
        client_nonce = _attributes(bare).get("r", "")
        if not client_nonce:
            raise BadExchange("malformed SCRAM message")
        self._nonce = client_nonce + _nonce()
        self._server_first = f"r={self._nonce}{self._verifier.asks}".encode()
        return self._server_first

    def final(self, message: bytes) -> bytes:
        """The server's final message; BadExchange if the proof is wrong."""
        without_proof, marker, proof_text = message.rpartition(b",p=")
        if not marker:
            raise BadExchange("malformed SCRAM message")
        said = _attributes(without_proof)
        try:
            binding = binascii.a2b_base64(said.get("c", ""), strict_mode=True)
            proof = binascii.a2b_base64(proof_text, strict_mode=True)
        except ValueError:
            raise BadExchange("malformed SCRAM message") from None
        if binding != self._gs2 + (self._binding if self._gs2.startswith(b"p=") else b""):
            raise BadExchange("SCRAM channel binding check failed")
        if not hmac.compare_digest(said.get("r", "").encode(), self._nonce.encode()):
            raise BadExchange("wrong nonce")
        auth_message = b",".join((self._first_bare, self._server_first, without_proof))
        signature = self._verifier.client_signature(auth_message)
        if len(proof) != len(signature):
            raise BadExchange("malformed SCRAM message")
        client_key = _xor(proof, signature)
        if not hmac.compare_digest(_digest(client_key), self._verifier.stored_key):
            raise BadExchange("wrong proof")
        self.client_key = client_key
        signed = self._verifier.server_signature(auth_message)
        return b"v=" + binascii.b2a_base64(signed, newline=False)


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
        self._nonce = _nonce()
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
        proof = _xor(client_key, signature)
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
        if not hmac.compare_digest(said.encode(), base64.b64encode(self._server_signature)):
            raise BadExchange("the server's signature is wrong")
