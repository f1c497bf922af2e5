"""A cancel reaches what its client runs, and nothing else, however late it comes."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.integration.relays import HoldingRelay
from tests.integration.running import waiting
from tests.integration.servers import backends, connect
from tests.integration.tables import one_connection
from tests.rawclient import (
    SYNC,
    V3_2,
    RawClient,
    ask,
    cancel_request,
    errors,
    query,
    rows,
    send_cancel,
    sqlstates,
)
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy

Tables = dict[str, dict[str, Any]]
SLEEP = "SELECT pg_sleep(28)"
HELD = "FROM pg_advisory_xact_lock(4713)"
PID = "SELECT pg_backend_pid()"


def running(server: EmbeddedServer, text: str = SLEEP) -> None:
    wait_until(lambda: backends(server, f"state = 'active' AND query = $${text}$$"), what=text)


@contextlib.contextmanager
def held_up(server: EmbeddedServer, client: RawClient, text: str) -> Iterator[None]:
    """The client's query runs meanwhile, and nothing that is sent ends it."""
    with connect(server) as holder:
        holder.execute("SELECT pg_advisory_lock(4713)")
        client.send(query(text))
        running(server, text)
        yield
        assert client.nothing_to_read(0.3)


@pytest.mark.parametrize("mode", ["transaction", "session"])
@pytest.mark.parametrize("protocol", [0x30000, V3_2])
def test_a_running_query(
    start_proxy: StartProxy, all_tiers: Tables, shared: EmbeddedServer, mode: str, protocol: int
) -> None:
    proxy = start_proxy(one_connection(all_tiers, mode))
    client = proxy.raw(protocol=protocol)
    pid = client.value(PID)
    for text in (query(SLEEP), ask(SLEEP) + SYNC):
        client.send(text)
        running(shared)
        send_cancel(proxy.port, client.pid, client.key)
        answer = client.read_ready()
        assert sqlstates(answer) == ["57014"]
        assert errors(answer)[0]["M"] == "canceling statement due to user request"
        assert client.value(PID) == pid


