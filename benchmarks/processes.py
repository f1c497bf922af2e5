"""Programs the benchmarks start: they end when their block ends, and what CPU and memory they took is read from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_STOP_TIMEOUT = 120.0


@contextmanager
def started(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    user: int | None = None,
    cpus: frozenset[int] = frozenset(),
    talks: bool = False,
) -> Iterator[subprocess.Popen[str]]:
    """In a session of its own: Ctrl-C reaches the benchmark alone, which then ends what it has started.

    Its output goes to standard error, unless it `talks` with us over pipes.
    """
    before = os.sched_getaffinity(0)
    if cpus:
        os.sched_setaffinity(0, cpus)
    try:
        process = subprocess.Popen(
            command, cwd=cwd, user=user, text=True, start_new_session=True,
            stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talks else sys.stderr,
        )  # fmt: skip
    finally:
        os.sched_setaffinity(0, before)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
        process.communicate()


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"not in time: {what}")
        time.sleep(0.02)


@dataclass(frozen=True)
class Cpu:
    """CPU seconds of a process and its children since it began."""

    total: float = 0.0
    user_ticks: int = 0
    system_ticks: int = 0

    def since(self, before: Cpu) -> tuple[float, float]:
        """Microseconds in user and in system mode. The sum is exact, its parts are known to 10 ms."""
        total = (self.total - before.total) * 1e6
        user, system = self.user_ticks - before.user_ticks, self.system_ticks - before.system_ticks
        share = user / (user + system) if user + system else 0.0
        return total * share, total * (1 - share)


def cpu(pid: int) -> Cpu:
    found = Cpu()
    for each in family(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rsplit(")", 1)[1].split()
        # The kernel's clock of another process's CPU time (clock_getcpuclockid), in nanoseconds.
        total = time.clock_gettime((~each << 3) | 2)
        found = Cpu(
            found.total + total, found.user_ticks + int(fields[11]), found.system_ticks + int(fields[12])
        )
    return found


def family(pid: int) -> list[int]:
    """The process and all its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in family(int(child)))]


def memory(pid: int) -> tuple[int, int]:
    """Bytes: resident, and the process's share of what it has in common with others (Pss)."""
    sizes = {"Rss": 0, "Pss": 0}
    for each in family(pid):
        for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in sizes:
                sizes[name] += int(rest.split()[0]) * 1024
    return sizes["Rss"], sizes["Pss"]
