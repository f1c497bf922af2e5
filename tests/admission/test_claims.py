"""What a proxy may keep of a counter although others want it, by what all have told of their tenants."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.admission.apportion import Division, Wish
from proxy.admission.claims import NAMED, Claims, together


def wish(tenant: str, weight: float = 1.0, wanted: int = 40, floor: float = 0.0) -> Wish:
    return Wish(tenant, weight, wanted, floor)


def heard(*told: list[Wish]) -> Claims:
    """Of members b, c, ..."""
    found = Claims()
    texts: list[str] = []
    for number, wishes in enumerate(told, 1):
        texts += ["abcdef"[number], Claims().tell(wishes)]
    found.hear(texts, "bcdef")
    return found


def test_an_equal_part_where_nobody_has_told_anything() -> None:
    assert Claims().keep([], 20, 5, 10, 2) == 5
    assert Claims().keep([wish("a", 9.0)], 20, 5, 10, 3) == 4


@pytest.mark.parametrize(("weight", "kept"), [(1.0, 5), (4.0, 11), (9.0, 13), (0.01, 0)])
def test_by_the_weights_of_tenants_wherever_they_are(weight: float, kept: int) -> None:
    """Of twenty each has five by itself."""
    assert heard([wish("b")]).keep([wish("a", weight)], 20, 5, 10, 2) == kept


def test_no_more_than_is_wanted_is_due() -> None:
    assert heard([wish("b", wanted=40)]).keep([wish("a", 4.0, wanted=7)], 20, 0, 20, 2) == 7
    assert heard([wish("b", wanted=3)]).keep([wish("a", wanted=40)], 20, 0, 20, 2) == 17


def test_a_tenant_that_is_here_and_there_has_its_share_once() -> None:
    assert heard([wish("a"), wish("b")]).keep([wish("a")], 20, 0, 20, 2) == 5


def test_what_is_guaranteed_is_kept_and_what_others_are_guaranteed_is_not() -> None:
    crowd, entitled = [wish("b", 8.0)], [wish("a", 1.0, 6, floor=6.0)]
    assert heard(crowd).keep(entitled, 8, 0, 8, 2) == 6
    assert heard(entitled).keep(crowd, 8, 0, 8, 2) == 2
    assert Claims().keep(entitled, 8, 2, 4, 2) == 4, "two of them are its own"


def test_what_is_less_than_proxies_goes_round_but_what_is_guaranteed() -> None:
    assert Claims().keep([wish("a")], 1, 0, 1, 2) == 0
    assert Claims().keep([wish("a", floor=1.0)], 1, 0, 1, 2) == 1


@pytest.mark.parametrize("limit", [12, 13, 14])
def test_what_all_keep_leaves_one_for_each(limit: int) -> None:
    """Two that rounded up would have left the third without any, for ever."""
    told = {"a": [wish("crowd", 8.0)], "b": [wish("crowd", 8.0)], "c": [wish("other")]}
    kept = {}
    for member, own in told.items():
        claims = Claims()
        others = [(name, Claims().tell(wishes)) for name, wishes in told.items() if name != member]
        claims.hear([word for row in others for word in row], "abc")
        kept[member] = claims.keep(own, limit, 0, limit, 3, member)
    assert 0 <= sum(kept.values()) - limit <= 1
    assert kept["c"] >= 1
    assert kept["a"] + kept["b"] < limit


def test_what_is_left_of_whole_ones_goes_round() -> None:
    """Of seven each is due three and a half; one is its own."""
    claims = heard([wish("b")])
    kept = [claims.keep([wish("a")], 7, 1, 5, 2, "a", turn / 8) for turn in range(16)]
    assert kept == [2, 2, 2, 2, 3, 3, 3, 3] * 2, "once in a turn"


wishes = st.lists(
    st.builds(wish, st.sampled_from("tuvwx"), st.sampled_from([1.0, 2.0, 4.0]), st.integers(1, 40)),
    min_size=1,
    max_size=4,
    unique_by=lambda found: found.tenant,
)


@given(st.lists(wishes, min_size=2, max_size=6), st.integers(12, 60), st.floats(0.0, 100.0))
def test_in_a_turn_each_has_what_it_is_due_and_all_never_more_than_there_is(
    told: list[list[Wish]], limit: int, begin: float
) -> None:
    """And each gets one more, and gives one back, once at most."""
    turns = 200
    names = "abcdef"[: len(told)]
    due = Division(dict(enumerate(told)), limit).due()
    kept: list[list[int]] = []
    for name, own in zip(names, told, strict=True):
        claims = Claims()
        claims.hear(
            [
                word
                for other, wishes in zip(names, told, strict=True)
                for word in (other, Claims().tell(wishes))
            ],
            set(names) - {name},
        )
        kept.append(
            [claims.keep(own, limit, 0, limit, len(told), name, begin + n / turns) for n in range(turns)]
        )
    for at in zip(*kept, strict=True):
        assert sum(at) <= limit
        assert sum(at) >= min(limit, int(sum(due.values())))
    for number, row in enumerate(kept):
        assert sum(row) / turns == pytest.approx(due[number], abs=0.02)
        assert max(row) - min(row) <= 1
        assert sum(one != two for one, two in zip(row, [*row[1:], row[0]], strict=True)) <= 2


def test_equal_parts_leave_one_for_each() -> None:
    assert Claims().keep([], 4, 0, 4, 3) == 1
    assert Claims().keep([], 5, 0, 5, 3) == 2


def test_who_has_told_nothing_is_taken_for_one_like_the_others() -> None:
    assert heard([wish("b", 4.0)]).keep([wish("a", 4.0)], 21, 0, 21, 3) == 7
    assert heard([wish("b", 4.0)]).keep([], 20, 0, 20, 2) == 10


def test_those_that_are_no_members_have_told_nothing() -> None:
    claims = Claims()
    claims.hear(["gone", Claims().tell([wish("b", 99.0)])], ["b"])
    assert claims.keep([wish("a")], 20, 0, 20, 2) == 10


def test_few_are_named_and_the_others_added_up() -> None:
    many = [wish(f"t{number:02}", 2.0, 1) for number in range(40)]
    vip = [wish("vip", 1.0, 3, 2.0), wish("", 3.0, 5)]
    claims = heard([*many, *vip])
    (told,) = claims.others.values()
    assert told[0] == vip[0]
    assert len(told) == NAMED + 1
    assert told[-1] == Wish("", 2.0 * (40 - NAMED + 1) + 3.0, 40 - NAMED + 1 + 5, 0.0)


def test_news_are_whose_wishes_they_are_and_not_how_many() -> None:
    claims = Claims()
    assert claims.news([wish("a")])
    assert claims.tell([wish("a")])
    assert not claims.news([wish("a", wanted=7)])
    assert claims.news([wish("a", floor=1.0)])
    assert claims.tell([]) == ""
    assert not claims.news([])


def test_those_of_all_workers_are_each_tenants_once() -> None:
    wishes = [wish("a", 4.0, 3, 1.0), wish("", 2.0, 5), wish("a", 4.0, 2, 0.5), wish("", 1.0, 1)]
    assert together(wishes) == [Wish("a", 4.0, 5, 1.5), Wish("", 3.0, 6, 0.0)]
