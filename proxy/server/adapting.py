"""Clusters whose `max_connections` follows the latency of their transactions (see admission/adaptive.py).

Each process measures. One that is alone decides for itself; of several the supervisor does, who is told once a second what
was measured (`tell`), and whose decision all of them get (`obey`). Until a new one has come, the last holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from proxy.admission.adaptive import Decision, Limit, Strain, Window
from proxy.admission.queue import FairQueue
from proxy.model import Cluster
from proxy.server.room import Room

Row = list[Any]
Tell = Callable[[list[Row]], None]


class Pool(Protocol):
    """What is seen of a pool here."""

    @property
    def cluster(self) -> Cluster: ...
    @property
    def active(self) -> list[Any]: ...
    @property
    def queue(self) -> FairQueue: ...


class Adapted:
    """One cluster. `limit` where this process decides."""

    __slots__ = ("cluster", "limit", "now", "running", "strain")

    def __init__(self, cluster: Cluster, alone: bool) -> None:
        self.cluster = cluster
        self.strain = Strain()
        self.limit = Limit(*bounds(cluster)) if alone else None
        self.now: Decision | None = self.limit.last if self.limit is not None else None
        self.running = 0


class Adapting:
    """`tell` is None in a process that is alone; in another it is there before the first pool."""

    __slots__ = ("_pools", "_room", "clusters", "tell")

    def __init__(self, room: Room, pools: Callable[[], Iterable[Pool]]) -> None:
        self._room = room
        self._pools = pools
        self.tell: Tell | None = None
        self.clusters: dict[str, Adapted] = {}

    def strain(self, cluster: Cluster) -> Strain | None:
        """Where a pool of the cluster is to tell of its transactions."""
        if not cluster.adaptive_concurrency:
            self._forget(cluster.name)
            return None
        adapted = self.clusters.get(cluster.name)
        if adapted is None:
            adapted = self.clusters[cluster.name] = Adapted(cluster, self.tell is None)
        adapted.cluster = cluster
        if adapted.limit is not None:
            adapted.limit.lowest, adapted.limit.highest = bounds(cluster)
        self._apply(adapted)
        return adapted.strain

    def most(self, cluster: Cluster) -> int:
        return self._room.adapted.get(cluster.name, cluster.max_connections)

    def look(self, *, decide: bool) -> None:
        """To be called with each sweep; `decide` about once a second."""
        if not self.clusters:
            return
        running = dict.fromkeys(self.clusters, 0)
        for pool in self._pools():
            name = pool.cluster.name
            if name in running and pool.cluster.adaptive_concurrency:
                running[name] += len(pool.active)
        for name, adapted in self.clusters.items():
            counter = self._room.cluster(name)
            adapted.running = running[name]
            adapted.strain.seen(running[name], counter.waited_for or counter.sought)
        if decide:
            self._decide()

    def _decide(self) -> None:
        rows: list[Row] = []
        for name, adapted in list(self.clusters.items()):
            window = adapted.strain.take()
            if adapted.limit is not None:
                self._obey(adapted, adapted.limit.decide(window))
            elif window.samples or window.running:
                rows.append([name, *bounds(adapted.cluster), *window])
        if rows and self.tell is not None:
            self.tell(rows)

    def obey(self, rows: Iterable[Row]) -> None:
        for name, *decision in rows:
            adapted = self.clusters.get(name)
            if adapted is not None:
                self._obey(adapted, Decision(*decision))

    def _obey(self, adapted: Adapted, decision: Decision) -> None:
        adapted.strain.obey(decision)
        adapted.now = decision
        self._apply(adapted)

    def _apply(self, adapted: Adapted) -> None:
        """Guarantees that are a share are one of what there is now."""
        name, most = adapted.cluster.name, adapted.cluster.max_connections
        if adapted.now is not None:
            most = min(most, adapted.now.limit)
        if self._room.adapted.get(name) == most:
            return
        self._room.adapt(name, most)
        for pool in self._pools():
            if pool.cluster.name == name:
                pool.queue.most = most

    def _forget(self, name: str) -> None:
        if self.clusters.pop(name, None) is not None:
            self._room.adapted.pop(name, None)


def bounds(cluster: Cluster) -> tuple[int, int]:
    return min(cluster.min_concurrency, cluster.max_connections), cluster.max_connections


def window(row: Row) -> tuple[str, int, int, Window]:
    """What a process has told of one cluster: its name, the bounds, and what was measured."""
    name, lowest, highest, *measured = row
    return name, lowest, highest, Window(*measured)
