"""The part of many tenants: what 9,900 that have been here once and are idle cost a transaction of the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from benchmarks import generator
from benchmarks.options import Options
from benchmarks.raw import RawClient
from benchmarks.table import Column, Table, Targets, against, side_by_side
from benchmarks.targets import Bench, Setup, Target
from proxy.wire import encode

_QUERY = "SELECT abalance FROM pgbench_accounts WHERE aid = 1"
_RATIO = Column("CPU : few tenants", "cpu", against="few")
_COLUMNS = (
    Column("TPS", "tps", 0),
    Column("CPU us a transaction", "cpu", 1),
    Column("user", "user", 1),
    Column("system", "system", 1),
    _RATIO,
)


def tenants(bench: Bench, options: Options, aims: Targets) -> None:
    few, many = options.active_tenants, options.tenants
    print(
        f"\n## {many:,} tenants configured, {many - few:,} of them idle; one client of each of the other {few:,}"
    )
    if "load" not in bench.native:
        print("\nNot measured: the load takes a C compiler.")
        return
    table = Table(_COLUMNS)
    names = tuple(f"t{number:05d}" for number in range(many))
    for build in bench.builds:
        with (
            bench.running_tiergate(Setup(bench.tenant, more_tenants=names[:few]), build) as with_few,
            bench.running_tiergate(Setup(bench.tenant, more_tenants=names), build) as with_many,
        ):
            _visit(with_many, names[few:])
            targets = [
                dataclasses.replace(with_few, name=f"{with_few.name}, {few:,} tenants", role="few"),
                dataclasses.replace(with_many, name=f"{with_many.name}, {many:,} tenants", role="many"),
            ]
            runs = side_by_side(
                targets,
                options.repetitions,
                lambda target: generator.run(
                    bench.native["load"], target, options.seconds, few, _QUERY, prefix="t", tenants=few
                ),
            )
            table.rows(f"{few} clients", targets, runs)
            value = _RATIO.value(runs[targets[1].name], against("few", targets, runs))
            aims.note(f"CPU with {many:,} tenants : with {few:,}", "1.00", build, value)


def _visit(target: Target, names: Sequence[str]) -> None:
    for name in names:
        with RawClient(target, tenant=name) as client:
            client.ask(encode.query(_QUERY.encode()))
