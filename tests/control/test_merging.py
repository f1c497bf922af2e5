"""One view out of several: what is added up, what stands side by side, what is told by everyone alike."""

from __future__ import annotations

from typing import Any

import pytest

from proxy import settings
from proxy.control import merging, views
from proxy.control.merging import SUMS, Views, merged
from proxy.control.views import Value, View
from proxy.worker import Worker


def view(*rows: dict[str, Any]) -> View:
    columns = tuple(rows[0])
    return View(columns, [tuple(row[column] for column in columns) for row in rows])


def dicts(found: View) -> list[dict[str, Value]]:
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def pool(**more: Any) -> dict[str, Any]:
    zero = dict.fromkeys(SUMS["pools"].sums, 0)
    return {
        "database": "d",
        "user": "u",
        **zero,
        "maxwait": 0,
        "maxwait_us": 0,
        "cluster": "c",
        "paused": 0,
        **more,
    }


def test_pools_are_added_up_by_their_key_and_the_longest_wait_holds() -> None:
    found = dicts(
        merged(
            "pools",
            {
                1: view(pool(cl_active=2, sv_idle=1, maxwait=1, maxwait_us=5), pool(user="x", cl_active=9)),
                2: view(pool(cl_active=3, maxwait=1, maxwait_us=7, paused=1)),
                3: view(pool(cl_active=1, maxwait=0, maxwait_us=9)),
            },
        )
    )
    assert found == [
        pool(cl_active=6, sv_idle=1, maxwait=1, maxwait_us=7, paused=1),
        pool(user="x", cl_active=9),
    ]


def test_clients_stand_side_by_side_and_say_their_worker() -> None:
    row = {"type": "C", "ptr": "0x7f00", "link": "", "id": 0x7F00}
    found = merged("clients", {1: view(row, row | {"link": "0x1"}), 12: view(row)})
    assert found.columns == ("type", "ptr", "link", "id", "worker")
    assert [r["ptr"] for r in dicts(found)] == ["1:0x7f00", "1:0x7f00", "12:0x7f00"]
    assert [r["link"] for r in dicts(found)] == ["", "1:0x1", ""]
    assert [r["worker"] for r in dicts(found)] == [1, 1, 12]
    for r in dicts(found):
        assert merging.whose(str(r["ptr"])) == (r["worker"], "0x7f00")
        assert merging.whose(str(r["id"])) == (r["worker"], str(0x7F00))


@pytest.mark.parametrize("which", ["0x7f00", "", "x:0x1", "nonsense", "32512"])
def test_a_client_that_says_no_worker(which: str) -> None:
    assert merging.whose(which) == (0, which)


def stat(count: int, seconds: int = 0, average: int = 99, **more: Any) -> dict[str, Any]:
    return {
        "database": "d", "total_query_count": count, "total_query_time": seconds, "avg_query_count": count,
        "avg_query_time": average, "user": "u", "cluster": "c", **more,
    }  # fmt: skip


def test_averages_are_weighted() -> None:
    (found,) = dicts(merged("stats", {1: view(stat(2, 100, 30)), 2: view(stat(8, 100, 10))}))
    assert (found["total_query_count"], found["avg_query_count"]) == (10, 10)
    assert (found["total_query_time"], found["avg_query_time"]) == (200, 14)
    idle, slow = stat(0, 0, 0), stat(0, 5, 50)
    (found,) = dicts(merged("stats", {1: view(idle), 2: view(slow), 3: view(idle)}))
    assert found["avg_query_time"] == 50


def test_what_pgbouncers_exporters_read_has_one_row_a_database() -> None:
    one, two = stat(2, cluster="a"), stat(3, user="x, y", cluster="b")
    (found,) = dicts(merged("pgbouncer.stats", {1: view(one), 2: view(two)}))
    assert (found["total_query_count"], found["user"], found["cluster"]) == (5, "u, x, y", "a, b")
    totals = dict(merging.totals(View(tuple(one), [tuple(one.values()), tuple(two.values())])).rows)
    assert (totals["total_query_count"], totals["avg_query_time"]) == (5, 99)
    assert dict(merging.totals(View(tuple(one), [])).rows)["total_query_count"] == 0


