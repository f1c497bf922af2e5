"""A session's side of its server connection: how it gets one, what it brings along, and what it hears.

Linking is the lower half of `Session`; the upper half (`session.py`) reads the client.
"""

from __future__ import annotations

from collections.abc import Mapping

from proxy.client import effects, entering, remains, sequences, sql_prepared
from proxy.client.conversation import NO_PINS, PARKED_MAX, Conversation
from proxy.client.placing import follow_registry
from proxy.client.preparing import describe_new
from proxy.client.throttling import may_begin
from proxy.errors import ShuttingDown, TiergateError
from proxy.model import PinReason, PoolMode
from proxy.net.clock import monotonic
from proxy.net.transport import deliver
from proxy.protocol.lifecycle import SessionState
from proxy.protocol.state import EMPTY, READ_ONLY_PARAMETERS, status, with_parameter
from proxy.server.connection import FAILED, IDLE, ServerConnection
from proxy.wire import encode

_SESSION_MODE = PoolMode.SESSION
_WAITING = SessionState.WAITING


class Linking(Conversation):
    __slots__ = ()

    def resume(self) -> None:
        data, self.parked = self.parked, b""
        if len(data) > PARKED_MAX and not self.gone:
            self.transport.resume_reading()
        if data:
            self._process(data)

    # --- what the upper half does -------------------------------------------------------------------

    def _process(self, data: bytes) -> None:
        """Reads requests of the client."""
        raise NotImplementedError

    def end(self, error: TiergateError) -> None:
        """Ends the session with a FATAL of ours."""
        raise NotImplementedError

    def learned(self, server: ServerConnection, error: bytes) -> None:
        """The answer to what we asked of the connection has come."""
        raise NotImplementedError

    def _close(self) -> None:
        """Ends the session and gives back its server connection."""
        raise NotImplementedError

    # --- linking ------------------------------------------------------------------------------------

    def keep(self, server: ServerConnection) -> None:
        """Session mode: the connection of the login is the session's own from the start."""
        self.step("link")
        self.server = server
        server.link = self

    def _link(self) -> ServerConnection | None:
        """A linked connection, which `_bring` is to bring to our state; None: the batch is parked, or is to get `answer`,
        or the session has ended."""
        if self.epoch != self.registry.epoch and not self.reroute():
            return None
        if self.chooser is not None and not self.chooser.calm and not self.chooser.turn():
            return None
        now = monotonic()
        if self.account.gate is not None and not may_begin(self, now):
            return None
        try:
            server = self.pool.acquire(self, now)
        except TiergateError as error:
            self.refuse(error)
            return None
        if server is None:
            server = self.server
            if server is None:
                self.step("wait")
                self._park(self.scanner.rewind())
                return None
        else:
            self._attach(server)
        server.begin(now)
        return server

    def _attach(self, server: ServerConnection) -> None:
        self.step("link")
        self.server = server
        server.link = self
        uses = server.uses
        if server is not self.drawn_on or uses != self.drawn_use + 1:
            self.draws_alone = self.drawn_on is None and uses == server.clean_at + 1
        self.drawn_on, self.drawn_use = server, uses
        if self.keeps_sequences:
            sequences.arrive(self, server)
        if self.write_paused:
            server.transport.pause_reading()
        if server.write_paused:
            self.pause_client()
        if self.temp_first:
            effects.pin(self, PinReason.TEMP_TABLE)

    def _bring(self, server: ServerConnection) -> bytes | None:
        """What is to be sent ahead of the request at hand; None: it waits until the server has our state."""
        ahead = self._take_state(server)
        if ahead is None:
            self._park(self.scanner.rewind())
        return ahead

    def _take_state(self, server: ServerConnection) -> bytes | None:
        """What requests may follow at once; None: the change of state must have been confirmed (see `entering.py`)."""
        needs = self.state_needed
        if server.prepared.own:
            sql_prepared.close_others(self, server)
        opener = None
        if self.chooser is not None:
            self.entering = True
            opener = None if self.chooser.calm else self.chooser
        if server.values is needs and server.query_since < server.seal_due:
            sure, ahead = True, b""
        else:
            sure = entering.is_sure(self, server, needs, guc := self.plane.options.tenant_guc.lower())
            if not sure and (ahead := entering.at_once(self, server, opener, guc)):
                return ahead
            ahead = server.apply(needs)
        if sure or not ahead:
            if not ahead and self.told is not server.reported:
                self.tell(server.reported)
            if opener is not None:
                ahead += opener.serves(server)
            return ahead
        self.holding = True
        if opener is not None and (begins := opener.serves(server)):
            self.opening = True
            ahead += begins
        server.send(ahead)
        return None

    def enter(self, server: ServerConnection) -> bool:
        """Before a transaction on a connection that is kept: whether requests may follow at once."""
        if not (entered := self._enter(server, monotonic())):
            self._park(self.scanner.rewind())
        return entered

    def _enter(self, server: ServerConnection, now: float) -> bool:
        server.begin(now)
        ahead = self._take_state(server)
        if ahead:
            server.send(ahead)
        return ahead is not None

    def loosen(self, server: ServerConnection) -> None:
        """Between transactions: the connection is kept only by whom it must be kept, or who has to ask it first."""
        if self.doubts is not None and remains.ask(self, server):
            return
        if self.mode is not _SESSION_MODE and not self.pins:
            self._unlink(server)

    def let_go(self, server: ServerConnection) -> None:
        """Gives back a connection that was kept but has nothing of worth."""
        server.dirty = True
        self._unlink(server)

    def granted(self, server: ServerConnection) -> None:
        linked = server
        waited = self.state is _WAITING  # else it is still asking for one, and goes on itself
        self._attach(linked)
        if waited and self._enter(linked, linked.lent_at):
            self.resume()

    def refused(self, error: TiergateError) -> None:
        self.step("refuse")
        self.refuse(error)
        self.resume()

    def reroute(self) -> bool:
        """Follows a change of the registry before the next transaction. False: the session has ended."""
        try:
            follow_registry(self, self.let_go)
        except TiergateError as error:
            self.end(error)
            return False
        return True

    # --- what the server connection says ------------------------------------------------------------

    def replies(self, data: bytes) -> None:
        if not self.gone:
            deliver(self.transport, data)

    def reported(self, name: str, value: str) -> bool:
        server = self.server
        if server is None:
            return False
        news = self.told.parameters.get(name) != value
        self.told = with_parameter(self.told, name, value)
        if name not in READ_ONLY_PARAMETERS:
            server.values = with_parameter(server.values, name, value)
            if self.rules is None or name not in self.rules.locked:  # else the next checkout puts it right
                self.state_needed = with_parameter(self.state_needed, name, value)
            if name == "search_path":
                effects.follow_path(self)
        return news

    def taken_back(self, parameters: Mapping[str, str]) -> bytes:
        known = self.told.parameters
        return b"".join(
            status(name, value)
            for name, value in parameters.items()
            if name in known and self.reported(name, value)
        )

    def state_ready(self, error: bytes) -> None:
        server = self.server
        if server is None:
            return
        if self.inquiry is not None:
            self.learned(server, error)
            return
        if error:
            self._state_refused(server, encode.with_severity(error, "ERROR"))
            return
        self.pool.accepted.add(server.values)
        if self.told is not server.reported:
            self.tell(server.reported)
        chooser = self.chooser
        if chooser is not None and chooser.broken_off(server):
            return
        wanted, self.cancel_wanted = self.cancel_wanted, False
        if wanted and self.opening and chooser is not None:
            chooser.break_off(server)
            return
        self.opening = False
        if self.holding and self.evicting is None and not self.held_back:
            self.holding = False
            if wanted:
                self.answer = encode.error("canceling statement due to user request", "57014")
                self._unlink(server)
            self.resume()
        elif wanted and server.pipeline:
            self.pool.cancel(server)

    def _state_refused(self, server: ServerConnection, error: bytes) -> None:
        """The connection is not to be used; what was asked of it has not been answered and gets the error."""
        held, self.holding = self.holding, False
        self.opening = False
        self.confirming = 0
        if self.chooser is not None:
            self.chooser.failed()
        held_back, self.held_back, self.answers_first, self.discarded = self.held_back, False, False, False
        self.owing = self.evicting = self.doubts = None
        self.cancel_wanted = False
        owed_to_client = server.pipeline.ready_for_query_owed
        if server.pipeline.skipping and not self.unsynced:
            owed_to_client = 1  # a Query, which the server has skipped
        status = b"I" if self.chooser is None else self.chooser.tenancy.status
        self.server = None
        self.pins = NO_PINS
        self.step("unlink")
        self.pool.drop(server)
        if server.write_paused:
            self.resume_client()
        if held and not held_back:
            self.answer = error
            self.resume()
            return
        self.write((error + encode.ready_for_query(status)) * owed_to_client)
        if self.unsynced:
            self.write(error)
            self.unsynced = False
            self.skipping = True
        if held:
            self.resume()

    def server_ready(self) -> None:
        server = self.server
        if server is None:
            return
        if self.leaving:
            self._close()
            return
        if self.answers_first:
            self._go_on(server)
            return
        if server.pipeline.owes() or self.unsynced or self.holding or self.scanner.skip:
            return
        self.confirming = 0
        if server.status != IDLE:
            return
        if self.lasting:
            effects.forget_portals(self)
        if self.chooser is not None:
            self.chooser.ended(server)
        if self.doubts is not None and remains.ask(self, server):
            return
        if self.plane.draining:
            self.end(ShuttingDown("terminating connection due to administrator command"))
        elif self.mode is not _SESSION_MODE and not self.pins:
            self._unlink(server)
        elif server.query_since >= server.seal_due:
            server.send(server.apply(self.state_needed))
        elif self.epoch != self.registry.epoch:
            self.reroute()

    def _hold_back(self, server: ServerConnection, first: bool) -> bytes:
        """Parks the request at hand (`first`: since it was linked) and what follows until nothing is owed any more.
        Returns what must be sent behind those before it."""
        self.holding = self.held_back = self.answers_first = True
        self.entering = first
        self._park(self.scanner.rewind())
        return encode.FLUSH if self.unsynced or not server.pipeline.ends_so else b""

    def _go_on(self, server: ServerConnection) -> None:
        """All that was asked has been answered."""
        self.answers_first = False
        if self.undescribed:
            asking = describe_new(self, server)
            if asking:
                server.send(asking)
        owing, self.owing = self.owing, None
        if owing is not None:
            again = owing.parameters
            if server.status == FAILED:
                server.dirty = True  # nothing can be set now, and a COMMIT may have stood behind the RESET
            if server.last_error is not owing.last_error:
                believed = self.state_needed.parameters
                again = {name: believed.get(name, value) for name, value in again.items()}
            server.send(server.set_again(again))
        elif self.discarded:
            self.discarded = False
            server.values = EMPTY
            ahead = server.apply(self.state_needed)
            if ahead:
                server.send(ahead)
        held, self.held_back = self.held_back, False
        if held:
            self.holding = False
            if sent := self.confirming == entering.SENT:
                self.confirming = 0
            chose = self.chooser is not None and self.rests
            if (chose or (sent and server.status == IDLE)) and not self.entering:
                if chose:
                    self.chooser.ended(server)
                self.loosen(server)  # a change that was sent may be undone with the transaction
            if not self.holding:
                self.resume()
        elif server.pipeline.head() is None:
            self.server_ready()

    def _unlink(self, server: ServerConnection) -> None:
        self.server = None
        self.confirming = 0
        self.unnamed_by = None
        if self.doubts is not None:
            self.doubts, server.dirty = None, True  # nobody has asked what there is
        self.pins = NO_PINS
        self.step("unlink")
        if self.write_paused:
            server.transport.resume_reading()
        if server.write_paused:  # a copy failed before all that was sent for it had been taken
            self.resume_client()
        self.idle_since = server.query_since
        self.pool.checkin_at(server, server.query_since)

    def copy_began(self, open: bool, synced: bool) -> None:
        if not synced:
            self.unsynced = True  # what Sync there was the server ignores
        if not open:
            if self.held_back and not synced and self.server is not None:
                self.server.send(encode.FLUSH)  # else it keeps the answer that is waited for
            return
        if self.leaving:
            self._close()
        elif self.held_back:
            self.held_back = self.holding = False
            self.resume()

    def reset_by_client(self, *, everything: bool, unpin: bool) -> None:
        self.statements.clear()
        self.by_sql = self.described = None
        if everything:
            self.draws_alone = True
            if self.chooser is not None:
                self.chooser.discarded()
            self.state_needed = self.startup
            self.answers_first = self.discarded = True
            if unpin and self.pins:
                self.pins = NO_PINS
                self.step("unpin")

    def server_lost(self, error: TiergateError, said: bytes) -> None:
        self.server = None
        if not said:
            self.account.stats.error(error.sqlstate)
            self.write(encode.refusal(error, "FATAL"))
        self._close()
