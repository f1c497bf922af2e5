"""What statements do to their session: pins where something stays on the connection, and RESETs that go
back to what the session began with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from proxy.model import PinReason, PoolMode
from proxy.protocol.pipeline import EXECUTE, FORWARD_EXECUTE, Expect
from proxy.protocol.state import settings_within
from proxy.protocol.statements import Statement
from proxy.sql.verdict import PLAIN, Verdict
from proxy.wire import encode

if TYPE_CHECKING:
    from proxy.client.conversation import Conversation
    from proxy.server.connection import ServerConnection


def pin(session: Conversation, reason: PinReason) -> None:
    if session.mode is PoolMode.SESSION or reason in session.pins:
        return
    session.pins.add(reason)
    session.step("pin")
    session.plane.process.pin(reason.name.lower())
    if session.server is not None:
        session.server.dirty = True
    if session.plane.options.pin_notice:
        session.write(encode.notice(f"this session keeps its server connection: {reason.value}"))


def obey(session: Conversation, verdict: Verdict) -> None:
    """Pins where the statement leaves something behind that only its connection has."""
    if verdict is PLAIN:
        return
    for reason in verdict.pins:
        pin(session, reason)
    reported = session.told.parameters
    if any(name not in reported for name in verdict.sets):
        pin(session, PinReason.SET)


def restored(session: Conversation, verdict: Verdict) -> dict[str, str]:
    """The parameters that the statement takes from the session and that it must get back: a RESET goes back to
    what the session began with, not to what its server connection began with."""
    wanted = session.startup.parameters
    if verdict.resets_all or verdict.discards_all:
        return dict(wanted)
    return {name: wanted[name] for name in verdict.resets if name in wanted}


def reassert(session: Conversation, parameters: Mapping[str, str]) -> bytes:
    """What follows the statement that reset `parameters`; its failure in a failed transaction is no harm."""
    if not parameters or session.server is None:
        return b""
    return session.server.assign(dict(parameters), tolerant=True)


def resetting(
    session: Conversation, kind: bytes, name: bytes, parameters: Mapping[str, str] | None
) -> Callable[[bool], None] | None:
    """Remembers what the statement (kind b"S") or portal (b"P") of this name resets. Returns what takes that
    back when the server has ignored the request."""
    resets = session.resets
    key = kind + name
    before = resets.get(key)
    if not parameters and before is None:
        return None

    def remember(wanted: Mapping[str, str] | None) -> None:
        if wanted:
            resets[key] = wanted
        else:
            resets.pop(key, None)

    def undo(failed: bool) -> None:
        remember(None if failed and not name else before)

    remember(parameters)
    return undo


def forget_portals(session: Conversation) -> None:
    """The transaction is over, and with it are its portals."""
    for key in [key for key in session.resets if key.startswith(b"P")]:
        del session.resets[key]


def reassert_within(session: Conversation, server: ServerConnection, portal: bytes) -> bytes:
    """What follows right behind the Execute of `portal`, which is queued here too."""
    parameters = session.resets.get(b"P" + portal)
    if not parameters:
        server.expect(FORWARD_EXECUTE)
        return b""
    server.expect(Expect(EXECUTE, restores=parameters))
    return settings_within(server.pipeline, parameters)


def forget(session: Conversation, name: bytes, statement: Statement) -> None:
    """Takes back that the client has `statement` under `name`."""
    if session.statements.get(name) is statement:
        del session.statements[name]