def test_the_state_of_all() -> None:
    def state(**so: bool) -> View:
        return view(*({"key": key, "value": "yes" if value else "no"} for key, value in so.items()))

    one, other = (
        state(active=True, paused=False, draining=False),
        state(active=False, paused=True, draining=True),
    )
    for told, so in (
        ({1: one, 2: other}, ["yes", "no", "no"]),
        ({1: other, 2: other}, ["no", "yes", "yes"]),
    ):
        assert [row["value"] for row in dicts(merged("state", told))] == so


def test_the_counts_of_workers_that_are_gone_stay() -> None:
    gone = merging.kept(SUMS["stats"], None, view(stat(5), stat(7, user="left")), None)
    gone = merging.kept(SUMS["stats"], gone, view(stat(1)), None)
    now: Views = {3: view(stat(2))}
    found = {row["user"]: row for row in dicts(merged("stats", now, gone))}
    assert found["u"]["total_query_count"] == 8
    assert found["u"]["avg_query_count"] == 2
    assert (found["left"]["total_query_count"], found["left"]["avg_query_count"]) == (7, 0)


def test_a_pool_that_counts_anew_takes_nothing_back() -> None:
    how = SUMS["stats"]
    assert merging.kept(how, None, view(stat(5)), view(stat(5), stat(1, user="x"))) is None
    gone = merging.kept(how, None, view(stat(5)), view(stat(1)))
    (found,) = dicts(merged("stats", {1: view(stat(1))}, gone))
    assert found["total_query_count"] == 6


def test_a_tenant_that_is_no_more_is_shown_no_more() -> None:
    def tenant(name: str, queries: int) -> dict[str, Any]:
        return {"name": name, "clients": 1, "servers": 0, "waiting": 0, "queries": queries, "disabled": 0}

    gone = merging.kept(SUMS["tenants"], None, view(tenant("a", 5), tenant("b", 6)), None)
    found = dicts(merged("tenants", {2: view(tenant("a", 1)), 3: view(tenant("a", 1))}, gone))
    assert [(row["name"], row["clients"], row["queries"]) for row in found] == [("a", 2, 7)]


def test_an_endpoint_that_one_worker_has_ejected_is_not_healthy() -> None:
    def endpoint(healthy: int, reason: str = "", connections: int = 1) -> dict[str, Any]:
        return {
            "name": "c", "endpoint": "e", "role": "primary", "healthy": healthy, "reason": reason,
            "connections": connections,
        }  # fmt: skip

    (found,) = dicts(
        merged("clusters", {1: view(endpoint(1)), 2: view(endpoint(0, "down")), 3: view(endpoint(1))})
    )
    assert found == endpoint(0, "down", 3)


def test_lists_count_what_is_in_the_workers_and_not_what_all_know() -> None:
    one = View(("list", "items"), [("tenants", 3), ("used_clients", 2)])
    assert merged("lists", {1: one, 2: one}).rows == [("tenants", 3), ("used_clients", 4)]


def test_what_all_tell_alike_is_told_once() -> None:
    same, other = {"step": "tier", "value": "vip"}, {"step": "ejected", "value": "e"}
    found = merged("route", {1: view(same), 2: view(same, other), 3: view(same)})
    assert dicts(found) == [same, other]


def test_a_worker_of_another_version_may_have_other_columns() -> None:
    old, new = (
        {"name": "t", "clients": 1, "servers": 2},
        {"name": "t", "fresh": "x", "clients": 3, "servers": 4},
    )
    found = dicts(merged("tiers", {1: view(old), 2: view(new)}))
    assert found == [{"name": "t", "clients": 4, "servers": 6}]


def test_every_view_has_a_way() -> None:
    """What is added up nowhere must have a way of its own."""
    of_their_own = {"lists", "state", "totals", "config", "fleet", "shares", "workers"}
    assert SUMS.keys() | merging.SIDE_BY_SIDE | of_their_own == views.NAMES


@pytest.mark.parametrize("name", sorted(SUMS))
def test_every_column_that_is_added_up_is_there(name: str) -> None:
    with_plane = views.AS_PGBOUNCER if name.startswith(views.PGBOUNCER) else views.VIEWS
    columns = with_plane[name.removeprefix(views.PGBOUNCER)](_plane()).columns
    how = SUMS[name]
    named = {
        *how.key,
        *how.sums,
        *how.counts,
        *how.most,
        *how.least,
        *how.joined,
        *(c for m in how.means for c in m),
    }
    assert named <= set(columns)


def _plane() -> Any:
    worker = Worker(settings.parse("", "empty.toml"))
    return worker.plane
