"""How many examples the property tests try: enough for every run, and any multiple of it where there is time."""

from __future__ import annotations

import os

_TIMES = int(os.environ.get("TIERGATE_EXAMPLES", "1"))


def examples(count: int) -> int:
    """TIERGATE_EXAMPLES=20 tries twenty times as many."""
    return count * _TIMES
