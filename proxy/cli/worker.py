"""`tiergate worker`: one process of several, started by the supervisor and by nobody else."""

from __future__ import annotations

import uvloop

from proxy.supervisor.member import Member


def run(number: int, channel: int, sockets: str) -> int:
    async def member() -> None:
        await Member(number, channel, [int(fd) for fd in sockets.split(",") if fd]).run()

    uvloop.run(member())
    return 0
