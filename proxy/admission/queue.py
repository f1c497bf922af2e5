"""Who is served next on one pool: first in, first out inside a tenant, tenants by their turns (see turns.py).

A tenant whose cap is reached steps aside with all its waiters and comes back when a permit of the
counter that refused it is given back; it costs nothing in between. So does a user inside its tenants.

Tenants that have a guarantee stand in the turns as the group of those that have it together: at their own rounds, or
before all others while they are entitled to more than they have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from proxy.admission import guarantees
from proxy.admission.accounts import Account, Counter, Seeker, UserAccount, take_all
from proxy.admission.guarantees import Guarantee
from proxy.admission.lines import Group, Line, Queue, Refused
from proxy.admission.turns import Rota, Turns
from proxy.errors import CapReached

NEVER = 1 << 62  # the round of those who want nothing
ENTITLED = -1  # of those who come before all others
_ENTITLED = ENTITLED  # the same as a number of C


class FairQueue(Queue):
    """`on_free` is called when a tenant or a user that had stepped aside may be served again. `claim`, if there is one,
    waits on behalf of the whole queue for what several queues share, at the round of its first."""

    __slots__ = (
        "_first",
        "_groups",
        "_last",
        "_lines",
        "_on_free",
        "_recent",
        "_turns",
        "claim",
        "most",
        "rota",
        "size",
    )

    def __init__(self, on_free: Callable[[], None], rota: Rota | None = None) -> None:
        self.rota = rota or Rota()
        self.claim: Seeker | None = None
        self.most = 0  # connections that guarantees are a part of
        self._groups: dict[Guarantee, Group] = {}
        self._turns = Turns()  # of Line and Group
        self._lines: dict[Account, Line] = {}
        self._recent: Line | None = None  # one of these, the last that somebody came for
        self._on_free = on_free
        self.size = 0
        self._first = self._last = 0  # the numbers of those at the two ends

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Any]:
        for line in list(self._lines.values()):
            yield from line

    def grantable(self, enough: int) -> int:
        """How many waiters the caps would let through now, counted up to about `enough`; tenants and users at their
        cap step aside."""
        count, seen = 0, -1
        while count < enough and seen:  # again while somebody has stepped aside
            count = seen = 0
            for line in list(islice(self.in_turn(), enough)):
                count += self._room(line)
                seen += line.turns is None
        return count

    def _room(self, line: Line) -> int:
        account, room = line.account, 0
        for user, waiters in list(line.users.items()):
            if user.servers.full:
                self._user_steps_aside(line, user)
            else:
                room += _at_most(len(waiters), user.servers)
        if not line.users:
            self._leave(line)
        for counter in (account.servers, account.tier.servers):
            if room and counter.full:
                self._step_aside(line, counter)
                room = 0
            room = _at_most(room, counter)
        return room

    def number(self, rota: Rota | None) -> int:
        """The round of the first, there."""
        first = self._turns.first()
        if first is None:
            return NEVER
        if first.round == ENTITLED:
            return ENTITLED
        line = first if isinstance(first, Line) else first.lines.first()
        assert line is not None
        return line.round if rota is None or rota is self.rota else rota.standing(line.account).round

    def head_moved(self) -> None:
        claim = self.claim
        if claim is None or claim.turns is None or claim.counter is None:
            return
        if self.size:
            claim.turns.move(claim, self.number(claim.counter.rota))
        else:
            claim.counter.forget(claim)

    def push(self, account: Account, user: UserAccount, waiter: Any) -> None:
        line = self._line(account)
        self._last += 1
        line.push(user, self._last, waiter)
        self._count(account, user, 1)
        if line.turns is None and line.users and None not in line.seekers:
            self._enter(line)  # only its other users are at their cap, if any is
        self.head_moved()

    def push_front(self, account: Account, user: UserAccount, waiter: Any) -> None:
        """Puts back one that was taken and could not be served: it is the next, and so is its tenant."""
        line = self._line(account)
        self._first -= 1
        line.push_front(user, self._first, waiter)
        self._count(account, user, 1)
        if line.turns is not None:
            self._leave(line)
        self._enter(line, True)
        self.head_moved()

    def remove(self, account: Account, user: UserAccount, waiter: Any) -> None:
        line = self._lines.get(account)
        if line is not None and line.remove(user, waiter):
            self._count(account, user, -1)
            self._tidy(line)

    def take(self, entitled: bool = False) -> tuple[Any, tuple[Counter, ...]] | None:
        """The next waiter that may be served, and the permits taken for it. `entitled`: only of those who come before
        all others."""
        while True:
            first = self._turns.first()
            if first is None or (entitled and first.round != _ENTITLED):
                break
            line = first if isinstance(first, Line) else first.lines.first()
            account = line.account
            user = line.first()
            counters = account.server_counters(user)
            full = take_all(counters)
            if full is not None:
                if full is not user.servers:
                    self._step_aside(line, full)
                    continue
                self._user_steps_aside(line, user)
                if not line.users:
                    self._leave(line)
                continue
            if first.round != _ENTITLED:
                self.rota.serve(line.standing)
            waiter = line.take(user)
            self._count(account, user, -1)
            self._turns.put_last(first)
            if line.group is not None:
                line.group.lines.put_last(line)
            line.standing.served(line)
            self._tidy(line)
            return waiter, counters
        self.head_moved()
        return None

    # --- lines ----------------------------------------------------------------------------------------

    def _line(self, account: Account) -> Line:
        line = self._recent
        if line is not None and line.account is account:
            return line
        line = self._lines.get(account)
        if line is None:
            standing = self.rota.standing(account)
            if not standing.places:
                standing.begin()
            line = self._lines[account] = Line(self, account, standing, self._group(account))
            standing.places[line] = None
        self._recent = line
        return line

    def _tidy(self, line: Line) -> None:
        """Somebody has left it."""
        if not line.users and line.turns is not None:
            self._leave(line)
        if not (line.users or line.aside):
            del self._lines[line.account], line.standing.places[line]
            if self._recent is line:
                self._recent = None
            for seeker in line.seekers.values():
                seeker.leave()
        self.head_moved()

    def _group(self, account: Account) -> Group | None:
        guarantee = guarantees.of(self.rota, account, self.most)
        if guarantee is None:
            return None
        return self._groups.get(guarantee) or Group(self, guarantee)

    def _enter(self, line: Line, first: bool = False) -> None:
        number, group = line.standing.round, line.group
        if group is None:
            self._turns.add(line, number, first)
            return
        group.lines.add(line, number, first)
        self._groups[group.guarantee] = group
        group.guarantee.join(group)
        self.place(group)
        if first:
            self._turns.remove(group)
            self._turns.add(group, group.round, True)

    def _leave(self, line: Line) -> None:
        if line.turns is not None:
            line.turns.remove(line)
        if line.group is not None:
            self.place(line.group)

    def place(self, group: Group) -> None:
        """Where it stands has to do with its first line and with what it has."""
        line = group.lines.first()
        if line is None:
            if group.turns is not None:
                self._turns.remove(group)
            group.guarantee.leave(group)
            if self._groups.get(group.guarantee) is group:
                del self._groups[group.guarantee]
        else:
            number = ENTITLED if group.guarantee.free else line.round
            if group.turns is None:
                self._turns.add(group, number)
            else:
                self._turns.move(group, number)
        self.head_moved()

    def lines(self) -> list[Line]:
        return list(self._lines.values())

    def demand(self) -> Iterator[tuple[Account, int]]:
        """How many of each tenant wait that no cap of theirs keeps from being served."""
        for line in list(self._lines.values()):
            if line.turns is not None:
                yield line.account, sum(map(len, line.users.values()))

    def in_turn(self) -> Iterator[Line]:
        for place in self._turns:
            if isinstance(place, Line):
                yield place
            else:
                yield from place.lines

    def _count(self, account: Account, user: UserAccount, by: int) -> None:
        tier, rota = account.tier, self.rota
        account.waiting += by
        tier.waiting += by
        user.waiting += by
        self.size += by
        rota.waiting += by
        rota.crowd.waiting += by

    def _step_aside(self, line: Line, full: Counter) -> None:
        self._leave(line)
        seeker = line.seekers[None] = Refused(line, None)
        full.when_free(seeker)

    def _user_steps_aside(self, line: Line, user: UserAccount) -> None:
        line.user_steps_aside(user)
        seeker = line.seekers[user] = Refused(line, user)
        user.servers.when_free(seeker)

    def come_back(self, line: Line, user: UserAccount | None) -> None:
        """A permit of the counter for which they had stepped aside is free."""
        del line.seekers[user]
        if user is not None:
            line.user_comes_back(user)
        if line.turns is None and line.users and None not in line.seekers:
            self._enter(line)
            self.head_moved()
        self._on_free()


def _at_most(count: int, counter: Counter) -> int:
    return min(count, max(counter.allowance - counter.used, 0))


def may_wait(account: Account, user: UserAccount) -> None:
    """Raises CapReached where a queue of the tenant's, of its tier's or of the user's is full."""
    tier = account.tier
    if account.waiting >= account.max_queue:
        raise _too_many(f'tenant "{account.tenant.name}"', account.max_queue)
    if tier.waiting >= tier.max_queue:
        raise _too_many(f'tier "{tier.tier.name}"', tier.max_queue)
    if user.waiting >= user.max_queue:
        raise _too_many(f'user "{user.user.name}"', user.max_queue)


def _too_many(whose: str, most: int) -> CapReached:
    return CapReached(f"too many transactions of {whose} are waiting", hint=f"max_queue is {most}.")
