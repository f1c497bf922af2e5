"""TLS contexts for both sides, by PostgreSQL's sslmodes, and the host name that a client asked for (SNI)."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from proxy.errors import ConfigError

ALPN = "postgresql"
_VERSIONS = {
    "tlsv1.2": ssl.TLSVersion.TLSv1_2,
    "tlsv1.3": ssl.TLSVersion.TLSv1_3,
}
_asked: WeakKeyDictionary[ssl.SSLObject | ssl.SSLSocket, str] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class ServerTls:
    """How servers are spoken to; `context` is None where sslmode is disable."""

    sslmode: str
    context: ssl.SSLContext | None

    @property
    def required(self) -> bool:
        return self.sslmode in ("require", "verify-ca", "verify-full")

    @property
    def first(self) -> bool:
        """TLS is tried before plain text."""
        return self.context is not None and self.sslmode != "allow"


@dataclass(frozen=True, slots=True)
class ClientTls:
    """How clients are spoken to; `required` means that plain text is refused."""

    sslmode: str
    context: ssl.SSLContext

    @property
    def required(self) -> bool:
        return self.sslmode in ("require", "verify-ca", "verify-full")


def server_tls(
    sslmode: str,
    *,
    ca_file: str = "",
    cert_file: str = "",
    key_file: str = "",
    protocols: Sequence[str] = (),
    ciphers: str = "",
) -> ServerTls:
    if sslmode == "disable":
        return ServerTls(sslmode, None)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = sslmode == "verify-full"
    context.verify_mode = ssl.CERT_REQUIRED if sslmode in ("verify-ca", "verify-full") else ssl.CERT_NONE
    context.set_alpn_protocols([ALPN])
    _load(context, ca_file, cert_file, key_file, protocols, ciphers, system_ca=sslmode.startswith("verify"))
    return ServerTls(sslmode, context)


def client_tls(
    sslmode: str,
    *,
    ca_file: str = "",
    cert_file: str = "",
    key_file: str = "",
    protocols: Sequence[str] = (),
    ciphers: str = "",
) -> ClientTls | None:
    if sslmode == "disable":
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if sslmode in ("verify-ca", "verify-full"):
        context.verify_mode = ssl.CERT_REQUIRED
    elif ca_file:
        context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols([ALPN])
    _load(context, ca_file, cert_file, key_file, protocols, ciphers, system_ca=False)
    context.sni_callback = _remember_name
    return ClientTls(sslmode, context)


def _remember_name(sock: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
    if name:
        _asked[sock] = name


def server_name(sock: ssl.SSLObject | ssl.SSLSocket | None) -> str:
    """The host name that the client asked for, or ""."""
    return _asked.get(sock, "") if sock is not None else ""


def _load(
    context: ssl.SSLContext,
    ca_file: str,
    cert_file: str,
    key_file: str,
    protocols: Sequence[str],
    ciphers: str,
    *,
    system_ca: bool,
) -> None:
    try:
        if cert_file:
            context.load_cert_chain(cert_file, key_file or None)
        if ca_file:
            context.load_verify_locations(ca_file)
        elif system_ca:
            context.load_default_certs()
        versions = [_VERSIONS[name.lower()] for name in protocols if name.lower() in _VERSIONS]
        context.minimum_version = min(versions, default=ssl.TLSVersion.TLSv1_2)
        if versions:
            context.maximum_version = max(versions)
        if ciphers not in ("", "default", "secure", "normal", "fast"):
            context.set_ciphers(ciphers)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"TLS files cannot be used: {error}") from None
