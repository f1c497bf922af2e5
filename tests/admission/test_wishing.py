from __future__ import annotations

from proxy.admission import guarantees
from proxy.admission.accounts import Account, Counter, TierAccount, UserAccount
from proxy.admission.queue import FairQueue
from proxy.admission.turns import Rota
from proxy.admission.wishing import NAMED, Wishes, demand
from proxy.model import Limits, Tenant, Tier, User

USER = UserAccount(User("app"))
TIER = TierAccount(Tier("standard", weight=2))


def account(name: str, guaranteed: float = 0.0, tier: TierAccount = TIER) -> Account:
    return Account(Tenant(name, tier.tier.name, "shared"), tier, Limits(guaranteed_connections=guaranteed))


class Wanting:
    """The connections of a cluster, of which tenants want so many."""

    def __init__(self) -> None:
        self.rota = Rota(name="cluster")
        self.counter = Counter("cluster", 8, rota=self.rota)
        self.counter.reserve = self
        self.counter.attended = True
        self.found: dict[Account, int] = {}

    def demand(self) -> dict[Account, int]:
        return self.found

    def spare(self) -> int:
        return 0

    def surrender(self, count: int) -> None: ...


def test_the_most_of_a_second_is_wanted_and_small_changes_are_not_told() -> None:
    place, wishes, a = Wanting(), Wishes(), account("a")
    place.found = {a: 8}
    assert wishes.news(place.counter, 10.0) == [("a", 2, 8, 0.0)]
    place.found = {a: 1}
    assert wishes.news(place.counter, 10.05) is None, "it is not looked at so soon"
    assert wishes.news(place.counter, 10.3) is None, "it wanted eight just now"
    assert wishes.news(place.counter, 11.3) == [("a", 2, 1, 0.0)]
    place.found = {a: 8}
    wishes.news(place.counter, 11.6)
    place.found = {a: 9}
    assert wishes.news(place.counter, 11.9) is None


def test_it_is_said_again_while_somebody_is_served_and_when_it_is_over() -> None:
    place, wishes, a = Wanting(), Wishes(), account("a")
    place.found = {a: 8}
    assert wishes.news(place.counter, 10.0)
    assert wishes.news(place.counter, 12.0) is None
    place.rota.now += 1.0
    assert wishes.news(place.counter, 13.2)
    assert wishes.served(place.counter)
    assert not wishes.served(place.counter)
    wishes.divided(place.counter, {"a": 0.25, "b": 0.5})
    assert place.rota.standing(a).part == 0.25
    place.found, place.counter.attended = {}, False
    assert wishes.due(place.counter, 15.0)
    assert wishes.news(place.counter, 15.0) == []
    assert not wishes.due(place.counter, 20.0)


def test_a_new_ledger_hears_it_again() -> None:
    place, wishes = Wanting(), Wishes()
    place.found = {account("a"): 8}
    assert wishes.news(place.counter, 10.0)
    wishes.say_again()
    assert wishes.news(place.counter, 10.0)


def test_parts_of_who_does_not_want_any_more_are_forgotten() -> None:
    place, wishes, a = Wanting(), Wishes(), account("a")
    place.found = {a: 8}
    wishes.news(place.counter, 10.0)
    wishes.divided(place.counter, {"a": 0.25})
    wishes.divided(place.counter, {})
    assert place.rota.standing(a).part == 1.0


def test_guarantees_are_a_part_of_what_is_wanted_also_of_who_is_not_here_now() -> None:
    place, wishes = Wanting(), Wishes()
    vip = TierAccount(Tier("vip", caps=Limits(guaranteed_connections=4)))
    a, b, own = account("a", tier=vip), account("b", tier=vip), account("own", 2.0)
    for each in (a, own):
        guarantee = guarantees.of(place.rota, each, 8)
        assert guarantee is not None
        guarantee.use(2)
    place.found = {a: 3, b: 1}
    assert wishes.news(place.counter, 10.0) == [
        ("a", vip.tier.weight, 3, 1.5),
        ("b", vip.tier.weight, 1, 0.5),
        ("cluster guaranteed to tenant own", 1.0, 2, 2),
    ]


def test_what_is_guaranteed_is_said_once_whether_its_tenant_is_there_or_comes_again_and_again() -> None:
    place, wishes, own = Wanting(), Wishes(), account("own", 2.0)
    guarantee = guarantees.of(place.rota, own, 8)
    assert guarantee is not None
    guarantee.use(2)
    present = [("own", TIER.tier.weight, 3, 2.0)]
    absent = [("cluster guaranteed to tenant own", 1.0, 2, 2)]
    for now, found, told in (
        (10.0, {own: 3}, present),
        (10.5, {}, None),  # between two transactions of its only client
        (12.0, {}, absent),
        (12.5, {own: 3}, present),
    ):
        place.found = dict(found)
        assert wishes.news(place.counter, now) == told


def test_those_of_least_weight_are_added_up() -> None:
    place, wishes = Wanting(), Wishes()
    heavy = TierAccount(Tier("vip", weight=5))
    place.found = {account(f"t{number:03}"): 2 for number in range(NAMED + 9)} | {account("z", tier=heavy): 1}
    told = wishes.news(place.counter, 10.0)
    assert told is not None
    assert len(told) == NAMED + 1
    assert told[0].tenant == "z"
    assert told[-1] == ("", 20, 20, 0)


def test_who_waits_for_a_cap_is_known_by_its_seekers() -> None:
    tier = TierAccount(Tier("standard", caps=Limits(max_connections=1)))
    queue: FairQueue = FairQueue(lambda: None)
    a = account("a", tier=tier)
    for name in ("one", "two", "three"):
        queue.push(a, USER, name)
    assert list(queue.demand()) == [(a, 3)]
    assert queue.take() is not None
    assert queue.take() is None
    assert list(queue.demand()) == []
    assert demand(tier.servers) == {a: 3}
