"""A configuration told to all workers at once: who has taken it up, and who has not said so.

One that hangs holds up nobody: it reads what it was told when it goes on, and whoever replaces it begins with that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from proxy import log
from proxy.errors import TiergateError
from proxy.net.channel import Fields
from proxy.supervisor.process import WorkerProcess

_log = log.get("supervisor")
_SAID_WITHIN = 3.0  # seconds; a file of 10,000 tenants takes half of one
_ON_ITS_WAY = 0.2  # for one of which nothing was heard of late


async def tell_all(processes: Collection[WorkerProcess], orders: Fields) -> list[int]:
    """The numbers of those that have not said, for now, that it is done; why not is in the log."""
    answers = await asyncio.gather(
        *(p.channel.ask("reload", _ON_ITS_WAY if p.silent else _SAID_WITHIN, **orders) for p in processes),
        return_exceptions=True,
    )
    without = []
    for process, answer in zip(processes, answers, strict=True):
        if isinstance(answer, TiergateError):
            _log.error("a worker has not reloaded", worker=process.number, error=answer.message)
            without.append(process.number)
        elif isinstance(answer, BaseException):
            raise answer
    return without
