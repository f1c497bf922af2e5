"""The waiters of one tenant at one queue, and in which ways they stand there: alone or in the group of those that have a
guarantee together, and aside while a cap does not let them through."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Any, Generic, Protocol, TypeVar

from proxy.admission.accounts import Account, Seeker, UserAccount
from proxy.admission.guarantees import Guarantee
from proxy.admission.turns import Place, Rota, Standing, Turns

W = TypeVar("W")


class Queue(Protocol[W]):
    """What a line tells its queue."""

    def head_moved(self) -> None: ...
    def place(self, group: Group[W]) -> None: ...
    def come_back(self, line: Line[W], user: UserAccount | None) -> None: ...


class Line(Place, Generic[W]):
    """The waiters of one tenant. `users` are those that may be served, each with its own in the order of
    their numbers, `aside` those at their cap. `seekers` wait for permits, of the tenant's own (None) and the users'."""

    __slots__ = ("_heads", "account", "aside", "group", "queue", "seekers", "standing", "users")

    def __init__(self, queue: Queue[W], account: Account, standing: Standing, group: Group[W] | None) -> None:
        super().__init__()
        self.queue = queue
        self.account = account
        self.group = group
        self.standing = standing
        self._heads: list[
            tuple[int, int, UserAccount]
        ] = []  # a heap; what is true of no user any more is passed over
        self.users: dict[UserAccount, deque[tuple[int, W]]] = {}
        self.aside: dict[UserAccount, deque[tuple[int, W]]] = {}
        self.seekers: dict[UserAccount | None, Refused] = {}

    def __iter__(self) -> Iterator[W]:
        for waiters in [*self.users.values(), *self.aside.values()]:
            yield from [waiter for _, waiter in waiters]

    def in_order(self) -> list[W]:
        numbered = [each for waiters in (*self.users.values(), *self.aside.values()) for each in waiters]
        return [waiter for _, waiter in sorted(numbered, key=lambda each: each[0])]

    def due_at(self, number: int) -> None:
        if self.turns is not None:
            self.turns.move(self, number)
            if self.group is not None:
                self.group.update()
            self.queue.head_moved()

    def take(self, user: UserAccount) -> W:
        waiters = self.users[user]
        waiter = waiters.popleft()[1]
        if waiters:
            self.head(user)
        else:
            del self.users[user]
        return waiter

    def head(self, user: UserAccount) -> None:
        """Another of the user's waiters is the first of them."""
        heappush(self._heads, (self.users[user][0][0], id(user), user))

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
        while True:
            number, _, user = self._heads[0]
            waiters = self.users.get(user)
            if waiters and waiters[0][0] == number:
                return user
            heappop(self._heads)

    def remove(self, user: UserAccount, waiter: W) -> bool:
        for place in (self.users, self.aside):
            for numbered in place.get(user, ()):
                if numbered[1] is waiter:
                    place[user].remove(numbered)
                    if place[user] and place is self.users:
                        self.head(user)
                    if not place[user]:
                        del place[user]
                        if place is self.aside:
                            self.seekers.pop(user).leave()
                    return True
        return False


class Group(Place, Generic[W]):
    """Those of the queue's tenants that have one guarantee together."""

    __slots__ = ("guarantee", "lines", "queue")

    def __init__(self, queue: Queue[W], guarantee: Guarantee) -> None:
        super().__init__()
        self.queue = queue
        self.guarantee = guarantee
        self.lines: Turns[Line[W]] = Turns()

    def update(self) -> None:
        self.queue.place(self)


class Refused(Seeker):
    """A tenant (`user` is None) or one of its users that has stepped aside."""

    __slots__ = ("line", "standing", "user")

    def __init__(self, line: Line[Any], user: UserAccount | None) -> None:
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

    def leave(self) -> None:
        if self.counter is not None:
            self.counter.forget(self)
        if self.standing is not None:
            self.standing.places.pop(self, None)

    def free(self) -> None:
        self.leave()
        self.line.queue.come_back(self.line, self.user)
