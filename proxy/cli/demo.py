"""`tiergate demo`: the proxy before real servers of three tiers, its configuration, and what to try."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Coroutine, Iterator
from pathlib import Path

import typer
import uvloop

from proxy import log, settings
from proxy.auth import token
from proxy.cli.demo_servers import APP_PASSWORD, DATABASE, HOMES, SHOPS, Servers, running_servers
from proxy.cli.embedded import EmbeddedError, bin_dir, free_port
from proxy.cli.problems import complain
from proxy.cli.serve import serve
from proxy.errors import ConfigError
from proxy.net.readiness import Loop
from proxy.settings import Settings
from proxy.worker import Worker

ADMIN_PASSWORD = "admin-secret"  # noqa: S105
API_TOKEN = "demo-token"  # noqa: S105

_HTTP_PORT = 9187


def run(port: int, directory: Path | None, *, check: bool) -> int:
    try:
        bin_dir()
        import psycopg  # noqa: F401
    except (EmbeddedError, ModuleNotFoundError):
        typer.echo("tiergate: the demo needs its extra: pip install 'tiergate[demo]'", err=True)
        return 1
    try:
        log.configure("console", "warning" if check else "info")
        _refuse_taken(port)
        with _home(directory) as home:
            return uvloop.run(_interruptible(_demo(port, home, check)), loop_factory=Loop)
    except ConfigError as error:
        complain(error)
    except EmbeddedError as error:
        typer.echo(f"tiergate: {error}", err=True)
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
    return 1


async def _interruptible(work: Coroutine[None, None, int]) -> int:
    """SIGTERM ends it in order while no proxy runs yet that would take the signal; SIGINT does so by itself."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


async def _demo(port: int, home: Path, check: bool) -> int:
    typer.echo("Starting four PostgreSQL servers ...")
    async with running_servers(home) as servers:
        config = _configure(home, servers, port, quiet=check)
        if not check:
            await serve(config, lambda worker: _say(worker, servers, home))
            return 0
        from proxy.cli.demo_checks import Demo, run_checks

        worker = Worker(config)
        await worker.start()
        try:
            running = Demo(
                worker.port, worker.http_port, servers, HOMES, DATABASE, APP_PASSWORD, ADMIN_PASSWORD
            )
            return 0 if await asyncio.to_thread(run_checks, running) else 1
        finally:
            await worker.stop()


@contextlib.contextmanager
def _home(directory: Path | None) -> Iterator[Path]:
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        yield directory.absolute()
        return
    home = Path(tempfile.mkdtemp(prefix="tiergate-demo-"))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _refuse_taken(port: int) -> None:
    """Before any server is started, so that the answer is there at once."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on 127.0.0.1:{port}: {error.strerror}; --port takes another"
            ) from None


# --- the proxy --------------------------------------------------------------------------------------


def _configure(home: Path, servers: Servers, port: int, *, quiet: bool) -> Settings:
    path = home / "tiergate.toml"
    path.write_text(_toml(servers, port or free_port(), _http_port(port), "warning" if quiet else "info"))
    return settings.load(str(path), environ={})


def _http_port(port: int) -> int:
    """The usual one where it is free; a busy one is no reason not to show the rest."""
    if port:
        with contextlib.suppress(ConfigError):
            _refuse_taken(_HTTP_PORT)
            return _HTTP_PORT
    return free_port()


def _toml(servers: Servers, port: int, http_port: int, level: str) -> str:
    shops = "\n".join(f'[tenant.{name}]\ntier = "standard"' for name in SHOPS)
    return f"""\
# Written by `tiergate demo`. Edit it and say RELOAD on the console (or send SIGHUP) to see it applied.

[proxy]
listen_addr = "127.0.0.1"
listen_port = {port}
http_addr = "127.0.0.1:{http_port}"
pool_mode = "transaction"
default_pool_size = 10
log_level = "{level}"
admin_users = ["admin"]
server_tls_sslmode = "disable"

[user.admin]
password = "{ADMIN_PASSWORD}"

[api_token.demo]                     # by which programs operate it; `tiergate token new` makes better ones
hash = "{token.hashed(API_TOKEN)}"
role = "admin"

[user.app]                           # a service that may act for every tenant
password = "{APP_PASSWORD}"
tenants = "*"

[user.acme_erp]                      # a login that may act for acme alone
password = "{APP_PASSWORD}"
tenants = ["acme"]
server_user = "app"
server_password = "{APP_PASSWORD}"

# --- servers ---

