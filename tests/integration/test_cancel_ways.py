"""A cancel request finds its session from another worker and from another host, and goes round no circle for ever."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from proxy.cli.embedded import EmbeddedServer, free_port
from proxy.wire.way import MAX_HOPS, Way, word
from tests.integration.relays import HoldingRelay
from tests.integration.running import Proxy, configuration, running
from tests.integration.servers import backends
from tests.integration.test_workers import running as several
from tests.rawclient import V3_0, V3_2, RawClient, cancel_request, query, send_cancel, sqlstates
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

SLEEP = "SELECT pg_sleep(25)"
PROTOCOLS = pytest.mark.parametrize("protocol", [V3_0, V3_2])
MODES = pytest.mark.parametrize("mode", ["transaction", "session"])


def text(server: EmbeddedServer | HoldingRelay, peers: dict[str, str] | None = None, **proxy: Any) -> str:
    tables: dict[str, dict[str, object]] = {
        "cluster.shared": {"kind": "shared", "primary": f"127.0.0.1:{server.port}"},
        "tenant.std_1": {"tier": "standard"},
        "user.app": {"tenants": "*"},
        "user.admin": {},
    }
    if peers:
        tables["peers"] = dict(peers)
    return configuration(tables, **proxy)


def sleeping(client: RawClient, server: EmbeddedServer) -> None:
    client.send(query(SLEEP))
    wait_until(lambda: backends(server, f"state = 'active' AND query = '{SLEEP}'"))


def is_cancelled(client: RawClient) -> None:
    assert sqlstates(client.read_ready()) == ["57014"]
    assert client.value("SELECT 1") == "1"


def test_from_whichever_worker(shared: EmbeddedServer, tmp_path: Path) -> None:
    with HoldingRelay(shared.port) as relay:
        config = (
            text(relay, workers=3, log_format="json", log_level="info", http_addr=f"127.0.0.1:{free_port()}")
            + '\n[tenant.std_2]\ntier = "standard"\npool_mode = "session"\n'
        )
        with several(tmp_path / "tiergate.toml", config) as fleet:
            with RawClient(fleet.port) as client:
                client.log_in("app@std_1", "appdb", "")
                client.checked(client.query("BEGIN"))
                relay.let.clear()
                sleeping(client, shared)
                _who_cancels_waits_for_the_signal(fleet.port, client, relay)
            for tenant, protocol in product(("std_1", "std_2"), (V3_0, V3_2)):
                with RawClient(fleet.port) as client:
                    client.log_in(f"app@{tenant}", "appdb", "", protocol=protocol)
                    _is_cancelled_with_its_key_only(fleet.port, client, shared)


def _who_cancels_waits_for_the_signal(port: int, client: RawClient, relay: HoldingRelay) -> None:
    cancelling = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(9)]
    for each in cancelling:
        each.sendall(cancel_request(client.pid, client.key))
    wait_until(lambda: relay.accepted > len(cancelling), what="the cancels")
    assert select.select(cancelling, [], [], 0.2)[0] == []
    relay.let.set()
    for each in cancelling:
        assert each.recv(1) == b""
        each.close()
    assert sqlstates(client.read_ready()) == ["57014"]


def _is_cancelled_with_its_key_only(port: int, client: RawClient, server: EmbeddedServer) -> None:
    for _ in range(9):  # the kernel chooses the worker that each lands in
        sleeping(client, server)
        send_cancel(port, client.pid, client.key)
        is_cancelled(client)
    sleeping(client, server)
    wrong = client.key[:-1] + bytes([client.key[-1] ^ 1])
    for _ in range(9):
        send_cancel(port, client.pid, wrong)
    assert client.nothing_to_read(0.3)
    send_cancel(port, client.pid, client.key)
    is_cancelled(client)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Proxy]]:
    with contextlib.ExitStack() as stack:
        numbers = iter(range(10))

        def begin(config: str) -> Proxy:
            return stack.enter_context(running(tmp_path / f"{next(numbers)}.toml", config))

        yield begin


@MODES
@PROTOCOLS
def test_from_another_host(
    start: Callable[[str], Proxy], shared: EmbeddedServer, mode: str, protocol: int
) -> None:
    ports = [free_port(), free_port()]
    peers = {str(n): f"127.0.0.1:{port}" for n, port in enumerate(ports, start=1)}
    one, two = (
        start(text(shared, peers, listen_port=port, peer_id=n, pool_mode=mode))
        for n, port in enumerate(ports, start=1)
    )
    for home, other in ((one, two), (two, one)):
        client = home.raw(password="", protocol=protocol)
        sleeping(client, shared)
        wrong = client.key[:-1] + bytes([client.key[-1] ^ 1])
        send_cancel(other.port, client.pid, wrong)
        assert client.nothing_to_read(0.2)
        send_cancel(other.port, client.pid, client.key)
        is_cancelled(client)


class Mirror:
    """A peer that sends every packet back to the proxy, and counts them."""

    def __init__(self) -> None:
        self.port = free_port()
        self.packets: list[bytes] = []
        self.back_to = 0
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self._listening.settimeout(0.05)
        self._end = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._end:
            with contextlib.suppress(TimeoutError):
                sock, _ = self._listening.accept()
                with sock:
                    packet = sock.recv(1000)
                    self.packets.append(packet)
                    with socket.create_connection(("127.0.0.1", self.back_to)) as onward:
                        onward.sendall(packet)  # and does not wait: it would be for itself

    def close(self) -> None:
        self._end = True
        self._thread.join()
        self._listening.close()


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    mirror = Mirror()
    yield mirror
    mirror.close()


def test_a_circle_of_peers_ends(
    start: Callable[[str], Proxy], shared: EmbeddedServer, mirror: Mirror
) -> None:
    proxy = start(text(shared, {"2": f"127.0.0.1:{mirror.port}"}, peer_id=1))
    mirror.back_to = proxy.port
    send_cancel(proxy.port, word(Way.to(2, 1), 7), b"1234")
    wait_until(lambda: len(mirror.packets) == MAX_HOPS)
    assert [packet[-1] for packet in mirror.packets] == list(range(1, MAX_HOPS + 1))
    client = proxy.raw(password="")
    assert client.value("SELECT 1 FROM pg_sleep(0.2)") == "1"
    assert len(mirror.packets) == MAX_HOPS


def test_what_has_no_way_is_shown_to_the_others_once(
    start: Callable[[str], Proxy], shared: EmbeddedServer, mirror: Mirror
) -> None:
    proxy = start(text(shared, {"1": "127.0.0.1:1", "2": f"127.0.0.1:{mirror.port}"}, peer_id=1))
    mirror.back_to = proxy.port
    send_cancel(proxy.port, 4711, b"1234")
    wait_until(lambda: mirror.packets)
    client = proxy.raw(password="")
    assert client.value("SELECT 1 FROM pg_sleep(0.2)") == "1"
    assert len(mirror.packets) == 1


def test_a_peer_that_nobody_knows_or_reaches(start: Callable[[str], Proxy], shared: EmbeddedServer) -> None:
    proxy = start(text(shared, {"2": f"127.0.0.1:{free_port()}"}, peer_id=1, log_level="error"))
    for peer in (2, 3):
        send_cancel(proxy.port, word(Way.to(peer, 1), 7), b"1234")
    assert proxy.raw(password="").value("SELECT 1") == "1"
