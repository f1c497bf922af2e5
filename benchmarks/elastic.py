"""The part of the moving caps: how many server connections many tenants of uneven demand take, where each has a fixed pool
or a fixed cap, and where caps and pools follow what is asked."""

from __future__ import annotations

import contextlib
import heapq
import random
import select
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import psycopg

from benchmarks import processes
from benchmarks.building import ROOT
from benchmarks.options import Options
from benchmarks.raw import RawClient
from benchmarks.table import Column, Sample, Table, Targets, side_by_side
from benchmarks.targets import PASSWORD, Bench, Elasticity, Setup, Target, Tenant
from proxy.wire import encode

_QUERY = "SELECT pg_sleep(0.004)"
_MOST, _IDLE = 10, 4  # connections of a tenant; seconds after which what is idle, or not needed, is closed
_COLUMNS = (
    Column("connections, mean", "mean", 1),
    Column("peak", "peak", 0),
    Column("against fixed pools", "mean", 2, "fixed"),
    Column("transactions a second", "tps", 0),
    Column("p50 ms", "p50"),
    Column("p99 ms", "p99"),
)


@dataclass(frozen=True)
class Kind:
    """Tenants that ask alike: each of its clients asks for `on` seconds of every `period`, with a `pause` between two
    answers."""

    tenants: int
    clients: int
    on: float
    period: float
    pause: float


KINDS = (
    Kind(3, 14, 1.0, 1.0, 0.0),  # busy all day
    Kind(9, 10, 1.5, 9.0, 0.005),  # has its hours
    Kind(28, 6, 0.03, 1.5, 0.0),  # opens a page now and then, which asks six things at once
)


def names() -> list[str]:
    return [f"e{number:02d}" for number in range(sum(kind.tenants for kind in KINDS))]


def elastic(bench: Bench, options: Options, aims: Targets) -> None:
    tenants = names()
    print(
        f"\n## Moving caps: {len(tenants)} tenants of uneven demand, at most {_MOST} connections each; what is idle for"
        f" {_IDLE} s goes\n"
    )
    for tenant in tenants:
        bench.server.sql(f"CREATE ROLE {tenant} LOGIN PASSWORD '{PASSWORD}'")
    home = Tenant(tenants[0], "standard", "shared", bench.tenant.port, bench.tenant.database)
    fixed = Elasticity(_MOST, 0, _IDLE, 0)
    moving = Elasticity(_MOST, 1, _IDLE, _IDLE)
    alone = Setup(
        home, more_tenants=tuple(tenants[1:]), pool_size=_MOST, users=tuple(tenants), elasticity=fixed
    )
    shared = Setup(home, more_tenants=tuple(tenants[1:]), pool_size=200, elasticity=fixed)
    ways = {
        "a pool for each": alone,
        "a pool for each, moving": replace(alone, elasticity=moving),
        "one pool": shared,
        "one pool, moving": replace(shared, elasticity=moving),
    }
    table = Table(_COLUMNS)
    first: dict[str, list[Sample]] = {}
    for way, setup in ways.items():
        with bench.running(setup, direct=False) as found:
            # PgBouncer knows users, and neither tenants nor caps that move.
            targets = [t for t in found if t.role == "tiergate" or way == "a pool for each"]
            separate = bool(setup.users)
            runs = side_by_side(
                targets,
                options.repetitions,
                partial(_run, bench, separate=separate, seconds=12 * options.seconds),
            )
            for target in targets:
                first.setdefault(target.name, runs[target.name])
            baselines = [Target(f"{t.name}, fixed", "fixed", 0, "", "") for t in targets]
            for target, baseline in zip(targets, baselines, strict=True):
                table.rows(
                    way,
                    [target],
                    {target.name: runs[target.name], baseline.name: first[target.name]},
                    [baseline],
                )
            for target in targets:
                if "moving" in way and target.build and runs[target.name] and first[target.name]:
                    mean, before = (
                        statistics.median(run["mean"] for run in each)
                        for each in (runs[target.name], first[target.name])
                    )
                    aims.note(
                        f"{way}: connections : fixed pools", "at most 0.70", target.build, mean / before
                    )


