"""Tables for people, JSON for programs."""

from __future__ import annotations

import json
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

Row = dict[str, Any]


def say(value: object, rows: list[Row], *, as_json: bool) -> None:
    """`value` as JSON, or `rows` as a table."""
    if as_json:
        typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        show(rows)


def show(rows: list[Row]) -> None:
    paper().print(made(rows))


def paper() -> Console:
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 1000  # a file or a pipe has no edge to fold at
    return console


def made(rows: list[Row]) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in rows[0] if rows else ("",):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("\n".join(v) if isinstance(v, list) else _word(v) for v in row.values()))
    return table


def _word(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
