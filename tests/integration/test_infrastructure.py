"""The tests' own tools: servers, raw client, relays. What they cannot do, no test of the proxy can show."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.integration.relays import ChoppingRelay, Conversation, FakeServer
from tests.integration.running import Proxy, configuration
from tests.integration.servers import APP_PASSWORD, DATABASE, connect
from tests.rawclient import SYNC, RawClient, ServerError, ask, frame, kinds, query, send_cancel
from tests.waiting import wait_until

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy
    from tests.integration.servers import Certificates, DebianServer


def test_each_server_says_its_name(
    dedicated: EmbeddedServer, vip: EmbeddedServer, shared: EmbeddedServer
) -> None:
    for server, name in ((dedicated, "dedicated"), (vip, "vip"), (shared, "shared")):
        assert server.sql("SELECT name FROM where_am_i", DATABASE) == [(name,)]


def test_row_level_security_shows_a_tenant_its_own_rows(shared: EmbeddedServer) -> None:
    with connect(shared, user="app") as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (0,)
        connection.execute("SET app.tenant_id = 'std_1'")
        assert connection.execute("SELECT DISTINCT tenant_id FROM orders").fetchall() == [("std_1",)]


@pytest.mark.parametrize(
    ("user", "password"), [("app", APP_PASSWORD), ("old", "old-secret"), ("other", "other-secret")]
)
def test_the_raw_client_proves_who_it_is(dedicated: EmbeddedServer, user: str, password: str) -> None:
    with RawClient(dedicated.port) as client:
        client.log_in(user, DATABASE, password)
        assert client.rows("SELECT current_user") == [[user]]
    with RawClient(dedicated.port) as client, pytest.raises(ServerError) as refused:
        client.log_in(user, DATABASE, "wrong")
    assert refused.value.sqlstate == "28P01"


def test_the_raw_client_reads_frames(shared: EmbeddedServer) -> None:
    with RawClient(shared.port) as client:
        client.log_in("app", DATABASE)
        assert kinds(client.query("SELECT 1; SELEC")) == "EZ"
        assert client.prepared("SELECT $1::int + 1", ["41"]) == [["42"]]
        assert kinds(client.ask(ask("SELECT 1") + SYNC + query("SELECT 2"), ready=2)) == "12TDCZTDCZ"
        assert client.parameters["server_encoding"] == "UTF8"


def test_the_raw_client_cancels(shared: EmbeddedServer) -> None:
    with RawClient(shared.port) as client:
        client.log_in("app", DATABASE)
        client.send(query("SELECT pg_sleep(60)"))
        wait_until(lambda: shared.sql("SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'"))
        send_cancel(shared.port, client.pid, client.key)
        assert kinds(client.read_ready())[-2:] == "EZ"


def test_the_relay_passes_every_byte(shared: EmbeddedServer) -> None:
    with ChoppingRelay(shared.port, seed=1) as relay, RawClient(relay.port) as client:
        client.log_in("app", DATABASE)
        assert len(client.rows("SELECT g, repeat('x', 50) FROM generate_series(1, 3000) g")) == 3000
        assert relay.accepted == 1
        relay.hang_up()
        assert client.read_to_eof() == []


def test_a_fake_server_says_what_it_is_told_to() -> None:
    def conversation(peer: Conversation) -> None:
        peer.log_in()
        assert peer.read().kind == "Q"
        peer.say(frame("I"), frame("Z", b"I"))
        peer.wait_for_eof()

    with FakeServer(conversation) as server, RawClient(server.port) as client:
        client.log_in("anyone")
        assert kinds(client.query("")) == "IZ"


def test_the_server_with_tls(tls_server: DebianServer, certificates: Certificates) -> None:
    context = ssl.create_default_context(cafile=certificates.ca)
    with RawClient(tls_server.port) as client:
        client.start_tls(context, "localhost")
        client.log_in("app", DATABASE, APP_PASSWORD)
        assert client.rows("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == [["t"]]
    with pytest.raises(psycopg.OperationalError, match="no encryption"):
        connect(tls_server, user="app", password=APP_PASSWORD, sslmode="disable")
    files = {"sslcert": certificates.client_cert, "sslkey": certificates.client_key}
    with pytest.raises(psycopg.OperationalError, match='database "certdb" does not exist'):
        connect(tls_server, "certdb", "app", sslmode="require", **files)


def tables(port: int) -> dict[str, dict[str, object]]:
    return {
        "cluster.one": {"kind": "dedicated", "primary": f"127.0.0.1:{port}"},
        "tenant.one": {"tier": "enterprise", "cluster": "one"},
        "user.app": {"tenants": "*"},
    }


def test_a_proxy_answers_and_leaves_nothing(shared: EmbeddedServer, start_proxy: StartProxy) -> None:
    proxy = start_proxy(tables(shared.port), default_tenant="one")
    with proxy.connect("app") as connection:
        assert connection.execute("SELECT name FROM where_am_i").fetchone() == ("shared",)


def test_what_a_proxy_leaves_is_found(shared: EmbeddedServer, tmp_path: Path) -> None:
    kept: list[socket.socket] = []

    async def task_without_end() -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await asyncio.sleep(0)
            return

    def leave() -> None:
        kept.append(socket.create_connection(("127.0.0.1", shared.port)))
        kept.append(asyncio.get_running_loop().create_task(task_without_end()))  # type: ignore[arg-type]
        asyncio.get_running_loop().call_soon(lambda: 1 // 0)

    config = tmp_path / "leaky.toml"
    config.write_text(configuration(tables(shared.port), default_tenant="one"))
    proxy = Proxy(config)
    proxy.raw("app").query("SELECT 1")
    proxy.call(proxy.worker.plane.clients.take)
    proxy.call(leave)
    proxy.patience = 0.2
    with pytest.raises(AssertionError) as found:
        proxy.stop()
    kept[0].close()
    for what in ("max_client_conn: 1 permits", "task: ", "socket: ", "ZeroDivisionError"):
        assert what in str(found.value)
