"""The statements of the registry's store, each on a connection that its caller has, in the caller's transaction.

Those connections search pg_catalog alone. Tables are named with their schemas, values are bound, and what else a
statement is made of stands here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from proxy.errors import InvalidParameter, NoSuchName

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"
Columns = Mapping[str, Any]

_KEPT = timedelta(days=1)  # how long the answer to an idempotency key is kept
_PLACING = 0x7469657267617465  # the advisory lock under which tenants are counted and placed
_WRITABLE = (
    "tenant_id", "tenant_code", "tenant_name", "tier", "cluster_endpoint_type", "cluster_name", "primary_endpoint",
    "replica_endpoints", "shard_id", "coordinator_endpoints", "max_connections", "min_connections",
    "cpu_quota_percentage", "memory_quota_gb", "max_qps", "max_storage_gb", "query_timeout_ms", "active", "expires_at",
    "created_by", "updated_by",
)  # fmt: skip

_SERVED = "(t.expires_at IS NULL OR t.expires_at > now())"
_STATES = {
    "active": f"t.active AND {_SERVED}",
    "suspended": "t.active IS NOT TRUE",
    "expired": f"t.active AND NOT {_SERVED}",
}
# As rows are read (see `rows`), but for endpoints, which may be those of a configured cluster.
_ON = """(t.cluster_name = ${name}::text OR (
    coalesce(t.cluster_name, '') = '' AND t.primary_endpoint IS NULL AND t.coordinator_endpoints IS NULL
    AND CASE WHEN t.cluster_endpoint_type = 'vip_pool' AND t.shard_id IS NOT NULL THEN t.shard_id = ${shard}::int
        ELSE t.tier = ANY (${usual}::text[])
            OR (t.cluster_endpoint_type = 'shared_pool' AND t.tier = ANY (${only}::text[])) END))"""


class Conflict(InvalidParameter):
    """The registry holds something that it may not hold together with this. `field` is which of the request's."""

    def __init__(self, message: str, field: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.field = field


class Changed(InvalidParameter):
    """The row is no longer the one that the request is about."""

    field = "If-Match"


class NoSuchTenant(NoSuchName):
    """The registry has no such row."""

    field = "tenant"


class KeyReused(InvalidParameter):
    """An idempotency key came with another request than before."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Whom a configured cluster serves: those that name it, or its shard, or nothing and are of these tiers, for which it
    is the usual one or, if they live on shared clusters, the only one."""

    name: str
    shard: int | None = None
    usual_for: tuple[str, ...] = ()
    only_for: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which tenants a page shall have; None: any."""

    tier: str | None = None
    shard_id: int | None = None
    cluster: Cluster | None = None
    state: str | None = None


@dataclass(frozen=True, slots=True)
class Living:
    """How many tenants the registry has on each home: (tier, cluster_name, shard_id, whether it names endpoints)."""

    homes: tuple[tuple[str, str | None, int | None, bool, int], ...]
    of_file: frozenset[str]  # those of the names that were asked about, which the registry has as well


async def find(connection: Connection, name_or_id: str) -> Columns | None:
    """A name goes before an id."""
    record = await connection.fetchrow(
        "SELECT t.* FROM public.tenant_registry AS t WHERE t.tenant_code = $1::text", name_or_id
    )
    identity = _uuid(name_or_id)
    if record is None and identity is not None:
        record = await connection.fetchrow(
            "SELECT t.* FROM public.tenant_registry AS t WHERE t.tenant_id = $1", identity
        )
    return dict(record) if record is not None else None


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


async def page(connection: Connection, wanted: Wanted, after: str, limit: int) -> list[Columns]:
    conditions = ['t.tenant_code COLLATE "C" > $1::text']
    values: list[Any] = [after, limit]
    for column, cast in (("tier", "::text"), ("shard_id", "")):
        value = getattr(wanted, column)
        if value is not None:
            values.append(value)
            conditions.append(f"t.{column} = ${len(values)}{cast}")
    on = wanted.cluster
    if on is not None:
        n = len(values) + 1
        values += [on.name, on.shard, list(on.usual_for), list(on.only_for)]
        conditions.append(_ON.format(name=n, shard=n + 1, usual=n + 2, only=n + 3))
    if wanted.state is not None:
        conditions.append(_STATES[wanted.state])
    query = (
        f"SELECT t.* FROM public.tenant_registry AS t WHERE {' AND '.join(conditions)}"  # noqa: S608
        ' ORDER BY t.tenant_code COLLATE "C" LIMIT $2'
    )
    return [dict(record) for record in await connection.fetch(query, *values)]


async def locked(connection: Connection, name_or_id: str, version: int | None) -> Columns:
    """The row, which nobody else changes until the transaction's end. Raises NoSuchTenant, Changed."""
    found = await find(connection, name_or_id)
    if found is not None:
        record = await connection.fetchrow(
            "SELECT t.* FROM public.tenant_registry AS t WHERE t.tenant_id = $1 FOR UPDATE",
            found["tenant_id"],
        )
        found = dict(record) if record is not None else None
    if found is None:
        raise NoSuchTenant(f'the registry has no tenant "{name_or_id}"')
    now = found.get("version")  # tables that were made by hand have none
    if version is not None and now != version:
        raise Changed(f"the tenant has been changed: it is at version {now}, not {version}")
    return found


async def insert(connection: Connection, columns: Columns) -> Columns:
    names = [name for name in _WRITABLE if name in columns]
    values = ", ".join(f"${n}" for n in range(1, len(names) + 1))
    query = f"INSERT INTO public.tenant_registry ({', '.join(names)}) VALUES ({values}) RETURNING *"  # noqa: S608
    record = await connection.fetchrow(query, *(columns[name] for name in names))
    return dict(record or {})


async def update(connection: Connection, tenant_id: UUID, columns: Columns) -> Columns:
    names = [name for name in _WRITABLE if name in columns]
    changes = ", ".join(f"{name} = ${n}" for n, name in enumerate(names, start=2))
    query = f"UPDATE public.tenant_registry SET {changes} WHERE tenant_id = $1 RETURNING *"  # noqa: S608
    record = await connection.fetchrow(query, tenant_id, *(columns[name] for name in names))
    return dict(record or {})


async def delete(connection: Connection, tenant_id: UUID, *, with_usage: bool) -> None:
    if with_usage:
        await connection.execute("DELETE FROM public.tenant_metrics_daily WHERE tenant_id = $1", tenant_id)
    await connection.execute("DELETE FROM public.tenant_registry WHERE tenant_id = $1", tenant_id)


async def audit(
    connection: Connection,
    actor: str,
    action: str,
    of: Columns,
    before: Columns | None,
    after: Columns | None,
) -> None:
    await connection.execute(
        "INSERT INTO tiergate_registry.audit (actor, action, tenant_id, tenant_code, before, after)"
        " VALUES ($1, $2, $3, $4, $5::jsonb, $6::jsonb)",
        actor, action, of["tenant_id"], of["tenant_code"], as_json(before), as_json(after),
    )  # fmt: skip


async def audited(connection: Connection, tenant: str | None, before: int, limit: int) -> list[Columns]:
    found = await connection.fetch(
        "SELECT a.* FROM tiergate_registry.audit AS a WHERE a.id < $1 AND ($2::text IS NULL"
        " OR a.tenant_code = $2 OR a.tenant_id = $3) ORDER BY a.id DESC LIMIT $4",
        before, tenant, _uuid(tenant or ""), limit,
    )  # fmt: skip
    parsed = ("before", "after")
    return [
        {**row, **{key: json.loads(row[key]) if row[key] is not None else None for key in parsed}}
        for row in found
    ]


async def usage(connection: Connection, tenant_id: UUID, first: date, last: date) -> list[Columns]:
    found = await connection.fetch(
        "SELECT m.* FROM public.tenant_metrics_daily AS m WHERE m.tenant_id = $1"
        " AND m.metric_date BETWEEN $2 AND $3 ORDER BY m.metric_date",
        tenant_id, first, last,
    )  # fmt: skip
    return [dict(record) for record in found]


async def remember(connection: Connection, actor: str, key: str, answer: Columns) -> None:
    await connection.execute(
        "UPDATE tiergate_registry.requests SET answer = $3::jsonb WHERE actor = $1 AND key = $2",
        actor, key, as_json(answer),
    )  # fmt: skip


async def answered(connection: Connection, actor: str, key: str, asked: str) -> Columns | None:
    """What was answered to the key before; None: nothing, and it is ours now. Who comes meanwhile waits here."""
    await connection.execute("DELETE FROM tiergate_registry.requests WHERE at < now() - $1::interval", _KEPT)
    made = await connection.fetchval(
        "INSERT INTO tiergate_registry.requests (actor, key, asked) VALUES ($1, $2, $3)"
        " ON CONFLICT DO NOTHING RETURNING true",
        actor, key, asked,
    )  # fmt: skip
    if made:
        return None
    known = await connection.fetchrow(
        "SELECT r.asked, r.answer FROM tiergate_registry.requests AS r WHERE r.actor = $1 AND r.key = $2",
        actor, key,
    )  # fmt: skip
    if known is None or known["asked"] != asked or known["answer"] is None:
        raise KeyReused("this idempotency key has come with another request")
    answer: Columns = json.loads(known["answer"])
    return answer


async def living(connection: Connection, names: Iterable[str]) -> Living:
    """Counted under a lock that is held until the transaction's end, so that two do not take the last place."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _PLACING)
    homes = await connection.fetch(
        "SELECT t.tier, t.cluster_name, t.shard_id, (t.primary_endpoint IS NOT NULL"
        " OR t.coordinator_endpoints IS NOT NULL) AS own, count(*) AS n"
        " FROM public.tenant_registry AS t GROUP BY 1, 2, 3, 4"
    )
    known = await connection.fetch(
        "SELECT t.tenant_code FROM public.tenant_registry AS t WHERE t.tenant_code = ANY ($1::text[])",
        list(names),
    )
    return Living(
        tuple((row["tier"], row["cluster_name"], row["shard_id"], row["own"], row["n"]) for row in homes),
        frozenset(row["tenant_code"] for row in known),
    )


def as_json(row: Columns | None) -> str | None:
    return None if row is None else json.dumps(plain(row))


def plain(row: Columns) -> dict[str, Any]:
    """A row as JSON can have it."""
    return {
        key: value if isinstance(value, str | int | float | bool | list | None) else _told(value)
        for key, value in row.items()
    }


def _told(value: Any) -> str:
    return str(value.isoformat()) if hasattr(value, "isoformat") else str(value)
