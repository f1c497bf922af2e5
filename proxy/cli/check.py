"""`tiergate check`: every problem of a configuration file, certificates included, without listening."""

from __future__ import annotations

from pathlib import Path

import typer

from proxy import settings
from proxy.cli.problems import complain
from proxy.errors import ConfigError
from proxy.worker import certificates


def run(config: Path) -> int:
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
