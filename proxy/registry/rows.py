"""A row of tenant_registry: read, carried as JSON, and given the meaning that a [tenant.X] of the file has.

Where a row lives is asked in this order: cluster_name, the endpoints it names, shard_id, its tier's cluster, the only
shared one. Endpoints that are those of a configured cluster are that cluster, with its logins, sizes and seal keys;
others make a cluster of their own, which only a dedicated row keeps to itself. A row that cannot be served says why,
and its tenant is refused rather than unknown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from proxy.errors import NoHealthyEndpoint
from proxy.model import Cluster, ClusterKind, Directory, Endpoint, Limits, Role, ServerOptions, Tenant
from proxy.routing import addresses
from proxy.routing.route import STORED

TABLE = "public.tenant_registry"
CHANNEL = "tiergate_registry"
KINDS = {
    "dedicated": ClusterKind.DEDICATED,
    "vip_pool": ClusterKind.VIP,
    "shared_pool": ClusterKind.SHARED,
}


class UnusableRow(NoHealthyEndpoint):
    """The registry has the tenant, but what it says of it cannot be served. `internal` says what is wrong."""

    def __init__(self, code: str, problem: str) -> None:
        super().__init__(f'tenant "{code}" cannot be served now', internal=f"its registry row: {problem}")
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Row:
    """What the proxy reads of a row; the names are the columns'. `expires_at` is in seconds since 1970."""

    tenant_id: str
    tenant_code: str
    tier: str
    cluster_endpoint_type: str
    cluster_name: str | None = None
    primary_endpoint: str | None = None
    replica_endpoints: tuple[str, ...] = ()
    shard_id: int | None = None
    coordinator_endpoints: tuple[str, ...] = ()
    max_connections: int | None = None
    min_connections: int | None = None
    max_qps: int | None = None
    max_storage_gb: int | None = None
    query_timeout_ms: int | None = None
    active: bool = True
    expires_at: float | None = None
    version: int = 0

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Row:
        """Of a record or row_to_json; columns that a table made by hand does not have may be missing."""
        said = {name: record[name] for name in _NAMES & record.keys() if record[name] is not None}
        for name in ("replica_endpoints", "coordinator_endpoints"):
            said[name] = tuple(said.get(name, ()))
        said["tenant_id"] = str(said["tenant_id"]).lower()
        said["expires_at"] = _moment(said.get("expires_at"))
        # A column that is NULL although it has a default: nobody has said that the tenant may be served.
        said["active"] = bool(said.get("active", False))
        return cls(**said)

    def to_json(self) -> str:
        return json.dumps(
            {name: value for name, value in asdict(self).items() if value not in (None, ())},
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> Row | None:
        """None for what is no row of this version."""
        try:
            said = json.loads(text)
            return cls.of(said) if isinstance(said, dict) else None
        except (ValueError, TypeError, KeyError):
            return None


_NAMES = frozenset(field.name for field in fields(Row))


def _moment(value: object) -> float | None:
    """Seconds since 1970 of a time as asyncpg or JSON has it; None: never."""
    if isinstance(value, str):
        if value in ("infinity", "-infinity"):
            return None if value == "infinity" else 0.0
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        if value.year in (1, 9999):  # asyncpg's infinities
            return None if value.year == 9999 else 0.0
        return (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).timestamp()
    return float(value) if isinstance(value, int | float) else None


class Home(NamedTuple):
    """A row as it is served; `cluster` is set where the row describes one that the file does not have."""

    tenant: Tenant
    cluster: Cluster | None


def home(row: Row, directory: Directory, options: ServerOptions) -> Home:
    """Raises UnusableRow."""
    tier = directory.tiers.get(row.tier)
    if tier is None:
        raise UnusableRow(row.tenant_code, f'no tier is called "{row.tier}"')
    for name in ("max_connections", "min_connections", "max_qps", "max_storage_gb", "query_timeout_ms"):
        if (getattr(row, name) or 0) < 0:
            raise UnusableRow(row.tenant_code, f"{name} is negative")
    cluster, own, placement = _lives(row, tier.cluster, directory, options)
    return Home(
        Tenant(
            name=row.tenant_code,
            tier=row.tier,
            cluster=cluster,
            id=row.tenant_id,
            limits=Limits(
                max_connections=row.max_connections,
                max_qps=None if row.max_qps is None else float(row.max_qps),
                query_timeout=None if row.query_timeout_ms is None else row.query_timeout_ms / 1000,
                max_storage_gb=None if row.max_storage_gb is None else float(row.max_storage_gb),
            ),
            shard_id=row.shard_id,
            active=row.active,
            placement=f"{STORED}{placement}",
        ),
        own,
    )


def _lives(
    row: Row, of_tier: str, directory: Directory, options: ServerOptions
) -> tuple[str, Cluster | None, str]:
    """Name of the cluster, the cluster if it is the row's own, and which column says so."""
    code, clusters = row.tenant_code, directory.clusters
    kind = KINDS.get(row.cluster_endpoint_type)
    if kind is None:
        raise UnusableRow(
            code, f'cluster_endpoint_type is "{row.cluster_endpoint_type}", not one of {", ".join(KINDS)}'
        )
    if row.cluster_name:
        return _configured(code, row.cluster_name, clusters), None, "cluster_name"
    endpoints = _endpoints(row, kind)
    if endpoints:
        said = "primary_endpoint" if row.primary_endpoint else "coordinator_endpoints"
        same = [name for name, found in clusters.items() if set(found.endpoints) == set(endpoints)]
        if same:
            shard = f"vip-{row.shard_id}"
            return shard if shard in same else same[0], None, said
        own = _own(row, kind, endpoints, clusters, options)
        return own.name, own, said
    if kind is ClusterKind.DEDICATED:
        if of_tier:
            return _configured(code, of_tier, clusters), None, f"tier {row.tier}"
        raise UnusableRow(code, "a dedicated tenant needs primary_endpoint or cluster_name")
    if kind is ClusterKind.VIP and row.shard_id is not None:
        return _configured(code, f"vip-{row.shard_id}", clusters), None, f"shard_id = {row.shard_id}"
    if of_tier:
        return _configured(code, of_tier, clusters), None, f"tier {row.tier}"
    shared = [name for name, found in clusters.items() if found.kind is kind is ClusterKind.SHARED]
    if len(shared) == 1:
        return shared[0], None, f"the only shared cluster, for tier {row.tier}"
    raise UnusableRow(code, "it names no cluster: cluster_name, coordinator_endpoints or shard_id would")


def _configured(code: str, name: str, clusters: Mapping[str, Cluster]) -> str:
    if name not in clusters:
        raise UnusableRow(code, f'no cluster is called "{name}"')
    return name


def _endpoints(row: Row, kind: ClusterKind) -> tuple[Endpoint, ...]:
    code = row.tenant_code
    if row.primary_endpoint and row.coordinator_endpoints:
        raise UnusableRow(code, "it has primary_endpoint and coordinator_endpoints, which are two clusters")
    if row.replica_endpoints and not row.primary_endpoint:
        raise UnusableRow(code, "it has replica_endpoints without primary_endpoint")
    if row.coordinator_endpoints and kind is ClusterKind.DEDICATED:
        raise UnusableRow(code, "a dedicated tenant has primary_endpoint, not coordinator_endpoints")
    found = tuple(
        Endpoint(*_address(code, text), role)
        for role, texts in (
            (Role.PRIMARY, (row.primary_endpoint,) if row.primary_endpoint else ()),
            (Role.REPLICA, row.replica_endpoints),
            (Role.COORDINATOR, row.coordinator_endpoints),
        )
        for text in texts
    )
    if len({endpoint[:2] for endpoint in found}) < len(found):
        raise UnusableRow(code, "it names an endpoint twice")
    return found


def _address(code: str, text: str) -> tuple[str, int]:
    try:
        return addresses.parse(text)
    except ValueError:
        raise UnusableRow(code, f'"{text}" is no endpoint; {addresses.EXAMPLE} would be') from None


def _own(
    row: Row,
    kind: ClusterKind,
    endpoints: tuple[Endpoint, ...],
    clusters: Mapping[str, Cluster],
    options: ServerOptions,
) -> Cluster:
    """Named after the tenant where it is the tenant's alone; otherwise after its endpoints, so that rows that name
    the same ones share it, and rows that name others never do."""
    hosts = ",".join(sorted(str(endpoint) for endpoint in endpoints))
    if kind is not ClusterKind.DEDICATED:
        shard = f"-{row.shard_id}" if kind is ClusterKind.VIP and row.shard_id is not None else ""
        name = f"{kind.value}{shard}@{hosts}"
        return _asking(Cluster(name, kind, endpoints, pool_size=options.default_pool_size), options)
    name = row.tenant_code if row.tenant_code not in clusters else f"{row.tenant_code}@{hosts}"
    pool_size = row.max_connections or options.default_pool_size
    own = Cluster(
        name,
        kind,
        endpoints,
        pool_size=pool_size,
        min_pool_size=min(row.min_connections or 0, pool_size),
    )
    return _asking(own, options)


def _asking(cluster: Cluster, options: ServerOptions) -> Cluster:
    """About its roles, as the proxy asks all that say nothing else."""
    return replace(
        cluster, auth_user=options.auth_user, auth_password=options.auth_password, auth_query=options.auth_query,
        auth_dbname=options.auth_dbname,
    )  # fmt: skip
