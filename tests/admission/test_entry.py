"""One counter of the ledger by itself: its limit, what each worker is due and owes, and what is carried over."""

from __future__ import annotations

import pytest

from proxy.admission.apportion import Wish
from proxy.admission.entry import Ask, Entry


def entry(limit: int, held: dict[int, int], wants: dict[int, int]) -> Entry:
    found = Entry("cap")
    found.held, found.limits = dict(held), dict.fromkeys({*held, *wants}, limit)
    for worker, count in wants.items():
        ask = found.asks[worker] = Ask()
        ask.wants = count
    found.take_limit(None)
    return found


def owed(found: Entry) -> dict[int, int]:
    return {worker: count for worker, count in found.debts(list(found.held)).items() if count}


def test_where_workers_disagree_the_lowest_of_those_concerned_holds() -> None:
    found = entry(9, {1: 2}, {})
    found.limits |= {1: 8, 2: 5}
    found.take_limit(None)
    assert (found.limit, found.limits) == (8, {1: 8}), "the second neither has nor wants any"
    found.asks[2] = Ask()
    found.limits[2] = 5
    found.take_limit(None)
    assert found.limit == 5


def test_of_what_is_configured_the_limit_is_the_hosts_share() -> None:
    found = entry(9, {1: 2}, {})
    found.take_limit(lambda name, limit: limit // 2 if name == "cap" else 0)
    assert (found.configured, found.limit, found.free) == (9, 4, 2)


def test_nobody_owes_where_nobody_wants() -> None:
    assert owed(entry(4, {1: 4}, {})) == {}


def test_equal_shares_and_no_more_than_is_wanted() -> None:
    assert owed(entry(8, {1: 8}, {2: 9})) == {1: 4}
    assert owed(entry(8, {1: 8}, {2: 1})) == {1: 1}
    assert owed(entry(8, {1: 4, 2: 4}, {2: 9})) == {}, "each has its share"


def test_what_is_less_than_workers_goes_round() -> None:
    assert owed(entry(1, {1: 1}, {2: 1, 3: 1})) == {1: 1}


def test_an_ask_that_is_old_is_owed_one_by_each() -> None:
    found = entry(8, {1: 4, 2: 4}, {2: 9})
    found.asks[2].looks = 2
    assert owed(found) == {1: 1}


def test_by_wishes_where_they_are_known() -> None:
    found = entry(8, {1: 8}, {2: 9})
    found.wishes = {1: [Wish("a", 3.0, 20, 0.0)], 2: [Wish("b", 1.0, 20, 0.0)]}
    assert found.due() == {1: pytest.approx(6), 2: pytest.approx(2)}
    assert owed(found) == {1: 2}
    found.wishes[2] = [Wish("b", 1.0, 20, 5.0)]
    found.division = None
    assert owed(found) == {1: 5}, "what is guaranteed is more than the weight's share"


def test_of_who_has_said_nothing_what_it_holds_is_taken_for_wanted() -> None:
    found = entry(9, {1: 3, 2: 6}, {2: 9})
    found.wishes = {2: [Wish("b", 1.0, 20, 0.0)]}
    assert found.due() == {1: pytest.approx(3), 2: pytest.approx(6)}


def test_parts_of_a_permit_are_carried_until_they_are_one() -> None:
    found = entry(3, {1: 2, 2: 1}, {2: 9})
    found.wishes = {1: [Wish("a", 1.0, 20, 0.0)], 2: [Wish("b", 1.0, 20, 0.0)]}
    assert owed(found) == {}, "each is due one and a half"
    found.carry()
    assert found.due() == {1: pytest.approx(1.0), 2: pytest.approx(2.0)}
    assert owed(found) == {1: 1}
    for _ in range(9):
        found.carry()
    assert found.carried == {1: -2.0, 2: 2.0}, "and no more than two"
    found.asks.clear()
    found.carry()
    assert found.carried == {}


def test_what_is_forgotten_of_a_worker_is_all_but_what_it_holds() -> None:
    found = entry(4, {1: 4}, {1: 1, 2: 2})
    found.wishes = {1: [Wish("a", 1.0, 20, 0.0)]}
    found.unanswered, found.spare = {1}, {1: 1}
    found.forget(1)
    assert (found.held, list(found.asks), found.unanswered, found.spare, found.wishes) == (
        {1: 4},
        [2],
        set(),
        {},
        {},
    )


def test_who_holds_nothing_owes_nothing() -> None:
    found = entry(4, {1: 1}, {2: 2})
    found.told[1] = (True, 1)
    found.put(1, 0)
    assert (found.held, found.told, found.over) == ({}, {}, False)
    found.asks.clear()
    assert found.over
    with pytest.raises(AssertionError, match="more was given back than was held"):
        found.put(1, -1)
