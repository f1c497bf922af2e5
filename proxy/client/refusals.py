"""What a session may not say: transaction blocks in statement mode, texts that would change its tenant, and what the
rules of its tenant do not allow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.errors import FeatureNotSupported, TenantChangeRefused, TiergateError
from proxy.model import PoolMode
from proxy.sql.verdict import PLAIN, Verdict, begins
from proxy.sql.watch import DROPPED, Watch

if TYPE_CHECKING:
    from proxy.client.conversation import Conversation
    from proxy.client.settled import Settled

# Sent in place of a statement that a rule refuses: the server fails it in its place in the batch and in
# the transaction, and its error is replaced by ours.
REFUSED = b"refused by tiergate"

_STATEMENT_MODE = PoolMode.STATEMENT


def refusal(session: Conversation, text: bytes, verdict: Verdict) -> TiergateError | None:
    chooser: Settled | None = session.chooser
    if session.strict:
        if session.mode is _STATEMENT_MODE and begins(text):
            return FeatureNotSupported("transaction blocks not allowed in statement pooling mode")
        refused = chooser.refusal(text) if chooser is not None else None
        if refused is not None:
            return refused
    if verdict is not PLAIN:
        refused = _tenant_change(session, text, verdict)
        if refused is not None:
            return refused
    rules = session.rules
    return None if rules is None else session.plane.answers.refusal(rules, text, verdict)


def _tenant_change(session: Conversation, text: bytes, verdict: Verdict) -> TiergateError | None:
    chooser: Settled | None = session.chooser
    guc = session.plane.options.tenant_guc
    if chooser is not None and verdict.touches_tenant(guc):
        return chooser.naming(text)
    if chooser is not None and verdict.resets_all and verdict.statements > 1:
        refused = chooser.resetting(text)
        if refused is not None:
            return refused
    if session.registry.lives_alone(session.pool.cluster):
        return None
    if verdict.touches_tenant(guc):
        return TenantChangeRefused(
            f'parameter "{guc}" cannot be changed: it names the tenant of this session',
            hint="Connect again to speak for another tenant.",
        )
    if verdict.alters_role:
        return TenantChangeRefused(
            "parameters and passwords of a role or database cannot be changed on a shared cluster",
            hint="All tenants that are this role have them. Connect to the server itself for this.",
        )
    if verdict.hides is not None:
        return TenantChangeRefused(
            f"{verdict.hides.what} is not allowed on a shared cluster", hint=verdict.hides.hint
        )
    return None


class TooLong(TenantChangeRefused):
    """A request beyond what can be inspected that may change the tenant. It is not whole yet, so it ends the session."""


def watch(session: Conversation, head: bytes, size: int) -> TiergateError | None:
    """Begins to look at a text of that size that passes in pieces; where it is refused, the pieces are dropped."""
    refused = session.rules.long_refusal(size) if session.rules is not None else None
    if refused is not None:
        session.watch = DROPPED
        return refused
    if session.registry.lives_alone(session.pool.cluster):
        return None
    entered = session.server is not None and session.server.entered != ""
    session.watch = Watch(session.plane.options.tenant_guc, entered=entered)
    look(session, head)
    return None


def look(session: Conversation, piece: bytes) -> bool:
    """Whether the piece is for the server."""
    if session.watch is DROPPED:
        return False
    if isinstance(session.watch, Watch) and session.watch.suspicious(piece):
        raise TooLong(
            "a statement that is too long to inspect names the tenant, computes a parameter's name or goes back",
            hint="Send it in smaller pieces, or the values as parameters.",
        )
    return True


def frame_size(data: bytes, start: int) -> int:
    """How long the body of the message is that begins at `start`, of which not all may be there."""
    return int.from_bytes(data[start + 1 : start + 5], "big") - 4
