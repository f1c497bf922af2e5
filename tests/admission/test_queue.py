from hypothesis import given
from hypothesis import strategies as st

from proxy.admission.accounts import Account, TierAccount, give_all
from proxy.admission.queue import FairQueue
from proxy.model import Limits, Tenant, Tier

TIER = TierAccount(Tier("standard"))


def account(name: str, cap: int = 0) -> Account:
    return Account(
        Tenant(name, "standard", "shared"), TierAccount(Tier("standard")), Limits(max_connections=cap)
    )


def test_tenants_take_turns_and_each_is_first_in_first_out() -> None:
    noisy, quiet = account("noisy"), account("quiet")
    queue: FairQueue[str] = FairQueue(lambda: None)
    for i in range(3):
        queue.push(noisy, f"n{i}")
    queue.push(quiet, "q0")
    order = [queue.take()[0] for _ in range(4)]  # type: ignore[index]
    assert order == ["n0", "q0", "n1", "n2"]
    assert queue.take() is None
    assert (noisy.waiting, quiet.waiting) == (0, 0)


def test_a_tenant_at_its_cap_steps_aside_and_comes_back() -> None:
    freed: list[int] = []
    capped, other = account("capped", cap=1), account("other")
    queue: FairQueue[str] = FairQueue(lambda: freed.append(1))
    queue.push(capped, "c0")
    queue.push(capped, "c1")
    queue.push(other, "o0")
    taken = queue.take()
    assert taken is not None
    assert taken[0] == "c0"
    assert queue.grantable() == 1
    assert queue.take()[0] == "o0"  # type: ignore[index]
    assert queue.take() is None
    assert len(queue) == 1
    give_all(taken[1])
    assert freed == [1]
    assert queue.take()[0] == "c1"  # type: ignore[index]


def test_one_put_back_is_the_next() -> None:
    a, b = account("a"), account("b")
    queue: FairQueue[str] = FairQueue(lambda: None)
    queue.push(a, "a0")
    queue.push(b, "b0")
    waiter, permits = queue.take()  # type: ignore[misc]
    give_all(permits)
    queue.push_front(a, waiter)
    assert queue.take()[0] == "a0"  # type: ignore[index]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["push", "take", "give", "leave"])), max_size=60)
)
def test_permits_and_waiters_return_to_zero(script: list[tuple[int, str]]) -> None:
    accounts = [account(str(i), cap=i) for i in range(4)]
    queue: FairQueue[int] = FairQueue(lambda: None)
    held: list[tuple] = []
    waiting: list[tuple[int, int]] = []
    for number, (who, what) in enumerate(script):
        if what == "push":
            queue.push(accounts[who], number)
            waiting.append((who, number))
        elif what == "take":
            taken = queue.take()
            if taken is not None:
                held.append(taken[1])
                waiting = [w for w in waiting if w[1] != taken[0]]
        elif what == "give" and held:
            give_all(held.pop())
        elif what == "leave" and waiting:
            owner, waiter = waiting.pop()
            queue.remove(accounts[owner], waiter)
        for i, acc in enumerate(accounts):
            assert not i or acc.servers.used <= i
        assert len(queue) == len(waiting) == sum(acc.waiting for acc in accounts)
    for permits in held:
        give_all(permits)
    for owner, waiter in waiting:
        queue.remove(accounts[owner], waiter)
    assert all(acc.idle for acc in accounts)
