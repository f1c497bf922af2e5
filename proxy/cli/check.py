"""`tiergate check`: every problem of a configuration file, certificates included, without listening."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import typer

from proxy import settings
from proxy.cli.problems import complain
from proxy.errors import ConfigError
from proxy.supervisor.heritage import FORMAT
from proxy.worker import certificates


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
    for key in loaded.unused:
        typer.echo(f"note: {key} has no effect in this version")
    typer.echo("configuration OK")
    return 0
