"""The clock of the data plane, which is asked twice a transaction.

Compiled there is a twin in C (`clock.pyx`), without a call by name and a number made of what it says.
"""

from __future__ import annotations

import time


def monotonic() -> float:
    """Seconds, as `time.monotonic` counts them."""
    return time.monotonic()
