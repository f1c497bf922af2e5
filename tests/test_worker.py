"""One data plane as a whole: what it binds, what it lets go when it cannot start, how it drains and stops."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from proxy import settings
from proxy.cli.embedded import free_port
from proxy.control import counts as counting
from proxy.errors import ConfigError
from proxy.worker import Worker, write_pidfile
from tests import rawclient
from tests.integration.running import configuration, open_sockets
from tests.rawclient import query, sqlstates
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.conftest import StartProxy

Tables = dict[str, dict[str, Any]]
NOBODY: Tables = {
    "cluster.shared": {"kind": "shared", "primary": "127.0.0.1:1"},
    "tenant.std_1": {"tier": "standard"},
    "user.app": {"tenants": "*"},
}


def test_what_cannot_start_lets_go_of_what_it_has_bound(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = tmp_path / "tiergate.toml"
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        config.write_text(configuration(NOBODY, http_addr=address, unix_socket_dir=str(tmp_path)))
        before = open_sockets()

        async def main() -> None:
            worker = Worker(settings.load(str(config), environ={}))
            with pytest.raises(ConfigError, match="http_addr"):
                await worker.start()
            await asyncio.sleep(0)

        asyncio.run(main())
        assert open_sockets().keys() == before.keys()
        assert not list(tmp_path.glob(".s.PGSQL.*"))


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = tmp_path / "tiergate.toml"
        config.write_text(configuration(NOBODY, listen_port=taken.getsockname()[1]))

        async def main() -> None:
            with pytest.raises(ConfigError, match="Address already in use"):
                await Worker(settings.load(str(config), environ={})).start()

        asyncio.run(main())


def test_the_unix_socket_serves_and_goes(start_proxy: StartProxy, all_tiers: Tables, tmp_path: Path) -> None:
    directory = tmp_path / "sockets"
    directory.mkdir()
    proxy = start_proxy(all_tiers, unix_socket_dir=str(directory))
    where = {"host": str(directory), "port": proxy.port, "user": "app@std_1", "dbname": "appdb"}
    with psycopg.connect(**where) as connection:  # type: ignore[arg-type]
        assert connection.execute("SELECT 1").fetchone() == (1,)
    proxy.run(proxy.worker.drain(5))
    assert not list(directory.iterdir())


def test_port_0_is_no_tcp(tmp_path: Path) -> None:
    config = tmp_path / "tiergate.toml"
    config.write_text(configuration(NOBODY, listen_port=0, unix_socket_dir=str(tmp_path)))

    async def main() -> None:
        worker = Worker(settings.load(str(config), environ={}))
        await worker.start()
        try:
            assert [listener.family for listener in worker._listeners] == [socket.AF_UNIX]
        finally:
            await worker.stop()

    asyncio.run(main())


def test_drain_ends_the_idle_and_waits_for_the_busy(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(all_tiers)
    idle, busy = proxy.raw(), proxy.raw()
    busy.query("BEGIN")
    over = asyncio.run_coroutine_threadsafe(proxy.worker.drain(20), proxy._loop)
    assert sqlstates(idle.read_to_eof()) == ["57P01"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((proxy.host, proxy.port), 5).close()
    assert busy.value("SELECT 1") == "1"
    assert not over.done()
    busy.send(rawclient.query("COMMIT"))
    frames = busy.read_to_eof()
    assert rawclient.kinds(frames).startswith("CZ")
    assert over.result(20) is True


def test_drain_is_bounded(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(all_tiers)
    proxy.raw().query("BEGIN")
    assert proxy.run(proxy.worker.drain(0.1)) is False


def test_a_reload_says_what_needs_a_restart_and_a_wrong_file_changes_nothing(
    start_proxy: StartProxy, all_tiers: Tables
) -> None:
    proxy = start_proxy(all_tiers)
    client = proxy.raw()
    old = proxy.config.read_text()
    assert proxy.reload(old) == []
    before = proxy.worker.settings
    with pytest.raises(ConfigError, match="default_pool_sice"):
        proxy.reload(old.replace("[proxy]", "[proxy]\ndefault_pool_sice = 3"))
    assert proxy.worker.settings is before
    assert counting.take(proxy.worker.plane)["most"]["config_refused"] == 1
    assert client.value("SELECT 1") == "1"
    changed = old.replace(f"listen_port = {proxy.port}", f"listen_port = {free_port()}")
    assert proxy.reload(changed) == ["listen_port"]
    assert counting.take(proxy.worker.plane)["most"]["config_refused"] == 0
    assert client.value("SELECT 1") == "1"


def test_the_end_reaches_every_kind_of_client(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(all_tiers)
    session, console, silent = proxy.raw(), proxy.raw("admin", "tiergate", "admin-secret"), proxy.unnamed()
    session.query("BEGIN")
    wait_until(lambda: proxy.call(lambda: proxy.worker._acceptor.pending) == 1)
    over = asyncio.run_coroutine_threadsafe(proxy.worker.stop(), proxy._loop)
    assert sqlstates(session.read_to_eof()) == ["57P01"]
    assert sqlstates(console.read_to_eof()) == ["57P01"]
    silent.read_to_eof()
    over.result(20)


def test_pidfile(tmp_path: Path) -> None:
    write_pidfile(str(tmp_path / "pid"))
    assert int((tmp_path / "pid").read_text()) == os.getpid()


def test_a_console_that_does_not_read_is_no_reason_to_wait(
    start_proxy: StartProxy, all_tiers: Tables
) -> None:
    many = {f"tenant.t{n}": {"tier": "standard"} for n in range(2_000)}
    proxy = start_proxy(all_tiers | many)
    console = proxy.raw("admin", "tiergate", "admin-secret")
    console.send(query("SHOW TENANTS") * 40)
    (found,) = proxy.call(lambda: list(proxy.worker.consoles))
    wait_until(lambda: not found._may_write.is_set())
    asyncio.run_coroutine_threadsafe(proxy.worker.stop(), proxy._loop).result(20)
    assert not proxy.worker.consoles
