"""One run of pgbench: transactions, their latencies, and the proxy's CPU, all over the same stretch of time.

That stretch begins when all clients are connected and have done a transaction or two, and ends before the first
one leaves, so that neither logins nor cold caches are counted as the cost of transactions. What was done in it
is in pgbench's own log of every transaction.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.table import Sample
from benchmarks.targets import PASSWORD, Target
from proxy.cli.embedded import bin_dir

_SCRIPTS = Path(__file__).parent / "scripts"
_LINE = 30  # bytes of its log, at least
_LONGEST = 120.0  # seconds
_MANY_CLIENTS = 100


@dataclass(frozen=True)
class Work:
    mode: str  # simple | extended | prepared
    clients: int
    script: str = ""  # "" = pgbench's built-in SELECT, else the script of that name

    @property
    def title(self) -> str:
        name = f"{self.script}.sql" if self.script else "pgbench -S"
        return f"{name}, {self.mode}, {self.clients} client{'s' if self.clients > 1 else ''}"


@cache
def program(tls: bool) -> str:
    """Both proxies and all modes are run by the same one; "" if there is none."""
    own = bin_dir() / "pgbench"
    if not tls:
        return str(own)
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/pgbench"), reverse=True)
    return next((str(path) for path in (own, *debian) if _speaks_tls(path)), "")


def _speaks_tls(path: Path) -> bool:
    # Port 1 is nobody's: either way it fails, but without TLS it already fails at the option.
    said = subprocess.run(
        [str(path), "-n", "-S", "-t", "1", "-h", "127.0.0.1", "-p", "1"],
        env={**os.environ, "PGSSLMODE": "require"}, check=False, stderr=subprocess.PIPE, text=True,
    ).stderr  # fmt: skip
    return "not compiled in" not in said


def run(work: Work, seconds: float, directory: Path, target: Target) -> Sample | None:
    """None if it cannot be done that way."""
    logs = Path(tempfile.mkdtemp(prefix="log-", dir=directory))
    script = ["-f", str(_SCRIPTS / f"{work.script}.sql")] if work.script else ["-S"]
    command = [
        program(target.tls is not None), "-n", *script, "-M", work.mode, "-c", str(work.clients),
        "-j", "2" if work.clients >= _MANY_CLIENTS else "1", "-T", f"{_LONGEST:.0f}",
        "-l", "--log-prefix", str(logs / "log"),
        "-h", "127.0.0.1", "-p", str(target.port), "-U", "app", target.database,
    ]  # fmt: skip
    environ = {**os.environ, "PGPASSWORD": PASSWORD, "PGOPTIONS": target.pgoptions}
    environ |= {"PGSSLMODE": "require"} if target.tls else {}
    process = subprocess.Popen(
        command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        enough = 2 * work.clients * _LINE
        while process.poll() is None and sum(log.stat().st_size for log in logs.iterdir()) < enough:
            time.sleep(0.005)
        began, before = time.time(), target.cpu()
        while process.poll() is None and time.time() < began + seconds:
            time.sleep(0.005)
        ended, after = time.time(), target.cpu()
        process.send_signal(signal.SIGALRM)  # as its own -T does: each client ends its transaction and leaves
        _, errors = process.communicate()
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    latencies = sorted(_latencies(logs, began, ended))
    shutil.rmtree(logs)
    if process.returncode or not latencies:
        said = errors.strip().splitlines()[-1:] or ["no transaction"]
        print(f"{work.title} through {target.name}: {said[0]}", file=sys.stderr)
        return None
    done = len(latencies)
    sample = {
        "tps": done / (ended - began),
        "p50": latencies[done // 2] / 1000,
        "p99": latencies[min(done - 1, done * 99 // 100)] / 1000,
    }
    if target.pid:
        user, system = after.since(before)
        sample |= {"user": user / done, "system": system / done, "cpu": (user + system) / done}
    return sample


def _latencies(logs: Path, began: float, ended: float) -> Iterator[int]:
    """Microseconds of the transactions that ended in this stretch. A line: client number latency script seconds us."""
    first, last = int(began * 1e6), int(ended * 1e6)
    for log in logs.iterdir():
        for line in log.read_text().splitlines():
            fields = line.split()
            if first <= int(fields[4]) * 1_000_000 + int(fields[5]) <= last:
                yield int(fields[2])
