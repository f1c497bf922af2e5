"""Replication connections pass through on a server connection of their own, are counted, and end with either side."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration import servers
from tests.rawclient import V3_2, ServerError, frame, query, rows, send_cancel, sqlstates
from tests.waiting import wait_until

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy

Tables = dict[str, dict[str, Any]]
WALSENDERS = "backend_type = 'walsender'"


@pytest.fixture
def proxy(start_proxy: StartProxy, all_tiers: Tables) -> Proxy:
    return start_proxy(all_tiers)


def relays(proxy: Proxy) -> int:
    return proxy.call(lambda: len(proxy.worker.plane.relays))


@pytest.mark.parametrize("kind", ["database", "true", "on", "1"])
def test_identify_system(proxy: Proxy, dedicated: EmbeddedServer, kind: str) -> None:
    client = proxy.replicator(kind)
    ((system, timeline, position, database),) = client.rows("IDENTIFY_SYSTEM")
    with servers.connect(dedicated) as direct:
        row = direct.execute("SELECT system_identifier::text FROM pg_control_system()").fetchone()
    assert row == (system,)
    assert timeline == "1"
    assert "/" in str(position)
    assert database == ("appdb" if kind == "database" else None)
    assert client.parameters["server_version"]
    assert relays(proxy) == 1
    assert proxy.worker.pools.servers.used == 1
    client.close()
    wait_until(lambda: relays(proxy) == 0)
    wait_until(lambda: servers.backends(dedicated, WALSENDERS) == 0)
    wait_until(lambda: proxy.worker.pools.servers.used == 0)


@pytest.mark.parametrize("kind", ["false", "off", "0", "no"])
def test_no_replication_is_an_ordinary_session(proxy: Proxy, kind: str) -> None:
    assert proxy.replicator(kind).value("SELECT 1") == "1"
    assert relays(proxy) == 0


def test_physical_streaming_both_ways(proxy: Proxy, dedicated: EmbeddedServer) -> None:
    client = proxy.replicator("true")
    ((_, _, position, _),) = client.rows("IDENTIFY_SYSTEM")
    client.send(query(f"START_REPLICATION PHYSICAL {position} TIMELINE 1"))
    client.read_until("W")
    with servers.connect(dedicated) as direct:
        direct.execute("CREATE TABLE streamed AS SELECT repeat('x', 100) FROM generate_series(1, 5000)")
        direct.execute("DROP TABLE streamed")
    received = 0
    while received < 100_000:
        message = client.read()
        assert message.kind == "d"
        if message.body[:1] == b"w":
            received += len(message.body) - 25
    client.send(frame("d", b"r" + struct.pack("!QQQQB", 1, 1, 1, 0, 1)))
    while client.read().body[:1] != b"k":
        pass
    client.send(frame("c"))
    frames = client.read_ready()
    assert sqlstates(frames) == []
    assert client.rows("IDENTIFY_SYSTEM")
    client.close()


def test_logical_streaming(proxy: Proxy, dedicated: EmbeddedServer) -> None:
    with servers.connect(dedicated) as direct:
        direct.execute("DROP PUBLICATION IF EXISTS all_of_it")
        direct.execute("CREATE PUBLICATION all_of_it FOR TABLE notes")
    client = proxy.replicator()
    client.checked(client.query("CREATE_REPLICATION_SLOT s TEMPORARY LOGICAL pgoutput"))
    client.send(
        query("START_REPLICATION SLOT s LOGICAL 0/0 (proto_version '1', publication_names 'all_of_it')")
    )
    client.read_until("W")
    with servers.connect(dedicated) as direct:
        direct.execute("INSERT INTO notes VALUES (7, 'seen from far')")
    while b"seen from far" not in client.read().body:
        pass
    client.hang_up()
    wait_until(lambda: servers.backends(dedicated, WALSENDERS) == 0)
    wait_until(lambda: relays(proxy) == 0)


def test_plain_sql_on_a_logical_connection(proxy: Proxy) -> None:
    client = proxy.replicator()
    assert rows(client.query("SELECT 1 + 1")) == [["2"]]
    client.close()


@pytest.mark.parametrize("protocol", [0x30000, V3_2])
def test_a_cancel_reaches_the_walsender(proxy: Proxy, dedicated: EmbeddedServer, protocol: int) -> None:
    client = proxy.replicator(protocol=protocol)
    client.send(query("SELECT pg_sleep(28)"))
    wait_until(lambda: servers.backends(dedicated, f"{WALSENDERS} AND query LIKE '%pg_sleep(28)%'") == 1)
    send_cancel(proxy.port, client.pid, b"\0" * len(client.key))
    assert client.nothing_to_read(0.1)
    send_cancel(proxy.port, client.pid, client.key)
    assert sqlstates(client.read_ready()) == ["57014"]
    assert rows(client.query("SELECT 'goes on'")) == [["goes on"]]
    client.close()
    wait_until(lambda: relays(proxy) == 0)
    assert not proxy.call(lambda: proxy.worker.plane._keys)


@pytest.mark.parametrize("name", ["ent_1", "ent"])
def test_it_ends_when_its_tenant_or_cluster_is_disabled(proxy: Proxy, name: str) -> None:
    client = proxy.replicator()
    client.rows("IDENTIFY_SYSTEM")
    proxy.console("DISABLE vip_1")
    assert client.nothing_to_read(0.5)
    proxy.console(f"DISABLE {name}")
    client.read_to_eof()
    wait_until(lambda: relays(proxy) == 0)


def test_the_servers_refusal_is_its_own(proxy: Proxy) -> None:
    with pytest.raises(ServerError) as refused:
        proxy.raw("app@ent_1", parameters={"replication": "database"})
    assert refused.value.sqlstate == "42501"
    assert refused.value.fields["S"] == "FATAL"
    assert relays(proxy) == 0
    with pytest.raises(ServerError):
        proxy.replicator("nonsense")
    assert relays(proxy) == 0


def test_caps_hold_for_replication_too(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(all_tiers | {"tenant.ent_1.limits": {"max_connections": 1}})
    first = proxy.replicator()
    with pytest.raises(ServerError) as refused:
        proxy.replicator()
    assert refused.value.sqlstate == "53300"
    first.close()
    wait_until(lambda: relays(proxy) == 0)
    proxy.replicator().close()


def test_a_walsender_that_is_ended_ends_its_client(proxy: Proxy, dedicated: EmbeddedServer) -> None:
    client = proxy.replicator()
    client.rows("IDENTIFY_SYSTEM")
    with servers.connect(dedicated) as direct:
        direct.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {WALSENDERS}")
    assert sqlstates(client.read_to_eof()) == ["57P01"]
    wait_until(lambda: relays(proxy) == 0)
