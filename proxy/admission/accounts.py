"""What each tenant, each tier and the process use right now, and whether they may use one more.

A Counter is a number of permits in use against a limit; a permit taken is given back exactly once by
whoever took it. When one is given back, those who were refused because of it are called (`when_free`),
so that nobody polls. An Account joins the counters of a tenant with those of its tier and of the user: a
permit is taken from all of them or from none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from proxy.errors import CapReached
from proxy.model import Limits, Tenant, Tier, User
from proxy.stats import TenantStats


class Directory(Protocol):
    """What accounts need to know of the registry."""

    def tier(self, name: str) -> Tier | None: ...
    def user(self, name: str) -> User | None: ...
    def limits(self, tenant: Tenant, user: User | None) -> Limits: ...


class Counter:
    """Permits in use. `limit` 0 is no limit."""

    __slots__ = ("_waiting", "limit", "name", "used")

    def __init__(self, name: str, limit: int = 0) -> None:
        self.name = name
        self.limit = limit
        self.used = 0
        self._waiting: dict[Callable[[], None], None] = {}

    @property
    def full(self) -> bool:
        return 0 < self.limit <= self.used

    @property
    def waited_for(self) -> bool:
        return bool(self._waiting)

    def take(self) -> None:
        self.used += 1

    def give(self) -> None:
        if self.used <= 0:
            raise AssertionError(f"{self.name}: a permit was given back twice")
        self.used -= 1
        if self._waiting and not self.full:
            self.wake()

    def wake(self) -> None:
        """Calls those who wait; also for a limit that was raised."""
        waiting, self._waiting = self._waiting, {}
        for callback in waiting:
            callback()

    def when_free(self, callback: Callable[[], None]) -> None:
        self._waiting[callback] = None


def take_all(counters: tuple[Counter, ...]) -> Counter | None:
    """Takes one permit of each; if one is full, takes none and returns it."""
    for counter in counters:
        if counter.limit and counter.used >= counter.limit:
            return counter
    for counter in counters:
        counter.used += 1
    return None


def give_all(counters: tuple[Counter, ...]) -> None:
    for counter in counters:
        counter.give()


class TierAccount:
    __slots__ = ("clients", "servers", "tier")

    def __init__(self, tier: Tier) -> None:
        self.clients = Counter(f"tier {tier.name} max_client_connections")
        self.servers = Counter(f"tier {tier.name} max_connections")
        self.update(tier)

    def update(self, tier: Tier) -> None:
        self.tier = tier
        self.clients.limit = tier.caps.max_client_connections or 0
        self.servers.limit = tier.caps.max_connections or 0
        self.servers.wake()


class UserAccount:
    """A user at run time, for all tenants it acts for. Its counts hold besides those of the tenants."""

    __slots__ = ("clients", "servers", "user", "waiting")

    def __init__(self, user: User) -> None:
        self.clients = Counter(f"user {user.name} max_client_connections")
        self.servers = Counter(f"user {user.name} max_connections")
        self.waiting = 0  # transactions in queues
        self.update(user)

    def update(self, user: User) -> None:
        self.user = user
        self.clients.limit = user.limits.max_client_connections or 0
        self.servers.limit = user.limits.max_connections or 0
        self.servers.wake()


class Account:
    """A tenant at run time: its limits in force, its permits, its counts."""

    __slots__ = ("clients", "limits", "servers", "stats", "tenant", "tier", "waiting")

    def __init__(self, tenant: Tenant, tier: TierAccount, limits: Limits) -> None:
        self.clients = Counter(f"tenant {tenant.name} max_client_connections")
        self.servers = Counter(f"tenant {tenant.name} max_connections")
        self.stats = TenantStats()
        self.waiting = 0  # transactions in queues
        self.update(tenant, tier, limits)

    def update(self, tenant: Tenant, tier: TierAccount, limits: Limits) -> None:
        """New limits hold for the next permit; the permits out now stay counted where they were taken."""
        self.tenant = tenant
        self.tier = tier
        self.limits = limits
        self.clients.limit = limits.max_client_connections or 0
        self.servers.limit = limits.max_connections or 0
        self.servers.wake()

    @property
    def idle(self) -> bool:
        return not (self.clients.used or self.servers.used or self.waiting)

    def server_counters(self, user: UserAccount) -> tuple[Counter, ...]:
        return (self.servers, self.tier.servers, user.servers)

    def client_counters(self, user: UserAccount) -> tuple[Counter, ...]:
        return (self.clients, self.tier.clients, user.clients)


def may_wait(account: Account, user: UserAccount) -> None:
    """Raises CapReached where a queue of the tenant's or of the user's is full."""
    for limits, waiting, whose in (
        (account.limits, account.waiting, f'tenant "{account.tenant.name}"'),
        (user.user.limits, user.waiting, f'user "{user.user.name}"'),
    ):
        if limits.max_queue and waiting >= limits.max_queue:
            raise CapReached(
                f"too many transactions of {whose} are waiting", hint=f"max_queue is {limits.max_queue}."
            )


class Accounts:
    """The accounts of the tenants and users seen so far; made on first use."""

    __slots__ = ("_tenants", "_tiers", "_users", "directory")

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self._tenants: dict[str, Account] = {}
        self._tiers: dict[str, TierAccount] = {}
        self._users: dict[str, UserAccount] = {}

    def __iter__(self) -> Iterator[Account]:
        return iter(self._tenants.values())

    def tiers(self) -> list[TierAccount]:
        return list(self._tiers.values())

    def users(self) -> list[UserAccount]:
        return list(self._users.values())

    def account(self, tenant: Tenant) -> Account:
        account = self._tenants.get(tenant.name)
        if account is None:
            account = Account(tenant, self._tier(tenant.tier), self.directory.limits(tenant, None))
            self._tenants[tenant.name] = account
        elif account.tenant is not tenant:
            account.update(tenant, self._tier(tenant.tier), self.directory.limits(tenant, None))
        return account

    def user(self, user: User) -> UserAccount:
        user = self.directory.user(user.name) or user  # a login may have begun before the last reload
        account = self._users.get(user.name)
        if account is None:
            account = self._users[user.name] = UserAccount(user)
        elif account.user is not user:
            account.update(user)
        return account

    def _tier(self, name: str) -> TierAccount:
        tier = self.directory.tier(name) or Tier(name)
        account = self._tiers.get(name)
        if account is None:
            account = self._tiers[name] = TierAccount(tier)
        elif account.tier is not tier:
            account.update(tier)
        return account
