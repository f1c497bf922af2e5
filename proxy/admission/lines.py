"""The waiters of one tenant at one queue, and in which ways they stand there: alone or in the group of those that have a
guarantee together, and aside while a cap does not let them through."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Any

from proxy.admission.accounts import Account, Seeker, UserAccount
from proxy.admission.guarantees import Guarantee
from proxy.admission.turns import Place, Rota, Standing, Turns

_GAP = 32


class Queue:
    """What a line tells its queue."""

    __slots__ = ()

    def head_moved(self) -> None:
        """Another is the first of all, or it has another round."""

    def place(self, group: Group) -> None:
        """A group's first line, or what it may have, has changed."""

    def come_back(self, line: Line, user: UserAccount | None) -> None:
        """A permit of the counter for which they had stepped aside is free."""


class Waiters:
    """Those of one user, each with its number, first in first out. So many have been taken out in front and only leave
    room in the list."""

    __slots__ = ("_numbered", "_taken")

    def __init__(self) -> None:
        self._numbered: list[Any] = []  # of (number, waiter); None where one has been taken
        self._taken = 0

    def __len__(self) -> int:
        return self.count()

    def count(self) -> int:
        return len(self._numbered) - self._taken

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        return iter(self._numbered[self._taken :])

    def push(self, number: int, waiter: Any) -> None:
        self._numbered.append((number, waiter))

    def push_front(self, number: int, waiter: Any) -> None:
        if self._taken:
            self._taken -= 1
            self._numbered[self._taken] = (number, waiter)
        else:
            self._numbered.insert(0, (number, waiter))

    def first(self) -> tuple[int, Any] | None:
        found: tuple[int, Any] | None = None
        if self._taken < len(self._numbered):
            found = self._numbered[self._taken]
        return found

    def take(self) -> Any:
        numbered, at = self._numbered, self._taken
        first: tuple[int, Any] = numbered[at]
        numbered[at] = None
        self._taken = at + 1
        if self._taken > _GAP and 2 * self._taken > len(numbered):
            del numbered[: self._taken]
            self._taken = 0
        return first[1]

    def remove(self, waiter: Any) -> bool:
        for at in range(self._taken, len(self._numbered)):
            if self._numbered[at][1] is waiter:
                del self._numbered[at]
                return True
        return False


