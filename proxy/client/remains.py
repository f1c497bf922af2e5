"""What a session's transactions leave on its server connection: found out by asking, once they are over.

Parameters that servers do not report follow the session to other connections, as those do that are reported; what they
are after a transaction, only the server knows. So it is asked, behind the client's ReadyForQuery and before the
connection is given back; a request that comes meanwhile waits. In the same way pins end: when a statement may have
taken their cause away, the server is asked whether it is gone.

A session that sets nothing of the kind has no Doubts and asks nothing.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from proxy.client import sequences
from proxy.client.doubts import Doubts
from proxy.errors import ProtocolViolation
from proxy.model import PinReason
from proxy.protocol.inquiry import ENDING, Inquiry
from proxy.protocol.seal import PARAMETER
from proxy.protocol.state import ROLE, with_changes
from proxy.server.connection import IDLE, ServerConnection
from proxy.sql.constants import TRANSACTION_ONLY, guc
from proxy.sql.verdict import Verdict
from proxy.sql.words import may_release
from proxy.wire.decode import bind_values, sqlstate

if TYPE_CHECKING:
    from proxy.client.conversation import Conversation

NOTHING: frozenset[str] = frozenset()
# These would end the idle connection, fail on one that has had temporary tables, have no value, or are ours.
STAYING = frozenset({"idle_session_timeout", "temp_buffers", "seed", PARAMETER})
_TRIES = 4  # a question that somebody cancels: it is not what was to be cancelled
_TOO_LONG = 65_536  # bytes of a value that is not to be carried about


def pinned(session: Conversation, reason: PinReason) -> None:
    """Its cause may be gone by the end of the transaction, or may never have come to be."""
    if reason in ENDING or reason is PinReason.ROLE:
        session.doubted().causes = True


def look(session: Conversation, text: bytes) -> None:
    """A pinned session's statement."""
    if may_release(text):
        session.doubted().causes = True
        if PinReason.SEQUENCE in session.pins and b"discard" in text.lower():
            session.doubted().sequences = True


def bound_names(verdict: Verdict, bound: bytes) -> list[str] | None:
    """Names of parameters that stand in the rest of a Bind; None if they cannot be told."""
    if not verdict.bound_names:
        return []
    try:
        values, _, _ = bind_values(bound, 0)
        found = [values[number - 1] or b"" for number in verdict.bound_names]
    except (ProtocolViolation, IndexError):
        return None
    names = [guc(name.decode("utf-8", "surrogateescape")) for name in found]
    return [name for name in names if name not in TRANSACTION_ONLY]


def staying(session: Conversation) -> frozenset[str]:
    """Parameters that do not follow the session by what it has set: its tenant follows in another way."""
    if session.chooser is None and session.registry.lives_alone(session.pool.cluster):
        return STAYING
    return STAYING | {session.plane.options.tenant_guc.lower()}


def changed(session: Conversation, server: ServerConnection, verdict: Verdict, names: list[str]) -> None:
    """Parameters will be set or reset, those of the verdict and `names`."""
    carried = session.state_needed.parameters
    earlier = session.doubts.sets if session.doubts is not None else NOTHING
    sets = {*verdict.sets, *names}
    # A name of an application's own is known to the server from its first RESET on.
    resets = {
        name for name in verdict.resets if name in carried or name in earlier or name in sets or "." in name
    }
    if verdict.resets_all:
        resets.update(carried, earlier)
        resets.discard(ROLE)
    if "session_authorization" in sets or "session_authorization" in verdict.resets:
        resets.add(ROLE)
    if session.pins and ("search_path" in sets or "search_path" in resets):
        session.doubted().causes = True
    elsewhere = {*session.told.parameters, *staying(session), "session_authorization"}
    sets -= elsewhere
    resets -= elsewhere
    if not sets and not resets:
        return
    found = session.doubted()
    found.sets |= sets
    found.resets |= resets
    pipeline = server.pipeline
    if server.status != IDLE or verdict.statements != 1 or pipeline.asked > pipeline.answered + 1:
        found.certain = False


