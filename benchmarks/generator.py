"""One run of `native/load.c`: many connections that ask one query again and again, at little cost of their own."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import processes
from benchmarks.table import Sample
from benchmarks.targets import Target


def run(
    program: Path,
    target: Target,
    seconds: float,
    connections: int,
    query: str,
    prefix: str = "",
    tenants: int = 0,
    cpus: frozenset[int] = frozenset(),
) -> Sample | None:
    """`tenants` of them, named by the prefix and five digits; 0: all connections are of the target's tenant."""
    words = [target.port, connections, seconds, target.database, prefix or target.tenant, tenants, query]
    command = [str(program), *map(str, words)]
    with processes.started(command, cpus=cpus, talks=True) as load:
        assert load.stdout
        if load.stdout.readline() != "started\n":
            return None
        before = target.cpu()
        said = load.stdout.readline().split()
        user, system = target.cpu().since(before)
    if not said or not int(said[0]):
        print(f"no transaction through {target.name}", file=sys.stderr)
        return None
    done, took, own = int(said[0]), float(said[1]), float(said[2])
    return {
        "tps": done / took,
        "done": done,
        "user": user / done,
        "system": system / done,
        "cpu": (user + system) / done,
        "load": own * 1e6 / done,
    }
