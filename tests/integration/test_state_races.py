"""A change of session state that fails never lets what follows it run in somebody else's state."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.wire import encode
from tests.integration.relays import Conversation, FakeServer

if TYPE_CHECKING:
    from tests.integration.running import Proxy

_ACCEPTED = (
    encode.PARSE_COMPLETE + encode.BIND_COMPLETE + encode.command_complete("SELECT 1") + encode.CLOSE_COMPLETE
)


class Refusing:
    """A server that takes `changes` changes of state, then has the next one cancelled."""

    def __init__(self, changes: int) -> None:
        self._left = changes
        self.queries: list[bytes] = []
        self.followed = b""
        self._lock = threading.Lock()

    def __call__(self, talk: Conversation) -> None:
        talk.log_in()
        while True:
            frame = talk.read()
            if frame.kind == "S":
                with self._lock:
                    refused = self._left == 0
                    self._left -= 1
                if refused:
                    # What was written together with the change has come with it.
                    with contextlib.suppress(BlockingIOError):
                        self.followed = talk.sock.recv(64, socket.MSG_PEEK | socket.MSG_DONTWAIT)
                    talk.say(
                        encode.error("canceling statement due to user request", "57014"),
                        encode.ready_for_query(),
                    )
                else:
                    talk.say(_ACCEPTED, encode.ready_for_query())
            elif frame.kind == "Q":
                self.queries.append(frame.body)
                talk.say(encode.command_complete("SELECT 0"), encode.ready_for_query())
            elif frame.kind == "X":
                return


def tables(port: int) -> dict[str, dict[str, object]]:
    return {
        "cluster.shared": {"kind": "shared", "coordinators": [f"127.0.0.1:{port}"], "pool_size": 1},
        "tenant.std_1": {"tier": "standard"},
        "tenant.std_2": {"tier": "standard"},
        "user.app": {"password": "app-secret", "tenants": "*"},
    }


def test_nothing_runs_on_a_connection_of_another_tenant_before_the_change_is_confirmed(
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
        assert server.followed == b""
        assert server.queries == [b"VACUUM two\0", b"VACUUM one\0"]
        assert all(not pool.active for pool in proxy.worker.pools), "the connection was given up"
