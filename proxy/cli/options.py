"""The options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The TOML configuration.")]
SomeConfig = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help="The TOML configuration.")
]
Json = Annotated[bool, typer.Option("--json", help="JSON for programs instead of a table.")]

# The HTTP API of a running proxy.
Url = Annotated[
    str, typer.Option(metavar="URL", envvar="TIERGATE_API_URL", help="The API of a running proxy.")
]
Token = Annotated[
    str,
    typer.Option(
        metavar="TOKEN", envvar="TIERGATE_API_TOKEN", show_default=False, help="Its bearer token; rather by the environment."
    ),
]  # fmt: skip
CaFile = Annotated[
    str, typer.Option(metavar="FILE", envvar="TIERGATE_API_CA_FILE", help="Who signed its certificate.")
]
URL = "http://127.0.0.1:9187"

# Where a tenant shall live; nothing of it: wherever its tier has room.
Cluster = Annotated[str | None, typer.Option(metavar="NAME", help="A configured cluster.")]
Shard = Annotated[int | None, typer.Option(metavar="N", help="A shard, cluster vip-N.")]
Primary = Annotated[str | None, typer.Option(metavar="HOST[:PORT]", help="A server of its own.")]
Replicas = Annotated[
    list[str] | None, typer.Option("--replica", metavar="HOST[:PORT]", help="May be repeated.")
]
Coordinators = Annotated[
    list[str] | None, typer.Option("--coordinator", metavar="HOST[:PORT]", help="May be repeated.")
]
