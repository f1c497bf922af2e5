"""The part of the noisy neighbour: what one client's 2 ms query takes beside hundreds of another tenant's that take 20 ms,
all under one cap of 20 server connections."""

from __future__ import annotations

import contextlib
import math
import select
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks import processes
from benchmarks.building import ROOT
from benchmarks.options import Options
from benchmarks.raw import RawClient
from benchmarks.table import Column, Runs, Sample, Table, Targets, side_by_side
from benchmarks.targets import PASSWORD, Bench, Setup, Target, Tenant
from proxy.wire import encode

_CAP = 20
_CROWDS = (300, 2_000)
_NOISY_QUERY, _QUIET_QUERY = "SELECT pg_sleep(0.02)", "SELECT pg_sleep(0.002)"
_SETTLED = 30 * _CAP  # answers to the noisy clients: all connections are open, and all have asked
_PAUSE = 0.005  # of the quiet client between its queries
_GIVE_UP = 15.0
_ASKING = 3.0  # of a run's seconds: for the quiet client's queries
_STRETCH = 0.7  # the same, for each count of the noisy ones alone
_NOISY_MS = 20
_COLUMNS = (
    Column("quiet p50 ms", "p50"),
    Column("p99 ms", "p99"),
    Column("max ms", "max"),
    Column("quiet queries a second", "rate", 0),
    Column("noisy queries a second", "noisy", 0),
    Column("while it is silent", "silent", 0),
    Column("before it comes", "before", 0),
)


def fairness(bench: Bench, options: Options, aims: Targets) -> None:
    print(f"\n## The noisy neighbour: {_CAP} connections, 20 ms queries beside one client's 2 ms queries")
    for user in ("quiet", "noisy"):
        bench.server.sql(f"CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}'")
    tenant = Tenant("quiet", "standard", "shared", bench.tenant.port, bench.tenant.database)
    one = Setup(tenant, more_tenants=("noisy",), pool_size=_CAP)
    each = replace(one, users=("quiet", "noisy"))
    ways = {
        "one pool": one,
        "one pool, 20 % guaranteed": replace(one, guaranteed="20%"),
        "a pool for each": each,
        "a pool for each, 20 % guaranteed": replace(each, guaranteed="20%"),
    }
    table, plot = Table(_COLUMNS), _Plot()
    _measure_machine(bench, options, aims, table, plot)
    for way, setup in ways.items():
        with bench.running(setup, direct=False) as found:
            # PgBouncer knows users, and neither tenants nor guarantees: in one pool nobody could tell the two apart.
            comparable = setup.users and not setup.guaranteed
            targets = [target for target in found if comparable or target.role == "tiergate"]
            _measure(way, setup, bench, targets, options, aims, table, plot)
    print(f"\n{plot.show()}")


def _measure_machine(bench: Bench, options: Options, aims: Targets, table: Table, plot: _Plot) -> None:
    """What becomes of the quiet client's query when nobody is between it and the server, nor in anybody's way: so much is
    of clients and servers that share the cores, whoever forwards."""
    direct = Target("direct", "direct", bench.tenant.port, bench.tenant.database, "quiet")
    crowd = _Crowd(bench, options, False, _CAP - 1)
    alone = side_by_side([direct], options.repetitions, crowd.missing)
    beside = side_by_side([direct], options.repetitions, crowd.there)
    for what, runs in (("alone", alone), (f"beside {_CAP - 1} noisy", beside)):
        table.rows(f"a connection each: {what}", [direct], runs)
        plot.add(f"a connection each, direct, {what}", runs[direct.name])
    ratios = [
        after["p99"] / before["p99"]
        for before, after in zip(alone[direct.name], beside[direct.name], strict=False)
    ]
    for build in bench.builds:
        aims.note_repetitions("direct, a connection each: quiet p99 : alone", "-", build, ratios)


