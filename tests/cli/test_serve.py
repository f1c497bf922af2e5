"""`tiergate serve`: what it says when it cannot start, and what each signal does to the sessions it has."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from proxy.cli.embedded import EmbeddedServer, free_port
from proxy.net import turns
from tests.cli.running import COMMAND, ROOT, Ahead, Serve, serving
from tests.integration.running import configuration
from tests.waiting import wait_until


def text(shared: EmbeddedServer, **proxy: object) -> str:
    return configuration(
        {
            "cluster.shared": {"kind": "shared", "primary": f"127.0.0.1:{shared.port}"},
            "tenant.std_1": {"tier": "standard"},
            "user.app": {"tenants": "*"},
            "user.admin": {},
        },
        **{"log_format": "json", "log_level": "info", "http_addr": f"127.0.0.1:{free_port()}", **proxy},
    )


@pytest.fixture(scope="module")
def ahead(
    request: pytest.FixtureRequest, shared: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ahead]:
    found = Ahead(request, tmp_path_factory, "serve", lambda: text(shared))
    yield found
    found.close()


@pytest.fixture
def serve(ahead: Ahead) -> Iterator[Serve]:
    found = ahead.take()
    try:
        found.event("listening")
        yield found
    finally:
        found.close()


def connect(serve: Serve, user: str = "app@std_1", database: str = "appdb") -> psycopg.Connection:
    where = f"host=127.0.0.1 port={serve.port} connect_timeout=10"
    return psycopg.connect(f"{where} user={user} dbname={database}", autocommit=True)


def status(serve: Serve, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{serve.http_port}{path}", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def fails(config: Path) -> str:
    """What it says on standard error when it does not start."""
    result = subprocess.run(
        [*COMMAND, "serve", "--config", str(config)], capture_output=True, text=True, timeout=30, cwd=ROOT
    )
    assert result.returncode == 1, result
    assert "Traceback" not in result.stderr
    return result.stderr


# --- it cannot start --------------------------------------------------------------------------------


def test_a_wrong_key_is_named_with_its_file_and_the_nearest_one(tmp_path: Path) -> None:
    config = tmp_path / "wrong.toml"
    config.write_text('[proxy]\nlisten_prot = 1\npool_mode = "sometimes"\n')
    said = fails(config).splitlines()
    assert said[0].startswith(f"tiergate: {config}: [proxy] listen_prot: unknown key")
    assert '"listen_port"' in said[0]
    assert "pool_mode" in said[1]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert f"{tmp_path}/none.toml: cannot be read" in fails(tmp_path / "none.toml")


@pytest.mark.parametrize("key", ["listen_port", "http_addr"])
def test_an_address_that_is_taken(shared: EmbeddedServer, tmp_path: Path, key: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = tmp_path / "tiergate.toml"
        config.write_text(text(shared, **{key: port if key == "listen_port" else f"127.0.0.1:{port}"}))
        said = fails(config)
    assert f"cannot listen on 127.0.0.1:{port}" in said
    assert "Address already in use" in said


def test_no_config_is_a_wrong_command_line() -> None:
    result = subprocess.run([*COMMAND, "serve"], capture_output=True, text=True, timeout=30, cwd=ROOT)
    assert result.returncode == 2
    assert "--config" in result.stderr


# --- signals ----------------------------------------------------------------------------------------


def test_serves_and_ends_at_once_without_clients(serve: Serve) -> None:
    with connect(serve) as client:
        assert client.execute("SELECT name FROM where_am_i").fetchone() == ("shared",)
    assert status(serve, "/healthz") == 200
    assert status(serve, "/readyz") == 200
    serve.signal(signal.SIGTERM)
    assert serve.wait() == 0


def test_sigterm_lets_a_transaction_end_and_takes_nobody_new(serve: Serve) -> None:
    with connect(serve) as busy, connect(serve) as idle:
        idle.execute("SELECT 1")
        with busy.transaction():
            busy.execute("SELECT 1")
            serve.signal(signal.SIGTERM)
            serve.event("draining")
            with pytest.raises(psycopg.errors.AdminShutdown):
                idle.execute("SELECT 1")
            with pytest.raises(psycopg.OperationalError):
                wait_until(lambda: connect(serve).close())
            assert busy.execute("SELECT 42").fetchone() == (42,)
        assert serve.wait() == 0


def test_a_drain_is_bounded(shared: EmbeddedServer, tmp_path: Path) -> None:
    config = tmp_path / "tiergate.toml"
    config.write_text(text(shared, shutdown_timeout="200ms"))
    with serving(config) as serve, connect(serve) as client, client.transaction(force_rollback=True):
        client.execute("SELECT 1")
        serve.signal(signal.SIGTERM)
        assert serve.wait() == 0
        assert serve.event_names().index("draining") < serve.event_names().index("drain incomplete")
        with pytest.raises(psycopg.errors.AdminShutdown):
            client.execute("SELECT 1")
        client.close()


def test_a_second_sigterm_waits_no_longer(serve: Serve) -> None:
    with connect(serve) as client:
        client.execute("BEGIN")
        serve.signal(signal.SIGTERM)
        serve.event("draining")
        serve.signal(signal.SIGTERM)
        assert serve.wait() == 0
        assert "drain given up" in serve.event_names()
        with pytest.raises(psycopg.errors.AdminShutdown):
            client.execute("SELECT 1")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_sigint_stops_at_once(serve: Serve, number: signal.Signals) -> None:
    with connect(serve) as client:
        client.execute("BEGIN")
        serve.signal(number)
        assert serve.wait() == 0
        assert "draining" not in serve.event_names()
        with pytest.raises(psycopg.errors.AdminShutdown):
            client.execute("SELECT 1")


def test_sighup_applies_the_file_to_a_running_session(serve: Serve, shared: EmbeddedServer) -> None:
    with connect(serve) as client:
        client.execute("SELECT pg_sleep(0.01)")
        old = serve.config.read_text()
        serve.config.write_text(
            old + '\n[tenant.std_2]\ntier = "standard"\n[tenant.std_1.limits]\nquery_timeout = "100ms"\n'
        )
        serve.signal(signal.SIGHUP)
        serve.event("configuration reloaded")
        with pytest.raises(psycopg.errors.QueryCanceled):
            client.execute("SELECT pg_sleep(20)")
        assert client.execute("SELECT 1").fetchone() == (1,)
        connect(serve, "app@std_2").close()


def test_sighup_with_a_wrong_file_changes_nothing(serve: Serve) -> None:
    with connect(serve) as client:
        serve.config.write_text("[proxy]\nlisten_prot = 1\n")
        serve.signal(signal.SIGHUP)
        problems = serve.event("reload refused, the old configuration stays")["problems"]
        assert "listen_prot" in problems[0]
        assert client.execute("SELECT 1").fetchone() == (1,)


def replace_by(serve: Serve, text: str) -> None:
    """As editors do."""
    fresh = serve.config.with_suffix(".new")
    fresh.write_text(text)
    fresh.rename(serve.config)


def test_a_changed_file_is_live_soon_and_a_wrong_one_changes_nothing(serve: Serve) -> None:
    old = serve.config.read_text()
    with connect(serve) as client:
        client.execute("SELECT pg_sleep(0.01)")
        replace_by(serve, old + '\n[tenant.std_1.limits]\nquery_timeout = "100ms"\n')
        wait_until(lambda: limited(client))
        replace_by(serve, "[proxy]\nlisten_prot = 1\n")
        assert "listen_prot" in serve.event("reload refused, the old configuration stays")["problems"][0]
        assert limited(client)
        directory = serve.config.parent / "..data"
        directory.mkdir()
        (directory / "tiergate.toml").write_text(old)
        serve.config.unlink()
        serve.config.symlink_to(directory / "tiergate.toml")
        wait_until(lambda: not limited(client))
    assert serve.event_names().count("reload refused, the old configuration stays") == 1


def limited(client: psycopg.Connection) -> bool:
    try:
        client.execute("SELECT pg_sleep(0.3)")
    except psycopg.errors.QueryCanceled:
        return True
    return False


def test_a_process_that_is_alone_refuses_to_be_upgraded_and_goes_on(serve: Serve) -> None:
    with connect(serve) as client:
        serve.signal(signal.SIGUSR2)
        assert "supervised" in serve.event("upgrade refused")["problems"][0]
        assert client.execute("SELECT 1").fetchone() == (1,)


def test_the_console_can_shut_it_down(serve: Serve) -> None:
    with contextlib.suppress(psycopg.OperationalError), connect(serve, "admin", "tiergate") as console:
        console.execute(b"SHUTDOWN")
    assert serve.wait() == 0


def test_pidfile(shared: EmbeddedServer, tmp_path: Path) -> None:
    config, pidfile = tmp_path / "tiergate.toml", tmp_path / "pid"
    config.write_text(text(shared, pidfile=str(pidfile)))
    with serving(config) as serve:
        wait_until(pidfile.exists)
        assert int(pidfile.read_text()) == serve.process.pid
        serve.signal(signal.SIGTERM)
        assert serve.wait() == 0
    assert not pidfile.exists()


def test_a_pidfile_that_cannot_be_written(shared: EmbeddedServer, tmp_path: Path) -> None:
    config = tmp_path / "tiergate.toml"
    config.write_text(text(shared, pidfile=str(tmp_path / "none" / "pid")))
    assert f"pidfile {tmp_path}/none/pid cannot be written" in fails(config)


def test_it_has_asked_for_short_turns_where_the_kernel_grants_them(serve: Serve) -> None:
    with ThreadPoolExecutor(1) as another:  # whose turns may stay short: it ends
        granted = another.submit(turns.shorten).result()
    assert (turns.length(serve.process.pid) == turns.SHORT) == granted
