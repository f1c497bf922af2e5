"""One client's conversation after its login: its requests go to a server connection, the replies come back.

Linked and nothing to look into, a chunk goes from `data_received` to the server connection in a few calls.
Waiting for a connection, the session parks its one batch (see `linking.py`). Whatever ends it, `_close` is
the one place that says what becomes of its server connection.
"""

from __future__ import annotations

import asyncio

from proxy import log
from proxy.client import effects
from proxy.client.answering import AGAIN, DONE, SEEK
from proxy.client.entering import SENT
from proxy.client.hearing import COPY_ENDS, SERVERLESS, Hearing
from proxy.client.parking import evict, hold_for
from proxy.client.refusals import TooLong, look
from proxy.client.requests import MALFORMED, handle
from proxy.client.throttling import BEHIND, HALT, PAID, asked, may_begin, pay
from proxy.client.waits import AnswersFirst, EvictFirst
from proxy.errors import ProtocolViolation, QueryCanceled, TiergateError
from proxy.net.clock import monotonic
from proxy.protocol.lifecycle import SessionState
from proxy.protocol.pipeline import DROP_SYNC
from proxy.server.connection import IDLE, ServerConnection
from proxy.sql.watch import DROPPED
from proxy.wire import encode
from proxy.wire.frames import HEAD, MORE
from proxy.wire.pieces import joined, piece, put

_log = log.get("session")
_TERMINATE, _BIND = b"XB"
_GO, _NEXT, _STOP = 0, 1, 2  # with the request at hand, with the next one, or not now
_WAITING, _CLOSED = SessionState.WAITING, SessionState.CLOSED


