from __future__ import annotations

from proxy.admission import guarantees
from proxy.admission.claiming import claimed
from tests.admission.test_guarantees import USER, account, queue


def test_the_entitled_want_as_many_at_once_as_wait_and_are_theirs() -> None:
    waiting, vip, other = queue(), account("vip", 3.0), account("other")
    assert claimed(waiting) == 1
    for number in range(5):
        waiting.push(other, USER, number)
    assert claimed(waiting) == 1, "who has no guarantee takes its turns"
    for count in (1, 2, 3, 3):
        waiting.push(vip, USER, f"vip {count}")
        assert claimed(waiting) == count
    guarantee = guarantees.of(waiting.rota, vip, 20)
    assert guarantee is not None
    guarantee.use(3)
    assert claimed(waiting) == 1
