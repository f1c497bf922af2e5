"""What a session may not say: transaction blocks in statement mode, and texts that would change its tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.errors import FeatureNotSupported, TenantChangeRefused, TiergateError
from proxy.model import ClusterKind, PoolMode
from proxy.sql.verdict import PLAIN, Verdict, begins
from proxy.sql.watch import Watch
from proxy.wire import encode

if TYPE_CHECKING:
    from proxy.client.conversation import Conversation

# Sent in place of a statement that a rule refuses: the server fails it in its place in the batch and in
# the transaction, and its error is replaced by ours.
REFUSED = b"refused by tiergate"

_STATEMENT_MODE = PoolMode.STATEMENT


def refusal(session: Conversation, text: bytes, verdict: Verdict) -> TiergateError | None:
    chooser = session.chooser
    if session.strict:
        if session.mode is _STATEMENT_MODE and begins(text):
            return FeatureNotSupported("transaction blocks not allowed in statement pooling mode")
        refused: TiergateError | None = chooser.refusal(text) if chooser is not None else None
        if refused is not None:
            return refused
    if verdict is PLAIN:
        return None
    guc = session.plane.options.tenant_guc
    if chooser is not None and verdict.touches_tenant(guc):
        refused = chooser.naming(text)
        return refused
    if session.pool.cluster.kind is ClusterKind.DEDICATED:
        return None
    if verdict.touches_tenant(guc):
        return TenantChangeRefused(
            f'parameter "{guc}" cannot be changed: it names the tenant of this session',
            hint="Connect again to speak for another tenant.",
        )
    if verdict.hides is not None:
        return TenantChangeRefused(
            f"{verdict.hides.what} is not allowed on a shared cluster", hint=verdict.hides.hint
        )
    return None


class TooLong(TenantChangeRefused):
    """A request beyond what can be inspected that may change the tenant. It is not whole yet, so it ends the session."""


def watch(session: Conversation, head: bytes) -> None:
    """Begins to look at a text that passes in pieces."""
    if session.pool.cluster.kind is ClusterKind.DEDICATED:
        return
    session.watch = Watch(session.plane.options.tenant_guc)
    look(session, head)


def look(session: Conversation, piece: bytes) -> None:
    if session.watch is not None and session.watch.suspicious(piece):
        raise TooLong(
            "a statement that is too long to inspect names the tenant or computes a parameter's name",
            hint="Send it in smaller pieces, or the values as parameters.",
        )


def error_frame(error: TiergateError) -> bytes:
    return encode.error(error.message, error.sqlstate, hint=error.hint, detail=error.detail)
