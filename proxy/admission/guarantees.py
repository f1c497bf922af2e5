"""Connections that a tenant, or a tier together, may always have of its cluster's.

Who has fewer than it is guaranteed and wants one more is entitled to it: it comes before all who are not, whatever
it has used. A pool keeps as many free for it as it has used at once of late (`Kept`), from when it first asks until it
has not asked for a while; what nobody has asked for is lent out, and comes back with the next transaction that ends.

What is guaranteed is a number of permits. In a process that is alone all of them are its own. Where several serve the
cluster, each is granted some (see lease.py), as many as there are in all: here it is entitled to no more than those. A
process holds on to what it needs and wants more while somebody waits who is not entitled; as a permit
stands for no connection, one that is owed to another process is paid at once.
"""

from __future__ import annotations

import math
from typing import Protocol

from proxy.admission.accounts import Account, Counter, Lender, Seeker
from proxy.admission.turns import Rota

KEEP = 2.0  # seconds that a guarantee is kept free since it was last asked for


class Group(Protocol):
    """Waiters that have a guarantee together."""

    def update(self) -> None:
        """They have become entitled, or are not any more."""


class _Wish(Seeker):
    """For one more permit of a guarantee."""

    __slots__ = ("guarantee",)

    def __init__(self, guarantee: Guarantee) -> None:
        super().__init__()
        self.guarantee = guarantee

    def free(self) -> None:
        self.guarantee.changed()


