"""Users, tiers, clusters and tenants as one directory, with everything that one names in another checked."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import MappingProxyType
from typing import Any
from uuid import UUID

from proxy.model import ClientOptions, Directory, Limits, ServerOptions, Tenant, Tier, User
from proxy.protocol import seal
from proxy.settings import contradictions, passwords
from proxy.settings.clusters import Clusters
from proxy.settings.keys import STORES, TABLES
from proxy.settings.policies import read_policy
from proxy.settings.reader import Reader, dotted, suggestion

# The architecture document's four tiers are there without being mentioned; of the free tier's limits, those
# that a proxy can hold: ten users, 1,000 queries a day and 100 MB.
DEFAULT_TIERS: dict[str, Tier] = {
    "enterprise": Tier("enterprise", weight=8),
    "vip": Tier("vip", weight=4),
    "standard": Tier("standard", weight=2),
    "free": Tier(
        "free",
        weight=1,
        limits=Limits(max_client_connections=10, max_queries_per_day=1_000, max_storage_gb=0.1),
    ),
}


def build(
    reader: Reader,
    document: dict[str, Any],
    server: ServerOptions,
    client: ClientOptions,
    *,
    registry: bool = False,
    proxies: int = 1,
) -> Directory:
    """With a `registry` there are other tenants besides, which users and `default_tenant` may name. So many `proxies` share
    their caps."""
    said = {kind: _tables(reader, document, kind) for kind in TABLES}
    clusters = Clusters(reader, server, client)
    for name, values in said["cluster"].items():
        clusters.configure(name, values)
    tiers = _tiers(reader, said["tier"], clusters, client.tenant_guc)
    tenants = _tenants(reader, said["tenant"], tiers, clusters, client.tenant_guc)
    _check_tenants(reader, said["tier"], tiers, tenants)
    most = server.max_server_connections
    contradictions.check(reader, client.limits, tiers, tenants, clusters.by_name, most, proxies)
    _check_guc(reader, client.tenant_guc, {"tier": tiers, "tenant": tenants})
    users = _users(reader, said["user"], tenants, client.auth_type, registry=registry)
    if client.default_tenant and not registry and not _known(client.default_tenant, tenants):
        reader.problem(
            "proxy",
            "default_tenant",
            f'no tenant is called "{client.default_tenant}"' + suggestion(client.default_tenant, tenants),
        )
    return Directory(
        MappingProxyType(users),
        MappingProxyType(clusters.by_name),
        MappingProxyType(tiers),
        MappingProxyType(tenants),
        MappingProxyType(
            {
                (kind, name): {key: values[key] for key in STORES if key in values}
                for kind in ("tier", "tenant")
                for name, values in said[kind].items()
                if not values.keys().isdisjoint(STORES)
            }
        ),
    )


def _tables(reader: Reader, document: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    table = document.get(kind, {})
    if not isinstance(table, dict):
        reader.problem(kind, "", f"must be written as [{kind}.NAME]")
        return {}
    found: dict[str, dict[str, Any]] = {}
    for name, raw in table.items():
        if not name or "\0" in name:
            reader.problem(dotted(kind, name), "", "the name is empty or holds a zero byte")
        elif not isinstance(raw, dict):
            reader.problem(kind, dotted(name), f"must be a table, as in [{kind}.NAME]")
        else:
            found[name] = reader.read(raw, TABLES[kind], dotted(kind, name))
    return found


def _tiers(reader: Reader, said: dict[str, dict[str, Any]], clusters: Clusters, guc: str) -> dict[str, Tier]:
    tiers = dict(DEFAULT_TIERS)
    kept = {"pool_type", "auto_shard", "auto_scale", "min_shards", "max_shards", *STORES}
    for name, values in said.items():
        base = tiers.get(name, Tier(name))
        policy = read_policy(reader, values, dotted("tier", name), guc)
        chosen = {key: value for key, value in values.items() if key not in kept}
        chosen["limits"] = Limits(**values.get("limits", {})).over(base.limits)
        chosen["caps"] = Limits(**values.get("caps", {})).over(base.caps)
        tiers[name] = tier = replace(base, **chosen, policy=policy.over(base.policy))
        if tier.cluster:
            clusters.configured_or_problem(tier.cluster, dotted("tier", name))
    return tiers


def _tenants(
    reader: Reader,
    said: dict[str, dict[str, Any]],
    tiers: dict[str, Tier],
    clusters: Clusters,
    guc: str,
) -> dict[str, Tenant]:
    tenants: dict[str, Tenant] = {}
    for name, values in said.items():
        where = dotted("tenant", name)
        if "tier" not in values:
            reader.missing(where, "tier", f"missing; it is one of {', '.join(tiers)}")
            continue
        tier = tiers.get(values["tier"])
        if tier is None:
            wanted = values["tier"]
            reader.problem(where, "tier", f'no tier is called "{wanted}"' + suggestion(wanted, tiers))
            continue
        cluster, placement = clusters.for_tenant(name, where, values, tier)
        limits = Limits(**values.get("limits", {}))
        pool_size = values.get("postgresql", {}).get("pool_size")
        if pool_size and limits.max_connections is None and clusters.pool_size_is_shared(cluster):
            # On servers that others use as well, the pool a tenant asked for is its share.
            limits = replace(limits, max_connections=pool_size)
        tenants[name] = Tenant(
            name=name,
            tier=tier.name,
            cluster=cluster,
            id=values.get("id", ""),
            limits=limits,
            pool_mode=values.get("pool_mode"),
            parameters=values.get("parameters", MappingProxyType({})),
            shard_id=values.get("shard_id"),
            active=values.get("active", True),
            placement=placement,
            policy=read_policy(reader, values, where, guc),
        )
    return tenants


def _check_tenants(
    reader: Reader, said: dict[str, dict[str, Any]], tiers: dict[str, Tier], tenants: dict[str, Tenant]
) -> None:
    owners: dict[str, str] = {}
    for tenant in tenants.values():
        if not tenant.id:
            continue
        if tenant.id in owners:
            other = f"the id of [{dotted('tenant', owners[tenant.id])}]"
            reader.problem(dotted("tenant", tenant.name), "id", f"{tenant.id} is also {other}")
        elif tenant.id in tenants and tenant.id != tenant.name:
            reader.problem(
                dotted("tenant", tenant.name), "id", f"{tenant.id} is also the name of another tenant"
            )
        owners[tenant.id] = tenant.name
    for name, count in Counter(tenant.tier for tenant in tenants.values()).items():
        if 0 < tiers[name].max_tenants < count:
            reader.problem(
                dotted("tier", name),
                "max_tenants",
                f"is {tiers[name].max_tenants}, but {count} tenants are of it",
            )


def _check_guc(reader: Reader, guc: str, holders: dict[str, Any]) -> None:
    ours = {guc.lower(): f"{guc} names the tenant", seal.PARAMETER: f"{seal.PARAMETER} proves the tenant"}
    for kind, named in holders.items():
        for name, holder in named.items():
            for key in holder.parameters:
                if key.lower() in ours:
                    what = ours[key.lower()]
                    reader.problem(dotted(kind, name), "parameters", f"{what}; only the proxy sets it")


def _is_id(name: str) -> bool:
    try:
        return str(UUID(name)) == name.lower()
    except ValueError:
        return False


def _known(name_or_id: str, tenants: dict[str, Tenant]) -> bool:
    return name_or_id in tenants or any(tenant.id == name_or_id.lower() for tenant in tenants.values())


def _users(
    reader: Reader,
    said: dict[str, dict[str, Any]],
    tenants: dict[str, Tenant],
    auth_type: str,
    *,
    registry: bool,
) -> dict[str, User]:
    users: dict[str, User] = {}
    ids = {tenant.id for tenant in tenants.values()} - {""}
    for name, values in said.items():
        where = dotted("user", name)
        wanted: frozenset[str] | None = values.get("tenants", frozenset())
        for tenant in sorted(wanted or ()):
            if not registry and tenant not in tenants and tenant.lower() not in ids:
                reader.problem(
                    where, "tenants", f'no tenant is called "{tenant}"' + suggestion(tenant, tenants)
                )
        user = User(
            name=name,
            password=reader.secret(values, "password", where),
            tenants=None
            if wanted is None
            else frozenset(t.lower() if t.lower() in ids or _is_id(t) else t for t in wanted),
            auth_type=values.get("auth_type", ""),
            server_user=values.get("server_user", ""),
            server_password=reader.secret(values, "server_password", where),
            pool_mode=values.get("pool_mode"),
            limits=Limits(**values.get("limits", {})),
            keep_sequences=values.get("keep_sequences", False),
        )
        method = user.auth_type or auth_type
        if (
            method in ("scram-sha-256", "md5", "plain")
            and not user.password
            and "password_file" not in values
        ):
            reader.missing(where, "password", f"missing; auth_type {method} cannot work without one")
        for key, wrong in (
            ("password", passwords.malformed(user.password) or passwords.useless(user.password, method)),
            ("server_password", passwords.malformed(user.server_password)
             or passwords.useless_for_server(user.server_password)),
        ):  # fmt: skip
            if wrong:
                reader.problem(where, f"{key}_file" if f"{key}_file" in values else key, wrong)
        users[name] = user
    return users
