"""The statements that write usage, in their caller's transaction: parts by process, and each day as the sum of its parts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from uuid import UUID

from proxy.registry.statements import Connection

_WRITING = 0x7469657267617375  # the advisory lock of those who add parts up: each sees all of the others'
_KEPT = timedelta(days=7)  # parts; the days that are their sums stay


async def write(
    connection: Connection, process: UUID, day: date, used: Sequence[tuple[str, tuple[int, float, int]]]
) -> None:
    """`used`: queries, seconds and errors of a day that the process has counted so far, by the tenant's code. Of those
    that are not the registry's nothing is kept."""
    codes = [code for code, _ in used]
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _WRITING)
    await connection.execute(
        "INSERT INTO tiergate_registry.usage_part AS p (process, tenant_id, metric_date, queries, seconds, errors)"
        " SELECT $1, t.tenant_id, $2, u.queries, u.seconds, u.errors"
        " FROM unnest($3::text[], $4::bigint[], $5::float[], $6::bigint[]) AS u (code, queries, seconds, errors)"
        " JOIN public.tenant_registry AS t ON t.tenant_code = u.code"
        " ON CONFLICT (tenant_id, metric_date, process) DO UPDATE"
        " SET queries = excluded.queries, seconds = excluded.seconds, errors = excluded.errors",
        process, day, codes, [n for _, (n, _, _) in used], [s for _, (_, s, _) in used], [e for _, (_, _, e) in used],
    )  # fmt: skip
    await connection.execute(
        "INSERT INTO public.tenant_metrics_daily AS m"
        " (tenant_id, metric_date, db_query_count, db_avg_latency_ms, db_errors)"
        " SELECT p.tenant_id, p.metric_date, sum(p.queries), sum(p.seconds) * 1000 / NULLIF(sum(p.queries), 0),"
        " sum(p.errors) FROM tiergate_registry.usage_part AS p"
        " JOIN public.tenant_registry AS t ON t.tenant_id = p.tenant_id"
        " WHERE p.metric_date = $1 AND t.tenant_code = ANY ($2::text[]) GROUP BY 1, 2"
        " ON CONFLICT (tenant_id, metric_date) DO UPDATE SET db_query_count = excluded.db_query_count,"
        " db_avg_latency_ms = excluded.db_avg_latency_ms, db_errors = excluded.db_errors",
        day, codes,
    )  # fmt: skip
    await connection.execute("DELETE FROM tiergate_registry.usage_part WHERE metric_date < $1", day - _KEPT)


async def claim(connection: Connection, day: date, lease: timedelta) -> bool:
    """True for the first who wants to measure what is stored on that day, and for another if it has not said for so long
    that it still does."""
    await connection.execute("DELETE FROM tiergate_registry.storage_day WHERE metric_date < $1", day - _KEPT)
    return bool(
        await connection.fetchval(
            "INSERT INTO tiergate_registry.storage_day AS d (metric_date) VALUES ($1)"
            " ON CONFLICT (metric_date) DO UPDATE SET at = now() WHERE d.at < now() - $2::interval RETURNING true",
            day, lease,
        )
    )  # fmt: skip


async def go_on(connection: Connection, day: date, *, done: bool) -> None:
    """Whoever measures still does, or has done so."""
    await connection.execute(
        "UPDATE tiergate_registry.storage_day SET at = CASE WHEN $2 THEN 'infinity' ELSE now() END"
        " WHERE metric_date = $1 AND at < 'infinity'",
        day, done,
    )  # fmt: skip


async def write_storage(connection: Connection, day: date, used: Sequence[tuple[UUID, float]]) -> None:
    """GB by the tenant's id, and how much more that is than when it was measured last on a day before."""
    await connection.execute(
        "INSERT INTO public.tenant_metrics_daily AS m (tenant_id, metric_date, storage_used_gb, storage_growth_gb)"
        " SELECT t.tenant_id, $1, u.gb, u.gb - (SELECT p.storage_used_gb FROM public.tenant_metrics_daily AS p"
        " WHERE p.tenant_id = t.tenant_id AND p.metric_date < $1 AND p.storage_used_gb IS NOT NULL"
        " ORDER BY p.metric_date DESC LIMIT 1)"
        " FROM unnest($2::uuid[], $3::float[]) AS u (id, gb) JOIN public.tenant_registry AS t ON t.tenant_id = u.id"
        " ON CONFLICT (tenant_id, metric_date) DO UPDATE"
        " SET storage_used_gb = excluded.storage_used_gb, storage_growth_gb = excluded.storage_growth_gb",
        day, [identity for identity, _ in used], [gb for _, gb in used],
    )  # fmt: skip
