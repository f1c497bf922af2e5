import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.admission.accounts import Account, TierAccount, UserAccount, give_all
from proxy.admission.queue import FairQueue, may_wait
from proxy.errors import CapReached
from proxy.model import Limits, Tenant, Tier, User

ANYONE = UserAccount(User("app"))


def account(name: str, cap: int = 0) -> Account:
    return Account(
        Tenant(name, "standard", "shared"), TierAccount(Tier("standard")), Limits(max_connections=cap)
    )


def user(name: str, cap: int = 0) -> UserAccount:
    return UserAccount(User(name, limits=Limits(max_connections=cap)))


def test_tenants_take_turns_and_each_is_first_in_first_out() -> None:
    noisy, quiet = account("noisy"), account("quiet")
    queue = FairQueue(lambda: None)
    for i in range(3):
        queue.push(noisy, ANYONE, f"n{i}")
    queue.push(quiet, ANYONE, "q0")
    order = [queue.take()[0] for _ in range(4)]  # type: ignore[index]
    assert order == ["n0", "q0", "n1", "n2"]
    assert queue.take() is None
    assert (noisy.waiting, quiet.waiting) == (0, 0)


def test_a_tenant_at_its_cap_steps_aside_and_comes_back() -> None:
    freed: list[int] = []
    capped, other = account("capped", cap=1), account("other")
    queue = FairQueue(lambda: freed.append(1))
    queue.push(capped, ANYONE, "c0")
    queue.push(capped, ANYONE, "c1")
    queue.push(other, ANYONE, "o0")
    taken = queue.take()
    assert taken is not None
    assert taken[0] == "c0"
    assert queue.grantable(99) == 1
    assert queue.take()[0] == "o0"  # type: ignore[index]
    assert queue.take() is None
    assert len(queue) == 1
    give_all(taken[1])
    assert freed == [1]
    assert queue.take()[0] == "c1"  # type: ignore[index]


def test_one_put_back_is_the_next() -> None:
    a, b = account("a"), account("b")
    queue = FairQueue(lambda: None)
    queue.push(a, ANYONE, "a0")
    queue.push(b, ANYONE, "b0")
    waiter, permits = queue.take()  # type: ignore[misc]
    give_all(permits)
    queue.push_front(a, ANYONE, waiter)
    assert queue.take()[0] == "a0"  # type: ignore[index]


def test_a_user_at_its_cap_steps_aside_and_others_of_its_tenant_pass() -> None:
    freed: list[int] = []
    tenant, capped = account("tenant"), user("capped", cap=1)
    queue = FairQueue(lambda: freed.append(1))
    for waiter in ("c0", "c1", "c2"):
        queue.push(tenant, capped, waiter)
    queue.push(tenant, ANYONE, "a0")
    assert queue.grantable(99) == 2
    first = queue.take()
    assert first is not None
    assert first[0] == "c0"
    assert queue.take()[0] == "a0"  # type: ignore[index]
    assert queue.grantable(99) == 0
    assert queue.take() is None
    assert (len(queue), list(queue), tenant.waiting, capped.waiting) == (2, ["c1", "c2"], 2, 2)
    queue.push(tenant, ANYONE, "a1")
    assert queue.take()[0] == "a1"  # type: ignore[index]
    give_all(first[1])
    assert freed == [1]
    assert queue.take()[0] == "c1"  # type: ignore[index]


def test_a_users_cap_holds_over_its_tenants() -> None:
    one, two, capped = account("one"), account("two"), user("capped", cap=1)
    queue = FairQueue(lambda: None)
    queue.push(one, capped, "1")
    queue.push(two, capped, "2")
    taken = queue.take()
    assert taken is not None
    assert queue.take() is None
    give_all(taken[1])
    assert queue.take()[0] == "2"  # type: ignore[index]


