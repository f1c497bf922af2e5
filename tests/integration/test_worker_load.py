"""The load run with four workers, some of which are killed: only their clients are lost, and no cap is exceeded."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from tests.integration import servers
from tests.integration.running import configuration
from tests.integration.test_load import CLIENTS as ALL_CLIENTS
from tests.integration.test_load import POOL_SIZE, SECONDS, TENANT_CAP, TENANTS, Sampler, tables
from tests.integration.test_workers import Fleet, running
from tests.rawclient import Closed, ServerError
from tests.waiting import wait_until

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer

WORKERS = 4
CLIENTS = 200 if SECONDS < 30 else ALL_CLIENTS


class Killer:
    """Kills a worker whenever all clients are there; knows how many clients it had."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._dice = random.Random(4)
        self.kills = 0
        self.clients = 0

    def kill(self) -> None:
        wait_until(self.all_there, 60, what=f"all clients, after {self.kills} kills")
        number, pid = self._dice.choice(sorted(self._workers().items()))
        self.clients += self._clients_by_worker().get(str(number), 0)
        os.kill(pid, signal.SIGKILL)
        self.kills += 1
        wait_until(lambda: number not in self._workers(), 40)
        wait_until(lambda: len(self._workers()) == WORKERS, 40)

    def all_there(self) -> bool:
        return sum(self._clients_by_worker().values()) >= CLIENTS

    def _workers(self) -> dict[int, int]:
        with contextlib.suppress(Closed, OSError, ServerError):  # the console was on the one that died
            return self._fleet.workers()
        return {}

    def _clients_by_worker(self) -> dict[str, int]:
        found: dict[str, int] = {}
        with contextlib.suppress(Closed, OSError, ServerError):
            for row in self._fleet.console("SHOW CLIENTS"):
                found[str(row["worker"])] = found.get(str(row["worker"]), 0) + 1
        return found


@pytest.mark.load
@pytest.mark.timeout(int(SECONDS) + 240)
def test_two_thousand_clients_and_workers_that_die(
    dedicated: EmbeddedServer, vip: EmbeddedServer, shared: EmbeddedServer, tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    text = configuration(
        tables(dedicated, vip, shared) | {"user.admin": {}},
        workers=WORKERS,
        log_format="json",
        log_level="info",
    )
    sampler = Sampler({"ent": dedicated, "vip-1": vip, "shared": shared})
    tenants = [f"{tier}{n}" for n in range(TENANTS) for tier in "evs"]
    with running(tmp_path / "tiergate.toml", text) as fleet, (tmp_path / "said").open("w+") as said:
        killer = Killer(fleet)
        with sampler.running(), subprocess.Popen(
            [
                sys.executable, "-m", "tests.integration.load_clients", "--again", str(fleet.port),
                servers.DATABASE, "inf", str(CLIENTS), *tenants,
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True,
        ) as clients:  # fmt: skip
            try:
                until = monotonic() + (SECONDS if SECONDS >= 30 else 0)
                while killer.kills < 3 or monotonic() < until:
                    killer.kill()
                wait_until(killer.all_there, 60)
            finally:
                try:
                    found, _ = clients.communicate(timeout=120)  # its input ends, and so do they
                except subprocess.TimeoutExpired:
                    clients.kill()
                    raise
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        said.seek(0)
        told = said.read()[-2000:]
        assert clients.returncode == 0, told
        result = json.loads(found)
        print(result, killer.kills, killer.clients, sampler.most_backends, sampler.most_of_a_tenant)
        assert (result["wrong"], result["errors"]) == (0, {}), told
        assert 0 < result["lost"] <= killer.clients
        assert result["done"] >= CLIENTS
        assert sampler.failure is None
        for cluster, most in sampler.most_backends.items():
            assert 0 < most <= POOL_SIZE[cluster]
        assert 0 < sampler.most_of_a_tenant <= TENANT_CAP
        wait_until(lambda: not fleet.console("SHOW CLIENTS"))
        assert [
            row for row in fleet.console("SHOW TENANTS") if row["clients"] != "0" or row["waiting"] != "0"
        ] == []
        assert [row for row in fleet.console("SHOW POOLS") if row["sv_active"] != "0"] == []
