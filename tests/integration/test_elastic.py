"""A tenant's cap moves with what it asks, and server connections that nobody needs any more are closed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from tests.conftest import StartProxy
from tests.integration.tables import Tables, with_cluster
from tests.rawclient import RawClient
from tests.waiting import wait_until


@contextlib.contextmanager
def asking(clients: list[RawClient]) -> Iterator[None]:
    """All of them ask one query after another."""
    over = threading.Event()

    def ask(client: RawClient) -> None:
        while not over.is_set():
            client.query("SELECT pg_sleep(0.02)")

    threads = [threading.Thread(target=ask, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_a_cap_moves_and_so_does_the_pool(
    start_proxy: StartProxy, all_tiers: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.admission.elastic.KEEP", 1)
    tables = dict(all_tiers)
    tables["tier.standard"] = {"limits": {"min_connections": 1, "max_connections": 4}, "cluster": "shared"}
    proxy = start_proxy(tables, server_surplus_timeout="200ms")
    clients = [proxy.raw() for _ in range(6)]

    def now() -> int:
        (row,) = [row for row in proxy.console("SHOW TENANTS") if row["name"] == "std_1"]
        return int(row["connections_now"] or 0)

    def servers() -> int:
        (pool,) = [row for row in proxy.console("SHOW POOLS") if row["cluster"] == "shared"]
        return int(pool["sv_active"] or 0) + int(pool["sv_idle"] or 0)

    wait_until(lambda: now() == 1, what="it begins with its minimum")
    for _ in range(5):
        for client in clients:
            client.query("SELECT 1")
    assert servers() == 1
    with asking(clients):
        wait_until(lambda: now() == 4 and servers() == 4, what="it grows while it is asked for more")
    clients[0].query("SELECT 1")
    wait_until(lambda: servers() <= 1, 20, what="what nobody needs is closed")
    wait_until(lambda: now() == 1, 20, what="and the cap is back where it was")


def test_a_guarantee_holds_in_a_crowd_although_the_cap_moves(
    start_proxy: StartProxy, all_tiers: Tables
) -> None:
    """By its weight it would have one or two of the six connections."""
    tables = with_cluster(all_tiers, pool_size=6, max_connections=6)
    limits = {"min_connections": 1, "max_connections": 4, "guaranteed_connections": 4}
    tables["tenant.sure"] = {"tier": "standard", "limits": limits}
    tables["tenant.crowd"] = {"tier": "enterprise", "cluster": "shared"}
    proxy = start_proxy(tables)
    clients = [proxy.raw(f"app@{tenant}") for tenant in ["crowd"] * 12 + ["sure"] * 6]

    def in_use() -> int:
        (row,) = [row for row in proxy.console("SHOW TENANTS") if row["name"] == "sure"]
        return int(row["servers"] or 0)

    with asking(clients):
        wait_until(lambda: in_use() == 4)
