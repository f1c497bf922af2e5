"""The endpoint of a new server connection."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.model import Endpoint, Role
from proxy.routing.choose import choose

ENDPOINTS = st.lists(
    st.builds(Endpoint, st.sampled_from("abcdef"), st.integers(1, 3), st.sampled_from(Role)), unique=True
)


def test_a_dedicated_cluster_has_its_primary() -> None:
    primary, replica = Endpoint("p", 1, Role.PRIMARY), Endpoint("r", 1, Role.REPLICA)
    assert choose([replica, primary], lambda e: True, lambda e: 9 if e is primary else 0) is primary
    assert choose([primary, replica], lambda e: e is replica, lambda e: 0) is None


def test_coordinators_fill_up_evenly_from_the_first() -> None:
    endpoints = [Endpoint(name, 1, Role.COORDINATOR) for name in "abc"]
    load = dict.fromkeys(endpoints, 0)
    order = []
    for _ in range(7):
        chosen = choose(endpoints, lambda e: e.host != "b", load.__getitem__)
        assert chosen is not None
        load[chosen] += 1
        order.append(chosen.host)
    assert "".join(order) == "acacaca"


@given(ENDPOINTS, st.data())
def test_the_least_loaded_healthy_writer_or_none(endpoints: list[Endpoint], data: st.DataObject) -> None:
    healthy = {e: data.draw(st.booleans()) for e in endpoints}
    load = {e: data.draw(st.integers(0, 3)) for e in endpoints}
    chosen = choose(endpoints, healthy.__getitem__, load.__getitem__)
    able = [e for e in endpoints if healthy[e] and e.role is not Role.REPLICA]
    if not able:
        assert chosen is None
    else:
        least = [e for e in able if load[e] == min(load[o] for o in able)]
        assert chosen == least[0]


def test_nothing_to_choose_from() -> None:
    assert choose([], lambda e: True, lambda e: 0) is None
