"""What is known of one client's conversation: the fields that a session's parts share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxy.admission.accounts import Account, Counter, UserAccount, give_all
from proxy.admission.gate import Gate
from proxy.client.doubts import Doubts
from proxy.client.plane import Plane
from proxy.client.waits import Owing
from proxy.errors import ServerRefused, TiergateError
from proxy.model import Limits, PinReason, PoolMode, Tenant, User
from proxy.net.clock import monotonic
from proxy.net.transport import Transport, deliver, hurry
from proxy.protocol.inquiry import Inquiry
from proxy.protocol.lifecycle import SessionState, Stage, step
from proxy.protocol.state import EMPTY, State, status
from proxy.protocol.statements import Description, Preparation, SqlStatement, Statement
from proxy.server.connection import IDLE, ServerConnection
from proxy.server.link import Link
from proxy.sql.policy import Rules
from proxy.sql.verdict import Verdict
from proxy.sql.watch import Dropped, Watch
from proxy.wire import encode
from proxy.wire.frames import FROM_CLIENT, Scanner

if TYPE_CHECKING:
    from proxy.client.applicants import Login
    from proxy.server.pool import Pool

PARKED_MAX = 65_536  # bytes read ahead of a wait; beyond, the client's socket is left alone
_TRANSACTION_MODE, _SESSION_MODE, _STATEMENT_MODE = (
    PoolMode.TRANSACTION,
    PoolMode.SESSION,
    PoolMode.STATEMENT,
)
# An idle client has no list and no dict of its own. Nothing is ever put into these.
NO_STATEMENTS: dict[bytes, Statement] = {}
NO_PINS: frozenset[PinReason] = frozenset()


class Given:
    """What a client is given at its login."""

    __slots__ = ("account", "epoch", "limits", "permits", "tenant", "user_account")

    def __init__(
        self,
        account: Account,
        user_account: UserAccount,
        limits: Limits,
        tenant: Tenant,
        epoch: int,
        permits: tuple[Counter, ...],
    ) -> None:
        self.account = account
        self.user_account = user_account
        self.limits = limits
        self.tenant = tenant
        self.epoch = epoch
        self.permits = permits


class Conversation(Link):
    """The fields of a session, and the small steps that need nothing else."""

    __slots__ = (
        "_counted_by", "_permits", "_wanted", "amiss", "answer", "answers_first", "bound_in", "by_sql", "cancel_wanted",
        "checked", "chooser", "confirming", "connected_at", "described", "discarded", "doubts", "drawn_on", "drawn_use",
        "draws_alone", "entering", "epoch", "evicted", "evicting", "gone", "held_back", "holding", "host", "idle_since",
        "inquiry", "judge", "keeps_sequences", "key", "lasting", "lasting_in", "leaving", "login", "maps_statements",
        "mode", "opening", "outgoing", "owing", "paid", "parked", "pid", "pins", "plane", "pool", "port", "registry",
        "rules", "scanner", "sent", "server", "skipping", "startup", "state", "statements", "strict", "temp_first",
        "tenant", "throttled", "told", "transport", "unasking", "undescribed", "unnamed", "unnamed_by", "unsynced", "user",
        "watch", "write_paused",
    )  # fmt: skip

    def __init__(self, plane: Plane, login: Login, entrance: Given, host: str, port: int) -> None:
        self._take(entrance)
        self.plane = plane
        self.judge = plane.judge
        self.registry = plane.registry
        self.login = login
        self.user: User = login.user
        self.host = host  # the client's, "" for a local one
        self.port = port
        self.pool: Pool
        self._counted_by: Pool | None = None  # the one that counts this session
        self.mode = _TRANSACTION_MODE
        self.chooser: Any = None  # a Chooser, which knows this class, where the session may choose its tenant
        self._wanted = False
        self.strict = False  # a text is looked at even where nothing of it lasts
        self.maps_statements = True
        self.transport: Transport
        self.scanner = Scanner(FROM_CLIENT)
        self.state: Stage = SessionState.LOGIN
        self.server: ServerConnection | None = None
        self.rules: Rules | None = None  # what SQL it may send
        self.startup: State = EMPTY  # what RESET goes back to
        self.told: State = EMPTY  # what the client believes of the reported parameters
        self.statements: dict[bytes, Statement] = NO_STATEMENTS
        self.unnamed: Statement | None = None
        self.unnamed_by: object | None = None  # which request made it that
        self.described: dict[bytes, Description] | None = None  # what the client has been told of named ones
        self.checked: Preparation | Statement | None = None  # what has just been described for it
        # What takes away from the session when it is executed, by b"P" and portal or b"S" and statement.
        self.lasting: dict[bytes, Verdict] | None = None
        self.lasting_in = -1  # the batch in which that was last changed
        self.by_sql: dict[bytes, SqlStatement] | None = None  # what the client has prepared in SQL
        self.undescribed: list[tuple[bytes, SqlStatement]] | None = None  # what of it has just been prepared
        self.amiss = b""  # the error of what has been sent ahead of the request that waits
        self.unsynced = False  # within an extended batch whose Sync has not been sent
        self.pins: frozenset[PinReason] = NO_PINS
        self.doubts: Doubts | None = None  # what its transactions may have changed
        self.inquiry: Inquiry | None = None  # what its server connection is being asked about that
        self.keeps_sequences = False  # is asked behind its transactions whether it has drawn from sequences
        self.drawn_on: ServerConnection | None = None  # where it may have drawn last, and its use then
        self.drawn_use = 0
        self.draws_alone = False  # all that it has drawn is remembered there, and nothing else
        self.bound_in = -1  # the batch in which it has bound last
        self.evicting: object | None = None  # the wait until databases have no idle connection
        self.evicted = False
        self.watch: Watch | Dropped | None = None  # of a text that passes in pieces
        self.temp_first = False  # its search_path makes temporary tables that no statement tells of
        self.pid = 0
        self.key = b""
        self.connected_at = self.idle_since = monotonic()
        self.parked = b""  # what has been read, and waits
        self.sent = 0  # so much of what is being read has been seen to
        self.outgoing: list[bytes] | None = None  # what goes to the server ahead of the rest
        self.holding = False  # linked, but the batch waits until the server has our state
        self.held_back = False  # linked, but the batch waits until earlier requests have been answered
        self.answers_first = False  # what has been asked must be answered before more is asked
        self.owing: Owing | None = None  # what must be set again then
        self.discarded = False  # by a DISCARD ALL, so that its server connection has nothing of it
        self.opening = False  # its block is being begun on the server
        self.entering = (
            False  # nothing of the client's has been sent since it was linked (of who may choose its tenant)
        )
        self.confirming = 0  # what its connection has not confirmed yet, see `entering`
        self.cancel_wanted = False  # a CancelRequest that came while our state was being applied
        self.skipping = False  # after an error of ours, up to the Sync
        self.answer: bytes = b""  # an error of ours that the next frame gets
        self.throttled: Gate | None = None  # in whose line it waits, whether or not it has a connection
        self.paid = False  # its next query has been counted already
        self.unasking = False  # its next Execute asks nothing
        self.write_paused = False
        self.leaving = False
        self.gone = False

    def _take(self, entrance: Given) -> None:
        self._set_up(entrance.account, entrance.user_account, entrance.limits, EMPTY)
        self.tenant = entrance.tenant
        self.epoch = entrance.epoch
        self._permits = entrance.permits

    def step(self, event: str) -> None:
        stage = self.state
        self.state = stage.after if event is stage.last else step("session", stage, event)

    def hurry(self, hurried: bool) -> None:
        self.hurried = hurried
        hurry(self.transport, hurried)

    def doubted(self) -> Doubts:
        """What is to be asked when the session is at rest."""
        if self.doubts is None:
            self.doubts = Doubts(b"" if self.server is None else self.server.last_error)
        return self.doubts

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}" if self.host else "unix"

    @property
    def speaks_for(self) -> Tenant:
        """`tenant` is whom it has been served for last, if it may choose."""
        if self.chooser is None or self.server is not None:
            return self.tenant
        tenant: Tenant = self.chooser.tenancy.value
        return tenant

    @property
    def rests(self) -> bool:
        """Nothing is asked, and no transaction is open."""
        server = self.server
        return server is None or not (server.pipeline or self.unsynced or server.status != IDLE)

    def release_permits(self) -> None:
        """Nothing of what is counted is this session's any more."""
        if self._counted_by is not None:
            self._counted_by.sessions -= 1
            self._counted_by = None
        permits, self._permits = self._permits, ()
        give_all(permits)

    def counters(self) -> tuple[Counter, ...]:
        """Those that it has permits of, by itself and by its server connection."""
        server = self.server
        return self._permits if server is None else (*self._permits, *server.permits, *self.pool.caps)

    def use_pool(self, pool: Pool) -> None:
        old = self._counted_by
        if old is not None:
            old.sessions -= 1
            pool.learn(old.client_key)
        self.pool = self._counted_by = pool
        pool.sessions += 1
        self.mode = pool.mode
        # What a chooser has answered itself no server has under the client's name.
        mapped = pool.mode is not _SESSION_MODE or self.chooser is not None
        self.maps_statements = mapped and self.plane.pools.options.max_prepared_statements > 0
        keeping = self.plane.keeping_sequences
        self.keeps_sequences = self.user.keep_sequences or (bool(keeping) and pool.key in keeping)
        self.look_at_texts(False)

    def use_rules(self, rules: Rules | None) -> None:
        self.rules = rules
        self.look_at_texts(self._wanted)

    def look_at_texts(self, wanted: bool) -> None:
        self._wanted = wanted
        self.strict = wanted or self.rules is not None or self.mode is _STATEMENT_MODE

    def name_statement(self, name: bytes, statement: Statement) -> None:
        """The client knows a prepared statement by that name."""
        if self.statements is NO_STATEMENTS:
            self.statements = {}
        self.statements[name] = statement

    def tell(self, reported: State) -> None:
        """Says what a server reports otherwise than the client believes."""
        believed = self.told.parameters
        for name, value in reported.parameters.items():
            if believed.get(name) != value:
                self.write(status(name, value))
        self.told = reported

    def write(self, data: bytes) -> None:
        if not self.gone:
            deliver(self.transport, data)

    def _park(self, data: bytes) -> None:
        self.parked = self.parked + data if self.parked else data
        if len(self.parked) > PARKED_MAX:
            self.transport.pause_reading()

    def still_waits(self) -> None:
        if self.throttled is not None:
            self.write(encode.notice("The tenant is over its rate, query being queued"))
        else:
            self.write(
                encode.notice("No server connection available in postgres backend, client being queued")
            )

    def resume(self) -> None:
        """Reads on with what is parked."""
        raise NotImplementedError

    def admitted(self) -> None:
        """The wait for its tenant's rate is over."""
        self.step_out()
        self.paid = True
        self.resume()

    def turned_away(self, error: TiergateError) -> None:
        """It was in vain."""
        self.step_out()
        self.refuse(error)
        self.resume()

    def step_out(self) -> None:
        """It waits for its tenant's rate no longer."""
        gate, self.throttled = self.throttled, None
        if gate is not None:
            gate.leave(self)
            self.plane.pools.deadlines.end(self)
        if self.state is SessionState.WAITING:
            self.step("admit")
        else:
            self.holding = False

    def refuse(self, error: TiergateError) -> None:
        """The next request of the client gets the error; the session goes on."""
        self.account.stats.error(error.sqlstate)
        if self.chooser is not None:
            self.chooser.failed()
        if isinstance(error, ServerRefused):
            self.answer = encode.with_severity(error.frame, "ERROR")
        else:
            self.answer = encode.refusal(error)

    def block_ended(self, committed: bool) -> None:
        if self.chooser is not None:
            self.chooser.block_ended(committed)

    def rename_statement(self, error: bytes) -> bytes:
        for name, statement in self.statements.items():
            if statement.name in error:
                renamed = error[5:].replace(b'"' + statement.name + b'"', b'"' + name + b'"')
                return encode.frame(b"E", renamed)
        return error

    def notified(self, notification: bytes) -> bytes:
        server = self.server
        if server is None or notification[5:9] != server.pid.to_bytes(4, "big", signed=True):
            return b""
        return notification[:5] + (self.pid & 0xFFFFFFFF).to_bytes(4, "big") + notification[9:]

    def pause_client(self) -> None:
        if not self.gone:
            self.transport.pause_reading()

    def resume_client(self) -> None:
        if not self.gone:
            self.transport.resume_reading()
