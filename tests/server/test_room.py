from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import pytest

from proxy.admission.accounts import Counter, Hope
from proxy.model import Cluster, ClusterKind
from proxy.server import room as under_test
from proxy.server.room import Room

C = Cluster("c", ClusterKind.SHARED, (), max_connections=4)
OTHER = Cluster("other", ClusterKind.SHARED, (), max_connections=4)


@dataclass(eq=False)
class Connection:
    opened_at: float = 0.0
    idle_since: float = 0.0


@dataclass(eq=False)
class Pool:
    cluster: Cluster = C
    idle: deque[Any] = field(default_factory=deque)
    closing: set[Any] = field(default_factory=set)
    queue: list[int] = field(default_factory=list)
    size: int = 1

    def close_idle(self, server: Any) -> None:
        self.idle.remove(server)
        self.closing.add(server)


class Lender:
    def __init__(self) -> None:
        self.hoped: list[Counter] = []

    def touch(self, counter: Counter) -> None:
        """Nothing to say."""

    def repay(self, counter: Counter) -> None:
        raise AssertionError("not here")

    def limited(self, counter: Counter, before: int) -> None:
        counter.allowance = 1

    def hope(self, counter: Counter, hope: Hope) -> None:
        assert not hope.granted(), "nobody is there to take it"
        self.hoped.append(counter)


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "monotonic", lambda: 100.0)


def test_what_is_sought_is_closed_by_age_and_not_before_its_turn_is_over() -> None:
    old, older, fresh = Connection(idle_since=2.0), Connection(idle_since=1.0), Connection(opened_at=99.95)
    one, two = Pool(idle=deque([old, fresh])), Pool(idle=deque([older]))
    room = Room(0, lambda: [one, two], Lender())
    room.cluster("c").sought = True
    room.came_idle(one)
    assert (one.closing, two.closing) == (set(), {older})
    room.came_idle(one)
    assert one.closing == set(), "one is on its way"
    two.closing.clear()
    room.surrender_sought()
    assert one.closing == {old}
    one.closing.clear()
    room.surrender_sought()
    assert list(one.idle) == [fresh]


def test_a_pool_that_needs_its_connections_keeps_them() -> None:
    pool = Pool(idle=deque([Connection()]), queue=[1])
    room = Room(0, lambda: [pool], Lender())
    counter = room.cluster("c")
    assert counter.reserve is not None
    assert counter.reserve.spare() == 0
    counter.sought = True
    room.surrender_sought()
    assert len(pool.idle) == 1


def test_what_comes_back_is_owed_to_another_worker_once() -> None:
    pool = Pool(queue=[1])
    room = Room(0, lambda: [pool], Lender())
    assert not room.owed(pool, Connection(), 100.0)
    room.servers.owed = 1
    assert not room.owed(pool, Connection(opened_at=99.95), 100.0), "its turn is not over"
    assert room.owed(pool, Connection(), 100.0)
    pool.closing.add(Connection())
    assert not room.owed(pool, Connection(), 100.0)


def test_what_comes_back_is_owed_to_a_pool_that_has_none() -> None:
    rich, poor, elsewhere = Pool(queue=[1]), Pool(queue=[1], size=0), Pool(cluster=OTHER, queue=[1], size=0)
    pools = [rich, elsewhere]
    room = Room(0, lambda: pools, None)
    counter, _ = room.counters(C)
    for _ in range(4):
        counter.take()
    counter.when_free(lambda: None)
    assert not room.owed(rich, Connection(), 100.0)
    pools.append(poor)
    assert room.owed(rich, Connection(), 100.0)


def test_where_the_cap_is_shared_the_others_are_asked_before_anything_is_closed() -> None:
    full, wanting = Pool(idle=deque([Connection()])), Pool()
    for lender, closed in ((None, 1), (Lender(), 0)):
        room = Room(0, lambda: [full, wanting], lender)
        room.counters(C)
        room.make(wanting)
        assert len(full.closing) == closed
        full.idle, full.closing = deque([Connection()]), set()


def test_a_permit_for_nobody_is_only_hoped_for() -> None:
    lender = Lender()
    room = Room(1, list, lender)
    assert not room.hope(None)
    assert room.hope(room.servers)
    assert lender.hoped == [room.servers]
    assert Room(1, list, None).hope(Counter("alone", 1))
