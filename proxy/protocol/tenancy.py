"""Which tenant a session speaks for, as PostgreSQL scopes a parameter, and transaction blocks that no server knows yet.

A name that is SET holds from then on and lasts if the transaction commits; one that is SET LOCAL holds until it
ends; both go back with a savepoint. A BEGIN is held back, with what belongs to it, since only what follows says
which server the transaction is for. So long the block is ours, and we answer for it in PostgreSQL's words; when its
first real statement comes, `begins` are what the server must be told before. From then on the server says what
becomes of the block, and which tenant it is for is settled until its end.

A session that has chosen none speaks for NOBODY.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from proxy.errors import FailedTransaction, UnknownSavepoint
from proxy.model import Tenant
from proxy.sql.steps import Step, Verb
from proxy.wire import encode


def nobody(cluster: str) -> Tenant:
    """Whom a session speaks for that has chosen no tenant; `cluster` answers what concerns the session only."""
    return Tenant("", "", cluster)


class Block(Enum):
    NONE = "none"
    HELD = "held"  # begun for the client, of which no server knows
    FAILED = "failed"  # the same after an error
    SERVED = "served"  # the server has it


# An enumeration is asked for its members by name, which costs more than all else that is asked of them here.
_NONE, _HELD, _FAILED, _SERVED = Block.NONE, Block.HELD, Block.FAILED, Block.SERVED
_SET_TRANSACTION, _SAVEPOINT, _RELEASE = Verb.SET_TRANSACTION, Verb.SAVEPOINT, Verb.RELEASE
_ROLLBACK_TO, _COMMIT, _ROLLBACK = Verb.ROLLBACK_TO, Verb.COMMIT, Verb.ROLLBACK

IN_FAILED_TRANSACTION = "current transaction is aborted, commands ignored until end of transaction block"


class _Savepoint:
    __slots__ = ("lasting", "name", "text", "value")

    def __init__(self, name: str, text: bytes, value: Tenant, lasting: Tenant) -> None:
        self.name, self.text, self.value, self.lasting = name, text, value, lasting


class Tenancy:
    """`home` is what the login said, `own` the session's, `value` whom it speaks for now, `lasting` what becomes
    its own if the transaction commits. `open`: a transaction is open in which that may differ."""

    __slots__ = (
        "_begins", "_savepoints", "before", "block", "committed", "home", "lasting", "open", "own", "value",
    )  # fmt: skip

    def __init__(self, home: Tenant) -> None:
        self.home = self.own = self.value = self.lasting = home
        self.open = False
        self.block = _NONE
        self.committed: bool | None = None  # how the server's block ended, as far as it has been heard
        # Savepoints that another name stood at than the server was told.
        self.before: frozenset[str] = frozenset()
        self._begins: list[bytes] = []
        self._savepoints: list[_Savepoint] = []

    @property
    def status(self) -> bytes:
        """Of the transaction, where no server has it."""
        return b"T" if self.block is _HELD else b"E" if self.block is _FAILED else b"I"

    @property
    def holds(self) -> bool:
        """A block is open of which no server knows."""
        return self.block is _HELD or self.block is _FAILED

    @property
    def returns(self) -> bool:
        """With the transaction's end the session may come to speak for another tenant than now."""
        return self.open and (self.value is not self.own or self.value is not self.lasting)

    @property
    def begins(self) -> list[bytes]:
        """What a server must be told, one after the other, before the first statement of a block that was held back."""
        if self.block is not _HELD:
            return []
        return [*self._begins, *(savepoint.text for savepoint in self._savepoints)]

    @property
    def first(self) -> int:
        """So many of them stand ahead of any savepoint."""
        return len(self._begins)

    @property
    def depth(self) -> int:
        """In so many savepoints the block is."""
        return len(self._savepoints)

    @property
    def elsewhere(self) -> frozenset[str]:
        """Savepoints at which another name stood than now."""
        return frozenset(
            savepoint.name
            for savepoint in self._savepoints
            if savepoint.value is not self.value or savepoint.lasting is not self.lasting
        )

    @property
    def names(self) -> list[str]:
        """All that it may come to speak for."""
        tenants = [self.home, self.own, self.value, self.lasting]
        for savepoint in self._savepoints:
            tenants += (savepoint.value, savepoint.lasting)
        return [tenant.name for tenant in tenants]

    # --- names --------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A transaction is open from here on, if none is."""
        if not self.open:
            self.open = True
            self.committed = None
            self.value = self.lasting = self.own

    def name(self, tenant: Tenant, *, local: bool) -> None:
        """Within an open transaction."""
        self.value = tenant
        if not local:
            self.lasting = tenant

    def renew(self, known: Callable[[str], Tenant | None]) -> None:
        """Takes up what the registry says of them now; one that is gone stays as it was."""
        self.home, self.own, self.value, self.lasting = (
            known(tenant.name) or tenant for tenant in (self.home, self.own, self.value, self.lasting)
        )
        for savepoint in self._savepoints:
            savepoint.value = known(savepoint.value.name) or savepoint.value
            savepoint.lasting = known(savepoint.lasting.name) or savepoint.lasting

    def go_home(self) -> None:
        """A RESET ALL, which has no effect before the transaction's end."""
        self.begin()
        self.lasting = self.home

    def end(self, committed: bool) -> None:
        if self.open:
            if committed:
                self.own = self.lasting
            self.open = False
            self.block = _NONE
            self.value = self.lasting = self.own
            self._begins.clear()
            self._savepoints.clear()
            self.before = frozenset()

    def go_home_now(self) -> None:
        """A DISCARD ALL, which no transaction has."""
        self.end(False)
        self.own = self.value = self.lasting = self.home

    # --- blocks that are held back --------------------------------------------------------------------

    def fail(self) -> None:
        """A statement has failed of which no server knows."""
        if self.block is _NONE:
            self.end(False)
        else:
            self.block = _FAILED

    def served(self) -> None:
        """The server has been told of the block."""
        if self.block is _HELD:
            self.block = _SERVED
            self.before = self.elsewhere

    def can(self, step: Step) -> bool:
        """False where only a server can do it."""
        return not (
            (
                step.verb is _SET_TRANSACTION
                and (bool(self._savepoints) or (self.open and self.block is _NONE))
            )
            or (step.options and bool(self._savepoints))
            or (self.block is _NONE and step.verb in (_SAVEPOINT, _RELEASE, _ROLLBACK_TO))
        )

    def check(self, step: Step) -> None:
        """Raises what PostgreSQL says to any statement in a failed transaction but those that end its failure."""
        if self.block is _FAILED and step.verb not in (_COMMIT, _ROLLBACK, _ROLLBACK_TO):
            raise FailedTransaction(IN_FAILED_TRANSACTION)

    def control(self, step: Step) -> bytes:
        """Performs a step that names no tenant; what the client reads, but for the ReadyForQuery."""
        self.check(step)
        return _CONTROLS[step.verb](self, step)

    def _begin(self, step: Step) -> bytes:
        if self.block is _HELD:
            if step.options:
                self._begins.append(step.text)
            warning = encode.notice(
                "there is already a transaction in progress", sqlstate="25001", severity="WARNING"
            )
            return warning + encode.command_complete(step.tag)
        self.begin()
        self.block = _HELD
        self._begins.append(step.text)
        return encode.command_complete(step.tag)

    def _set_transaction(self, step: Step) -> bytes:
        if self.block is _NONE:
            return _outside(
                "SET TRANSACTION can only be used in transaction blocks"
            ) + encode.command_complete("SET")
        self._begins.append(step.text)
        return encode.command_complete("SET")

    def _end(self, step: Step) -> bytes:
        if self.block is _NONE:
            self.end(step.verb is _COMMIT)  # what the statements before it in the text or batch have begun
            return _outside("there is no transaction in progress") + encode.command_complete(step.tag)
        committed = step.verb is _COMMIT and self.block is _HELD
        # PostgreSQL forgets with a block's failure how that began, but not with a savepoint's.
        begins = [*self._begins] if self._savepoints else [b"BEGIN"]
        self.end(committed)
        if step.chain:
            self.begin()
            self.block, self._begins = _HELD, begins
        return encode.command_complete("COMMIT" if committed else "ROLLBACK")

    def _savepoint(self, step: Step) -> bytes:
        self._savepoints.append(_Savepoint(step.name, step.text, self.value, self.lasting))
        return encode.command_complete(step.tag)

    def _found(self, step: Step) -> int:
        for at in range(len(self._savepoints) - 1, -1, -1):
            if self._savepoints[at].name == step.name:
                return at
        raise UnknownSavepoint(f'savepoint "{step.name}" does not exist')

    def _release(self, step: Step) -> bytes:
        del self._savepoints[self._found(step) :]
        return encode.command_complete(step.tag)

    def _rollback_to(self, step: Step) -> bytes:
        at = self._found(step)
        del self._savepoints[at + 1 :]
        self.value, self.lasting = self._savepoints[at].value, self._savepoints[at].lasting
        self.block = _HELD
        return encode.command_complete(step.tag)


_CONTROLS = {
    Verb.BEGIN: Tenancy._begin,
    Verb.SET_TRANSACTION: Tenancy._set_transaction,
    Verb.SAVEPOINT: Tenancy._savepoint,
    Verb.RELEASE: Tenancy._release,
    Verb.ROLLBACK_TO: Tenancy._rollback_to,
    Verb.COMMIT: Tenancy._end,
    Verb.ROLLBACK: Tenancy._end,
}


def _outside(message: str) -> bytes:
    """PostgreSQL's warning about a statement that means something in a transaction block only."""
    return encode.notice(message, sqlstate="25P01", severity="WARNING")


def set_local_outside() -> bytes:
    return _outside("SET LOCAL can only be used in transaction blocks")
