"""The part of new connections: processes that log in and leave, one time after the other, as fast as they can."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack

from benchmarks import processes
from benchmarks.building import ROOT
from benchmarks.options import Options
from benchmarks.raw import RawClient
from benchmarks.table import Column, Sample, Table, Targets, against, side_by_side
from benchmarks.targets import Bench, Setup, Target

_PROCESSES = 4
_RATIO = Column("logins : PgBouncer", "rate", against="pgbouncer")
_COLUMNS = (
    Column("logins a second", "rate", 0),
    Column("CPU us a login", "cpu", 0),
    Column("user", "user", 0),
    Column("system", "system", 0),
    _RATIO,
    Column("CPU : PgBouncer", "cpu", against="pgbouncer"),
)


def logins(bench: Bench, options: Options, aims: Targets) -> None:
    print("\n## New connections")
    table = Table(_COLUMNS)
    verifier = bench.server.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'app'")[0][0]
    for method in ("trust", "scram-sha-256"):
        setup = Setup(bench.tenant, auth_type=method, verifier=verifier if method != "trust" else "")
        with bench.running(setup, direct=False) as targets:
            runs = side_by_side(targets, options.repetitions, lambda target: run(target, options.seconds))
            table.rows(method, targets, runs)
            others = against("pgbouncer", targets, runs)
            for target in targets:
                if target.build:
                    value = _RATIO.value(runs[target.name], others)
                    aims.note(f"new connections a second, {method}", "at least 1.00", target.build, value)


def run(target: Target, seconds: float) -> Sample | None:
    words = [str(target.port), target.database, target.tenant, str(seconds)]
    command = [sys.executable, "-m", "benchmarks.logins", *words]
    with ExitStack() as stack:
        clients = [
            stack.enter_context(processes.started(command, cwd=ROOT, talks=True)) for _ in range(_PROCESSES)
        ]
        for client in clients:
            assert client.stdout
            if client.stdout.readline() != "ready\n":
                return None
        before = target.cpu()
        for client in clients:
            assert client.stdin
            client.stdin.write("go\n")
            client.stdin.flush()
        counts = [client.stdout.readline() for client in clients if client.stdout]
        user, system = target.cpu().since(before)
    if not all(counts):
        return None
    done = sum(int(count) for count in counts)
    return {
        "rate": done / seconds, "user": user / done, "system": system / done, "cpu": (user + system) / done
    }  # fmt: skip


def main() -> None:
    """One such process: `python -m benchmarks.logins PORT DATABASE TENANT SECONDS`, and a line to begin."""
    port, database, tenant, seconds = sys.argv[1:]
    target = Target("", "", int(port), database, tenant)
    RawClient(
        target
    ).close()  # from here on the password's key is known, as to a client with a pool of its own
    print("ready", flush=True)
    sys.stdin.readline()
    done, until = 0, time.monotonic() + float(seconds)
    while time.monotonic() < until:
        RawClient(target).close()
        done += 1
    print(done, flush=True)


if __name__ == "__main__":
    main()
