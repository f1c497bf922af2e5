"""One client's conversation after its login: its requests go to a server connection, the replies come back.

Linked and nothing to look into, a chunk goes from `data_received` to the server connection in a few calls.
Waiting for a connection, the session parks its one batch. Whatever ends it, `_close` is the one place that
says what becomes of its server connection.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from proxy import log
from proxy.admission.accounts import Account, Counter, give_all
from proxy.client.placing import follow_registry
from proxy.client.requests import HANDLERS, EvictFirst
from proxy.errors import (
    ProtocolViolation,
    QueryCanceled,
    ServerRefused,
    ShuttingDown,
    TiergateError,
)
from proxy.model import Limits, PinReason, PoolMode, Tenant, User
from proxy.protocol.lifecycle import SessionState, session_step
from proxy.protocol.state import EMPTY, State, with_parameter
from proxy.protocol.statements import Statement
from proxy.server.connection import IDLE, READ_ONLY_PARAMETERS, ServerConnection, display_names
from proxy.sql.verdict import PLAIN, Verdict
from proxy.wire import encode
from proxy.wire.frames import FROM_CLIENT, MORE, Scanner

if TYPE_CHECKING:
    from proxy.client.login import Login
    from proxy.client.plane import Plane
    from proxy.server.pool import Pool

_log = log.get("session")
_QUERY, _FUNCTION, _SYNC, _TERMINATE, _FLUSH = b"QFSXH"
_COPY_ENDS = b"cf"
_PARKED_MAX = 65_536  # bytes read ahead of a wait; beyond, the client's socket is left alone
_RISKY = ("statement_timeout", "transaction_timeout")


class Session(asyncio.Protocol):
    __slots__ = (
        "_acquiring", "_answer", "_gone", "_holding", "_leaving", "_parked", "_parked_size", "_pending", "_permits",
        "_skipping", "_write_paused", "account", "connected_at", "epoch", "evicted", "idle_since", "key", "limits",
        "login", "maps_statements", "minor", "mode", "pid", "pins", "plane", "pool", "queries", "scanner", "server",
        "startup", "state", "state_needed", "statements", "tenant", "told", "transport", "unnamed", "unsynced",
        "user", "wait_limit", "waiting_since",
    )  # fmt: skip

    def __init__(
        self, plane: Plane, login: Login, tenant: Tenant, account: Account, permits: tuple[Counter, ...]
    ) -> None:
        self.plane = plane
        self.login = login
        self.user: User = login.user
        self.tenant = tenant
        self.account = account
        self.minor = login.protocol_minor
        self.limits: Limits = plane.registry.limits(tenant, login.user)
        self.wait_limit = self.limits.query_wait_timeout or 0.0
        self.epoch = plane.registry.epoch
        self.pool: Pool
        self.mode = PoolMode.TRANSACTION
        self.maps_statements = True
        self.transport: asyncio.Transport
        self.scanner = Scanner(FROM_CLIENT)
        self.state = SessionState.LOGIN
        self.server: ServerConnection | None = None
        self.startup: State = EMPTY  # what RESET goes back to
        self.state_needed: State = EMPTY
        self.told: State = EMPTY  # what the client believes of the reported parameters
        self.statements: dict[bytes, Statement] = {}
        self.unnamed: Statement | None = None
        self.unsynced = False  # within an extended batch whose Sync has not been sent
        self.pins: set[PinReason] = set()
        self.evicted = False
        self.pid = 0
        self.key = b""
        self.queries = 0
        self.connected_at = self.idle_since = monotonic()
        self.waiting_since = 0.0
        self._permits = permits
        self._parked: list[bytes] = []
        self._parked_size = 0
        self._holding = False  # linked, but the batch waits until the server has our state
        self._skipping = False  # after an error of ours, up to the Sync
        self._answer: bytes = b""  # an error of ours that the next frame gets
        self._pending: Verdict | None = None
        self._write_paused = False
        self._acquiring = False
        self._leaving = False
        self._gone = False

    def step(self, event: str) -> None:
        self.state = session_step(self.state, event)

    def keep(self, server: ServerConnection) -> None:
        """Session mode: the connection of the login is the session's own from the start."""
        self.step("link")
        self.server = server
        server.link = self

    @property
    def rests(self) -> bool:
        """Nothing is asked, and no transaction is open."""
        server = self.server
        return server is None or not (server.pipeline or self.unsynced or server.status != IDLE)

    def release_permits(self) -> None:
        permits, self._permits = self._permits, ()
        give_all(permits)

    def use_pool(self, pool: Pool) -> None:
        self.pool = pool
        self.mode = pool.mode
        self.maps_statements = (
            pool.mode is not PoolMode.SESSION and self.plane.pools.options.max_prepared_statements > 0
        )

    # --- the client's socket ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # pragma: no cover - handed over
        raise AssertionError("a session is handed its transport after the login")

    def data_received(self, data: bytes) -> None:
        if self.state is SessionState.WAITING or self._holding:
            self._park(data)
        elif self.state is not SessionState.CLOSED and not self._leaving:
            self._process(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        if not self._leaving or self.server is None:
            self._close()

    def pause_writing(self) -> None:
        self._write_paused = True
        if self.server is not None:
            self.server.transport.pause_reading()

    def resume_writing(self) -> None:
        self._write_paused = False
        if self.server is not None:
            self.server.transport.resume_reading()

    def write(self, data: bytes) -> None:
        if not self._gone:
            self.transport.write(data)

    def _park(self, data: bytes) -> None:
        self._parked.append(data)
        self._parked_size += len(data)
        if self._parked_size > _PARKED_MAX:
            self.transport.pause_reading()

    def _resume(self) -> None:
        data = b"".join(self._parked)
        self._parked.clear()
        if self._parked_size > _PARKED_MAX and not self._gone:
            self.transport.resume_reading()
        self._parked_size = 0
        if data:
            self._process(data)

    # --- requests -----------------------------------------------------------------------------------

    def _process(self, data: bytes) -> None:
        try:
            self._read(data)
        except ProtocolViolation as error:
            self.end(error)

    def _read(self, data: bytes) -> None:
        scanner = self.scanner
        scanner.feed(data)
        server = self.server
        out: list[bytes] = []
        sent = 0
        if server is not None and not server.pipeline:
            server.begin(monotonic())
        while (told := scanner.next()) != MORE:
            kind, start = scanner.kind, scanner.start
            if kind == _TERMINATE:
                self._flush(server, out, scanner.data[sent:start])
                self._terminate()
                return
            if server is None:
                sent = scanner.stop
                if self._answered(kind):
                    continue
                server = self._link(out)
                if server is None:
                    return
                sent = start
            try:
                instead = HANDLERS[kind](self, server, scanner.data, start, scanner.stop, told)
            except EvictFirst as wanted:
                self._flush(server, out, scanner.data[sent:start])
                self._evict(wanted.databases)
                return
            if instead is not None:
                out.append(scanner.data[sent:start])
                out.append(instead)
                sent = scanner.stop
            if server.pipeline.said:
                self.write(b"".join(server.pipeline.said))
                server.pipeline.said.clear()
        if server is not None:
            stop = scanner.pos
            rest = scanner.data if not sent and stop == len(scanner.data) else scanner.data[sent:stop]
            self._flush(server, out, rest)
            if not server.pipeline:
                self.server_ready()

    def _flush(self, server: ServerConnection | None, out: list[bytes], rest: bytes) -> None:
        if server is None:
            return
        if out:
            out.append(rest)
            rest = b"".join(out)
        if rest:
            self.pool.stats.bytes_received += len(rest)
            server.send(rest)

    def _answered(self, kind: int) -> bool:
        """Without a server: whether the frame needs none."""
        if self._answer:
            error, self._answer = self._answer, b""
            self.write(error)
            self._skipping = kind not in (_QUERY, _FUNCTION)
            if not self._skipping:
                self.write(encode.ready_for_query())
                return True
        if self._skipping:
            if kind == _SYNC:
                self._skipping = False
                self.write(encode.ready_for_query())
            return True
        if kind == _SYNC:
            self.write(encode.ready_for_query())
            return True
        return kind == _FLUSH or kind in _COPY_ENDS

    def _evict(self, databases: tuple[str, ...]) -> None:
        """Parks the batch until no idle connection of ours is in the way of a statement about databases."""
        self._holding = True
        rest = self.scanner.rewind()
        self._parked.insert(0, rest)
        self._parked_size += len(rest)

        async def evict() -> None:
            try:
                for database in databases:
                    await self.plane.pools.evict_database(self.pool.cluster.name, database)
            finally:
                self.evicted = True
                self._holding = False
                if self.state is not SessionState.CLOSED:
                    self._resume()

        self.plane.pools.spawn(evict())

    # --- linking ------------------------------------------------------------------------------------

    def _link(self, out: list[bytes]) -> ServerConnection | None:
        """A linked connection whose state is ours or is made so by what is put into `out`; None: the batch is
        parked, or has been refused."""
        if self.epoch != self.plane.registry.epoch and not self.reroute():
            return None
        now = monotonic()
        self._acquiring = True
        try:
            server = self.pool.acquire(self, now)
        except TiergateError as error:
            rest = self.scanner.rewind()
            self._refuse(error)
            self._process(rest)
            return None
        finally:
            self._acquiring = False
        if server is None:
            server = self.server
            if server is None:
                self.step("wait")
                self._park(self.scanner.rewind())
                return None
        else:
            self._attach(server)
        server.begin(now)
        if self._take_state(server, out):
            return server
        self._park(self.scanner.rewind())
        return None

    def _attach(self, server: ServerConnection) -> None:
        self.step("link")
        self.server = server
        server.link = self
        if self._write_paused:
            server.transport.pause_reading()

    def _take_state(self, server: ServerConnection, out: list[bytes]) -> bool:
        """Whether requests may follow at once. A state that no server of the pool has taken yet, or a
        connection whose timeouts could cut the change short, must have answered first."""
        needs = self.state_needed
        if server.values is needs:
            if self.told is not server.reported:
                self._tell(server)
            return True
        before = server.values.parameters
        ahead = server.apply(needs)
        if not ahead:
            self._tell(server)
            return True
        if needs in self.pool.accepted and not any(name in before for name in _RISKY):
            out.append(ahead)
            return True
        self._holding = True
        server.send(ahead)
        return False

    def _tell(self, server: ServerConnection) -> None:
        """Says what this server reports otherwise than the client believes."""
        believed, told = self.told.parameters, server.reported
        for name, value in told.parameters.items():
            if believed.get(name) != value:
                raw = value.encode("utf-8", "surrogateescape")
                self.write(encode.parameter_status(display_names[name].encode(), raw))
        self.told = told

    def granted(self, server: ServerConnection) -> None:
        self._attach(server)
        if self._acquiring:
            return
        server.begin(monotonic())
        out: list[bytes] = []
        if not self._take_state(server, out):
            return
        if out:
            server.send(b"".join(out))
        self._resume()

    def refused(self, error: TiergateError) -> None:
        self.step("refuse")
        self._refuse(error)
        self._resume()

    def _refuse(self, error: TiergateError) -> None:
        """The next request of the client gets the error; the session goes on."""
        self.account.stats.error(error.sqlstate)
        if isinstance(error, ServerRefused):
            self._answer = encode.with_severity(error.frame, "ERROR")
        else:
            self._answer = encode.error(error.message, error.sqlstate, hint=error.hint, detail=error.detail)

    def reroute(self) -> bool:
        """Follows a change of the registry before the next transaction. False: the session has ended."""
        try:
            follow_registry(self)
        except TiergateError as error:
            self.end(error)
            return False
        return True

    # --- what the server connection says ------------------------------------------------------------

    def replies(self, data: bytes) -> None:
        if not self._gone:
            self.transport.write(data)

    def reported(self, name: str, value: str) -> None:
        server = self.server
        if server is None:
            return
        self.told = server.reported
        if name not in READ_ONLY_PARAMETERS:
            server.values = with_parameter(server.values, name, value)
            self.state_needed = with_parameter(self.state_needed, name, value)

    def state_ready(self, error: bytes) -> None:
        server = self.server
        if server is None:
            return
        if error:
            held, self._holding = self._holding, False
            self.server = None
            self.step("unlink")
            self.pool.drop(server)
            if not held:
                self.write(encode.with_severity(error, "FATAL"))
                self._close()
                return
            self._answer = encode.with_severity(error, "ERROR")
            self._resume()
            return
        self.pool.accepted.add(server.values)
        if self.told is not server.reported:
            self._tell(server)
        if self._holding:
            self._holding = False
            self._resume()

    def server_ready(self) -> None:
        server = self.server
        if server is None or self.unsynced or self._holding or self.scanner.inside_frame:
            return
        if self._leaving:
            self._close()
            return
        if server.status != IDLE:
            return
        if self.plane.draining:
            self.end(ShuttingDown("terminating connection due to administrator command"))
        elif self.mode is not PoolMode.SESSION and not self.pins:
            self._unlink(server)
        elif self.epoch != self.plane.registry.epoch:
            self.reroute()

    def _unlink(self, server: ServerConnection) -> None:
        self.server = None
        self.step("unlink")
        if self._write_paused:
            server.transport.resume_reading()
        self.idle_since = server.query_since
        self.pool.checkin(server)

    def reset_by_client(self, *, everything: bool, unpin: bool) -> None:
        self.statements.clear()
        if everything:
            self.unnamed = None
            self.state_needed = self.startup
            if unpin and self.pins:
                self.pins.clear()
                self.step("unpin")

    def rename_statement(self, error: bytes) -> bytes:
        for name, statement in self.statements.items():
            if statement.name in error:
                renamed = error[5:].replace(b'"' + statement.name + b'"', b'"' + name + b'"')
                return encode.frame(b"E", renamed)
        return error

    def server_lost(self, error: TiergateError, said: bytes) -> None:
        self.server = None
        if not said:
            self.account.stats.error(error.sqlstate)
            self.write(encode.error(error.message, error.sqlstate, severity="FATAL"))
        self._close()

    def pause_client(self) -> None:
        if not self._gone:
            self.transport.pause_reading()

    def resume_client(self) -> None:
        if not self._gone:
            self.transport.resume_reading()

    # --- what statements do to the session ----------------------------------------------------------

    def pin(self, reason: PinReason) -> None:
        if self.mode is PoolMode.SESSION or reason in self.pins:
            return
        self.pins.add(reason)
        self.step("pin")
        self.plane.process.pin(reason.name.lower())
        if self.server is not None:
            self.server.dirty = True
        if self.plane.options.pin_notice:
            self.write(encode.notice(f"this session keeps its server connection: {reason.value}"))

    def obey(self, verdict: Verdict) -> None:
        """Pins where the statement leaves something behind that only its connection has."""
        if verdict is PLAIN:
            return
        for reason in verdict.pins:
            self.pin(reason)
        reported = self.told.parameters
        if any(name not in reported for name in verdict.sets):
            self.pin(PinReason.SET)

    def reassert(self, verdict: Verdict) -> bytes:
        """What follows a RESET, so that it goes back to what the session began with."""
        wanted = self.startup.parameters
        if verdict.resets_all or verdict.discards_all:
            changes: dict[str, str | None] = dict(wanted)
        else:
            changes = {name: wanted[name] for name in verdict.resets if name in wanted}
        if not changes or self.server is None:
            return b""
        return self.server.assign(changes, tolerant=True)

    def to_reassert(self, verdict: Verdict) -> None:
        if verdict.resets or verdict.resets_all or verdict.discards_all:
            self._pending = verdict

    def reassert_pending(self) -> bytes:
        verdict, self._pending = self._pending, None
        return self.reassert(verdict) if verdict is not None else b""

    def forget(self, name: bytes, statement: Statement) -> None:
        if self.statements.get(name) is statement:
            del self.statements[name]

    # --- the end ------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """The client's CancelRequest."""
        if self.state is SessionState.WAITING:
            self.pool.leave(self)
            self.refused(QueryCanceled("canceling statement due to user request"))
        elif self.server is not None and self.server.pipeline:
            self.pool.cancel(self.server)

    def _terminate(self) -> None:
        """The client said goodbye; what it asked before is still done, as PostgreSQL does."""
        server = self.server
        if server is not None and server.pipeline and not server.copy_in and not self.unsynced:
            self._leaving = True
        else:
            self._close()

    def end(self, error: TiergateError) -> None:
        """Ends the session with a FATAL of ours."""
        if self.state is SessionState.CLOSED:
            return
        self.account.stats.error(error.sqlstate)
        self.write(
            encode.error(
                error.message, error.sqlstate, severity="FATAL", hint=error.hint, detail=error.detail
            )
        )
        _log.log(
            error.level, "session ended", user=self.user.name, tenant=self.tenant.name, error=error.message
        )
        self._close()

    def _close(self) -> None:
        if self.state is SessionState.CLOSED:
            return
        if self.state is SessionState.WAITING:
            self.pool.leave(self)
        self.step("close")
        server, self.server = self.server, None
        if server is not None:
            self._return(server)
        self.statements.clear()
        self._parked.clear()
        self.release_permits()
        self.plane.leave(self)
        self.transport.close()
        _log.info(
            "session closed", user=self.user.name, tenant=self.tenant.name, database=self.login.database,
            address=self.login.address, seconds=round(monotonic() - self.connected_at, 3),
        )  # fmt: skip

    def _return(self, server: ServerConnection) -> None:
        server.link = None
        if self._write_paused and not server.transport.is_closing():
            server.transport.resume_reading()
        if server.pipeline or server.copy_in or self.scanner.inside_frame:
            self.pool.abandon(server)
        elif server.status != IDLE or self.unsynced:
            self.pool.rollback(server)
        else:
            self.pool.checkin(server, session_over=True)
