"""How many instructions of its own a proxy runs for a transaction, counted by callgrind.

On a machine with other work CPU time moves by a quarter; this does not move at all, and tells where it goes. It knows
nothing of caches and of the kernel. What a start, the logins and the end take is in both of two runs that differ in the
number of their transactions only, and so not in their difference.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks import pgbench
from benchmarks.options import Options
from benchmarks.table import Targets
from benchmarks.targets import ALL_SHARES, PASSWORD, Bench, Setup, Target

_CLIENTS = (8, 64)  # on 8 connections: none waits, and nearly all do
_FEW, _MANY = 2_048, 6_016  # of which each has its part
_NAMED = re.compile(r"(?:ob|fn|cfn)=\((\d+)\)(?: (.*))?")
_PLACES = ("Tiergate's modules", "libpython", "uvloop", "the rest")


def instructions(bench: Bench, options: Options, aims: Targets) -> None:
    print("\n## Instructions a transaction in user mode, on 8 server connections\n")
    if not shutil.which("valgrind"):
        print("Not measured: it takes valgrind.")
        return
    print(f"| work | through | instructions | {' | '.join(_PLACES)} | : PgBouncer |")
    print(f"|---|---|{'---|' * (len(_PLACES) + 2)}")
    for mode in options.modes:
        if mode == "prepared":
            continue  # PgBouncer pools sessions for it, and that is less work
        for clients in _CLIENTS:
            _row(bench, Setup(bench.tenant), mode, clients, "")
        for what, shares in _SHARES.items():
            setup = Setup(bench.tenant, shares=shares)
            _row(dataclasses.replace(bench, pgbouncer=""), setup, mode, _CLIENTS[0], f", {what}")
        if bench.certificate and pgbench.program(tls=True):
            _row(bench, Setup(bench.tenant, tls=bench.certificate), mode, _CLIENTS[0], ", TLS")


# Nothing is scarce, and what is there to share it out has nothing to do.
_SHARES = {"no caps": (), "caps only": ("caps",), "guarantees, moving and adaptive caps, rates": ALL_SHARES}


def _row(bench: Bench, setup: Setup, mode: str, clients: int, more: str) -> None:
    few, many = (_counted(bench, setup, mode, clients, number) for number in (_FEW, _MANY))
    costs = {
        name: {place: (found[place] - few[name][place]) / (_MANY - _FEW) for place in _PLACES}
        for name, found in many.items()
    }
    for name, cost in costs.items():
        total = sum(cost.values())
        ratio = f"{total / sum(costs['PgBouncer'].values()):.1f}" if "PgBouncer" in costs else "-"
        shown = " | ".join(f"{cost[place]:,.0f}" for place in _PLACES)
        work = f"pgbench -S, {mode}, {clients} clients{more}"
        print(f"| {work} | {name} | {total:,.0f} | {shown} | {ratio} |", flush=True)


def _counted(
    bench: Bench, setup: Setup, mode: str, clients: int, transactions: int
) -> dict[str, Counter[str]]:
    """Of each proxy, started anew: what all of its life took, by where."""
    found = {}
    directory = Path(tempfile.mkdtemp(prefix="callgrind-", dir=bench.directory))
    directory.chmod(0o777)  # PgBouncer is nobody
    under = ("valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={directory}/%p")
    counting = dataclasses.replace(bench, under=under)
    with counting.running(setup, direct=False) as targets:
        for target in targets:
            _run(target, mode, clients, transactions)
    for target in targets:
        found[target.name] = _by_place(directory / str(target.pid))
    return found


def _run(target: Target, mode: str, clients: int, transactions: int) -> None:
    subprocess.run(
        [
            pgbench.program(target.tls is not None), "-n", "-S", "-M", mode, "-c", str(clients),
            "-t", str(transactions // clients), "-h", "127.0.0.1", "-p", str(target.port), "-U", "app", target.database,
        ],
        env={
            **os.environ, "PGPASSWORD": PASSWORD, "PGOPTIONS": target.pgoptions,
            "PGSSLMODE": "require" if target.tls else "disable",
        },
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def _by_place(profile: Path) -> Counter[str]:
    """Reads callgrind's format: cost lines belong to the object named last; the line behind a `calls=` does not count."""
    names: dict[str, str] = {}
    counts: Counter[str] = Counter()
    place, skip = _PLACES[-1], False
    for line in profile.read_text().splitlines():
        if line.startswith("ob="):
            named = _NAMED.match(line)
            assert named is not None, line
            if named[2]:
                names[named[1]] = named[2]
            place = _place(names[named[1]])
        elif line.startswith("cob=") and (named := _NAMED.match(line[1:])) and named[2]:
            names[named[1]] = named[2]
        elif line.startswith("calls="):
            skip = True
        elif line and line[0] in "0123456789+-*":
            if not skip:
                counts[place] += int(line.split()[1])
            skip = False
    return counts


def _place(library: str) -> str:
    if "libpython" in library or "/bin/python" in library:
        return "libpython"
    if "/uvloop/" in library:
        return "uvloop"
    return _PLACES[0] if "/proxy/" in library else _PLACES[-1]
