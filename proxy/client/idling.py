"""Clients that have asked nothing for too long: between transactions, or in a block that no server has yet.

Those in a block that a server has are the janitor's, which knows since when.
"""

from __future__ import annotations

from proxy.client.session import Session
from proxy.errors import ClientIdleTimeout, IdleInTransactionTimeout
from proxy.protocol.lifecycle import SessionState
from proxy.stats import ProcessStats


def end_idle(session: Session, process: ProcessStats, now: float) -> None:
    if not session.rests or session.state is SessionState.WAITING:
        return
    server, chooser = session.server, session.chooser
    idle = now - (session.idle_since if server is None else max(session.idle_since, server.query_since))
    limits = session.limits
    if chooser is not None and chooser.tenancy.holds:
        if limits.idle_transaction_timeout and idle > limits.idle_transaction_timeout:
            process.timeout("idle_transaction_timeout")
            session.end(IdleInTransactionTimeout("terminating connection due to idle-in-transaction timeout"))
    elif limits.client_idle_timeout and idle > limits.client_idle_timeout:
        process.timeout("client_idle_timeout")
        session.end(ClientIdleTimeout("client_idle_timeout"))
