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
import threading
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from tests.integration import servers
from tests.integration.running import configuration
from tests.integration.test_load import CLIENTS as ALL_CLIENTS
from tests.integration.test_load import POOL_SIZE, SECONDS, TENANT_CAP, TENANTS, Sampler, tables
from tests.integration.test_workers import Fleet, running
from tests.rawclient import Closed
from tests.waiting import wait_until

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer

WORKERS = 4
CLIENTS = 600 if SECONDS < 30 else ALL_CLIENTS


class Killer:
    """Kills a worker now and then, once all clients are there; knows how many clients it had."""

    def __init__(self, fleet: Fleet, seconds: float) -> None:
        self._fleet = fleet
        self._until = monotonic() + seconds - 2
        self._thread = threading.Thread(target=self._run)
        self._dice = random.Random(4)
        self.kills = 0
        self.clients = 0
        self.failure: BaseException | None = None

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _run(self) -> None:
        try:
            while monotonic() < self._until:
                wait_until(self._all_there, 60)
                if monotonic() > self._until:
                    return
                number, pid = self._dice.choice(sorted(self._fleet.workers().items()))
                self.clients += self._clients_by_worker().get(str(number), 0)
                os.kill(pid, signal.SIGKILL)
                self.kills += 1
                wait_until(lambda gone=number: gone not in self._fleet.workers(), 20)
                wait_until(lambda: len(self._fleet.workers()) == WORKERS, 30)
        except BaseException as error:
            self.failure = error

    def _all_there(self) -> bool:
        return monotonic() > self._until or sum(self._clients_by_worker().values()) >= CLIENTS

    def _clients_by_worker(self) -> dict[str, int]:
        found: dict[str, int] = {}
        with contextlib.suppress(Closed, OSError):  # the console was on the one that died
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
    seconds = SECONDS + 7
    text = configuration(
        tables(dedicated, vip, shared) | {"user.admin": {}},
        workers=WORKERS,
        log_format="json",
        log_level="info",
    )
    sampler = Sampler({"ent": dedicated, "vip-1": vip, "shared": shared})
    tenants = [f"{tier}{n}" for n in range(TENANTS) for tier in "evs"]
    with running(tmp_path / "tiergate.toml", text) as fleet:
        with sampler.running(), Killer(fleet, seconds) as killer:
            ended = subprocess.run(
                [
                    sys.executable, "-m", "tests.integration.load_clients", "--again", str(fleet.port),
                    servers.DATABASE, str(seconds), str(CLIENTS), *tenants,
                ],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert ended.returncode == 0, ended.stderr[-2000:]
        result = json.loads(ended.stdout)
        print(result, killer.kills, killer.clients, sampler.most_backends, sampler.most_of_a_tenant)
        assert killer.failure is None
        assert killer.kills >= 1
        assert (result["wrong"], result["errors"]) == (0, {}), ended.stderr[-2000:]
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
