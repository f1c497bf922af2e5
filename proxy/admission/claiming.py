"""How many connections a queue would take at once: of those who come before all others as many as wait, else one."""

from __future__ import annotations

from typing import Protocol

from proxy.admission.lines import Group
from proxy.admission.queue import ENTITLED
from proxy.admission.turns import Rota


class Waiting(Protocol):
    """A queue with its rota."""

    rota: Rota


def claimed(queue: Waiting) -> int:
    here: object = queue
    count = 0
    for guarantee in queue.rota.guarantees.values():
        for group in guarantee.groups:
            if isinstance(group, Group) and group.queue is here and group.round == ENTITLED:
                waiting = sum(len(waiters) for line in group.lines for waiters in line.users.values())
                count += min(guarantee.free, waiting)
    return max(1, count)
