"""What statements do to their session: pins where something stays on the connection, parameters that are to be asked
for, RESETs that go back to
what the session began with, and statements that are deallocated under the client's names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from proxy.client import remains
from proxy.client.waits import wait_for_answers
from proxy.model import PinReason, PoolMode
from proxy.protocol.pipeline import CLOSE, DROP, EXECUTE, PARSE, Expect
from proxy.protocol.state import ROLE
from proxy.protocol.statements import PREFIX, Statement
from proxy.server.connection import FAILED, ServerConnection
from proxy.sql.verdict import PLAIN, Verdict
from proxy.wire import encode

if TYPE_CHECKING:
    from proxy.client.conversation import Conversation


def pin(session: Conversation, reason: PinReason) -> None:
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
    if verdict is PLAIN or session.mode is PoolMode.SESSION or server is None:
        return
    if session.chooser is not None and verdict.touched == {session.plane.options.tenant_guc.lower()}:
        return  # its tenant again
    for reason in verdict.pins:
        pin(session, reason)
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
    if not remains.learned(session, server, error):
        pin(session, PinReason.SET)
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
    takes away. Returns what takes that back when the server has ignored the request."""
    key = kind + name
    before = session.lasting.get(key, PLAIN) if session.lasting else PLAIN
    takes = verdict.resets or verdict.resets_all or verdict.discards_all
    if not session.maps_statements:  # else the statement itself knows what it sets
        takes = takes or bool(verdict.sets or verdict.bound_names)
    if not (takes or verdict.deallocates or verdict.deallocates_all):
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
    return undo


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
    ahead = behind = b""
    undo = None
    if verdict.deallocates and session.maps_statements:
        ahead, undo = _stand_in(session, server, verdict)
    server.expect(Expect(EXECUTE, restores=parameters or None, undo=undo))
    if verdict.deallocates_all or verdict.discards_all:
        session.answers_first = True
    if parameters:
        behind = server.set_again(parameters, within=True)
    return ahead + frame + behind if ahead or behind else None


def _deallocated(session: Conversation, verdict: Verdict) -> tuple[bytes, Statement | None]:
    name = verdict.deallocates[0].encode("utf-8", "surrogateescape")
    return name, session.statements.get(name) if verdict.statements == 1 else None


def deallocate(session: Conversation, server: ServerConnection, verdict: Verdict) -> bytes | None:
    """`DEALLOCATE name` of a statement that was prepared by message: the server knows it by another name."""
    name, statement = _deallocated(session, verdict)
    if statement is None or server.status == FAILED:
        return None
    out = server.prepare(statement)
    server.prepared.remove(statement)
    del session.statements[name]
    return out + encode.query(b'DEALLOCATE "' + statement.name + b'"')


def _stand_in(
    session: Conversation, server: ServerConnection, verdict: Verdict
) -> tuple[bytes, Callable[[bool], None] | None]:
    """The same for one that is prepared itself: it finds an empty statement of the client's name."""
    if server.pipeline.answered <= server.named_in < server.pipeline.asked:
        wait_for_answers(server)
    name, statement = _deallocated(session, verdict)
    if statement is None or name.startswith(PREFIX):
        return b"", None
    server.named_in = server.pipeline.asked
    del session.statements[name]
    server.expect(Expect(CLOSE, DROP))
    server.expect(Expect(PARSE, DROP, statement=statement))
    return encode.close(b"S", name) + encode.parse(name, b""), _Taken(session, name, statement)


class _Taken:
    """Gives back a name that was not taken."""

    def __init__(self, session: Conversation, name: bytes, statement: Statement) -> None:
        self._session, self._name, self._statement = session, name, statement

    def __call__(self, failed: bool) -> None:
        self._session.statements.setdefault(self._name, self._statement)


def forget(session: Conversation, name: bytes, statement: Statement) -> None:
    """Takes back that the client has `statement` under `name`."""
    if session.statements.get(name) is statement:
        del session.statements[name]
