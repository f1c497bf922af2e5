"""The supervisor's ledger: how many permits of each named counter every worker holds, and who is to have the next.

A permit is free, or held by one worker, or on its way there (and counts as held already), so that the sum of what
is held exceeds a limit never, but while a limit that was lowered below it is being reached. Workers say what
they want and give back (`lease`); all that the ledger wants of them is an Order.

Asks are served first come, first served; one that is alone gets a chunk, so that a worker seldom asks while there
is plenty. What is idle in one worker goes to another that wants it: holders are told that permits are `sought`
and give back what they do not use, now and from then on. Where all are in use they are shared out: a worker
below its equal share is owed by those above theirs; where there are fewer permits than workers that want one,
each is owed for as long as somebody has none, so they go round. A holder gives back what it owes although it has
waiters of its own.

An ask that only hopes (a login) is refused once all holders have answered that they have none to spare, and whoever is
`above` that nothing more comes: where hosts share a limit, this one's is its share, which may change. Permits
that stand for something outside of the worker (`backed`) stay held when it dies until they are said to be over.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol


class Above(Protocol):
    """Where a host has its share of each limit from (see stakes.py)."""

    def share(self, name: str, limit: int) -> int: ...

    def pending(self, name: str, limit: int) -> bool:
        """More is wanted than there is. False: nothing is to be hoped for."""

    def sought(self, name: str) -> bool:
        """By other hosts."""


class Order(NamedTuple):
    """What one worker is to do about one counter; `sought` and `owed` replace what was said before."""

    worker: int
    name: str
    granted: int = 0
    refused: bool = False
    sought: bool = False
    owed: int = 0
    surrender: int = 0  # what is idle but not free, like a pooled connection, is to be given up
    question: int = 0  # to be answered, at once, with what was given back


class Holding(NamedTuple):
    """What a worker has of a counter, as it says itself."""

    name: str
    limit: int
    backed: bool
    held: int


class _Ask:
    __slots__ = ("hopes", "looks", "question", "wants")

    def __init__(self) -> None:
        self.looks = 0
        self.wants = 0
        self.hopes = 0
        self.question = 0  # the one whose answers decide over the hopes; 0: not asked yet


class _Entry:
    """One counter. `asks` is in order of arrival."""

    __slots__ = (
        "asks",
        "backed",
        "configured",
        "held",
        "limit",
        "limits",
        "name",
        "question",
        "spare",
        "told",
        "unanswered",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.configured = 0
        self.limit = 0  # of that, the share of this host
        self.backed = False
        self.limits: dict[int, int] = {}  # as each worker understands it
        self.held: dict[int, int] = {}
        self.asks: dict[int, _Ask] = {}
        self.told: dict[int, tuple[bool, int]] = {}  # sought and owed as the worker knows them
        self.question = 0
        self.unanswered: set[int] = set()
        self.spare: dict[int, int] = {}

    @property
    def free(self) -> int:
        return self.limit - sum(self.held.values())

    @property
    def over(self) -> bool:
        return not (self.held or self.asks)

    def take_limit(self) -> None:
        """Where workers disagree, because not all have heard of a change, the lowest holds; those that have
        nothing to do with the counter may not have heard of it and do not count."""
        self.limits = {w: n for w, n in self.limits.items() if w in self.held or w in self.asks}
        self.configured = self.limit = min(self.limits.values(), default=self.configured)

    def forget(self, worker: int) -> None:
        for place in (self.limits, self.asks, self.told, self.spare):
            place.pop(worker, None)
        self.unanswered.discard(worker)


class Ledger:
    """Workers are numbers that are never used twice."""

    __slots__ = ("_asked", "_dead", "_entries", "_expected", "_workers", "above")

    def __init__(self) -> None:
        self.above: Above | None = None
        self._asked: dict[str, _Entry] = {}  # those of the entries that have asks
        self._entries: dict[str, _Entry] = {}
        self._workers: set[int] = set()
        self._expected: set[int] = set()
        self._dead: set[int] = set()

    # --- what may be seen -----------------------------------------------------------------------------

    def names(self) -> list[str]:
        return list(self._entries)

    def held(self, name: str) -> dict[int, int]:
        """By worker; dead ones among them."""
        entry = self._entries.get(name)
        return dict(entry.held) if entry is not None else {}

    def limit(self, name: str) -> int:
        entry = self._entries.get(name)
        return entry.limit if entry is not None else 0

    def demand(self, name: str) -> tuple[int, int]:
        """What is held of it, and what is wanted besides; less than nothing held: nobody knows yet."""
        if self._expected:
            return -1, 0
        entry = self._entries.get(name)
        if entry is None:
            return 0, 0
        return sum(entry.held.values()), sum(ask.wants + ask.hopes for ask in entry.asks.values())

    def again(self, name: str) -> list[Order]:
        """The share of it is another, or no more comes."""
        entry = self._entries.get(name)
        return self._settle(entry) if entry is not None else []

    # --- workers come and go --------------------------------------------------------------------------

    def join(self, worker: int) -> None:
        """A worker that holds nothing."""
        self._workers.add(worker)

    def expect(self, worker: int) -> None:
        """A worker that holds something nobody knows (the ledger is new): nothing is granted until it reports."""
        self._expected.add(worker)

    def report(self, worker: int, holdings: Iterable[Holding]) -> list[Order]:
        self._expected.discard(worker)
        self._workers.add(worker)
        for name, limit, backed, held in holdings:
            entry = self._entry(name)
            entry.limits[worker] = limit
            entry.backed = backed
            if held:
                entry.held[worker] = held
        return self._settle_all()

    def died(self, worker: int) -> list[Order]:
        """Its permits come back; those that are backed do with `buried`, or one by one with `released`."""
        expected = worker in self._expected
        self._expected.discard(worker)
        if worker not in self._workers and not expected:
            return []
        self._workers.discard(worker)
        self._dead.add(worker)
        for entry in self._entries.values():
            entry.forget(worker)
            if not entry.backed:
                entry.held.pop(worker, None)
        return self._settle_all()

    def released(self, worker: int, names: Iterable[str]) -> list[Order]:
        """One permit of each that a dead worker held is over."""
        orders: list[Order] = []
        for name in names:
            entry = self._entries.get(name)
            if worker in self._dead and entry is not None and worker in entry.held:
                _put(entry, worker, entry.held[worker] - 1)
                orders += self._settle(entry)
        return orders

    def buried(self, worker: int) -> list[Order]:
        """Nothing of a dead worker is left."""
        if worker not in self._dead:
            return []
        self._dead.discard(worker)
        for entry in self._entries.values():
            entry.held.pop(worker, None)
        return self._settle_all()

    # --- what workers say -----------------------------------------------------------------------------

    def lease(
        self,
        worker: int,
        name: str,
        *,
        limit: int,
        backed: bool = False,
        back: int = 0,
        wants: int = 0,
        hopes: int = 0,
        answers: int = 0,
        spare: int = 0,
    ) -> list[Order]:
        """`back` permits are given back (fewer than none: it has some that nobody has granted, from a time without
        a limit); it wants or hopes for so many more, besides what it has asked for already. A `limit` of 0: to
        this worker the counter has none any more."""
        if worker not in self._workers:
            return []  # what it says before its report is in the report
        entry = self._entry(name)
        entry.backed = backed
        if limit:
            entry.limits[worker] = limit
        else:
            entry.limits.pop(worker, None)
        if back:
            sought, owed = entry.told.get(worker, (False, 0))
            entry.told[worker] = (sought, max(0, owed - max(0, back)))
            _put(entry, worker, entry.held.get(worker, 0) - back)
        if wants or hopes:
            ask = entry.asks.setdefault(worker, _Ask())
            ask.wants = max(ask.wants, wants)
            ask.hopes += hopes
            if hopes:
                ask.question = 0
        if answers and answers == entry.question:
            entry.unanswered.discard(worker)
            entry.spare[worker] = spare
        return self._settle(entry)

    def look(self) -> list[Order]:
        """To be called about once a second: an ask that was there at the last two looks is an old one, and each of
        the others owes it a permit whatever its share. So nobody waits for ever behind one that keeps its
        worker's share to itself."""
        orders: list[Order] = []
        for entry in list(self._asked.values()):
            for ask in entry.asks.values():
                ask.looks += 1
            orders += self._settle(entry)
        return orders

    # --- deciding -------------------------------------------------------------------------------------

    def _entry(self, name: str) -> _Entry:
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = _Entry(name)
        return entry

    def _settle_all(self) -> list[Order]:
        return [order for entry in list(self._entries.values()) for order in self._settle(entry)]

    def _settle(self, entry: _Entry) -> list[Order]:
        """Brings one counter to rest: what can be granted is, and who must know something is told."""
        if self._expected:
            return []
        entry.take_limit()
        above = self.above
        if above is not None:
            entry.limit = above.share(entry.name, entry.configured)
        drafts: dict[int, Order] = {}

        def draft(worker: int) -> Order:
            return drafts.get(worker) or Order(worker, entry.name)

        for worker, count in self._grant(entry):
            drafts[worker] = draft(worker)._replace(granted=count)
        living = [worker for worker in entry.held if worker in self._workers]
        pending = bool(entry.asks) and above is not None and above.pending(entry.name, entry.configured)
        while not entry.unanswered:
            for worker in () if pending else self._refuse(entry):
                drafts[worker] = draft(worker)._replace(refused=True)
            for worker, count in self._surrender(entry):
                drafts[worker] = draft(worker)._replace(surrender=count)
            if all(ask.question for ask in entry.asks.values()):
                break
            for worker in self._question(entry, living):
                drafts[worker] = draft(worker)._replace(question=entry.question)
        excess = max(0, -entry.free)
        sought = excess > 0 or any(ask.wants for ask in entry.asks.values())
        sought = sought or (above is not None and above.sought(entry.name))
        debts = self._debts(entry, living)
        for worker in living:
            news = (sought, min(entry.held[worker], debts.get(worker, 0) + excess))
            if news != entry.told.get(worker, (False, 0)):
                entry.told[worker] = news
                drafts[worker] = draft(worker)
        if entry.over:
            self._entries.pop(entry.name, None)
        if entry.asks:
            self._asked[entry.name] = entry
        else:
            self._asked.pop(entry.name, None)
        orders = []
        for worker, order in drafts.items():
            sought, owed = entry.told.get(worker, (False, 0))
            orders.append(order._replace(sought=sought, owed=owed))
        return orders

    def _grant(self, entry: _Entry) -> Iterable[tuple[int, int]]:
        free = entry.free
        granted = []
        while free > 0 and entry.asks:
            worker, ask = next(iter(entry.asks.items()))
            count = ask.wants + ask.hopes
            others = len(entry.asks) - 1
            if others:
                count = min(count, max(1, free // (others + 1)))
            else:
                count = max(count, free // (2 * len(self._workers)))
            count = min(count, free)
            del entry.asks[worker]
            free -= count
            _put(entry, worker, entry.held.get(worker, 0) + count)
            granted.append((worker, count))
        return granted

    def _question(self, entry: _Entry, living: list[int]) -> list[int]:
        """Whom to ask for what they have to spare: all where somebody hopes, else those who did not know yet."""
        hoped = any(ask.hopes and not ask.question for ask in entry.asks.values())
        asked = living if hoped else [w for w in living if not entry.told.get(w, (False, 0))[0]]
        entry.question += 1
        entry.unanswered = set(asked)
        for ask in entry.asks.values():
            ask.question = ask.question or entry.question
        return asked

    def _refuse(self, entry: _Entry) -> list[int]:
        """Those whose hopes are over: everybody has answered."""
        refused = []
        for worker, ask in list(entry.asks.items()):
            if ask.hopes and ask.question:
                ask.hopes = 0
                refused.append(worker)
                if not ask.wants:
                    del entry.asks[worker]
        return refused

    def _surrender(self, entry: _Entry) -> list[tuple[int, int]]:
        """Who gives up what it only keeps in reserve: those that keep most, as much as is wanted."""
        wanted = sum(ask.wants for ask in entry.asks.values())
        spare, entry.spare = entry.spare, {}
        found = []
        for worker in sorted(spare, key=lambda w: -spare[w]):
            count = min(wanted, spare[worker])
            if count > 0 and worker in self._workers:
                wanted -= count
                found.append((worker, count))
        return found

    def _debts(self, entry: _Entry, living: list[int]) -> dict[int, int]:
        """What each holder owes to those below their share."""
        asks = {worker: ask for worker, ask in entry.asks.items() if ask.wants}
        if not asks:
            return {}
        share = entry.limit // len({*living, *asks})
        hungry = {w: min(a.wants, max(1, share) - entry.held.get(w, 0)) for w, a in asks.items()}
        hungry = {worker: max(0, count) for worker, count in hungry.items()}
        old = {worker for worker, ask in asks.items() if ask.looks > 1}
        debts = {}
        for worker in living:
            wanted = sum(hungry.values()) - hungry.get(worker, 0)
            debts[worker] = max(0, min(wanted, entry.held[worker] - share))
            if old - {worker}:
                debts[worker] = max(1, debts[worker])
        return debts


def _put(entry: _Entry, worker: int, count: int) -> None:
    if count < 0:
        raise AssertionError(f"{entry.name}: more was given back than was held")
    if count:
        entry.held[worker] = count
    else:
        entry.held.pop(worker, None)
        entry.told.pop(worker, None)  # who holds nothing owes nothing, and knows it
