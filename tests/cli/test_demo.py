"""The demo does what it promises, says so, and leaves nothing behind."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.cli.running import COMMAND, ROOT
from tests.cli.test_embedded import alive
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def directory(server_root: Path) -> Path:
    """Whose servers are made by the first that is run in it."""
    return server_root / "demo"


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "demo", *arguments],
        capture_output=True,
        text=True,
        timeout=110,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
    )


def check_what_is_printed(text: str) -> None:
    """The commands to try do what they say. Run as they stand, with shorter waits."""
    script = text.split("In another terminal:", 1)[1].split("The configuration is", 1)[0]
    script = script.replace("-T 5", "-t 10").replace("pg_sleep(3)", "pg_sleep(0.2)")
    script = re.sub(r" top$", " top --rounds 1 --interval 0.1", script, flags=re.MULTILINE)
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    seen = result.stdout
    for wanted in (
        r"^acme\|\d+\n100\nvip-1\|\d+\n100\nshared\|\d+\n100\nshared\|\d+\n100\n",  # the loop over tenants
        r"\n vip-1\n",  # PGOPTIONS
        r"\[\('vip-1',\)\]",  # psycopg
        r"\[<Record cluster='shared'>\]",  # asyncpg
        r"number of failed transactions: 0 ",
        r"\n my turn\n",
        r"\n still here\n",
        r"pool_mode \| transaction",  # SHOW ROUTE
        r"cl_waiting",  # SHOW POOLS
        r"\n cluster +vip-1 ",  # tiergate tenants route
        r"workers 1 .*(\n.*)* shop1 ",  # tiergate top
    ):
        assert re.search(wanted, seen), (wanted, seen, result.stderr)
    assert 'user "acme_erp" may not act for tenant "shop1"' in result.stderr
    assert "canceling statement due to query_timeout" in result.stderr


def servers_of(directory: Path) -> list[int]:
    return [int(path.read_text().split()[0]) for path in directory.glob("*/postmaster.pid")]


def test_check_passes_twice_on_one_directory(directory: Path) -> None:
    for _ in range(2):
        result = demo("--port", "0", "--check", "--dir", str(directory))
        assert result.returncode == 0, result.stdout + result.stderr
        assert result.stdout.splitlines()[-1] == "The demo works."
        assert result.stdout.count(" ok ") >= 10
        assert servers_of(directory) == []


def test_a_taken_port_is_told_before_anything_is_started() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = demo("--port", str(port))
    assert result.returncode == 1
    assert result.stdout == ""
    assert f"cannot listen on 127.0.0.1:{port}" in result.stderr


def test_runs_until_it_is_told_to_end(directory: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "demo", "--port", "0", "--dir", str(directory)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            said = ""
            while "Ctrl-C ends everything" not in said:
                line = process.stdout.readline()
                assert line, said
                said += line
            (port,) = re.findall(r"Tiergate listens on 127\.0\.0\.1:(\d+)", said)
            socket.create_connection(("127.0.0.1", int(port))).close()
            check_what_is_printed(said)
            servers = servers_of(directory)
            assert len(servers) == 4
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
            wait_until(lambda: not any(alive(pid) for pid in servers), what="the servers end")
        finally:
            process.kill()


def test_ended_while_its_servers_start(server_root: Path) -> None:
    directory = Path(tempfile.mkdtemp(dir=server_root))
    with subprocess.Popen(
        [*COMMAND, "demo", "--port", "0", "--dir", str(directory)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            assert process.stdout.readline().startswith("Starting")
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 128 + signal.SIGTERM
            assert servers_of(directory) == []
        finally:
            process.kill()