# --- asking -----------------------------------------------------------------------------------------


def ask(session: Conversation, server: ServerConnection) -> bool:
    """Whether the connection has been asked, and the session waits for the answer."""
    doubts = session.doubts
    if doubts is None or doubts.failed_at == server.pipeline.asked:
        return False
    if PinReason.ROLE in session.pins and _is_itself(server):
        _unpin(session, {PinReason.ROLE})
    reasons = []
    if doubts.causes:
        reasons = [reason for reason in session.pins if reason in ENDING]
        if session.temp_first and PinReason.TEMP_TABLE in reasons:
            reasons.remove(PinReason.TEMP_TABLE)
    names = sorted(doubts.sets | doubts.resets)
    drawing = doubts.sequences and session.draws_alone
    if not names and not reasons and not drawing:
        session.doubts = None
        return False
    inquiry = session.inquiry = Inquiry(names, _sourced(session, server, doubts), reasons, drawing)
    session.holding = True
    server.begin(monotonic())
    server.send(inquiry.messages(server.pipeline))
    return True


def _is_itself(server: ServerConnection) -> bool:
    name = "session_authorization"
    user = server.login_parameters.get(name)
    return user is not None and server.reported.parameters.get(name) == user


def _sourced(session: Conversation, server: ServerConnection, doubts: Doubts) -> list[str]:
    """Parameters that may be what they would be without the session, and are then not to be carried."""
    certain = doubts.certain and server.last_error is doubts.last_error
    known = session.state_needed.parameters
    return [
        name
        for name in sorted(doubts.sets)
        if "." not in name and name != ROLE and (name in doubts.resets or not (certain or name in known))
    ]


def learned(session: Conversation, server: ServerConnection, error: bytes) -> bool:
    """Takes the connection's answer. False: what is there cannot follow the session, which is therefore to be pinned."""
    inquiry, session.inquiry = session.inquiry, None
    doubts = session.doubts
    assert inquiry is not None
    assert doubts is not None
    if error:
        doubts.struck += 1
        if doubts.struck == _TRIES or sqlstate(error) != "57014":
            doubts.struck = 0
            doubts.failed_at = server.pipeline.asked
        doubts.stopgap = doubts.stopgap or PinReason.SET not in session.pins
        return False
    session.doubts = None
    if inquiry.too_long or any(len(value or "") > _TOO_LONG for value in inquiry.values.values()):
        return False
    news = {
        name: value if value is not None and _carried(session, inquiry, doubts, name, value) else None
        for name, value in inquiry.values.items()
    }
    if news:
        server.values = with_changes(server.values, news)
        locked = session.rules.locked if session.rules is not None else NOTHING
        own = {name: value for name, value in news.items() if name not in locked}
        session.state_needed = with_changes(session.state_needed, own)
        session.pool.accepted.add(server.values)
        if "search_path" in news:
            path(session)
    gone = set(inquiry.gone)
    if inquiry.sequences:
        gone |= sequences.learned(session, server, inquiry.drawn or doubts.numbered)
    if session.temp_first:
        gone.discard(PinReason.TEMP_TABLE)
    if doubts.stopgap:
        gone.add(PinReason.SET)
    _unpin(session, gone)
    return True


def _carried(session: Conversation, inquiry: Inquiry, doubts: Doubts, name: str, value: str) -> bool:
    """Whether the value is the session's; else it is what every connection has."""
    if name in session.startup.parameters or "." in name:
        return True
    if name == ROLE:
        return value != "none"
    if name in inquiry.sourced:
        return name in inquiry.in_session
    return name in doubts.sets or value == session.state_needed.parameters.get(name)


def path(session: Conversation) -> None:
    """The session's search_path is another: whatever it creates may be temporary, or may be so no longer."""
    session.temp_first = "pg_temp" in session.state_needed.parameters.get("search_path", "").lower()
    if session.pins:
        session.doubted().causes = True


def _unpin(session: Conversation, gone: set[PinReason]) -> None:
    gone = gone & session.pins
    if gone:
        session.pins -= gone
        if not session.pins:
            session.step("unpin")
