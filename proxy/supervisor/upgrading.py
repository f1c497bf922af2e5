"""What an upgrade in place asks before the program is replaced: whether the new one runs, and that all is at rest.

The steps, in which nothing may be lost: `try_program`, `come_to_rest`, then all channels pause and `until_all_is_said`, and
`workers` is what the new program is told of each (see heritage.py).
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterable
from time import monotonic
from typing import Any

from proxy.errors import ConfigError, TiergateError
from proxy.supervisor import heritage
from proxy.supervisor.crew import Crew
from proxy.supervisor.custody import Vault
from proxy.supervisor.process import State, WorkerProcess, program

_CHECK_TIMEOUT = 60.0
_PATIENCE = 2.0  # seconds that an upgrade waits for what the control plane does


async def try_program(path: str) -> None:
    """A program that does not start would take everything with it, so it is tried on the configuration first."""
    command = [*program(), "check", "--config", path, "--heritage", str(heritage.FORMAT)]
    try:
        tried = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=_CHECK_TIMEOUT, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(f"the new program does not run: {error}") from None
    if tried.returncode:
        raise ConfigError("the new program refuses:\n" + (tried.stderr.strip() or tried.stdout.strip()))


async def come_to_rest(crew: Crew, vault: Vault) -> None:
    """Waits for what is under way: questions to the control plane, workers that start or end."""
    deadline = monotonic() + _PATIENCE
    while monotonic() < deadline and (
        vault.busy
        or any(
            process.channel.busy or process.channel.closed or process.state is State.STARTING
            for process in crew.processes.values()
        )
    ):
        await asyncio.sleep(0.01)


async def until_all_is_said(processes: Iterable[WorkerProcess]) -> None:
    """To workers whose channels are paused."""
    deadline = monotonic() + _PATIENCE
    while any(process.channel.busy and not process.channel.closed for process in processes):
        if monotonic() > deadline:
            raise TiergateError("a worker does not read what it is told")
        await asyncio.sleep(0.005)


def workers(crew: Crew, vault: Vault) -> tuple[list[dict[str, Any]], list[int]]:
    """A row for each, and the descriptors that the rows name."""
    now = monotonic()
    descriptors: list[int] = []
    rows: list[dict[str, Any]] = [
        {
            "number": process.number,
            "slot": process.slot,
            "pid": process.pid,
            "fd": process.channel.fileno() if not process.channel.closed else None,
            "handed": process.channel.hand_on(),
            "custody": vault.hand_on(process.number, descriptors),
            "version": process.version,
            "state": process.state.value,
            "age": now - process.started_at,
        }
        for process in crew.processes.values()
    ]
    return rows, descriptors + [row["fd"] for row in rows if row["fd"] is not None]
