"""What operators may see: one function a view, plain rows out of the data plane's own objects.

PgBouncer's columns come first, with its names, where it has the view; ours follow. Values are text, numbers or
None; faces translate them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import NamedTuple

from proxy.client.plane import Plane
from proxy.client.session import Session
from proxy.errors import InvalidParameter
from proxy.model import Limits, Role
from proxy.net.transport import Transport
from proxy.protocol.lifecycle import ServerState, SessionState
from proxy.routing.route import explain
from proxy.server.connection import ServerConnection
from proxy.server.pool import Pool

Value = str | int | float | None


class View(NamedTuple):
    columns: tuple[str, ...]
    rows: list[tuple[Value, ...]]


def _split_microseconds(seconds: float) -> tuple[int, int]:
    return int(seconds), int(seconds % 1 * 1_000_000)


def _oldest_wait(pool: Pool, now: float) -> float:
    return max((now - waiter.waiting_since for waiter in pool.queue), default=0.0)


def _sessions_by_pool(plane: Plane) -> dict[Pool, list[Session]]:
    found: dict[Pool, list[Session]] = {}
    for session in plane.sessions:
        found.setdefault(session.pool, []).append(session)
    return found


def pools(plane: Plane) -> View:
    columns = (
        "database", "user", "cl_active", "cl_waiting", "cl_active_cancel_req", "cl_waiting_cancel_req", "sv_active",
        "sv_active_cancel", "sv_being_canceled", "sv_idle", "sv_used", "sv_tested", "sv_login", "maxwait", "maxwait_us",
        "pool_mode", "cluster", "paused",
    )  # fmt: skip
    now = monotonic()
    sessions = _sessions_by_pool(plane)
    rows: list[tuple[Value, ...]] = []
    for pool in plane.pools:
        mine = sessions.get(pool, [])
        waiting = len(pool.queue)
        maxwait, maxwait_us = _split_microseconds(_oldest_wait(pool, now))
        canceled = sum(1 for server in pool.connections() if server.cancels)
        rows.append(
            (
                pool.key.database, pool.key.user, len(mine) - sum(s.state is SessionState.WAITING for s in mine), waiting,
                0, 0, len(pool.active), canceled, canceled, len(pool.idle), 0, len(pool.resetting), pool.opening, maxwait,
                maxwait_us, pool.mode.value, pool.key.cluster, int(pool.paused),
            )
        )  # fmt: skip
    return View(columns, rows)


def _address(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    return (host, int(port)) if colon and port.isdigit() else (address, 0)


def _pointer(thing: object) -> str:
    return f"{id(thing):#x}"


def _when(moment: float, now: float) -> str:
    """A moment of the monotonic clock as a time of day, as PgBouncer writes it."""
    return (datetime.now(UTC) - timedelta(seconds=now - moment)).strftime("%Y-%m-%d %H:%M:%S UTC")


def _local(transport: Transport) -> tuple[str, int]:
    name = transport.get_extra_info("sockname")
    return (name[0], name[1]) if isinstance(name, tuple) else ("unix", 0)


_CLIENT_STATES = {SessionState.LINKED: "active", SessionState.PINNED: "active"}
_SOCKET_COLUMNS = (
    "type", "user", "database", "replication", "state", "addr", "port", "local_addr", "local_port", "connect_time",
    "request_time", "wait", "wait_us", "close_needed", "ptr", "link", "remote_pid", "tls", "application_name",
    "prepared_statements", "id",
)  # fmt: skip


def clients(plane: Plane) -> View:
    now = monotonic()
    rows: list[tuple[Value, ...]] = []
    for session in plane.sessions:
        login, server = session.login, session.server
        waiting = session.state is SessionState.WAITING
        asked = (
            session.waiting_since
            if waiting
            else server.query_since
            if server is not None
            else session.idle_since
        )
        rows.append(
            (
                "C", session.user.name, login.database, "none",
                _CLIENT_STATES.get(session.state, session.state.value), *_address(login.address),
                *_local(session.transport), _when(session.connected_at, now), _when(asked, now),
                *_split_microseconds(now - session.waiting_since if waiting else 0.0), 0, _pointer(session),
                _pointer(server) if server is not None else "", session.pid, "TLS" if login.tls else "",
                session.state_needed.parameters.get("application_name", ""), len(session.statements), id(session),
                session.tenant.name, session.tenant.tier, session.pool.key.cluster, session.mode.value,
                ", ".join(sorted(reason.value for reason in session.pins)),
            )
        )  # fmt: skip
    return View((*_SOCKET_COLUMNS, "tenant", "tier", "cluster", "pool_mode", "pins"), rows)


_SERVER_STATES = {ServerState.RESETTING: "tested", ServerState.GONE: "closing"}


def servers(plane: Plane) -> View:
    now = monotonic()
    rows = [_server_row(pool, server, now) for pool in plane.pools for server in pool.connections()]
    return View((*_SOCKET_COLUMNS, "cluster", "tenant", "uses", "being_canceled"), rows)


def _server_row(pool: Pool, server: ServerConnection, now: float) -> tuple[Value, ...]:
    tls = server.transport.get_extra_info("ssl_object") is not None
    return (
        "S", pool.key.user, pool.key.database, "none", _SERVER_STATES.get(server.state, server.state.value),
        server.endpoint.host, server.endpoint.port, *_local(server.transport), _when(server.opened_at, now),
        _when(server.query_since or server.opened_at, now), 0, 0, int(server.generation != pool.generation),
        _pointer(server), _pointer(server.link) if server.link is not None else "", server.pid, "TLS" if tls else "",
        server.values.parameters.get("application_name", ""), len(server.prepared), id(server), pool.key.cluster,
        server.account.tenant.name if server.account is not None else "", server.uses, server.cancels,
    )  # fmt: skip


def databases(plane: Plane) -> View:
    columns = (
        "name", "host", "port", "database", "force_user", "pool_size", "min_pool_size", "pool_mode", "max_connections",
        "current_connections", "paused", "disabled",
    )  # fmt: skip
    rows: list[tuple[Value, ...]] = []
    for cluster in plane.registry.clusters():
        first = next((e for e in cluster.endpoints if e.role is not Role.REPLICA), None)
        rows.append(
            (
                cluster.name, first.host if first else "", first.port if first else 0, cluster.dbname, cluster.user,
                cluster.pool_size, cluster.min_pool_size, cluster.pool_mode.value if cluster.pool_mode else "",
                cluster.max_connections, plane.pools.cluster_counter(cluster.name).used,
                int(plane.pools.paused(cluster.name)), int(plane.registry.is_disabled("cluster", cluster.name)),
            )
        )  # fmt: skip
    return View(columns, rows)


def clusters(plane: Plane) -> View:
    columns = ("name", "kind", "endpoint", "role", "healthy", "reason", "connections")
    now = monotonic()
    health = plane.pools.health
    counts: dict[tuple[str, object], int] = {}
    for pool in plane.pools:
        for server in pool.connections():
            key = (pool.key.cluster, server.endpoint)
            counts[key] = counts.get(key, 0) + 1
    rows: list[tuple[Value, ...]] = []
    for cluster in plane.registry.clusters():
        for endpoint in cluster.endpoints:
            healthy = health.healthy(endpoint, now)
            rows.append(
                (
                    cluster.name, cluster.kind.value, str(endpoint), endpoint.role.value, int(healthy),
                    "" if healthy else health.reason(endpoint), counts.get((cluster.name, endpoint), 0),
                )
            )  # fmt: skip
    return View(columns, rows)


def stats(plane: Plane) -> View:
    """Times are microseconds. Averages are over the life of the pool, not over a period."""
    columns = (
        "database", "total_server_assignment_count", "total_xact_count", "total_query_count", "total_received",
        "total_sent", "total_xact_time", "total_query_time", "total_wait_time", "avg_server_assignment_count",
        "avg_xact_count", "avg_query_count", "avg_recv", "avg_sent", "avg_xact_time", "avg_query_time", "avg_wait_time",
        "user", "cluster",
    )  # fmt: skip
    now = monotonic()
    rows: list[tuple[Value, ...]] = []
    for pool in plane.pools:
        s = pool.stats
        counts = (s.server_assignments, s.transactions, s.queries, s.bytes_received, s.bytes_sent)
        times = (s.xact_seconds, s.query_seconds, s.wait_seconds)
        age = max(now - pool.opened_at, 1.0)
        per = (s.transactions, s.queries, s.server_assignments)
        rows.append(
            (
                pool.key.database, *counts, *(int(t * 1e6) for t in times), *(int(count / age) for count in counts),
                *(int(t * 1e6 / n) if n else 0 for t, n in zip(times, per, strict=True)), pool.key.user,
                pool.key.cluster,
            )
        )  # fmt: skip
    return View(columns, rows)


def _limit(limits: Limits, name: str) -> Value:
    value: float | None = getattr(limits, name)
    return value or None


def tenants(plane: Plane) -> View:
    columns = (
        "name", "id", "tier", "cluster", "active", "disabled", "clients", "max_client_connections", "servers",
        "max_connections", "waiting", "queries", "transactions", "errors", "query_timeout",
    )  # fmt: skip
    seen = {account.tenant.name: account for account in plane.accounts}
    rows: list[tuple[Value, ...]] = []
    for tenant in plane.registry.tenants():
        limits = plane.registry.limits(tenant)
        account = seen.get(tenant.name)
        used = (
            (account.clients.used, account.servers.used, account.waiting, account.stats)
            if account is not None
            else (0, 0, 0, None)
        )
        counts = used[3]
        rows.append(
            (
                tenant.name, tenant.id, tenant.tier, tenant.cluster, int(tenant.active),
                int(plane.registry.is_disabled("tenant", tenant.name)), used[0], _limit(limits, "max_client_connections"),
                used[1], _limit(limits, "max_connections"), used[2], counts.queries if counts else 0,
                counts.transactions if counts else 0, sum(counts.errors.values()) if counts else 0,
                _limit(limits, "query_timeout"),
            )
        )  # fmt: skip
    return View(columns, rows)


def tiers(plane: Plane) -> View:
    columns = (
        "name", "weight", "pool_mode", "max_tenants", "tenants", "clients", "max_client_connections", "servers",
        "max_connections", "tenant_max_connections", "tenant_query_timeout",
    )  # fmt: skip
    in_tier: dict[str, int] = {}
    for tenant in plane.registry.tenants():
        in_tier[tenant.tier] = in_tier.get(tenant.tier, 0) + 1
    accounts = {account.tier.name: account for account in plane.accounts.tiers()}
    rows: list[tuple[Value, ...]] = []
    for tier in plane.registry.tiers():
        account = accounts.get(tier.name)
        rows.append(
            (
                tier.name, tier.weight, tier.pool_mode.value if tier.pool_mode else "", tier.max_tenants,
                in_tier.get(tier.name, 0), account.clients.used if account else 0,
                _limit(tier.caps, "max_client_connections"), account.servers.used if account else 0,
                _limit(tier.caps, "max_connections"), _limit(tier.limits, "max_connections"),
                _limit(tier.limits, "query_timeout"),
            )
        )  # fmt: skip
    return View(columns, rows)


def users(plane: Plane) -> View:
    columns = (
        "name", "pool_mode", "max_user_connections", "current_connections", "max_user_client_connections",
        "current_client_connections", "auth_type", "tenants", "server_user", "waiting",
    )  # fmt: skip
    rows: list[tuple[Value, ...]] = []
    for user in plane.registry.users():
        account = plane.accounts.user(user)
        rows.append(
            (
                user.name, user.pool_mode.value if user.pool_mode else "", user.limits.max_connections or 0,
                account.servers.used, user.limits.max_client_connections or 0, account.clients.used, user.auth_type,
                "*" if user.tenants is None else ", ".join(sorted(user.tenants)), user.server_user, account.waiting,
            )
        )  # fmt: skip
    return View(columns, rows)


def route(plane: Plane, tenant_name: str, user_name: str = "", database: str = "") -> View:
    """What would happen to a login for that tenant, and why. Raises InvalidParameter for an unknown name."""
    registry = plane.registry
    tenant = registry.known(tenant_name)
    if tenant is None:
        raise InvalidParameter(f'tenant "{tenant_name}" does not exist')
    user = registry.user(user_name) if user_name else None
    if user_name and user is None:
        raise InvalidParameter(f'user "{user_name}" does not exist')
    tier, cluster = registry.tier(tenant.tier), registry.cluster(tenant.cluster)
    if tier is None or cluster is None:
        raise InvalidParameter(f'tenant "{tenant_name}" has no tier or no cluster')
    steps: list[tuple[Value, ...]] = list(explain(tenant, tier, cluster, user, database, plane.pools.options))
    if registry.is_disabled("tenant", tenant.name):
        steps.append(("refused", tenant.name, "the tenant is disabled"))
    if registry.is_disabled("cluster", cluster.name):
        steps.append(("refused", cluster.name, "the cluster is disabled"))
    if plane.pools.paused(cluster.name):
        steps.append(("waits", cluster.name, "the cluster is paused"))
    now = monotonic()
    for endpoint in cluster.endpoints:
        if not plane.pools.health.healthy(endpoint, now):
            steps.append(("ejected", str(endpoint), plane.pools.health.reason(endpoint)))
    return View(("step", "value", "reason"), steps)


def lists(plane: Plane) -> View:
    all_pools = list(plane.pools)
    counts: Sequence[tuple[str, int]] = (
        ("databases", len(list(plane.registry.clusters()))),
        ("users", len(list(plane.registry.users()))),
        ("tenants", len(list(plane.registry.tenants()))),
        ("pools", len(all_pools)),
        ("used_clients", len(plane.sessions)),
        ("waiting_clients", sum(len(pool.queue) for pool in all_pools)),
        ("free_servers", sum(len(pool.idle) for pool in all_pools)),
        ("used_servers", sum(len(pool.active) for pool in all_pools)),
        ("prepared_statements", len(plane.pools.catalog)),
        ("server_connections", plane.pools.servers.used),
    )
    return View(("list", "items"), [(name, count) for name, count in counts])


# SHOW name -> view, for those that need nothing but the data plane.
VIEWS: dict[str, Callable[[Plane], View]] = {
    "pools": pools,
    "clients": clients,
    "servers": servers,
    "databases": databases,
    "stats": stats,
    "tenants": tenants,
    "tiers": tiers,
    "clusters": clusters,
    "users": users,
    "lists": lists,
}
