"""Who is served next on one pool: first in, first out inside a tenant, tenants in turn.

A tenant whose cap is reached steps aside with all its waiters and comes back when a permit of the
counter that refused it is given back; it costs nothing in between.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from proxy.admission.accounts import Account, Counter, take_all

W = TypeVar("W")


class FairQueue(Generic[W]):
    """`on_free` is called when a tenant that had stepped aside may be served again."""

    __slots__ = ("_aside", "_on_free", "_size", "_turns")

    def __init__(self, on_free: Callable[[], None]) -> None:
        self._turns: OrderedDict[Account, deque[W]] = OrderedDict()
        self._aside: dict[Account, deque[W]] = {}
        self._on_free = on_free
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[W]:
        for waiters in [*self._turns.values(), *self._aside.values()]:
            yield from waiters

    def grantable(self) -> int:
        """How many waiters the caps would let through now; tenants at their cap step aside."""
        count = 0
        for account, waiters in list(self._turns.items()):
            room = len(waiters)
            for counter in account.server_counters():
                if counter.full:
                    self._step_aside(account, counter)
                    room = 0
                    break
                if counter.limit:
                    room = min(room, counter.limit - counter.used)
            count += room
        return count

    def push(self, account: Account, waiter: W) -> None:
        waiters = self._turns.get(account) or self._aside.get(account)
        if waiters is None:
            waiters = self._turns[account] = deque()
        waiters.append(waiter)
        account.waiting += 1
        self._size += 1

    def push_front(self, account: Account, waiter: W) -> None:
        """Puts back one that was taken and could not be served: it is the next, and so is its tenant."""
        waiters = self._turns.get(account)
        if waiters is None:
            waiters = self._turns[account] = deque()
        waiters.appendleft(waiter)
        self._turns.move_to_end(account, last=False)
        account.waiting += 1
        self._size += 1

    def remove(self, account: Account, waiter: W) -> None:
        for turns in (self._turns, self._aside):
            waiters = turns.get(account)
            if waiters is not None and waiter in waiters:
                waiters.remove(waiter)
                account.waiting -= 1
                self._size -= 1
                if not waiters:
                    del turns[account]
                return

    def take(self) -> tuple[W, tuple[Counter, ...]] | None:
        """The next waiter that may be served, and the permits taken for it."""
        while self._turns:
            account, waiters = next(iter(self._turns.items()))
            counters = account.server_counters()
            full = take_all(counters)
            if full is not None:
                self._step_aside(account, full)
                continue
            waiter = waiters.popleft()
            account.waiting -= 1
            self._size -= 1
            if waiters:
                self._turns.move_to_end(account)
            else:
                del self._turns[account]
            return waiter, counters
        return None

    def _step_aside(self, account: Account, full: Counter) -> None:
        self._aside[account] = self._turns.pop(account)

        def come_back() -> None:
            waiters = self._aside.pop(account, None)
            if waiters is not None:
                self._turns[account] = waiters
                self._on_free()

        full.when_free(come_back)