def test_users_of_a_tenant_are_first_in_first_out_together() -> None:
    tenant, other = account("tenant"), user("other", cap=9)
    queue = FairQueue(lambda: None)
    for number, who in enumerate((ANYONE, other, ANYONE, other, other, ANYONE)):
        queue.push(tenant, who, str(number))
    assert [queue.take()[0] for _ in range(6)] == list("012345")  # type: ignore[index]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.integers(0, 2), st.sampled_from(["push", "take", "give", "leave", "count"])
        ),
        max_size=60,
    )
)
def test_permits_and_waiters_return_to_zero(script: list[tuple[int, int, str]]) -> None:
    accounts = [account(str(i), cap=i) for i in range(4)]
    users = [user(str(i), cap=i) for i in range(3)]
    queue = FairQueue(lambda: None)
    held: list[tuple] = []
    waiting: list[tuple[int, int, int]] = []
    for number, (who, whose, what) in enumerate(script):
        if what == "push":
            queue.push(accounts[who], users[whose], number)
            waiting.append((who, whose, number))
        elif what == "take":
            taken = queue.take()
            if taken is not None:
                held.append(taken[1])
                waiting = [w for w in waiting if w[2] != taken[0]]
            else:
                assert all(
                    any(c.full for c in accounts[a].server_counters(users[u])) for a, u, _ in waiting
                ), "one that nothing stands in the way of is served"
        elif what == "give" and held:
            give_all(held.pop())
        elif what == "count":
            assert (queue.grantable(99) > 0) == any(
                not any(c.full for c in accounts[a].server_counters(users[u])) for a, u, _ in waiting
            )
        elif what == "leave" and waiting:
            owner, person, waiter = waiting.pop()
            queue.remove(accounts[owner], users[person], waiter)
        for place in (accounts, users):
            assert all(not one.servers.limit or one.servers.used <= one.servers.limit for one in place)
        assert len(queue) == len(waiting) == sum(acc.waiting for acc in accounts)
        assert sorted(queue) == sorted(waiter for _, _, waiter in waiting)
    for permits in held:
        give_all(permits)
    for owner, person, waiter in waiting:
        queue.remove(accounts[owner], users[person], waiter)
    assert all(acc.idle for acc in accounts)
    assert not any(one.servers.used or one.waiting for one in users)


def test_one_that_steps_aside_again_and_again_waits_once() -> None:
    capped = account("capped", cap=1)
    queue = FairQueue(lambda: None)
    capped.servers.take()
    for number in range(50):
        queue.push(capped, ANYONE, number)
        assert queue.take() is None
        queue.remove(capped, ANYONE, number)
    assert capped.servers.waiting == 0, "nobody is left for whom to wait"


def test_a_full_queue_of_the_tenant_or_of_the_user() -> None:
    account = Account(
        Tenant("acme", "standard", "shared"), TierAccount(Tier("standard")), Limits(max_queue=3)
    )
    user = UserAccount(User("app", limits=Limits(max_queue=2)))
    account.waiting, user.waiting = 2, 1
    may_wait(account, user)
    user.waiting = 2
    with pytest.raises(CapReached, match='user "app"'):
        may_wait(account, user)
    account.waiting, user.waiting = 3, 0
    with pytest.raises(CapReached, match='tenant "acme"'):
        may_wait(account, user)


def test_a_full_queue_of_the_tier_also_when_a_tenant_changes_it() -> None:
    standard, vip = (TierAccount(Tier(name, caps=Limits(max_queue=2))) for name in ("standard", "vip"))
    tenant, user = Tenant("acme", "standard", "shared"), UserAccount(User("app"))
    account = Account(tenant, standard, Limits())
    queue = FairQueue(lambda: None)
    queue.push(account, user, "first")
    may_wait(account, user)
    queue.push(account, user, "second")
    with pytest.raises(CapReached, match='tier "standard"'):
        may_wait(account, user)
    account.update(tenant, vip, Limits())
    assert (standard.waiting, vip.waiting) == (0, 2)
    queue.remove(account, user, "first")
    may_wait(account, user)
    assert queue.take() is not None
    assert vip.waiting == account.waiting == 0
