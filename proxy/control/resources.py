"""Where all that a tenant has stored is to be found: its PostgreSQL, and what the file says of its other stores."""

from __future__ import annotations

from typing import Any

from proxy import log
from proxy.model import Cluster, Directory, Role

Found = dict[str, Any]


def postgresql(cluster: Cluster) -> Found:
    def named(role: Role) -> list[str]:
        return [str(endpoint) for endpoint in cluster.with_role(role)]

    return {
        "cluster": cluster.name,
        "cluster_type": cluster.kind.value,
        "primary": next(iter(named(Role.PRIMARY)), None),
        "read_replicas": named(Role.REPLICA),
        "coordinator_hosts": named(Role.COORDINATOR),
        "dbname": cluster.dbname or None,
    }


def others(name: str, identity: str, tier: str, directory: Directory) -> dict[str, Found | None]:
    """By store, in the keys of the file: the tenant's own go before those of its tier. Secrets are left out."""
    of_tier = directory.stores.get(("tier", tier), {})
    own = directory.stores.get(("tenant", name), {})
    found: dict[str, Found | None] = dict.fromkeys(("redis", "clickhouse", "kafka"))
    for store in of_tier.keys() | own.keys():
        found[store] = _shown({**of_tier.get(store, {}), **own.get(store, {})})
    redis = found["redis"]
    if redis is not None:  # one Redis serves several tenants
        redis["key_prefix"] = f"{identity or name}:"
    return found


def _shown(table: Found) -> Found:
    return {
        key: _shown(value) if isinstance(value, dict) else value
        for key, value in table.items()
        if not log.is_secret(key)
    }
