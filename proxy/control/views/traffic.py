"""What the pools do and have done: who is in them now, totals, and averages over the last period.

In database "pgbouncer" pools that PgBouncer would hold for one are one row, as those who read by its keys
cannot tell clusters apart.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from time import monotonic

from proxy.client.plane import Plane
from proxy.client.session import Session
from proxy.control.views.view import Value, View, split_microseconds
from proxy.protocol.lifecycle import SessionState
from proxy.server.pool import Pool

Key = Callable[[Pool], Hashable]


def _each(pool: Pool) -> Hashable:
    return pool


def _database(pool: Pool) -> Hashable:
    return pool.key.database


def _database_and_user(pool: Pool) -> Hashable:
    return pool.key.database, pool.key.user


def _grouped(plane: Plane, key: Key) -> list[list[Pool]]:
    groups: dict[Hashable, list[Pool]] = {}
    for pool in plane.pools:
        groups.setdefault(key(pool), []).append(pool)
    return list(groups.values())


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(set(names)))


# --- now --------------------------------------------------------------------------------------------


def pools(plane: Plane) -> View:
    return _pools(plane, _each)


def pools_by_database_and_user(plane: Plane) -> View:
    return _pools(plane, _database_and_user)


def _pools(plane: Plane, key: Key) -> View:
    columns = (
        "database", "user", "cl_active", "cl_waiting", "cl_active_cancel_req", "cl_waiting_cancel_req", "sv_active",
        "sv_active_cancel", "sv_being_canceled", "sv_idle", "sv_used", "sv_tested", "sv_login", "maxwait", "maxwait_us",
        "pool_mode", "cluster", "paused",
    )  # fmt: skip
    now = monotonic()
    sessions: dict[Pool, list[Session]] = {}
    for session in plane.sessions:
        sessions.setdefault(session.pool, []).append(session)
    rows: list[tuple[Value, ...]] = []
    for group in _grouped(plane, key):
        first = group[0].key
        mine = [session for pool in group for session in sessions.get(pool, ())]
        throttled = sum(s.state is SessionState.WAITING and s.throttled is not None for s in mine)
        canceled = sum(1 for pool in group for server in pool.connections() if server.cancels)
        oldest = max((now - waiter.waiting_since for pool in group for waiter in pool.queue), default=0.0)
        rows.append(
            (
                first.database, first.user, sum(s.state is not SessionState.WAITING for s in mine),
                sum(len(pool.queue) for pool in group) + throttled, 0, 0, sum(len(pool.active) for pool in group),
                canceled, canceled,
                sum(len(pool.idle) for pool in group), 0, sum(len(pool.resetting) for pool in group),
                sum(pool.opening for pool in group), *split_microseconds(oldest),
                _names(pool.mode.value for pool in group), _names(pool.key.cluster for pool in group),
                int(all(pool.paused for pool in group)),
            )
        )  # fmt: skip
    return View(columns, rows)


# --- so far, and of late ----------------------------------------------------------------------------

# PgBouncer's words for what PoolStats.counts() says, in its order.
_COUNTS = ("server_assignment_count", "xact_count", "query_count")
_BYTES = ("bytes_received", "bytes_sent")
_TIMES = ("xact_time", "query_time", "wait_time")
_TOTALS = (*(f"total_{name}" for name in (*_COUNTS, "received", "sent", *_TIMES)),)
_AVERAGES = (*(f"avg_{name}" for name in (*_COUNTS, "recv", "sent", *_TIMES)),)
_IN_TOTALS = {
    "total_received": "total_client_bytes",
    "total_sent": "total_server_bytes",
    "avg_recv": "avg_client_bytes",
    "avg_sent": "avg_server_bytes",
}
_OURS = ("user", "cluster")


def stats(plane: Plane) -> View:
    return _stats(plane, _each, (*_TOTALS, *_AVERAGES), lambda group: (*_total(group), *_average(group)))


def stats_by_database(plane: Plane) -> View:
    return _stats(plane, _database, (*_TOTALS, *_AVERAGES), lambda group: (*_total(group), *_average(group)))


def stats_totals(plane: Plane) -> View:
    return _stats(plane, _each, (*_COUNTS, *_BYTES, *_TIMES), _total)


def stats_totals_by_database(plane: Plane) -> View:
    return _stats(plane, _database, (*_COUNTS, *_BYTES, *_TIMES), _total)


def stats_averages(plane: Plane) -> View:
    return _stats(plane, _each, (*_COUNTS, *_BYTES, *_TIMES), _average)


def stats_averages_by_database(plane: Plane) -> View:
    return _stats(plane, _database, (*_COUNTS, *_BYTES, *_TIMES), _average)


def totals(plane: Plane) -> View:
    everything = list(plane.pools)
    values = (*_total(everything), *_average(everything))
    names = [named_in_totals(column) for column in (*_TOTALS, *_AVERAGES)]
    return View(("name", "value"), list(zip(names, values, strict=True)))


def named_in_totals(column: str) -> str:
    """What PgBouncer calls a column of STATS in TOTALS."""
    return _IN_TOTALS.get(column, column)


def _stats(
    plane: Plane, key: Key, columns: tuple[str, ...], values: Callable[[list[Pool]], tuple[int, ...]]
) -> View:
    rows: list[tuple[Value, ...]] = [
        (
            group[0].key.database,
            *values(group),
            _names(pool.key.user for pool in group),
            _names(pool.key.cluster for pool in group),
        )
        for group in _grouped(plane, key)
    ]
    return View(("database", *columns, *_OURS), rows)


def _total(pools: list[Pool]) -> tuple[int, ...]:
    """Times are microseconds."""
    sums = [sum(column) for column in zip(*(pool.stats.counts() for pool in pools), strict=True)]
    sums = sums or [0] * len(_TOTALS)
    return (*(int(count) for count in sums[:5]), *(int(seconds * 1e6) for seconds in sums[5:]))


def _average(pools: list[Pool]) -> tuple[int, ...]:
    """Counts and bytes a second; time a transaction, a query and a checkout."""
    now = monotonic()
    rates, grown = [0.0] * len(_COUNTS + _BYTES), [0.0] * len(_TOTALS)
    for pool in pools:
        seconds, more = pool.stats.of_late(now)
        grown = [sum(pair) for pair in zip(grown, more, strict=True)]
        rates = [rate + count / seconds for rate, count in zip(rates, more, strict=False)]
    assignments, transactions, queries = grown[:3]
    times = zip(grown[5:], (transactions, queries, assignments), strict=True)
    return (*(int(rate) for rate in rates), *(int(t * 1e6 / n) if n else 0 for t, n in times))
