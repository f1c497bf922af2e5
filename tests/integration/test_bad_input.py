"""Truncated, oversized, garbage and hostile input: a clear error to whom it concerns, and nothing to anybody else.

That nothing is left behind (tasks, sockets, permits, sessions) is checked when the proxy stops.
"""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import rawclient
from tests.integration import servers
from tests.rawclient import (
    V3_0,
    Closed,
    RawClient,
    ServerError,
    bind,
    copy_data,
    errors,
    execute,
    frame,
    kinds,
    parse,
    query,
    sqlstates,
    startup,
)
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy

Tables = dict[str, dict[str, Any]]
MEGABYTE = 1 << 20
BIG = 64 * MEGABYTE
MAY_GROW = 40 * MEGABYTE


def with_passwords(tables: Tables) -> Tables:
    """Without the users that have no password."""
    return {name: table for name, table in tables.items() if name not in ("user.no_login", "user.postgres")}


@pytest.fixture(scope="module")
def proxy(start_module_proxy: StartProxy, all_tiers: Tables) -> Proxy:
    return start_module_proxy(
        with_passwords(all_tiers), auth_type="scram-sha-256", client_login_timeout="30s"
    )


@pytest.fixture
def witness(proxy: Proxy) -> Iterator[RawClient]:
    """Another client, in a transaction all the while: it must not notice anything."""
    client = proxy.raw("app@std_2")
    client.query("BEGIN")
    before = client.value("SELECT pg_backend_pid()")
    yield client
    assert client.value("SELECT pg_backend_pid()") == before
    client.query("COMMIT")
    client.close()


def settled(proxy: Proxy, sessions: int) -> None:
    wait_until(lambda: proxy.call(lambda: proxy.worker._acceptor.pending) == 0, what="all logins over")
    wait_until(lambda: proxy.call(lambda: len(proxy.worker.plane.sessions)) == sessions, what="sessions")


def packet(code: int, body: bytes = b"") -> bytes:
    return struct.pack("!II", 8 + len(body), code) + body


# --- before the login -------------------------------------------------------------------------------

HOSTILE_STARTUPS = {
    "length too small": (struct.pack("!II", 7, V3_0), "08P01"),
    "length zero": (struct.pack("!II", 0, V3_0), "08P01"),
    "length huge": (struct.pack("!II", 0x7FFFFFFF, V3_0), "08P01"),
    "length negative": (struct.pack("!II", 0xFFFFFFFF, V3_0), "08P01"),
    "longer than PostgreSQL takes": (startup({"user": "app@std_1", "x.y": "z" * 20_000}), "08P01"),
    "HTTP": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "08P01"),
    "protocol 2": (packet(0x00020000, b"\0" * 100), "0A000"),
    "protocol 4": (packet(0x00040000, b"user\0app@std_1\0\0"), "0A000"),
    "no terminator": (packet(V3_0, b"user\0app@std_1\0"), "08P01"),
    "name without value": (packet(V3_0, b"user\0app@std_1\0database\0\0"), "08P01"),
    "nothing said": (packet(V3_0, b"\0"), "28000"),
    "no user": (startup({"database": "appdb"}), "28000"),
    "empty user": (startup({"user": ""}), "28000"),
    "rest after the terminator": (packet(V3_0, b"user\0app@std_1\0\0garbage\0"), "08P01"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE_STARTUPS)
def test_a_hostile_startup_is_refused_in_words(proxy: Proxy, witness: RawClient, case: str) -> None:
    data, sqlstate = HOSTILE_STARTUPS[case]
    client = proxy.unnamed()
    client.send(data)
    frames = client.read_to_eof()
    assert kinds(frames) == "E"
    assert errors(frames)[0]["C"] == sqlstate
    assert errors(frames)[0]["S"] == "FATAL"
    client.close()
    settled(proxy, 1)


@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_a_startup_cut_anywhere(proxy: Proxy, witness: RawClient, how: str) -> None:
    whole = startup({"user": "app@std_1", "database": "appdb"})
    for cut in (0, 1, 4, 7, 8, 9, len(whole) - 1):
        client = proxy.unnamed()
        client.send(whole[:cut])
        if how == "reset":
            client.reset()
        elif how == "half":
            client.sock.shutdown(1)
            assert "R" not in kinds(client.read_to_eof())
            client.hang_up()
        else:
            client.hang_up()
    settled(proxy, 1)


