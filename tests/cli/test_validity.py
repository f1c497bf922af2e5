"""Until when a certificate is valid, as OpenSSL reads it, and of what is none."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from proxy.cli.validity import not_after

UNTIL = (datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC), datetime(2061, 2, 3, 4, 5, 6, tzinfo=UTC))


def certificate(until: datetime) -> bytes:
    made = trustme.CA().issue_cert("localhost", not_before=until - timedelta(days=1), not_after=until)
    return ssl.PEM_cert_to_DER_cert(made.cert_chain_pems[0].bytes().decode())


@pytest.mark.parametrize("until", UNTIL)  # they are written in two ways, before 2050 and after
def test_until_when(until: datetime) -> None:
    assert not_after(certificate(until)) == until


@given(st.binary(max_size=64))
def test_of_anything_else_nothing_is_known(blob: bytes) -> None:
    assert not_after(blob) is None


def test_of_a_part_nothing_is_known() -> None:
    whole = certificate(UNTIL[0])
    assert [end for end in range(0, len(whole), 7) if not_after(whole[:end]) is not None] == []
