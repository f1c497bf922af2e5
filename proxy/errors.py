"""Everything that can go wrong, as one tree.

Each error answers four questions as class attributes: whose fault it is (`fault`), which SQLSTATE
says so (`sqlstate`), what the client may read (the message given at construction is public; details
for operators go to `internal`), and at what level it is logged (`level`).
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar, Literal

Level = Literal["debug", "info", "warning", "error"]


class Fault(Enum):
    CLIENT = "client"
    SERVER = "server"
    LIMIT = "limit"
    OPERATOR = "operator"
    BUG = "bug"


class TiergateError(Exception):
    """Base of the tree. `message` is public; `hint` and `detail` too; `internal` never leaves the log."""

    fault: ClassVar[Fault] = Fault.BUG
    sqlstate: str = "XX000"
    level: ClassVar[Level] = "error"
    position = 0  # in the text, from 1; 0 for none

    def __init__(
        self, message: str = "internal error", *, hint: str = "", detail: str = "", internal: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail
        self.internal = internal


class ConfigError(TiergateError):
    """The configuration cannot be used; the message names file, key and what is right, a problem a line."""

    fault = Fault.OPERATOR
    sqlstate = "F0000"

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(self.message.split("\n"))


# --- the client's fault -------------------------------------------------------------------------


class ClientError(TiergateError):
    fault = Fault.CLIENT
    level = "info"


class ProtocolViolation(ClientError):
    """Bytes that are not the protocol."""

    sqlstate = "08P01"


class UnsupportedProtocol(ProtocolViolation):
    """A protocol whose major version is not 3."""

    sqlstate = "0A000"


class FeatureNotSupported(ClientError):
    sqlstate = "0A000"


class StatementRefused(FeatureNotSupported):
    """A rule of the tenant or its tier does not allow the statement."""


class UnknownDatabase(ClientError):
    """An unknown tenant or database."""

    sqlstate = "3D000"


class UnknownTenant(UnknownDatabase):
    pass


class InvalidPassword(ClientError):
    sqlstate = "28P01"


class NotAuthorized(ClientError):
    """Known, but not allowed: the wrong tenant, no TLS where TLS is required, a banned one."""

    sqlstate = "28000"


class TenantChangeRefused(ClientError):
    sqlstate = "42501"


class ParameterLocked(ClientError):
    sqlstate = "42501"


class TenantChangeInTransaction(ClientError):
    sqlstate = "25001"


class FailedTransaction(ClientError):
    sqlstate = "25P02"


class UnknownSavepoint(ClientError):
    sqlstate = "3B001"


class BadSyntax(ClientError):
    sqlstate = "42601"

    def __init__(self, message: str, *, position: int = 0) -> None:
        super().__init__(message)
        self.position = position


class UnknownStatement(ClientError):
    sqlstate = "26000"


class UnknownPortal(ClientError):
    sqlstate = "34000"


class DuplicatePortal(ClientError):
    sqlstate = "42P03"


class SpentPortal(ClientError):
    """One that has been run to its end, and cannot be run again."""

    sqlstate = "55000"


class SequenceUndefined(ClientError):
    """What a sequence has given to this session is not known."""

    sqlstate = "55000"


class DuplicateStatement(ClientError):
    sqlstate = "42P05"


class InvalidParameter(ClientError):
    sqlstate = "22023"


class NoSuchName(InvalidParameter):
    """A tenant, cluster, user or client that is not there."""


class LoginTimeout(ClientError):
    sqlstate = "08006"


class IdleInTransactionTimeout(ClientError):
    sqlstate = "25P03"


class TransactionTimeout(ClientError):
    sqlstate = "25P04"


class ClientIdleTimeout(ClientError):
    sqlstate = "57P05"


class QueryCanceled(ClientError):
    sqlstate = "57014"


# --- limits -------------------------------------------------------------------------------------


class LimitReached(TiergateError):
    fault = Fault.LIMIT
    level = "info"


class CapReached(LimitReached):
    """A cap on connections, a full queue, or a wait that took too long."""

    sqlstate = "53300"


class RateExceeded(LimitReached):
    """Rate or quota."""

    sqlstate = "53400"


# --- the servers' fault -------------------------------------------------------------------------


class ServerError(TiergateError):
    fault = Fault.SERVER
    level = "warning"


class NoHealthyEndpoint(ServerError):
    sqlstate = "57P03"


class RegistryUnavailable(ServerError):
    """The registry's database does not answer, or lacks what it is asked for."""

    sqlstate = "57P03"


class ServerLost(ServerError):
    """The server went away under a session, or could not be reached."""

    sqlstate = "08006"


class ServerProtocolError(ServerError):
    """The server said something that PostgreSQL does not say."""

    sqlstate = "08P01"


class ServerRefused(ServerError):
    """The server's own ErrorResponse: `frame` is passed to the client as it was sent."""

    def __init__(self, message: str, sqlstate: str, frame: bytes) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.frame = frame


# --- the operator's wish ------------------------------------------------------------------------


class ShuttingDown(TiergateError):
    fault = Fault.OPERATOR
    sqlstate = "57P01"
    level = "info"
