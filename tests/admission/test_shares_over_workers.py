"""Tenants have their shares wherever their clients are: workers, ledger and clients in a model of a host."""

from __future__ import annotations

import pytest

from proxy.admission.wishing import NAMED
from tests.admission.sites import Host


def shares(host: Host, seconds: float = 6.0, before: float = 2.0) -> dict[str, float]:
    host.run(before)
    had = host.run(seconds)
    total = sum(had.values())
    assert total > 0.97 * seconds * host.most, "connections lie idle"
    return {name: seconds / total for name, seconds in had.items()}


def test_a_tenant_with_clients_everywhere_gets_no_more_than_one_with_clients_somewhere() -> None:
    host = Host(10, 2, {"a": 1, "b": 1})
    host.clients("a", 0, 20)
    host.clients("b", 0, 20)
    host.clients("a", 1, 20)
    assert shares(host)["a"] == pytest.approx(0.5, rel=0.03)


def test_a_single_client_elsewhere_keeps_its_connection_and_costs_its_tenant_no_more_than_that() -> None:
    host = Host(10, 2, {"a": 1, "b": 1})
    host.clients("a", 0, 40)
    host.clients("b", 0, 40)
    host.clients("a", 1, 1)
    host.run(1.0)
    opened = host.opened
    assert shares(host)["a"] == pytest.approx(0.5, rel=0.03)
    assert host.opened - opened < 10


def test_weights_hold_over_workers_and_part_of_a_connection_goes_round() -> None:
    weights = {"a": 8, "b": 4, "c": 2, "d": 2}
    host = Host(12, 4, weights)
    for at, (name, seconds) in enumerate(zip(weights, (0.01, 0.02, 0.03, 0.04), strict=True)):
        host.clients(name, at, 20, seconds)
    found = shares(host, 12.0)
    for name, weight in weights.items():
        assert found[name] == pytest.approx(weight / 16, rel=0.06)


def test_many_tenants_each_where_it_likes() -> None:
    weights = {f"t{number}": 4 if number % 10 == 0 else 1 for number in range(60)}
    host = Host(30, 3, weights)
    for number, name in enumerate(weights):
        for more in range(1 + number % 3):
            host.clients(name, (number + more) % 3, 3)
    found = shares(host, 5.0, 3.0)
    ratios = [found[name] / weight * sum(weights.values()) for name, weight in weights.items()]
    assert sum(ratios) ** 2 / len(ratios) / sum(ratio**2 for ratio in ratios) > 0.98


def test_of_more_tenants_than_are_named_those_that_are_get_their_shares() -> None:
    weights = {f"t{number:03}": 1 for number in range(NAMED + 60)} | {"big": 20}
    host = Host(20, 2, weights)
    for name in weights:
        for at in (0, 1):
            host.clients(name, at, 10 if name == "big" else 1)
    assert shares(host, 4.0)["big"] == pytest.approx(20 / (NAMED + 80), rel=0.1)


def test_what_is_guaranteed_is_had_beside_crowds_on_all_workers() -> None:
    host = Host(8, 4, {"vip": 1, "noisy": 1, "other": 1}, {"vip": 4})
    for at in range(4):
        host.clients("noisy", at, 30, 0.1)
        host.clients("other", at, 5)
    host.run(2.0)
    host.clients("vip", 3, 10, 0.01)
    host.run(0.5)
    found = shares(host, 6.0, 0.0)
    assert found["vip"] == pytest.approx(0.5, rel=0.05)
    assert found["noisy"] == pytest.approx(0.25, rel=0.1)


def test_a_percentage_for_clients_everywhere_is_one_percentage() -> None:
    host = Host(8, 4, {"vip": 1, "noisy": 3}, {"vip": 0.25})
    for at in range(4):
        host.clients("noisy", at, 20)
        host.clients("vip", at, 20)
    assert shares(host, 4.0)["vip"] == pytest.approx(0.25, rel=0.12)


def test_messages_are_few_while_all_want_more_than_there_is() -> None:
    host = Host(12, 4, {"a": 2, "b": 1})
    for at in range(4):
        host.clients("a", at, 10)
        host.clients("b", at, 10)
    host.run(3.0)
    before, opened = host.fleet.messages, host.opened
    host.run(5.0)
    assert host.fleet.messages - before <= 5 * 4 * 3
    assert host.opened - opened <= 10


def test_who_leaves_leaves_its_share_to_the_others_and_parts_are_forgotten() -> None:
    host = Host(10, 2, {"a": 1, "b": 1})
    host.clients("a", 0, 20)
    host.clients("b", 0, 20)
    host.clients("a", 1, 20)
    assert shares(host)["a"] == pytest.approx(0.5, rel=0.05)
    host.sites[1].leave()
    assert shares(host, 4.0)["a"] == pytest.approx(0.5, rel=0.05)
    assert len(host.sites[0].servers) == 10
