"""Who is served next on one pool: first in, first out inside a tenant, tenants in turn.

A tenant whose cap is reached steps aside with all its waiters and comes back when a permit of the
counter that refused it is given back; it costs nothing in between. So does a user inside its tenants.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from proxy.admission.accounts import Account, Counter, UserAccount, take_all

W = TypeVar("W")


class _Line(Generic[W]):
    """The waiters of one tenant. `users` are those that may be served, each with its own in the order of
    their numbers, `aside` those at their cap."""

    __slots__ = ("aside", "users")

    def __init__(self) -> None:
        self.users: dict[UserAccount, deque[tuple[int, W]]] = {}
        self.aside: dict[UserAccount, deque[tuple[int, W]]] = {}

    def __iter__(self) -> Iterator[W]:
        for waiters in [*self.users.values(), *self.aside.values()]:
            yield from [waiter for _, waiter in waiters]

    def take(self, user: UserAccount) -> W:
        waiters = self.users[user]
        waiter = waiters.popleft()[1]
        if not waiters:
            del self.users[user]
        return waiter

    @property
    def empty(self) -> bool:
        return not (self.users or self.aside)

    def of(self, user: UserAccount) -> deque[tuple[int, W]]:
        waiters = self.users.get(user) or self.aside.get(user)
        if waiters is None:
            waiters = self.users[user] = deque()
        return waiters

    def first(self) -> UserAccount:
        """The user whose waiter came first."""
        if len(self.users) == 1:
            return next(iter(self.users))
        return min(self.users, key=lambda user: self.users[user][0][0])

    def remove(self, user: UserAccount, waiter: W) -> bool:
        for place in (self.users, self.aside):
            for numbered in place.get(user, ()):
                if numbered[1] is waiter:
                    place[user].remove(numbered)
                    if not place[user]:
                        del place[user]
                    return True
        return False


class FairQueue(Generic[W]):
    """`on_free` is called when a tenant or a user that had stepped aside may be served again."""

    __slots__ = ("_aside", "_first", "_last", "_on_free", "_turns", "size")

    def __init__(self, on_free: Callable[[], None]) -> None:
        self._turns: OrderedDict[Account, _Line[W]] = OrderedDict()
        self._aside: dict[Account, _Line[W]] = {}  # tenants at their cap, and those all of whose users are
        self._on_free = on_free
        self.size = 0
        self._first = self._last = 0  # the numbers of those at the two ends

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[W]:
        for line in [*self._turns.values(), *self._aside.values()]:
            yield from line

    def grantable(self) -> int:
        """How many waiters the caps would let through now; tenants and users at their cap step aside."""
        count = 0
        for account, line in list(self._turns.items()):
            room = 0
            for user, waiters in list(line.users.items()):
                if user.servers.full:
                    self._user_steps_aside(account, line, user)
                else:
                    room += _at_most(len(waiters), user.servers)
            for counter in (account.servers, account.tier.servers):
                if room and counter.full:
                    self._step_aside(account, counter)
                    room = 0
                room = _at_most(room, counter)
            count += room
        return count

    def push(self, account: Account, user: UserAccount, waiter: W) -> None:
        line = self._line(account)
        self._last += 1
        line.of(user).append((self._last, waiter))
        if account in self._aside and len(line.users) == 1 and user in line.users:
            self._turns[account] = self._aside.pop(account)  # only its other users are at their cap
        self._count(account, user, 1)

    def push_front(self, account: Account, user: UserAccount, waiter: W) -> None:
        """Puts back one that was taken and could not be served: it is the next, and so is its tenant."""
        self._first -= 1
        self._line(account).of(user).appendleft((self._first, waiter))
        self._turns.move_to_end(account, last=False)
        self._count(account, user, 1)

    def remove(self, account: Account, user: UserAccount, waiter: W) -> None:
        for turns in (self._turns, self._aside):
            line = turns.get(account)
            if line is not None and line.remove(user, waiter):
                self._count(account, user, -1)
                if line.empty:
                    del turns[account]
                return

    def take(self) -> tuple[W, tuple[Counter, ...]] | None:
        """The next waiter that may be served, and the permits taken for it."""
        while self._turns:
            account, line = next(iter(self._turns.items()))
            if not line.users:
                self._aside[account] = self._turns.pop(account)
                continue
            user = line.first()
            counters = account.server_counters(user)
            full = take_all(counters)
            if full is user.servers:
                self._user_steps_aside(account, line, user)
                continue
            if full is not None:
                self._step_aside(account, full)
                continue
            waiter = line.take(user)
            self._count(account, user, -1)
            if line.empty:
                del self._turns[account]
            else:
                self._turns.move_to_end(account)
            return waiter, counters
        return None

    def _line(self, account: Account) -> _Line[W]:
        line = self._turns.get(account) or self._aside.get(account)
        if line is None:
            line = self._turns[account] = _Line()
        return line

    def _count(self, account: Account, user: UserAccount, by: int) -> None:
        account.waiting += by
        user.waiting += by
        self.size += by

    def _step_aside(self, account: Account, full: Counter) -> None:
        self._aside[account] = self._turns.pop(account)
        full.when_free(_ComeBack(self, account, None))

    def _user_steps_aside(self, account: Account, line: _Line[W], user: UserAccount) -> None:
        line.aside[user] = line.users.pop(user)
        user.servers.when_free(_ComeBack(self, account, user))

    def come_back(self, account: Account, user: UserAccount | None) -> None:
        """A permit of the counter for which they had stepped aside is free."""
        line = self._aside.get(account)
        if user is not None:
            line = line or self._turns.get(account)
            waiters = line.aside.pop(user, None) if line is not None else None
            if line is None or waiters is None:
                return
            line.users[user] = waiters
        elif line is None:
            return
        if account in self._aside:
            self._turns[account] = self._aside.pop(account)
        self._on_free()


@dataclass(frozen=True, slots=True)
class _ComeBack:
    """Equal for the same ones, so that they wait once however often they step aside."""

    queue: FairQueue[Any]
    account: Account
    user: UserAccount | None

    def __call__(self) -> None:
        self.queue.come_back(self.account, self.user)


def _at_most(count: int, counter: Counter) -> int:
    return min(count, max(counter.allowance - counter.used, 0))
