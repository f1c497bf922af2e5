"""TLS contexts for both sides, by PostgreSQL's sslmodes, and the host name that a client asked for (SNI)."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

from proxy.auth.binding import server_end_point
from proxy.errors import ConfigError
from proxy.model import TlsOptions

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
    """How clients are spoken to; `required` means that plain text is refused. `binding` is what SCRAM can bind to."""

    sslmode: str
    context: ssl.SSLContext
    binding: bytes = b""

    @property
    def required(self) -> bool:
        return self.sslmode in ("require", "verify-ca", "verify-full")


def server_tls(options: TlsOptions) -> ServerTls:
    sslmode = options.sslmode
    if sslmode == "disable":
        return ServerTls(sslmode, None)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = sslmode == "verify-full"
    context.verify_mode = ssl.CERT_REQUIRED if sslmode in ("verify-ca", "verify-full") else ssl.CERT_NONE
    context.set_alpn_protocols([ALPN])
    context.options |= ssl.OP_NO_RENEGOTIATION
    _load(context, options, system_ca=sslmode.startswith("verify"))
    return ServerTls(sslmode, context)


def client_tls(options: TlsOptions) -> ClientTls | None:
    sslmode = options.sslmode
    if sslmode == "disable":
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if sslmode in ("verify-ca", "verify-full"):
        context.verify_mode = ssl.CERT_REQUIRED
    elif options.ca_file:
        context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols([ALPN])
    _load(context, options, system_ca=False)
    context.sni_callback = _remember_name
    context.num_tickets = 0  # clients of PostgreSQL resume no sessions
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    return ClientTls(sslmode, context, _binding(options.cert_file))


def _binding(cert_file: str) -> bytes:
    """Of the first certificate in the file, which is the one that clients see."""
    first = re.search("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", _text(cert_file), re.DOTALL)
    return server_end_point(ssl.PEM_cert_to_DER_cert(first.group())) if first is not None else b""


def _text(path: str) -> str:
    return Path(path).read_text("utf-8", "replace") if path else ""


def _remember_name(sock: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
    if name:
        _asked[sock] = name


def server_name(sock: ssl.SSLObject | ssl.SSLSocket | None) -> str:
    """The host name that the client asked for, or ""."""
    return _asked.get(sock, "") if sock is not None else ""


def _load(context: ssl.SSLContext, options: TlsOptions, *, system_ca: bool) -> None:
    what = "certificate"
    ca_file, cert_file, key_file = options.ca_file, options.cert_file, options.key_file
    try:
        if cert_file:
            what = f"{cert_file} (with its key {key_file or 'in the same file'})"
            context.load_cert_chain(cert_file, key_file or None, password=_refuse_password)
        if ca_file:
            what = ca_file
            context.load_verify_locations(ca_file)
        elif system_ca:
            context.load_default_certs()
        what = "ciphers"
        versions = [_VERSIONS[name.lower()] for name in options.protocols if name.lower() in _VERSIONS]
        context.minimum_version = min(versions, default=ssl.TLSVersion.TLSv1_2)
        if versions:
            context.maximum_version = max(versions)
        if options.ciphers not in ("", "default", "secure", "normal", "fast"):
            context.set_ciphers(options.ciphers)
    except OSError as error:  # ssl.SSLError is one
        # OpenSSL's errors have a reason or a text, and their strerror is long; those of the system have a strerror.
        reason = getattr(error, "reason", None) or (not isinstance(error, ssl.SSLError) and error.strerror)
        raise ConfigError(f"TLS files cannot be used: {what}: {reason or error}") from None


def _refuse_password() -> str:
    """OpenSSL would ask at the terminal, and nobody is there."""
    raise ConfigError("TLS files cannot be used: the private key is encrypted")
