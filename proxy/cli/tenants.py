"""`tiergate tenants`: who the tenants of a configuration file are, and how each would be routed."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict
from pathlib import Path

import typer

from proxy import settings
from proxy.cli import tables
from proxy.cli.problems import complain
from proxy.cli.tables import Row
from proxy.errors import ConfigError
from proxy.model import Cluster, Limits, Role, Tenant, Tier
from proxy.registry.memory import Registry
from proxy.routing.route import explain
from proxy.settings import Settings, format_duration

_ONLY_JSON = {"id", "replicas"}


def run_list(config: Path, *, json: bool) -> int:
    loaded = _load(config)
    if loaded is None:
        return 1
    registry = Registry(loaded.directory, loaded.client)
    rows = [_summary(registry, tenant) for tenant in registry.tenants()]
    if json:
        typer.echo(jsonlib.dumps(rows, indent=2, ensure_ascii=False))
    else:
        tables.show([{k: v for k, v in row.items() if k not in _ONLY_JSON} for row in rows])
    return 0


def run_show(config: Path, name: str, *, json: bool) -> int:
    loaded = _load(config)
    if loaded is None:
        return 1
    registry = Registry(loaded.directory, loaded.client)
    tenant = registry.known(name)
    if tenant is None:
        complain(ConfigError(f'{config}: no tenant is called "{name}"'))
        return 1
    tier, cluster = _home(registry, tenant)
    steps = explain(tenant, tier, cluster, None, "", loaded.server)
    rules = registry.rules(tenant)
    said = [{"rule": r, "value": value, "said by": who} for r, value, who in (rules.said if rules else ())]
    limits = _limits(registry.limits(tenant))
    if json:
        route = [{"step": step, "value": value, "reason": reason} for step, value, reason in steps]
        typer.echo(
            jsonlib.dumps(
                {
                    **_summary(registry, tenant),
                    "route": route,
                    "limits": asdict(registry.limits(tenant)),
                    "sql_rules": said,
                },
                indent=2,
                ensure_ascii=False,
            )
        )
    else:
        tables.show([{"step": step, "value": value, "reason": reason} for step, value, reason in steps])
        tables.show([{"limit": limit, "value": value} for limit, value in limits.items()])
        if said:
            tables.show(said)
    return 0


def _load(config: Path) -> Settings | None:
    try:
        return settings.load(str(config))
    except ConfigError as error:
        complain(error)
        return None


def _home(registry: Registry, tenant: Tenant) -> tuple[Tier, Cluster]:
    tier, cluster = registry.tier(tenant.tier), registry.cluster(tenant.cluster)
    if tier is None or cluster is None:
        raise LookupError(f"tenant {tenant.name} without tier or cluster")
    return tier, cluster


def _summary(registry: Registry, tenant: Tenant) -> Row:
    tier, cluster = _home(registry, tenant)
    return {
        "tenant": tenant.name,
        "id": tenant.id,
        "tier": tier.name,
        "cluster": cluster.name,
        "kind": cluster.kind.value,
        "servers": [str(e) for e in cluster.with_role(Role.PRIMARY, Role.COORDINATOR)],
        "replicas": [str(e) for e in cluster.with_role(Role.REPLICA)],
        "active": tenant.active,
    }


def _limits(limits: Limits) -> dict[str, str]:
    return {
        name: "no limit"
        if not value
        else format_duration(value)
        if name.endswith("timeout")
        else f"{value:g}"
        for name, value in asdict(limits).items()
    }