class Guarantee:
    """`needed`: the most that was used at once of late. `claimed`: how many were used and waited for here when that was
    counted last. `permits`: how many there are, and how many of those are this process's; in use there are those that it
    needs. `whose` it is: a tenant's account or a tier's."""

    __slots__ = (
        "_entitled", "_keeper", "_lender", "_most", "_since", "_wishes", "claimed", "groups", "keepers", "kept", "needed",
        "of_share", "of_those", "permits", "used", "whose",
    )  # fmt: skip

    def __init__(
        self, amount: int, name: str = "", lender: Lender | None = None, whose: object = None
    ) -> None:
        self.whose = whose
        self.permits = Counter(name, amount, lender=lender)
        self.permits.reserve = self
        self.of_share, self.of_those = 0.0, 0  # which amount that is of what
        self.used = 0
        self.needed = self._most = 1
        self.claimed = 0
        self.kept = 0
        self._entitled = False
        self._since = 0.0
        self._lender = lender
        self._wishes: list[_Wish] = []  # as many wait as permits are wanted
        self.groups: dict[Group, None] = {}
        self.keepers: dict[Kept, None] = {}
        self._keeper: Kept | None = None  # if there is no other
        self.changed()

    @property
    def amount(self) -> int:
        return self.permits.limit

    @property
    def free(self) -> int:
        return max(0, self.permits.allowance - self.used)

    @property
    def held(self) -> int:
        """How many connections of this process's are to be its: while somebody waits as many as are wanted, or where that
        was not counted yet half as many more as it has, so that others who must be told of it are told once."""
        return min(self.permits.allowance, max(self._wanted(), self.needed)) if self.in_use else 0

    def _wanted(self) -> int:
        if not self.groups:
            return self.used
        return max(self.used + max(1, self.used // 2), self.claimed)

    @property
    def in_use(self) -> bool:
        return bool(self.used or self.groups or self.keepers)

    def use(self, count: int) -> None:
        """So many more connections, or fewer."""
        self.used += count
        if self.used > self._most:
            self._most = self.used
            if self.used > self.needed:
                self.needed = self.used
        self.changed()

    def claim(self, count: int) -> None:
        """So many are used and waited for here."""
        if count != self.claimed:
            self.claimed = count
            self.changed()

    def resize(self, amount: int) -> None:
        if amount != self.amount:
            self.permits.limit = amount
            self.changed()

    def look(self, now: float) -> None:
        """Forgets how many were needed once."""
        if now - self._since > KEEP:
            self._since = now
            self.needed, self._most = self._most, max(1, self.used)
            self.changed()

    # --- who waits, and for whom some are kept free ---------------------------------------------------

    def join(self, group: Group) -> None:
        if group not in self.groups:
            self.groups[group] = None
            self.changed()

    def leave(self, group: Group) -> None:
        if group in self.groups:
            del self.groups[group]
            if not self.groups:
                self.claimed = 0
            self.changed()

    def keep(self, keeper: Kept) -> None:
        self.keepers[keeper] = None
        keeper.count += self.kept
        self._kept_by()

    def let_go(self, keeper: Kept) -> None:
        del self.keepers[keeper]
        keeper.count -= self.kept
        self._kept_by()

    def _kept_by(self) -> None:
        self._keeper = next(iter(self.keepers)) if len(self.keepers) == 1 else None
        self.changed()

    # --- the permits ----------------------------------------------------------------------------------

    def changed(self) -> None:
        """To be called whenever what is used, needed or granted has."""
        if self._lender is not None:
            self._claim()
        used, allowance, needed = self.used, self.permits.allowance, self.needed
        kept = (needed if needed < allowance else allowance) - used
        if kept < 0:
            kept = 0
        if kept != self.kept:
            self._keep(kept)
        if (used < allowance) != self._entitled:
            self._entitled = not self._entitled
            if self.groups:
                self._tell()

    def _keep(self, kept: int) -> None:
        more, self.kept = kept - self.kept, kept
        if self._keeper is not None:
            self._keeper.count += more
        else:
            for keeper in self.keepers:
                keeper.count += more

    def _tell(self) -> None:
        for group in list(self.groups):
            group.update()

    def _claim(self) -> None:
        permits = self.permits
        wanted = self._wanted()
        missing = min(wanted, permits.limit) - permits.allowance if self.groups else 0
        if self.keepers and self.needed > wanted:
            wanted = self.needed
        before, permits.used = permits.used, min(wanted, permits.allowance)
        if permits.used < before and permits.attended and self._lender is not None:
            self._lender.touch(permits)
        if missing > 0 or self._wishes:
            self._ask(missing)

    def _ask(self, missing: int) -> None:
        wishes = self._wishes
        while len(wishes) < missing:
            wishes.append(_Wish(self))
        for number, wish in enumerate(wishes):
            if number >= missing:
                self.permits.forget(wish)
            elif wish.counter is None:
                self.permits.when_free(wish)

    def spare(self) -> int:
        return 0  # what is not needed goes back anyway

    def demand(self) -> dict[Account, int]:
        return {}  # it is its tenants' alone, and nobody's turn

    def surrender(self, count: int) -> None:
        permits, lender = self.permits, self._lender
        if lender is not None:
            for _ in range(min(count, permits.owed, permits.allowance)):
                lender.repay(permits)
            self.changed()


class Kept:
    """How many connections of a pool are nobody's but those who are entitled to them."""

    __slots__ = ("_asked", "_last", "_last_at", "count")

    def __init__(self) -> None:
        self._asked: dict[Guarantee, float] = {}
        self._last: Guarantee | None = None  # that was asked; the next to ask most often is of it, too
        self._last_at = 0.0
        self.count = 0

    def asked(self, rota: Rota, account: Account, most: int, now: float) -> Guarantee | None:
        """What the account is guaranteed of `most` connections, of which it wants one now."""
        last = self._last
        if (
            last is not None
            and last.whose is account.guarantor
            and last.of_share == account.guaranteed
            and last.of_those == most
        ):
            self._last_at = now
            return last
        guarantee = of(rota, account, most)
        if guarantee is not None:
            self.ask(guarantee, now)
        return guarantee

    def ask(self, guarantee: Guarantee, now: float) -> None:
        if guarantee is not self._last:
            self._note()
            if guarantee not in self._asked:
                guarantee.keep(self)
                self._asked[guarantee] = now
            self._last = guarantee
        self._last_at = now

    def _note(self) -> None:
        if self._last is not None:
            self._asked[self._last] = self._last_at
            self._last = None

    def look(self, now: float) -> bool:
        """Forgets those that have not asked for long. Whether there are or were any."""
        self._note()
        for guarantee, asked in list(self._asked.items()):
            if now - asked > KEEP and not guarantee.used:
                del self._asked[guarantee]
                guarantee.let_go(self)
                return True
            guarantee.look(now)
        return bool(self._asked)


def of(rota: Rota, account: Account, most: int) -> Guarantee | None:
    """What the account is guaranteed of `most` connections, itself or with its tier."""
    share = account.guaranteed
    if not share:
        return None
    guarantee: Guarantee | None = rota.guarantees.get(account.guarantor)
    if guarantee is not None and guarantee.of_share == share and guarantee.of_those == most:
        return guarantee
    amount = min(most, int(share) if share >= 1 else math.ceil(share * most))
    if guarantee is None:
        if not amount:
            return None
        lender = account.servers.lender
        guarantee = rota.guarantees[account.guarantor] = Guarantee(
            amount, _name(rota, account), lender, account.guarantor
        )
    else:
        guarantee.resize(amount)
    guarantee.of_share, guarantee.of_those = share, most
    return guarantee


def _name(rota: Rota, account: Account) -> str:
    tier = account.tier
    whose = f"tier {tier.tier.name}" if account.guarantor is tier else f"tenant {account.tenant.name}"
    return f"{rota.name} guaranteed to {whose}"
