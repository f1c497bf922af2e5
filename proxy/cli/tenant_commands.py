"""The commands of `tiergate tenants`: of a file, where one is named, else of a running proxy by its API."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from proxy.cli import completing
from proxy.cli.options import (
    Access,
    Cluster,
    Coordinators,
    Json,
    Primary,
    Replicas,
    Shard,
    SomeConfig,
    by_api,
)

tenants = typer.Typer(
    help="Tenants: those of a file (--config), or of a running proxy by its API.", no_args_is_help=True
)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="A tenant's name or id.", autocompletion=completing.tenants)
]
Tier = Annotated[
    str,
    typer.Argument(
        metavar="TIER", help="enterprise, vip, standard or free.", autocompletion=completing.tiers
    ),
]
_LIMITS = typer.Argument(
    metavar="KEY=VALUE...",
    autocompletion=completing.quotas,
    help="max_connections, min_connections, max_qps, max_storage_gb, query_timeout_ms, cpu_quota_percentage, "
    "memory_quota_gb; none: as the tier says.",
)


@tenants.command("list")
@by_api
def list_tenants(
    access: Access,
    config: SomeConfig = None,
    tier: Annotated[str, typer.Option(metavar="TIER", autocompletion=completing.tiers)] = "",
    shard: Annotated[int | None, typer.Option(metavar="N")] = None,
    cluster: Annotated[str, typer.Option(metavar="NAME", help="Those that it serves.")] = "",
    state: Annotated[
        str,
        typer.Option(metavar="STATE", help="active, suspended or expired.", autocompletion=completing.states),
    ] = "",
    limit: Annotated[int, typer.Option(min=0, metavar="N", help="At most; 0: all.")] = 0,
    json: Json = False,
) -> None:
    """Each tenant with its tier and where it lives."""
    if config is not None:
        from proxy.cli.tenants import run_list as of_file

        if tier or shard is not None or cluster or state or limit:
            raise typer.BadParameter("only --json goes with --config")
        raise typer.Exit(of_file(config, json=json))
    from proxy.cli.remote_tenants import run_list

    wanted = {"tier": tier, "shard_id": shard, "cluster_name": cluster, "state": state}
    raise typer.Exit(run_list(access.open(), limit, as_json=json, **wanted))


@tenants.command("show")
@by_api
def show_tenant(
    access: Access,
    name: Name,
    config: SomeConfig = None,
    json: Json = False,
) -> None:
    """One tenant; of a file its route as well, step by step with the reasons, and its limits."""
    if config is not None:
        from proxy.cli.tenants import run_show as of_file

        raise typer.Exit(of_file(config, name, json=json))
    from proxy.cli.remote_tenants import run_show

    raise typer.Exit(run_show(access.open(), name, as_json=json))


@tenants.command("route")
@by_api
def route_tenant(
    access: Access,
    name: Name,
    user: Annotated[str, typer.Option(metavar="NAME", help="As that user.")] = "",
    database: Annotated[str, typer.Option(metavar="NAME", help="To that database.")] = "",
    json: Json = False,
) -> None:
    """What would happen to a login for the tenant, step by step with the reasons."""
    from proxy.cli.remote_tenants import run_route

    raise typer.Exit(run_route(access.open(), name, user, database, as_json=json))


@tenants.command("create")
@by_api
def create_tenant(
    access: Access,
    code: Annotated[str, typer.Argument(metavar="NAME", help="By which clients ask for it.")],
    tier: Tier,
    limits: Annotated[list[str] | None, _LIMITS] = None,
    title: Annotated[str, typer.Option(metavar="TEXT", help="Its name for people.")] = "",
    identity: Annotated[str | None, typer.Option("--id", metavar="UUID", help="Else a new one.")] = None,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="As 2030-01-01T00:00:00Z.")] = None,
    key: Annotated[str, typer.Option(metavar="KEY", help="The same request with the same key is done once.")] = "",
    cluster: Cluster = None,
    shard: Shard = None,
    primary: Primary = None,
    replica: Replicas = None,
    coordinator: Coordinators = None,
    json: Json = False,
) -> None:  # fmt: skip
    """A new tenant; without a place of its own, where its tier has room."""
    from proxy.cli.remote_tenants import run_create

    said = {
        "tenant_code": code, "tenant_name": title or code, "tier": tier, "tenant_id": identity, "expires_at": expires,
        **_target(cluster, shard, primary, replica, coordinator),
    }  # fmt: skip
    raise typer.Exit(run_create(access.open(), said, _limits(limits or []), key, as_json=json))


@tenants.command("set-tier")
@by_api
def set_tier(
    access: Access,
    name: Name,
    tier: Tier,
    cluster: Cluster = None,
    shard: Shard = None,
    primary: Primary = None,
    replica: Replicas = None,
    coordinator: Coordinators = None,
    json: Json = False,
) -> None:
    """Another tier, another place, or both; its data is not moved."""
    from proxy.cli.remote_tenants import run_set_tier

    said = {"tier": tier, **_target(cluster, shard, primary, replica, coordinator)}
    raise typer.Exit(run_set_tier(access.open(), name, said, as_json=json))


@tenants.command("set-limits")
@by_api
def set_limits(
    access: Access,
    name: Name,
    limits: Annotated[list[str] | None, _LIMITS] = None,
    expires: Annotated[
        str, typer.Option(metavar="TIME", help="Until when, as 2030-01-01T00:00:00Z; none: for ever.")
    ] = "",
    title: Annotated[str, typer.Option(metavar="TEXT", help="Its name for people.")] = "",
    json: Json = False,
) -> None:
    """What the tenant may use, and until when."""
    from proxy.cli.remote_tenants import run_set_limits

    said = _limits(limits or [])
    if expires:
        said["expires_at"] = None if expires == "none" else expires
    if title:
        said["tenant_name"] = title
    if not said:
        raise typer.BadParameter("nothing is said: KEY=VALUE, --expires or --title")
    raise typer.Exit(run_set_limits(access.open(), name, said, as_json=json))


@tenants.command("suspend")
@by_api
def suspend_tenant(access: Access, name: Name, json: Json = False) -> None:
    """Its logins are refused and its sessions end."""
    raise typer.Exit(_verb(access, name, "suspend", json))


@tenants.command("resume")
@by_api
def resume_tenant(access: Access, name: Name, json: Json = False) -> None:
    """It is served again."""
    raise typer.Exit(_verb(access, name, "resume", json))


@tenants.command("delete")
@by_api
def delete_tenant(
    access: Access,
    name: Name,
    with_usage: Annotated[bool, typer.Option("--with-usage", help="Its recorded usage as well.")] = False,
    json: Json = False,
) -> None:
    """Out of the registry; what it has stored stays."""
    from proxy.cli.remote_tenants import run_delete

    raise typer.Exit(run_delete(access.open(), name, with_usage=with_usage, as_json=json))


def _verb(access: Access, name: str, verb: str, json: bool) -> int:
    from proxy.cli.remote_tenants import run_verb

    return run_verb(access.open(), name, verb, as_json=json)


def _limits(limits: list[str]) -> dict[str, Any]:
    from proxy.cli.remote_tenants import parsed

    try:
        return parsed(limits)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _target(
    cluster: str | None,
    shard: int | None,
    primary: str | None,
    replicas: list[str] | None,
    coordinators: list[str] | None,
) -> dict[str, Any]:
    return {
        "cluster_name": cluster, "shard_id": shard, "primary_endpoint": primary, "replica_endpoints": replicas,
        "coordinator_endpoints": coordinators,
    }  # fmt: skip