def _run(bench: Bench, target: Target, *, separate: bool, seconds: float) -> Sample | None:
    words = [target.port, target.database, int(target.names_tenant), int(separate), seconds]
    command = [sys.executable, "-m", "benchmarks.elastic", *map(str, words)]
    counts: list[int] = []
    with _counting(bench, counts), processes.started(command, cwd=ROOT, talks=True) as process:
        assert process.stdout
        if process.stdout.readline() != "started\n":
            return None
        counts.clear()
        said = process.stdout.readline().split()
        seen = list(counts)
    if len(said) != 4 or not seen:
        return None
    done, took, p50, p99 = map(float, said)
    return {"tps": done / took, "p50": p50, "p99": p99, "mean": statistics.mean(seen), "peak": max(seen)}


@contextlib.contextmanager
def _counting(bench: Bench, counts: list[int]) -> Iterator[None]:
    """How many server connections there are, ten times a second, as PostgreSQL sees it."""
    over = threading.Event()
    question = (
        f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{bench.tenant.database}'"
        " AND backend_type = 'client backend'"
    )

    def count() -> None:
        server = bench.server
        with psycopg.connect(
            host=str(server.socket_dir),
            port=server.port,
            user=server.superuser,
            dbname="postgres",
            autocommit=True,
        ) as connection:
            while not over.wait(0.1):
                row = connection.execute(question).fetchone()
                assert row
                counts.append(int(row[0]))

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


# --- clients ----------------------------------------------------------------------------------------


class _Client:
    __slots__ = ("asked", "begins", "kind", "raw")

    def __init__(self, raw: RawClient, kind: Kind, begins: float) -> None:
        self.raw, self.kind, self.begins = raw, kind, begins
        self.asked = 0.0

    def next(self, now: float) -> float:
        """When it asks again."""
        at = now + self.kind.pause
        gone = (at - self.begins) % self.kind.period
        return at if gone < self.kind.on else at - gone + self.kind.period


def main() -> None:
    """All clients: `python -m benchmarks.elastic PORT DATABASE NAMES_TENANT SEPARATE SECONDS`."""
    port, database, names_tenant, separate, seconds = sys.argv[1:]
    target = Target("", "", int(port), database, "", names_tenant=names_tenant == "1")
    draw = random.Random(11)
    request = encode.query(_QUERY.encode())
    poll, by_number, due, tenants = select.epoll(), {}, [], iter(names())
    began = time.monotonic()
    for kind in KINDS:
        for _ in range(kind.tenants):
            name, offset = next(tenants), draw.uniform(0, kind.period)
            for _ in range(kind.clients):
                raw = RawClient(
                    target,
                    tenant=name if target.names_tenant else "",
                    user=name if separate == "1" else "app",
                )
                client = _Client(raw, kind, began + offset)
                by_number[raw.fileno()] = client
                poll.register(raw.fileno(), select.EPOLLIN)
    began = time.monotonic()
    for number, client in by_number.items():
        heapq.heappush(due, (client.next(began), number))
    print("started", flush=True)
    took: list[float] = []
    end = began + float(seconds)
    while (now := time.monotonic()) < end:
        while due and due[0][0] <= now:
            client = by_number[heapq.heappop(due)[1]]
            client.asked = now
            client.raw.begin(request)
        wait = max(0.0, min(due[0][0] if due else end, end) - now)
        for number, _ in poll.poll(wait):
            client = by_number[number]
            if client.raw.answered():
                answered = time.monotonic()
                took.append((answered - client.asked) * 1000)
                heapq.heappush(due, (client.next(answered), number))
    took.sort()
    print(len(took), time.monotonic() - began, took[len(took) // 2], took[len(took) * 99 // 100], flush=True)


if __name__ == "__main__":
    main()
