"""One counter in the supervisor's ledger: who holds how many of its permits, who asks, what each is due and owes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from proxy.admission.apportion import Division, Wish

_SLACK = 1e-6
_MOST_CARRIED = 2.0  # permits that a worker may have had too many or too few in the past


class Ask:
    __slots__ = ("hopes", "looks", "question", "wants")

    def __init__(self) -> None:
        self.looks = 0
        self.wants = 0
        self.hopes = 0
        self.question = 0  # the one whose answers decide over the hopes; 0: not asked yet


class Entry:
    """One counter. `asks` is in order of arrival."""

    __slots__ = (
        "asks",
        "backed",
        "carried",
        "configured",
        "divided",
        "division",
        "held",
        "limit",
        "limits",
        "name",
        "question",
        "spare",
        "told",
        "unanswered",
        "wishes",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.configured = 0
        self.limit = 0  # of that, the share of this host
        self.backed = False
        self.limits: dict[int, int] = {}  # as each worker understands it
        self.held: dict[int, int] = {}
        self.asks: dict[int, Ask] = {}
        self.told: dict[int, tuple[bool, int]] = {}  # sought and owed as the worker knows them
        self.question = 0
        self.unanswered: set[int] = set()
        self.spare: dict[int, int] = {}
        self.wishes: dict[int, list[Wish]] = {}
        self.division: Division | None = None
        # By what was divided last over the fleet, which is the same most of the time, and what came of it.
        self.divided: tuple[object, dict[int, dict[str, float]]] | None = None
        self.carried: dict[int, float] = {}

    @property
    def free(self) -> int:
        return self.limit - sum(self.held.values())

    @property
    def over(self) -> bool:
        return not (self.held or self.asks)

    def take_limit(self, share: Callable[[str, int], int] | None) -> None:
        """Where workers disagree, because not all have heard of a change, the lowest holds; those that have
        nothing to do with the counter may not have heard of it and do not count. `share`: what of it is this host's."""
        self.limits = {w: n for w, n in self.limits.items() if w in self.held or w in self.asks}
        self.configured = min(self.limits.values(), default=self.configured)
        limit = share(self.name, self.configured) if share is not None else self.configured
        if limit != self.limit:
            self.limit, self.division = limit, None

    def forget(self, worker: int) -> None:
        for place in (self.limits, self.asks, self.told, self.spare, self.wishes, self.carried):
            place.pop(worker, None)
        self.unanswered.discard(worker)
        self.division = None

    def divide(self) -> Division | None:
        """By the wishes of all."""
        if self.division is None and self.wishes and self.limit:
            self.division = Division(self._all_wishes(), self.limit)
        return self.division

    def _all_wishes(self) -> dict[int, list[Wish]]:
        """Of a worker that has said none all that is known is how many it uses."""
        found = {w: self.wishes.get(w) or [Wish("", 1.0, n, 0.0)] for w, n in self.held.items()}
        return found | self.wishes

    def parts(self, others: Iterable[Sequence[Wish]]) -> dict[int, dict[str, float]]:
        """The part of its weight that a tenant has at each worker (see apportion.py). `others`: whose wishes other hosts
        have; each of them counts as one more worker, that has what it is due."""
        division = self.divide()
        if division is None:
            return {}
        hosts = {-number: list(own) for number, own in enumerate(others, 1) if own}
        if not hosts:
            return division.parts(self.held, just_now=True)
        known = self._all_wishes() | hosts, self.configured
        if self.divided is None or self.divided[0] != known:
            whole = Division(*known)
            # By and by each has what it is due (see claims.py).
            self.divided = known, whole.parts(whole.due())
        return self.divided[1]

    def due(self) -> dict[int, float]:
        """What each worker is to have, where somebody has said whose wishes it has."""
        division = self.divide()
        if division is None:
            return {}
        due = division.due()
        for worker, floor in division.floors.items():
            due[worker] = max(due[worker] + self.carried.get(worker, 0.0), floor)
        return due

    def carry(self) -> None:
        """To be called at each look."""
        division = self.divide()
        if division is not None and self.asks:
            for worker, due in division.due().items():
                more = self.carried.get(worker, 0.0) + due - self.held.get(worker, 0)
                self.carried[worker] = min(_MOST_CARRIED, max(-_MOST_CARRIED, more))
        else:
            self.carried.clear()

    def debts(self, living: list[int]) -> dict[int, int]:
        """What each holder owes to those below their share."""
        asks = {worker: ask for worker, ask in self.asks.items() if ask.wants}
        if not asks:
            return {}
        workers = {*living, *asks}
        due = self.due() if self.limit >= len(workers) else {}
        if due:
            debts = _by_due(self.held, living, {w: a.wants for w, a in asks.items()}, due)
        else:
            debts = {}
            share = self.limit // len(workers)
            hungry = {w: min(a.wants, max(1, share) - self.held.get(w, 0)) for w, a in asks.items()}
            hungry = {worker: max(0, count) for worker, count in hungry.items()}
            for worker in living:
                wanted = sum(hungry.values()) - hungry.get(worker, 0)
                debts[worker] = max(0, min(wanted, self.held[worker] - share))
        old = {worker for worker, ask in asks.items() if ask.looks > 1}
        for worker in living:
            if old - {worker}:
                debts[worker] = max(1, debts[worker])
        return debts

    def put(self, worker: int, count: int) -> None:
        if count < 0:
            raise AssertionError(f"{self.name}: more was given back than was held")
        if count:
            self.held[worker] = count
        else:
            self.held.pop(worker, None)
            self.told.pop(worker, None)  # who holds nothing owes nothing, and knows it


def _by_due(
    held: dict[int, int], living: list[int], wants: dict[int, int], due: dict[int, float]
) -> dict[int, int]:
    """Who is short of a whole permit, or has none, gets it from those that have most beyond what they are due."""
    wanted = 0
    for worker, count in wants.items():
        has = held.get(worker, 0)
        wanted += max(0, min(count, max(int(due.get(worker, 1.0) - has + _SLACK), 0 if has else 1)))
    debts = dict.fromkeys(living, 0)
    over = {
        worker: held[worker] - due.get(worker, 0.0)
        for worker in living
        if held[worker] > 1 or worker not in wants
    }
    without = sum(not held.get(worker) for worker in wants)
    while wanted > 0 and over:
        worker = max(over, key=lambda each: over[each])
        if over[worker] <= 0.0 and without <= 0:
            break
        without -= 1
        debts[worker] += 1
        over[worker] -= 1.0
        wanted -= 1
        if held[worker] - debts[worker] < 2 and worker in wants:
            del over[worker]
    return debts
