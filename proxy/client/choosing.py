"""Sessions that say in SQL which tenant they speak for.

A login that named no tenant may choose one between transactions or at the beginning of one: SET, set_config() and
RESET of the tenant's parameter. What opens a transaction is performed and answered by the proxy (`answering.py`);
the first statement that needs a server takes the session to its tenant's pool, and tells the server of the block
ahead of it.

Within a transaction that a server has, the tenant is settled: naming another is 25001. Batches of such a session
are not sent before those ahead of them have been answered, since each may be for another tenant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.client.placing import become
from proxy.errors import (
    FeatureNotSupported,
    NotAuthorized,
    ProtocolViolation,
    QueryCanceled,
    TenantChangeInTransaction,
    TenantChangeRefused,
    TiergateError,
    UnknownTenant,
)
from proxy.model import PoolMode, Tenant
from proxy.protocol.pipeline import DROP, DROP_BIND, DROP_QUERY, EXECUTE, PARSE, Expect
from proxy.protocol.statements import Statement
from proxy.protocol.tenancy import Block, Tenancy, nobody
from proxy.sql import constants
from proxy.sql.opening import Step, Verb, concerns_session_only, ends_block, ends_block_early, goes_back_to
from proxy.sql.verdict import PLAIN
from proxy.wire import decode, encode
from proxy.wire.decode import bind_names

if TYPE_CHECKING:
    from proxy.client.linking import Linking
    from proxy.server.connection import ServerConnection


_CRUCIAL_PARSE = Expect(PARSE, DROP, crucial=True)
_CRUCIAL_EXECUTE = Expect(EXECUTE, DROP, crucial=True)
# Of the value's parameter, where it is said: other types may take a text for another. (Its number is 1.)
_TEXT_OIDS = frozenset(oid.to_bytes(4, "big") for oid in (0, 25, 1043)) | {b""}


class Portal:
    """A step that is bound; `spent` once it has been executed."""

    __slots__ = ("binary", "local", "spent", "step", "value")

    def __init__(self, step: Step, value: str | None, local: bool, binary: bool) -> None:
        self.step, self.value, self.local, self.binary = step, value, local, binary
        self.spent = False


class Choice:
    """`tenancy` says for whom the session speaks. `refusal` and its kin are asked about what a server is to get."""

    __slots__ = (
        "_cancelled",
        "_ends",
        "_error_before",
        "_over",
        "_portals",
        "_reset",
        "_served",
        "_session",
        "_stale",
        "batch",
        "calm",
        "tenancy",
        "working",
    )

    def __init__(self, session: Linking, home: Tenant) -> None:
        self._session = session
        self.tenancy = Tenancy(home)
        self.calm = False
        self.batch = False  # part of the batch at hand has been answered here
        self.working = False  # what a server has of the transaction is more than statements prepared
        self._portals: dict[bytes, Portal] = {}
        self._ends: set[bytes] = set()  # portals on the server that end the transaction
        self._over = False  # one of them has been executed
        self._reset = False  # a RESET ALL has gone to the server, to whom the tenant is still another
        self._error_before = b""
        self._stale = False  # the registry has changed
        self._served = False  # a server has what was asked since the last transaction
        self._cancelled = False  # what waited for the block that is being begun

    @property
    def answers(self) -> bool:
        """A Sync is answered here."""
        return self.batch or self.tenancy.block in (Block.HELD, Block.FAILED)

    # --- which tenant -------------------------------------------------------------------------------

    def _find(self, value: str | None) -> Tenant:
        """Raises what the client is to read."""
        session = self._session
        if value is None:
            return self.tenancy.home
        if not value:
            return nobody(session.plane.registry.lobby())
        user, registry = session.user, session.plane.registry
        tenant = registry.known(value)
        if tenant is None:
            if user.tenants is None or value in user.tenants:
                raise UnknownTenant(f'tenant "{value}" does not exist')
            raise TenantChangeRefused(f'user "{user.name}" may not act for tenant "{value}"')
        self._check(tenant)
        return tenant

    def _check(self, tenant: Tenant) -> None:
        session = self._session
        if not session.user.may_act_for(tenant):
            raise TenantChangeRefused(f'user "{session.user.name}" may not act for tenant "{tenant.name}"')
        if not tenant.active or session.plane.registry.is_disabled("tenant", tenant.name):
            raise TenantChangeRefused(f'tenant "{tenant.name}" is suspended')

    def can(self, step: Step) -> bool:
        """False where only a server can do it, or say that it is refused."""
        if step.verb is Verb.BEGIN and self._session.mode is PoolMode.STATEMENT:
            return False
        return self.tenancy.can(step)

    def follow(self) -> None:
        """The registry has changed. Raises what ends the session."""
        session = self._session
        plane = session.plane
        user = plane.registry.user(session.user.name)
        if user is None:
            raise NotAuthorized(f'user "{session.user.name}" may not log in any more')
        session.epoch = plane.registry.epoch
        session.user, session.user_account = user, plane.accounts.user(user)
        self._stale = True
        self.calm = False

    def turn(self) -> bool:
        """Takes the session to the tenant that its next statement is for. False: it has an error to answer."""
        session, tenancy = self._session, self.tenancy
        changes = self._stale or tenancy.value is not session.tenant
        if not changes and session.rules is None:
            return True
        try:
            if self._stale:
                tenancy.renew(session.plane.registry.known)
            if changes:
                if tenancy.value.name:
                    self._check(tenancy.value)
                become(session, tenancy.value, session.let_go)
                if tenancy.block is Block.HELD and session.mode is PoolMode.STATEMENT:
                    raise FeatureNotSupported("transaction blocks not allowed in statement pooling mode")
            self._check_block()
        except TiergateError as error:
            session.refuse(error)
            return False
        self._stale = False
        self.settle()
        return True

    def _check_block(self) -> None:
        """How the block was begun was not known to be this tenant's affair."""
        rules, texts = self._session.rules, b"\n;".join(self.tenancy.begins)
        refused = rules.block_refusal(texts) if rules is not None and texts else None
        if refused is not None:
            raise refused

    def serves(self, server: ServerConnection) -> bytes:
        """A transaction begins on that connection; returns what it must be sent of the block ahead of its first
        statement. If that fails the server skips what follows, for no Sync stands between."""
        self._error_before = server.last_error
        self._served = True
        begins = self.tenancy.begins
        self.working = bool(begins)
        out = b""
        for text in begins:
            statement = self._session.plane.pools.catalog.statement(text, b"\0\0", PLAIN)
            if not server.prepared.use(statement):
                out += server.make_room(statement) + encode.parse(statement.name, text)
                server.named_in = server.pipeline.asked
                server.expect(_CRUCIAL_PARSE)
            out += encode.bind(b"", statement.name, []) + encode.execute()
            server.expect(DROP_BIND)
            server.expect(_CRUCIAL_EXECUTE)
        self.tenancy.served()
        self._attend()
        return out

    def break_off(self, server: ServerConnection) -> None:
        """What waits for its block to begin has been cancelled."""
        self._cancelled = True
        server.expect(DROP_QUERY)
        server.send(encode.query(b"ROLLBACK"))

    def broken_off(self, server: ServerConnection) -> bool:
        """Whether that is what has just been done."""
        if not self._cancelled:
            return False
        session = self._session
        self._cancelled = session.opening = session.holding = False
        session.loosen(server)
        session.refuse(QueryCanceled("canceling statement due to user request"))
        session.resume()
        return True

    def _attend(self) -> None:
        """Texts are looked at, and the ends of transactions heard, where it matters."""
        session = self._session
        session.look_at_texts(not session.tenant.name or self.tenancy.open)
        self.settle()

    def settle(self) -> None:
        """`calm`: the session has its tenant, in no transaction of ours, and nothing but an opening changes that."""
        tenancy = self.tenancy
        self.calm = (
            not (tenancy.open or self._stale or self.batch)
            and tenancy.value is self._session.tenant
            and tenancy.value.name != ""
        )

    # --- what becomes of a transaction ---------------------------------------------------------------

    def block_ended(self, committed: bool) -> None:
        self.tenancy.committed = committed

    def ended(self, server: ServerConnection) -> None:
        """The server is in no transaction, and nothing is owed."""
        if not self._served:
            return
        tenancy = self.tenancy
        self._served = self._over = self._reset = False
        self._ends.clear()
        # A block that is held back by now is not what has ended: the end of a COPY that failed came before it.
        if tenancy.open and tenancy.block not in (Block.HELD, Block.FAILED):
            committed = tenancy.committed
            tenancy.end(server.last_error is self._error_before if committed is None else committed)
            self._portals.clear()
        self._attend()

    def resets_all(self, server: ServerConnection | None) -> None:
        """A RESET ALL has been sent."""
        if not self.tenancy.open and server is not None:
            self._error_before = server.last_error
            self._served = True
        self.tenancy.go_home()
        self._reset = self.tenancy.value is not self.tenancy.home
        self._attend()

    def discarded(self) -> None:
        """A DISCARD ALL is done."""
        self.tenancy.go_home_now()
        self._portals.clear()
        self.calm = False

    def failed(self) -> None:
        """What was asked has failed before a server had it."""
        self.tenancy.fail()
        self._portals.clear()

    def none_chosen(self) -> TiergateError:
        guc = self._session.plane.options.tenant_guc
        return TenantChangeRefused(
            "no tenant has been chosen", hint=f"Choose one: SET {guc} = 'NAME', or name it when connecting."
        )

    # --- what a server is asked ----------------------------------------------------------------------

    def refusal(self, text: bytes) -> TiergateError | None:
        """Of any text, where texts are looked at."""
        if self._over:
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

    def step(self, text: bytes) -> Step | None:
        """What the text is, if that is one step and no more."""
        opening = self._session.plane.openings.of(text)
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
        same = (
            value == now.name and now.name.isascii()
        )  # which others are the same depends on the client encoding
        if same and (local or tenancy.own is now is tenancy.lasting):
            return None
        return TenantChangeInTransaction(
            "the tenant cannot be changed within a transaction",
            hint="Choose it before the transaction's first statement.",
        )

    def binding(self, statement: Statement, name: bytes, frame: bytes, whole: bool) -> TiergateError | None:
        """Of a Bind of a statement."""
        session = self._session
        portal, _, at = bind_names(frame[5:])
        self.working = True
        self._ends.discard(portal)
        if session.strict:
            refused = self.refusal(statement.text)
            if refused is not None:
                return refused
            if self.tenancy.returns and ends_block(statement.text):
                self._ends.add(portal)
        if not statement.verdict.touches_tenant(session.plane.options.tenant_guc):
            return None
        step = self.step(statement.text)
        if step is None or step.cast or not whole:
            return self.naming(b"")
        if step.value_from and statement.oids[2:6] not in _TEXT_OIDS:
            return self.naming(b"")
        try:
            found = bound(step, name, frame[5:], at)
        except TiergateError as error:
            return error
        return self._naming(found.value, found.local)

    def executing(self, portal: bytes) -> None:
        self._over = self._over or portal in self._ends


def bound(step: Step, name: bytes, body: bytes, at: int) -> Portal:
    """The portal that a Bind makes. Raises ProtocolViolation and what else PostgreSQL says."""
    values, formats, results = decode.bind_values(body, at)
    needs = max(step.value_from, step.local_from)
    if len(values) != needs:
        raise ProtocolViolation(
            f"bind message supplies {len(values)} parameters, but prepared statement "
            f'"{name.decode("utf-8", "replace")}" requires {needs}'
        )
    value, local = step.value, step.local
    if step.value_from:
        raw = values[step.value_from - 1]
        value = None if raw is None else raw.decode("utf-8", "surrogateescape")
    if step.local_from:
        flag = values[step.local_from - 1]
        binary = formats[step.local_from - 1] == 1
        local = flag == b"\1" if binary else constants.says_true((flag or b"").decode("latin-1"))
    return Portal(step, value, local, bool(results and results[0] == 1))
