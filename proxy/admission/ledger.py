"""The supervisor's ledger: how many permits of each named counter every worker holds, and who is to have the next.

A permit is free, or held by one worker, or on its way there (and counts as held already), so that the sum of what
is held exceeds a limit never, but while a limit that was lowered below it is being reached. Workers say what
they want and give back (`lease`); all that the ledger wants of them is an Order.

Asks are served first come, first served; one that is alone gets a chunk, so that a worker seldom asks while there
is plenty. What is idle in one worker goes to another that wants it: holders are told that permits are `sought`
and give back what they do not use, now and from then on. Where all are in use they are shared out: a worker
below its share is owed by those above theirs; where there are fewer permits than workers that want one,
each is owed for as long as somebody has none, so they go round. A holder gives back what it owes although it has
waiters of its own. Shares are equal, or where workers say whose wishes they have (see apportion.py), what
their tenants are due. What is less than a permit is carried over from look to look, until it makes one.

An ask that only hopes (a login) is refused once all holders have answered that they have none to spare, and whoever is
`above` that nothing more comes: where hosts share a limit, this one's is its share, which may change. Permits
that stand for something outside of the worker (`backed`) stay held when it dies until they are said to be over.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from proxy.admission.apportion import Wish
from proxy.admission.claims import together
from proxy.admission.entry import Ask, Entry


class Above(Protocol):
    """Where a host has its share of each limit from (see stakes.py)."""

    def share(self, name: str, limit: int) -> int: ...

    def pending(self, name: str, limit: int) -> bool:
        """More is wanted than there is. False: nothing is to be hoped for."""

    def sought(self, name: str) -> bool:
        """By other hosts."""

    def wishes(self, name: str) -> list[list[Wish]]:
        """Of other hosts that seek it, each host's."""


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


class Ledger:
    """Workers are numbers that are never used twice."""

    __slots__ = ("_asked", "_dead", "_divided", "_entries", "_expected", "_workers", "above")

    def __init__(self) -> None:
        self.above: Above | None = None
        self._asked: dict[str, Entry] = {}  # those of the entries that have asks
        self._entries: dict[str, Entry] = {}
        self._workers: set[int] = set()
        self._expected: set[int] = set()
        self._dead: set[int] = set()
        self._divided: dict[tuple[int, str], dict[str, float]] = {}  # the parts that each worker knows

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

    def wishes(self, name: str) -> list[Wish]:
        """Whose wishes all workers have of it, each tenant once; nothing where nobody has said."""
        entry = self._entries.get(name)
        return together(wish for own in entry.wishes.values() for wish in own) if entry is not None else []

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
            entry.division = None
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
                entry.put(worker, entry.held[worker] - 1)
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
        wishes: Iterable[Wish] | None = None,
        served: bool = False,
    ) -> list[Order]:
        """`back` permits are given back (fewer than none: it has some that nobody has granted, from a time without
        a limit); it wants or hopes for so many more, besides what it has asked for already. A `limit` of 0: to
        this worker the counter has none any more. `wishes` are whose these are, if others than before;
        `served`: some that waited have had their turn there."""
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
            entry.put(worker, entry.held.get(worker, 0) - back)
        if wants or hopes:
            ask = entry.asks.setdefault(worker, Ask())
            ask.wants = max(ask.wants, wants)
            ask.hopes += hopes
            if hopes:
                ask.question = 0
        if wishes is not None:
            entry.division = None
            entry.wishes.pop(worker, None)
            if found := [*wishes]:
                entry.wishes[worker] = found
        if served and entry.held.get(worker) and worker in entry.asks:
            entry.asks[worker].looks = 0
        if answers and answers == entry.question:
            entry.unanswered.discard(worker)
            entry.spare[worker] = spare
        return self._settle(entry)

    def look(self) -> list[Order]:
        """To be called about once a second: an ask that was there at the last two looks is an old one, and each of
        the others owes it a permit whatever its share. So nobody waits for ever behind one that keeps its
        worker's share to itself. One whose waiters are served in turn, though slowly, is none."""
        orders: list[Order] = []
        for entry in list(self._entries.values()):
            if entry.wishes:
                entry.carry()
                entry.division = None  # what is known of those who say nothing has changed
        for entry in list(self._asked.values()):
            for ask in entry.asks.values():
                ask.looks += 1
            orders += self._settle(entry)
        return orders

    def parts(self) -> list[tuple[int, str, dict[str, float]]]:
        """To be called after each look: what is new of the parts of their weights that tenants have at each worker."""
        now: dict[tuple[int, str], dict[str, float]] = {}
        for name, entry in self._asked.items():
            others = self.above.wishes(name) if self.above is not None else []
            for worker, parts in entry.parts(others).items():
                if worker in entry.wishes:
                    now[worker, name] = parts
        before, self._divided = self._divided, now
        return [
            (*whose, now.get(whose, {}))
            for whose in before.keys() | now.keys()
            if now.get(whose, {}) != before.get(whose, {}) and whose[0] in self._workers
        ]

    # --- deciding -------------------------------------------------------------------------------------

    def _entry(self, name: str) -> Entry:
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = Entry(name)
        return entry

    def _settle_all(self) -> list[Order]:
        return [order for entry in list(self._entries.values()) for order in self._settle(entry)]

    def _settle(self, entry: Entry) -> list[Order]:
        """Brings one counter to rest: what can be granted is, and who must know something is told."""
        if self._expected:
            return []
        above = self.above
        entry.take_limit(above.share if above is not None else None)
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
        debts = entry.debts(living)
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

    def _grant(self, entry: Entry) -> Iterable[tuple[int, int]]:
        free = entry.free
        granted = []
        due = entry.due() if free > 0 and len(entry.asks) > 1 else {}
        while free > 0 and entry.asks:
            worker = next(iter(entry.asks))
            if due:
                worker = max(entry.asks, key=lambda each: due.get(each, 1.0) - entry.held.get(each, 0))
            ask = entry.asks[worker]
            count = ask.wants + ask.hopes
            others = len(entry.asks) - 1
            if others:
                count = min(count, max(1, free // (others + 1)))
            else:
                count = max(count, free // (2 * len(self._workers)))
            count = min(count, free)
            del entry.asks[worker]
            free -= count
            entry.put(worker, entry.held.get(worker, 0) + count)
            granted.append((worker, count))
        return granted

    def _question(self, entry: Entry, living: list[int]) -> list[int]:
        """Whom to ask for what they have to spare: all where somebody hopes, else those who did not know yet."""
        hoped = any(ask.hopes and not ask.question for ask in entry.asks.values())
        asked = living if hoped else [w for w in living if not entry.told.get(w, (False, 0))[0]]
        entry.question += 1
        entry.unanswered = set(asked)
        for ask in entry.asks.values():
            ask.question = ask.question or entry.question
        return asked

    def _refuse(self, entry: Entry) -> list[int]:
        """Those whose hopes are over: everybody has answered."""
        refused = []
        for worker, ask in list(entry.asks.items()):
            if ask.hopes and ask.question:
                ask.hopes = 0
                refused.append(worker)
                if not ask.wants:
                    del entry.asks[worker]
        return refused

    def _surrender(self, entry: Entry) -> list[tuple[int, int]]:
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
