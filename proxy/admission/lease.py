"""A worker's side of the ledger: what it has been granted of each shared counter, what it asks for, what it returns.

A counter that is full and waited for asks for more; who only hopes (a login) waits for the answer. What is idle
goes back when others seek it, what is owed goes back as soon as it comes free. All that was touched in one turn
of the loop is said in one message (`settle`), and nothing is said as long as what was granted suffices.

A permit that came for somebody who waits is kept for a while although others seek it, since its waiter may need
something else besides (its turn in the pool, a connection being opened, a permit of another counter). If it
was not used in that time it goes back, and the next is kept for twice as long: two workers that each hold
what the other needs thus do not exchange them for ever. The times are drawn by lot for the same reason.

Of what tenants share (a counter with a rota) the ledger is also told who wants how much of it here (see apportion.py):
while it is scarce, and as seldom as is good enough.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol, runtime_checkable

from proxy.admission.accounts import UNLIMITED, Counter, Hope
from proxy.admission.apportion import Wish
from proxy.admission.ledger import Holding, Order
from proxy.admission.wishing import Wishes

_PATIENCE = 0.02  # seconds for which a permit is kept for its waiter
_LONGEST_PATIENCE = 2.0
_MORE = 2  # times what was asked for that the first wants alone, from which on it is asked again


class Told(NamedTuple):
    """What the ledger is told of one counter (see Ledger.lease)."""

    name: str
    limit: int
    backed: bool
    back: int
    wants: int
    hopes: int
    answers: int
    spare: int
    wishes: list[Wish] | None = None  # if they are not as they were
    served: bool = False  # somebody who waited for it here, since this was last said


@runtime_checkable
class Several(Protocol):
    """A seeker that may take more than one."""

    def wants(self) -> int: ...


class _Lease:
    __slots__ = (
        "asked", "back", "counter", "hopes", "kept", "kept_until", "limit_told", "patience", "question",
        "sent_hopes", "unused", "wishes",
    )  # fmt: skip

    def __init__(self, counter: Counter) -> None:
        self.counter = counter
        self.back = 0  # given up, but not said yet
        self.asked = 0
        self.hopes: list[Hope] = []
        self.sent_hopes: list[Hope] = []
        self.question = 0
        self.kept = 0
        self.kept_until = 0.0
        self.patience = _PATIENCE
        self.limit_told = 0
        self.unused = False  # at the last look
        self.wishes = Wishes()

    @property
    def at_rest(self) -> bool:
        counter = self.counter
        held = counter.allowance if counter.limit else 0
        return not (held or self.back or self.asked or self.hopes or self.sent_hopes or self.question)


class Leases:
    """`later(seconds)` is to see to it that `settle` is called then (0: when the present callback is over)."""

    __slots__ = ("_keeping", "_later", "_leases", "_scarce", "_touched")

    def __init__(self, later: Callable[[float], None]) -> None:
        self._later = later
        self._leases: dict[str, _Lease] = {}
        self._touched: dict[_Lease, None] = {}
        self._scarce: dict[str, _Lease] = {}  # what tenants share
        self._keeping: dict[_Lease, None] = {}  # something that others want, for a while

    # --- what counters ask ----------------------------------------------------------------------------

    def touch(self, counter: Counter) -> None:
        self._touch(self._lease(counter))

    def repay(self, counter: Counter) -> None:
        counter.owed -= 1
        counter.allowance -= 1
        self._lease(counter).back += 1

    def limited(self, counter: Counter, before: int) -> None:
        if not counter.limit:
            lease = self._lease(counter)
            lease.back += counter.allowance
            counter.allowance = UNLIMITED
            counter.sought, counter.owed = False, 0
            self._serve(lease)
            counter.wake()
        elif not before:
            counter.allowance = counter.used
            if not counter.used:
                return  # nobody needs to know of it yet
            self._lease(counter).back -= counter.used
        elif counter.name not in self._leases:
            return
        self._touch(self._lease(counter))

    def hope(self, counter: Counter, hope: Hope) -> None:
        lease = self._lease(counter)
        lease.hopes.append(hope)
        self._touch(lease)

    def _lease(self, counter: Counter) -> _Lease:
        lease = self._leases.get(counter.name)
        if lease is None:
            lease = self._leases[counter.name] = _Lease(counter)
        if lease.counter is not counter:  # one that was forgotten, or was made for an order that came late
            before, lease.counter = lease.counter, counter
            idle = before.allowance - before.used if before.limit else 0
            before.allowance -= max(0, idle)
            lease.back += max(0, idle)
        return lease

    def _touch(self, lease: _Lease) -> None:
        if lease.counter.rota is not None:
            self._scarce[lease.counter.name] = lease
        if not self._touched:
            self._later(0.0)
        self._touched[lease] = None

    # --- what the ledger wants ------------------------------------------------------------------------

    def obey(self, orders: Iterable[Order], now: float) -> None:
        for order in orders:
            lease = self._leases.get(order.name)
            if lease is None:
                lease = self._leases[order.name] = _Lease(Counter(order.name))  # forgotten: all goes back
            self._obey(lease, order, now)
            self._touch(lease)

    def _obey(self, lease: _Lease, order: Order, now: float) -> None:
        counter = lease.counter
        lease.question = order.question or lease.question
        if not counter.limit:
            lease.back += order.granted
            return
        counter.allowance += order.granted
        counter.sought, counter.owed = order.sought, order.owed
        counter.attend()
        if order.granted or order.refused:
            sent, lease.sent_hopes = lease.sent_hopes, []
            if order.granted:
                lease.hopes = sent + lease.hopes
                self._serve(lease)
            else:
                for hope in sent:
                    hope.refused()
        if order.granted:
            lease.asked = 0
            waited = _wanted(counter)
            if waited and not counter.full:
                counter.wake()
            lease.kept = min(waited, max(0, counter.allowance - counter.used))
            if lease.kept:
                lease.kept_until = now + lease.patience * random.uniform(1.0, 2.0)  # noqa: S311
            else:
                lease.patience = _PATIENCE
        wanted = max(order.surrender, counter.owed - max(0, counter.allowance - counter.used))
        if wanted > 0 and counter.reserve is not None:
            counter.reserve.surrender(wanted)

    def _serve(self, lease: _Lease) -> None:
        """Permits for those who hope, as far as there are."""
        counter = lease.counter
        while lease.hopes and not counter.full:
            counter.used += 1
            if not lease.hopes.pop(0).granted():
                counter.used -= 1

    # --- what is said ---------------------------------------------------------------------------------

    def settle(self, now: float) -> list[Told]:
        """All that there is to say."""
        touched = self._touched | self._keeping
        self._touched, self._keeping = {}, {}
        return [told for lease in touched if (told := self._settle(lease, now)) is not None]

    def _settle(self, lease: _Lease, now: float) -> Told | None:
        counter = lease.counter
        self._serve(lease)
        if counter.limit:
            self._return_idle(lease, now)
        wants = max(0, min(_wanted(counter), counter.wish - counter.allowance)) if counter.full else 0
        asks = wants and (lease.back or _first_wants(counter) >= _MORE * lease.asked)
        hopes = 0 if lease.sent_hopes else len(lease.hopes)
        wishes = lease.wishes.news(counter, now) if counter.rota is not None else None
        said = lease.back or lease.question or asks or hopes or lease.limit_told != self._limit(lease)
        if not said and wishes is None:
            return None
        if hopes:
            lease.sent_hopes, lease.hopes = lease.hopes, []
        if wants:
            lease.asked = max(wants, lease.asked)
        spare = counter.reserve.spare() if lease.question and counter.reserve is not None else 0
        told = Told(
            counter.name, counter.limit, counter.backed, lease.back, wants, hopes, lease.question, spare, wishes,
            wishes is not None and lease.wishes.served(counter),
        )  # fmt: skip
        lease.limit_told = counter.limit
        lease.back = lease.question = 0
        return told

    def _limit(self, lease: _Lease) -> int:
        """What the ledger should know: nothing of a counter of which nothing is held and nothing wanted."""
        return lease.limit_told if lease.at_rest else lease.counter.limit

    def _return_idle(self, lease: _Lease, now: float) -> None:
        counter = lease.counter
        over = counter.allowance - max(counter.wish, counter.used)
        if over > 0:
            counter.allowance -= over
            lease.back += over
        idle = counter.allowance - counter.used
        if idle <= 0:
            if lease.kept:
                lease.kept, lease.patience = 0, _PATIENCE  # it has been used
        elif counter.owed or counter.sought or lease.question:
            kept = min(lease.kept, idle)
            if kept and now >= lease.kept_until:
                lease.patience = min(2 * lease.patience, _LONGEST_PATIENCE)
                lease.kept = kept = 0
            elif kept and (counter.owed or counter.sought):
                self._later(lease.kept_until - now)
                self._keeping[lease] = None
            count = idle - kept if counter.sought or lease.question else min(idle - kept, counter.owed)
            counter.allowance -= count
            counter.owed = max(0, counter.owed - count)
            lease.back += count
        if not counter.allowance:
            counter.sought, counter.owed = False, 0  # who holds nothing owes nothing
        counter.attend()

    # --- from time to time ----------------------------------------------------------------------------

    def look(self, now: float, unused: bool = False) -> None:
        """To be called some times a second: of what is scarce there may be something to say. `unused`: and what nobody
        uses is to go back."""
        for name, lease in list(self._scarce.items()):
            if lease.wishes.due(lease.counter, now):
                self._touch(lease)
            elif not (lease.counter.attended or lease.wishes.told):
                del self._scarce[name]
        if unused:
            self.return_unused()

    def divided(self, name: str, parts: dict[str, float]) -> None:
        """Which part of their weight tenants have here (see apportion.py)."""
        lease = self._leases.get(name)
        if lease is not None:
            lease.wishes.divided(lease.counter, parts)

    def return_unused(self) -> None:
        """What was not used at two looks goes back, and what nobody uses is forgotten."""
        for name, lease in list(self._leases.items()):
            counter = lease.counter
            unused = not (counter.used or counter.waiting or lease.hopes or lease.sent_hopes)
            if unused and lease.unused:
                if counter.limit and counter.allowance:
                    lease.back += counter.allowance
                    counter.allowance = 0
                    self._touch(lease)
                elif lease.at_rest and lease not in self._touched:
                    del self._leases[name]
                    self._scarce.pop(name, None)
            lease.unused = unused

    def sought(self) -> list[Counter]:
        """The counters of which others want something, and whose permits may be kept in reserve."""
        return [
            lease.counter
            for lease in self._leases.values()
            if (lease.counter.sought or lease.counter.owed) and lease.counter.reserve is not None
        ]

    def report(self) -> list[Holding]:
        """What is held, for a ledger that knows nothing; all that was said or heard before is void."""
        holdings = []
        for lease in self._leases.values():
            counter = lease.counter
            lease.back = lease.question = 0
            lease.asked = 0
            lease.wishes.say_again()
            lease.hopes, lease.sent_hopes = lease.sent_hopes + lease.hopes, []
            counter.sought, counter.owed = False, 0
            counter.attend()
            if counter.limit and counter.allowance:
                holdings.append(Holding(counter.name, counter.limit, counter.backed, counter.allowance))
                lease.limit_told = counter.limit
            else:
                lease.limit_told = 0
            if counter.waiting or lease.hopes:
                self._touch(lease)
        return holdings


def _wanted(counter: Counter) -> int:
    """By all that wait for it. Only of the first is it asked whether it wants several: it comes before the others."""
    return counter.waiting - 1 + _first_wants(counter) if counter.waited_for else 0


def _first_wants(counter: Counter) -> int:
    first = counter.first
    if isinstance(first, Several):
        return first.wants()
    return 1 if first is not None else 0
