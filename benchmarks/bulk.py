"""The part that is many bytes: a big result, COPY out and COPY in, by one client that looks at none of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from benchmarks.options import Options
from benchmarks.raw import RawClient, Refused
from benchmarks.table import Column, Sample, Table, Targets, against, side_by_side
from benchmarks.targets import Bench, Setup, Target
from proxy.wire import encode

ROWS = 20_000
_WIDTH = 220
_ROW_BYTES = 1 + 4 + 2 + 4 + _WIDTH
_LINE = encode.frame(b"d", b"x" * _WIDTH + b"\n")
_LINES_AT_ONCE = 1_000
_CPU_RATIO = Column("CPU : PgBouncer", "cpu", against="pgbouncer")
_DIRECT_RATIO = Column("MB/s : direct", "rate", against="direct")
_COLUMNS = (
    Column("MB/s", "rate", 0),
    Column("CPU us a MB", "cpu", 0),
    Column("user", "user", 0),
    Column("system", "system", 0),
    _DIRECT_RATIO,
    Column("MB/s : PgBouncer", "rate", against="pgbouncer"),
    _CPU_RATIO,
)


def bulk(bench: Bench, options: Options, aims: Targets) -> None:
    print("\n## Many bytes, one client")
    with bench.running(Setup(bench.tenant)) as targets:
        measure(bench, options, targets, aims, "")


def measure(bench: Bench, options: Options, targets: Sequence[Target], aims: Targets, prefix: str) -> None:
    table = Table(_COLUMNS)
    size = options.megabytes
    works: dict[str, Callable[[RawClient, int], int]] = {
        f"{prefix}results of {ROWS:,} rows of {_WIDTH} bytes": _results,
        f"{prefix}COPY of {size} MB out": _copy_out,
        f"{prefix}COPY of {size} MB in": _copy_in,
    }
    for name, work in works.items():
        runs = side_by_side(targets, options.repetitions, partial(_run, bench, work, size))
        table.rows(name, targets, runs)
        others, direct = against("pgbouncer", targets, runs), against("direct", targets, runs)
        for target in targets:
            if target.build:
                found = runs[target.name]
                aims.note(f"{name}: CPU a MB", "at most 1.00", target.build, _CPU_RATIO.value(found, others))
                if direct:
                    value = _DIRECT_RATIO.value(found, direct)
                    aims.note(f"{name}: MB/s of direct's", "at least 0.90", target.build, value)


def _run(
    bench: Bench, work: Callable[[RawClient, int], int], megabytes: int, target: Target
) -> Sample | None:
    context = bench.certificate.context() if target.tls and bench.certificate else None
    try:
        with RawClient(target, context) as client:
            client.ask(encode.query(b"SELECT 1"))
            before, began = target.cpu(), time.monotonic()
            done = work(client, megabytes) / 1e6
            took, after = time.monotonic() - began, target.cpu()
    except (OSError, Refused) as error:
        print(f"{target.name}: {error}")
        return None
    sample = {"rate": done / took}
    if target.pid:
        user, system = after.since(before)
        sample |= {"user": user / done, "system": system / done, "cpu": (user + system) / done}
    return sample


def _results(client: RawClient, megabytes: int) -> int:
    before = client.received
    for _ in range(max(1, round(megabytes * 1e6 / (ROWS * _ROW_BYTES)))):
        client.ask(encode.query(b"SELECT body FROM bulk"))
    return client.received - before


def _copy_out(client: RawClient, megabytes: int) -> int:
    before = client.received
    times = max(1, round(megabytes * 1e6 / (ROWS * len(_LINE))))
    source = f"SELECT body FROM bulk, generate_series(1, {times})"
    client.ask(encode.query(f"COPY ({source}) TO STDOUT".encode()))
    return client.received - before


def _copy_in(client: RawClient, megabytes: int) -> int:
    """A message a row, as psql sends them. The server reads the rows and stores none: no disk is measured."""
    piece = _LINE * _LINES_AT_ONCE
    times = max(1, round(megabytes * 1e6 / len(piece)))
    client.copy_in(b"COPY sink FROM STDIN WHERE false", piece, times)
    return len(piece) * times


def add_tables(bench: Bench) -> None:
    bench.server.sql(
        f"CREATE TABLE bulk AS SELECT repeat('x', {_WIDTH}) AS body FROM generate_series(1, {ROWS});"
        "CREATE TABLE sink (body text);"
        "GRANT SELECT ON bulk TO app; GRANT INSERT, SELECT ON sink TO app",
        bench.tenant.database,
    )
    bench.server.sql("VACUUM ANALYZE bulk", bench.tenant.database)
