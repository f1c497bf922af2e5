"""The clock of the data plane, which is asked twice a transaction.

It goes, or it stands where whoever simulates has put it. Compiled there is a twin in C (`clock.pyx`), without a call by
name and a number made of what it says.
"""

from __future__ import annotations

import time

_stands: float | None = None


def monotonic() -> float:
    """Seconds, as `time.monotonic` counts them."""
    return time.monotonic() if _stands is None else _stands


def stand(now: float | None) -> None:
    """All of this process see that time, until None lets the clock go again."""
    global _stands
    _stands = now