def _measure(
    way: str, setup: Setup, bench: Bench, targets: list[Target], options: Options, aims: Targets, table: Table,
    plot: _Plot,
) -> None:  # fmt: skip
    """What has a guarantee is held against a narrow target: all repetitions. PgBouncer's quiet client gets no answer for as
    long as it is waited: once."""
    most = options.repetitions if setup.guaranteed else max(1, options.repetitions - 1)
    separate = bool(setup.users)

    def runs_of(measure: Callable[[Target], Sample]) -> Runs:
        found: Runs = {}
        for once in (True, False):
            some = [target for target in targets if (target.role == "pgbouncer") is once]
            found |= side_by_side(some, 1 if once else most, measure)
        return found

    alone = runs_of(_Crowd(bench, options, separate, 0).missing)
    table.rows(f"{way}: quiet alone", targets, alone)
    for count in _CROWDS:
        beside = runs_of(_Crowd(bench, options, separate, count).there)
        table.rows(f"{way}: beside {count:,} noisy", targets, beside)
        for target in targets:
            if count == _CROWDS[0]:
                plot.add(f"{way}, {target.name}, alone", alone[target.name])
            plot.add(f"{way}, {target.name}, beside {count:,}", beside[target.name])
            if target.build:
                _note(aims, f"{way}, {count:,} noisy", bool(setup.guaranteed), target, alone, beside)


def _note(aims: Targets, what: str, guaranteed: bool, target: Target, alone: Runs, beside: Runs) -> None:
    pairs = list(zip(alone[target.name], beside[target.name], strict=False))
    if guaranteed:
        p99, at_most = "quiet p99 : alone", "at most 1.20"
        ratios = [after["p99"] / before["p99"] for before, after in pairs]
    else:
        p99, at_most = f"quiet p99 : twice alone + {_NOISY_MS} ms", "at most 1.00"
        ratios = [after["p99"] / (2 * before["p99"] + _NOISY_MS) for before, after in pairs]
    aims.note_repetitions(f"{what}: {p99}", at_most, target.build, ratios)
    rates = [run["silent"] / run["before"] for run in beside[target.name]]
    aims.note_repetitions(f"{what}: noisy rate, quiet silent : alone", "at least 0.95", target.build, rates)


# --- clients ----------------------------------------------------------------------------------------


def _client(target: Target, who: str, separate: bool) -> RawClient:
    return RawClient(target, tenant=who if target.names_tenant else "", user=who if separate else "app")


def _quiet(target: Target, separate: bool, seconds: float) -> Sample:
    """What the quiet client sees, in milliseconds. Who gets no answer stops asking."""
    request = encode.query(_QUIET_QUERY.encode())
    client = _client(target, "quiet", separate)
    with contextlib.closing(client):
        client.begin(request)
        answered = _answered(
            client, time.monotonic() + _GIVE_UP
        )  # that opens what there is to open, and counts if it fails
        took = [] if answered else [_GIVE_UP * 1000]
        began = time.monotonic()
        while answered and time.monotonic() - began < seconds:
            asked = time.monotonic()
            client.begin(request)
            answered = _answered(client, asked + _GIVE_UP)
            took.append((time.monotonic() - asked) * 1000)
            time.sleep(_PAUSE)
    took.sort()
    return {
        "p50": statistics.median(took),
        "p99": took[math.ceil(len(took) * 0.99) - 1],
        "max": took[-1],
        "rate": len(took) / max(time.monotonic() - began, seconds),
    }


def _answered(client: RawClient, until: float) -> bool:
    while select.select([client], [], [], max(0.0, until - time.monotonic()))[0]:
        if client.answered():
            return True
    return False


