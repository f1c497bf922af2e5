"""The command `tiergate`: what it can be asked. Each command's work is in the module of its name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from proxy import __version__
from proxy.cli import completing
from proxy.cli.options import Access, Config, Json, SomeConfig, by_api
from proxy.cli.tenant_commands import tenants

main = typer.Typer(
    name="tiergate",
    help="A tenant-aware PostgreSQL connection pooler.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
main.add_typer(tenants, name="tenants")
sql = typer.Typer(help="The SQL kit that seals tenants, in the databases.", no_args_is_help=True)
main.add_typer(sql, name="sql")
tokens = typer.Typer(help="Tokens for the HTTP API.", no_args_is_help=True)
main.add_typer(tokens, name="token")

Cluster = Annotated[str, typer.Option(metavar="NAME", help="One of its clusters.")]
Dsn = Annotated[str, typer.Option(metavar="URL", help="postgresql://user:password@host:port/database")]
ServerUser = Annotated[str, typer.Option(metavar="NAME", help="Who owns the kit; else PGUSER, or postgres.")]
Database = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="Else the cluster's dbname; else, but for install, all that have the kit."
    ),
]

Registry = Annotated[
    bool, typer.Option("--registry", help="The tenant registry's tables, in the database of --dsn.")
]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"tiergate {__version__}")
        raise typer.Exit


@main.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    pass


@main.command()
def serve(config: Config) -> None:
    """Run the proxy in the foreground.

    SIGHUP reloads the file. SIGTERM drains: no new clients, transactions may finish for shutdown_timeout;
    a second one stops at once. SIGINT and SIGQUIT stop at once. All of them exit 0. With several workers,
    SIGUSR2 upgrades the program in place.
    """
    from proxy.cli.serve import run

    raise typer.Exit(run(config))


@main.command(hidden=True)
def worker(
    number: Annotated[int, typer.Option()],
    channel: Annotated[int, typer.Option()],
    sockets: Annotated[str, typer.Option()],
) -> None:
    """One process of several; the supervisor starts it."""
    from proxy.cli.worker import run

    raise typer.Exit(run(number, channel, sockets))


@main.command()
def check(config: Config, heritage: Annotated[int | None, typer.Option(hidden=True)] = None) -> None:
    """Say everything that is wrong with a configuration file, or "configuration OK"."""
    from proxy.cli.check import run

    raise typer.Exit(run(config, heritage))


@main.command()
@by_api
def pools(access: Access, json: Json = False) -> None:
    """The pools of a running proxy, by its API."""
    from proxy.cli.top import run_pools

    raise typer.Exit(run_pools(access.open(), as_json=json))


@main.command()
@by_api
def top(
    access: Access,
    interval: Annotated[float, typer.Option(min=0.05, metavar="SECONDS", help="How often.")] = 2.0,
    rows: Annotated[int, typer.Option(min=1, metavar="N", help="How many tenants.")] = 30,
    rounds: Annotated[int, typer.Option(min=0, metavar="N", help="How many times; 0: until Ctrl-C.")] = 0,
    json: Json = False,
) -> None:
    """The busiest tenants of a running proxy, live, by its API; with --json a line a round."""
    from proxy.cli.top import run_top

    raise typer.Exit(run_top(access.open(), interval, rows, rounds, as_json=json))


@sql.command("install")
def install_sql(
    config: SomeConfig = None,
    cluster: Cluster = "",
    dsn: Dsn = "",
    user: ServerUser = "",
    database: Database = "",
    registry: Registry = False,
    json: Json = False,
) -> None:
    """Bring the kit and the configured keys to a database; the password is PGPASSWORD's. Safe to repeat."""
    from proxy.cli.sql import Where, run_install

    raise typer.Exit(run_install(Where(config, cluster, dsn, user, database, registry, json)))


@sql.command("upgrade")
def upgrade_sql(
    config: SomeConfig = None,
    cluster: Cluster = "",
    dsn: Dsn = "",
    user: ServerUser = "",
    database: Database = "",
    registry: Registry = False,
    json: Json = False,
) -> None:
    """The same where a kit is there already."""
    from proxy.cli.sql import Where, run_upgrade

    raise typer.Exit(run_upgrade(Where(config, cluster, dsn, user, database, registry, json)))


@sql.command("status")
def sql_status(
    config: SomeConfig = None,
    cluster: Cluster = "",
    dsn: Dsn = "",
    user: ServerUser = "",
    database: Database = "",
    registry: Registry = False,
    json: Json = False,
) -> None:
    """Which version is there, with which keys, and which policies use it or should."""
    from proxy.cli.sql import Where, run_status

    raise typer.Exit(run_status(Where(config, cluster, dsn, user, database, registry, json)))


@sql.command("rotate-key")
def rotate_key(
    config: Config,
    cluster: Cluster,
    dsn: Dsn = "",
    user: ServerUser = "",
    now: Annotated[
        bool, typer.Option("--now", help="Keys that are no longer configured end at once.")
    ] = False,
) -> None:
    """Store what is configured, retire what is not; a seal_keys_file gets a new key, to be used after a reload.

    In all databases of the servers that have the kit.
    """
    from proxy.cli.sql import Where, run_rotate

    raise typer.Exit(run_rotate(Where(config, cluster, dsn, user), at_once=now))


@tokens.command("new")
def new_token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the log calls its bearer.")] = "NAME",
    role: Annotated[
        str,
        typer.Option(
            metavar="ROLE", help="viewer, operator, admin or tenant-admin.", autocompletion=completing.roles
        ),
    ] = "viewer",
    tenant: Annotated[str, typer.Option(metavar="TENANT", help="Whose administrator: a name or an id.")] = "",
    json: Json = False,
) -> None:
    """Print a new token (standard output) and the table with its hash for the configuration (standard error)."""
    from proxy.cli.token import run_new

    raise typer.Exit(run_new(name, role, tenant, as_json=json))


@main.command()
def demo(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where the proxy listens; 0: a free port.")
    ] = 6432,
    directory: Annotated[
        Path | None, typer.Option("--dir", metavar="DIR", help="Keep servers and configuration here.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Try everything, print the result and end.")] = False,
) -> None:
    """Start real PostgreSQL servers for three tiers, the proxy before them, and say what to try."""
    from proxy.cli.demo import run

    raise typer.Exit(run(port, directory, check=check))
