import pytest

from proxy.admission.accounts import Account, Counter, TierAccount, give_all, take_all
from proxy.model import Limits, Tenant, Tier


def test_a_permit_is_given_back_once() -> None:
    counter = Counter("c", 1)
    counter.take()
    assert counter.full
    counter.give()
    with pytest.raises(AssertionError):
        counter.give()


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
    counter.when_free(lambda: called.append(1))
    counter.give()
    assert called == [1]
    counter.take()
    counter.give()
    assert called == [1]


def test_a_raised_limit_wakes_those_who_wait() -> None:
    tier = Tier("standard", caps=Limits(max_connections=1))
    tiers = TierAccount(tier)
    account = Account(Tenant("acme", "standard", "shared"), tiers, Limits(max_connections=1))
    called: list[int] = []
    assert take_all(account.server_counters()) is None
    account.servers.when_free(lambda: called.append(1))
    account.update(account.tenant, tiers, Limits(max_connections=5))
    assert called == [1]
    give_all(account.server_counters())
    assert account.idle
