"""How a command says what is wrong: a line a problem on standard error."""

from __future__ import annotations

import typer

from proxy.errors import ConfigError


def complain(error: ConfigError) -> None:
    for problem in error.problems:
        typer.echo(f"tiergate: {problem}", err=True)
