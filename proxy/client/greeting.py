"""A client that has said what it wants and has not yet proved who it is."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any

from proxy.net.tls import server_name
from proxy.wire.startup import Startup


@dataclass(frozen=True, slots=True)
class Greeting:
    """A client's startup packet, and its TLS if it speaks any. `binding` is what SCRAM can bind to, b"" without."""

    startup: Startup
    tls: ssl.SSLObject | None
    binding: bytes = b""

    @property
    def server_name(self) -> str:
        return server_name(self.tls)

    @property
    def certificate_name(self) -> str:
        """The common name of a client certificate that has been verified, or ""."""
        certificate: Any = self.tls.getpeercert() if self.tls is not None else None
        for part in (certificate or {}).get("subject", ()):
            for name, value in part:
                if name == "commonName":
                    return str(value)
        return ""
