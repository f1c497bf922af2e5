"""Embedded servers: quick to start, real replicas, and nothing left when they or their parents end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from proxy.cli.embedded import EmbeddedError, EmbeddedServer, bin_dir, free_port
from tests.conftest import NewServer
from tests.waiting import wait_until

QUICK = {"fsync": "off", "shared_buffers": "16MB"}


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.fixture
def server(new_server: NewServer, tmp_path: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(new_server(tmp_path.name).data_dir, settings=QUICK) as found:
        yield found


def test_sql_gives_the_rows_of_the_last_statement(server: EmbeddedServer) -> None:
    assert server.sql("CREATE TABLE t (n int); INSERT INTO t VALUES (1), (2); SELECT n FROM t") == [
        (1,),
        (2,),
    ]
    assert server.sql("DROP TABLE t") == []
    assert server.sql("SHOW port") == [(str(server.port),)]
    assert server.sql("SHOW fsync") == [("off",)]


def test_a_restart_keeps_port_and_data_and_takes_other_settings(server: EmbeddedServer) -> None:
    port, pid = server.port, server.pid
    server.sql("CREATE TABLE kept AS SELECT 7 AS n")
    server.settings["work_mem"] = "1MB"
    server.stop()
    server.start()
    assert server.port == port
    assert server.pid != pid
    assert server.sql("SELECT n FROM kept") == [(7,)]
    assert server.sql("SHOW work_mem") == [("1MB",)]


def test_kill_is_a_crash(server: EmbeddedServer) -> None:
    with psycopg.connect(host=server.host, port=server.port, user="postgres", autocommit=True) as client:
        server.kill()
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 1")
    assert not server.running
    server.start()
    assert "was not properly shut down" in server.log()


def test_a_replica_streams_from_its_primary_even_after_it_restarts(
    server: EmbeddedServer, server_root: Path, tmp_path: Path
) -> None:
    with server.base_backup(server_root / f"{tmp_path.name}-replica") as replica:
        assert replica.sql("SELECT pg_is_in_recovery()") == [(True,)]
        server.stop()
        server.start()
        server.sql("CREATE TABLE streamed AS SELECT 1 AS n")
        wait_until(lambda: replica.sql("SELECT to_regclass('streamed') IS NOT NULL") == [(True,)])
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            replica.sql("CREATE TABLE mine (n int)")


def test_hba_lines_hold_for_all_but_the_superuser_on_the_socket(server_root: Path, tmp_path: Path) -> None:
    lines = ["host all all 127.0.0.1/32 scram-sha-256"]
    with EmbeddedServer(server_root / tmp_path.name, settings=QUICK, hba=lines) as server:
        server.sql("CREATE ROLE app LOGIN PASSWORD 'right'")
        where = f"host=127.0.0.1 port={server.port} dbname=postgres user=app"
        psycopg.connect(f"{where} password=right").close()
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(f"{where} password=wrong")


def test_a_server_that_cannot_start_says_why_and_leaves_nothing(server_root: Path, tmp_path: Path) -> None:
    server = EmbeddedServer(server_root / tmp_path.name, settings={"no_such_setting": "1"})
    with pytest.raises(EmbeddedError, match="no_such_setting"):
        server.start()
    assert not server.running
    assert not server.socket_dir.exists()


def test_a_given_port_that_is_taken_is_an_error(server_root: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedError, match="Address already in use"):
            EmbeddedServer(server_root / tmp_path.name, port=port, settings=QUICK).start()


def test_stop_twice_and_start_twice(server: EmbeddedServer) -> None:
    with pytest.raises(EmbeddedError, match="running already"):
        server.start()
    pid, directory = server.pid, server.socket_dir
    server.stop()
    server.stop()
    assert not alive(pid)
    assert not directory.exists()


PARENT = """
import sys, time
from pathlib import Path
from proxy.cli.embedded import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]), settings={"fsync": "off"}).start()
print(server.pid, server.socket_dir, flush=True)
if sys.argv[2] == "raise":
    raise SystemExit(3)
sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["raise", "kill"])
def test_ends_with_its_parent_however_that_ends(server_root: Path, tmp_path: Path, end: str) -> None:
    command = [sys.executable, "-c", PARENT, str(server_root / tmp_path.name), end]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, directory = parent.stdout.readline().split()
        if end == "kill":
            parent.send_signal(signal.SIGKILL)
        parent.wait(20)
        wait_until(lambda: not alive(int(pid)), what="the server ends")
        wait_until(lambda: not Path(directory).exists(), what="its socket directory is removed")


def test_programs_of_the_wheel_run() -> None:
    for program in ("psql", "pgbench", "postgres"):
        version = subprocess.run(
            [bin_dir() / program, "--version"], capture_output=True, text=True, check=True
        )
        assert "(PostgreSQL) 18" in version.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs it as somebody else")
def test_as_root_it_runs_as_nobody(server: EmbeddedServer) -> None:
    assert os.stat(f"/proc/{server.pid}").st_uid != 0
    assert server.data_dir.stat().st_uid == os.stat(f"/proc/{server.pid}").st_uid
