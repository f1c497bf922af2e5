"""Sessions that say in SQL which tenant they speak for.

A login that named no tenant may choose one between transactions or at the beginning of one: SET, set_config() and
RESET of the tenant's parameter. What opens a transaction is performed and answered by the proxy (`answering.py`);
the first statement that needs a server takes the session to its tenant's pool, and tells the server of the block
ahead of it.

Within a transaction that a server has, the tenant is settled: naming another is 25001. Batches of such a session
are not sent before those ahead of them have been answered, since each may be for another tenant. What a server
may be asked is for `settled.py` to say.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from proxy.client.placing import become
from proxy.client.portals import Portal
from proxy.client.settled import Settled
from proxy.errors import (
    FeatureNotSupported,
    NotAuthorized,
    QueryCanceled,
    TenantChangeRefused,
    TiergateError,
    UnknownTenant,
)
from proxy.model import PoolMode, Tenant
from proxy.protocol.pipeline import DROP, DROP_BIND, DROP_QUERY, EXECUTE, PARSE, Expect
from proxy.protocol.state import State
from proxy.protocol.tenancy import Block, nobody
from proxy.registry.memory import RegistryDown
from proxy.sql.steps import Step, Verb
from proxy.sql.verdict import PLAIN
from proxy.wire import encode

if TYPE_CHECKING:
    from proxy.client.linking import Linking
    from proxy.server.connection import ServerConnection


# Members of enumerations, which are dear to ask for by name.
_NAME, _ASK, _BEGIN, _ROLLBACK_TO = Verb.NAME, Verb.ASK, Verb.BEGIN, Verb.ROLLBACK_TO
_COMMIT, _ROLLBACK, _HELD, _FAILED = Verb.COMMIT, Verb.ROLLBACK, Block.HELD, Block.FAILED
_STATEMENT_MODE = PoolMode.STATEMENT

_CRUCIAL_PARSE = Expect(PARSE, DROP, crucial=True)
_CRUCIAL_EXECUTE = Expect(EXECUTE, DROP, crucial=True)


class Choice(Settled):
    """`tenancy` says for whom the session speaks; `turn` takes it to where that tenant is served."""

    __slots__ = (
        "_cancelled",
        "_error_before",
        "_stale",
        "begin",
        "portals",
        "quiet",
        "sought",
    )

    def __init__(self, session: Linking, home: Tenant) -> None:
        super().__init__(session, home)
        self.sought = ""  # the tenant that is looked up for the step at hand
        self.quiet = 0  # how many blocks one after the other have named no tenant
        self.begin: Step | None = None  # what `prompt` is
        self.portals: dict[bytes, Portal] = {}
        self._error_before = b""
        self._stale = False  # the registry has changed
        self._cancelled = False  # what waited for the block that is being begun

    @property
    def answers(self) -> bool:
        """A Sync is answered here."""
        return self.batch or self.tenancy.holds

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
        self.sought = ""
        if tenant is None:
            if not registry.settled(value) or registry.unasked(value):
                raise RegistryDown(value)
            if user.tenants is None or value in user.tenants:
                raise UnknownTenant(f'tenant "{value}" does not exist')
            raise TenantChangeRefused(f'user "{user.name}" may not act for tenant "{value}"')
        self._check_right(tenant)
        return tenant

    def must_seek(self, step: Step, value: str | None) -> bool:
        """Before the step is performed: the tenant that it names is to be looked up first."""
        if step.verb is not _NAME or not value or value == self.sought:
            return False
        if self._session.plane.registry.settled(value):
            return False
        self.sought = value
        return True

    async def seek(self) -> None:
        """What has been found the registry knows."""
        with contextlib.suppress(RegistryDown):
            await self._session.plane.registry.find(self.sought)

    def _check(self, tenant: Tenant) -> None:
        self._check_right(tenant)
        if self._session.plane.registry.known(tenant.name) is None:
            raise TenantChangeRefused(f'tenant "{tenant.name}" does not exist any more')

    def _check_right(self, tenant: Tenant) -> None:
        """Of one that the registry knows."""
        session = self._session
        if not session.user.may_act_for(tenant):
            raise TenantChangeRefused(f'user "{session.user.name}" may not act for tenant "{tenant.name}"')
        if not tenant.active or session.plane.registry.is_disabled("tenant", tenant.name):
            raise TenantChangeRefused(f'tenant "{tenant.name}" is suspended')

    def can(self, step: Step) -> bool:
        """False where only a server can do it, or say that it is refused."""
        if step.verb is _BEGIN and self._session.mode is _STATEMENT_MODE:
            return False
        if step.columns and not step.value_from and not step.local_from:
            tenancy = self.tenancy
            named = step.value == tenancy.value.name and tenancy.open
            if named and (step.local or tenancy.lasting is tenancy.value):
                return False  # what else it sets
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
                if tenancy.block is _HELD and session.mode is _STATEMENT_MODE:
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

    def serves(self, server: ServerConnection, needs: State | None = None) -> bytes:
        """A transaction begins on that connection; returns what it must be sent of the block ahead of its first
        statement. If that fails the server skips what follows, for no Sync stands between. What it `needs` enters the
        block ahead of any savepoint."""
        self._error_before = server.last_error
        self._served = True
        tenancy = self.tenancy
        begins, first = tenancy.begins, tenancy.first
        self.working = bool(begins)
        if begins:
            self.quiet = self.quiet + 1 if tenancy.value is tenancy.own is tenancy.lasting else 0
            self.prompt = b""
        out = self._begin_on(server, begins[:first])
        if needs is not None:
            out += server.enter(needs, self._session.plane.options.tenant_guc.lower(), alone=False)
        if self.portals and begins:
            out += self._bind_on(server, 0)
            for depth, text in enumerate(begins[first:], 1):
                out += self._begin_on(server, [text]) + self._bind_on(server, depth)
        else:
            out += self._begin_on(server, begins[first:])
        tenancy.served()
        self._attend()
        return out

    def _begin_on(self, server: ServerConnection, texts: list[bytes]) -> bytes:
        out = b""
        for text in texts:
            name, ahead = self._prepare_on(server, text)
            out += ahead + encode.bind(b"", name, []) + encode.execute()
            server.expect(DROP_BIND)
            server.expect(_CRUCIAL_EXECUTE)
        return out

    def _prepare_on(self, server: ServerConnection, text: bytes) -> tuple[bytes, bytes]:
        """By what name the server has it, and what it must be sent for that."""
        statement = self._session.plane.pools.catalog.statement(text, b"\0\0", PLAIN)
        if server.prepared.use(statement):
            return statement.name, b""
        out = server.make_room(statement) + encode.parse(statement.name, text)
        server.named_in = server.pipeline.asked
        server.expect(_CRUCIAL_PARSE)
        return statement.name, out

    def _bind_on(self, server: ServerConnection, depth: int) -> bytes:
        """What has been bound within so many savepoints and controls the block, to be run there."""
        out = b""
        for portal, kept in self.portals.items():
            verb = kept.step.verb
            if (
                not portal
                or kept.depth != depth
                or kept.spent
                or kept.failed
                or verb is _NAME
                or verb is _ASK
            ):
                continue
            if verb is _ROLLBACK_TO and kept.step.name in self.tenancy.elsewhere:
                continue
            name, ahead = self._prepare_on(server, kept.step.text)
            out += ahead + encode.bind(portal, name, [])
            server.expect(DROP_BIND)
            if self.tenancy.returns and (verb is _COMMIT or verb is _ROLLBACK):
                self.ends.add(portal)
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
        tenancy = self.tenancy
        self.calm = (
            not (tenancy.open or self._stale or self.batch)
            and tenancy.value is self._session.tenant
            and tenancy.value.name != ""
        )

    # --- what becomes of a transaction ---------------------------------------------------------------

    def block_ended(self, committed: bool) -> None:
        self.tenancy.committed = committed

    def _end(self, server: ServerConnection) -> None:
        tenancy = self.tenancy
        self._served = self._reset = False
        self.ends.clear()
        # A block that is held back by now is not what has ended: the end of a COPY that failed came before it.
        if tenancy.open and tenancy.block is not _HELD and tenancy.block is not _FAILED:
            committed = tenancy.committed
            tenancy.end(server.last_error is self._error_before if committed is None else committed)
            self.portals.clear()
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
        """A DISCARD ALL is done; what follows in its batch would still be another tenant's."""
        session = self._session
        self.tenancy.go_home_now()
        self.portals.clear()
        self.calm = False
        if session.unsynced and session.tenant is not self.tenancy.home:
            self.over = self._served = True
            session.look_at_texts(True)

    def failed(self) -> None:
        """What was asked has failed before a server had it."""
        held = self.tenancy.block is _HELD
        self.tenancy.fail()
        if not self.tenancy.holds:
            self.portals.clear()
        elif held:
            for portal in self.portals.values():
                portal.failed = portal.failed or portal.depth >= self.tenancy.depth

    def fail(self, error: TiergateError, said: bytes) -> None:
        """The error of what has been asked, behind what has been said of it."""
        session = self._session
        session.account.stats.error(error.sqlstate)
        self.failed()
        session.write(said + encode.refusal(error))
