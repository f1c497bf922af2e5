"""A batch that waits for something else than a server connection or an answer: it is read again from the frame at hand
on when that is over, unless the session has ended or been cut off from its connection meanwhile."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING

from proxy.protocol.lifecycle import SessionState

if TYPE_CHECKING:
    from proxy.client.linking import Linking


def hold_for(session: Linking, work: Coroutine[None, None, None]) -> None:
    session.holding = True
    wait = session.evicting = object()
    session.parked = session.scanner.rewind() + session.parked

    async def hold() -> None:
        try:
            await work
        finally:
            if session.evicting is wait and session.state is not SessionState.CLOSED:
                session.evicting = None
                session.holding = False
                session.resume()

    session.plane.pools.spawn(hold())


async def evict(session: Linking, databases: tuple[str, ...]) -> None:
    """Until no idle connection of ours is in the way of a statement about databases."""
    wait = session.evicting
    try:
        for database in databases:
            await session.plane.pools.evict_database(session.pool.cluster.name, database)
    finally:
        if session.evicting is wait:
            session.evicted = True
