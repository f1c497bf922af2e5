"""What becomes of the server connection of a client that leaves, politely or not."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.servers import backends
from tests.integration.tables import one_connection
from tests.rawclient import (
    SYNC,
    TERMINATE,
    RawClient,
    ask,
    bind,
    copy_data,
    errors,
    execute,
    parse,
    query,
)
from tests.waiting import wait_until

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy

Tables = dict[str, dict[str, Any]]
PID = "SELECT pg_backend_pid()"
SLEEP = "SELECT pg_sleep(27)"
MODES = ["transaction", "session"]


def polite(client: RawClient) -> None:
    client.send(TERMINATE)


def eof(client: RawClient) -> None:
    client.hang_up()


def half_closed(client: RawClient) -> None:
    client.sock.shutdown(socket.SHUT_WR)


def reset(client: RawClient) -> None:
    client.reset()


LEAVING = [polite, eof, half_closed, reset]
Leave = Callable[[RawClient], None]


def gone(proxy: Proxy) -> None:
    wait_until(lambda: not proxy.console("SHOW CLIENTS"), what="no client left")


@pytest.fixture(params=MODES)
def proxy(request: pytest.FixtureRequest, start_proxy: StartProxy, all_tiers: Tables) -> Proxy:
    return start_proxy(one_connection(all_tiers, request.param))


@pytest.mark.parametrize("leave", LEAVING)
def test_idle(proxy: Proxy, leave: Leave) -> None:
    client = proxy.raw()
    pid = client.value(PID)
    leave(client)
    assert proxy.raw("app@std_2").value(PID) == pid


@pytest.mark.parametrize("leave", LEAVING)
def test_idle_in_a_transaction(proxy: Proxy, shared: EmbeddedServer, leave: Leave) -> None:
    client = proxy.raw()
    client.query("BEGIN")
    pid = client.value(PID)
    client.query("INSERT INTO notes VALUES (271, 'never')")
    leave(client)
    other = proxy.raw("app@std_2")
    assert other.value(PID) == pid
    assert other.rows("SELECT * FROM notes WHERE id = 271") == []
    assert (
        other.value("SELECT count(*) FROM pg_locks WHERE relation = 'notes'::regclass AND mode ~ 'Row'")
        == "0"
    )


def test_in_a_failed_transaction(proxy: Proxy) -> None:
    client = proxy.raw()
    client.query("BEGIN")
    pid = client.value(PID)
    client.query("SELECT 1/0")
    client.hang_up()
    other = proxy.raw("app@std_2")
    assert other.value(PID) == pid
    assert other.status == "I"


@pytest.mark.parametrize("leave", [eof, half_closed, reset])
def test_busy(proxy: Proxy, shared: EmbeddedServer, leave: Leave) -> None:
    client = proxy.raw()
    pid = client.value(PID)
    client.send(query(SLEEP))
    wait_until(lambda: backends(shared, f"query = '{SLEEP}' AND state = 'active'"))
    leave(client)
    other = proxy.raw("app@std_2")
    assert other.value(PID) != pid
    wait_until(lambda: not backends(shared, f"pid = {pid}"), what="the busy backend to be gone")
    assert other.value("SELECT 1 FROM pg_sleep(0.05)") == "1"


def test_busy_in_a_transaction_is_rolled_back(proxy: Proxy, shared: EmbeddedServer) -> None:
    client = proxy.raw()
    client.query("BEGIN; INSERT INTO notes VALUES (272, 'never')")
    client.send(query(SLEEP))
    wait_until(lambda: backends(shared, f"query = '{SLEEP}' AND state = 'active'"))
    client.hang_up()
    other = proxy.raw("app@std_2")
    assert other.rows("SELECT * FROM notes WHERE id = 272") == []


@pytest.mark.parametrize("what", ["query", "extended", "unsynced"])
def test_terminate_right_behind_a_query_still_executes_it(
    proxy: Proxy, shared: EmbeddedServer, what: str
) -> None:
    note = f"{what}-{proxy.port}"
    text = f"INSERT INTO notes SELECT 273, '{note}' FROM pg_sleep(0.2)"
    request = {"query": query(text), "extended": ask(text) + SYNC, "unsynced": ask(text)}[what]
    client = proxy.raw()
    client.send(request + TERMINATE)
    client.read_to_eof()
    other = proxy.raw("app@std_2")
    # As PostgreSQL does: without a Sync there is no commit.
    expected = "0" if what == "unsynced" else "1"
    assert other.value(f"SELECT count(*) FROM notes WHERE note = '{note}'") == expected


def test_terminate_behind_a_pipeline(proxy: Proxy) -> None:
    note = f"pipe-{proxy.port}"
    client = proxy.raw()
    one = ask("INSERT INTO notes VALUES (274, $1)", [note]) + SYNC
    client.send(one * 20 + TERMINATE)
    client.read_to_eof()
    other = proxy.raw("app@std_2")
    assert other.value(f"SELECT count(*) FROM notes WHERE note = '{note}'") == "20"


@pytest.mark.parametrize("leave", LEAVING)
def test_within_a_copy(proxy: Proxy, leave: Leave) -> None:
    client = proxy.raw()
    client.send(query("COPY notes FROM STDIN"))
    client.read_until("G")
    client.send(copy_data(b"275\tnever\n"))
    leave(client)
    other = proxy.raw("app@std_2")
    assert other.value("SELECT count(*) FROM notes WHERE id = 275") == "0"


def test_within_a_result(proxy: Proxy, shared: EmbeddedServer) -> None:
    """Nobody reads: the proxy holds what fits its buffers, and lets go of the server with the client."""
    client = proxy.raw(receive_buffer=4096)
    client.send(query("SELECT repeat('x', 10000) FROM generate_series(1, 20000)"))
    client.read_until("D")
    client.reset()
    other = proxy.raw("app@std_2")
    assert other.value("SELECT 1") == "1"


@pytest.mark.parametrize("leave", [eof, reset])
def test_within_a_frame(proxy: Proxy, leave: Leave) -> None:
    client = proxy.raw()
    client.send(query("SELECT 'half a frame', " + "1" * 4000)[:2000])
    leave(client)
    assert proxy.raw("app@std_2").value("SELECT 1") == "1"


@pytest.mark.parametrize("leave", LEAVING)
def test_within_a_batch(proxy: Proxy, leave: Leave) -> None:
    client = proxy.raw()
    client.send(parse("INSERT INTO notes VALUES (276, 'never')") + bind() + execute())
    leave(client)
    other = proxy.raw("app@std_2")
    assert other.value("SELECT count(*) FROM notes WHERE id = 276") == "0"
    assert other.status == "I"


@pytest.mark.parametrize("leave", LEAVING)
def test_queued(start_proxy: StartProxy, all_tiers: Tables, leave: Leave) -> None:
    proxy = start_proxy(one_connection(all_tiers))
    holder, leaver, patient = proxy.raw(), proxy.raw("app@std_2"), proxy.raw("app@free_1")
    holder.query("BEGIN")
    leaver.send(query("INSERT INTO notes VALUES (277, 'left')"))
    patient.send(query("SELECT 'patient'"))
    wait_until(lambda: _waiting(proxy) == 2)
    leave(leaver)
    if leave is not polite:
        wait_until(lambda: _waiting(proxy) == 1)
    holder.query("COMMIT")
    assert not errors(patient.read_ready())
    # Who said goodbye behind a query is served first; who vanished is not served at all.
    want = "1" if leave is polite else "0"
    assert wait_until(lambda: patient.value("SELECT count(*) FROM notes WHERE id = 277") or "") == want
    patient.query("DELETE FROM notes WHERE id = 277")


def _waiting(proxy: Proxy) -> int:
    return sum(int(row["cl_waiting"] or 0) for row in proxy.console("SHOW POOLS"))


def test_many_leave_at_once(proxy: Proxy, shared: EmbeddedServer) -> None:
    """Every way to leave, in every state, over and over: the pool of one goes on serving."""
    for n, leave in enumerate(LEAVING * 6):
        client = proxy.raw(timeout=10)
        if n % 3 == 0:
            client.query("BEGIN")
        elif n % 3 == 1:
            client.send(query("SELECT pg_sleep(0.3)"))
        leave(client)
        if leave in (polite, half_closed):
            client.hang_up() if n % 3 == 1 else client.read_to_eof()
    assert proxy.raw("app@std_2").value("SELECT 1") == "1"
    wait_until(lambda: not backends(shared, "query = 'SELECT pg_sleep(0.3)' AND state = 'active'"))


def test_counts_go_back(proxy: Proxy) -> None:
    for leave in LEAVING:
        client = proxy.raw()
        client.value("SELECT 1")
        leave(client)
    gone(proxy)
    rows = proxy.console("SHOW TENANTS")
    assert [row["clients"] for row in rows] == ["0"] * len(rows)
    wait_until(lambda: all(row["servers"] == "0" for row in proxy.console("SHOW TENANTS")))
    assert all(row["sv_active"] == "0" for row in proxy.console("SHOW POOLS"))
