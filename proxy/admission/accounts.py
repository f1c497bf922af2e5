"""What each tenant, each tier and the process use right now, and whether they may use one more.

A Counter is a number of permits in use against an allowance; a permit taken is given back exactly once by
whoever took it. When one is given back, those who were refused because of it are called (`when_free`) in the order
of their turns, so that nobody polls. An Account joins the counters of a tenant with those of its tier and of the user: a
permit is taken from all of them or from none.

In a process that is alone the allowance is the limit. Where several share the limit, it is what this one has been
granted of it, and a Lender gets more and gives back what others want; taking a permit is no dearer for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from proxy.admission.gate import Gate, Gates, rated
from proxy.admission.turns import Place, Rota, Turns
from proxy.model import Limits, Tenant, Tier, User
from proxy.stats import TenantStats

UNLIMITED = sys.maxsize


class Directory(Protocol):
    """What accounts need to know of the registry."""

    def tier(self, name: str) -> Tier | None: ...
    def user(self, name: str) -> User | None: ...
    def limits(self, tenant: Tenant, user: User | None) -> Limits: ...


class Hope(Protocol):
    """Somebody who waits only for an answer."""

    def granted(self) -> bool:
        """A permit has been taken for it; False: it has left, and the permit is not its."""

    def refused(self) -> None: ...


class Lender(Protocol):
    """Where the permits of a counter come from that is shared with other processes."""

    def touch(self, counter: Counter) -> None:
        """It is waited for, or others want of it: there may be something to say."""

    def repay(self, counter: Counter) -> None:
        """One permit that has just come free goes to whom it is owed."""

    def limited(self, counter: Counter, before: int) -> None:
        """Its limit was `before`."""

    def hope(self, counter: Counter, hope: Hope) -> None: ...


class Reserve(Protocol):
    """Permits in use that could be given up, as those of pooled connections that are idle."""

    def spare(self) -> int: ...
    def surrender(self, count: int) -> None: ...
    def demand(self) -> dict[Account, int]: ...


class Seeker(Place):
    """Somebody who was refused a permit, by one counter at a time."""

    __slots__ = ("counter",)

    def __init__(self) -> None:
        super().__init__()
        self.counter: Counter | None = None

    def free(self) -> None:
        """There may be a permit. It is not waiting any more."""

    def number(self, rota: Rota | None) -> int:
        """Its round there; where there is no rota it is first come, first served."""
        return 0


class Counter:
    """Permits in use. `limit` 0 is no limit. `backed`: they stand for something that outlives the process.
    `rota`: whose turn it is where several tenants share it."""

    __slots__ = (
        "_limit", "_waiting", "allowance", "attended", "backed", "leaving", "lender", "name", "owed", "refused", "reserve",
        "rota", "sought", "used", "wish",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        limit: int = 0,
        *,
        lender: Lender | None = None,
        backed: bool = False,
        rota: Rota | None = None,
    ) -> None:
        self.name = name
        self.rota = rota
        self.used = 0
        self.leaving = 0  # of those in use: on their way back
        self.allowance = UNLIMITED
        self.attended = False  # somebody is to hear of permits given back
        self.lender = lender
        self.backed = backed
        self.sought = False  # by another process
        self.owed = 0  # to another process, even if somebody waits here
        self.reserve: Reserve | None = None
        self.refused: Callable[[Counter], None] | None = None  # is to hear that somebody waits
        self.wish = UNLIMITED  # the most that is wanted here, whatever the limit
        self._limit = 0
        self._waiting: Turns | None = None  # of Seeker
        self.limit = limit

    @property
    def limit(self) -> int:
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        before, self._limit = self._limit, limit
        if limit == before:
            return
        if self.lender is None:
            self.allowance = min(limit or UNLIMITED, self.wish)
        else:
            self.lender.limited(self, before)

    @property
    def full(self) -> bool:
        return self.used >= self.allowance

    @property
    def waited_for(self) -> bool:
        return bool(self._waiting)

    @property
    def waiting(self) -> int:
        return self._waiting.size if self._waiting is not None else 0

    @property
    def first(self) -> Seeker | None:
        """Who is to have the next permit."""
        found: Seeker | None = self._waiting.first() if self._waiting is not None else None
        return found

    def take(self) -> None:
        self.used += 1

    def give(self) -> None:
        if self.used <= 0:
            raise AssertionError(f"{self.name}: a permit was given back twice")
        self.used -= 1
        if self.attended:
            self._given()

    def _given(self) -> None:
        lender = self.lender
        if lender is not None:
            if self.owed:
                lender.repay(self)
            lender.touch(self)
        if self._waiting and not self.full:
            self.wake()

    def wake(self) -> None:
        """Calls those who wait, whose turn it is first, until it is full."""
        for _ in range(self.waiting):  # whoever wants more than it gets waits again
            seeker = None if self.full else self.first
            if seeker is None:
                break
            self.forget(seeker)
            seeker.free()
        self.attend()

    def seekers(self) -> Iterable[Seeker]:
        return self._waiting or ()

    def when_free(self, seeker: Seeker) -> None:
        if seeker.counter is not self:
            if seeker.counter is not None:
                seeker.counter.forget(seeker)
            if self._waiting is None:
                self._waiting = Turns()
            self._waiting.add(seeker, seeker.number(self.rota))
            seeker.counter = self
        self.attended = True
        if self.refused is not None:
            self.refused(self)
        if self.lender is not None:
            self.lender.touch(self)

    def forget(self, seeker: Seeker) -> None:
        """It does not wait any more."""
        if seeker.counter is self and self._waiting is not None:
            self._waiting.remove(seeker)
            seeker.counter = None
            self.attend()

    def attend(self) -> None:
        self.attended = bool(self._waiting or self.sought or self.owed or self.used > self.allowance)


def take_all(counters: tuple[Counter, ...]) -> Counter | None:
    """Takes one permit of each; if one is full, takes none and returns it."""
    for counter in counters:
        if counter.used >= counter.allowance:
            for taken in counters[: counters.index(counter)]:
                taken.used -= 1
            return counter
        counter.used += 1
    return None


def give_all(counters: tuple[Counter, ...]) -> None:
    for counter in counters:
        counter.give()


class TierAccount:
    __slots__ = ("clients", "max_queue", "servers", "tier", "waiting", "weight")

    def __init__(self, tier: Tier, lender: Lender | None = None) -> None:
        self.clients = Counter(f"tier {tier.name} max_client_connections", lender=lender)
        self.servers = Counter(f"tier {tier.name} max_connections", lender=lender, backed=True, rota=Rota())
        self.waiting = 0  # transactions in queues
        self.update(tier)

    def update(self, tier: Tier) -> None:
        self.tier = tier
        self.weight = tier.weight
        self.max_queue = tier.caps.max_queue or UNLIMITED
        self.clients.limit = tier.caps.max_client_connections or 0
        self.servers.limit = tier.caps.max_connections or 0
        self.servers.wake()


class UserAccount:
    """A user at run time, for all tenants it acts for. Its counts hold besides those of the tenants."""

    __slots__ = ("clients", "max_queue", "servers", "user", "waiting")

    def __init__(self, user: User, lender: Lender | None = None) -> None:
        self.clients = Counter(f"user {user.name} max_client_connections", lender=lender)
        self.servers = Counter(f"user {user.name} max_connections", lender=lender, backed=True, rota=Rota())
        self.waiting = 0  # transactions in queues
        self.update(user)

    def update(self, user: User) -> None:
        self.user = user
        self.max_queue = user.limits.max_queue or UNLIMITED
        self.clients.limit = user.limits.max_client_connections or 0
        self.servers.limit = user.limits.max_connections or 0
        self.servers.wake()


class Account:
    """A tenant at run time: its limits in force, its permits, its counts. `gate` is None where it has no rates."""

    __slots__ = (
        "_gate", "_gates", "_of", "_together", "clients", "expected", "gate", "guaranteed", "guarantor", "limits",
        "max_queue", "servers", "stats", "tenant", "tier", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        tenant: Tenant,
        tier: TierAccount,
        limits: Limits,
        lender: Lender | None = None,
        gates: Gates | None = None,
    ) -> None:
        self.clients = Counter(f"tenant {tenant.name} max_client_connections", lender=lender)
        self.servers = Counter(f"tenant {tenant.name} max_connections", lender=lender, backed=True)
        self.stats = TenantStats()
        self._gates = gates or Gates()
        self.gate: Gate | None = None
        self._gate: Gate | None = None  # the same, or the one it had
        self.waiting = 0  # transactions in queues
        self._of: UserAccount | None = None  # the user who was asked for last, and the counters with its own
        self._together: tuple[Counter, ...] = ()
        self.expected = 0.0  # seconds that its next transaction is thought to take; 0: nobody knows
        self.tier = tier
        self.update(tenant, tier, limits)

    def update(self, tenant: Tenant, tier: TierAccount, limits: Limits) -> None:
        """New limits hold for the next permit; the permits out now stay counted where they were taken."""
        if self.waiting:
            self.tier.waiting -= self.waiting
            tier.waiting += self.waiting
        self.tenant = tenant
        self.tier = tier
        self._of = None
        self.limits = limits
        self.max_queue = limits.max_queue or UNLIMITED
        own = limits.guaranteed_connections or 0.0
        self.guaranteed = own or tier.tier.caps.guaranteed_connections or 0.0
        self.guarantor: object = self if own else tier
        if self._gate is None and rated(limits):
            self._gate = self._gates.gate(tenant.name, self.stats)
        self.gate = self._gate if self._gate is not None and self._gate.update(limits) else None
        self.clients.limit = limits.max_client_connections or 0
        self.servers.limit = limits.max_connections or 0
        self.servers.wake()

    @property
    def idle(self) -> bool:
        return not (self.clients.used or self.servers.used or self.waiting)

    def server_counters(self, user: UserAccount) -> tuple[Counter, ...]:
        if user is not self._of:
            self._of, self._together = user, (self.servers, self.tier.servers, user.servers)
        return self._together

    def client_counters(self, user: UserAccount) -> tuple[Counter, ...]:
        return (self.clients, self.tier.clients, user.clients)


class Accounts:
    """The accounts of the tenants and users seen so far; made on first use. `moving`: those whose caps may move."""

    __slots__ = ("_gates", "_lender", "_tenants", "_tiers", "_users", "directory", "moving")

    def __init__(
        self, directory: Directory, lender: Lender | None = None, gates: Gates | None = None
    ) -> None:
        self.directory = directory
        self._gates = gates or Gates()
        self._lender = lender
        self._tenants: dict[str, Account] = {}
        self._tiers: dict[str, TierAccount] = {}
        self._users: dict[str, UserAccount] = {}
        self.moving: dict[Account, None] = {}

    def __iter__(self) -> Iterator[Account]:
        return iter(self._tenants.values())

    def __contains__(self, tenant: object) -> bool:
        return tenant in self._tenants

    def names(self) -> list[str]:
        return list(self._tenants)

    def user_names(self) -> list[str]:
        """Of those that have clients."""
        return [name for name, account in self._users.items() if account.clients.used]

    def forget_user(self, name: str) -> None:
        del self._users[name]

    def has(self, account: Account) -> bool:
        """It has not been forgotten."""
        return self._tenants.get(account.tenant.name) is account

    def forget(self, tenant: str) -> None:
        """Of one that nobody uses; what it has counted goes with it."""
        self.moving.pop(self._tenants.pop(tenant), None)

    def tiers(self) -> list[TierAccount]:
        return list(self._tiers.values())

    def users(self) -> list[UserAccount]:
        return list(self._users.values())

    def account(self, tenant: Tenant) -> Account:
        account = self._tenants.get(tenant.name)
        if account is None:
            limits = self.directory.limits(tenant, None)
            account = Account(tenant, self._tier(tenant.tier), limits, self._lender, self._gates)
            self._tenants[tenant.name] = account
        elif account.tenant is not tenant:
            account.update(tenant, self._tier(tenant.tier), self.directory.limits(tenant, None))
        else:
            return account
        if account.limits.min_connections:
            self.moving[account] = None
        else:
            self.moving.pop(account, None)
        return account

    def user(self, user: User) -> UserAccount:
        user = self.directory.user(user.name) or user  # a login may have begun before the last reload
        account = self._users.get(user.name)
        if account is None:
            account = self._users[user.name] = UserAccount(user, self._lender)
        elif account.user is not user:
            account.update(user)
        return account

    def _tier(self, name: str) -> TierAccount:
        tier = self.directory.tier(name) or Tier(name)
        account = self._tiers.get(name)
        if account is None:
            account = self._tiers[name] = TierAccount(tier, self._lender)
        elif account.tier is not tier:
            account.update(tier)
        return account
