from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.sql.watch import Watch

FILLING = b"INSERT INTO t VALUES " + b"(1, 'some text'), " * 500


@pytest.mark.parametrize(
    "hidden",
    [
        b"SET app.TENANT_id TO 'other'",
        b"select SET_CONFIG('a' || 'b', 'x', false)",
        b'U&"\\0061"',
        b"alter" + b" " * 5000 + b"role a set b = c",
        b"Alter\tDatabase a set b = c",
        b"alter/**/user a password 'b'",
    ],
)
@given(st.lists(st.integers(0, 20_000), max_size=20))
def test_found_wherever_the_text_is_cut(hidden: bytes, cuts: list[int]) -> None:
    text = FILLING + hidden + FILLING
    at = sorted({cut % len(text) for cut in cuts} | {0, len(text)})
    watch = Watch("app.tenant_id")
    assert any(watch.suspicious(text[a:b]) for a, b in pairwise(at))


def test_a_bulk_insert_is_not_suspicious() -> None:
    watch = Watch("app.tenant_id")
    assert not any(watch.suspicious(FILLING) for _ in range(20))
