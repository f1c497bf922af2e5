"""What fair shares cost where nothing is scarce: the same Tiergate with caps only, and with all of it on, side by side.

Every client has a connection, the rate is far, the moving cap and the adaptive limit are where they need not move: all that
is left is the work of looking. It is little beside a transaction, so there are many short runs, and what counts is
the median of the ratios of neighbours.
"""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from functools import partial

from benchmarks import pgbench
from benchmarks.options import Options
from benchmarks.pgbench import Work
from benchmarks.table import Column, Table, Targets, against, side_by_side
from benchmarks.targets import ALL_SHARES, Bench, Setup

_CLIENTS = (8, 64)
_MODES = ("simple", "prepared")
_SHORTER = 3  # than other runs, and as many times more of them
_CPU = Column("CPU : caps only", "cpu", 3, against="caps only")
_TPS = Column("TPS : caps only", "tps", 3, against="caps only")
_COLUMNS = (
    Column("TPS", "tps", 0),
    Column("CPU us a transaction", "cpu", 1),
    Column("user", "user", 1),
    Column("system", "system", 1),
    _TPS,
    _CPU,
)


def shares(bench: Bench, options: Options, aims: Targets) -> None:
    """Of the last build, the compiled one if there is one."""
    print("\n## What fair shares cost where nothing is scarce")
    build = list(bench.builds)[-1]
    table = Table(_COLUMNS)
    setup = Setup(bench.tenant, pool_size=max(_CLIENTS))
    with ExitStack() as stack:
        targets = [
            dataclasses.replace(started, name=f"Tiergate {build}, {what}", role=what)
            for what, on in (("caps only", ("caps",)), ("all on", ALL_SHARES))
            for started in [
                stack.enter_context(bench.running_tiergate(dataclasses.replace(setup, shares=on), build))
            ]
        ]
        for mode in [mode for mode in _MODES if mode in options.modes]:
            for clients in _CLIENTS:
                work = Work(mode, clients)
                run = partial(pgbench.run, work, options.seconds / _SHORTER, bench.directory)
                runs = side_by_side(targets, options.repetitions * _SHORTER, run)
                table.rows(work.title, targets, runs)
                found, others = runs[targets[-1].name], against("caps only", targets, runs)
                what = f"all of fair shares on, nothing scarce, {mode}"
                aims.note(f"{what}: CPU : caps only", "at most 1.02", build, _CPU.value(found, others))
                aims.note(f"{what}: TPS : caps only", "at least 0.98", build, _TPS.value(found, others))
