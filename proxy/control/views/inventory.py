"""Who and what there is: databases, clusters, tenants, tiers, users, how many of each, and a tenant's route."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from proxy.admission.accounts import UNLIMITED, Account
from proxy.client.plane import Plane
from proxy.control.views.queue import due
from proxy.control.views.view import Value, View
from proxy.errors import InvalidParameter, NoSuchName
from proxy.model import Limits, Role
from proxy.routing.route import explain
from proxy.sql.policy import Rules


def databases(plane: Plane) -> View:
    columns = (
        "name", "host", "port", "database", "force_user", "pool_size", "min_pool_size", "reserve_pool", "pool_mode",
        "max_connections", "current_connections", "paused", "disabled",
    )  # fmt: skip
    rows: list[tuple[Value, ...]] = []
    for cluster in plane.registry.clusters():
        first = next((e for e in cluster.endpoints if e.role is not Role.REPLICA), None)
        rows.append(
            (
                cluster.name, first.host if first else "", first.port if first else 0, cluster.dbname, cluster.user,
                cluster.pool_size, cluster.min_pool_size, 0, cluster.pool_mode.value if cluster.pool_mode else "",
                cluster.max_connections, plane.pools.room.cluster(cluster.name).used,
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


def _limit(limits: Limits, name: str) -> Value:
    value: float | None = getattr(limits, name)
    return value or None


def tenants(plane: Plane) -> View:
    columns = (
        "name", "id", "tier", "cluster", "active", "disabled", "clients", "max_client_connections", "servers",
        "max_connections", "connections_now", "waiting", "queries", "transactions", "errors", "query_timeout",
        "sql_rules", "max_qps", "max_queries_per_day", "throttled", "refused_rate", "refused_quota",
        "server_time", "share_asked", "share_due", "share_given",
    )  # fmt: skip
    seen = {account.tenant.name: account for account in plane.accounts}
    shares = due(plane)
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
                used[1], _limit(limits, "max_connections"), _now(account), used[2], counts.queries if counts else 0,
                counts.transactions if counts else 0, sum(counts.errors.values()) if counts else 0,
                _limit(limits, "query_timeout"), str(plane.registry.rules(tenant) or ""), _limit(limits, "max_qps"),
                _limit(limits, "max_queries_per_day"), counts.throttled if counts else 0,
                counts.refused_rate if counts else 0, counts.refused_quota if counts else 0,
                int(counts.server_seconds * 1e6) if counts else 0, used[1] + used[2], shares.get(tenant.name, 0.0),
                used[1],
            )
        )  # fmt: skip
    return View(columns, rows)


def _now(account: Account | None) -> Value:
    """The cap of a tenant whose cap moves; of others 0."""
    counter = account.servers if account is not None else None
    return 0 if counter is None or counter.wish == UNLIMITED else min(counter.wish, counter.limit)


def tiers(plane: Plane) -> View:
    columns = (
        "name", "weight", "pool_mode", "max_tenants", "tenants", "clients", "max_client_connections", "servers",
        "max_connections", "tenant_max_connections", "tenant_query_timeout", "sql_rules",
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
                _limit(tier.limits, "query_timeout"), str(Rules.of(tier) or ""),
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
        raise NoSuchName(f'tenant "{tenant_name}" does not exist')
    user = registry.user(user_name) if user_name else None
    if user_name and user is None:
        raise NoSuchName(f'user "{user_name}" does not exist')
    tier, cluster = registry.tier(tenant.tier), registry.cluster(tenant.cluster)
    if tier is None or cluster is None:
        raise InvalidParameter(f'tenant "{tenant_name}" has no tier or no cluster')
    steps: list[tuple[Value, ...]] = list(explain(tenant, tier, cluster, user, database, plane.pools.options))
    rules = registry.rules(tenant)
    if rules is not None:
        steps += [(rule, value, f"said by {who}") for rule, value, who in rules.said]
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


def peers(plane: Plane) -> View:
    """The proxies behind one load balancer. A cancel request that is passed on has a connection of its own: no pool."""
    rows: list[tuple[Value, ...]] = [
        (n, host, port, 0) for n, (host, port) in sorted(plane.options.peers.items())
    ]
    return View(("peer_id", "host", "port", "pool_size"), rows)


def lists(plane: Plane) -> View:
    """PgBouncer's names first; what it keeps for later use and looks up itself is nothing here."""
    all_pools = list(plane.pools)
    servers = sum(pool.size + len(pool.closing) for pool in all_pools) + len(plane.relays)
    counts: Sequence[tuple[str, int]] = (
        ("databases", len(list(plane.registry.clusters()))),
        ("users", len(list(plane.registry.users()))),
        ("peers", len(plane.options.peers)),
        ("pools", len(all_pools)),
        ("peer_pools", 0),
        ("free_clients", 0),
        ("used_clients", len(plane.sessions) + len(plane.relays)),
        ("login_clients", plane.logging_in()),
        ("free_servers", 0),
        ("used_servers", servers),
        ("dns_names", 0),
        ("dns_zones", 0),
        ("dns_queries", 0),
        ("dns_pending", 0),
        ("tenants", len(list(plane.registry.tenants()))),
        ("waiting_clients", sum(len(pool.queue) for pool in all_pools)),
        ("idle_servers", sum(len(pool.idle) for pool in all_pools)),
        ("replication_clients", len(plane.relays)),
        ("prepared_statements", len(plane.pools.catalog)),
    )
    return View(("list", "items"), [(name, count) for name, count in counts])


def state(plane: Plane) -> View:
    paused, draining = plane.pools.paused("*"), plane.draining
    said = {"active": not (paused or draining), "paused": paused, "suspended": False, "draining": draining}
    return View(("key", "value"), [(key, "yes" if so else "no") for key, so in said.items()])
