"""The part of tenants that are chosen in SQL: what a change of tenant costs, and what it costs to be able to."""

from __future__ import annotations

import dataclasses
from functools import partial

from benchmarks import pgbench
from benchmarks.options import Options
from benchmarks.pgbench import Work
from benchmarks.table import Column, Runs, Sample, Table, Targets, against, side_by_side
from benchmarks.targets import Bench, Setup, Target

_TENANTS = 8  # the scripts name t0 to t7
_COLUMNS = (
    Column("TPS", "tps", 0),
    Column("CPU us a transaction", "cpu", 1),
    Column("p50 ms", "p50", 3),
    Column("p99 ms", "p99", 3),
)
_PLAIN = Column("CPU : a named tenant's", "cpu", against="plain")
_STAYING = Column("CPU : staying", "cpu", against="staying")
_SLOWER = Column("p50 : staying", "p50", against="staying")
# What is compared: (heading, how a transaction of each goes).
_BLOCKS = ("BEGIN, SET LOCAL, SELECT, COMMIT", {"staying": "block_staying", "switching": "block_switching"})
_ALONE = ("SET, then SELECT", {"staying": "set_staying", "switching": "set_switching"})


def switching(bench: Bench, options: Options, aims: Targets) -> None:
    names = tuple(f"t{number}" for number in range(_TENANTS))
    clients = 8
    print(f"\n## Tenants chosen in SQL, {clients} clients, simple queries")
    with bench.running(Setup(bench.tenant, more_tenants=names)) as targets:
        for target in targets:
            if target.build:
                _never(bench, options, aims, target, clients)
        for target in targets:
            if target.role != "pgbouncer":
                for heading, scripts in (_BLOCKS, _ALONE):
                    _each_time(bench, options, aims, target, clients, heading, scripts)


def _never(bench: Bench, options: Options, aims: Targets, target: Target, clients: int) -> None:
    """A session that could choose but never does, against one that cannot."""
    ways = [
        dataclasses.replace(target, name=f"{target.name}, tenant named at login", role="plain"),
        dataclasses.replace(target, name=f"{target.name}, may choose", role="free", names_tenant=False),
    ]
    for script in ("block", ""):
        work = Work("simple", clients, script)
        run = partial(pgbench.run, work, options.seconds, bench.directory)
        runs = side_by_side(ways, options.repetitions, run)
        Table((*_COLUMNS, _PLAIN)).rows(f"never switching: {work.title}", ways, runs)
        value = _PLAIN.value(runs[ways[1].name], against("plain", ways, runs))
        aims.note("may choose its tenant but does not: CPU", "at most 1.03", target.build, value)


def _each_time(
    bench: Bench,
    options: Options,
    aims: Targets,
    target: Target,
    clients: int,
    heading: str,
    scripts: dict[str, str],
) -> None:
    ways = [
        dataclasses.replace(target, name=f"{target.name}, {role}", role=role, names_tenant=False)
        for role in scripts
    ]

    def measure(way: Target) -> Sample | None:
        return pgbench.run(Work("simple", clients, scripts[way.role]), options.seconds, bench.directory, way)

    runs: Runs = side_by_side(ways, options.repetitions, measure)
    Table((*_COLUMNS, _STAYING, _SLOWER)).rows(f"{heading}, {clients} clients", ways, runs)
    if target.build:
        others = against("staying", ways, runs)
        for column in (_STAYING, _SLOWER):
            value = column.value(runs[ways[1].name], others)
            aims.note(
                f"{heading}, another tenant each time: {column.title}", "one statement", target.build, value
            )
