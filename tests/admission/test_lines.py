"""The waiters of one user, against a list that numbers nothing and keeps no gaps."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.admission.lines import Waiters
from tests.examples import examples


@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["push", "push", "front", "take", "take", "remove"]), st.integers(1, 40)),
        max_size=60,
    )
)
def test_first_in_first_out_whatever_room_is_left(script: list[tuple[str, int]]) -> None:
    waiters = Waiters()
    reference: list[tuple[int, object]] = []
    last = first = 0
    for what, times in script:
        for _ in range(times):
            if what == "push":
                last += 1
                reference.append((last, object()))
                waiters.push(*reference[-1])
            elif what == "front":
                first -= 1
                reference.insert(0, (first, object()))
                waiters.push_front(*reference[0])
            elif what == "take" and reference:
                assert waiters.take() is reference.pop(0)[1]
            elif what == "remove" and reference:
                assert waiters.remove(reference.pop(times % len(reference))[1])
                assert not waiters.remove(object())
        assert list(waiters) == reference
        assert len(waiters) == len(reference)
        assert waiters.first() == (reference[0] if reference else None)