def test_an_encryption_request_repeated_or_stuffed(proxy: Proxy) -> None:
    client = proxy.unnamed()
    client.send(rawclient.SSL_REQUEST)
    assert client.read_exactly(1) == b"N"
    client.send(rawclient.GSSENC_REQUEST)
    assert client.read_exactly(1) == b"N"
    client.send(rawclient.SSL_REQUEST)
    assert sqlstates(client.read_to_eof()) == ["08P01"]
    client = proxy.unnamed()
    client.send(struct.pack("!II", 12, 80877103) + b"more")
    assert sqlstates(client.read_to_eof()) == ["08P01"]


def test_bad_cancel_requests_are_ignored(proxy: Proxy, witness: RawClient) -> None:
    for data in (
        packet(80877102), packet(80877102, b"\0\0\0\1"), packet(80877102, b"\0\0\0\1" + b"k" * 4),
        packet(80877102, struct.pack("!i", witness.pid) + b"nope"),
        packet(80877102, struct.pack("!i", witness.pid) + b"k" * 256),
    ):  # fmt: skip
        client = proxy.unnamed()
        client.send(data)
        assert "R" not in kinds(client.read_to_eof())
        client.close()
    settled(proxy, 1)


PASSWORD_MESSAGES = {
    "a query instead": query("SELECT 1"),
    "garbage": b"\0\1\2\3\4\5\6\7",
    "length too small": b"p\0\0\0\3",
    "length huge": b"p\x7f\xff\xff\xff",
    "too long": frame("p", b"x" * 100_000),
    "unknown mechanism": frame("p", b"SCRAM-SHA-1\0\0\0\0\0"),
    "no initial response": frame("p", b"SCRAM-SHA-256\0\xff\xff\xff\xff"),
    "length of the response is false": frame("p", b"SCRAM-SHA-256\0\0\0\0\x09n,,"),
    "not SCRAM": frame("p", b"SCRAM-SHA-256\0\0\0\0\5hello"),
    "no nonce": frame("p", b"SCRAM-SHA-256\0\0\0\0\7n,,n=,r"),
    "not UTF-8": frame("p", b"SCRAM-SHA-256\0\0\0\0\x0cn,,n=,r=\xff\xfe\xfd\xfc"),
    "empty": frame("p"),
}  # fmt: skip


@pytest.mark.parametrize("case", PASSWORD_MESSAGES)
def test_a_hostile_password_message(proxy: Proxy, witness: RawClient, case: str) -> None:
    client = proxy.unnamed()
    client.send(startup({"user": "app@std_1", "database": "appdb"}))
    assert client.read().kind == "R"
    client.send(PASSWORD_MESSAGES[case])
    frames = client.read_to_eof()
    assert kinds(frames) == "E"
    assert errors(frames)[0]["C"] in ("08P01", "28P01")
    client.close()
    settled(proxy, 1)


def test_wrong_passwords_and_unknown_users_look_the_same(proxy: Proxy) -> None:
    said = []
    for user, password in (("app@std_1", "wrong"), ("app@std_1", ""), ("nobody@std_1", "wrong")):
        with pytest.raises(ServerError) as refused:
            proxy.raw(user, password=password)
        asked = [f.body[:4] for f in refused.value.frames if f.kind == "R"]
        said.append((refused.value.sqlstate, refused.value.fields["S"], asked))
    assert said[0] == said[1] == said[2]
    assert said[0][:2] == ("28P01", "FATAL")


def test_unknown_tenants_and_those_one_may_not_act_for(proxy: Proxy) -> None:
    for user, password, sqlstate in (
        ("app@nowhere", "app-secret", "3D000"), ("other@std_2", "other-secret", "28000"),
        ("other@nowhere", "other-secret", "28000"), ("app@" + "x" * 3_000, "app-secret", "3D000"),
    ):  # fmt: skip
        with pytest.raises(ServerError) as refused:
            proxy.raw(user, password=password)
        assert refused.value.sqlstate in (sqlstate, "3D000")