class Line(Place):
    """The waiters of one tenant. `users` are those that may be served, each with its own in the order of
    their numbers, `aside` those at their cap. `seekers` wait for permits, of the tenant's own (None) and the users'."""

    __slots__ = (
        "_heads",
        "_user",
        "_waiters",
        "account",
        "aside",
        "group",
        "queue",
        "seekers",
        "standing",
        "users",
    )

    def __init__(self, queue: Queue, account: Account, standing: Standing, group: Group | None) -> None:
        super().__init__()
        self.queue = queue
        self.account = account
        self.group = group
        self.standing = standing
        # A heap, where there are several users; what is true of no user any more is passed over.
        self._heads: list[tuple[int, int, UserAccount]] | None = None
        # One of those that may be served, the last that somebody came for or left, and its waiters.
        self._user: UserAccount | None = None
        self._waiters = Waiters()
        self.users: dict[UserAccount, Waiters] = {}
        self.aside: dict[UserAccount, Waiters] = {}
        self.seekers: dict[UserAccount | None, Refused] = {}

    def __iter__(self) -> Iterator[Any]:
        for waiters in [*self.users.values(), *self.aside.values()]:
            yield from [waiter for _, waiter in waiters]

    def in_order(self) -> list[Any]:
        numbered = [each for waiters in (*self.users.values(), *self.aside.values()) for each in waiters]
        return [waiter for _, waiter in sorted(numbered, key=lambda each: each[0])]

    def due_at(self, number: int) -> None:
        if self.turns is not None:
            self.turns.move(self, number)
            if self.group is not None:
                self.group.update()
            self.queue.head_moved()

    def take(self, user: UserAccount) -> Any:
        waiters = self._of(user)
        waiter = waiters.take()
        if waiters.count() == 0:
            self._without(user)
        elif self._heads is not None:
            self._head(user)
        return waiter

    def push(self, user: UserAccount, number: int, waiter: Any) -> None:
        waiters = self._of(user)
        waiters.push(number, waiter)
        if self._heads is not None and waiters.count() == 1:
            self._head(user)

    def push_front(self, user: UserAccount, number: int, waiter: Any) -> None:
        self._of(user).push_front(number, waiter)
        if self._heads is not None:
            self._head(user)

    def _of(self, user: UserAccount) -> Waiters:
        if user is self._user:
            return self._waiters
        waiters = self.users.get(user)
        if waiters is None:
            waiters = self.aside.get(user)
            if waiters is not None:
                return waiters
            waiters = Waiters()
            self._with(user, waiters)
        self._user, self._waiters = user, waiters
        return waiters

    def _with(self, user: UserAccount, waiters: Waiters) -> None:
        """One more of the users may be served."""
        self.users[user] = waiters
        if self._heads is not None:
            self._head(user)
        elif len(self.users) > 1:
            self._heads = []
            for each in self.users:
                self._head(each)

    def _without(self, user: UserAccount) -> Waiters:
        if user is self._user:
            self._user = None
        waiters = self.users.pop(user)
        if len(self.users) < 2:
            self._heads = None
        return waiters

    def _head(self, user: UserAccount) -> None:
        """Another of the user's waiters is the first of them."""
        waiters = self.users.get(user)
        first = waiters.first() if waiters is not None else None
        if first is not None and self._heads is not None:
            heappush(self._heads, (first[0], id(user), user))

    def user_steps_aside(self, user: UserAccount) -> None:
        self.aside[user] = self._without(user)

    def user_comes_back(self, user: UserAccount) -> None:
        self._with(user, self.aside.pop(user))

    def first(self) -> UserAccount:
        """The user whose waiter came first."""
        if self._heads is None:
            if self._user is not None:
                return self._user
            for only in self.users:
                return only
        assert self._heads is not None
        while True:
            number, _, user = self._heads[0]
            waiters = self.users.get(user)
            first = waiters.first() if waiters is not None else None
            if first is not None and first[0] == number:
                return user
            heappop(self._heads)

    def remove(self, user: UserAccount, waiter: Any) -> bool:
        waiters = self.users.get(user)
        if waiters is not None:
            if not waiters.remove(waiter):
                return False
            if waiters:
                self._head(user)
            else:
                self._without(user)
            return True
        waiters = self.aside.get(user)
        if waiters is None or not waiters.remove(waiter):
            return False
        if not waiters:
            del self.aside[user]
            self.seekers.pop(user).leave()
        return True


class Group(Place):
    """Those of the queue's tenants that have one guarantee together."""

    __slots__ = ("guarantee", "lines", "queue")

    def __init__(self, queue: Queue, guarantee: Guarantee) -> None:
        super().__init__()
        self.queue = queue
        self.guarantee = guarantee
        self.lines = Turns()  # of Line

    def update(self) -> None:
        self.queue.place(self)


class Refused(Seeker):
    """A tenant (`user` is None) or one of its users that has stepped aside."""

    __slots__ = ("line", "standing", "user")

    def __init__(self, line: Line, user: UserAccount | None) -> None:
        super().__init__()
        self.line = line
        self.user = user
        self.standing: Standing | None = None

    def number(self, rota: Rota | None) -> int:
        if rota is None:
            return 0
        self.standing = rota.standing(self.line.account)
        if not self.standing.places:
            self.standing.begin()
        self.standing.places[self] = None
        return self.standing.round

    @property
    def waiting(self) -> int:
        own = self.line.users.values() if self.user is None else (self.line.aside[self.user],)
        return sum(map(len, own))

    def leave(self) -> None:
        if self.counter is not None:
            self.counter.forget(self)
        if self.standing is not None:
            self.standing.places.pop(self, None)

    def free(self) -> None:
        self.leave()
        self.line.queue.come_back(self.line, self.user)
