"""A change of session state that fails never lets what follows it run in somebody else's state."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from proxy.wire import encode
from tests.integration.relays import ChoppingRelay, Conversation, FakeServer
from tests.integration.servers import connect
from tests.integration.tables import one_connection, with_cluster
from tests.rawclient import SYNC, ask, frame, query, sqlstates
from tests.waiting import wait_until

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy


class Refusing:
    """A server that takes `changes` changes of state, then has the next one cancelled: it skips what follows up to the
    Sync, and answers to what comes behind that."""

    def __init__(self, changes: int) -> None:
        self._left = changes
        self.queries: list[bytes] = []

    def __call__(self, talk: Conversation) -> None:
        talk.log_in()
        names: set[bytes] = set()
        skips = False
        while True:
            kind, body = talk.read()
            if kind == "X":
                return
            if kind == "S":
                skips = False
                talk.say(encode.ready_for_query())
            elif skips:
                continue
            elif kind == "P":
                names.add(body.partition(b"\0")[0])
                talk.say(encode.PARSE_COMPLETE)
            elif kind == "B":
                talk.say(encode.BIND_COMPLETE)
            elif kind == "E":
                skips = self._left == 0
                self._left -= 1
                said = encode.error("canceling statement due to user request", "57014")
                talk.say(said if skips else encode.command_complete("SELECT 1"))
            elif kind == "D":
                skips = body[1:-1] not in names
                missing = encode.error("prepared statement does not exist", "26000")
                talk.say(missing if skips else frame("t", b"\0\0") + encode.NO_DATA)
            elif kind == "C":
                names.discard(body[1:-1])
                talk.say(encode.CLOSE_COMPLETE)
            elif kind == "Q":
                self.queries.append(body)
                talk.say(encode.command_complete("SELECT 0"), encode.ready_for_query())


class Late(ChoppingRelay):
    """Keeps back a Query of this text, and what comes behind it, until `goes`."""

    def __init__(self, port: int, text: bytes) -> None:
        self._query = encode.query(text)
        self.goes = threading.Event()
        super().__init__(port, 0)

    def _pass(self, data: bytes, to: socket.socket) -> None:
        ahead, query, _ = data.partition(self._query)
        to.sendall(ahead)
        if query:
            threading.Thread(target=self._send_late, args=(data[len(ahead) :], to), daemon=True).start()

    def _send_late(self, data: bytes, to: socket.socket) -> None:
        assert self.goes.wait(20)
        to.sendall(data)


def tables(port: int) -> dict[str, dict[str, object]]:
    return {
        "cluster.shared": {"kind": "shared", "coordinators": [f"127.0.0.1:{port}"], "pool_size": 1},
        "tenant.std_1": {"tier": "standard"},
        "tenant.std_2": {"tier": "standard"},
        "user.app": {"password": "app-secret", "tenants": "*"},
    }


def test_nothing_runs_on_a_connection_of_another_tenant_where_the_change_has_failed(
    start_proxy: Callable[..., Proxy],
) -> None:
    server = Refusing(changes=3)  # the first login's, and one to each tenant that is taken
    with FakeServer(server) as fake:
        proxy = start_proxy(tables(fake.port), auth_type="trust", server_tls_sslmode="disable")
        one = proxy.raw(user="app@std_1")
        two = proxy.raw(user="app@std_2")
        for client, text in ((two, b"VACUUM two"), (one, b"VACUUM one")):
            client.send(encode.query(text))
            assert [frame.kind for frame in client.read_ready()] == ["C", "Z"]
        two.send(encode.query(b"DELETE FROM orders"))
        answer = two.read_ready()
        assert [frame.kind for frame in answer] == ["E", "Z"], "the session goes on"
        assert b"57014" in answer[0].body
        assert server.queries == [b"VACUUM two\0", b"VACUUM one\0"]
        wait_until(lambda: all(not pool.active for pool in proxy.worker.pools))


def test_nothing_runs_without_a_role_that_is_gone(
    start_proxy: StartProxy, all_tiers: dict[str, dict[str, Any]], shared: EmbeddedServer
) -> None:
    """A real server skips what stands behind a change that fails, a Query and a batch."""
    with connect(shared) as admin:
        admin.execute("CREATE ROLE fleeting; GRANT fleeting TO app; CREATE TABLE touched (who text)")
        admin.execute("GRANT ALL ON touched TO app, fleeting")
        proxy = start_proxy(one_connection(all_tiers))
        client, other = proxy.raw(), proxy.raw("app@std_2")
        client.checked(client.query("SET ROLE fleeting"))
        other.checked(other.query("INSERT INTO touched VALUES (current_user)"))
        admin.execute("REVOKE ALL ON touched FROM fleeting; DROP ROLE fleeting")
        insert = "INSERT INTO touched VALUES ('anybody')"
        for request in (query(insert), ask(insert) + SYNC, ask("BEGIN") + ask(insert) + ask("COMMIT") + SYNC):
            assert sqlstates(client.ask(request)) == ["22023"]
            other.checked(other.query("SELECT 1"))
        assert other.rows("SELECT DISTINCT who FROM touched") == [["app"]]
        admin.execute("DROP TABLE touched")


def test_a_timeout_between_the_change_and_the_query_is_told_and_the_session_goes_on(
    start_proxy: StartProxy, all_tiers: dict[str, dict[str, Any]], shared: EmbeddedServer
) -> None:
    """The server does not skip the Query, for which it would then want a Sync."""
    text = "INSERT INTO touched VALUES (1)"
    with connect(shared) as admin, Late(shared.port, text.encode()) as relay:
        admin.execute("CREATE TABLE touched (n int); GRANT ALL ON touched TO app")
        admin.execute("ALTER ROLE app SET statement_timeout = '200ms'")

        def over() -> bool:
            """The server reads, and its clock has run out."""
            late = "bool_or(xact_start < clock_timestamp() - interval '250 ms')"
            asked = f"SELECT {late} FROM pg_stat_activity WHERE usename = 'app'".encode()
            return bool(admin.execute(asked).fetchone()[0])

        try:
            proxy = start_proxy(
                with_cluster(all_tiers, coordinators=[f"127.0.0.1:{relay.port}"], pool_size=1)
            )
            client, other = proxy.raw(), proxy.raw("app@std_2")
            assert other.value("SHOW statement_timeout") == "200ms"
            client.send(query(text))
            wait_until(lambda: over())
            relay.goes.set()
            assert sqlstates(client.read_ready()) == ["57014"]
            assert client.value("SELECT count(*) FROM touched") == "0"
            assert other.value("SELECT count(*) FROM touched") == "0"
        finally:
            admin.execute("ALTER ROLE app RESET statement_timeout; DROP TABLE touched")
