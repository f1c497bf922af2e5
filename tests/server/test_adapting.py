"""Who measures, who decides, and what a decision changes of a cluster's counter and its pools."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from proxy.admission.adaptive import BUCKETS, NOTHING, Decision
from proxy.model import Cluster, ClusterKind
from proxy.server.adapting import Adapting, window
from proxy.server.room import Room

CLUSTER = Cluster(
    "shared", ClusterKind.SHARED, (), max_connections=40, adaptive_concurrency=True, min_concurrency=3
)


@dataclass
class Queue:
    most: int = 40


@dataclass(eq=False)
class Pool:
    cluster: Cluster = CLUSTER
    active: set[int] = field(default_factory=set)
    queue: Any = field(default_factory=Queue)
    idle: list[Any] = field(default_factory=list)


def make(*pools: Pool, alone: bool = True) -> tuple[Adapting, Room, list[Any]]:
    told: list[Any] = []
    room = Room(0, list, None)
    adapting = Adapting(room, lambda: pools)
    if not alone:
        adapting.tell = told.append
    return adapting, room, told


def decision(limit: int, resting: bool = True) -> Decision:
    return Decision(limit, resting, 0.0, 0.01, 0.02, 0.75, "latency is 2.0 times its baseline")


def test_where_it_is_off_nothing_is_measured() -> None:
    adapting, room, _ = make()
    off = replace(CLUSTER, adaptive_concurrency=False)
    assert adapting.strain(off) is None
    adapting.look(decide=True)
    assert (adapting.clusters, room.adapted) == ({}, {})


def test_one_that_is_alone_decides_for_itself() -> None:
    pool = Pool(active={1, 2})
    adapting, room, _ = make(pool)
    strain = adapting.strain(CLUSTER)
    assert strain is not None
    assert room.cluster("shared").limit == pool.queue.most == 8
    assert room.counters(CLUSTER)[0].limit == 8, "a new pool does not lift it"
    room.cluster("shared").when_free(_claim())
    for _ in range(4):
        for _ in range(200):
            strain.record("acme", 0.01)
        adapting.look(decide=True)
    assert room.cluster("shared").limit == pool.queue.most == 12, "used once, and whoever waited was called"
    assert adapting.clusters["shared"].running == 2


def _claim() -> Any:
    from proxy.admission.accounts import Seeker

    class Waiter(Seeker):
        def free(self) -> None:
            pass

    return Waiter()


def test_of_several_each_tells_and_obeys() -> None:
    pool, other = Pool(active={1, 2}), Pool(cluster=replace(CLUSTER, name="other", max_connections=9))
    adapting, room, told = make(pool, other, alone=False)
    strain = adapting.strain(CLUSTER)
    assert strain is not None
    room.limit(CLUSTER)
    assert room.cluster("shared").limit == 40, "until something was decided"
    adapting.look(decide=True)
    name, lowest, highest, measured = window(told[0][0])
    assert (name, lowest, highest, measured) == ("shared", 3, 40, NOTHING._replace(running=2))
    adapting.obey([["shared", *decision(5)], ["unknown", *decision(5)]])
    assert (room.cluster("shared").limit, pool.queue.most, other.queue.most) == (5, 5, 40)
    assert strain.resting


def test_nothing_is_told_where_nothing_runs() -> None:
    adapting, _, told = make(Pool(), alone=False)
    adapting.strain(CLUSTER)
    adapting.look(decide=True)
    assert told == []


def test_a_reload_changes_bounds_or_ends_it() -> None:
    pool = Pool()
    adapting, room, _ = make(pool)
    adapting.strain(CLUSTER)
    smaller = replace(CLUSTER, max_connections=6)
    pool.cluster = smaller
    adapting.strain(smaller)
    assert room.cluster("shared").limit == 6
    adapting.look(decide=True)
    assert adapting.clusters["shared"].now is not None
    assert adapting.clusters["shared"].now.limit == 6
    assert adapting.strain(replace(smaller, adaptive_concurrency=False)) is None
    room.limit(smaller)
    assert room.cluster("shared").limit == 6
    room.limit(CLUSTER)
    assert room.cluster("shared").limit == 40


def test_a_window_has_as_many_buckets_as_is_agreed() -> None:
    assert len(NOTHING.octaves) == BUCKETS
