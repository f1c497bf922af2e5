"""Where all that a tenant has stored is to be found: its PostgreSQL, and what the file says of its other stores."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from proxy import log
from proxy.model import Cluster, Directory, Role

Found = dict[str, Any]
# Rather more than the password than a part of it: it may hold any character, also those that it should not.
_OF_URL = re.compile(r"(://[^/@:\s]*):\S*(?=@)")
_OF_WORDS = re.compile(r"""(?i)((?:password|passwd|pwd|secret|token)\s*=\s*)("[^"]*"|'[^']*'|[^\s;&,]+)""")


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
    """By store, in the keys of the file: the tenant's own table, or its tier's; never some keys of each, which could name
    two places. Secrets are left out."""
    of_tier = directory.stores.get(("tier", tier), {})
    own = directory.stores.get(("tenant", name), {})
    found: dict[str, Found | None] = dict.fromkeys(("redis", "clickhouse", "kafka"))
    for store in of_tier.keys() | own.keys():
        found[store] = _shown(own.get(store) or of_tier[store])
    redis = found["redis"]
    if redis is not None:  # one Redis serves several tenants
        redis["key_prefix"] = f"{identity or name}:"
    return found


def _shown(table: Mapping[str, Any]) -> Found:
    return {key: _told(value) for key, value in table.items() if not log.is_secret(key)}


def _told(value: Any) -> Any:
    if isinstance(value, dict):
        return _shown(value)
    if isinstance(value, list):
        return [_told(one) for one in value]
    if isinstance(value, str):
        return _OF_WORDS.sub(rf"\1{log.REDACTED}", _OF_URL.sub(r"\1", value))
    return value
