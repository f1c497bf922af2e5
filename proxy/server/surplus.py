"""Server connections that a pool has not needed for a while, whatever it does with them.

A pool that has one more idle connection than it needs may use each of them in turn, so that none is ever idle for long. What
it needs is the most that was in use, or wanted, at once in the last period and in what has gone of this one; the
others, those that are idle longest, are closed.
"""

from __future__ import annotations

from itertools import islice

from proxy.server.pool import Pool


class _Need:
    __slots__ = ("before", "most", "since")

    def __init__(self, now: float) -> None:
        self.since = now
        self.most = 0
        self.before: int | None = None  # nothing is known of the last period


class Surplus:
    __slots__ = ("_needs",)

    def __init__(self) -> None:
        self._needs: dict[Pool, _Need] = {}

    def look(self, pool: Pool, now: float) -> None:
        """To be called with each sweep."""
        need = self._needs.get(pool)
        if need is None:
            need = self._needs[pool] = _Need(now)
        wanted = len(pool.active) + len(pool.resetting) + pool.queue.size
        if wanted > need.most:
            need.most = wanted

    def close(self, pool: Pool, now: float, period: float, least: int) -> None:
        """To be called about once a second, behind `look`."""
        need = self._needs[pool]
        if need.before is not None:
            needed = max(need.most, need.before, least)
            over = min(pool.size - pool.opening - needed, pool.spare)
            for server in list(islice(pool.idle, max(0, over))):
                pool.close_idle(server)
        if now - need.since >= period:
            need.since, need.before, need.most = now, need.most, 0

    def keep(self, pools: set[Pool]) -> None:
        """The others are gone."""
        self._needs = {pool: need for pool, need in self._needs.items() if pool in pools}

    def __len__(self) -> int:
        return len(self._needs)
