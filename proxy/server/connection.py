"""One connection to a PostgreSQL server: matches replies with what was asked and passes them on.

The hot path is `data_received`: scan the chunk, let the pipeline say what each told frame is, and hand the
session the chunk itself when nothing in it was ours. All that is known of the server's session state
(parameters, prepared statements, transaction status) lives here, next to the replies that change it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from proxy.errors import ProtocolViolation, ServerProtocolError, TiergateError
from proxy.net.clock import monotonic
from proxy.net.transport import Transport, deliver
from proxy.protocol import pipeline as owed
from proxy.protocol import state as states
from proxy.protocol.lifecycle import ServerState, Stage, step
from proxy.protocol.pipeline import DROP, FORWARD, Expect
from proxy.protocol.state import EMPTY, with_parameter
from proxy.protocol.statements import PREFIX, Description, Prepared, Statement
from proxy.server.ending import closed, fatal, last_words, nonsense, unasked
from proxy.server.link import Link, Owner
from proxy.server.stated import Stated
from proxy.wire import decode, encode
from proxy.wire.frames import FROM_SERVER, HEAD, HEADER_SIZE, MORE, Scanner
from proxy.wire.pieces import joined, piece, put

if TYPE_CHECKING:
    from proxy.admission.accounts import Account, Counter
    from proxy.admission.guarantees import Guarantee
    from proxy.model import Endpoint

IDLE, IN_TRANSACTION, FAILED = ord("I"), ord("T"), ord("E")
_READY, _ERROR, _STATUS, _COMPLETE, _COPY_IN, _COPY_BOTH, _NOTIFICATION = b"ZESCGWA"
_BATCH = owed.BATCH
_IDLE, _IN_TRANSACTION, _FAILED = IDLE, IN_TRANSACTION, FAILED  # C integers where this is compiled
_ENDS_OF_BLOCKS = frozenset({b"COMMIT\0", b"ROLLBACK\0", b"PREPARE TRANSACTION\0"})
_TOLD_TAGS = b"ACDPR"  # what the tags begin with of which more is made
_ALTERED = (b"ALTER ", b"CREATE ", b"DROP ")


class ServerConnection(Stated):
    __slots__ = (
        "_done", "_job_failed", "_undone", "account", "address", "cancels", "carried", "charged", "clean_at",
        "closing", "copy_in", "dirty", "endpoint", "generation", "guarantee", "hurried", "idle_since", "key",
        "last_error", "lent_at", "link", "named_in", "opened_at", "owner", "permits", "pid", "place", "prepared",
        "query_since", "scanner", "spent", "state", "state_error", "stats", "status", "struck", "struck_at", "to_close",
        "transport", "unnamed", "unnamed_as", "unnamed_in", "uses", "write_paused", "xact_since",
    )  # fmt: skip

    def __init__(
        self,
        owner: Owner[ServerConnection],
        endpoint: Endpoint,
        *,
        pid: int,
        key: bytes,
        parameters: dict[str, str],
        max_prepared: int,
        generation: int,
    ) -> None:
        super().__init__(parameters)
        self.owner, self.stats = owner, owner.stats
        self.endpoint, self.address = endpoint, str(endpoint)
        self.generation, self.pid, self.key = generation, pid, key
        self.prepared = Prepared(max_prepared)
        self.unnamed: Statement | None = None
        self.unnamed_as: Description | None = None  # if it is known
        self.named_in = self.unnamed_in = -1  # the batch in which a statement was last parsed or closed
        self.to_close: list[bytes] = []
        self.scanner, self.status = Scanner(FROM_SERVER), IDLE
        self.state: Stage = ServerState.LOGIN
        self.dirty = self.spent = False  # holds something that only a reset clears; that none does
        self.cancels = self.uses = self.clean_at = 0  # `clean_at`: the last use to leave no numbers
        self.carried = self.place = 0  # bytes since it was last ready for a query; among the active
        self.copy_in = self.closing = self.hurried = self.write_paused = False
        self._job_failed = self._undone = False
        self.link: Link | None = None
        self.account: Account | None = None
        self.guarantee: Guarantee | None = None  # of the account, that it counts for
        self.permits: tuple[Counter, ...] = ()
        self.struck = ""  # the limit for which the running query was cancelled
        self.state_error = self.last_error = b""  # of the last also the tag of a ROLLBACK
        self.opened_at = self.idle_since = monotonic()
        self.query_since = self.xact_since = self.struck_at = self.lent_at = self.charged = 0.0
        self._done: Callable[[bool], None] | None = None
        self.transport: Transport

    # --- asyncio ------------------------------------------------------------------------------------

    def take_transport(self, transport: Transport) -> None:
        self.transport = transport

    def pause_writing(self) -> None:
        self.write_paused = True
        if self.link is not None:
            self.link.pause_client()

    def resume_writing(self) -> None:
        self.write_paused = False
        if self.link is not None:
            self.link.resume_client()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.state = ServerState.GONE
        self.owner.lost(self)
        self._tell_lost(closed(self.address, exc))

    def data_received(self, data: bytes) -> None:
        if self.closing:
            return
        self.stats.bytes_sent += len(data)
        self.carried += len(data)
        scanner, pipeline, sent = self.scanner, self.pipeline, 0
        scanner.feed(data)
        pieces: list[bytes] | None = None
        if pipeline.said and not scanner.skip:  # what it was to follow came in part and is whole now
            sent = scanner.pos
            pieces = self._with_said([scanner.data[:sent]])
        try:
            while (told := scanner.next()) != MORE:
                data, start, stop, kind = scanner.data, scanner.start, scanner.stop, scanner.kind
                head = pipeline.head()
                if (
                    head is not None
                    and head.kind == _BATCH
                    and kind != _STATUS
                    and (kind != _READY or scanner.counted != len(head.says) - 1)
                ):
                    head = pipeline.unfold(scanner.counted)
                action = pipeline.reply(kind)
                replacement = b""
                if kind == _READY:
                    self._ready(data[stop - 1], head)
                    undone, self._undone = self._undone, False
                    if head is not None and head.restores and not undone and self.link is not None:
                        replacement = self.link.taken_back(head.restores) + data[start:stop]
                elif kind == _COMPLETE:
                    self.copy_in = False
                    if stop - start > HEADER_SIZE and data[start + 5] in _TOLD_TAGS:
                        self._completed(data[start + 5 : stop], head)
                    elif head is not None and head.learn is not None and head.kind == owed.QUERY:
                        action = DROP if head.learn(kind, b"", True) else action
                elif kind == _ERROR:
                    frame = data[start:stop]
                    action, replacement = self._error(frame, head, action, whole=told != HEAD)
                    if head is None and fatal(frame):
                        action = unasked(self, joined(put(pieces, piece(data, sent, start)), b""))
                        pieces, sent = None, start
                    if head is not None and head.crucial:
                        self._state_settled(put(pieces, data[sent:start]))
                        return
                elif kind == _STATUS:
                    action, replacement = self._reported(data[start + 5 : stop], head, action)
                elif kind in (_COPY_IN, _COPY_BOTH):
                    self.copy_in = pipeline.copy_in_began()
                    if self.link is not None:
                        self.link.copy_began(self.copy_in, pipeline.ends)
                elif kind == _NOTIFICATION:
                    replacement = b"" if self.link is None else self.link.notified(data[start:stop])
                elif head is not None and head.learn is not None:
                    action = DROP if head.learn(kind, data[start + 5 : stop], told != HEAD) else action
                if action == DROP or replacement:
                    pieces = put(put(pieces, piece(data, sent, start)), replacement)
                    sent = stop
                if pipeline.said and not scanner.skip:
                    pieces = self._with_said(put(pieces, data[sent:stop]))
                    sent = stop
                if kind == _READY and head is not None and head.action == DROP and not head.tolerant:
                    self._state_settled(pieces)
                    pieces = None
                scanner.interest = pipeline.interest()
        except (ServerProtocolError, ProtocolViolation) as error:
            self.distrust(nonsense(self.address, error))
            return
        data, stop = scanner.data, scanner.pos
        link = self.link
        if link is not None:
            if sent or pieces is not None:
                if data := joined(pieces, piece(data, sent, stop)):
                    link.replies(data)
            elif stop:
                link.replies(data if stop == len(data) else data[:stop])
            if pipeline.head() is None and self.link is link:
                link.server_ready()
        elif self._done is not None and not pipeline:
            done, self._done = self._done, None
            done(not self._job_failed and self.status == _IDLE)

    # --- what replies mean --------------------------------------------------------------------------

    def _ready(self, status: int, head: Expect | None) -> None:
        if status not in (_IDLE, _IN_TRANSACTION, _FAILED):
            raise ServerProtocolError(internal=f"transaction status {status}")
        self.status = status
        if self.entered:
            self.settle(open=status != _IDLE, undone=self._undone)
        self.copy_in = False
        self.struck = ""
        if head is None or head.action == DROP:
            return
        now = monotonic()
        query, xact = now - self.query_since, 0.0
        account = self.account
        if account is not None:
            account.stats.bytes += self.carried
            account.stats.queries += 1
            account.stats.durations.add(query)
            if status == _IDLE:
                account.stats.transactions += 1
                xact = now - self.xact_since
        self.stats.add_query(query, xact)
        self.query_since, self.carried = now, 0
        if status == _IDLE:
            self.xact_since = now

    def _with_said(self, pieces: list[bytes] | None) -> list[bytes] | None:
        for said in self.pipeline.take_said():
            pieces = put(pieces, said)
        return pieces

    def _state_settled(self, pieces: list[bytes] | None) -> None:
        """Our settings are in force or refused; what is `pieces` so far belongs to the client before that."""
        link = self.link
        if link is None:
            return
        if before := joined(pieces, b""):
            link.replies(before)
        error, self.state_error = self.state_error, b""
        link.state_ready(error)

    def _completed(self, tag: bytes, head: Expect | None) -> None:
        if head is not None and head.learn is not None:
            head.learn(_COMPLETE, tag, True)
        if tag == b"DISCARD ALL\0":
            batch = [entry.kind for entry in self.pipeline.entries if entry.action == FORWARD]
            alone = owed.BIND not in batch and batch.count(owed.QUERY) <= 1
            self.prepared.clear()
            self.values = EMPTY
            self.dirty = self.dirty and not alone
            if self.link is not None:
                self.link.reset_by_client(everything=True, unpin=alone)
        elif tag in _ENDS_OF_BLOCKS:
            if tag == b"ROLLBACK\0":
                self.last_error, self._undone = tag, True
            elif tag == b"COMMIT\0" and not self.alone:
                self.entered = ""
            if self.link is not None:
                self.link.block_ended(tag != b"ROLLBACK\0")
        elif tag == b"DEALLOCATE ALL\0":
            self.prepared.clear()
            if self.link is not None:
                self.link.reset_by_client(everything=False, unpin=False)
        elif tag.startswith(_ALTERED):
            self.owner.schema.version += 1

    def _reported(self, body: bytes, head: Expect | None, action: int) -> tuple[int, bytes]:
        """What becomes of a ParameterStatus, and what is said in its place."""
        name, value = decode.parameter_status(body)
        lower = name.lower()
        states.display_names[lower] = name
        self.reported = with_parameter(self.reported, lower, value)
        if action == DROP or self.link is None:
            gone = self.link is None and lower in self.values.parameters  # whose transaction is rolled back
            if gone or (head is not None and head.tolerant):  # or set again behind a RESET that may have been
                self.values = with_parameter(self.values, lower, value)
            return DROP, b""
        if head is None or head.restores is None or lower not in head.restores:
            self.link.reported(lower, value)
            return action, b""
        if not self.link.reported(lower, restored := head.restores[lower]):
            return DROP, b""
        return action, states.status(lower, restored)

    def _error(self, frame: bytes, head: Expect | None, action: int, *, whole: bool) -> tuple[int, bytes]:
        """What becomes of an ErrorResponse, and what is said in its place (b"": nothing else)."""
        self.copy_in = False
        sqlstate = decode.sqlstate(frame)
        self.last_error, self._undone = frame, True
        if head is not None and action == DROP:
            self._job_failed = True
            if not head.tolerant or fatal(frame):
                self.state_error = frame
            elif self.status != _FAILED:
                self.dirty = True
            return action, b""
        if self.account is not None:
            ours = head.error if head is not None else b""
            self.account.stats.error(decode.sqlstate(ours or frame))
        if sqlstate == "42501" and self.sealer is not None:
            self.seal_due = 0.0  # what is there may be of a client's making
        if head is None or not whole:
            return action, b""
        statement = head.statement
        changed = sqlstate == "0A000" and b"\0RRevalidateCachedQuery\0" in frame
        if changed and statement is not None and statement.name:
            self.prepared.remove(statement)
            self.to_close.append(statement.name)
            self.owner.retire(statement)
        if head.error:
            return action, head.error
        if self.struck and sqlstate == "57014":
            return action, encode.error(f"canceling statement due to {self.struck}", sqlstate)
        if PREFIX in frame and self.link is not None:
            return action, self.link.rename_statement(frame)
        learn = head.learn if head.kind == owed.QUERY else None
        moved = learn(_ERROR, frame, True) if learn is not None else None
        return action, moved if isinstance(moved, bytes) else b""

    # --- what is asked of it ------------------------------------------------------------------------

    def step(self, event: str) -> None:
        self.state = self.state.after if event is self.state.last else step("server", self.state, event)

    def expect(self, entry: Expect) -> None:
        self.pipeline.expect(entry)

    def expect_batch(self, entry: Expect) -> None:
        """It is all that is owed, so that its replies are told from the first one on as it wants."""
        self.scanner.counted = 0
        self.pipeline.expect(entry)

    def send(self, data: bytes) -> None:
        self.scanner.interest = self.pipeline.interest()
        deliver(self.transport, data)

    def begin(self, now: float) -> None:
        """A transaction (or a query of one) begins now, if nothing is owed yet."""
        if not self.pipeline.owes():
            self.query_since = now
            if self.status == _IDLE:
                self.xact_since = now

    def prepare(self, statement: Statement) -> bytes:
        """The messages that make `statement` known here ahead of its use; b"" if it is."""
        if self.prepared.use(statement):
            return self.close_stale() if self.to_close else b""
        out = self.make_room(statement)
        self.named_in = self.pipeline.asked
        self.expect(Expect(owed.PARSE, DROP, statement=statement, undo=partial(self._unprepared, statement)))
        return out + encode.parse(statement.name, statement.text, statement.oids)

    def _unprepared(self, statement: Statement, failed: bool) -> None:
        self.prepared.remove(statement)

    def make_room(self, statement: Statement) -> bytes:
        """Counts `statement` as prepared and closes what must go for it."""
        self.to_close.extend(old.name for old in self.prepared.add(statement))
        return self.close_stale()

    def close_stale(self) -> bytes:
        if not self.to_close:
            return b""
        names, self.to_close = self.to_close, []
        self.named_in = self.pipeline.asked
        for name in names:
            self.expect(Expect(owed.CLOSE, DROP, undo=partial(self._not_closed, name)))
        return b"".join(encode.close(b"S", name) for name in names)

    def _not_closed(self, name: bytes, failed: bool) -> None:
        self.to_close.append(name)

    def run(self, text: str, done: Callable[[bool], None]) -> None:
        """Runs a query of our own on an unlinked connection; `done` learns whether it succeeded."""
        self._done, self._job_failed = done, False
        self.expect(owed.DROP_QUERY)
        self.send(encode.query(text.encode()))

    def was_reset(self) -> None:
        self.prepared.clear()
        self.to_close.clear()
        self.unnamed, self.values, self.dirty, self.clean_at = None, EMPTY, False, self.uses
        self.entered = ""

    # --- the end ------------------------------------------------------------------------------------

    def distrust(self, error: TiergateError) -> None:
        self._tell_lost(error)
        self.abort()

    def _tell_lost(self, error: TiergateError) -> None:
        link, self.link = self.link, None
        if link is not None:
            link.server_lost(*last_words(error, self.last_error, self.state_error))

    def close(self) -> None:
        """Says goodbye; the server's hanging up ends it, so that its permit covers the backend's whole life."""
        if not self.closing:
            self.closing = True
            self.transport.write(encode.TERMINATE)
            self.transport.resume_reading()

    def abort(self) -> None:
        self.closing = True
        self.transport.abort()
