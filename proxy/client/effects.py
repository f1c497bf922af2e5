"""What statements do to their session: pins where something stays on the connection, parameters that are to be asked
for, and RESETs that go back to what the session began with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from proxy.client import remains, sql_prepared
from proxy.client.waits import wait_for_answers
from proxy.model import PinReason, PoolMode
from proxy.protocol.pipeline import EXECUTE, Expect
from proxy.protocol.state import ROLE
from proxy.protocol.statements import PREFIX, Statement
from proxy.server.connection import ServerConnection
from proxy.sql.verdict import PLAIN, Verdict
from proxy.wire import encode

if TYPE_CHECKING:
    from proxy.client.conversation import Conversation

# A statement and a portal that do not exist.
NOWHERE = PREFIX + b"refused"


# What these leave on a connection, a library or a connection to elsewhere by dblink, DISCARD ALL does not clear.
_SPEND = frozenset({PinReason.LOAD, PinReason.UNINSPECTED})


def pin(session: Conversation, reason: PinReason) -> None:
    if reason in _SPEND and session.server is not None:
        session.server.spent = True
    if session.mode is PoolMode.SESSION or reason in session.pins:
        return
    session.pins |= {reason}
    session.step("pin")
    session.plane.process.pin(reason.name.lower())
    remains.pinned(session, reason)
    server = session.server
    if session.plane.options.pin_notice:
        notice = encode.notice(f"this session keeps its server connection: {reason.value}")
        if server is not None and server.scanner.skip:
            server.pipeline.said.append(notice)  # behind the frame that has come in part
        else:
            session.write(notice)


def obey(session: Conversation, verdict: Verdict, bound: bytes = b"") -> None:
    """Notes what the statement leaves behind: what can follow the session is asked for later, all else pins. `bound`:
    the rest of the Bind behind its names."""
    server = session.server
    if verdict is PLAIN or server is None:
        return
    if session.mode is PoolMode.SESSION:
        for reason in verdict.pins:
            pin(session, reason)
        return
    guc = session.plane.options.tenant_guc.lower()
    if session.chooser is not None and guc in verdict.touched:  # its tenant again
        if len(verdict.touched) == 1:
            return
        verdict = replace(verdict, sets=tuple(name for name in verdict.sets if name != guc))
    for reason in verdict.pins:
        pin(session, reason)
    if verdict.prepares and (not session.maps_statements or sql_prepared.exceeds(session, verdict)):
        pin(session, PinReason.SQL_PREPARE)
    if not (verdict.sets or verdict.bound_names or verdict.resets or verdict.resets_all):
        return
    names = remains.bound_names(verdict, bound)
    if names is None or not remains.staying(session).isdisjoint((*verdict.sets, *names)):
        pin(session, PinReason.SET)
    names = names or []
    if "search_path" in names:
        pin(session, PinReason.TEMP_TABLE)  # its value may be pg_temp
    if "session_authorization" in names:
        pin(session, PinReason.ROLE)
    remains.changed(session, server, verdict, names)


def learned(session: Conversation, server: ServerConnection, error: bytes) -> None:
    """The server has been asked what is left behind, and has answered."""
    inquiry = session.inquiry
    if not remains.learned(session, server, error):
        pin(session, PinReason.SET)
    elif inquiry is not None and inquiry.sequences and session.drawn_on is not None:
        pin(session, PinReason.SEQUENCE)
    elif session.temp_first:
        pin(session, PinReason.TEMP_TABLE)


def follow_path(session: Conversation) -> None:
    """The session's search_path has become another."""
    remains.path(session)
    if session.temp_first:
        pin(session, PinReason.TEMP_TABLE)


def restored(session: Conversation, verdict: Verdict) -> Mapping[str, str]:
    """The parameters that the statement takes from the session and that it must get back: a RESET goes back to
    what the session began with, not to what its server connection began with."""
    wanted = session.startup.parameters
    if verdict.resets_all:
        if session.chooser is not None:
            session.chooser.resets_all(session.server)
        return {name: value for name, value in wanted.items() if name != ROLE} if ROLE in wanted else wanted
    return {name: wanted[name] for name in verdict.resets if name in wanted}


def remember(
    session: Conversation, kind: bytes, name: bytes, verdict: Verdict
) -> Callable[[bool], None] | None:
    """Remembers what the execution of the portal (kind b"P") or of portals of the statement (b"S") of this name
    takes away, or does to statements that SQL knows by name. Returns what takes that back when the
    server has ignored the request."""
    key = kind + name
    before = session.lasting.get(key, PLAIN) if session.lasting else PLAIN
    takes = verdict.resets or verdict.resets_all or verdict.discards_all
    if not session.maps_statements:  # else the statement itself knows what it sets
        takes = takes or bool(verdict.sets or verdict.bound_names)
    if not (takes or verdict.by_name or verdict.deallocates_all):
        verdict = PLAIN
    if verdict is before:
        return None

    if session.lasting is None:
        session.lasting = {}
    lasting = session.lasting

    def put(found: Verdict) -> None:
        if found is PLAIN:
            lasting.pop(key, None)
        else:
            lasting[key] = found

    def undo(failed: bool) -> None:
        put(PLAIN if failed and not name else before)

    put(verdict)
    if session.server is not None:
        session.lasting_in = session.server.pipeline.asked
    return undo


def settle(session: Conversation, server: ServerConnection) -> None:
    """Waits until it is sure what an earlier batch has done to what is remembered."""
    if server.pipeline.answered <= session.lasting_in < server.pipeline.asked:
        wait_for_answers(server)


def forget_portals(session: Conversation) -> None:
    """The transaction is over, and with it are its portals."""
    lasting = session.lasting or {}
    for key in [key for key in lasting if key.startswith(b"P")]:
        del lasting[key]


def execute(session: Conversation, server: ServerConnection, frame: bytes) -> bytes | None:
    """Queues an Execute. Returns what is sent in its place: more goes ahead of it or follows right behind."""
    portal = frame[5 : frame.find(b"\0", 5)]
    verdict = session.lasting.get(b"P" + portal, PLAIN) if session.lasting else PLAIN
    parameters = restored(session, verdict)
    ahead = behind = error = b""
    changes = None
    if verdict.by_name and session.maps_statements:
        ahead, error = sql_prepared.ready(session, server, verdict)
        if error:
            frame = encode.execute(NOWHERE)
        elif verdict.prepares or verdict.deallocates:
            changes = sql_prepared.Changes(session, server, verdict)
            session.answers_first = True
    server.expect(Expect(EXECUTE, error=error, restores=parameters or None, learn=changes))
    if verdict.deallocates_all or verdict.discards_all:
        session.answers_first = True
    if parameters:
        behind = server.set_again(parameters, within=True)
    return ahead + frame + behind if ahead or behind or error else None


def forget(session: Conversation, name: bytes, statement: Statement) -> None:
    """Takes back that the client has `statement` under `name`."""
    if session.statements.get(name) is statement:
        del session.statements[name]
