"""The part of many cores: two workers beside one, with servers that cost nothing.

The stub server and the load need CPU too, and on a machine of two cores they take it from the second worker: with
one worker they have a core of their own, with two they have none. So there are two answers. The plain one
compares one worker with two on the whole machine. The other gives one worker and all that it needs (stub, load)
a single core, and two workers two cores: what a worker more on a core more brings, whatever the load costs.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import generator, processes
from benchmarks.options import Options
from benchmarks.table import Column, Sample, Table, Targets, against, side_by_side
from benchmarks.targets import Bench, Setup, Target, Tenant
from proxy.cli.embedded import free_port

_CONNECTIONS = 64
_POOL_SIZE = 32
_PLAIN = Column("TPS : one worker", "tps", against="one")
_CORES = Column("TPS : one worker on one core", "tps", against="one core")
_COLUMNS = (
    Column("TPS", "tps", 0),
    Column("CPU us a transaction", "cpu", 1),
    Column("user", "user", 1),
    Column("system", "system", 1),
    Column("stub and load us", "around", 1),
    Column("cores used", "cores"),
    _PLAIN,
    _CORES,
    Column("CPU : one worker", "cpu", against="one"),
)


@dataclass(frozen=True)
class _Stub:
    port: int
    pid: int
    cpus: frozenset[int]


def workers(bench: Bench, options: Options, aims: Targets) -> None:
    print("\n## Two workers beside one, stub servers")
    cpus = sorted(os.sched_getaffinity(0))
    if not {"load", "stub"} <= bench.native.keys() or len(cpus) < 2:
        print("\nNot measured: it takes a C compiler and two cores.")
        return
    table = Table(_COLUMNS)
    with (
        _stub(bench.native["stub"], frozenset(cpus[:1])) as on_one_core,
        _stub(bench.native["stub"], frozenset()) as anywhere,
    ):
        for build in bench.builds:
            stubs = {"one core": on_one_core, "one": anywhere, "two": anywhere}
            with ExitStack() as stack:
                targets = [
                    stack.enter_context(_tiergate(bench, build, role, stub)) for role, stub in stubs.items()
                ]
                runs = side_by_side(
                    targets,
                    options.repetitions,
                    partial(_run, bench, stubs, options.seconds),
                )
            table.rows(f"{_CONNECTIONS} clients", targets, runs)
            two = runs[targets[2].name]
            plain = _PLAIN.value(two, against("one", targets, runs))
            cores = _CORES.value(two, against("one core", targets, runs))
            aims.note("TPS of 2 workers : of 1, the load beside them", "at least 1.80", build, plain)
            aims.note(
                "TPS of 2 workers on 2 cores : of 1 on 1, each with its load", "at least 1.80", build, cores
            )


@contextmanager
def _tiergate(bench: Bench, build: str, role: str, stub: _Stub) -> Iterator[Target]:
    setup = Setup(
        Tenant("shop1", "standard", "shared", stub.port, "stub"),
        workers=2 if role == "two" else 1,
        pool_size=_POOL_SIZE,
        cpus=stub.cpus,
    )
    name = {"one core": "1 worker, all on 1 core", "one": "1 worker", "two": "2 workers"}[role]
    with bench.running_tiergate(setup, build) as target:
        yield dataclasses.replace(target, name=f"{target.name}, {name}", role=role)


def _run(bench: Bench, stubs: Mapping[str, _Stub], seconds: float, target: Target) -> Sample | None:
    stub = stubs[target.role]
    before = processes.cpu(stub.pid)
    found = generator.run(bench.native["load"], target, seconds, _CONNECTIONS, "SELECT 1", cpus=stub.cpus)
    if found is None:
        return None
    around = found["load"] + sum(processes.cpu(stub.pid).since(before)) / found["done"]
    cores = found["tps"] * (found["cpu"] + around) / 1e6
    return {**found, "around": around, "cores": cores}


@contextmanager
def _stub(program: Path, cpus: frozenset[int]) -> Iterator[_Stub]:
    port = free_port()
    with processes.started([str(program), str(port)], cpus=cpus, talks=True) as process:
        assert process.stdout
        if process.stdout.readline() != "ready\n":
            raise SystemExit("the stub server has not started")
        yield _Stub(port, process.pid, cpus)
