"""Two thousand clients of three hundred tenants over three tiers: nothing wrong, nothing lost, no cap exceeded."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.integration import servers
from tests.waiting import wait_until

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.integration.running import Proxy

SECONDS = float(os.environ.get("TIERGATE_LOAD_SECONDS", "7"))
CLIENTS = 2_000
TENANTS = 100  # of each tier
POOL_SIZE = {"ent": 12, "vip-1": 12, "shared": 16}
TENANT_CAP = 2


def tables(
    dedicated: EmbeddedServer, vip: EmbeddedServer, shared: EmbeddedServer
) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = servers.all_tiers(dedicated, vip, shared)
    for cluster, size in POOL_SIZE.items():
        found[f"cluster.{cluster}"] |= {"pool_size": size, "max_connections": size}
    found["user.app"]["auth_type"] = "trust"
    found["tier.standard"] = {"limits": {"max_connections": TENANT_CAP}}
    for n in range(TENANTS):
        found[f"tenant.e{n}"] = {"tier": "enterprise", "cluster": "ent"}
        found[f"tenant.v{n}"] = {"tier": "vip", "shard_id": 1}
        found[f"tenant.s{n}"] = {"tier": "standard"}
    return found


class Sampler:
    """Looks at the servers themselves, and remembers the most it has seen."""

    def __init__(self, watched: dict[str, EmbeddedServer]) -> None:
        self._watched = watched
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.samples = 0
        self.most_backends = dict.fromkeys(watched, 0)
        self.most_of_a_tenant = 0
        self.failure: Exception | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()

    def _run(self) -> None:
        try:
            connections = {
                name: servers.connect(server, "postgres") for name, server in self._watched.items()
            }
            while not self._over.wait(0.03):
                for name, connection in connections.items():
                    self._look(name, connection)
                self.samples += 1
            for connection in connections.values():
                connection.close()
        except Exception as error:
            self.failure = error

    def _look(self, name: str, connection: psycopg.Connection) -> None:
        rows = connection.execute(
            "SELECT application_name, count(*), count(*) FILTER (WHERE state <> 'idle') FROM pg_stat_activity"
            " WHERE usename = 'app' AND backend_type = 'client backend' GROUP BY 1"
        ).fetchall()
        self.most_backends[name] = max(self.most_backends[name], sum(row[1] for row in rows))
        if name == "shared":
            self.most_of_a_tenant = max(self.most_of_a_tenant, max((row[2] for row in rows), default=0))


@pytest.mark.load
@pytest.mark.timeout(int(SECONDS) + 180)
def test_two_thousand_clients(
    dedicated: EmbeddedServer,
    vip: EmbeddedServer,
    shared: EmbeddedServer,
    start_proxy: Callable[..., Proxy],
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    proxy = start_proxy(tables(dedicated, vip, shared), log_level="warning")
    tenants = [f"{tier}{n}" for n in range(TENANTS) for tier in "evs"]
    sampler = Sampler({"ent": dedicated, "vip-1": vip, "shared": shared})
    with sampler.running():
        ended = subprocess.run(
            [
                sys.executable, "-m", "tests.integration.load_clients", str(proxy.port), servers.DATABASE,
                str(SECONDS), str(CLIENTS), *tenants,
            ],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert ended.returncode == 0, ended.stderr[-2000:]
    result = json.loads(ended.stdout)
    print(result, sampler.samples, sampler.most_backends, sampler.most_of_a_tenant)
    assert (result["wrong"], result["lost"], result["errors"]) == (0, 0, {}), ended.stderr[-2000:]
    assert result["done"] >= CLIENTS, "every client has done something"
    assert sampler.failure is None
    assert sampler.samples > 10
    for cluster, most in sampler.most_backends.items():
        assert 0 < most <= POOL_SIZE[cluster]
    assert 0 < sampler.most_of_a_tenant <= TENANT_CAP
    worker = proxy.worker
    wait_until(lambda: not worker.plane.sessions)
    wait_until(lambda: not any(pool.active or pool.queue for pool in worker.pools))
    assert all(account.idle for account in worker.plane.accounts)
