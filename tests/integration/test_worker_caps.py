"""Caps hold over all workers of a host, also tiny ones, and also while workers are killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.cli.embedded import EmbeddedServer, free_port
from tests.integration.running import configuration
from tests.integration.servers import backends
from tests.integration.test_workers import Fleet, running
from tests.rawclient import Closed, RawClient, ServerError, query, rows
from tests.waiting import wait_until

# What a statement sees of those that run at the same time, itself among them.
ACTIVE = (
    "SELECT (SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%/*{tag}*/%'),"
    " pg_sleep({seconds}) /*{tag}*/"
)
OURS = "usename IN ('app', 'other', 'builder')"


def text(server: EmbeddedServer, workers: int, **changes: dict[str, Any]) -> str:
    tables: dict[str, dict[str, Any]] = {
        "cluster.shared": {"kind": "shared", "primary": f"127.0.0.1:{server.port}"},
        "tenant.std_1": {"tier": "standard"},
        "tenant.std_2": {"tier": "standard"},
        "user.app": {"tenants": "*"},
        "user.other": {"tenants": "*"},
        "user.builder": {"tenants": "*"},
        "user.admin": {},
    }
    proxy = {
        "log_format": "json", "log_level": "info", "http_addr": f"127.0.0.1:{free_port()}", "workers": workers,
        **changes.pop("proxy", {}),
    }  # fmt: skip
    for name, more in changes.items():
        table = name.replace("__", ".", 1)
        tables[table] = tables.get(table, {}) | more
    return configuration(tables, **proxy)


@pytest.fixture
def start(shared: EmbeddedServer, tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    with contextlib.ExitStack() as stack:

        def begin(workers: int, **changes: dict[str, Any]) -> Fleet:
            return stack.enter_context(running(tmp_path / "tiergate.toml", text(shared, workers, **changes)))

        yield begin


class Load:
    """Clients that ask without a pause, each in a thread; one that loses its connection comes again."""

    def __init__(self, fleet: Fleet, users: list[str], statement: str) -> None:
        self.port = fleet.port
        self.statement = statement
        self.seen: list[int] = []
        self.served = [0] * len(users)
        self.lost: list[str] = []
        self.errors: list[str] = []
        self._end = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number, user)) for number, user in enumerate(users)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self._threads)

    def _run(self, number: int, user: str) -> None:
        while not self._end.is_set():
            try:
                self._ask(number, user)
            except ServerError as error:
                self.errors.append(f"{error.sqlstate} {error.fields['M']}")
                return
            except (Closed, OSError) as error:
                self.lost.append(repr(error))
                self._end.wait(0.02)

    def _ask(self, number: int, user: str) -> None:
        with RawClient(self.port) as client:
            client.log_in(user, "appdb", "")
            while not self._end.is_set():
                client.send(query(self.statement))
                self.seen.append(int(rows(client.read_ready())[0][0] or 0))
                self.served[number] += 1


def all_are_served(load: Load, times: int = 3) -> None:
    wait_until(lambda: load.errors or min(load.served) >= times, 40, what=f"{load.served} {load.lost[:3]}")
    assert load.errors == []


def test_a_tenants_cap(start: Callable[..., Fleet]) -> None:
    """Of which there is less than there are workers."""
    caps = {"std_1": 1, "std_2": 2}
    limits = {f"tenant__{name}": {"limits": {"max_connections": cap}} for name, cap in caps.items()}
    fleet = start(3, **limits, tenant__std_3={"tier": "standard"})
    fleet.spread()
    for name, cap in caps.items():
        with Load(fleet, [f"app@{name}"] * 12, ACTIVE.format(tag=f"cap {cap}", seconds=0.005)) as load:
            neighbour = fleet.client("app@std_3")
            for _ in range(20):
                assert neighbour.value("SELECT 1") == "1"
            all_are_served(load)
        assert load.lost == []
        assert max(load.seen) == cap
    wait_until(lambda: all(row["servers"] == "0" for row in fleet.console("SHOW TENANTS")))


@pytest.mark.parametrize("whose", ["cluster", "process"])
def test_a_cap_of_connections(start: Callable[..., Fleet], shared: EmbeddedServer, whose: str) -> None:
    changes = (
        {"cluster__shared": {"max_connections": 2}}
        if whose == "cluster"
        else {"proxy": {"max_server_connections": 2}}
    )
    before = backends(shared, OURS)
    fleet = start(3, **changes)
    users = ["app@std_1", "other@std_1", "builder@std_2"] * 4
    statement = f"SELECT count(*), pg_sleep(0.003) FROM pg_stat_activity WHERE {OURS}"
    with Load(fleet, users, statement) as load:
        all_are_served(load)
    assert load.lost == []
    assert max(load.seen) - before == 2


def test_a_connection_that_is_idle_in_one_worker_makes_room_in_another(start: Callable[..., Fleet]) -> None:
    fleet = start(2, cluster__shared={"max_connections": 1})
    of_each = [client for client, *_ in fleet.spread().values()]
    for _ in range(2):
        for client in of_each:
            assert client.value("SELECT 1") == "1"


def refused(fleet: Fleet, user: str = "app@std_1") -> str:
    """The SQLSTATE, or "" for one who got in and stays."""
    try:
        fleet.client(user)
    except ServerError as error:
        return error.sqlstate
    return ""


def test_clients_are_counted_over_all_workers(start: Callable[..., Fleet]) -> None:
    """A tenant's, and those of all tenants."""
    fleet = start(3, proxy={"max_client_conn": 8}, tenant__std_1={"limits": {"max_client_connections": 5}})
    clients = [fleet.client() for _ in range(5)]
    assert [refused(fleet) for _ in range(6)] == ["53300"] * 6
    for client in clients[:2]:
        client.close()
    wait_until(lambda: len(fleet.console("SHOW CLIENTS")) == 3)
    assert [refused(fleet) for _ in range(4)] == ["", "", "53300", "53300"]
    others = [fleet.client("app@std_2") for _ in range(3)]
    assert [refused(fleet, "app@std_2") for _ in range(6)] == ["53300"] * 6
    for client in others[:2]:
        client.close()
    wait_until(lambda: len(fleet.console("SHOW CLIENTS")) == 6)
    assert [refused(fleet, "app@std_2") for _ in range(4)] == ["", "", "53300", "53300"]


