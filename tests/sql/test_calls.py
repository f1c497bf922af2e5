from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.model import PinReason
from proxy.sql.calls import UNKNOWN, judge_call
from proxy.sql.verdict import PLAIN, Verdict


@pytest.mark.parametrize(
    ("oid", "arguments", "verdict"),
    [
        (2078, [b"App.X", b"1", b"f"], Verdict(sets=("app.x",), touched=frozenset({"app.x"}))),
        (2078, [b"app.x", b"1", b"\0"], Verdict(sets=("app.x",), touched=frozenset({"app.x"}))),
        (2078, [b"app.x", b"1", None], Verdict(sets=("app.x",), touched=frozenset({"app.x"}))),
        (2078, [b"app.x", b"1", b"\1"], Verdict(touched=frozenset({"app.x"}))),
        (2078, [b"app.x", b"1", b"TRUE"], Verdict(touched=frozenset({"app.x"}))),
        (
            2078,
            [b"session_authorization", b"bob", b"f"],
            Verdict(
                pins=frozenset({PinReason.ROLE}),
                sets=("session_authorization",),
                touched=frozenset({"session_authorization"}),
            ),
        ),
        (
            2078,
            [b"search_path", b"a, pg_temp", b"f"],
            Verdict(
                pins=frozenset({PinReason.TEMP_TABLE}),
                sets=("search_path",),
                touched=frozenset({"search_path"}),
            ),
        ),
        (2078, [None, b"1", b"f"], UNKNOWN),
        (2078, [], UNKNOWN),
        (2880, [b"1"], Verdict(pins=frozenset({PinReason.ADVISORY_LOCK}))),
        (2889, [b"1", b"2"], Verdict(pins=frozenset({PinReason.ADVISORY_LOCK}))),
        (2924, [b"select 1"], UNKNOWN),
        (1599, [b"0"], Verdict(pins=frozenset({PinReason.SET}))),
        (1598, [], PLAIN),  # random()
        (16_383, [], PLAIN),
        (16_384, [b"x"], Verdict(pins=frozenset({PinReason.UNINSPECTED}))),
    ],
)
def test_judge_call(oid, arguments, verdict):
    if verdict is not UNKNOWN:
        verdict = replace(verdict, changed=verdict.touched)
    assert judge_call(oid, arguments) == verdict