[cluster.vip-1]
kind = "vip"
coordinators = ["127.0.0.1:{servers.vip.port}"]

[cluster.shared]
kind = "shared"
coordinators = ["127.0.0.1:{servers.shared.port}"]

# --- tenants ---

[tenant.acme]
tier = "enterprise"
[tenant.acme.postgresql]
cluster_type = "dedicated"
primary.host = "127.0.0.1"
primary.port = {servers.acme.port}
read_replicas = ["127.0.0.1:{servers.replica.port}"]
pool_size = 20

[tenant.globex]
tier = "vip"
shard_id = 1

[tenant.initech]
tier = "vip"
shard_id = 1

{shops}

[tenant.capped]                      # one server connection at a time: everyone else waits
tier = "standard"
limits = {{ max_connections = 1 }}

[tenant.slow]                        # what takes longer is cancelled
tier = "standard"
limits = {{ query_timeout = "1s" }}

[tenant.trial1]
tier = "free"
limits = {{ max_connections = 2, query_timeout = "5s" }}
"""


async def _say(worker: Worker, servers: Servers, home: Path) -> None:
    script = home / "orders.pgbench"
    script.write_text(
        "\\set order random(1, 100)\n"
        "SELECT p.name, l.quantity FROM order_lines l JOIN products p\n"
        "  ON p.tenant_id = l.tenant_id AND p.id = l.product_id WHERE l.order_id = :order;\n"
    )
    typer.echo(
        _TEXT.format(
            port=worker.port,
            http=worker.http_port,
            bin=bin_dir(),
            python=sys.executable,
            home=home,
            script=script,
            database=DATABASE,
            password=APP_PASSWORD,
            admin=ADMIN_PASSWORD,
            token=API_TOKEN,
            tiergate=f"{sys.executable} -m proxy",
            acme=servers.acme.port,
            replica=servers.replica.port,
            vip=servers.vip.port,
            shared=servers.shared.port,
        )
    )


_TEXT = """
Tiergate listens on 127.0.0.1:{port}. Behind it:
  acme     enterprise  its own server :{acme}, streaming to a replica :{replica}
  globex, initech      vip         shard vip-1 :{vip}
  shop1 ... shop8      standard    the shared cluster :{shared}
  capped               standard    with max_connections = 1
  slow                 standard    with query_timeout = 1s
  trial1               free        the shared cluster

In another terminal:

  export PATH={bin}:$PATH PGHOST=127.0.0.1 PGPORT={port} PGDATABASE={database} PGPASSWORD={password}

  # Each tenant lands on its own server and sees its own rows.
  for t in acme globex shop1 trial1; do
    psql -U app@$t -Atc "SELECT cluster, inet_server_port() FROM where_am_i" -c "SELECT count(*) FROM orders"
  done

  # The tenant may also be a startup option (psql, psycopg, every libpq client) ...
  PGOPTIONS="-c app.tenant_id=globex" psql -U app -c "TABLE where_am_i"
  # ... and a login may be bound to one tenant.
  psql -U acme_erp@shop1 -c "SELECT 1"      # refused: 28000

  # Drivers.
  {python} -c 'import psycopg; print(psycopg.connect("user=app@initech").execute("TABLE where_am_i").fetchall())'
  {python} -c '
import asyncio, asyncpg
async def main(): print(await (await asyncpg.connect(user="app@shop2")).fetch("TABLE where_am_i"))
asyncio.run(main())'

  # Eighty clients on ten server connections, with prepared statements.
  pgbench -n -M prepared -c 80 -j 2 -T 5 -f {script} -U app@shop1

  # A capped tenant queues: the second one waits for the first.
  psql -U app@capped -c "SELECT pg_sleep(3)" & psql -U app@capped -c "SELECT 'my turn'"; wait

  # A query that takes too long is cancelled (57014); the connection goes on.
  psql -U app@slow -c "SELECT pg_sleep(10)" -c "SELECT 'still here'"

  # What the operator sees.
  export PGPASSWORD={admin}
  psql -U admin tiergate -c "SHOW ROUTE acme" -c "SHOW POOLS" -c "SHOW TENANTS" -c "SHOW HELP"
  curl -s http://127.0.0.1:{http}/metrics | grep db_query_count

  # The same by HTTP, described at http://127.0.0.1:{http}/docs
  export TIERGATE_API_URL=http://127.0.0.1:{http} TIERGATE_API_TOKEN={token}
  {tiergate} tenants route globex
  {tiergate} top

The configuration is {home}/tiergate.toml. Ctrl-C ends everything.
"""
