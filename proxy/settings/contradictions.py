"""Limits that cannot both be kept, each of them right by itself.

Compared is what holds where it is said: a tenant's limits over its tier's over the proxy's. A tenant that is given no more
than its tier's minimum or guarantee is no contradiction: its cap does not move, and is all that it is guaranteed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from proxy.model import Cluster, Limits, Tenant, Tier
from proxy.settings.reader import Reader, dotted


def check(
    reader: Reader,
    proxy: Limits,
    tiers: Mapping[str, Tier],
    tenants: Mapping[str, Tenant],
    clusters: Mapping[str, Cluster],
    host: int = 0,
    hosts: int = 1,
) -> None:
    """`host` is how many server connections each of `hosts` proxies that share caps may have in all."""
    _check_own(reader, "proxy.limits", proxy, proxy, None)
    for tier in tiers.values():
        where, cluster = dotted("tier", tier.name), clusters.get(tier.cluster)
        _check_own(reader, f"{where}.limits", tier.limits, proxy, cluster)
        _check_own(reader, f"{where}.caps", tier.caps, tier.caps, cluster)
    promised: dict[str, dict[str, int]] = {}
    shares: dict[str, dict[str, float]] = {}
    for tenant in tenants.values():
        tier, cluster = tiers[tenant.tier], clusters.get(tenant.cluster)
        limits, where = tenant.limits, f"{dotted('tenant', tenant.name)}.limits"
        below = tier.limits if tier.limits.max_connections is not None else proxy
        _check_own(reader, where, limits, below, cluster)
        share = _first(
            limits.guaranteed_connections, tier.limits.guaranteed_connections, proxy.guaranteed_connections
        )
        if not share:
            share, where = tier.caps.guaranteed_connections or 0.0, f"{dotted('tier', tier.name)}.caps"
            if (
                0 < share < 1
                and tier.cluster != tenant.cluster
                and where not in promised.get(tenant.cluster, ())
            ):
                _check_own(reader, where, tier.caps, tier.caps, cluster)  # a share of what, its tenants say
        if share and cluster is not None:
            promised.setdefault(cluster.name, {})[where] = amount(share, cluster)
            if share < 1:
                shares.setdefault(cluster.name, {})[where] = share
    for name, amounts in promised.items():
        most, together = clusters[name].max_connections, sum(amounts.values())
        if len(amounts) > 1 and 0 < most < together:
            where = max(amounts, key=lambda each: amounts[each])
            reader.problem(
                where,
                "guaranteed_connections",
                f"{amounts[where]}, with what others are guaranteed {together}, is more than"
                f" the max_connections of cluster {name}, {most}",
            )
    for name, parts in shares.items():  # each of a pool's connections, where the cluster has no cap
        percent = round(100 * sum(parts.values()), 6)
        if percent > 100 and not clusters[name].max_connections:
            where = max(parts, key=lambda each: parts[each])
            whole = f"is {percent:g}% with what others are guaranteed of cluster {name}, and there is 100%"
            reader.problem(where, "guaranteed_connections", whole)
    _check_together(reader, promised, host, hosts)


def _check_together(reader: Reader, promised: Mapping[str, Mapping[str, int]], host: int, hosts: int) -> None:
    """What is guaranteed on all clusters; a tier's, whose tenants may live on several, once."""
    amounts: dict[str, int] = {}
    for of_cluster in promised.values():
        for where, count in of_cluster.items():
            amounts[where] = max(count, amounts.get(where, 0))
    together = sum(amounts.values())
    if not 0 < host * hosts < together:
        return
    where = max(amounts, key=lambda each: amounts[each])
    said = f"is {together},"
    if len(amounts) > 1:
        said = f"{amounts[where]}, with what others are guaranteed {together}, is"
    whose = f" of each of {hosts} proxies" if hosts > 1 else ""
    reader.problem(
        where, "guaranteed_connections", f"{said} more than the max_server_connections{whose}, {host}"
    )


def amount(share: float, cluster: Cluster | None) -> int:
    """How many connections are guaranteed by it; 0 of a share where nobody knows of what."""
    if share >= 1 or cluster is None:
        return int(share)
    return math.ceil(share * (cluster.max_connections or cluster.pool_size))


def _check_own(reader: Reader, where: str, own: Limits, below: Limits, cluster: Cluster | None) -> None:
    most = _first(own.max_connections, below.max_connections)
    least = own.min_connections or 0
    if least >= most > 0:
        reader.problem(
            where, "min_connections", f"is {least}, and max_connections, up to where it moves, {most:g}"
        )
    guaranteed = amount(own.guaranteed_connections or 0.0, cluster)
    if guaranteed > most > 0:
        reader.problem(
            where, "guaranteed_connections", f"is {guaranteed}, more than max_connections, {most:g}"
        )
    elif cluster is not None and guaranteed > cluster.max_connections > 0:
        more = f"more than the max_connections of cluster {cluster.name}, {cluster.max_connections}"
        reader.problem(where, "guaranteed_connections", f"is {guaranteed}, {more}")


def _first(*values: float | None) -> float:
    """The first that says something holds."""
    return next((value for value in values if value is not None), 0.0)
