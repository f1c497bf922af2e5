"""The other side: answers the authentication requests of servers with a user's password, or with the key of a client that
has proved itself by SCRAM: where the server has the same verifier, that key is as good as the password."""

from __future__ import annotations

from proxy.auth import scram
from proxy.auth.md5 import salted
from proxy.auth.plain import md5_hash
from proxy.errors import ServerProtocolError
from proxy.wire import encode

OK, CLEARTEXT, MD5, SASL, SASL_CONTINUE, SASL_FINAL = 0, 3, 5, 10, 11, 12


_VERIFIER = scram.MECHANISM + "$"
_PLUS = scram.MECHANISM + "-PLUS"


class NoPassword(ServerProtocolError):
    """The server asks for a password and none that fits is known. Nothing is wrong with the server."""

    sqlstate = "28P01"


def is_verifier(secret: str) -> bool:
    return secret.startswith(_VERIFIER)


def opens(client_key: bytes, secret: str) -> bool:
    """The key is that of the password that `secret` is the verifier of."""
    try:
        return is_verifier(secret) and scram.fits(client_key, scram.read_verifier(secret))
    except ValueError:
        return False


class ToServer:
    """`respond` for each authentication request; `slow` says whether that call may take milliseconds. `password` may be a
    SCRAM verifier, of which `client_key` is the key; `binding` is what the server's TLS certificate binds to."""

    def __init__(self, user: str, password: str, client_key: bytes = b"", binding: bytes = b"") -> None:
        self._user = user
        self._password = password
        self._client_key = client_key
        self._binding = binding
        self._scram: scram.ClientExchange | None = None

    def slow(self, code: int, data: bytes) -> bool:
        if code != SASL_CONTINUE or self._scram is None:
            return False
        try:
            return self._scram.is_slow(data)
        except scram.BadExchange:
            return False

    def respond(self, code: int, data: bytes) -> bytes:
        """What to send, b"" for nothing. Raises ServerProtocolError."""
        if code == OK:
            if self._scram is not None:
                raise ServerProtocolError(internal="the server ended SCRAM before it proved itself")
            return b""
        if code == CLEARTEXT:
            return encode.password(self._usable().encode())
        if code == MD5:
            if len(data) != 4:
                raise ServerProtocolError(internal="an md5 salt that is not of four bytes")
            stored = self._password.encode()
            if not stored or is_verifier(self._password):
                self._usable()
            hashed = (
                stored if stored.startswith(b"md5") and len(stored) == 35 else md5_hash(stored, self._user)
            )
            return encode.password(salted(hashed, data[:4]))
        try:
            return self._sasl(code, data)
        except scram.OtherVerifier:
            raise other_verifier(self._user) from None
        except scram.BadExchange as error:
            raise ServerProtocolError(internal=f"SCRAM with the server: {error}") from None

    def _sasl(self, code: int, data: bytes) -> bytes:
        if code == SASL:
            offered = data.split(b"\0")
            plus = bool(self._binding) and _PLUS.encode() in offered
            mechanism = (_PLUS if plus else scram.MECHANISM).encode()
            if mechanism not in offered:
                raise ServerProtocolError(internal="the server offers no SASL mechanism that is known here")
            keys = None
            if self._client_key and opens(self._client_key, self._password):
                keys = (scram.read_verifier(self._password), self._client_key)
            password = self._usable() if keys is None else ""
            self._scram = scram.ClientExchange(password, keys, self._binding, plus=plus)
            return encode.sasl_initial(mechanism, self._scram.first())
        if self._scram is None or code not in (SASL_CONTINUE, SASL_FINAL):
            raise ServerProtocolError(internal=f"unsupported authentication request {code}")
        if code == SASL_CONTINUE:
            return encode.sasl_response(self._scram.final(data))
        self._scram.verify(data)
        self._scram = None
        return b""

    def _usable(self) -> str:
        """The plain password; a stored hash cannot log in anywhere."""
        password = self._password
        if not password or is_verifier(password) or (password.startswith("md5") and len(password) == 35):
            if is_verifier(password) and not self._client_key:
                raise NoPassword(
                    f'no password for the server is configured for user "{self._user}", and no client has given its key',
                    hint="Connect again, by SCRAM; or give the user a server_password, or the cluster a user.",
                )
            raise NoPassword(
                f'no password for the server is configured for user "{self._user}"',
                hint="Give the user a plain password or a server_password.",
            )
        return password


def other_verifier(user: str) -> NoPassword:
    return NoPassword(
        f'the server has another verifier of the password of user "{user}" than the proxy',
        hint="Give both the same SCRAM-SHA-256 verifier, salt included; or give the cluster a user, or the user a"
        " server_password.",
    )
