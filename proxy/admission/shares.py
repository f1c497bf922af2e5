"""The rates of a host: the buckets that its workers share, and what each of them holds.

Theory. The level of a bucket counts all tokens there are: those nobody has, and those that workers hold and may spend
without asking. So it is never above the burst, and what workers hold together is never above the level: whatever
they spend in any time, it is no more than the burst and what has come in since. A token leaves the level when a worker
tells that it has spent it. That it tells it late costs a little of the rate at most, never more than the rate.

Whoever needs tokens gets them in turn, as they come, each the same; what workers would like to have ahead of their use
they get only of what nobody needs, and not all of that. What others hold and do not need is recalled. A worker that
dies is taken to have spent all that it held, which comes back at the bucket's rate.

Where hosts share a rate, this one has so many thousandths of it and of its burst (see stakes.py): what it has too much
when these become less is gone, so all hosts' buckets together never let more through than one would, but that each
has a burst of one at least. Of a quota it has so many of the day's queries; those that are spent stay with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, inf

from proxy.admission.bucket import Bucket, Quota
from proxy.admission.ledger import Above
from proxy.admission.slices import Grant, Held, Told

_SLACK = 1e-6
_RECALL_AGAIN = 0.02  # seconds
_EARLY = 0.001
RATE, QUOTA = "rate of ", "quota of "  # how those above call it
_PARTS = 1000
_MORE = 100  # that are asked for at once
_LEAST_PART = 1e-6
_ROOM = 1.1  # of what has been used of late
_WINDOW = 1.0  # seconds


class _Share:
    __slots__ = (
        "bucket", "burst", "held", "name", "needs", "pending", "rate", "recalled", "recalled_at", "served_at", "since",
        "spent", "used",
    )  # fmt: skip

    def __init__(self, name: str, bucket: Bucket | Quota) -> None:
        self.name = name
        self.bucket = bucket
        self.rate = self.burst = 0.0  # of all hosts
        self.spent = self.used = 0.0  # since then; a second, before that
        self.since = -inf
        self.held: dict[int, float] = {}  # by worker
        self.needs: dict[int, int] = {}  # in turn
        self.recalled: set[int] = set()  # and have not answered
        self.pending: set[int] = set()  # have been told that more is to be heard
        self.recalled_at: dict[int, float] = {}
        self.served_at = -inf

    def free(self, now: float) -> float:
        return self.bucket.level(now) - sum(self.held.values())

    def wait(self, now: float, place: int) -> float:
        """Until the one that is so many away is free."""
        return self.bucket.wait(now, place + sum(self.held.values()))

    @property
    def pace(self) -> float:
        return max(1, len(self.needs)) / self.bucket.rate if isinstance(self.bucket, Bucket) else 0.0


class Shares:
    """`utc` as for a Quota. Every answer is the list of what workers are to be told."""

    __slots__ = ("_full", "_shares", "_utc", "_wanting", "above")

    def __init__(self, utc: float = 0.0) -> None:
        self.above: Above | None = None
        self._utc = utc
        self._full = True
        self._shares: dict[str, _Share] = {}
        self._wanting: dict[str, None] = {}  # those of which somebody needs more

    def inherit(self) -> None:
        """Workers are there already, and hold what they will report: buckets are empty but for that."""
        self._full = False

    def report(self, worker: int, rows: Iterable[Held], now: float) -> None:
        for row in rows:
            share = self._share(row, now)
            if isinstance(share.bucket, Bucket):
                share.bucket.spend(-row.held, now)  # they are there
            share.held[worker] = row.held

    def lease(self, worker: int, told: Told, now: float) -> list[Grant]:
        share = self._share(told, now)
        if told.spent:
            share.bucket.spend(told.spent, now)
            share.spent += told.spent
        held = share.held.get(worker, 0.0) - told.left
        if held > _SLACK:
            share.held[worker] = held
        else:
            share.held.pop(worker, None)
        share.recalled.discard(worker)
        if told.needs:
            share.needs[worker] = told.needs
        else:
            share.needs.pop(worker, None)
        asker = worker if told.asks or told.needs or told.likes else 0
        return self._serve(share, now, asker, told.likes)

    def died(self, worker: int, now: float) -> list[Grant]:
        grants = []
        for share in self._shares.values():
            lost = share.held.pop(worker, 0.0)
            if lost:
                share.bucket.spend(lost, now)
            share.needs.pop(worker, None)
            share.recalled.discard(worker)
            share.recalled_at.pop(worker, None)
            share.pending.discard(worker)
            grants += self._serve(share, now)
        return grants

    def look(self, now: float) -> list[Grant]:
        """What has come in since goes to those who need it."""
        grants = []
        for name in list(self._wanting):
            share = self._shares[name]
            if self._due(share, now) <= _EARLY:
                grants += self._serve(share, now)
        return grants

    def due(self, now: float) -> float | None:
        """In how many seconds to look again; None: nobody needs anything."""
        return min((self._due(self._shares[name], now) for name in self._wanting), default=None)

    def _due(self, share: _Share, now: float) -> float:
        seconds = share.wait(now, 1)
        if any(held >= 1 and worker not in share.needs for worker, held in share.held.items()):
            return min(seconds, max(0.0, share.served_at + _RECALL_AGAIN - now))
        return seconds

    # --- of all hosts ---------------------------------------------------------------------------------

    def demand(self, name: str, now: float) -> tuple[int, int]:
        """What is used of it here, and wanted besides; in thousandths, or queries of a day."""
        share = self._shares.get(name.removeprefix(RATE).removeprefix(QUOTA))
        if share is None:
            return 0, 0
        if isinstance(share.bucket, Quota):
            used = ceil(share.bucket.burst - share.bucket.level(now) + sum(share.held.values()))
            return used, sum(share.needs.values())
        if now - share.since > _WINDOW:
            share.used = share.spent / (now - share.since)
            share.since, share.spent = now, 0.0
        used = min(_PARTS, ceil(_PARTS * _ROOM * share.used / share.rate))
        return used, _MORE if share.needs else 0

    def again(self, names: Iterable[str], now: float) -> list[Grant]:
        """What this host has of them is more or less, or no more comes."""
        grants = []
        for name in names:
            share = self._shares.get(name.removeprefix(RATE).removeprefix(QUOTA))
            if share is not None:
                share.bucket.level(now)
                self._fit(share)
                grants += self._serve(share, now)
        return grants

    def _fit(self, share: _Share) -> None:
        above, rate, burst = self.above, share.rate, share.burst
        if above is None:
            share.bucket.change(rate, burst)
        elif isinstance(share.bucket, Quota):
            share.bucket.change(0.0, float(above.share(QUOTA + share.name, int(burst))))
        else:
            part = max(_LEAST_PART, above.share(RATE + share.name, _PARTS) / _PARTS)
            share.bucket.change(rate * part, max(1.0, burst * part))

    def _more(self, share: _Share) -> bool:
        """More may come from the other hosts."""
        if self.above is None:
            return False
        if isinstance(share.bucket, Quota):
            return self.above.pending(QUOTA + share.name, int(share.burst))
        return self.above.pending(RATE + share.name, _PARTS)

    def _share(self, row: Told | Held, now: float) -> _Share:
        share = self._shares.get(row.name)
        if share is None:
            bucket: Bucket | Quota
            if row.daily:
                bucket = Quota(row.burst, self._utc)
            else:
                bucket = Bucket(row.rate, row.burst)
            share = self._shares[row.name] = _Share(row.name, bucket)
            share.rate, share.burst, share.since = row.rate, row.burst, now
            self._fit(share)
            if not self._full and not row.daily:
                bucket.spend(bucket.burst, now)
        elif row.burst:
            share.rate, share.burst = row.rate, row.burst
            self._fit(share)
        return share

    def _serve(self, share: _Share, now: float, asker: int = 0, likes: int = 0) -> list[Grant]:
        share.served_at = now
        free = int(share.free(now) + _SLACK)
        needs = share.needs
        granted: dict[int, int] = {}
        while free > 0 and needs:
            fair = max(1, free // len(needs))
            for worker, wanted in list(needs.items()):
                count = min(wanted, fair, free)
                granted[worker] = granted.get(worker, 0) + count
                free -= count
                del needs[worker]
                if wanted > count:
                    needs[worker] = wanted - count  # behind the others
                if not free:
                    break
        if asker and not needs and min(likes, free // 2) > 0:
            granted[asker] = granted.get(asker, 0) + min(likes, free // 2)
        for worker, count in granted.items():
            share.held[worker] = share.held.get(worker, 0.0) + count
        if needs:
            self._wanting[share.name] = None
        else:
            self._wanting.pop(share.name, None)
        recalls = self._recall(share, now) if needs else []
        more = bool(needs) and self._more(share)
        told = granted if asker in granted or not asker else {**granted, asker: 0}
        if not (share.recalled or more):  # what was hoped for is here, or does not come
            told = dict.fromkeys(share.pending & needs.keys(), 0) | told
            share.pending.clear()
        return [*(self._answer(share, worker, count, now, more) for worker, count in told.items()), *recalls]

    def _recall(self, share: _Share, now: float) -> list[Grant]:
        """What others hold who need nothing."""
        found = []
        for worker, held in share.held.items():
            if held < 1 or worker in share.needs or now - share.recalled_at.get(worker, -inf) < _RECALL_AGAIN:
                continue
            share.recalled.add(worker)
            share.recalled_at[worker] = now
            found.append(Grant(worker, share.name, 0, 0.0, share.pace, False, True))
        return found

    def _answer(self, share: _Share, worker: int, granted: int, now: float, more: bool) -> Grant:
        order = list(share.needs)
        place = order.index(worker) + 1 if worker in share.needs else len(order) + 1
        pending = (more or bool(share.recalled)) and worker in share.needs
        if pending:
            share.pending.add(worker)
        # Of a quota that nobody here waits for, others may have some that has not been asked back.
        unknown = pending or (isinstance(share.bucket, Quota) and worker not in share.needs)
        eta = 0.0 if unknown else share.wait(now, place)
        return Grant(worker, share.name, granted, eta, share.pace, pending, False)
