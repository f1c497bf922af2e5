"""What every suite runs against: a fresh server of its own, and a proxy in front of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from proxy.cli.embedded import free_port

SETTINGS = {
    "fsync": "off",
    "max_prepared_transactions": "10",
    "log_autovacuum_min_duration": "-1",
    "max_connections": "100",
    "log_min_messages": "panic",
    "autovacuum": "off",
}


class Programs:
    """PostgreSQL's programs, run as the user postgres where we are root."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []

    def ask(self, what: str) -> str:
        """One answer of pg_config."""
        command = [self.directory / "pg_config", what]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def run(self, program: str, *arguments: object) -> None:
        command = [*self._prefix, str(self.directory / program), *map(str, arguments)]
        subprocess.run(command, check=True, cwd="/", stdout=subprocess.DEVNULL)

    @contextmanager
    def server(self, statements: Sequence[str], settings: Mapping[str, str], *initdb: str) -> Iterator[int]:
        """A fresh server on which the statements have been run (`@name statement`: in that database); its port."""
        root = Path(tempfile.mkdtemp(prefix="suite-"))
        root.chmod(0o755)
        if self._prefix:
            shutil.chown(root, "postgres")
        data, port = root / "data", free_port()
        self.run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", *initdb)
        lines = {
            **SETTINGS,
            **settings,
            "port": str(port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
        }
        with (data / "postgresql.conf").open("a") as file:
            file.writelines(f"{key} = '{value}'\n" for key, value in lines.items())
        self.run("pg_ctl", "-D", data, "-w", "-l", root / "log", "start")
        try:
            psql = [self.directory / "psql", "-X", "-q", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres"]
            for statement in statements:
                database = "postgres"
                if statement.startswith("@"):
                    database, _, statement = statement[1:].partition(" ")
                subprocess.run([*psql, "-d", database, "-c", statement], check=True)
            yield port
        finally:
            self.run("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
            shutil.rmtree(root, ignore_errors=True)


@contextmanager
def proxied(server: int, mode: str, log: Path, users: str = "postgres") -> Iterator[int]:
    """A proxy in a process of its own, which moves transactions from connection to connection; its port."""
    port = free_port()
    command = [sys.executable, "-m", "tests.suites.moving", "--server", f"127.0.0.1:{server}"]
    command += ["--port", str(port), "--mode", mode, "--users", users]
    with log.open("w") as err:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield port
        finally:
            process.terminate()
            process.wait(20)
            process.stdout.close()
