"""Channel binding data of certificates, against what the cryptography library says of them."""

from __future__ import annotations

import datetime
import hashlib
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from proxy.auth.binding import server_end_point

RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())


def certificate(key: Any, algorithm: Any, subject: str = "localhost", **more: Any) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)])
    start = datetime.datetime(2024, 1, 1)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=3650))
        .sign(key, algorithm, **more)
    )
    return made.public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize("key", [RSA, EC], ids=["rsa", "ec"])
@pytest.mark.parametrize("algorithm", [hashes.SHA224(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])
def test_the_hash_is_that_of_the_signature(key: Any, algorithm: hashes.HashAlgorithm) -> None:
    der = certificate(key, algorithm)
    assert server_end_point(der) == hashlib.new(algorithm.name, der).digest()


@pytest.mark.parametrize("old", ["2a864886f70d010104", "2a864886f70d010105"], ids=["md5", "sha1"])
def test_a_weak_hash_becomes_sha256(old: str) -> None:
    der = certificate(RSA, hashes.SHA256()).replace(bytes.fromhex("2a864886f70d01010b"), bytes.fromhex(old))
    assert server_end_point(der) == hashlib.sha256(der).digest()


def test_no_binding_where_clients_do_not_agree_on_a_hash() -> None:
    assert server_end_point(certificate(ed25519.Ed25519PrivateKey.generate(), None)) == b""
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    assert server_end_point(certificate(RSA, hashes.SHA256(), rsa_padding=pss)) == b""


def test_the_length_of_the_certificate_does_not_matter() -> None:
    for size in (1, 40, 64):
        der = certificate(EC, hashes.SHA256(), "x" * size)
        assert server_end_point(der) == hashlib.sha256(der).digest()


DER = certificate(EC, hashes.SHA256())


@given(st.integers(0, len(DER) - 1))
def test_a_cut_certificate_has_none(size: int) -> None:
    assert server_end_point(DER[:size]) == b""


@given(st.binary(max_size=64))
def test_garbage_has_none(data: bytes) -> None:
    assert server_end_point(data) == b""
