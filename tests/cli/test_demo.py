"""The demo does what it promises, says so, and leaves nothing behind."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from tests.cli.running import COMMAND, ROOT
from tests.cli.test_embedded import alive
from tests.waiting import wait_until


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "demo", *arguments],
        capture_output=True,
        text=True,
        timeout=110,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
    )


def servers_of(directory: Path) -> list[int]:
    return [int(path.read_text().split()[0]) for path in directory.glob("*/postmaster.pid")]


def test_check_passes_twice_on_one_directory(server_root: Path) -> None:
    directory = server_root / "demo"
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


def test_runs_until_it_is_told_to_end(server_root: Path) -> None:
    directory = Path(tempfile.mkdtemp(dir=server_root))
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
            servers = servers_of(directory)
            assert len(servers) == 4
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
            wait_until(lambda: not any(alive(pid) for pid in servers), what="the servers end")
        finally:
            process.kill()