def test_keys_of_protocol_3_2_are_long(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(all_tiers)
    assert len(proxy.raw().key) == 4
    assert 4 < len(proxy.raw(protocol=V3_2).key) <= 256


def test_session_mode_tells_the_servers_own_process_id(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(all_tiers, pool_mode="session")
    client = proxy.raw()
    assert str(client.pid) == client.value(PID)


def test_in_a_transaction(start_proxy: StartProxy, all_tiers: Tables, shared: EmbeddedServer) -> None:
    proxy = start_proxy(one_connection(all_tiers))
    client = proxy.raw()
    client.query("BEGIN; SAVEPOINT s")
    client.send(query(SLEEP))
    running(shared)
    send_cancel(proxy.port, client.pid, client.key)
    assert sqlstates(client.read_ready()) == ["57014"]
    assert client.status == "E"
    client.query("ROLLBACK TO s")
    assert client.value("SELECT 1") == "1"
    client.query("COMMIT")


def test_while_queued(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(one_connection(all_tiers))
    holder, client = proxy.raw(), proxy.raw("app@std_2")
    holder.query("BEGIN")
    for request in (query("SELECT 1"), ask("SELECT 1") + ask("SELECT 2") + SYNC):
        client.send(request)
        waiting(proxy)
        send_cancel(proxy.port, client.pid, client.key)
        answer = client.read_ready()
        assert sqlstates(answer) == ["57014"]
        assert errors(answer)[0]["S"] == "ERROR"
        assert client.status == "I"
        assert client.nothing_to_read(0.05)
        waiting(proxy, 0)
    holder.query("COMMIT")
    assert client.value("SELECT 3") == "3"


def test_while_queued_concerns_one_request(start_proxy: StartProxy, all_tiers: Tables) -> None:
    """What was sent behind the cancelled request is not cancelled with it."""
    proxy = start_proxy(one_connection(all_tiers))
    holder, client = proxy.raw(), proxy.raw("app@std_2")
    holder.query("BEGIN")
    client.send(ask("SELECT 1") + SYNC + ask("SELECT 2") + SYNC)
    waiting(proxy)
    send_cancel(proxy.port, client.pid, client.key)
    first = client.read_ready()
    assert sqlstates(first) == ["57014"]
    assert rows(first) == []
    holder.query("COMMIT")
    assert rows(client.read_ready()) == [["2"]]


def test_idle_client(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(one_connection(all_tiers))
    client = proxy.raw()
    for _ in range(5):
        send_cancel(proxy.port, client.pid, client.key)
        assert client.value("SELECT 1 FROM pg_sleep(0.02)") == "1"


def test_wrong_and_stale_keys(start_proxy: StartProxy, all_tiers: Tables, shared: EmbeddedServer) -> None:
    proxy = start_proxy(one_connection(all_tiers, size=2))
    gone = proxy.raw()
    old_pid, old_key = gone.pid, gone.key
    gone.close()
    client = proxy.raw(protocol=V3_2)
    key = client.key
    wrong = bytes([key[0] ^ 1]) + key[1:]
    with held_up(shared, client, f"SELECT 'done' {HELD}"):
        for pid, secret in (
            (old_pid, old_key),
            (client.pid, wrong),
            (client.pid, key[:-1]),
            (client.pid, key + b"\0"),
            (client.pid, key[:4]),
            (client.pid, b"\0\0\0\0"),
            (client.pid ^ 2, key),
            (0, b"\0\0\0\0"),
        ):
            send_cancel(proxy.port, pid, secret)
    assert rows(client.read_ready()) == [["done"]]


def test_malformed_requests_harm_nobody(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(all_tiers)
    client = proxy.raw()
    for data in (
        cancel_request(1, b""),
        cancel_request(1, b"x" * 5000),
        cancel_request(1, b"abcd") + b"trailing",
        cancel_request(1, b"abcd")[:-1],
        b"\0\0\0\x08\x04\xd2\x16\x2e",
    ):
        stranger = proxy.unnamed()
        stranger.send(data)
        with contextlib.suppress(OSError):  # it may have been hung up on already
            stranger.sock.shutdown(socket.SHUT_WR)
        stranger.read_to_eof()
        assert client.value("SELECT 1") == "1"


def test_another_clients_query_goes_on(
    start_proxy: StartProxy, all_tiers: Tables, shared: EmbeddedServer
) -> None:
    proxy = start_proxy(one_connection(all_tiers, size=2))
    one, two = proxy.raw(), proxy.raw("app@std_2")
    with held_up(shared, two, f"SELECT 'two' {HELD}"):
        one.send(query(SLEEP))
        running(shared)
        send_cancel(proxy.port, one.pid, one.key)
        assert sqlstates(one.read_ready()) == ["57014"]
    assert rows(two.read_ready()) == [["two"]]


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_who_cancels_is_let_go_when_the_signal_has_been_sent(
    start_proxy: StartProxy, all_tiers: Tables, shared: EmbeddedServer, mode: str
) -> None:
    """As drivers trust: what they ask once the cancelling connection is closed is not struck any more."""
    with HoldingRelay(shared.port) as relay:
        tables = one_connection(all_tiers, mode)
        tables["cluster.shared"] |= {"coordinators": [str(relay)]}
        proxy = start_proxy(tables)
        client = proxy.raw()
        client.checked(client.query("BEGIN"))
        relay.let.clear()
        client.send(query("SELECT 1 FROM pg_sleep(28)"))
        with socket.create_connection(("127.0.0.1", proxy.port), 10) as cancelling:
            cancelling.sendall(cancel_request(client.pid, client.key))
            wait_until(lambda: relay.accepted == 2, what="the cancel")
            cancelling.settimeout(0.2)
            with pytest.raises(TimeoutError):
                cancelling.recv(1)
            relay.let.set()
            cancelling.settimeout(20)
            assert cancelling.recv(1) == b""
        assert sqlstates(client.read_ready()) == ["57014"]


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_late_cancel_never_hits_the_next_client(
    start_proxy: StartProxy, all_tiers: Tables, mode: str
) -> None:
    """The cancel races with the end of the query; the next client on the connection must not feel it."""
    proxy = start_proxy(one_connection(all_tiers, mode, size=1 if mode == "transaction" else 2))
    chance = random.Random(7)
    first, second = proxy.raw(), proxy.raw("app@std_2")
    cancelled = 0
    for _ in range(120):
        delay = chance.choice([0, 0, 0.001, 0.002, 0.005])
        first.send(query(f"SELECT pg_sleep({delay})"))
        canceller = threading.Thread(target=send_cancel, args=(proxy.port, first.pid, first.key))
        canceller.start()
        second.send(ask("SELECT 'mine' FROM pg_sleep(0.01)") + SYNC)
        answer = first.read_ready()
        assert sqlstates(answer) in ([], ["57014"])
        cancelled += bool(sqlstates(answer))
        answer = second.read_ready()
        assert sqlstates(answer) == []
        assert rows(answer) == [["mine"]]
        canceller.join()
    assert first.value("SELECT 1") == "1"
    assert cancelled, "no cancel has ever come in time: the test shows nothing"


def test_many_cancels_at_once(start_proxy: StartProxy, all_tiers: Tables, shared: EmbeddedServer) -> None:
    proxy = start_proxy(one_connection(all_tiers))
    client = proxy.raw()
    client.send(query(SLEEP))
    running(shared)
    threads = [
        threading.Thread(target=send_cancel, args=(proxy.port, client.pid, client.key)) for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    assert sqlstates(client.read_ready()) == ["57014"]
    for thread in threads:
        thread.join()
    other = proxy.raw("app@std_2")
    for _ in range(10):
        assert other.value("SELECT 1 FROM pg_sleep(0.01)") == "1"


def test_cancel_after_hanging_up(start_proxy: StartProxy, all_tiers: Tables, shared: EmbeddedServer) -> None:
    """The key of a client that left hits nobody."""
    proxy = start_proxy(one_connection(all_tiers))
    client = proxy.raw()
    client.value("SELECT 1")
    client.close()
    other = proxy.raw("app@std_2")
    with held_up(shared, other, f"SELECT 'other' {HELD}"):
        send_cancel(proxy.port, client.pid, client.key)
    assert rows(other.read_ready()) == [["other"]]


def test_psycopg_cancels(start_proxy: StartProxy, all_tiers: Tables, shared: EmbeddedServer) -> None:
    proxy = start_proxy(all_tiers)
    connection = proxy.connect()

    def cancel() -> None:
        running(shared)
        connection.cancel_safe(timeout=10)

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(psycopg.errors.QueryCanceled):
        connection.execute(SLEEP)
    thread.join()
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_when_the_server_cannot_be_asked_the_connection_is_not_reused(
    start_proxy: StartProxy, all_tiers: Tables, shared: EmbeddedServer
) -> None:
    from tests.integration.relays import ChoppingRelay

    with ChoppingRelay(shared.port, seed=1, most=100_000) as relay:
        tables = one_connection(all_tiers)
        tables["cluster.shared"] |= {"coordinators": [str(relay), f"{shared.host}:{shared.port}"]}
        proxy = start_proxy(tables)
        client = proxy.raw()
        assert relay.accepted == 1
        pid = client.value(PID)
        with held_up(shared, client, f"SELECT pg_backend_pid() {HELD}"):
            relay._listener.shutdown(socket.SHUT_RDWR)  # from here on it refuses connections
            send_cancel(proxy.port, client.pid, client.key)
        assert rows(client.read_ready()) == [[pid]]
        assert proxy.raw().value(PID) != pid
