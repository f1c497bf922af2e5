from __future__ import annotations

import pytest

from proxy.admission import guarantees
from proxy.admission.accounts import Account, Seeker, TierAccount, UserAccount
from proxy.admission.guarantees import KEEP, Guarantee, Kept
from proxy.admission.queue import ENTITLED, FairQueue
from proxy.admission.turns import Rota
from proxy.model import Limits, Tenant, Tier, User

USER = UserAccount(User("app"))
COMMON = TierAccount(Tier("standard"))


def account(name: str, guaranteed: float = 0.0, tier: TierAccount = COMMON) -> Account:
    return Account(Tenant(name, tier.tier.name, "shared"), tier, Limits(guaranteed_connections=guaranteed))


def queue(most: int = 20) -> FairQueue:
    made = FairQueue(lambda: None)
    made.most = most
    return made


@pytest.mark.parametrize(("share", "most", "amount"), [(3, 20, 3), (0.2, 20, 4), (0.2, 21, 5), (30, 20, 20)])
def test_a_guarantee_is_a_number_or_a_share_of_what_there_is(share: float, most: int, amount: int) -> None:
    found = guarantees.of(Rota(), account("a", share), most)
    assert found is not None
    assert found.amount == amount


def test_who_has_none_of_its_own_shares_that_of_its_tier() -> None:
    rota = Rota()
    vip = TierAccount(Tier("vip", caps=Limits(guaranteed_connections=0.2)))
    own, one, two = account("own", 2.0, vip), account("one", tier=vip), account("two", tier=vip)
    shared = guarantees.of(rota, one, 20)
    assert shared is not None
    assert shared is guarantees.of(rota, two, 20)
    assert shared is not guarantees.of(rota, own, 20)
    assert guarantees.of(rota, account("standard"), 20) is None


def test_a_new_limit_holds_at_once() -> None:
    rota, a = Rota(), account("a", 2.0)
    found = guarantees.of(rota, a, 20)
    kept = Kept()
    assert found is not None
    found.use(9)
    found.use(-9)
    kept.ask(found, 0.0)
    assert kept.count == 2
    a.update(a.tenant, a.tier, Limits(guaranteed_connections=5.0))
    assert guarantees.of(rota, a, 20) is found
    assert kept.count == 5


def test_all_that_wait_are_asked_for_at_once_as_soon_as_they_are_counted() -> None:
    guarantee = Guarantee(10)
    group = Grouped()
    guarantee.use(4)
    guarantee.join(group)
    assert guarantee.held == 6, "half as many more"
    guarantee.claim(9)
    assert guarantee.held == 9
    guarantee.claim(40)
    assert guarantee.held == 10, "there are no more"
    guarantee.leave(group)
    assert guarantee.held == 4, "nobody waits"
    guarantee.join(group)
    assert guarantee.held == 6, "of another time nothing is known"


class Grouped:
    def update(self) -> None:
        pass


def test_what_is_kept_is_what_was_needed_of_late() -> None:
    guarantee, kept = Guarantee(3), Kept()
    assert not kept.look(0.0)
    kept.ask(guarantee, 10.0)
    assert kept.count == 1, "the first that asks finds one"
    for used, left in ((1, 0), (3, 0), (-1, 0), (-3, 3)):
        guarantee.use(used)
        assert kept.count == left
    assert kept.look(10.0)
    assert kept.count == 3
    guarantee.use(2)
    guarantee.use(-2)
    kept.ask(guarantee, 10.0 + KEEP)
    assert kept.look(10.1 + KEEP)
    assert kept.count == 2
    assert kept.look(10.1 + 2 * KEEP)
    assert kept.count == 0
    assert not kept.look(10.2 + 2 * KEEP)
    guarantee.use(1)
    assert kept.count == 0, "it is nobody's affair any more"


def test_who_asks_again_gets_the_same_until_it_is_another() -> None:
    rota, kept = Rota(), Kept()
    vip = TierAccount(Tier("vip", caps=Limits(guaranteed_connections=0.2)))
    a, b, own, none = (
        account("a", tier=vip),
        account("b", tier=vip),
        account("own", 2.0, vip),
        account("none"),
    )
    shared = kept.asked(rota, a, 20, 0.0)
    assert shared is not None
    shared.use(4)
    shared.use(-4)
    assert kept.count == 4
    assert [kept.asked(rota, who, 20, 0.0) for who in (a, b, none, a)] == [shared, shared, None, shared]
    found = kept.asked(rota, own, 20, 0.0)
    assert found is guarantees.of(rota, own, 20)
    assert kept.count == 5
    assert kept.asked(rota, own, 20, 0.0) is found
    own.update(own.tenant, own.tier, Limits(guaranteed_connections=1.0))
    assert kept.asked(rota, own, 20, 0.0) is found
    assert found is not None
    assert found.amount == 1
    assert kept.asked(rota, a, 10, 0.0) is shared
    assert shared.amount == 2, "a share is one of what there is now"
    own.update(own.tenant, own.tier, Limits())
    assert kept.asked(rota, own, 10, 0.0) is shared


