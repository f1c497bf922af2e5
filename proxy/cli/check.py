"""`tiergate check`: every problem of a configuration file, certificates included, without listening."""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path

import typer

from proxy import settings
from proxy.cli.problems import complain
from proxy.cli.validity import not_after
from proxy.errors import ConfigError
from proxy.supervisor.heritage import FORMAT
from proxy.worker import certificates

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_SOON = timedelta(days=21)


def _soon(file: Path, now: datetime) -> str:
    """What is to be said of how long the first certificate in `file` is still good; "" where that is long."""
    try:
        found = _PEM.search(file.read_text("ascii", "replace"))
    except OSError:
        return ""
    until = not_after(ssl.PEM_cert_to_DER_cert(found[0])) if found is not None else None
    if until is None or until > now + _SOON:
        return ""
    return f"{'has expired' if until <= now else 'expires'} on {until:%Y-%m-%d %H:%M} UTC"


def run(config: Path, heritage: int | None = None) -> int:
    """`heritage` asks whether this program could take the place of one that leaves that format."""
    if heritage is not None:
        import_module("proxy.cli.serve")  # all that a supervisor needs is there
        if heritage != FORMAT:
            typer.echo("tiergate: an upgrade in place from that version is not possible; restart", err=True)
            return 1
    try:
        loaded = settings.load(str(config))
        certificates(loaded)
    except ConfigError as error:
        complain(error)
        return 1
    for key, name in (
        ("client_tls_cert_file", loaded.tls.client_tls_cert_file),
        ("server_tls_cert_file", loaded.tls.server_tls_cert_file),
        ("http_tls_cert_file", loaded.process.http_tls_cert_file),
    ):
        if name and (note := _soon(Path(name), datetime.now(UTC))):
            typer.echo(f"note: the certificate of {key} {note}")
    for key in loaded.unused:
        typer.echo(f"note: {key} has no effect in this version")
    typer.echo("configuration OK")
    return 0
