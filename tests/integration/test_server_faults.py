"""Servers that die, refuse, hang or talk nonsense: who is concerned hears it, nobody else notices, and it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from proxy.cli.embedded import free_port
from tests import rawclient
from tests.integration import servers
from tests.integration.relays import Conversation, FakeServer
from tests.rawclient import Closed, RawClient, ServerError, errors, frame, query, sqlstates
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy

Tables = dict[str, dict[str, Any]]


def tables(vip: EmbeddedServer, broken: object) -> Tables:
    """std_1 lives where things break, vip_1 where they do not."""
    return {
        "cluster.shared": {"kind": "shared", "primary": str(broken)},
        "cluster.vip-1": {"kind": "vip", "coordinators": [f"127.0.0.1:{vip.port}"]},
        "tenant.std_1": {"tier": "standard"},
        "tenant.vip_1": {"tier": "vip", "shard_id": 1},
        "user.app": {"password": "app-secret", "tenants": "*"},
        "user.admin": {"password": "admin-secret"},
    }


def refusal(proxy: Proxy) -> dict[str, str]:
    with pytest.raises(ServerError) as refused:
        proxy.raw()
    return refused.value.fields


def lost(client: RawClient) -> list[dict[str, str]]:
    """The errors that a client reads until its connection or its query is over."""
    try:
        return errors(client.read_ready())
    except Closed as closed:
        return errors(closed.frames)


def terminate(server: EmbeddedServer, client: RawClient) -> None:
    pid = client.value("SELECT pg_backend_pid()")
    client.send(query("SELECT pg_sleep(30)"))
    with servers.connect(server) as direct:
        wait_until(
            lambda: direct.execute(
                "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND query LIKE '%%sleep%%'", [pid]
            ).fetchone()
        )
        direct.execute("SELECT pg_terminate_backend(%s)", [pid])


def test_a_fatal_error_reaches_the_client_as_it_was_sent(
    start_proxy: StartProxy, vip: EmbeddedServer, shared: EmbeddedServer
) -> None:
    proxy = start_proxy(tables(vip, f"127.0.0.1:{shared.port}"))
    direct = RawClient(shared.port)
    direct.log_in("app", "appdb")
    terminate(shared, direct)
    expected = lost(direct)
    direct.close()
    client, other = proxy.raw(), proxy.raw()
    terminate(shared, client)
    assert lost(client) == expected
    assert (expected[0]["S"], expected[0]["C"]) == ("FATAL", "57P01")
    assert other.value("SELECT 1") == "1"


def test_an_idle_connection_that_dies_is_no_clients_business(
    start_proxy: StartProxy, vip: EmbeddedServer, shared: EmbeddedServer
) -> None:
    proxy = start_proxy(tables(vip, f"127.0.0.1:{shared.port}"))
    client = proxy.raw()
    pid = client.value("SELECT pg_backend_pid()")
    with servers.connect(shared) as direct:
        direct.execute("SELECT pg_terminate_backend(%s)", [pid])
    wait_until(lambda: proxy.console("SHOW SERVERS") == [])
    assert client.value("SELECT pg_backend_pid()") != pid


def test_a_server_killed_within_a_result_and_started_again(
    start_proxy: StartProxy, vip: EmbeddedServer, victim: EmbeddedServer
) -> None:
    proxy = start_proxy(tables(vip, f"127.0.0.1:{victim.port}"), server_login_retry="100ms")
    client, elsewhere, idle = proxy.raw(), proxy.raw("app@vip_1"), proxy.raw()
    elsewhere.query("BEGIN")
    client.send(query("SELECT repeat('x', 10000) FROM generate_series(1, 20000)"))
    client.read_until("D", 10)
    victim.stop()
    (error,) = lost(client)
    assert error["C"] in ("08006", "57P01", "57P02", "57P03")
    frames = idle.query("SELECT 1")
    assert sqlstates(frames)[0] in ("08006", "57P03", "57P01")
    assert elsewhere.value("SELECT 1") == "1"
    victim.start()

    def again() -> bool:
        try:
            with RawClient(proxy.port) as fresh:
                return fresh.log_in("app@std_1", "appdb").value("SELECT 1") == "1"
        except (ServerError, Closed):
            return False

    wait_until(again, what="a login after the restart")
    elsewhere.query("COMMIT")


def test_a_server_that_refuses(start_proxy: StartProxy, vip: EmbeddedServer) -> None:
    proxy = start_proxy(tables(vip, f"127.0.0.1:{free_port()}"))
    for _ in range(2):
        assert refusal(proxy)["C"] in ("57P03", "08006")
    assert proxy.raw("app@vip_1").value("SELECT 1") == "1"
    row = next(row for row in proxy.console("SHOW CLUSTERS") if row["name"] == "shared")
    assert row["healthy"] == "0"
    assert row["reason"]


@pytest.mark.parametrize("after", ["nothing", "startup", "authentication"])
def test_a_server_that_hangs(start_proxy: StartProxy, vip: EmbeddedServer, after: str) -> None:
    def hang(talk: Conversation) -> None:
        if after != "nothing":
            talk.read_startup()
        if after == "authentication":
            talk.say(frame("R", b"\0\0\0\0"))
        talk.wait_for_eof()

    with FakeServer(hang) as fake:
        proxy = start_proxy(
            tables(vip, fake), server_connect_timeout="1s", server_login_timeout="1s",
            server_tls_sslmode="prefer",
        )  # fmt: skip
        assert refusal(proxy)["C"] in ("57P03", "08006")
        assert proxy.raw("app@vip_1").value("SELECT 1") == "1"


NONSENSE_AT_LOGIN = {
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "length too small": b"R\0\0\0\1",
    "length huge": b"R\x7f\xff\xff\xff",
    "unknown type": frame("x", b"nonsense"),
    "unknown authentication": frame("R", b"\0\0\0\x63"),
    "truncated authentication": frame("R", b"\0"),
    "ready before it is": frame("Z", b"I"),
    "a row": frame("D", b"\0\0"),
    "SASL with nothing": frame("R", b"\0\0\0\x0a\0"),
    "nothing at all": b"",
    "half a frame": b"R\0\0",
}


@pytest.mark.parametrize("case", NONSENSE_AT_LOGIN)
def test_nonsense_at_the_login(start_proxy: StartProxy, vip: EmbeddedServer, case: str) -> None:
    def talk(conversation: Conversation) -> None:
        conversation.read_startup()
        conversation.say(NONSENSE_AT_LOGIN[case])
        if case not in ("nothing at all", "half a frame"):
            conversation.wait_for_eof()

    with FakeServer(talk) as fake:
        proxy = start_proxy(tables(vip, fake), server_login_timeout="2s")
        assert refusal(proxy)["C"] in ("08006", "08P01", "57P03")
        assert proxy.raw("app@vip_1").value("SELECT 1") == "1"


def test_those_who_wait_hear_the_servers_own_error(start_proxy: StartProxy, vip: EmbeddedServer) -> None:
    said = b"SFATAL\0VFATAL\0C53300\0Msorry, too many clients already\0Dmine\0\0"

    def talk(conversation: Conversation) -> None:
        conversation.read_startup()
        conversation.say(frame("E", said))

    with FakeServer(talk) as fake:
        fields = refusal(start_proxy(tables(vip, fake)))
    assert fields == rawclient.error_fields(said)


def answering(reply: bytes, *, hang_up: bool = False) -> Callable[[Conversation], None]:
    """A server that logs in well, answers SET and the like well, and "SELECT broken" with `reply`."""

    def talk(conversation: Conversation) -> None:
        conversation.log_in()
        batch = b""
        while True:
            message = conversation.read()
            if message.kind == "Q":
                if b"broken" in message.body:
                    conversation.say(reply)
                    if hang_up:
                        return
                    conversation.wait_for_eof()
                    return
                conversation.say(frame("C", b"SELECT 0\0"), frame("Z", b"I"))
            elif message.kind == "S":
                conversation.say(batch + frame("Z", b"I"))
                batch = b""
            elif message.kind == "X":
                return
            else:
                known = {"P": frame("1"), "B": frame("2"), "D": frame("n"), "E": frame("C", b"SELECT 1\0")}
                batch += known.get(message.kind, b"") + (frame("3") if message.kind == "C" else b"")

    return talk


BROKEN_REPLIES = {
    "length too small": (b"T\0\0\0\3", False),
    "length negative": (b"Z\xff\xff\xff\xff", False),
    "ready twice": (frame("C", b"X\0") + frame("Z", b"I") + frame("Z", b"I"), False),
    "a reply nobody asked for": (frame("1"), False),
    "an authentication request": (frame("R", b"\0\0\0\3"), False),
    "a cut row": (frame("T", b"\0\0") + b"D\0\0\1\0half", True),
    "a cut header": (b"T\0\0", True),
    "nothing": (b"", True),
}


@pytest.mark.parametrize("case", BROKEN_REPLIES)
def test_nonsense_in_replies(start_proxy: StartProxy, vip: EmbeddedServer, case: str) -> None:
    reply, hang_up = BROKEN_REPLIES[case]
    with FakeServer(answering(reply, hang_up=hang_up)) as fake:
        proxy = start_proxy(tables(vip, fake))
        client, elsewhere = proxy.raw(), proxy.raw("app@vip_1")
        client.send(query("SELECT broken"))
        try:
            frames = client.read_ready()
        except Closed as closed:
            frames = closed.frames
        # Nothing can be said within a row that was cut: there the connection just ends.
        assert sqlstates(frames) or case == "a cut row"
        assert set(sqlstates(frames)) <= {"08006", "08P01"}
        assert elsewhere.value("SELECT 1") == "1"
        wait_until(lambda: not [s for s in proxy.console("SHOW SERVERS") if s["cluster"] == "shared"])
        fresh = proxy.raw()
        assert sqlstates(fresh.query("SELECT fine")) == []


def test_a_server_that_hangs_up_while_a_client_waits_in_the_queue(
    start_proxy: StartProxy, vip: EmbeddedServer
) -> None:
    with FakeServer(answering(b"", hang_up=True)) as fake:
        proxy = start_proxy(tables(vip, fake), default_pool_size=1)
        first, second = proxy.raw(), proxy.raw()
        first.send(query("SELECT broken"))
        second.send(query("SELECT fine"))
        assert {e["C"] for e in lost(first)} == {"08006"}
        assert sqlstates(second.read_ready()) == []


def test_one_that_says_goodbye_while_idle_is_left_before_it_hangs_up(
    start_proxy: StartProxy, vip: EmbeddedServer
) -> None:
    talk = answering(frame("C", b"SELECT 0\0") + frame("Z", b"I"))
    conversations: list[Conversation] = []

    def noted(conversation: Conversation) -> None:
        conversations.append(conversation)
        talk(conversation)

    with FakeServer(noted) as fake:
        proxy = start_proxy(tables(vip, fake))
        client = proxy.raw("app@std_1")
        client.query("SELECT broken")
        assert proxy.console("SHOW SERVERS") != []
        for conversation in conversations:
            conversation.say(frame("E", b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0"))
        wait_until(lambda: proxy.console("SHOW SERVERS") == [])
        assert errors(client.query("SELECT 1")) == []
