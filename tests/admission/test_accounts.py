from dataclasses import replace

import pytest

from proxy.admission.accounts import (
    Account,
    Accounts,
    Counter,
    TierAccount,
    UserAccount,
    give_all,
    take_all,
)
from proxy.model import ClientOptions, Directory, Limits, Tenant, Tier, User
from proxy.registry.memory import Registry
from tests.admission.calls import Call


def test_a_permit_is_given_back_once() -> None:
    counter = Counter("c", 1)
    counter.take()
    assert counter.full
    counter.give()
    with pytest.raises(AssertionError):
        counter.give()


def test_the_counters_are_those_of_the_user_and_the_tier_of_now() -> None:
    tenant, one, other = Tenant("a", "standard", "c"), UserAccount(User("one")), UserAccount(User("other"))
    before, after = TierAccount(Tier("standard")), TierAccount(Tier("vip"))
    account = Account(tenant, before, Limits())
    assert account.server_counters(one) == (account.servers, before.servers, one.servers)
    assert account.server_counters(one) == (account.servers, before.servers, one.servers)
    assert account.server_counters(other) == (account.servers, before.servers, other.servers)
    account.update(tenant, after, Limits())
    assert account.server_counters(other) == (account.servers, after.servers, other.servers)


def test_all_or_none() -> None:
    one, two = Counter("one", 2), Counter("two", 1)
    assert take_all((one, two)) is None
    assert take_all((one, two)) is two
    assert (one.used, two.used) == (1, 1)
    give_all((one, two))
    assert (one.used, two.used) == (0, 0)


def test_who_was_refused_is_called_when_one_is_free() -> None:
    counter = Counter("c", 1)
    called: list[int] = []
    counter.take()
    counter.when_free(Call(lambda: called.append(1)))
    counter.give()
    assert called == [1]
    counter.take()
    counter.give()
    assert called == [1]


def test_a_raised_limit_wakes_those_who_wait() -> None:
    tier = Tier("standard", caps=Limits(max_connections=1))
    tiers = TierAccount(tier)
    account = Account(Tenant("acme", "standard", "shared"), tiers, Limits(max_connections=1))
    user = UserAccount(User("app"))
    called: list[int] = []
    assert take_all(account.server_counters(user)) is None
    account.servers.when_free(Call(lambda: called.append(1)))
    account.update(account.tenant, tiers, Limits(max_connections=5))
    assert called == [1]
    give_all(account.server_counters(user))
    assert account.idle


def test_a_user_has_counts_of_its_own_over_all_tenants() -> None:
    tier = TierAccount(Tier("standard"))
    acme, globex = (
        Account(Tenant(name, "standard", "shared"), tier, Limits()) for name in ("acme", "globex")
    )
    user = UserAccount(User("app", limits=Limits(max_connections=1, max_client_connections=1)))
    for counters in (Account.server_counters, Account.client_counters):
        assert take_all(counters(acme, user)) is None
        full = take_all(counters(globex, user))
        assert full in (user.servers, user.clients)
        give_all(counters(acme, user))
    assert acme.idle
    assert globex.idle


def test_a_login_that_began_before_a_reload_does_not_bring_the_old_limits_back() -> None:
    def directory(user: User) -> Directory:
        return Directory({"app": user}, {}, {}, {})

    old, new = (User("app", limits=Limits(max_connections=n)) for n in (1, 5))
    registry = Registry(directory(old), ClientOptions())
    accounts = Accounts(registry)
    assert accounts.user(old).servers.limit == 1
    registry.replace(directory(new), ClientOptions())
    assert accounts.user(old).servers.limit == 5
    assert [account.user for account in accounts.users()] == [new]


def test_those_who_wait_take_turns() -> None:
    """One that always wants more than it gets does not come before the others."""
    counter = Counter("c", 1)
    served: list[str] = []

    def greedy() -> None:
        if not counter.full:
            counter.take()
            served.append("greedy")
        counter.when_free(one)

    def modest() -> None:
        if counter.full:
            counter.when_free(two)
        else:
            counter.take()
            served.append("modest")

    counter.take()
    one, two = Call(greedy), Call(modest)
    counter.when_free(one)
    counter.when_free(two)
    for _ in range(3):
        counter.give()
    assert served == ["greedy", "modest", "greedy"]


def test_accounts_whose_caps_move_are_known() -> None:
    class Known(Registry):
        def limits(self, tenant: Tenant, user: User | None = None) -> Limits:
            return tenant.limits

    accounts = Accounts(Known(Directory({}, {}, {}, {}), ClientOptions()))
    plain = Tenant("a", "standard", "shared")
    assert accounts.account(plain) not in accounts.moving
    moving = replace(plain, limits=Limits(min_connections=1, max_connections=4))
    assert accounts.account(moving) in accounts.moving
    assert accounts.account(plain) not in accounts.moving
    accounts.account(moving)
    accounts.forget("a")
    assert not accounts.moving
