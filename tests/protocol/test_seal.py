"""The text of a seal, and what a server says of itself."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from proxy.model import Seal, SealKey
from proxy.protocol.seal import read_introduction, sign

SECRET = "0123456789" * 4
SEAL = Seal("app.tenant_id", 900.0, (SealKey("old", "o" * 32), SealKey("new", SECRET)))


def test_it_is_an_hmac_over_version_key_expiry_backend_and_tenant_with_the_newest_key() -> None:
    message = "tiergate seal 1\nnew\n1700000000\n12/2026/127.0.0.1/9\nacmé".encode()
    digest = hmac.new(SECRET.encode(), message, hashlib.sha256).hexdigest()
    assert sign(SEAL, "acmé", "12/2026/127.0.0.1/9", 1_700_000_000) == f"1.new.1700000000.{digest}"


@pytest.mark.parametrize(
    "other",
    [
        sign(SEAL, "acme2", "backend", 17),
        sign(SEAL, "acme", "backend2", 17),
        sign(SEAL, "acme", "backend", 18),
        sign(Seal("app.tenant_id", 900.0, (SealKey("new", "x" * 40),)), "acme", "backend", 17),
    ],
)
def test_whatever_differs_makes_another(other: str) -> None:
    assert other.rpartition(".")[2] != sign(SEAL, "acme", "backend", 17).rpartition(".")[2]


def test_a_key_does_not_show_its_secret() -> None:
    assert SECRET not in repr(SEAL)
    assert SECRET not in str(SEAL.keys)


def test_an_introduction_has_the_time_and_the_backend() -> None:
    said = read_introduction("1 1700000000 12/2026/127.0.0.1/9")
    assert (said.time, said.backend) == (1_700_000_000.0, "12/2026/127.0.0.1/9")


@pytest.mark.parametrize("text", ["", "1", "1 x y", "1 1700000000", "1 1700000000 ", "2 1700000000 b"])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="SQL kit"):
        read_introduction(text)