def test_a_slow_login_is_ended(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(with_passwords(all_tiers), auth_type="scram-sha-256", client_login_timeout="300ms")
    whole = startup({"user": "app@std_1", "database": "appdb"})
    silent, slow, asked = proxy.unnamed(), proxy.unnamed(), proxy.unnamed()
    slow.send(whole[:12])
    asked.send(whole)
    assert asked.read().kind == "R"
    for client in (silent, slow, asked):
        assert sqlstates(client.read_to_eof()) == ["08006"]
    settled(proxy, 0)
    assert proxy.raw().value("SELECT 1") == "1"


def test_logins_from_one_address_are_bounded(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(all_tiers, max_logins_per_address=3)
    held = [proxy.unnamed() for _ in range(3)]
    wait_until(lambda: proxy.call(lambda: proxy.worker._acceptor.pending) == 3)
    with pytest.raises(ServerError) as refused:
        proxy.raw()
    assert refused.value.sqlstate == "53300"
    held[0].hang_up()
    wait_until(lambda: proxy.call(lambda: proxy.worker._acceptor.pending) == 2)
    assert proxy.raw().value("SELECT 1") == "1"


# --- after the login --------------------------------------------------------------------------------

HOSTILE_FRAMES = {
    "unknown type": b"\x01\0\0\0\4",
    "type of a server": frame("Z", b"I"),
    "length too small": b"Q\0\0\0\3",
    "length zero": b"Q\0\0\0\0",
    "length negative": b"Q\xff\xff\xff\xff",
    "length huge": b"Q\x7f\xff\xff\xff",
    "parse without terminator": frame("P", b"name"),
    "empty bind": frame("B", b""),
    "describe of nothing": frame("D", b"X\0"),
    "close of nothing": frame("C", b""),
}


@pytest.mark.parametrize("case", HOSTILE_FRAMES)
def test_a_hostile_frame_ends_its_session_or_its_query(proxy: Proxy, witness: RawClient, case: str) -> None:
    client = proxy.raw()
    client.send(HOSTILE_FRAMES[case] + rawclient.SYNC)
    try:
        frames = client.read_ready()
    except Closed as closed:
        frames = closed.frames
    assert sqlstates(frames) == ["08P01"]
    client.close()
    settled(proxy, 1)


@pytest.mark.parametrize("seed", range(6))
def test_garbage_after_the_login(proxy: Proxy, witness: RawClient, seed: int) -> None:
    noise = random.Random(seed)
    client = proxy.raw()
    client.send(noise.randbytes(noise.randrange(5, 4000)))
    client.sock.shutdown(1)
    client.read_to_eof()
    client.close()
    settled(proxy, 1)


@pytest.mark.parametrize("how", ["hang_up", "reset", "half"])
@pytest.mark.parametrize("cut", [1, 4, 5, 9])
def test_a_query_cut_anywhere(proxy: Proxy, witness: RawClient, how: str, cut: int) -> None:
    client = proxy.raw()
    client.send(query("SELECT pg_sleep(30)")[:cut])
    if how == "half":
        client.sock.shutdown(1)
        client.read_to_eof()
        client.hang_up()
    else:
        getattr(client, how)()
    settled(proxy, 1)


def test_a_reset_while_a_result_comes(proxy: Proxy, shared: EmbeddedServer) -> None:
    for _ in range(3):
        client = proxy.raw()
        client.send(query("SELECT repeat('x', 1000) FROM generate_series(1, 100000)"))
        client.read()
        client.reset()
    settled(proxy, 0)
    wait_until(lambda: servers.backends(shared, "state = 'active'") == 0)


# --- big frames -------------------------------------------------------------------------------------


def resident() -> int:
    return int(Path(f"/proc/{os.getpid()}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Peak:
    """The most memory that was resident while a big body passed; the test's own buffers are kept small."""

    def __init__(self) -> None:
        self.start = self.most = resident()

    def look(self) -> None:
        self.most = max(self.most, resident())

    def check(self) -> None:
        assert self.most - self.start < MAY_GROW, f"grown by {(self.most - self.start) >> 20} MB"


def stream_out(client: RawClient, peak: Peak, head: bytes, size: int, tail: bytes) -> None:
    client.send(head)
    chunk = b"x" * MEGABYTE
    for _ in range(size // MEGABYTE):
        client.send(chunk)
        peak.look()
    client.send(tail)


def read_big(client: RawClient, peak: Peak) -> tuple[str, int]:
    """Kind and size of one frame, read without keeping it."""
    kind, length = struct.unpack("!cI", client.read_exactly(5))
    left = length - 4
    while left:
        left -= len(client.read_exactly(min(left, 65_536)))
        peak.look()
    return kind.decode(), length - 4


def test_a_big_query_passes_in_constant_memory(proxy: Proxy) -> None:
    client, peak = proxy.raw(), Peak()
    head = b"SELECT length('"
    tail = b"')\0"
    stream_out(client, peak, b"Q" + struct.pack("!I", 4 + len(head) + BIG + len(tail)) + head, BIG, tail)
    assert rawclient.rows(client.checked(client.read_ready())) == [[str(BIG)]]
    peak.check()
    client.close()


def test_a_big_parameter_passes_in_constant_memory(proxy: Proxy) -> None:
    client, peak = proxy.raw(), Peak()
    head = b"\0\0" + struct.pack("!HHI", 0, 1, BIG)
    tail = b"\0\0"
    client.send(parse("SELECT length($1::text)"))
    stream_out(client, peak, b"B" + struct.pack("!I", 4 + len(head) + BIG + len(tail)) + head, BIG, tail)
    client.send(execute() + rawclient.SYNC)
    assert rawclient.rows(client.checked(client.read_ready())) == [[str(BIG)]]
    peak.check()
    client.close()


def test_a_big_row_passes_in_constant_memory(proxy: Proxy) -> None:
    client, peak = proxy.raw(), Peak()
    client.send(query(f"SELECT repeat('x', {BIG})"))
    seen = []
    while not seen or seen[-1][0] != "Z":
        seen.append(read_big(client, peak))
    assert [kind for kind, _ in seen] == ["T", "D", "C", "Z"]
    assert seen[1][1] == BIG + 6
    peak.check()
    client.close()


def test_a_big_copy_passes_in_constant_memory(proxy: Proxy) -> None:
    client, peak = proxy.raw(), Peak()
    client.query("BEGIN; CREATE TEMP TABLE big (line text) ON COMMIT DROP")
    client.send(query("COPY big FROM STDIN"))
    client.read_until("G")
    line = copy_data(b"x" * 65_535 + b"\n")
    lines = BIG // 65_536
    for number in range(lines):
        client.send(line)
        if number % 16 == 0:
            peak.look()
    client.send(rawclient.COPY_DONE)
    client.checked(client.read_ready())
    client.send(query("COPY big TO STDOUT"))
    size = 0
    while True:
        kind, length = read_big(client, peak)
        size += length if kind == "d" else 0
        if kind == "Z":
            break
    assert size == lines * 65_536
    client.query("ROLLBACK")
    peak.check()
    client.close()


def test_a_client_that_does_not_read_holds_up_the_server_not_the_memory(
    proxy: Proxy, witness: RawClient
) -> None:
    client, peak = proxy.raw(), Peak()
    client.send(query(f"SELECT repeat('x', 100000) FROM generate_series(1, {BIG // 100_000})"))
    client.read_until("T")
    for _ in range(20):
        witness.value("SELECT pg_sleep(0.01)")
        peak.look()
    total = 0
    while True:
        kind, length = read_big(client, peak)
        total += length if kind == "D" else 0
        if kind == "Z":
            break
    assert total > BIG * 0.99
    peak.check()
    client.close()


def test_an_unread_batch_of_big_binds_is_not_kept(proxy: Proxy) -> None:
    """A batch waits for a connection without being read further than what has come."""
    client = proxy.raw()
    frames = client.ask(
        parse("SELECT length($1::text)") + bind([b"x" * 200_000]) + execute() + rawclient.SYNC
    )
    assert rawclient.rows(frames) == [["200000"]]
    client.close()
