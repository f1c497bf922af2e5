from __future__ import annotations

import time

from proxy.net.clock import monotonic, stand


def test_it_is_the_clock_of_everybody_else() -> None:
    before = time.monotonic()
    now = monotonic()
    assert before - 0.001 <= now <= time.monotonic() + 0.001


def test_it_stands_where_it_is_put_until_it_is_let_go() -> None:
    stand(7.5)
    assert [monotonic(), monotonic()] == [7.5, 7.5]
    stand(None)
    before = time.monotonic()
    assert monotonic() >= before - 0.001