class Session(Hearing):
    __slots__ = ()

    # --- the client's socket ------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.state is _WAITING or self.holding:
            self._park(data)
        elif self.state is not _CLOSED and not self.leaving:
            self._process(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        if self.inquiry is not None:
            self.leaving = True  # what it has asked meanwhile is still done
        elif not self.leaving or self.server is None:
            self._close()

    def pause_writing(self) -> None:
        self.write_paused = True
        if self.server is not None:
            self.server.transport.pause_reading()

    def resume_writing(self) -> None:
        self.write_paused = False
        if self.server is not None:
            self.server.transport.resume_reading()

    # --- requests -----------------------------------------------------------------------------------

    def _process(self, data: bytes) -> None:
        try:
            self._read(data)
        except (ProtocolViolation, TooLong) as error:
            self.end(error)

    def _read(self, data: bytes) -> None:
        """Each request passes what may stop it, in this order: the chooser, the connection, the rate, the answers that it
        waits for. What has been read up to `sent` has been seen to; what stands behind goes to the server as it is, behind
        what is `outgoing`."""
        scanner = self.scanner
        scanner.feed(data)
        self.sent, self.outgoing = 0, None
        if self.watch is not None:
            if not look(self, scanner.data[: scanner.pos]):
                self.sent = scanner.pos
            if not scanner.skip:
                self.watch = None
        server = self.server
        if server is not None and not server.pipeline.owes():
            server.begin(monotonic())
        while (told := scanner.next()) != MORE:
            kind = scanner.kind
            if kind == _TERMINATE:
                self._send_ahead()
                self._terminate()
                return
            step = _GO if self.chooser is None else self._choose(kind, told)
            if step == _GO and self.server is None:
                step = self._connect(kind)
            server = self.server
            if step == _GO and server is not None:
                step = self._pass_on(server, kind, told)
            if step == _STOP:
                return
        server = self.server
        if server is not None:
            data, sent, stop = scanner.data, self.sent, scanner.pos
            scanner.forget()
            self._send(server, data if not sent and stop == len(data) else piece(data, sent, stop))
            if not server.pipeline.owes():
                self.server_ready()

    def _choose(self, kind: int, told: int) -> int:
        """What of it needs no server, or makes the session another tenant's."""
        chooser, scanner = self.chooser, self.scanner
        if chooser.begun is not None and self._begins_again(kind, told):
            self.sent = scanner.start
        server = self.server
        if not self._is_heard(server, kind):
            return _GO
        heard = self._hear(server, kind, told)
        if server is not None:
            self._put_ahead(b"")
        self.sent = scanner.stop
        if heard == DONE:
            return _NEXT
        if heard == SEEK:
            self._send(server, b"")
            hold_for(self, chooser.seek())
            return _STOP
        if heard == AGAIN:
            self._send(server, b"")
            rest = scanner.data[scanner.start : scanner.stop]
            self._process(chooser.again + scanner.rewind()[len(rest) :])
            return _STOP
        if server is None:
            return _GO
        if not chooser.turn() and self._answered(kind):
            return _NEXT
        if self.server is None:
            return _GO
        if self.account.gate is not None and not may_begin(self, monotonic()):
            return _NEXT if self._answered(kind) else _STOP
        if not self.enter(server):
            self._send(server, b"")
            return _STOP
        self.sent = scanner.start
        return _GO

    def _connect(self, kind: int) -> int:
        """Without a connection: what needs none is answered, for the rest there is one."""
        self.sent = self.scanner.stop
        if (kind in SERVERLESS or self.skipping or self.answer) and self._answered(kind):
            return _NEXT
        server = self._link()
        if server is None:
            return _NEXT if self.answer and self._answered(kind) else _STOP
        ahead = self._bring(server)
        if ahead is None:
            return _STOP
        self.outgoing = put(self.outgoing, ahead)
        self.sent = self.scanner.start
        return _GO

    def _pass_on(self, server: ServerConnection, kind: int, told: int) -> int:
        step = _GO
        if self.skipping or (self.account.gate is not None and (not self.paid or self.answer)):
            step = self._pay(server, kind)
        if step != _GO:
            return step
        first = self.entering
        self.entering = False
        if self.chooser is not None or self.answers_first or self.confirming == SENT:
            step = self._wait(server, kind, told, first)
        return self._ask(server, kind, told, first) if step == _GO else step

    def _pay(self, server: ServerConnection, kind: int) -> int:
        """Whether its tenant's rate lets it go on."""
        due = pay(self, server, kind)
        if due == PAID:
            return _GO
        self._put_ahead(b"")
        if due == BEHIND:
            self._send(server, self._hold_back(server, self.entering))
            return _STOP
        if due == HALT:
            self._send(server, b"")
            if self._halt(server):
                return _STOP
        if self._answered(kind):
            self.sent = self.scanner.stop
            return _NEXT
        return _GO

    def _wait(self, server: ServerConnection, kind: int, told: int, first: bool) -> int:
        """Whether it can go behind what has not been answered yet."""
        chooser = self.chooser
        if chooser is not None and self.unsynced and not chooser.working and self._opens(server, kind, told):
            self._put_ahead(b"")
            if not server.pipeline:
                server.expect(DROP_SYNC)
                self._put_ahead(encode.SYNC)
                self.unsynced = False
            self._send(server, self._hold_back(server, False))
            return _STOP
        waits = self.answers_first or self.confirming == SENT
        if chooser is not None and not self.unsynced:  # each batch may be for another tenant
            chooser.over = False
            waits = waits or not first
        if waits and self._must_wait(server, kind):
            self._put_ahead(b"")
            self._send(server, self._hold_back(server, False))
            return _STOP
        return _GO

    def _ask(self, server: ServerConnection, kind: int, told: int, first: bool) -> int:
        """It goes to the server, as it is or in another form."""
        scanner = self.scanner
        try:
            instead = handle(kind, self, server, scanner.data, scanner.start, scanner.stop, told)
        except ProtocolViolation:
            # The server says what is wrong with it, as it does without us.
            server.expect(MALFORMED[kind])
            return _NEXT
        except AnswersFirst as wanted:
            self._put_ahead(wanted.ahead)
            self._send(server, self._hold_back(server, first))
            return _STOP
        except EvictFirst as eviction:
            self._send_ahead()
            hold_for(self, evict(self, eviction.databases))
            return _STOP
        if self.account.gate is not None:
            asked(self, kind, told)
        if instead is not None:
            if told == HEAD and kind != _BIND and self.watch is not DROPPED:
                # What is still to come of it would be read as frames that nobody has looked at.
                raise ProtocolViolation("invalid message length")
            self._put_ahead(instead)
            self.sent = scanner.stop
        # Else behind the frame that has come in part.
        if server.pipeline.said and not server.scanner.skip:
            self.write(b"".join(server.pipeline.take_said()))
        return _NEXT

    def _must_wait(self, server: ServerConnection, kind: int) -> bool:
        """Whether a request waits for the answers; the data of a COPY are part of what is to be answered."""
        return server.pipeline.head() is not None and not server.copy_in and kind not in COPY_ENDS

    def _put_ahead(self, more: bytes) -> None:
        """What stands ahead of the request at hand is outgoing, and then this."""
        start = self.scanner.start
        self.outgoing = put(put(self.outgoing, piece(self.scanner.data, self.sent, start)), more)
        self.sent = start

    def _send_ahead(self) -> None:
        self._put_ahead(b"")
        self._send(self.server, b"")

    def _send(self, server: ServerConnection | None, last: bytes) -> None:
        """What is outgoing, and this."""
        pieces, self.outgoing = self.outgoing, None
        data = joined(pieces, last)
        if server is not None and data:
            self.pool.stats.bytes_received += len(data)
            server.carried += len(data)
            server.send(data)

    # --- the tenant's rate --------------------------------------------------------------------------

    def _halt(self, server: ServerConnection) -> bool:
        """The request at hand may not go on now. True: it is parked, or begun anew without a connection; else it has an
        error to answer."""
        if self.chooser is not None:
            self.chooser.ended(server)
        self.loosen(server)
        if self.holding:  # the connection is asked first what it must be asked before it is given back
            self._park(self.scanner.rewind())
        elif self.server is None or may_begin(self, monotonic()):
            self._process(self.scanner.rewind())
        else:
            return self.throttled is not None
        return True

    # --- the end ------------------------------------------------------------------------------------

    def cancel(self) -> asyncio.Task[None] | None:
        """The client's CancelRequest; what is under way to the server."""
        if self.throttled is not None:
            self.turned_away(QueryCanceled("canceling statement due to user request"))
        elif self.state is _WAITING:
            self.pool.leave(self)
            self.refused(QueryCanceled("canceling statement due to user request"))
        elif self.server is not None and self.server.pipeline.settling:
            # It must not strike the change of state, or what follows would run without it.
            self.cancel_wanted = True
        elif self.server is not None and self.server.pipeline:
            return self.pool.cancel(self.server)
        return None

    def learned(self, server: ServerConnection, error: bytes) -> None:
        """The answer to what we asked of the connection has come; what the client has asked meanwhile goes on."""
        effects.learned(self, server, error)
        self.holding = False
        wanted, self.cancel_wanted = self.cancel_wanted, False
        if not self.parked:
            return
        if not self.leaving:
            self.server_ready()  # others that wait come first
        self.resume()
        if wanted:
            self.cancel()

    def _terminate(self) -> None:
        """The client said goodbye; what it asked before is still done, as PostgreSQL does."""
        server = self.server
        if server is not None and server.pipeline.head() is not None and not server.copy_in:
            self.leaving = True
            if self.unsynced:
                server.send(encode.FLUSH)
        else:
            self._close()

    def end(self, error: TiergateError) -> None:
        """Ends the session with a FATAL of ours."""
        if self.state is _CLOSED:
            return
        self.account.stats.error(error.sqlstate)
        self.write(encode.refusal(error, "FATAL"))
        _log.log(
            error.level, "session ended", user=self.user.name, tenant=self.tenant.name, error=error.message
        )
        self._close()

    def _close(self) -> None:
        if self.state is _CLOSED:
            return
        if self.throttled is not None:
            self.step_out()
        elif self.state is _WAITING:
            self.pool.leave(self)
        self.step("close")
        server, self.server = self.server, None
        if server is not None:
            self._return(server)
        self.statements.clear()
        self.unnamed_by = None
        self.parked = b""
        self.release_permits()
        self.plane.leave(self)
        self.transport.close()
        if _log.enabled("info"):
            _log.info(
                "session closed", user=self.user.name, tenant=self.tenant.name, database=self.login.database,
                address=self.address, seconds=round(monotonic() - self.connected_at, 3),
            )  # fmt: skip

    def _return(self, server: ServerConnection) -> None:
        server.link = None
        if self.pins or self.doubts is not None or self.answers_first or self.discarded:
            server.dirty = True  # with what pins, or what it has not been asked for or set to again yet
        if self.write_paused and not server.transport.is_closing():
            server.transport.resume_reading()
        if server.pipeline or server.copy_in or self.scanner.skip:
            self.pool.abandon(server)
        elif server.status != IDLE or self.unsynced:
            self.pool.rollback(server)
        else:
            self.pool.checkin(server, True)
