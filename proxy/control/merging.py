"""One view out of the same view of several workers: rows side by side, or added up by what they are about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from proxy.control.views import Value, View
from proxy.control.views.traffic import named_in_totals

Row = dict[str, Value]
Views = Mapping[int, View]  # by the worker's number


@dataclass(frozen=True, slots=True)
class Sums:
    """How a view's rows are added up: by `key`; columns that are named nowhere are alike in all workers.

    `counts` only grow, so those of workers that are gone are kept. `means` are weighted by the column that is
    said of each; `joined` are lists of names.
    """

    key: tuple[str, ...]
    sums: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()
    means: tuple[tuple[str, str], ...] = ()
    most: tuple[str, ...] = ()
    least: tuple[str, ...] = ()
    joined: tuple[str, ...] = ()
    longest_wait: bool = False
    keeps_rows: bool = False  # also those that only workers that are gone have told


_COUNTED = ("server_assignment_count", "xact_count", "query_count")
_TIMED = ("xact_time", "query_time", "wait_time")
# A time is for each transaction, query and checkout.
_PER = tuple(zip(_TIMED, ("xact_count", "query_count", "server_assignment_count"), strict=True))
_POOLS = Sums(
    ("database", "user", "cluster"),
    (
        "cl_active", "cl_waiting", "cl_active_cancel_req", "cl_waiting_cancel_req", "sv_active",
        "sv_active_cancel", "sv_being_canceled", "sv_idle", "sv_used", "sv_tested", "sv_login",
    ),
    most=("paused",),
    longest_wait=True,
)  # fmt: skip
_STATS = Sums(
    ("database", "user", "cluster"),
    sums=(*(f"avg_{name}" for name in (*_COUNTED, "recv", "sent")),),
    counts=(*(f"total_{name}" for name in (*_COUNTED, "received", "sent", *_TIMED)),),
    means=(*((f"avg_{time}", f"avg_{count}") for time, count in _PER),),
    keeps_rows=True,
)
_STATS_TOTALS = Sums(
    ("database", "user", "cluster"),
    counts=(*_COUNTED, "bytes_received", "bytes_sent", *_TIMED),
    keeps_rows=True,
)
_STATS_AVERAGES = Sums(
    ("database", "user", "cluster"), sums=(*_COUNTED, "bytes_received", "bytes_sent"), means=_PER
)


def _by_database(how: Sums) -> Sums:
    return replace(how, key=("database",), joined=("user", "cluster"))


SIDE_BY_SIDE = frozenset({"clients", "servers", "sockets", "active_sockets", "queue"})
SUMS: dict[str, Sums] = {
    "pools": _POOLS,
    "pgbouncer.pools": replace(_POOLS, key=("database", "user"), joined=("pool_mode", "cluster")),
    "databases": Sums(("name",), ("current_connections",), most=("paused", "disabled")),
    "concurrency": Sums(("cluster",), ("running", "connections"), least=("limit",)),
    "clusters": Sums(("name", "endpoint", "role"), ("connections",), least=("healthy",)),
    "stats": _STATS,
    "stats_totals": _STATS_TOTALS,
    "stats_averages": _STATS_AVERAGES,
    "pgbouncer.stats": _by_database(_STATS),
    "pgbouncer.stats_totals": _by_database(_STATS_TOTALS),
    "pgbouncer.stats_averages": _by_database(_STATS_AVERAGES),
    "tenants": Sums(
        ("name",),
        ("clients", "servers", "connections_now", "waiting", "share_asked", "share_due", "share_given"),
        counts=("queries", "transactions", "errors", "throttled", "refused_rate", "refused_quota", "server_time"),
        most=("disabled",),
    ),
    "tiers": Sums(("name",), ("clients", "servers")),
    "peers": Sums(("peer_id",)),
    "registry": Sums(
        ("store",), ("stale",), counts=("asked", "found"), least=("up",), most=("seconds", "tenants"), joined=("reason",)
    ),
    "users": Sums(("name",), ("current_connections", "current_client_connections", "waiting")),
}  # fmt: skip
_ID_BITS = 47  # an id is an address of user space
# Of SHOW LISTS, what every worker tells of the same things.
_ALIKE = frozenset({"databases", "users", "peers", "tenants"})


def merged(name: str, views: Views, gone: View | None = None) -> View:
    """`views` are those of the workers, at least one; `gone` has the counts of workers that have ended."""
    if name in SIDE_BY_SIDE:
        return side_by_side(views)
    if name in SUMS:
        return summed(SUMS[name], views, gone)
    if name == "lists":
        return _lists(views)
    if name == "state":
        return _state(views)
    return _union(views)


def side_by_side(views: Views) -> View:
    """All rows, each with its worker at the end. Pointers and ids say the worker as well: they are of its memory."""
    columns = next(iter(views.values())).columns
    rows: list[tuple[Value, ...]] = []
    for number, view in views.items():
        for row in _by_name(view):
            for pointer in ("ptr", "link"):
                if row.get(pointer):
                    row[pointer] = f"{number}:{row[pointer]}"
            if isinstance(identity := row.get("id"), int):
                row["id"] = identity + (number << _ID_BITS)
            rows.append((*(row.get(column) for column in columns), number))
    return View((*columns, "worker"), rows)


def whose(which: str) -> tuple[int, str]:
    """The worker of a `ptr` or `id` of the rows of several, 0 if it says none, and what that worker calls it."""
    number, colon, pointer = which.partition(":")
    if colon and number.isdecimal():
        return int(number), pointer
    if which.isdecimal():
        return int(which) >> _ID_BITS, str(int(which) & ((1 << _ID_BITS) - 1))
    return 0, which


def summed(how: Sums, views: Views, gone: View | None = None) -> View:
    columns = next(iter(views.values())).columns
    found: dict[tuple[Value, ...], Row] = {}
    for view in views.values():
        for row in _by_name(view):
            key = tuple(row.get(column) for column in how.key)
            if key in found:
                _add(how, found[key], row)
            else:
                found[key] = row
    for row in _by_name(gone) if gone is not None else ():
        key = tuple(row.get(column) for column in how.key)
        if key in found:
            for column in how.counts:
                found[key][column] = _plus(found[key].get(column), row.get(column))
        elif how.keeps_rows:
            found[key] = row | dict.fromkeys((*how.sums, *(time for time, _ in how.means), *how.most), 0)
    return View(columns, [tuple(row.get(column) for column in columns) for row in found.values()])


def _add(how: Sums, total: Row, row: Row) -> None:
    for time, count in how.means:  # before the counts are added up
        total[time] = _mean((total.get(time), total.get(count)), (row.get(time), row.get(count)))
    for column in (*how.sums, *how.counts):
        total[column] = _plus(total.get(column), row.get(column))
    for column in how.most:
        total[column] = max(_number(total.get(column)), _number(row.get(column)))
    for column in how.least:
        if _number(row.get(column)) < _number(total.get(column)):
            total[column] = row.get(column)
            if "reason" in row:
                total["reason"] = row["reason"]
    for column in how.joined:
        names = {
            name for value in (total.get(column), row.get(column)) for name in str(value or "").split(", ")
        }
        total[column] = ", ".join(sorted(names - {""}))
    if how.longest_wait and _wait(row) > _wait(total):
        total["maxwait"], total["maxwait_us"] = row["maxwait"], row["maxwait_us"]


def kept(how: Sums, gone: View | None, last: View, now: View | None) -> View | None:
    """`gone` with the counts that `last` had of one worker and `now`, its next view, has no more.

    None is a worker that has ended. A row that has gone or counts anew is one whose pool was closed in between.
    """
    last = summed(how, {1: last})
    rows: dict[tuple[Value, ...], Row] = {}
    if now is not None:
        rows = {tuple(row.get(column) for column in how.key): row for row in _by_name(summed(how, {1: now}))}
    lost: list[tuple[Value, ...]] = []
    for row, values in zip(_by_name(last), last.rows, strict=True):
        new = rows.get(tuple(row.get(column) for column in how.key))
        if new is None or any(_number(new.get(column)) < _number(row.get(column)) for column in how.counts):
            lost.append(values)
    if not lost:
        return gone
    more = View(last.columns, lost)
    if gone is None:
        return more
    return summed(replace(how, keeps_rows=True), {0: gone, 1: more})


def _by_name(view: View) -> list[Row]:
    return [dict(zip(view.columns, row, strict=True)) for row in view.rows]


def _number(value: Value) -> int | float:
    return value if isinstance(value, int | float) else 0


def _plus(one: Value, other: Value) -> int | float:
    return _number(one) + _number(other)


def _wait(row: Row) -> tuple[int | float, int | float]:
    return _number(row.get("maxwait")), _number(row.get("maxwait_us"))


def _mean(*parts: tuple[Value, Value]) -> int:
    """Of values with their weights. Rates below one a second are told as 0, but weigh something."""
    weighed = [(_number(value), _number(weight) or 0.5) for value, weight in parts if _number(value)]
    return int(sum(v * w for v, w in weighed) / sum(w for _, w in weighed)) if weighed else 0


def totals(stats: View) -> View:
    """SHOW TOTALS out of SHOW STATS."""
    how = replace(_STATS, key=(), joined=())
    row = _by_name(summed(how, {1: stats}))
    columns = [column for column in stats.columns if column.startswith(("total_", "avg_"))]
    return View(
        ("name", "value"), [(named_in_totals(column), row[0][column] if row else 0) for column in columns]
    )


def _state(views: Views) -> View:
    """Active as long as one is; paused or draining if all are."""
    columns = next(iter(views.values())).columns
    told: dict[Value, list[Value]] = {}
    for view in views.values():
        for key, value in view.rows:
            told.setdefault(key, []).append(value)
    is_so = {key: any(v == "yes" for v in values) if key == "active" else all(v == "yes" for v in values)
             for key, values in told.items()}  # fmt: skip
    return View(columns, [(key, "yes" if so else "no") for key, so in is_so.items()])


def _lists(views: Views) -> View:
    columns = next(iter(views.values())).columns
    totals: dict[Value, Value] = {}
    for view in views.values():
        for name, value in view.rows:
            if name in _ALIKE:
                totals[name] = max(_number(totals.get(name)), _number(value))
            else:
                totals[name] = _plus(totals.get(name), value)
    return View(columns, list(totals.items()))


def _union(views: Views) -> View:
    """Each different row once, in the order in which they come."""
    columns = next(iter(views.values())).columns
    rows: dict[tuple[Value, ...], None] = {}
    for view in views.values():
        rows |= dict.fromkeys(tuple(row) for row in view.rows)
    return View(columns, list(rows))