def test_a_cap_that_changes_while_it_is_used(start: Callable[..., Fleet], shared: EmbeddedServer) -> None:
    fleet = start(3, tenant__std_1={"limits": {"max_connections": 4}})
    with Load(fleet, ["app@std_1"] * 12, ACTIVE.format(tag="changing", seconds=0.005)) as load:
        all_are_served(load)
        for cap in (1, 3):
            changed = text(shared, 3, tenant__std_1={"limits": {"max_connections": cap}})
            old = fleet.serve.config.read_text()
            port = next(line for line in old.splitlines() if line.startswith("listen_port"))
            http = next(line for line in old.splitlines() if line.startswith("http_addr"))
            kept = [
                port if line.startswith("listen_port") else http if line.startswith("http_addr") else line
                for line in changed.splitlines()
            ]
            fleet.serve.config.write_text("\n".join(kept))
            fleet.console("RELOAD")
            wait_until(lambda cap=cap: load.seen[-1] <= cap)  # type: ignore[misc]
            time.sleep(0.2)
            del load.seen[:]
            wait_until(lambda: len(load.seen) > 100)
            assert max(load.seen) == cap
    assert load.errors == []


def test_workers_are_killed_at_random(start: Callable[..., Fleet], shared: EmbeddedServer) -> None:
    """Only the clients of one that was killed lose their connection; the caps hold all the time."""
    before = backends(shared, OURS)
    fleet = start(3, cluster__shared={"max_connections": 5}, tenant__std_1={"limits": {"max_connections": 2}})
    dice = random.Random(7)
    tenant = ["app@std_1"] * 8
    all_of_us = f"SELECT count(*), pg_sleep(0.004) FROM pg_stat_activity WHERE {OURS}"
    with (
        Load(fleet, tenant, ACTIVE.format(tag="killed", seconds=0.004)) as capped,
        Load(fleet, ["other@std_2", "builder@std_2"] * 4, all_of_us) as others,
    ):
        for _ in range(4):
            served = [*capped.served, *others.served]
            wait_until(lambda s=served: sum([*capped.served, *others.served]) > sum(s) + 50)  # type: ignore[misc]
            victim = dice.choice(list(fleet.workers().values()))
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda v=victim: v not in fleet.workers().values())  # type: ignore[misc]
            wait_until(lambda: len(fleet.workers()) == 3)
        for load in (capped, others):
            load.served[:] = [0] * len(load.served)
            all_are_served(load)
    assert len(capped.lost + others.lost) <= 4 * 16
    assert max(capped.seen) == 2
    assert max(others.seen) - before == 5
    wait_until(lambda: all(row["servers"] == "0" for row in fleet.console("SHOW TENANTS")))


def test_what_a_killed_worker_was_doing_is_cancelled_before_its_permit_is_used(
    start: Callable[..., Fleet], shared: EmbeddedServer
) -> None:
    before = backends(shared, OURS)
    fleet = start(2, cluster__shared={"max_connections": 1})
    (victim, (busy, *_)), (_, (other, *_)) = list(fleet.spread().items())[:2]
    pid = fleet.workers()[victim]
    busy.send(query("SELECT pg_sleep(100)"))
    wait_until(lambda: backends(shared, "state = 'active' AND query LIKE 'SELECT pg_sleep(100%'"))
    other.send(query(f"SELECT count(*) FROM pg_stat_activity WHERE {OURS}"))
    os.kill(pid, signal.SIGKILL)
    assert int(rows(other.read_ready())[0][0] or 0) - before == 1


def test_what_old_workers_hold_counts_after_an_upgrade(start: Callable[..., Fleet]) -> None:
    fleet = start(2, tenant__std_1={"limits": {"max_connections": 1}}, cluster__shared={"max_connections": 2})
    old, old_workers = fleet.client(), set(fleet.workers())
    old.query("BEGIN")
    fleet.serve.signal(signal.SIGUSR2)
    wait_until(lambda: len(fleet.workers().keys() - old_workers) == 2, 30)
    for _ in range(20):  # so that each new worker knows what a login is told
        assert fleet.client("app@std_2").value("SELECT 1") == "1"
    new = [fleet.client() for _ in range(3)]
    for client in new:
        client.send(query("SELECT 'mine'"))
    for client in new:
        assert client.nothing_to_read(0.1)
    assert old.value("SELECT 1") == "1"
    old.query("COMMIT")
    for client in new:
        assert rows(client.read_ready()) == [["mine"]]
    assert old.value("SELECT 2") == "2"
