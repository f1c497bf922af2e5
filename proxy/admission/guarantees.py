"""Connections that a tenant, or a tier together, may always have of its cluster's.

Who has fewer than it is guaranteed and wants one more is entitled to it: it comes before all who are not, whatever
it has used. A pool keeps as many free for it as it has used at once of late (`Kept`), from when it first asks until it
has not asked for a while; what nobody has asked for is lent out, and comes back with the next transaction that ends.
"""

from __future__ import annotations

import math
from typing import Protocol

from proxy.admission.accounts import Account
from proxy.admission.turns import Rota

KEEP = 2.0  # seconds that a guarantee is kept free since it was last asked for


class Group(Protocol):
    """Waiters that have a guarantee together."""

    def update(self) -> None:
        """They have become entitled, or are not any more."""


class Guarantee:
    """`needed`: the most that was used at once of late."""

    __slots__ = ("_most", "_since", "amount", "groups", "keepers", "needed", "used")

    def __init__(self, amount: int) -> None:
        self.amount = amount
        self.used = 0
        self.needed = self._most = 1
        self._since = 0.0
        self.groups: dict[Group, None] = {}
        self.keepers: dict[Kept, None] = {}

    @property
    def free(self) -> int:
        return max(0, self.amount - self.used)

    @property
    def in_use(self) -> bool:
        return bool(self.used or self.groups or self.keepers)

    @property
    def kept(self) -> int:
        return max(0, min(self.amount, self.needed) - self.used)

    def use(self, count: int) -> None:
        """So many more connections, or fewer."""
        self._change(self.amount, self.used + count)

    def resize(self, amount: int) -> None:
        if amount != self.amount:
            self._change(amount, self.used)

    def look(self, now: float) -> None:
        """Forgets how many were needed once."""
        if now - self._since > KEEP:
            self._since = now
            before, self.needed, self._most = self.kept, self._most, max(1, self.used)
            self._tell(before)

    def _change(self, amount: int, used: int) -> None:
        before, kept = self.free, self.kept
        self.amount, self.used = amount, used
        if used > self._most:
            self._most = used
            self.needed = max(self.needed, used)
        free = self.free
        self._tell(kept)
        if bool(before) != bool(free):
            for group in list(self.groups):
                group.update()

    def _tell(self, before: int) -> None:
        for keeper in self.keepers:
            keeper.count += self.kept - before


class Kept:
    """How many connections of a pool are nobody's but those who are entitled to them."""

    __slots__ = ("_asked", "count")

    def __init__(self) -> None:
        self._asked: dict[Guarantee, float] = {}
        self.count = 0

    def ask(self, guarantee: Guarantee, now: float) -> None:
        if guarantee not in self._asked:
            guarantee.keepers[self] = None
            self.count += guarantee.kept
        self._asked[guarantee] = now

    def look(self, now: float) -> bool:
        """Forgets those that have not asked for long. Whether there are or were any."""
        for guarantee, asked in list(self._asked.items()):
            if now - asked > KEEP and not guarantee.used:
                del self._asked[guarantee], guarantee.keepers[self]
                self.count -= guarantee.kept
                return True
            guarantee.look(now)
        return bool(self._asked)


def of(rota: Rota, account: Account, most: int) -> Guarantee | None:
    """What the account is guaranteed of `most` connections, itself or with its tier."""
    share = account.guaranteed
    if not share:
        return None
    amount = min(most, int(share) if share >= 1 else math.ceil(share * most))
    guarantee = rota.guarantees.get(account.guarantor)
    if guarantee is None:
        guarantee = rota.guarantees[account.guarantor] = Guarantee(amount)
    else:
        guarantee.resize(amount)
    found: Guarantee = guarantee
    return found
