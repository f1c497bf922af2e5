from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from proxy.admission.accounts import Counter, Hope
from proxy.admission.turns import Rota
from proxy.model import Cluster, ClusterKind
from proxy.server import room as under_test
from proxy.server.room import Claim, Room

C = Cluster("c", ClusterKind.SHARED, (), max_connections=4)
OTHER = Cluster("other", ClusterKind.SHARED, (), max_connections=4)


@dataclass(eq=False)
class Connection:
    opened_at: float = 0.0
    idle_since: float = 0.0


@dataclass(eq=False)
class Pool:
    cluster: Cluster = C
    idle: list[Any] = field(default_factory=list)
    closing: set[Any] = field(default_factory=set)
    queue: Queue = field(default_factory=lambda: Queue())
    size: int = 1
    kept: int = 0
    caps: tuple[Counter, ...] = ()

    def close_idle(self, server: Any) -> None:
        self.idle.remove(server)
        self.closing.add(server)
        for counter in self.caps:
            counter.leaving += 1

    @property
    def spare(self) -> int:
        return len(self.idle) - self.kept

    def hung_up(self) -> None:
        for counter in self.caps:
            counter.leaving -= len(self.closing)
        self.closing.clear()

    def serve(self) -> None:
        """Nothing to do."""


class Queue(list[int]):
    """The rounds of those who wait."""

    def number(self, rota: Rota | None) -> int:
        return min(self)


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
    one, two = Pool(idle=[old, fresh]), Pool(idle=[older])
    room = Room(0, lambda: [one, two], Lender())
    one.caps = two.caps = room.counters(C)
    room.cluster("c").sought = True
    room.came_idle(one)
    assert (one.closing, two.closing) == (set(), {older})
    room.came_idle(one)
    assert one.closing == set(), "one is on its way"
    two.hung_up()
    room.look()
    assert one.closing == {old}
    one.hung_up()
    room.look()
    assert list(one.idle) == [fresh]


def test_a_pool_that_needs_its_connections_keeps_them() -> None:
    pool = Pool(idle=[Connection()], queue=Queue([1]))
    room = Room(0, lambda: [pool], Lender())
    counter = room.cluster("c")
    assert counter.reserve is not None
    assert counter.reserve.spare() == 0
    counter.sought = True
    room.look()
    assert len(pool.idle) == 1


def test_what_comes_back_is_owed_to_another_worker_once() -> None:
    pool = Pool(queue=Queue([1]))
    room = Room(0, lambda: [pool], Lender())
    pool.caps = room.counters(C)
    assert not room.owed(pool, Connection(), 100.0)
    room.servers.owed = 1
    assert not room.owed(pool, Connection(opened_at=99.95), 100.0), "its turn is not over"
    assert room.owed(pool, Connection(), 100.0)
    pool.idle.append(connection := Connection())
    pool.close_idle(connection)
    assert not room.owed(pool, Connection(), 100.0)


def test_what_comes_back_is_owed_to_a_pool_whose_turn_it_is() -> None:
    rich, other = Pool(idle=[Connection()], queue=Queue([500])), Pool(queue=Queue([399]))
    room = Room(0, lambda: [rich, other], None)
    rich.caps = other.caps = room.counters(C)
    counter, _ = rich.caps
    for _ in range(4):
        counter.take()
    assert not room.owed(rich, Connection(), 100.0)
    counter.when_free(Claim(other))
    assert room.owed(rich, Connection(), 100.0)
    assert not room.owed(rich, Connection(opened_at=99.95), 100.0), "its turn is not over"
    rich.queue[:] = [490]
    assert not room.owed(rich, Connection(), 100.0), "it is not far enough ahead to open another for it"
    other.size = 0
    assert room.owed(rich, Connection(), 100.0), "but one that has none does not wait for that"
    rich.queue[:] = [100]
    assert not room.owed(rich, Connection(), 100.0), "unless it is not its turn"
    rich.queue.clear()
    assert room.owed(rich, Connection(), 100.0)


def test_who_is_entitled_waits_for_no_turn_to_be_over() -> None:
    rich, entitled = Pool(idle=[Connection(99.95, 99.95)], queue=Queue([0])), Pool(queue=Queue([-1]))
    room = Room(0, lambda: [rich, entitled], None)
    rich.caps = entitled.caps = room.counters(C)
    counter, _ = rich.caps
    for _ in range(4):
        counter.take()
    counter.when_free(Claim(entitled))
    assert room.owed(rich, rich.idle[0], 100.0)
    rich.queue[:] = [-1]
    assert not room.owed(rich, rich.idle[0], 100.0), "unless somebody here is as well"
    rich.queue.clear()
    rich.kept = 1
    assert not room.owed(rich, rich.idle[0], 100.0), "or it is kept for somebody who is"
    room.came_idle(rich)
    room.look()
    assert not rich.closing
    rich.kept = 0
    room.came_idle(rich)
    assert rich.closing


def test_what_was_used_a_moment_ago_is_taken_only_for_a_pool_that_has_none() -> None:
    used = Pool(idle=[Connection(idle_since=99.95)])
    wanting = Pool(queue=Queue([5]))
    room = Room(0, lambda: [used, wanting], None)
    used.caps = wanting.caps = room.counters(C)
    counter, _ = used.caps
    for _ in range(4):
        counter.take()
    counter.when_free(Claim(wanting))
    room.make(wanting)
    room.came_idle(used)
    assert not used.closing
    used.idle[0].idle_since = 99.8
    room.make(wanting)
    assert not used.closing, "it is not looked for at every turn"
    room.look()
    assert len(used.closing) == 1
    used.hung_up()
    used.idle.append(Connection(idle_since=100.0))
    wanting.size = 0
    room.came_idle(used)
    assert len(used.closing) == 1


def test_where_the_cap_is_shared_the_others_are_asked_before_anything_is_closed() -> None:
    full, wanting = Pool(idle=[Connection()]), Pool(queue=Queue([1]))
    for lender, closed in ((None, 1), (Lender(), 0)):
        room = Room(0, lambda: [full, wanting], lender)
        full.caps = wanting.caps = room.counters(C)
        room.cluster("c").when_free(Claim(wanting))
        for _ in range(4):
            room.cluster("c").take()
        room.make(wanting)
        assert len(full.closing) == closed
        full.idle, full.closing = [Connection()], set()


def test_a_permit_for_nobody_is_only_hoped_for() -> None:
    lender = Lender()
    room = Room(1, list, lender)
    assert not room.hope(None)
    assert room.hope(room.servers)
    assert lender.hoped == [room.servers]
    assert Room(1, list, None).hope(Counter("alone", 1))
