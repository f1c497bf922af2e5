"""The replies that one server connection still owes, in order.

Theory. A PostgreSQL server answers in the order it was asked, but a reply does not say which request it
belongs to. So every request written to a server, the client's or our own, leaves an Expect in one queue,
and every reply is matched with the head of it:

- FORWARD: the client asked; it reads the reply.
- DROP: we asked (settings, statements to prepare); nobody reads the reply.
- INJECT: the server was not asked at all; when the entry reaches the head its bytes are said to the client.

A reply *completes* the head or not: ParseComplete completes a Parse, a RowDescription completes a
Describe, CommandComplete, EmptyQueryResponse or PortalSuspended an Execute, and only ReadyForQuery
completes a Sync or a simple Query (whose rows and tags all belong to the one entry). A reply that
cannot belong to the head is an error: the server and we disagree, and nothing later could be trusted.

After an ErrorResponse within an extended batch the server ignores everything up to the next Sync. So does
the queue: entries up to the Sync are taken back newest first (`undo`), injected replies among them unsaid;
if the Sync has not been sent yet, later entries are taken back as they come.

A server that has begun a COPY FROM STDIN ignores a Sync until the copy is over; `copy_in_began` forgets those
that were sent behind the Execute and ahead of the copy's end, which leaves a mark of its own (COPY_END).

A batch of the usual form that comes whole may be one entry (BATCH, see `batch_of`). Of the replies to it only how many
there have been is known; as soon as that is not enough, it becomes the requests that it is made of (`unfold`).

The queue is pure: `reply` says what to do with a frame and collects in `said` what is to be injected behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from proxy.errors import ServerProtocolError
from proxy.wire.frames import (
    FROM_SERVER,
    FROM_SERVER_BATCH,
    FROM_SERVER_DESCRIBING,
    FROM_SERVER_DROPPING,
    FROM_SERVER_ROWS,
)

if TYPE_CHECKING:
    from proxy.protocol.statements import Statement

FORWARD, DROP, INJECT = 0, 1, 2

PARSE, BIND, DESCRIBE, EXECUTE, CLOSE, COPY_END, SYNC, QUERY, BATCH = 0, 1, 2, 3, 4, 5, 6, 7, 8
# From here on a ReadyForQuery is the end.
_ENDS = SYNC
_BATCH = BATCH
_FORWARD, _DROP, _INJECT = FORWARD, DROP, INJECT

_COMPLETES: dict[int, bytes] = {
    PARSE: b"1",
    BIND: b"2",
    DESCRIBE: b"Tn",
    EXECUTE: b"CIs",
    CLOSE: b"3",
    SYNC: b"Z",
    QUERY: b"Z",
    BATCH: b"Z",
}
_BELONGS: dict[int, bytes] = {
    DESCRIBE: b"t",
    EXECUTE: b"DdcGHW",
    QUERY: b"TDCIdcGHWV",
}
_ANY_TIME = b"NAS"
_ERROR, _NOTIFICATION = b"EA"

_FOREIGN, _PART, _WHOLE, _ASIDE = 0, 1, 2, 3


def _meanings() -> bytes:
    """What a reply is to the head of the queue: one byte for each (kind of the head, type of the reply)."""
    table = bytearray(256 * (BATCH + 1))
    for kind in range(BATCH + 1):
        for replies, meaning in (
            (_BELONGS.get(kind, b""), _PART),
            (_COMPLETES.get(kind, b""), _WHOLE),
            (_ANY_TIME, _ASIDE),
        ):
            for reply in replies:
                table[kind << 8 | reply] = meaning
    return bytes(table)


_MEANING = _meanings()


class Expect:
    """One reply that is owed.

    says: the bytes of an INJECT, or the kinds of what a BATCH is made of. statement: which one the request uses.
    undo(failed): takes back what was assumed of a request that the server refused (failed) or ignored (not failed).
    error: the ErrorResponse to say in place of the server's own. tolerant: of a DROP, that an error is no reason to
    distrust the server.
    crucial: of a DROP within the client's batch, that nothing of it makes sense after an error.
    restores: parameters (lower case) that are set again right behind this request, so that what it makes of
    them is not told. learn(kind, body, whole): wants to know the answer of a Describe, and which PREPAREs and
    DEALLOCATEs are done; of a Query, it may have a reply left out (True) or an error replaced (bytes). interest: which
    replies must be told while this is the head.
    """

    __slots__ = (
        "action", "crucial", "error", "interest", "kind", "learn", "restores", "says", "statement", "tolerant", "undo",
    )  # fmt: skip

    def __init__(
        self,
        kind: int,
        action: int = FORWARD,
        *,
        says: bytes = b"",
        statement: Statement | None = None,
        undo: Callable[[bool], None] | None = None,
        error: bytes = b"",
        tolerant: bool = False,
        crucial: bool = False,
        restores: Mapping[str, str] | None = None,
        learn: Callable[[int, bytes, bool], bool | bytes | None] | None = None,
        interest: bytes = FROM_SERVER,
    ) -> None:
        if learn is not None:
            interest = FROM_SERVER_DESCRIBING
        self.kind = kind
        self.action = action
        self.interest = FROM_SERVER_DROPPING if action == DROP else interest
        self.says = says
        self.statement = statement
        self.undo = undo
        self.error = error
        self.tolerant = tolerant
        self.crucial = crucial
        self.restores = restores
        self.learn = learn


def expect_of(
    kind: int, statement: Statement | None, undo: Callable[[bool], None] | None, action: int = FORWARD
) -> Expect:
    """The frequent ones of those that carry something, made without keywords."""
    entry: Expect = Expect.__new__(Expect)
    entry.kind = kind
    entry.action = action
    entry.interest = FROM_SERVER if action != _DROP else FROM_SERVER_DROPPING
    entry.says = entry.error = b""
    entry.statement = statement
    entry.undo = undo
    entry.tolerant = entry.crucial = False
    entry.restores = entry.learn = None
    return entry


def batch_of(kinds: bytes, statement: Statement, undo: Callable[[bool], None] | None) -> Expect:
    """An extended batch with its Sync, in the order of `kinds`: `undo` is of its Parse, `statement` what is bound."""
    entry: Expect = expect_of(_BATCH, statement, undo)
    entry.says = kinds
    entry.interest = FROM_SERVER_BATCH
    return entry


# Entries that carry nothing are shared.
FORWARD_PARSE = Expect(PARSE)
FORWARD_BIND = Expect(BIND)
FORWARD_DESCRIBE = Expect(DESCRIBE)
FORWARD_EXECUTE = Expect(EXECUTE)
FORWARD_CLOSE = Expect(CLOSE)
FORWARD_SYNC = Expect(SYNC)
FORWARD_QUERY = Expect(QUERY)
FORWARD_PLAIN_QUERY = Expect(QUERY, interest=FROM_SERVER_ROWS)
DROP_PARSE = Expect(PARSE, DROP)
DROP_BIND = Expect(BIND, DROP)
DROP_EXECUTE = Expect(EXECUTE, DROP)
DROP_CLOSE = Expect(CLOSE, DROP)
DROP_SYNC = Expect(SYNC, DROP)
DROP_QUERY = Expect(QUERY, DROP)
COPY_ENDS = Expect(COPY_END, INJECT)
_GAP = 64


class Pipeline:
    """Batches (what ends in a ReadyForQuery) are numbered: `asked` is the number of the one that is being asked,
    those below `answered` have been answered. The head of the queue stands outside of the list of the others, so that
    a request that is alone costs no list; those that have left the list in front only leave room there."""

    __slots__ = ("_behind", "_gone", "_head", "_skipping", "answered", "asked", "said")

    def __init__(self) -> None:
        self.asked = 0
        self.answered = 0
        self._head: Expect | None = None
        self._behind: list[Any] = []  # of Expect; None where one has left
        self._gone = 0
        self.said: list[bytes] = []
        self._skipping = False

    def owes(self) -> bool:
        """There is something to come, or to be skipped."""
        return self._skipping or self._head is not None

    def __bool__(self) -> bool:
        return self.owes()

    @property
    def skipping(self) -> bool:
        """The batch has failed, and its Sync has not been sent."""
        return self._skipping

    def head(self) -> Expect | None:
        """What is owed next; None: nothing is."""
        return self._head

    @property
    def entries(self) -> list[Expect]:
        """All that is owed."""
        return [] if self._head is None else [self._head, *self._behind[self._gone :]]

    def _next(self) -> None:
        """The head is owed no more."""
        behind, gone = self._behind, self._gone
        if gone == len(behind):
            self._head = None
            return
        self._head = behind[gone]
        behind[gone] = None
        gone += 1
        if gone == len(behind) or (gone > _GAP and 2 * gone > len(behind)):
            del behind[:gone]
            gone = 0
        self._gone = gone

    @property
    def settling(self) -> bool:
        """A batch of our own is under way whose failure would be no client's."""
        return any(
            entry.kind >= _ENDS and entry.action == DROP and entry.statement is None for entry in self.entries
        )

    @property
    def ends(self) -> bool:
        """A ReadyForQuery is owed."""
        return any(entry.kind >= _ENDS for entry in self.entries)

    @property
    def ends_so(self) -> bool:
        """It is the last that is owed, so that the server keeps back nothing."""
        return self._head is not None and self.entries[-1].kind >= _ENDS

    @property
    def ready_for_query_owed(self) -> int:
        """How many ReadyForQuery the client waits for."""
        return sum(entry.kind in (SYNC, QUERY, BATCH) and entry.action == FORWARD for entry in self.entries)

    def interest(self) -> bytes:
        """Which replies must be told now."""
        head = self._head
        return FROM_SERVER if head is None else head.interest

    def take_said(self) -> list[bytes]:
        said, self.said = self.said, []
        return said

    def expect(self, entry: Expect) -> None:
        """Queues `entry`; an INJECT that is at once at the head is put into `said`."""
        if self._skipping:
            if entry.kind != SYNC:
                if entry.undo is not None:
                    entry.undo(False)
                return
            self._skipping = False
        if self._head is not None:
            self._behind.append(entry)
        elif entry.action == _INJECT:
            self.said.append(entry.says)
            return
        else:
            self._head = entry
        if entry.kind >= _ENDS:
            self.asked += 1

    def reply(self, kind: int) -> int:
        """FORWARD or DROP for a reply of type `kind`; moves the queue on if the reply completes its head."""
        head = self._head
        if head is None:
            if kind == _ERROR or kind in _ANY_TIME:  # the server's last word, which no request caused
                return _FORWARD
            raise ServerProtocolError(internal=f"a reply of type {chr(kind)!r} that no request caused")
        meaning = _MEANING[head.kind << 8 | kind]
        if meaning == _WHOLE:
            self._next()
            following = self._head
            if following is None:
                self.answered = self.asked
                return head.action
            if head.kind >= _ENDS:
                self.answered += 1
            if following.action == _INJECT:
                self._say()
            return head.action
        if meaning == _ASIDE:
            return _FORWARD if kind == _NOTIFICATION else head.action
        if kind == _ERROR:
            self._fail(head)
            # A statement that we had to prepare again fails for the client that uses it.
            return _FORWARD if head.statement is not None else head.action
        if meaning == _FOREIGN:
            raise ServerProtocolError(
                internal=f"a reply of type {chr(kind)!r} to a request of kind {head.kind}"
            )
        return head.action

    def unfold(self, done: int) -> Expect:
        """The BATCH at the head becomes its requests, of which the first `done` have been answered."""
        batch = self._head
        if batch is None or done >= len(batch.says):
            raise ServerProtocolError(internal="more replies than a batch has requests")
        rest = [
            expect_of(kind, batch.statement if kind == BIND else None, batch.undo if kind == PARSE else None)
            for kind in batch.says[done:]
        ]
        self._head = rest[0]
        self._behind[self._gone : self._gone] = rest[1:]
        return rest[0]

    def copy_in_began(self) -> bool:
        """The server reads CopyData now and ignores what Syncs were sent behind the Execute or Query.

        Returns whether the copy is still open, that is whether its end has not been sent yet.
        """
        behind, gone = self._behind, self._gone
        while gone < len(behind) and behind[gone].kind == SYNC:
            del behind[gone]
        return gone == len(behind) or behind[gone].kind != COPY_END

    def _say(self) -> None:
        while self._head is not None and self._head.action == _INJECT:
            self.said.append(self._head.says)
            self._next()

    def _fail(self, head: Expect) -> None:
        if head.kind in (SYNC, QUERY):
            return
        ignored: list[Expect] = []
        while self._head is not None and self._head.kind != SYNC:
            ignored.append(self._head)
            self._next()
        for entry in reversed(ignored):
            if entry.undo is not None:
                entry.undo(entry is head)
        if self._head is None:
            self._skipping = True
