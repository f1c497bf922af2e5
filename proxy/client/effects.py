"""What statements do to their session: pins where something stays on the connection, and RESETs that go
back to what the session began with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from proxy.model import PinReason, PoolMode
from proxy.protocol.statements import Statement
from proxy.sql.verdict import PLAIN, Verdict
from proxy.wire import encode

if TYPE_CHECKING:
    from proxy.client.conversation import Conversation


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


def reassert_after_sync(session: Conversation, verdict: Verdict) -> None:
    """The same for a statement of an extended batch: it follows the batch's Sync."""
    parameters = restored(session, verdict)
    if parameters:
        session.pending = {**(session.pending or {}), **parameters}


def forget(session: Conversation, name: bytes, statement: Statement) -> None:
    """Takes back that the client has `statement` under `name`."""
    if session.statements.get(name) is statement:
        del session.statements[name]
