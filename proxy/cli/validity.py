"""Until when a certificate is valid."""

from __future__ import annotations

from datetime import UTC, datetime

from proxy.auth.der import inside, past

_VERSION, _INTEGER, _SEQUENCE, _UTC_TIME, _TIME = 0xA0, 0x02, 0x30, 0x17, 0x18


def not_after(certificate: bytes) -> datetime | None:
    """Of one in DER; None where that cannot be read."""
    try:
        at, _ = inside(certificate, 0, _SEQUENCE)
        at, _ = inside(certificate, at, _SEQUENCE)  # what is signed
        if certificate[at] == _VERSION:
            at = past(certificate, at, _VERSION)
        for tag in (_INTEGER, _SEQUENCE, _SEQUENCE):  # its number, the algorithm, who has issued it
            at = past(certificate, at, tag)
        at, _ = inside(certificate, at, _SEQUENCE)
        at = past(certificate, at, certificate[at])  # from when it is valid
        kind = certificate[at]
        start, end = inside(certificate, at, kind)
        said = certificate[start:end].decode("ascii")
        if kind == _UTC_TIME:
            said = ("19" if said >= "5" else "20") + said  # RFC 5280, 4.1.2.5.1
        elif kind != _TIME:
            return None
        return datetime.strptime(said, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    except (ValueError, IndexError):
        return None
