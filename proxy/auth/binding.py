"""Channel binding data `tls-server-end-point` (RFC 5929): the hash that stands for a server's certificate."""

from __future__ import annotations

import hashlib

from proxy.auth.der import inside

# Signature algorithms (object identifiers in DER) and the hash they are made with; MD5 and SHA-1 become SHA-256.
# Others (Ed25519, RSASSA-PSS) have no hash that all clients agree on: no binding is offered for them.
_HASHES = {
    "2a864886f70d010104": "sha256",  # md5WithRSAEncryption
    "2a864886f70d010105": "sha256",  # sha1WithRSAEncryption
    "2a864886f70d01010e": "sha224",
    "2a864886f70d01010b": "sha256",
    "2a864886f70d01010c": "sha384",
    "2a864886f70d01010d": "sha512",
    "2a8648ce3d0401": "sha256",  # ecdsa-with-SHA1
    "2a8648ce3d040301": "sha224",
    "2a8648ce3d040302": "sha256",
    "2a8648ce3d040303": "sha384",
    "2a8648ce3d040304": "sha512",
}
_SEQUENCE, _OBJECT_IDENTIFIER = 0x30, 0x06


def server_end_point(certificate: bytes) -> bytes:
    """Of a certificate in DER; b"" where there is no binding for it."""
    try:
        start, _ = inside(certificate, 0, _SEQUENCE)
        _, start = inside(certificate, start, _SEQUENCE)  # past what is signed
        start, _ = inside(certificate, start, _SEQUENCE)
        start, end = inside(certificate, start, _OBJECT_IDENTIFIER)
    except (ValueError, IndexError):
        return b""
    name = _HASHES.get(certificate[start:end].hex())
    return hashlib.new(name, certificate).digest() if name is not None else b""
