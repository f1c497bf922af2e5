"""Holds a session's queries to the rates of its tenant: counts them, and has those wait that are over.

A session that waits is parked like one that waits for a connection, and takes up none meanwhile: one that has a
connection for nothing gives it back first, one that must keep its connection keeps it. Whoever stands in the line of a
tenant is called by one timer of that line. A session of a tenant without rates comes here never.

`paid` says that the next query of the session has been counted, so that what is read again is not counted again. What asks
nothing is not counted and never waits; nor does the end of a block (see `blanks.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.admission.gate import Gate, Timer
from proxy.client.blanks import COUNTS, FREE_EXECUTE, PASSES, blank
from proxy.errors import ProtocolViolation, RateExceeded
from proxy.net.clock import monotonic
from proxy.server.connection import IDLE, ServerConnection
from proxy.wire.decode import query_within
from proxy.wire.frames import HEAD, HEADER_SIZE
from proxy.wire.pieces import parted

if TYPE_CHECKING:
    from proxy.client.conversation import Conversation

Later = Callable[[float, Callable[[], None]], Timer]
PAID, BEHIND, HALT, SKIPPED = 0, 1, 2, 3
_QUERY = ord("Q")
# Seconds. A line is looked at no more often than the one, and, since its rates may have changed, no more seldom than
# the other.
_SOONEST, _LATEST = 0.002, 0.25


# --- what a session asks ----------------------------------------------------------------------------


def may_begin(session: Conversation, now: float) -> bool:
    """Whether the transaction that the request at hand begins may go on to a server; if not, the session waits, or has
    an error to answer."""
    gate = session.account.gate
    if gate is None or session.paid:
        return True
    kind = session.scanner.kind
    if kind not in b"QEFPB" or _passes(session, gate, kind):
        return True
    if gate.take(now):
        session.paid = True
        return True
    return _begins_later(session, gate, now)


def _begins_later(session: Conversation, gate: Gate, now: float) -> bool:
    try:
        session.paid = gate.ask(now)
    except RateExceeded as error:
        session.refuse(error)
        return False
    if not session.paid:
        _wait(session, gate, session.scanner.rewind(), now)
    return session.paid


def _passes(session: Conversation, gate: Gate, kind: int) -> bool:
    """The request at hand, and what follows it in its batch, whatever the tenant has used up."""
    found = blank(session, kind)
    session.unasking = found == FREE_EXECUTE
    if found == PASSES:
        gate.spend(1, monotonic())
        session.paid = True
    return found != COUNTS


def counted(session: Conversation) -> bool:
    """Counts the query at hand if it may go on without a wait; nothing becomes of it if not."""
    gate = session.account.gate
    if gate is not None and not session.paid:
        session.paid = gate.take(monotonic())
        return session.paid
    return True


def pay(session: Conversation, server: ServerConnection, kind: int) -> int:
    """Counts a request that is to be sent on a connection the session has. PAID: it goes on; BEHIND: not before what
    has been asked has been answered, as it may stand within a transaction; HALT: it may not, and nothing is owed;
    SKIPPED: it is to be answered without the server."""
    if session.skipping or session.answer:
        return SKIPPED
    gate = session.account.gate
    if gate is None or session.paid or kind not in b"QEFPB":
        return PAID
    if not session.unsynced and _passes(session, gate, kind):
        return PAID
    owing = server.pipeline.head() is not None
    if session.unsynced or server.copy_in or (server.status != IDLE and not owing):
        if kind in b"QEF" and not session.unasking:
            gate.spend(1, monotonic())
            session.paid = True
        return PAID
    session.paid = gate.take(monotonic())
    return PAID if session.paid else BEHIND if owing else HALT


def asked(session: Conversation, kind: int, told: int) -> None:
    """The request has been sent."""
    if kind not in b"QEF":
        return
    session.paid = session.unasking = False
    gate = session.account.gate
    if gate is None or kind != _QUERY or told == HEAD:
        return
    scanner = session.scanner
    if parted(scanner.data, scanner.start + HEADER_SIZE, scanner.stop):
        _count_others(session, gate)


def _count_others(session: Conversation, gate: Gate) -> None:
    """The statements of the text at hand behind its first."""
    scanner = session.scanner
    try:
        text = query_within(scanner.data, scanner.start + HEADER_SIZE, scanner.stop)
    except ProtocolViolation:
        return
    more = session.judge.judge(text).statements - 1  # it has just been judged
    if more > 0:
        gate.spend(more, monotonic())


# --- the line ---------------------------------------------------------------------------------------


def _wait(session: Conversation, gate: Gate, rest: bytes, now: float) -> None:
    session.throttled = gate
    session.waiting_since = now
    if session.server is None:
        session.step("wait")
    else:
        session.holding = True
    session._park(rest)
    session.plane.pools.deadlines.begin(session, None)
    gate.join(session, now)
    _look_later(gate, session.plane.later, now)


def _look_later(gate: Gate, later: Later, now: float) -> None:
    if gate.bell is None:
        seconds = min(max(gate.due(now), _SOONEST), _LATEST)
        gate.ring = lambda: _look(gate, later)
        gate.bell = later(seconds, gate.ring)


def _look(gate: Gate, later: Later) -> None:
    """Lets in whoever may go by now."""
    if gate.bell is not None:
        gate.bell.cancel()
        gate.bell = None
    while (found := gate.next(monotonic())) is not None:
        waiter, refused = found
        if refused is None:
            waiter.admitted()
        else:
            waiter.turned_away(refused)
    if gate.waiting:
        _look_later(gate, later, monotonic())
