"""The HTTP server takes a bounded number of connections, and closes those that say nothing."""

from __future__ import annotations

import io
import socket
from contextlib import ExitStack
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from proxy import log
from proxy.control.api import Desk, server
from tests.control.api import calling
from tests.control.api.calling import call
from tests.server.fakes import run

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy


@pytest.fixture(scope="module")
def proxy(start_module_proxy: StartProxy, shared: EmbeddedServer) -> Proxy:
    return calling.start(start_module_proxy, shared)


def connected(proxy: Proxy, stack: ExitStack) -> socket.socket:
    return stack.enter_context(socket.create_connection(("127.0.0.1", proxy.http_port), 5))


def closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def test_it_comes_and_goes_without_lines_of_its_own() -> None:
    """The first line of a proxy's log is not a guest's."""

    class Nobody:
        async def close(self) -> None: ...

    async def main() -> None:
        http = server.Http(cast(Desk, SimpleNamespace(tenancy=Nobody())))
        await http.start("127.0.0.1", 0)
        await http.stop()

    lines = io.StringIO()
    log.configure("json", "info", lines)
    run(main())
    assert lines.getvalue() == ""


def test_one_connection_too_many_is_closed(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 2)
    with ExitStack() as stack:
        first, _, third = (connected(proxy, stack) for _ in range(3))
        assert closed(third)
        first.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert first.recv(100).startswith(b"HTTP/1.1 200")


def test_who_says_nothing_is_hung_up_on(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PATIENCE", 0.1)
    with ExitStack() as stack:
        silent, slow, later = (connected(proxy, stack) for _ in range(3))
        slow.sendall(b"GET /heal")
        later.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert later.recv(1000).startswith(b"HTTP/1.1 200")
        later.sendall(b"GET /heal")
        assert all(closed(sock) for sock in (silent, slow, later))


def test_who_waits_for_an_answer_is_not(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PATIENCE", 0.05)
    client = proxy.raw()
    client.query("BEGIN")
    assert call(proxy, "POST", "/v1/clusters/shared/pause?timeout=0.3", "operator").status_code == 202
    client.query("COMMIT")
    client.close()
    assert call(proxy, "POST", "/v1/clusters/shared/resume", "operator").status_code == 200
