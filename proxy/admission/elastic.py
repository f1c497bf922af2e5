"""Caps of tenants that move: between `min_connections` and `max_connections`, with what the tenant asks and the cluster has.

A tenant begins with its minimum. Whose transactions wait for nothing but its own cap for a look or two (a twentieth of a
second each) gets half as much again, at least one more: what a burst of a few milliseconds asks is done one after
another on the connections that are there, and what goes on is given room within a second. What it has not had in use
for some seconds is taken back. So pools open what tenants ask together and not what each of them once asked.

While others wait for the cluster's connections nobody grows beyond what its tier's weight is worth among those who use or
want some (see turns.py for who is served then), or beyond what is guaranteed to it if that is more.

Of several processes each moves its own part of a tenant's cap, at least its minimum; together they never have more than
`max_connections`, which is leased (see ledger.py).
"""

from __future__ import annotations

from typing import Protocol

from proxy.admission.accounts import UNLIMITED, Account, Accounts, Counter

KEEP = 5  # seconds for which what is not used is kept


class Room(Protocol):
    """What is known of the clusters' connections."""

    def crowded(self, cluster: str) -> bool:
        """Somebody waits for one."""

    def connections(self, cluster: str) -> int:
        """How many there may be."""

    def guaranteed(self, account: Account) -> int:
        """How many of them are, to it or to its tier."""


class _Cap:
    """`most` is the largest number in use since the cap was last looked at for that."""

    __slots__ = ("account", "least", "looks", "most")

    def __init__(self, account: Account) -> None:
        self.account = account
        self.least = 0
        self.looks = 0  # that it has been waited for without a break
        self.most = 0


class Elastic:
    __slots__ = ("_asking", "_caps", "_grown", "_room", "_seconds", "_weights")

    def __init__(self, room: Room) -> None:
        self._room = room
        self._caps: dict[Counter, _Cap] = {}
        self._asking: dict[Counter, None] = {}
        self._grown: dict[Counter, None] = {}
        self._weights: dict[
            str, int
        ] = {}  # of those who use or want something, by cluster, while anybody asks
        self._seconds = 0

    def refused(self, counter: Counter) -> None:
        """Somebody waits for it."""
        self._asking[counter] = None

    def look(self, accounts: Accounts | None = None) -> None:
        """To be called some twenty times a second, and about once with the accounts."""
        if accounts is not None:
            self._follow(accounts)
        for counter in self._grown:
            cap = self._caps[counter]
            cap.most = max(cap.most, counter.used)
        for counter in list(self._asking):
            cap = self._caps[counter]
            if not counter.waited_for:
                del self._asking[counter]
                cap.looks = 0
                continue
            cap.looks += 1
            if cap.looks > 1 and counter.wish < counter.limit and self._may_grow(cap, counter):
                want(counter, min(counter.limit, counter.wish + max(1, counter.wish // 2)))
                self._grown[counter] = None

    def _may_grow(self, cap: _Cap, counter: Counter) -> bool:
        cluster = cap.account.tenant.cluster
        if not self._room.crowded(cluster) or counter.wish < self._room.guaranteed(cap.account):
            return True
        weights, weight = self._weights.get(cluster, 0), cap.account.tier.tier.weight
        return 0 < counter.wish * weights < self._room.connections(cluster) * weight

    def _follow(self, accounts: Accounts) -> None:
        """Whose caps move at all, and which have more than they use."""
        self._weights = {}
        for account in accounts if self._asking else ():
            if account.servers.used or account.waiting:
                cluster = account.tenant.cluster
                self._weights[cluster] = self._weights.get(cluster, 0) + account.tier.tier.weight
        caps, self._caps = self._caps, {}
        for account in accounts.moving:
            counter, least = account.servers, account.limits.min_connections or 0
            if not 0 < least < counter.limit:
                continue
            cap = self._caps[counter] = caps.pop(counter) if counter in caps else _Cap(account)
            if cap.least != least:
                cap.least = least
                counter.refused = self.refused
                want(counter, least)
                if counter.waited_for:
                    self.refused(counter)
        for counter in caps:  # of tenants that are gone, or whose caps move no more
            self._asking.pop(counter, None)
            self._grown.pop(counter, None)
            counter.refused = None
            want(counter, UNLIMITED)
        self._seconds += 1
        if self._seconds % KEEP == 0:
            self._shrink()

    def _shrink(self) -> None:
        for counter in list(self._grown):
            cap = self._caps[counter]
            cap.most, most = counter.used, max(cap.most, counter.used)
            if counter.wish > max(cap.least, most):
                want(counter, max(cap.least, most))
            if counter.wish <= cap.least:
                del self._grown[counter]


def want(counter: Counter, wish: int) -> None:
    """No more than that are to be taken here at once."""
    counter.wish = wish
    if counter.lender is None:
        counter.allowance = min(counter.limit or UNLIMITED, wish)
    else:
        counter.lender.touch(counter)
    if counter.waited_for and not counter.full:
        counter.wake()
