"""What is said about tenants, in the names of the registry's columns."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from proxy.control.tenancy import Told
from proxy.model import Tenant

TierName = Literal["enterprise", "vip", "standard", "free"]
State = Literal["active", "suspended", "expired"]
_INT = 2**31 - 1
Count = Annotated[int, Field(ge=0, le=_INT)]
Amount = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Line = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$")]
Host = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9_./:\[\]-]+$")]
Code = Annotated[
    str,
    Field(
        max_length=50,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="the name by which clients ask for it; no UUID",
    ),
]
ClusterName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[^\x00-\x1f]+$")]
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
Moment = Annotated[AwareDatetime, Field(ge=_FIRST, le=_LAST)]


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid")

    def said(self) -> dict[str, Any]:
        """What the request says, null included."""
        return self.model_dump(exclude_unset=True)


class Quotas(_Said):
    """null: as the tier says."""

    max_connections: Count | None = None
    min_connections: Count | None = None
    cpu_quota_percentage: Percent | None = None
    memory_quota_gb: Amount | None = None
    max_qps: Count | None = None
    max_storage_gb: Count | None = None
    query_timeout_ms: Count | None = None


class Target(_Said):
    """Where the tenant shall live: a configured cluster, a shard, or endpoints. Nothing: wherever there is room."""

    cluster_name: ClusterName | None = None
    shard_id: Count | None = None
    primary_endpoint: Host | None = None
    replica_endpoints: Annotated[list[Host], Field(max_length=16)] | None = None
    coordinator_endpoints: Annotated[list[Host], Field(max_length=16)] | None = None
    cluster_endpoint_type: Literal["dedicated", "vip_pool", "shared_pool"] | None = None


class NewTenant(Quotas, Target):
    """Of the quotas, those that are not said have the registry's defaults: 10 connections, 30 s a query."""

    tenant_id: UUID | None = None
    tenant_code: Code
    tenant_name: Line
    tier: TierName
    expires_at: Moment | None = None


class Changes(Quotas):
    """What is not there stays as it is."""

    tenant_name: Line | None = None
    expires_at: Moment | None = None


class NewTier(Target):
    tier: TierName


class TenantBody(BaseModel):
    """`cluster` is the one that serves it; null: none, as `problem` says. What a tenant of the file does not have is
    null."""

    tenant_id: UUID | None
    tenant_code: str
    tenant_name: str
    tier: str
    state: State
    source: Literal["registry", "file"]
    cluster: str | None
    problem: str | None = None
    cluster_endpoint_type: str | None = None
    cluster_name: str | None = None
    shard_id: int | None = None
    primary_endpoint: str | None = None
    replica_endpoints: list[str] | None = None
    coordinator_endpoints: list[str] | None = None
    max_connections: int | None = None
    min_connections: int | None = None
    cpu_quota_percentage: float | None = None
    memory_quota_gb: float | None = None
    max_qps: float | None = None
    max_storage_gb: float | None = None
    query_timeout_ms: float | None = None
    expires_at: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    created_by: str | None = None
    updated_by: str | None = None
    version: int | None = None


class TenantPage(BaseModel):
    """`next` is the cursor of the page behind this one; null: there is none."""

    items: list[TenantBody]
    next: str | None = None


class ResourcesBody(BaseModel):
    """null: none is known. Keys in Redis begin with `key_prefix`."""

    tenant_id: UUID | None
    tenant_code: str
    tier: str
    postgresql: dict[str, Any] | None
    redis: dict[str, Any] | None
    clickhouse: dict[str, Any] | None
    kafka: dict[str, Any] | None


class StorageBody(BaseModel):
    tenant_code: str
    storage_used_gb: float


class UsageDay(BaseModel):
    metric_date: date
    db_query_count: int | None
    db_avg_latency_ms: float | None
    db_errors: int | None
    storage_used_gb: float | None
    storage_growth_gb: float | None
    api_qps: int | None
    api_errors: int | None


class UsageBody(BaseModel):
    items: list[UsageDay]


class AuditRow(BaseModel):
    id: int
    at: datetime
    actor: str
    action: str
    tenant_id: UUID
    tenant_code: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class AuditPage(BaseModel):
    """The newest first. `next` is the `before` of the page behind this one."""

    items: list[AuditRow]
    next: int | None = None


def body(told: Told) -> TenantBody:
    if told.columns is None:
        assert told.tenant is not None
        return _of_file(told.tenant)
    found = TenantBody.model_validate(
        {
            **told.columns,
            "state": "active",
            "source": "registry",
            "cluster": told.cluster or None,
            "problem": told.problem or None,
        }
    )
    if not told.columns["active"]:
        found.state = "suspended"
    elif found.expires_at is not None and found.expires_at <= datetime.now(UTC):
        found.state = "expired"
    return found


def _of_file(tenant: Tenant) -> TenantBody:
    limits = tenant.limits
    return TenantBody(
        tenant_id=UUID(tenant.id) if tenant.id else None,
        tenant_code=tenant.name,
        tenant_name=tenant.name,
        tier=tenant.tier,
        state="active" if tenant.active else "suspended",
        source="file",
        cluster=tenant.cluster,
        shard_id=tenant.shard_id,
        max_connections=limits.max_connections,
        max_qps=limits.max_qps,
        max_storage_gb=limits.max_storage_gb,
        query_timeout_ms=None if limits.query_timeout is None else limits.query_timeout * 1000,
    )
