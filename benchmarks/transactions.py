"""The parts that are runs of pgbench: in plain text, with TLS, at one client, and with the tiers' own scripts."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from functools import partial

from benchmarks import bulk, pgbench
from benchmarks.options import Options
from benchmarks.pgbench import Work
from benchmarks.table import Column, Runs, Table, Targets, against, side_by_side
from benchmarks.targets import Bench, Setup, Target, Tenant
from proxy.cli.demo_servers import DATABASE, running_servers
from proxy.cli.embedded import bin_dir

CPU_RATIO = Column("CPU : PgBouncer", "cpu", against="pgbouncer")
TPS_RATIO = Column("TPS : PgBouncer", "tps", against="pgbouncer")
_COLUMNS = (
    Column("TPS", "tps", 0),
    Column("CPU us a transaction", "cpu", 1),
    Column("user", "user", 1),
    Column("system", "system", 1),
    Column("p50 ms", "p50"),
    Column("p99 ms", "p99"),
    Column("TPS : direct", "tps", against="direct"),
    TPS_RATIO,
    CPU_RATIO,
)


def simple(bench: Bench, options: Options, aims: Targets) -> None:
    print("\n## pgbench -S")
    table = Table(_COLUMNS)
    for mode in options.modes:
        with bench.running(Setup(bench.tenant, prepared=mode == "prepared")) as targets:
            works = [Work(mode, clients) for clients in options.clients]
            _measure(bench, options, targets, works, table, aims, f"pgbench -S, {mode}")


def tls(bench: Bench, options: Options, aims: Targets) -> None:
    print("\n## TLS to the client")
    if not bench.certificate or not pgbench.program(tls=True):
        print(
            "\nNot measured: it takes the package trustme and a pgbench that was built with TLS (Debian's is)."
        )
        return
    counts = [clients for clients in options.clients if 1 < clients <= 64] or options.clients[:1]
    table = Table(_COLUMNS)
    setup = Setup(bench.tenant, tls=bench.certificate)
    for mode in options.modes:
        with bench.running(dataclasses.replace(setup, prepared=mode == "prepared"), direct=False) as targets:
            works = [Work(mode, clients) for clients in counts]
            _measure(bench, options, targets, works, table, aims, f"TLS, pgbench -S, {mode}")
    with bench.running(setup, direct=False) as targets:
        bulk.measure(bench, options, targets, aims, "TLS, ")


def _measure(
    bench: Bench,
    options: Options,
    targets: Sequence[Target],
    works: Sequence[Work],
    table: Table,
    aims: Targets,
    name: str,
) -> None:
    for work in works:
        runs = _run(bench, options, targets, work, table)
        others = against("pgbouncer", targets, runs)
        for target in targets:
            if target.build:
                found = runs[target.name]
                least = "1.00 (interpreted: 1.50)"
                aims.note(f"{name}: CPU", f"at most {least}", target.build, CPU_RATIO.value(found, others))
                aims.note(f"{name}: TPS", "at least 1.00", target.build, TPS_RATIO.value(found, others))


def _run(bench: Bench, options: Options, targets: Sequence[Target], work: Work, table: Table) -> Runs:
    run = partial(pgbench.run, work, options.seconds, bench.directory)
    runs = side_by_side(targets, options.repetitions, run)
    table.rows(work.title, targets, runs)
    return runs


def latency(bench: Bench, options: Options, aims: Targets) -> None:
    """Added latency: the differences of neighbouring runs."""
    print("\n## Latency added at one client, simple queries")
    columns = [
        Column("p50 ms", "p50", 3),
        Column("p99 ms", "p99", 3),
        Column("p50 added to direct's", "p50", 3, "direct", difference=True),
        Column("p99 added to direct's", "p99", 3, "direct", difference=True),
        Column("p50 above PgBouncer's", "p50", 3, "pgbouncer", difference=True),
        Column("p99 above PgBouncer's", "p99", 3, "pgbouncer", difference=True),
    ]
    table = Table(columns)
    work = Work("simple", 1)
    with bench.running(Setup(bench.tenant)) as targets:
        runs = _run(bench, options, targets, work, table)
        others = against("pgbouncer", targets, runs)
        for target in targets:
            if target.build:
                for column in columns[4:]:
                    value = column.value(runs[target.name], others)
                    aims.note(f"one client: ms of {column.title}", "at most 0", target.build, value)


def tiers(bench: Bench, options: Options, aims: Targets) -> None:
    """Not of the issue's table: an ERP-like load for each tier, on the demo's servers and schema."""
    print("\n## A script for each tier, and a mix")
    scripts = {"acme": ["enterprise"], "globex": ["vip"], "shop1": ["standard", "mix"], "trial1": ["free"]}
    table = Table(_COLUMNS)
    with asyncio.Runner() as runner:
        starting = running_servers(bench.directory / "tiers")
        servers = runner.run(starting.__aenter__())
        try:
            for tenant in (
                Tenant("acme", "enterprise", "dedicated", servers.acme.port, DATABASE),
                Tenant("globex", "vip", "vip", servers.vip.port, DATABASE),
                Tenant("shop1", "standard", "shared", servers.shared.port, DATABASE),
                Tenant("trial1", "free", "shared", servers.shared.port, DATABASE),
            ):
                with bench.running(Setup(tenant)) as targets:
                    for script in scripts[tenant.name]:
                        works = [Work("simple", 8, script)]
                        _measure(bench, options, targets, works, table, aims, f"{script}.sql")
        finally:
            runner.run(starting.__aexit__(*sys.exc_info()))


def add_tables(bench: Bench) -> None:
    command = [
        str(bin_dir() / "pgbench"), "-i", "-q", "-s", "5", "-h", str(bench.server.socket_dir),
        "-p", str(bench.server.port), "-U", bench.server.superuser, bench.tenant.database,
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    bench.server.sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO app", bench.tenant.database)
