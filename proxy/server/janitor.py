"""One coarse sweep over the pools: lifetimes and idle times, waits that took too long, queries and
transactions beyond their limits. Called every `SWEEP` seconds; never a timer a query.
"""

from __future__ import annotations

from proxy.errors import CapReached, IdleInTransactionTimeout, TransactionTimeout
from proxy.model import Limits
from proxy.server.connection import FAILED, IN_TRANSACTION, ServerConnection
from proxy.server.pool import Pool
from proxy.server.pools import Pools

SWEEP = 0.05
_CANCEL_AGAIN = 1.0  # a cancel that came too early for the server is sent again after this
_CLOSING_TIMEOUT = 5.0
_RESET_TIMEOUT = 30.0  # for a reset, a check or a rollback of ours


def sweep(pools: Pools, now: float, *, thorough: bool) -> None:
    """`thorough` (about once a second) also looks at connections that nobody uses."""
    _expire_waits(pools, now)
    for pool in pools:
        if pools.room.crowd.waiting:
            pool.charge_running(now)
        if pool.kept.look(now) and pool.queue:
            pool.serve()
        pools.surplus.look(pool, now)
        for server in list(pool.active):
            _enforce(pools, server, now)
        if thorough:
            _retire_idle(pools, pool, now)
            if period := pool.options.server_surplus_timeout:
                pools.surplus.close(pool, now, period, _least(pools, pool))
            for server in list(pool.resetting):
                if now - server.idle_since > _RESET_TIMEOUT:
                    pool.drop(server)
            for server in list(pool.closing):
                if now - server.idle_since > _CLOSING_TIMEOUT:
                    server.abort()
            if not pool.sessions:
                pool.client_key = b""  # whoever comes brings it
            pool.fill(_least(pools, pool))
            if pool.queue and pools.reachable(pool.cluster, now):
                pool.serve()  # the connection that they wait for may have failed
    pools.room.look()
    pools.adapting.look(decide=thorough)
    if thorough:
        pools.room.rest()
        pools.forget_unused(now)
        pools.surplus.keep(set(pools))


def _expire_waits(pools: Pools, now: float) -> None:
    for waiter in pools.deadlines.to_tell(now):
        waiter.still_waits()
    for waiter, pool in pools.deadlines.expired(now):
        pool.leave(waiter)
        pools.process.timeout("query_wait_timeout")
        waiter.refused(CapReached("query_wait_timeout", hint="No server connection came free in time."))


def _least(pools: Pools, pool: Pool) -> int:
    """How many connections are kept open; a pool without clients may be that of a database that is gone."""
    if pool.locked:
        return 0
    return (pool.cluster.min_pool_size or pools.options.min_pool_size) if pool.sessions else 0


def _retire_idle(pools: Pools, pool: Pool, now: float) -> None:
    options = pool.options
    least = _least(pools, pool)
    for server in list(pool.idle):
        too_old = options.server_lifetime and now - server.opened_at > options.server_lifetime
        too_idle = (
            options.server_idle_timeout
            and now - server.idle_since > options.server_idle_timeout
            and pool.size > least
        )
        if too_old or too_idle:
            pool.close_idle(server)


def _enforce(pools: Pools, server: ServerConnection, now: float) -> None:
    session = server.link
    if session is None:
        return
    limits = session.limits
    owing = bool(server.pipeline)
    if owing and limits.query_timeout and now - server.query_since > limits.query_timeout:
        _cancel(pools, server, "query_timeout", now)
    elif owing and _too_long(server, limits, now):
        _cancel(pools, server, "transaction_timeout", now)
    elif not owing and server.status in (IN_TRANSACTION, FAILED):
        idle = limits.idle_transaction_timeout
        if _too_long(server, limits, now):
            pools.process.timeout("transaction_timeout")
            session.end(TransactionTimeout("terminating connection due to transaction timeout"))
        elif idle and now - server.query_since > idle:
            pools.process.timeout("idle_transaction_timeout")
            session.end(IdleInTransactionTimeout("terminating connection due to idle-in-transaction timeout"))
    elif not owing and now >= server.seal_due:
        server.seal_due = 0.0
        session.server_ready()


def _too_long(server: ServerConnection, limits: Limits, now: float) -> bool:
    limit = limits.transaction_timeout
    return bool(limit) and server.xact_since > 0 and now - server.xact_since > (limit or 0)


def _cancel(pools: Pools, server: ServerConnection, limit: str, now: float) -> None:
    if server.pipeline.settling or (server.struck and now - server.struck_at < _CANCEL_AGAIN):
        return
    if not server.struck:
        pools.process.timeout(limit)
    server.struck = limit
    server.struck_at = now
    pools.cancel(server)
