"""What the kernel makes of it depends on the kernel: looked at is what it says, in threads that end afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from proxy.net import turns


def in_a_thread(work):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def test_a_turn_is_as_short_as_was_asked_for_or_nothing_has_changed():
    def shortened():
        before = turns.length()
        return before, turns.shorten(), turns.length()

    before, taken, after = in_a_thread(shortened)
    assert after == (turns.SHORT if taken else before)


def test_what_is_started_has_turns_of_its_own():
    def started():
        before = turns.length()
        if not turns.shorten():
            return before, before
        said = subprocess.run(
            [sys.executable, "-c", "from proxy.net import turns; print(turns.length())"],
            check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        return before, int(said.stdout)

    before, child = in_a_thread(started)
    assert child == before


def test_another_policy_is_left_alone():
    def batch():
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        before = turns.length()
        return before, turns.shorten(), turns.length()

    before, taken, after = in_a_thread(batch)
    assert not taken
    assert after == before


@pytest.mark.parametrize(
    ("name", "value"), [("machine", lambda: "vax"), ("system", "plan9"), ("calls", (100_000, 100_001))]
)
def test_where_there_is_nothing_of_the_kind_it_stays_as_it_is(monkeypatch, name, value):
    if name == "machine":
        monkeypatch.setattr(turns.platform, "machine", value)
    elif name == "system":
        monkeypatch.setattr(turns.sys, "platform", value)
    else:
        monkeypatch.setitem(turns._CALLS, turns.platform.machine(), value)
    assert not in_a_thread(turns.shorten)
    assert in_a_thread(turns.length) == 0
