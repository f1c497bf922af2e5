"""What a session that may choose its tenant may ask of a server, which has its transaction for one tenant only.

Texts are looked at where the tenant may change with the transaction's end, or where none has been chosen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.client.portals import bound
from proxy.errors import FailedTransaction, TenantChangeInTransaction, TenantChangeRefused, TiergateError
from proxy.model import Tenant
from proxy.protocol.statements import Statement
from proxy.protocol.tenancy import IN_FAILED_TRANSACTION, Block, Tenancy
from proxy.server.connection import FAILED
from proxy.sql.aborted import way_out
from proxy.sql.opening import (
    Opening,
    concerns_session_only,
    ends_block,
    ends_block_early,
    goes_back_to,
    resets_early,
)
from proxy.sql.steps import Step, Verb
from proxy.sql.verdict import PLAIN
from proxy.wire.decode import bind_names

if TYPE_CHECKING:
    from proxy.client.linking import Linking
    from proxy.server.connection import ServerConnection

_BLOCK_FAILED = Block.FAILED
# Of the value's parameter, where it is said: other types may take a text for another.
_TEXT_OIDS = frozenset(oid.to_bytes(4, "big") for oid in (0, 25, 1043)) | {b""}


class Settled:
    """`tenancy` says for whom the session speaks."""

    __slots__ = (
        "_reset", "_served", "_session", "batch", "begun", "calm", "ends", "over", "prompt", "tenancy", "working",
    )  # fmt: skip

    def __init__(self, session: Linking, home: Tenant) -> None:
        self._session = session
        self.tenancy = Tenancy(home)
        self.working = False  # what a server has of the transaction is more than statements prepared
        self.ends: set[bytes] = set()  # portals on the server that end the transaction
        self.over = False  # one of them has been executed in this batch
        # The session has its tenant, in no transaction of ours, and nothing but an opening changes that.
        self.calm = False
        self.batch = False  # part of the batch at hand has been answered here
        # The frame with a BEGIN that a server gets at once next time too, and that of a block that has been begun so and
        # has done no work yet.
        self.prompt = b""
        self.begun: Step | None = None
        self._served = False  # a server has what was asked since the last transaction
        self._reset = False  # a RESET ALL has gone to the server, to whom the tenant is still another

    def none_chosen(self) -> TiergateError:
        guc = self._session.plane.options.tenant_guc
        return TenantChangeRefused(
            "no tenant has been chosen", hint=f"Choose one: SET {guc} = 'NAME', or name it when connecting."
        )

    def refusal(self, text: bytes) -> TiergateError | None:
        """Of any text, where texts are looked at."""
        if self.over and self._session.unsynced:
            return TenantChangeInTransaction(
                "the transaction of another tenant has ended within this batch", hint="Send a Sync behind it."
            )
        if not self._session.tenant.name and not concerns_session_only(text):
            return self.none_chosen()
        if self.tenancy.before:
            back = goes_back_to(text)
            if back is None or not self.tenancy.before.isdisjoint(back):
                return TenantChangeInTransaction(
                    "the tenant of this transaction was chosen behind that savepoint",
                    hint="Choose it before the first savepoint, or roll back the transaction.",
                )
        if self.tenancy.returns and ends_block_early(text):
            return TenantChangeInTransaction(
                "the session's tenant changes with the end of this transaction, which must be the last statement",
                hint="Send what follows by itself.",
            )
        if self._reset and not ends_block(text):
            return TenantChangeInTransaction(
                "the tenant cannot be changed within a transaction, as RESET ALL would",
                hint="End the transaction first.",
            )
        return None

    def opening(self, text: bytes) -> Opening | None:
        found: Opening | None = self._session.plane.openings.of(text)
        return way_out(text) if found is None and self.tenancy.block is _BLOCK_FAILED else found

    def step(self, text: bytes) -> Step | None:
        """What the text is, if that is one step and no more."""
        opening = self.opening(text)
        return opening.sole if opening is not None else None

    def naming(self, text: bytes) -> TiergateError | None:
        """Of a text that touches the tenant's parameter."""
        step = self.step(text)
        later = step is not None and (step.value_from or step.local_from)  # what it is bound to will show
        if (
            step is None
            or step.verb is not Verb.NAME
            or step.cast
            or (later and not self._session.maps_statements)
        ):
            guc = self._session.plane.options.tenant_guc
            return TenantChangeRefused(
                f'parameter "{guc}" cannot be changed in this way: it names the tenant of this session',
                hint=f"SET {guc}, or SELECT set_config('{guc}', ...), by itself.",
            )
        if later:
            return None
        return self._naming(step.value, step.local)

    def _naming(self, value: str | None, local: bool) -> TiergateError | None:
        tenancy = self.tenancy
        now = self._session.tenant
        # Which others are the same depends on the client encoding.
        same = value == now.name and now.name.isascii()
        if same and (local or tenancy.lasting is now):
            return None
        server = self._session.server
        if server is not None and server.status == FAILED and not server.pipeline.owes():
            return FailedTransaction(IN_FAILED_TRANSACTION)
        return TenantChangeInTransaction(
            "the tenant cannot be changed within a transaction",
            hint="Choose it before the transaction's first statement.",
        )

    def binding(self, statement: Statement, name: bytes, frame: bytes, whole: bool) -> TiergateError | None:
        """Of a Bind of a statement."""
        session = self._session
        portal, _, at = bind_names(frame[5:])
        self.working = True
        self.ends.discard(portal)
        if session.strict:
            refused = self.refusal(statement.text)
            if refused is not None:
                return refused
            if self.tenancy.returns and ends_block(statement.text):
                self.ends.add(portal)
        if statement.verdict is PLAIN or not statement.verdict.touches_tenant(
            session.plane.options.tenant_guc
        ):
            return None
        step = self.step(statement.text)
        if step is None or step.cast or not whole:
            return self.naming(b"")
        if step.value_from and statement.oids[4 * step.value_from - 2 :][:4] not in _TEXT_OIDS:
            return self.naming(b"")
        try:
            found = bound(step, name, frame[5:], at)
        except TiergateError as error:
            return error
        return self._naming(found.value, found.local)

    def executing(self, portal: bytes) -> None:
        self.over = self.over or portal in self.ends

    def ended(self, server: ServerConnection) -> None:
        """The server is in no transaction, and nothing is owed."""
        self.begun = None
        if self._served:
            self._end(server)

    def _end(self, server: ServerConnection) -> None:
        raise NotImplementedError

    def resetting(self, text: bytes) -> TiergateError | None:
        """Of a text with a RESET ALL, behind which the session speaks for another tenant."""
        home = self.tenancy.home
        if self._session.tenant is home or not resets_early(text):
            return None
        if not home.name:
            return self.none_chosen()
        return TenantChangeInTransaction(
            "the tenant cannot be changed within a transaction, as RESET ALL would",
            hint="Send what follows RESET ALL by itself.",
        )
