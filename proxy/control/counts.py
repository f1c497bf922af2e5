"""The counts of one data plane as plain values that can be sent, and how those of several are added up.

Three kinds, by how they add up: `counters` only grow, so those of a process that is gone still belong to the sum;
`gauges` are sums of what is now; of `most` every process tells the same thing, and the largest is true.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import Any

from proxy.admission.accounts import Account
from proxy.admission.stakes import Row
from proxy.client.plane import Plane
from proxy.control.views.queue import due
from proxy.protocol.lifecycle import SESSION, SessionState

Counts = dict[str, Any]


def empty() -> Counts:
    return {"counters": {}, "gauges": {}, "most": {}}


def take(plane: Plane) -> Counts:
    counts = empty()
    take_tenants(plane.accounts, counts)
    counts["gauges"]["tenants_due"] = due(plane)
    _pools(plane, counts)
    _process(plane, counts)
    _stores(plane, counts)
    _concurrency(plane, counts)
    return counts


_SHARES = 200  # counters that are told one by one


def of_fleet(up: bool, cut: bool, proxies: int, rows: Iterable[Row]) -> Counts:
    """What this proxy has of the caps of its fleet."""
    counts = empty()
    counts["most"]["fleet"] = {"up": int(up), "cut": int(cut), "proxies": proxies}
    busiest = sorted(rows, key=lambda row: row.used + row.wanted, reverse=True)[:_SHARES]
    for what in ("limit", "share", "used", "wanted"):
        counts["gauges"][f"fleet_{what}"] = {row.name: getattr(row, what) for row in busiest}
    return counts


def take_tenants(accounts: Iterable[Account], counts: Counts) -> None:
    counters: dict[str, Any] = {}
    clients: dict[str, int] = {}
    waiting: dict[str, int] = {}
    servers: dict[str, int] = {}
    storage: dict[str, float] = {}
    rates: dict[str, float] = {}
    for account in accounts:
        name, stats = account.tenant.name, account.stats
        counters[name] = {
            "tier": account.tenant.tier,
            "queries": stats.queries,
            "durations": list(stats.durations.buckets),
            "seconds": stats.durations.total,
            "errors": dict(stats.errors),
            "bytes": stats.bytes,
            "server_seconds": stats.server_seconds,
            "throttled": stats.throttled,
            "throttled_seconds": stats.throttled_seconds,
            "refused": {"rate": stats.refused_rate, "quota": stats.refused_quota},
        }
        clients[name] = account.clients.used
        if account.waiting:
            waiting[name] = account.waiting
        if account.servers.used:
            servers[name] = account.servers.used
        if account.limits.max_qps:
            rates[name] = account.limits.max_qps
        if account.limits.max_storage_gb:
            storage[name] = account.limits.max_storage_gb
    counts["counters"]["tenants"] = counters
    counts["gauges"] |= {"tenants": clients, "tenants_waiting": waiting, "tenants_servers": servers}
    counts["most"] |= {"storage_max_gb": storage, "max_qps": rates}


def _pools(plane: Plane, counts: Counts) -> None:
    counters: dict[str, Any] = {}
    gauges: dict[str, Any] = {}
    for pool in plane.pools:
        key = "\0".join((pool.key.cluster, pool.key.database, pool.key.user, pool.mode.value))
        counted = {
            "wait_seconds": pool.stats.wait_seconds,
            "received": pool.stats.bytes_received,
            "sent": pool.stats.bytes_sent,
            "transactions": pool.stats.transactions,
        }
        now = {
            "active": len(pool.active),
            "idle": len(pool.idle),
            "resetting": len(pool.resetting),
            "login": pool.opening,
            "waiting": len(pool.queue),
        }
        # Startup parameters may split a pool, but not its labels.
        _merge(counters, {key: counted}, most=False)
        _merge(gauges, {key: now}, most=False)
    counts["counters"]["pools"] = counters
    counts["gauges"]["pools"] = gauges


def _process(plane: Plane, counts: Counts) -> None:
    process, now, health = plane.process, monotonic(), plane.pools.health
    counts["counters"] |= {
        "process": {
            "client_connections": process.client_connections,
            "rejected_connections": process.rejected_connections,
            "login_failures": process.login_failures,
            "server_connections": process.server_connections,
            "server_failures": process.server_failures,
            "cancels": process.cancels,
        },
        "timeouts": dict(process.timeouts),
        "pins": dict(process.pins),
    }
    states = dict.fromkeys((state.value for state in SESSION if state is not SessionState.CLOSED), 0)
    for session in plane.sessions:
        states[session.state.value] += 1
    counts["gauges"]["clients"] = states
    counts["most"]["config_refused"] = int(process.config_refused)
    counts["most"]["ejected"] = {
        cluster.name: sum(not health.healthy(endpoint, now) for endpoint in cluster.endpoints)
        for cluster in plane.registry.clusters()
    }


def _concurrency(plane: Plane, counts: Counts) -> None:
    """Of clusters whose limits follow latency. All workers know the same decision."""
    decided = {name: each.now for name, each in plane.pools.adapting.clusters.items() if each.now is not None}
    counts["most"]["concurrency"] = {
        name: {
            "limit": now.limit,
            "baseline_seconds": now.baseline,
            "latency_seconds": now.latency,
            "gradient": now.gradient,
            "why": now.why,
        }
        for name, now in decided.items()
    }


def _stores(plane: Plane, counts: Counts) -> None:
    if plane.registry.finder is None or plane.registry.rows is None:
        return
    states = plane.registry.finder.stores()
    counts["counters"]["registry"] = {s.name: {"asked": s.asked, "found": s.found} for s in states}
    counts["gauges"]["registry"] = {
        "tenants": len(plane.registry.rows),
        "stale": len(plane.registry.rows.stale(monotonic())),
    }
    counts["most"]["registry_down"] = {s.name: int(not s.state.up) for s in states}


def add(total: Counts, more: Counts) -> None:
    """Adds `more` to `total` in place."""
    _merge(total["counters"], more["counters"], most=False)
    _merge(total["gauges"], more["gauges"], most=False)
    _merge(total["most"], more["most"], most=True)


def keep(gone: Counts, last: Counts, now: Counts | None) -> None:
    """Adds to `gone` what `last` counted in one process and `now`, what it tells next, counts no more.

    None is a process that has ended. A pool that was closed is told no more, or counts anew.
    """
    if now is None:
        _merge(gone["counters"], last["counters"], most=False)
        return
    for group in ("tenants", "pools"):
        for key, old in last["counters"].get(group, {}).items():
            new = now["counters"].get(group, {}).get(key)
            if new is None or any(new[name] < value for name, value in old.items() if isinstance(value, int)):
                _merge(gone["counters"].setdefault(group, {}), {key: old}, most=False)


def _merge(total: dict[str, Any], more: dict[str, Any], *, most: bool) -> None:
    for key, value in more.items():
        if isinstance(value, dict):
            _merge(total.setdefault(key, {}), value, most=most)
        elif isinstance(value, list):
            old = total.get(key) or [0] * len(value)
            total[key] = [a + b for a, b in zip(old, value, strict=True)]
        elif isinstance(value, str) or key not in total:
            total[key] = value
        else:
            total[key] = max(total[key], value) if most else total[key] + value
