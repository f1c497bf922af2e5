"""The part of tenants that are stored in a registry: what they cost a login, and how soon a change reaches clients."""

from __future__ import annotations

import dataclasses
import http.client
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from benchmarks import logins, processes
from benchmarks.options import Options
from benchmarks.raw import RawClient
from benchmarks.table import Column, Sample, Table, Targets, against, side_by_side
from benchmarks.targets import API_TOKEN, Bench, Setup, Target
from proxy.cli.sql import scripts
from proxy.wire import encode

_DATABASE = "registry"
_RATIO = Column("logins : file", "rate", against="file")
_WARM = (
    Column("logins a second", "rate", 0),
    Column("CPU us a login", "cpu", 0),
    _RATIO,
    Column("CPU : file", "cpu", against="file"),
)
_COLD = (
    Column("first login, ms", "cold"),
    Column("second login, ms", "warm"),
    Column("Pss KB a tenant", "pss"),
    Column("until the first client, ms", "start", 0),
    Column("suspended until told, ms", "told"),
    Column("the slowest of 50, ms", "slowest"),
)
_PAGES = (
    Column("pages", "pages", 0),
    Column("median ms", "median"),
    Column("slowest ms", "slowest"),
)
_FEW = 1_000  # of the stored tenants, that log in
_SUSPENDED = 50


def stored(bench: Bench, options: Options, aims: Targets) -> None:
    print(f"\n## {options.stored_tenants:,} tenants in a registry")
    with _registry(bench, options.stored_tenants) as dsn:
        from_file, from_registry = Setup(bench.tenant), Setup(bench.tenant, registry_dsn=dsn)
        warm = Table(_WARM)
        for build in bench.builds:
            with (
                bench.running_tiergate(from_file, build) as one,
                bench.running_tiergate(from_registry, build) as other,
            ):
                file = dataclasses.replace(one, name=f"{one.name}, file", role="file")
                registry = dataclasses.replace(other, name=f"{other.name}, registry", role="registry")
                targets = [file, registry]
                runs = side_by_side(
                    targets, options.repetitions, lambda target: logins.run(target, options.seconds)
                )
                warm.rows("logins", targets, runs)
                value = _RATIO.value(runs[registry.name], against("file", targets, runs))
                aims.note("logins with a warm registry : with the file", "at least 0.95", build, value)
        cold = Table(_COLD)
        listed = []
        for build in bench.builds:
            began = time.monotonic()
            with bench.running_tiergate(from_registry, build) as target:
                cold.rows(
                    "stored", [target], {target.name: [_cold(target, dsn, began, options.stored_tenants)]}
                )
                listed.append((target, _listed(target)))
        pages = Table(_PAGES)
        for target, sample in listed:
            pages.rows("GET /v1/tenants by 1,000", [target], {target.name: [sample]})


@contextmanager
def _registry(bench: Bench, tenants: int) -> Iterator[str]:
    dsn = f"postgresql://postgres@127.0.0.1:{bench.server.port}/{_DATABASE}"
    bench.server.sql(f"CREATE DATABASE {_DATABASE}")
    with psycopg.connect(dsn, autocommit=True) as connection:
        install(connection)
        connection.execute("ALTER TABLE tenant_registry DISABLE TRIGGER USER")
        connection.execute(
            "INSERT INTO tenant_registry (tenant_id, tenant_code, tenant_name, tier, cluster_endpoint_type, cluster_name,"
            " max_connections) SELECT gen_random_uuid(), code, code, %s, 'shared_pool', 'place', NULL FROM ("
            " SELECT 's' || n FROM generate_series(1, %s) n UNION SELECT %s) AS codes (code)",
            [bench.tenant.tier, tenants, bench.tenant.name],
        )
        connection.execute("ALTER TABLE tenant_registry ENABLE TRIGGER USER")
        connection.execute("ANALYZE tenant_registry")
    try:
        yield dsn
    finally:
        bench.server.sql(f"DROP DATABASE {_DATABASE} WITH (FORCE)")


def install(connection: psycopg.Connection[Any]) -> None:
    for script in scripts("registry_kit").values():
        connection.execute(script.encode())


def _cold(target: Target, dsn: str, began: float, tenants: int) -> Sample:
    RawClient(target, tenant="s1").close()
    start = time.monotonic() - began
    names = [f"s{number}" for number in range(2, min(tenants, _FEW))]
    _, before = processes.memory(target.pid)
    cold, warm = _log_in(target, names), _log_in(target, names)
    _, after = processes.memory(target.pid)
    told = _suspended(target, dsn, names[:_SUSPENDED])
    return {
        "cold": 1000 * statistics.median(cold),
        "warm": 1000 * statistics.median(warm),
        "pss": (after - before) / 1024 / len(names),
        "start": 1000 * start,
        "told": 1000 * statistics.median(told),
        "slowest": 1000 * max(told),
    }


def _listed(target: Target) -> Sample:
    """All of them, page by page."""
    took, cursor = [], ""
    connection = http.client.HTTPConnection("127.0.0.1", target.http_port)
    while cursor is not None:
        began = time.monotonic()
        connection.request(
            "GET", f"/v1/tenants?limit=1000&cursor={cursor}", headers={"Authorization": f"Bearer {API_TOKEN}"}
        )
        cursor = json.loads(connection.getresponse().read())["next"]
        took.append(1000 * (time.monotonic() - began))
    connection.close()
    return {"pages": len(took), "median": statistics.median(took), "slowest": max(took)}


def _log_in(target: Target, names: Sequence[str]) -> list[float]:
    took = []
    for name in names:
        began = time.monotonic()
        client = RawClient(target, tenant=name)
        took.append(time.monotonic() - began)
        client.close()
    return took


def _suspended(target: Target, dsn: str, names: Sequence[str]) -> list[float]:
    """From before the UPDATE until its idle client has been told."""
    took = []
    with psycopg.connect(dsn, autocommit=True) as connection:
        for name in names:
            client = RawClient(target, tenant=name)
            client.ask(encode.query(b"SELECT 1"))
            began = time.monotonic()
            connection.execute("UPDATE tenant_registry SET active = false WHERE tenant_code = %s", [name])
            client.until_told()
            took.append(time.monotonic() - began)
            client.close()
    return took
