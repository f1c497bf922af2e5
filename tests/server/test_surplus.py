"""What a pool has not needed for a while is closed, however it is used."""

from __future__ import annotations

import pytest

from proxy.model import ServerOptions
from tests.server.keeping import waiter
from tests.server.test_janitor import World

OPTIONS = ServerOptions(server_check_delay=0, server_surplus_timeout=10.0)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch, OPTIONS)


def use(world: World, count: int, seconds: int) -> None:
    """So many at once, a different one each time."""
    for _ in range(seconds):
        servers = [world.pool.acquire(waiter(), world.now) for _ in range(count)]
        assert all(servers)
        world.sweep(0.5)
        for server in servers:
            assert server is not None
            world.pool.checkin(server)
        world.pool.idle.reverse()
        world.sweep(0.5, thorough=True)


def test_those_that_nobody_needed_are_closed(world: World) -> None:
    world.idle(3)
    use(world, 2, 9)
    assert len(world.pool.idle) == 3, "it has not been long"
    use(world, 2, 3)
    assert len(world.pool.idle) == 2
    use(world, 1, 9)
    assert len(world.pool.idle) == 2
    use(world, 1, 14)
    assert len(world.pool.idle) == 1


def test_the_minimum_stays(world: World) -> None:
    world.pools.options = world.pool.options = ServerOptions(
        server_check_delay=0, server_surplus_timeout=10.0, min_pool_size=2
    )
    world.pool.sessions = 1
    world.idle(3)
    use(world, 1, 30)
    assert len(world.pool.idle) == 2


def test_without_it_they_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, ServerOptions(server_check_delay=0, server_surplus_timeout=0))
    world.idle(3)
    use(world, 1, 60)
    assert len(world.pool.idle) == 3


def test_pools_that_are_gone_are_forgotten(world: World) -> None:
    world.sweep(1.0, thorough=True)
    assert len(world.pools.surplus) == 1
    world.sweep(world.pools.options.pool_idle_timeout + 1, thorough=True)
    assert len(world.pools.surplus) == 0
