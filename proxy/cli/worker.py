"""`tiergate worker`: one process of several, started by the supervisor and by nobody else."""

from __future__ import annotations

import uvloop

from proxy.net import turns
from proxy.net.readiness import Loop
from proxy.supervisor.member import Member
from proxy.worker import tame_collector


def run(number: int, channel: int, sockets: str) -> int:
    async def member() -> None:
        await Member(number, channel, [int(fd) for fd in sockets.split(",") if fd]).run()

    tame_collector()
    turns.shorten()
    uvloop.run(member(), loop_factory=Loop)
    return 0
