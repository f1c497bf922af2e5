"""What tenants want of one counter in this process, as the ledger is to know it while it is scarce (see apportion.py).

Who waits changes with each transaction, and what is wanted does not. So what a tenant wants is the most that it used
and waited for at once within a second, and is said again when it has changed by more than a little. Some tenants are
named, those with a guarantee and of most weight before others, so that all workers name the same; the others are added up.
"""

from __future__ import annotations

from typing import NamedTuple

from proxy.admission.accounts import Account, Counter
from proxy.admission.apportion import Wish
from proxy.admission.guarantees import Guarantee
from proxy.admission.lines import Refused

NAMED = 128
_EVERY = 0.1  # seconds from one look to the next; as many more as there are tenants
_A_TENANT = 0.0002
_MEMORY = 1.0
_NEWS = 0.25  # a change by less than this part is none


def demand(counter: Counter) -> dict[Account, int]:
    """How many each tenant uses and waits for, of those that are known here to want some."""
    if counter.reserve is not None:
        return counter.reserve.demand()
    found: dict[Account, int] = {}
    for seeker in counter.seekers():
        if isinstance(seeker, Refused):
            account = seeker.line.account
            found[account] = found.get(account, account.servers.used) + seeker.waiting
    return found


class _Wanted(NamedTuple):
    account: Account | None  # None: whoever has this guarantee and is not here now
    wish: Wish
    since: float


class Wishes:
    """`told`: what the ledger knows."""

    __slots__ = ("_next", "_said_at", "_served", "_wanted", "told")

    def __init__(self) -> None:
        self.told: dict[str, Wish] = {}
        self._wanted: dict[str, _Wanted] = {}
        self._next = self._said_at = 0.0
        self._served = 0.0  # the round of who was served last

    def due(self, counter: Counter, now: float) -> bool:
        return now >= self._next and bool(counter.attended or self.told)

    def news(self, counter: Counter, now: float) -> list[Wish] | None:
        """What the ledger does not know yet."""
        if not self.due(counter, now):
            return None
        if counter.attended:
            self._look(counter, now)
        self._next = now + _EVERY + _A_TENANT * len(self._wanted)
        self._wanted = {name: each for name, each in self._wanted.items() if now - each.since <= _MEMORY}
        fresh = self._named()
        served = counter.rota is not None and counter.rota.now != self._served
        if not (_differ(self.told, fresh) or (fresh and served and now - self._said_at > _MEMORY)):
            return None
        if not fresh:
            self.divided(counter, {})
        self.told, self._said_at = fresh, now
        return list(fresh.values())

    def served(self, counter: Counter) -> bool:
        """Whether somebody has had a turn since this was asked last."""
        now = counter.rota.now if counter.rota is not None else 0.0
        before, self._served = self._served, now
        return now != before

    def say_again(self) -> None:
        self.told = {}
        self._next = 0.0

    def divided(self, counter: Counter, parts: dict[str, float]) -> None:
        """The part of its weight that each tenant has here."""
        rota = counter.rota
        if rota is not None:
            for name, wanted in self._wanted.items():
                if wanted.account is not None:
                    rota.standing(wanted.account).part = parts.get(name, 1.0)

    def _look(self, counter: Counter, now: float) -> None:
        found = demand(counter)
        guarantees = dict(counter.rota.guarantees) if counter.rota is not None else {}
        together: dict[object, int] = {}
        for account, count in found.items():
            together[account.guarantor] = together.get(account.guarantor, 0) + count
        for guarantor, each in guarantees.items():
            each.claim(together.get(guarantor, 0))
        for account, count in found.items():
            guarantee: Guarantee | None = guarantees.get(account.guarantor)
            floor = guarantee.held * count / together[account.guarantor] if guarantee is not None else 0.0
            self._want(account, Wish(account.tenant.name, account.tier.tier.weight, count, floor), now)
        remembered = {
            each.account.guarantor
            for each in self._wanted.values()
            if each.account is not None and now - each.since <= _MEMORY
        }
        for guarantor, guarantee in guarantees.items():
            if guarantor in remembered:  # what is guaranteed is said once: of those who want it, if any do
                self._wanted.pop(guarantee.permits.name, None)
            elif guarantee.held:
                wish = Wish(guarantee.permits.name, 1.0, guarantee.held, guarantee.held)
                self._want(None, wish, now)

    def _want(self, account: Account | None, wish: Wish, now: float) -> None:
        before = self._wanted.get(wish.tenant)
        if before is None or wish.wanted >= before.wish.wanted or now - before.since > _MEMORY:
            self._wanted[wish.tenant] = _Wanted(account, wish, now)
        elif wish.floor != before.wish.floor:
            self._wanted[wish.tenant] = before._replace(wish=before.wish._replace(floor=wish.floor))

    def _named(self) -> dict[str, Wish]:
        wishes = [wanted.wish for wanted in self._wanted.values()]
        if len(wishes) > NAMED:
            wishes.sort(key=lambda wish: (not wish.floor, -wish.weight, wish.tenant))
            others = wishes[NAMED:]
            del wishes[NAMED:]
            weight, count, floor = (sum(column) for column in list(zip(*others, strict=True))[1:])
            wishes.append(Wish("", weight, count, floor))
        return {wish.tenant: wish for wish in wishes}


def _differ(one: dict[str, Wish], two: dict[str, Wish]) -> bool:
    if one.keys() != two.keys():
        return True
    return any(
        abs(now.wanted - before.wanted) > _NEWS * before.wanted
        or now.weight != before.weight
        or abs(now.floor - before.floor) >= 0.5
        for before, now in zip(one.values(), (two[name] for name in one), strict=True)
    )
