"""Changes to the tables of `all_tiers`: a smaller shared cluster, limits of a tenant."""

from __future__ import annotations

from typing import Any

Tables = dict[str, dict[str, Any]]


def with_cluster(tables: Tables, **more: Any) -> Tables:
    return tables | {"cluster.shared": tables["cluster.shared"] | more}


def one_connection(tables: Tables, mode: str = "transaction", size: int = 1) -> Tables:
    """The shared cluster with one server connection, or a few."""
    return with_cluster(tables, pool_size=size, pool_mode=mode)


def with_limits(tables: Tables, tenant: str = "std_1", **limits: Any) -> Tables:
    return tables | {f"tenant.{tenant}": tables[f"tenant.{tenant}"] | {"limits": limits}}
