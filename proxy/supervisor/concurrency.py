"""How many transactions clusters run at once where that follows latency: one decision for all workers of the host, by the
sum of what they have measured (see admission/adaptive.py)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from proxy.admission.adaptive import NOTHING, Limit, Window
from proxy.server.adapting import window

Row = list[Any]
_FORGET = 60  # looks at which nobody has told anything of a cluster


class _Cluster:
    """`told` by worker, since the last look."""

    __slots__ = ("limit", "silent", "told")

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.told: dict[int, Window] = {}
        self.silent = 0


class Concurrency:
    __slots__ = ("_clusters",)

    def __init__(self) -> None:
        self._clusters: dict[str, _Cluster] = {}

    def hear(self, worker: int, rows: Iterable[Row]) -> None:
        for row in rows:
            name, lowest, highest, measured = window(row)
            found = self._clusters.get(name)
            if found is None:
                found = self._clusters[name] = _Cluster(Limit(lowest, highest))
            # Workers that have not heard of a change yet: the lowest holds, and soon they agree.
            told = found.told
            limit = found.limit
            limit.highest = min(highest, limit.highest) if told else highest
            limit.lowest = min(lowest, limit.highest)
            told[worker] = told[worker].then(measured) if worker in told else measured

    def look(self) -> list[Row]:
        """To be called about once a second: what all workers are to be told."""
        rows: list[Row] = []
        for name, found in list(self._clusters.items()):
            measured = NOTHING
            for each in found.told.values():
                measured = measured.plus(each)
            found.silent = 0 if found.told else found.silent + 1
            found.told.clear()
            if found.silent > _FORGET:
                del self._clusters[name]
                continue
            rows.append([name, *found.limit.decide(measured)])
        return rows
