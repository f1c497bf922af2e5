from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.admission.apportion import Division, Wish


def wish(tenant: str, wanted: int, weight: float = 1.0, floor: float = 0.0) -> Wish:
    return Wish(tenant, weight, wanted, floor)


def test_by_weight_and_no_more_than_is_wanted() -> None:
    division = Division({1: [wish("a", 20, 4.0), wish("b", 20)], 2: [wish("c", 2, 4.0)]}, 12)
    assert division.due() == {1: pytest.approx(10), 2: pytest.approx(2)}
    division = Division({1: [wish("a", 20, 4.0)], 2: [wish("b", 20)], 3: [wish("c", 20)]}, 12)
    assert division.due() == {1: pytest.approx(8), 2: pytest.approx(2), 3: pytest.approx(2)}


def test_where_all_get_what_they_want_nobody_gets_more() -> None:
    assert Division({1: [wish("a", 3)], 2: [wish("b", 2)]}, 12).due() == {1: 3, 2: 2}


def test_what_is_guaranteed_goes_before_weights() -> None:
    division = Division({1: [wish("a", 9, floor=6.0)], 2: [wish("b", 20)], 3: [wish("b", 20)]}, 10)
    assert division.due() == {1: pytest.approx(6), 2: pytest.approx(2), 3: pytest.approx(2)}
    assert division.floors == {1: 6, 2: 0, 3: 0}


def test_a_tenant_counts_once_wherever_its_clients_are() -> None:
    division = Division({1: [wish("a", 10), wish("b", 10)], 2: [wish("a", 10)]}, 10)
    assert division.due() == {1: pytest.approx(7.5), 2: pytest.approx(2.5)}


def test_each_worker_that_wants_any_has_one() -> None:
    division = Division({1: [wish("a", 40), wish("b", 40)], 2: [wish("a", 1)]}, 10)
    assert division.due() == {1: pytest.approx(9), 2: 1}
    assert Division({1: [wish("a", 9)], 2: [wish("b", 9)], 3: [wish("b", 9)]}, 2).due() != {}


def test_parts_make_up_for_what_a_tenant_has_elsewhere() -> None:
    division = Division({1: [wish("a", 40), wish("b", 40)], 2: [wish("a", 1)]}, 10)
    assert division.parts({1: 9, 2: 1}) == {1: {"a": 0.8}, 2: {}}, "four of nine, where b has five"
    division = Division({1: [wish("a", 10), wish("b", 10)], 2: [wish("a", 10)]}, 10)
    assert division.parts({1: 5, 2: 5})[1]["a"] < 0.1, "it has all that it is to have in the other"


def test_who_gets_all_that_it_wants_has_all_of_its_weight() -> None:
    division = Division({1: [wish("a", 1), wish("b", 40)], 2: [wish("a", 1), wish("b", 40)]}, 10)
    assert division.parts({1: 5, 2: 5}) == {1: {}, 2: {}}


def test_those_that_are_not_named_are_thought_to_be_everywhere_too() -> None:
    here = [wish("a", 10), wish("", 40, 4.0)]
    division = Division({1: here, 2: here}, 10)
    assert division.parts({1: 5, 2: 5}) == {1: {}, 2: {}}
    assert division.due() == {1: pytest.approx(5), 2: pytest.approx(5)}


rows = st.lists(
    st.builds(wish, st.sampled_from("abcde"), st.integers(1, 30), st.sampled_from([1.0, 2.0, 8.0])),
    max_size=5,
    unique_by=lambda found: found.tenant,
)


@given(st.dictionaries(st.integers(1, 6), rows, min_size=1), st.integers(1, 40))
def test_no_more_than_there_is_and_all_of_it_where_it_is_wanted(
    wishes: dict[int, list[Wish]], limit: int
) -> None:
    division = Division(wishes, limit)
    due = division.due()
    wanted = sum(found.wanted for row in wishes.values() for found in row)
    assert sum(due.values()) == pytest.approx(min(limit, wanted), abs=1e-3)
    held = {worker: round(count) for worker, count in due.items()}
    for worker, parts in division.parts(held).items():
        assert parts.keys() <= {found.tenant for found in wishes[worker]}
        assert all(0 < part <= 50 for part in parts.values())
