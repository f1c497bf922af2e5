"""The part of memory: what the proxy grows by for each client that has asked once and then stays."""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks import processes
from benchmarks.options import Options
from benchmarks.raw import RawClient, Refused
from benchmarks.table import Column, Sample, Table, Targets, against, side_by_side
from benchmarks.targets import Bench, Setup, Target
from proxy.wire import encode

_FIRST = 50  # clients that find pools, caches and code paths cold
_QUERY = encode.query(b"SELECT abalance FROM pgbench_accounts WHERE aid = 1")
_ABOVE = Column("above PgBouncer's", "pss", against="pgbouncer", difference=True)


def memory(bench: Bench, options: Options, aims: Targets) -> None:
    print(f"\n## Memory, {options.idle_clients:,} idle clients")
    table = Table([Column("Pss KB a client", "pss"), Column("Rss KB a client", "rss"), _ABOVE])
    with bench.running(Setup(bench.tenant), direct=False) as targets:
        runs = side_by_side(targets, 1, lambda target: _run(target, options.idle_clients))
        table.rows("after a query each", targets, runs)
        others = against("pgbouncer", targets, runs)
        for target in targets:
            if target.build:
                value = _ABOVE.value(runs[target.name], others)
                aims.note("memory an idle client, KB above PgBouncer's", "at most 1.00", target.build, value)


def _run(target: Target, clients: int) -> Sample | None:
    with ExitStack() as stack:
        try:
            for number in range(_FIRST + clients):
                if number == _FIRST:
                    rss, pss = processes.memory(target.pid)
                client = RawClient(target)
                stack.callback(client.close)
                client.ask(_QUERY)
        except (OSError, Refused) as error:
            print(f"{target.name}: {error}")
            return None
        now_rss, now_pss = processes.memory(target.pid)
    return {"rss": (now_rss - rss) / 1024 / clients, "pss": (now_pss - pss) / 1024 / clients}
