"""The other side: answers the authentication requests of servers with a user's password."""

from __future__ import annotations

from proxy.auth import scram
from proxy.auth.md5 import salted
from proxy.auth.plain import md5_hash
from proxy.errors import ServerProtocolError
from proxy.wire import encode

OK, CLEARTEXT, MD5, SASL, SASL_CONTINUE, SASL_FINAL = 0, 3, 5, 10, 11, 12


class NoPassword(ServerProtocolError):
    """The server asks for a password and none that fits is configured."""


class ToServer:
    """`respond` for each authentication request; `slow` says whether that call may take milliseconds."""

    def __init__(self, user: str, password: str) -> None:
        self._user = user
        self._password = password
        self._scram: scram.ClientExchange | None = None

    def slow(self, code: int, data: bytes) -> bool:
        if code != SASL_CONTINUE or self._scram is None:
            return False
        try:
            return not scram.is_known(self._password, *self._scram.parameters(data))
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
            if not stored or stored.startswith(b"SCRAM-SHA-256$"):
                self._usable()
            hashed = (
                stored if stored.startswith(b"md5") and len(stored) == 35 else md5_hash(stored, self._user)
            )
            return encode.password(salted(hashed, data[:4]))
        try:
            return self._sasl(code, data)
        except scram.BadExchange as error:
            raise ServerProtocolError(internal=f"SCRAM with the server: {error}") from None

    def _sasl(self, code: int, data: bytes) -> bytes:
        if code == SASL:
            if scram.MECHANISM.encode() not in data.split(b"\0"):
                raise ServerProtocolError(internal="the server offers no SASL mechanism that is known here")
            self._scram = scram.ClientExchange(self._usable())
            return encode.sasl_initial(scram.MECHANISM.encode(), self._scram.first())
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
        if (
            not password
            or password.startswith("SCRAM-SHA-256$")
            or (password.startswith("md5") and len(password) == 35)
        ):
            raise NoPassword(
                f'no password for the server is configured for user "{self._user}"',
                hint="Give the user a plain password or a server_password.",
            )
        return password