@dataclass(frozen=True)
class _Crowd:
    """So many clients of the noisy tenant, all of which ask all the time."""

    bench: Bench
    options: Options
    separate: bool
    count: int

    def missing(self, target: Target) -> Sample:
        return _quiet(target, self.separate, _ASKING * self.options.seconds)

    def there(self, target: Target) -> Sample:
        """First the noisy ones alone, when their beginning is over; beside the quiet client that has asked once; and beside
        its queries."""
        stretch = _STRETCH * self.options.seconds
        with self._asking(target) as done:
            while done()[0] < _SETTLED:
                time.sleep(_PAUSE)
            began = done()
            time.sleep(stretch)
            before = _rate(began, done())
            with _client(target, "quiet", self.separate) as client:
                client.begin(encode.query(_QUIET_QUERY.encode()))
                _answered(client, time.monotonic() + _GIVE_UP)
                began = done()
                time.sleep(stretch)
                silent = _rate(began, done())
            began = done()
            seen = self.missing(target)
            return {**seen, "noisy": _rate(began, done()), "silent": silent, "before": before}

    @contextlib.contextmanager
    def _asking(self, target: Target) -> Iterator[Callable[[], tuple[int, float]]]:
        """What is given tells how many answers there were, and when."""
        with processes.started(self._command(target), cwd=ROOT, talks=True) as process:
            output, asking = process.stdout, process.stdin
            assert output
            assert asking
            if output.readline() != "started\n":
                raise SystemExit("the noisy clients have not come in")

            def done() -> tuple[int, float]:
                asking.write("count\n")
                asking.flush()
                return int(output.readline()), time.monotonic()

            yield done

    def _command(self, target: Target) -> list[str]:
        """In C, where the login is by trust, so that they take as little as they can from who shares the cores."""
        program = self.bench.native.get("load")
        if program is not None and target.role != "direct":
            who = "noisy" if self.separate else "app"
            words = [target.port, self.count, 0, target.database, "noisy", 0, _NOISY_QUERY, who]
            return [str(program), *map(str, words)]
        words = [target.port, target.database, int(target.names_tenant), int(self.separate), self.count]
        return [sys.executable, "-m", "benchmarks.fairness", *map(str, words)]


def _rate(before: tuple[int, float], after: tuple[int, float]) -> float:
    return (after[0] - before[0]) / (after[1] - before[1])


def main() -> None:
    """The noisy clients: `python -m benchmarks.fairness PORT DATABASE NAMES_TENANT SEPARATE COUNT`. A line asks for the
    number of answers so far."""
    port, database, names_tenant, separate, count = sys.argv[1:]
    target = Target("", "", int(port), database, "noisy", names_tenant=names_tenant == "1")
    clients = [_client(target, "noisy", separate == "1") for _ in range(int(count))]
    request, answers = encode.query(_NOISY_QUERY.encode()), 0
    poll = select.epoll()
    poll.register(sys.stdin.fileno(), select.EPOLLIN)
    by_number = {client.fileno(): client for client in clients}
    for client in clients:
        poll.register(client.fileno(), select.EPOLLIN)
        client.begin(request)
    print("started", flush=True)
    while True:
        for number, _ in poll.poll():
            if number == sys.stdin.fileno():
                if not sys.stdin.readline():
                    return
                print(answers, flush=True)
            elif by_number[number].answered():
                answers += 1
                by_number[number].begin(request)


# --- the plot ---------------------------------------------------------------------------------------


class _Plot:
    """Latencies of the quiet client on a logarithmic line from 1 ms to 15 s: p50 `o`, p99 `|`, maximum `>`."""

    _WIDTH = 64

    def __init__(self) -> None:
        self._rows: list[tuple[str, Sample]] = []

    def add(self, name: str, runs: Sequence[Sample]) -> None:
        if runs:
            self._rows.append((name, {key: statistics.median(run[key] for run in runs) for key in runs[0]}))

    def show(self) -> str:
        longest = max((len(name) for name, _ in self._rows), default=0)
        ticks = [" "] * (self._WIDTH + 8)
        for milliseconds, text in (
            (1, "1 ms"),
            (10, "10 ms"),
            (100, "100 ms"),
            (1_000, "1 s"),
            (10_000, "10 s"),
        ):
            at = self._column(milliseconds)
            ticks[at : at + len(text)] = text
        lines = [f"{'':{longest}}  {''.join(ticks).rstrip()}"]
        for name, row in self._rows:
            cells = [" "] * (self._WIDTH + 1)
            p50, p99, most = (self._column(row[key]) for key in ("p50", "p99", "max"))
            cells[p50 : most + 1] = "-" * (most + 1 - p50)
            cells[most], cells[p99], cells[p50] = ">", "|", "o"
            lines.append(f"{name:{longest}}  {''.join(cells).rstrip()}")
        return "\n".join(["```", *lines, "```"])

    def _column(self, milliseconds: float) -> int:
        share = math.log10(max(milliseconds, 1.0)) / math.log10(_GIVE_UP * 1000)
        return round(min(share, 1.0) * self._WIDTH)


if __name__ == "__main__":
    main()
