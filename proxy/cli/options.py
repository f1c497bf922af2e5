"""The options that several commands have."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

if TYPE_CHECKING:
    from proxy.cli.remote import Api

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


class Access(NamedTuple):
    """Where the API is, and who asks."""

    url: str
    token: str
    ca_file: str

    def open(self) -> Api:
        from proxy.cli.remote import Api  # others have no use for its libraries

        return Api(*self)


def by_api(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose first parameter, `access`, is made of the options that say where the API is."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    keyword = inspect.Parameter.KEYWORD_ONLY
    options = [
        inspect.Parameter("url", keyword, default=URL, annotation=Url),
        inspect.Parameter("token", keyword, default="", annotation=Token),
        inspect.Parameter("ca_file", keyword, default="", annotation=CaFile),
    ]

    def run(*, url: str, token: str, ca_file: str, **said: Any) -> None:
        command(Access(url, token, ca_file), **said)

    signature = inspect.Signature([*(p.replace(kind=keyword) for p in own), *options])
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


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
