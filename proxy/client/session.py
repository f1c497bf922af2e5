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
        scanner = self.scanner
        scanner.feed(data)
        sent = 0
        if self.watch is not None:
            if not look(self, scanner.data[: scanner.pos]):
                sent = scanner.pos
            if not scanner.skip:
                self.watch = None
        server = self.server
        out: list[bytes] | None = None
        metered = self.account.gate is not None or self.skipping
        if server is not None and not server.pipeline.owes():
            server.begin(monotonic())
        while (told := scanner.next()) != MORE:
            kind, start = scanner.kind, scanner.start
            if kind == _TERMINATE:
                self._flush(server, out, piece(scanner.data, sent, start))
                self._terminate()
                return
            chooser = self.chooser
            if chooser is not None and chooser.begun is not None and self._begins_again(kind, told):
                sent, server = start, None
            if chooser is not None and self._is_heard(server, kind):
                heard = self._hear(server, kind, told)
                if server is not None:
                    out = put(out, piece(scanner.data, sent, start))
                sent = scanner.stop
                if heard == DONE:
                    continue
                if heard == SEEK:
                    self._flush(server, out, b"")
                    hold_for(self, chooser.seek())
                    return
                if heard == AGAIN:
                    self._flush(server, out, b"")
                    rest = scanner.data[scanner.start : scanner.stop]
                    self._process(chooser.again + scanner.rewind()[len(rest) :])
                    return
                if server is not None:
                    if not chooser.turn() and self._answered(kind):
                        continue
                    metered = self.account.gate is not None
                    if self.server is None:
                        server = None
                    elif metered and not may_begin(self):
                        if self._answered(kind):
                            continue
                        return
                    elif not self.enter(server):
                        self._flush(server, out, b"")
                        return
                    else:
                        sent = start
            if server is None:
                sent = scanner.stop
                if (kind in SERVERLESS or self.skipping or self.answer) and self._answered(kind):
                    continue
                server = self._link()
                if server is None:
                    if self.answer and self._answered(kind):  # refused at once
                        continue
                    return
                ahead = self._bring(server)
                if ahead is None:
                    return
                out = put(out, ahead)
                metered = self.account.gate is not None
                sent = start
            if metered and (due := pay(self, server, kind)) != PAID:
                out = put(out, piece(scanner.data, sent, start))
                sent = start
                if due == BEHIND:
                    self._flush(server, out, self._hold_back(server))
                    return
                if due == HALT:
                    self._flush(server, out, b"")
                    out = None
                    if self._halt(server):
                        return
                if self._answered(kind):
                    sent = scanner.stop
                    continue
            if (
                chooser is not None
                and self.unsynced
                and not chooser.working
                and self._opens(server, kind, told)
            ):
                out = put(out, piece(scanner.data, sent, start))
                if not server.pipeline:
                    server.expect(DROP_SYNC)
                    out = put(out, encode.SYNC)
                    self.unsynced = False
                self._flush(server, out, self._hold_back(server))
                return
            waits = self.answers_first or self.confirming == SENT
            if chooser is not None:
                if not self.unsynced:  # each batch may be for another tenant
                    chooser.over = False
                    waits = waits or not self.entering
                self.entering = False
            if waits and self._must_wait(server, kind):
                out = put(out, piece(scanner.data, sent, start))
                self._flush(server, out, self._hold_back(server))
                return
            try:
                instead = handle(kind, self, server, scanner.data, start, scanner.stop, told)
            except ProtocolViolation:
                # The server says what is wrong with it, as it does without us.
                server.expect(MALFORMED[kind])
                continue
            except AnswersFirst as wanted:
                out = put(out, piece(scanner.data, sent, start))
                out = put(out, wanted.ahead)
                self._flush(server, out, self._hold_back(server))
                return
            except EvictFirst as eviction:
                self._flush(server, out, piece(scanner.data, sent, start))
                hold_for(self, evict(self, eviction.databases))
                return
            if metered:
                asked(self, kind, told)
            if instead is not None:
                if told == HEAD and kind != _BIND and self.watch is not DROPPED:
                    # What is still to come of it would be read as frames that nobody has looked at.
                    raise ProtocolViolation("invalid message length")
                out = put(put(out, piece(scanner.data, sent, start)), instead)
                sent = scanner.stop
            # Else behind the frame that has come in part.
            if server.pipeline.said and not server.scanner.skip:
                self.write(b"".join(server.pipeline.take_said()))
        if server is not None:
            stop = scanner.pos
            rest = scanner.data if not sent and stop == len(scanner.data) else piece(scanner.data, sent, stop)
            scanner.forget()
            self._flush(server, out, rest)
            if not server.pipeline.owes():
                self.server_ready()

    def _must_wait(self, server: ServerConnection, kind: int) -> bool:
        """Whether a request waits for the answers; the data of a COPY are part of what is to be answered."""
        return server.pipeline.head() is not None and not server.copy_in and kind not in COPY_ENDS

    def _flush(self, server: ServerConnection | None, out: list[bytes] | None, rest: bytes) -> None:
        if server is None:
            return
        rest = joined(out, rest)
        if rest:
            self.pool.stats.bytes_received += len(rest)
            server.carried += len(rest)
            server.send(rest)

    # --- the tenant's rate --------------------------------------------------------------------------

    def _halt(self, server: ServerConnection) -> bool:
        """The request at hand may not go on now. True: it is parked, or begun anew without a connection; else it has an
        error to answer."""
        if self.chooser is not None:
            self.chooser.ended(server)
        self.loosen(server)
        if self.holding:  # the connection is asked first what it must be asked before it is given back
            self._park(self.scanner.rewind())
        elif self.server is None or may_begin(self):
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
