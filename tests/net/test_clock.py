from __future__ import annotations

import time

from proxy.net.clock import monotonic


def test_it_is_the_clock_of_everybody_else() -> None:
    before = time.monotonic()
    now = monotonic()
    assert before - 0.001 <= now <= time.monotonic() + 0.001
