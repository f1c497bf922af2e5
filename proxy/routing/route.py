"""From tenant, tier, cluster and user to the pool that serves them, and the reasons for it."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.model import Cluster, Endpoint, PoolKey, PoolMode, Role, ServerOptions, Tenant, Tier, User

Step = tuple[str, str, str]
STORED = "registry: "  # how the placement of a tenant that is stored there begins


@dataclass(frozen=True, slots=True)
class Route:
    """`endpoints` are those that new connections of the pool may go to: never replicas."""

    pool_key: PoolKey
    pool_mode: PoolMode
    cluster: Cluster
    endpoints: tuple[Endpoint, ...]


def route(
    tenant: Tenant, tier: Tier, cluster: Cluster, user: User, database: str, server_options: ServerOptions
) -> Route:
    return Route(
        PoolKey(cluster.name, _database(cluster, database)[0], _user(cluster, user)[0]),
        _pool_mode(user, tenant, cluster, tier, server_options)[0],
        cluster,
        cluster.with_role(Role.PRIMARY, Role.COORDINATOR),
    )


def explain(
    tenant: Tenant,
    tier: Tier,
    cluster: Cluster,
    user: User | None,
    database: str,
    server_options: ServerOptions,
) -> list[Step]:
    """(step, value, reason) in the order in which a login takes them; without a user, as any user."""
    mode, mode_from = _pool_mode(user, tenant, cluster, tier, server_options)
    replicas = cluster.with_role(Role.REPLICA)
    stored = tenant.placement.startswith(STORED)
    steps = [
        ("tenant", tenant.name, "active" if tenant.active else "not active: logins are refused"),
        ("tier", tier.name, f"{STORED}tier" if stored else f"[tenant.{tenant.name}] tier"),
        ("cluster", cluster.name, tenant.placement),
        *(
            (
                "endpoint",
                str(e),
                "the primary" if e.role is Role.PRIMARY else "a coordinator, the least loaded first",
            )
            for e in cluster.with_role(Role.PRIMARY, Role.COORDINATOR)
        ),
        *(("replica", str(e), "configured, not used for routing yet") for e in replicas),
        ("database", *_database(cluster, database)),
        ("user", *_user(cluster, user)),
        ("pool_mode", mode.value, mode_from),
        ("pool_size", str(cluster.pool_size), f"of cluster {cluster.name}, for each database and user"),
    ]
    if user is not None and not user.may_act_for(tenant):
        steps.append(("refused", user.name, "[user] tenants does not name this tenant"))
    return steps


def _pool_mode(
    user: User | None, tenant: Tenant, cluster: Cluster, tier: Tier, server_options: ServerOptions
) -> tuple[PoolMode, str]:
    for what, said in (
        ("the user", user.pool_mode if user is not None else None),
        ("the tenant", tenant.pool_mode),
        ("the cluster", cluster.pool_mode),
        ("the tier", tier.pool_mode),
    ):
        if said is not None:
            return said, f"said by {what}"
    return server_options.pool_mode, "[proxy] pool_mode"


def _database(cluster: Cluster, asked: str) -> tuple[str, str]:
    if cluster.dbname:
        return cluster.dbname, f"dbname of cluster {cluster.name}"
    return asked, "as the client asks"


def _user(cluster: Cluster, user: User | None) -> tuple[str, str]:
    if cluster.user:
        return cluster.user, f"user of cluster {cluster.name}"
    if user is None:
        return "", "the client's own, or its server_user"
    if user.server_user:
        return user.server_user, f"server_user of {user.name}"
    return user.name, "the client's own"