def test_who_asks_again_is_remembered_for_as_long_as_who_asks_first() -> None:
    rota, kept, a = Rota(), Kept(), account("a", 1.0)
    found = kept.asked(rota, a, 20, 0.0)
    assert kept.asked(rota, a, 20, KEEP) is found
    assert kept.look(1.5 * KEEP)
    assert kept.count == 1
    assert kept.look(2.5 * KEEP)
    assert kept.count == 0
    rota.rest()
    assert kept.asked(rota, a, 20, 3 * KEEP) is rota.guarantees[a]
    assert kept.count == 1


def test_every_pool_keeps_what_is_left() -> None:
    guarantee, pools = Guarantee(3), [Kept(), Kept(), Kept()]
    guarantee.use(3)
    for kept in pools:
        kept.ask(guarantee, 0.0)
    for used, left in ((-1, 1), (-2, 3), (2, 1)):
        guarantee.use(used)
        assert [kept.count for kept in pools] == [left] * 3
    guarantee.use(-1)
    for kept in pools:
        kept.look(0.0)
        if kept is not pools[0]:
            kept.look(2 * KEEP)
    guarantee.use(1)
    assert pools[0].count == 1, "the only one that is left hears of it"


def test_who_uses_it_has_not_forgotten_it() -> None:
    guarantee, kept = Guarantee(3), Kept()
    kept.ask(guarantee, 0.0)
    guarantee.use(2)
    assert kept.look(10 * KEEP)
    guarantee.use(-1)
    assert kept.count == 1


def test_the_entitled_come_first_and_in_turn() -> None:
    waiting = queue()
    vip = TierAccount(Tier("vip", caps=Limits(guaranteed_connections=2)))
    a, b, own, other = account("a", tier=vip), account("b", tier=vip), account("own", 1.0), account("other")
    waiting.push(other, USER, "other")
    for name, who in (("a0", a), ("a1", a), ("b0", b), ("own", own)):
        waiting.rota.standing(who).due = 500.0
        waiting.push(who, USER, name)
    taken = []
    for _ in range(3):
        found = waiting.take(entitled=True)
        assert found is not None
        taken.append(found[0])
        who = own if found[0] == "own" else vip
        waiting.rota.guarantees[who].use(1)
    assert taken == ["a0", "own", "b0"]
    assert waiting.rota.now == 0.0, "they were not served at their rounds"
    assert waiting.take(entitled=True) is None
    assert [waiting.take()[0] for _ in range(2)] == ["other", "a1"]  # type: ignore[index]
    assert waiting.take() is None


def test_who_gives_back_is_entitled_again() -> None:
    waiting, a, b = queue(), account("a", 1.0), account("b")
    waiting.claim = claim = Seeker()
    guarantee = guarantees.of(waiting.rota, a, 20)
    assert guarantee is not None
    guarantee.use(1)
    waiting.rota.standing(a).due = 500.0
    waiting.push(b, USER, "b")
    waiting.push(a, USER, "a")
    assert waiting.number(None) == 0
    guarantee.use(-1)
    assert waiting.number(None) == ENTITLED
    assert [waiting.take()[0] for _ in range(2)] == ["a", "b"]  # type: ignore[index]
    assert claim.counter is None


def test_one_that_is_put_back_or_leaves_a_group() -> None:
    waiting, a, b, other = queue(), account("a", 1.0), account("b", 1.0), account("other")
    for name, who in (("a", a), ("b", b), ("other", other)):
        waiting.push(who, USER, name)
    taken = waiting.take()
    assert taken is not None
    for counter in taken[1]:
        counter.give()
    waiting.push_front(a, USER, "a")
    assert [line.account for line in waiting.in_turn()] == [a, b, other]
    waiting.remove(a, USER, "a")
    waiting.remove(b, USER, "b")
    assert waiting.number(None) == 0
    assert waiting.grantable(10) == 1


def test_guarantees_that_nobody_uses_are_forgotten() -> None:
    waiting, kept, a = queue(), Kept(), account("a", 1.0)
    guarantee = guarantees.of(waiting.rota, a, 20)
    assert guarantee is not None
    kept.ask(guarantee, 0.0)
    waiting.push(a, USER, "a")
    waiting.rota.rest()
    waiting.remove(a, USER, "a")
    waiting.rota.rest()
    assert waiting.rota.guarantees == {a: guarantee}
    kept.look(2 * KEEP)
    waiting.rota.rest()
    assert waiting.rota.guarantees == {}
