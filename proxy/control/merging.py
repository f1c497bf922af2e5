"""One view out of the same view of several workers: rows side by side, or added up by what they are about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from proxy.control.views import Value, View

Row = dict[str, Value]
Views = Mapping[int, View]  # by the worker's number


@dataclass(frozen=True, slots=True)
class Sums:
    """How a view's rows are added up: by `key`; columns that are named nowhere are alike in all workers.

    `counts` only grow, so those of workers that are gone are kept; `finish` works out what follows from others.
    """

    key: tuple[str, ...]
    sums: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()
    most: tuple[str, ...] = ()
    least: tuple[str, ...] = ()
    finish: Callable[[Row], None] | None = None
    longest_wait: bool = False
    keeps_rows: bool = False  # also those that only workers that are gone have told


def _averages(row: Row) -> None:
    for name, per in (
        ("xact_time", "xact_count"),
        ("query_time", "query_count"),
        ("wait_time", "server_assignment_count"),
    ):
        total, count = row.get(f"total_{name}"), row.get(f"total_{per}")
        if isinstance(total, int) and isinstance(count, int):
            row[f"avg_{name}"] = total // count if count else 0


SIDE_BY_SIDE = frozenset({"clients", "servers"})
SUMS: dict[str, Sums] = {
    "pools": Sums(
        ("database", "user", "cluster"),
        (
            "cl_active", "cl_waiting", "cl_active_cancel_req", "cl_waiting_cancel_req", "sv_active",
            "sv_active_cancel", "sv_being_canceled", "sv_idle", "sv_used", "sv_tested", "sv_login",
        ),
        most=("paused",),
        longest_wait=True,
    ),
    "databases": Sums(("name",), ("current_connections",), most=("paused", "disabled")),
    "clusters": Sums(("name", "endpoint", "role"), ("connections",), least=("healthy",)),
    "stats": Sums(
        ("database", "user", "cluster"),
        ("avg_server_assignment_count", "avg_xact_count", "avg_query_count", "avg_recv", "avg_sent"),
        counts=(
            "total_server_assignment_count", "total_xact_count", "total_query_count", "total_received", "total_sent",
            "total_xact_time", "total_query_time", "total_wait_time",
        ),
        finish=_averages,
        keeps_rows=True,
    ),
    "tenants": Sums(
        ("name",), ("clients", "servers", "waiting"), counts=("queries", "transactions", "errors"), most=("disabled",)
    ),
    "tiers": Sums(("name",), ("clients", "servers")),
    "users": Sums(("name",), ("current_connections", "current_client_connections", "waiting")),
}  # fmt: skip
_ID_BITS = 47  # an id is an address of user space
# Of SHOW LISTS, what every worker tells of the same things.
_ALIKE = frozenset({"databases", "users", "tenants"})


def merged(name: str, views: Views, gone: View | None = None) -> View:
    """`views` are those of the workers, at least one; `gone` has the counts of workers that have ended."""
    if name in SIDE_BY_SIDE:
        return side_by_side(views)
    if name in SUMS:
        return summed(SUMS[name], views, gone)
    if name == "lists":
        return _lists(views)
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
            found[key] = row | dict.fromkeys((*how.sums, *how.most), 0)
    if how.finish is not None:
        for row in found.values():
            how.finish(row)
    return View(columns, [tuple(row.get(column) for column in columns) for row in found.values()])


def _add(how: Sums, total: Row, row: Row) -> None:
    for column in (*how.sums, *how.counts):
        total[column] = _plus(total.get(column), row.get(column))
    for column in how.most:
        total[column] = max(_number(total.get(column)), _number(row.get(column)))
    for column in how.least:
        if _number(row.get(column)) < _number(total.get(column)):
            total[column] = row.get(column)
            if "reason" in row:
                total["reason"] = row["reason"]
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
