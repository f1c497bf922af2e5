"""Caps that move: who grows and when, what is taken back, and what never happens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from proxy.admission.accounts import UNLIMITED, Account, Counter, Seeker, TierAccount
from proxy.admission.elastic import KEEP, Elastic
from proxy.admission.lease import Leases
from proxy.admission.ledger import Ledger
from proxy.model import Limits, Tenant, Tier

STANDARD = TierAccount(Tier("standard", weight=2))
LIMITS = Limits(min_connections=1, max_connections=10)
LOOKS = 20  # a second


@dataclass
class Room:
    is_crowded: bool = False
    most: int = 20
    promised: int = 0

    def crowded(self, cluster: str) -> bool:
        return self.is_crowded

    def connections(self, cluster: str) -> int:
        return self.most

    def guaranteed(self, account: Account) -> int:
        return self.promised


class Waiter(Seeker):
    """Takes a permit when there is one, and would like as many as it can get."""

    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self.wanted = counter
        counter.when_free(self)

    def free(self) -> None:
        while not self.wanted.full:
            self.wanted.take()
        self.wanted.when_free(self)


class Known(list[Account]):
    """All accounts there are."""

    @property
    def moving(self) -> list[Account]:
        return [account for account in self if account.limits.min_connections]


class World:
    def __init__(self, *accounts: Account) -> None:
        self.room = Room()
        self.elastic = Elastic(self.room)
        self.accounts: Any = Known(accounts)
        self.elastic.look(self.accounts)

    def looks(self, count: int) -> None:
        for _ in range(count):
            self.elastic.look()

    def seconds(self, count: int) -> None:
        for _ in range(count):
            self.looks(LOOKS)
            self.elastic.look(self.accounts)


def account(name: str = "a", limits: Limits = LIMITS, lender: Any = None) -> Account:
    return Account(Tenant(name, "standard", "shared"), STANDARD, limits, lender)


def test_it_begins_with_its_minimum() -> None:
    tenant = account()
    World(tenant)
    assert (tenant.servers.wish, tenant.servers.allowance, tenant.servers.limit) == (1, 1, 10)


@pytest.mark.parametrize(
    "limits", [Limits(max_connections=10), Limits(min_connections=10, max_connections=10), Limits(min_connections=3)]
)  # fmt: skip
def test_a_cap_that_has_nowhere_to_go_stays(limits: Limits) -> None:
    tenant = account(limits=limits)
    World(tenant)
    assert tenant.servers.wish == UNLIMITED
    assert tenant.servers.refused is None


def test_a_short_wait_does_not_raise_it() -> None:
    tenant = account()
    world = World(tenant)
    tenant.servers.take()
    seeker = Seeker()
    tenant.servers.when_free(seeker)
    world.looks(1)
    tenant.servers.give()
    world.looks(5)
    assert tenant.servers.wish == 1


def test_it_grows_to_its_maximum_within_a_second() -> None:
    tenant = account()
    world = World(tenant)
    tenant.servers.take()
    Waiter(tenant.servers)
    grown = []
    for _ in range(LOOKS):
        world.looks(1)
        grown.append(tenant.servers.used)
    assert grown[:8] == [1, 2, 3, 4, 6, 9, 10, 10]
    assert max(grown) == 10, "and not beyond"


def test_what_is_not_used_is_taken_back() -> None:
    tenant = account()
    world = World(tenant)
    tenant.servers.take()
    waiter = Waiter(tenant.servers)
    world.looks(LOOKS)
    tenant.servers.forget(waiter)
    for _ in range(6):
        tenant.servers.give()
    world.seconds(2 * KEEP)
    assert tenant.servers.wish == tenant.servers.used == 4
    for _ in range(4):
        tenant.servers.give()
    world.seconds(2 * KEEP)
    assert tenant.servers.wish == 1


def test_in_a_crowd_it_grows_to_its_share_of_the_cluster() -> None:
    busy, other = account("busy"), account("other", Limits())
    heavy = Account(Tenant("heavy", "vip", "shared"), TierAccount(Tier("vip", weight=4)), LIMITS)
    world = World(busy, other, heavy)
    for each in (busy, other, heavy):
        each.servers.take()
    world.seconds(1)
    world.room.is_crowded, world.room.most = True, 16
    for each in (busy, heavy):
        Waiter(each.servers)
    world.seconds(1)
    world.looks(LOOKS)
    assert busy.servers.used == 4, "2 of 8 weights, of 16 connections"
    assert heavy.servers.used in (8, 9)
    world.room.is_crowded = False
    world.looks(LOOKS)
    assert busy.servers.used == 10


def test_in_a_crowd_it_grows_to_what_is_guaranteed_to_it() -> None:
    tenant, other = account("guaranteed"), account("other", Limits())
    world = World(tenant, other)
    world.room.is_crowded, world.room.most, world.room.promised = True, 8, 6
    for each in (tenant, other):
        each.servers.take()
    Waiter(tenant.servers)
    world.seconds(1)
    world.looks(LOOKS)
    assert tenant.servers.used == 6, "its weight is worth four"


def test_new_limits_hold_at_the_next_second() -> None:
    tenant = account()
    world = World(tenant)
    tenant.servers.take()
    Waiter(tenant.servers)
    world.looks(LOOKS)
    tenant.update(tenant.tenant, STANDARD, replace(LIMITS, max_connections=4))
    assert tenant.servers.allowance == 4
    tenant.update(tenant.tenant, STANDARD, replace(LIMITS, min_connections=0))
    world.seconds(1)
    assert (tenant.servers.wish, tenant.servers.allowance) == (UNLIMITED, 10)
    world.looks(LOOKS)


def test_a_tenant_that_is_gone_is_forgotten() -> None:
    tenant = account()
    world = World(tenant)
    tenant.servers.take()
    Waiter(tenant.servers)
    world.looks(LOOKS)
    world.accounts = Known()
    world.seconds(2 * KEEP)
    assert (len(world.elastic._caps), len(world.elastic._grown), len(world.elastic._asking)) == (0, 0, 0)


def test_over_workers_the_sum_is_never_above_the_maximum() -> None:
    ledger = Ledger()
    worlds, leases = [], []
    for number in range(3):
        ledger.join(number)
        lease = Leases(lambda seconds: None)
        leases.append(lease)
        worlds.append(World(account(lender=lease)))

    def settle() -> None:
        for _ in range(10):
            for number, lease in enumerate(leases):
                for told in lease.settle(0.0):
                    said = told._asdict()
                    for order in ledger.lease(number, said.pop("name"), **said):
                        leases[order.worker].obey([order], 0.0)

    counters = [world.accounts[0].servers for world in worlds]
    waiters = [Waiter(counter) for counter in counters]
    settle()
    assert all(counter.used <= 2 for counter in counters), (
        "one, and what it got besides until it was looked at"
    )
    for _ in range(LOOKS):
        for world in worlds:
            world.looks(1)
        settle()
        assert sum(counter.used for counter in counters) <= 10
    assert sum(counter.used for counter in counters) == 10
    for counter, waiter in zip(counters, waiters, strict=True):
        counter.forget(waiter)
        while counter.used:
            counter.give()
    for _ in range(2 * KEEP):
        for world in worlds:
            world.seconds(1)
        settle()
    assert all(counter.allowance <= 1 for counter in counters)
