"""What is measured: a PostgreSQL server without a proxy, PgBouncer, and Tiergate in each of its builds."""

from __future__ import annotations

import os
import pwd
import socket
import ssl
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import processes
from proxy.auth import token
from proxy.cli.embedded import EmbeddedServer, free_port

_FOLLOWS_STATEMENTS = (1, 21)
PASSWORD = "app-secret"
API_TOKEN = token.new()
POOL_SIZE = 8
MOST_CLIENTS = 15_000
USUAL_SHARES = ("caps", "rate")
ALL_SHARES = (*USUAL_SHARES, "moving", "adaptive", "guarantee")
MOST_SERVERS = 1_200  # what the server takes: 500 clients directly, and as many of a pooler in session mode


@dataclass(frozen=True)
class Tenant:
    """A tenant, where its data is, and what kind of cluster that is to Tiergate."""

    name: str
    tier: str
    kind: str
    port: int
    database: str


@dataclass(frozen=True)
class Certificate:
    key: Path
    chain: Path
    ca: Path

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca))


@dataclass(frozen=True)
class Target:
    """A way to the server. `pid` is the proxy's, 0 without one."""

    name: str
    role: str  # direct | pgbouncer | tiergate
    port: int
    database: str
    tenant: str
    pid: int = 0
    build: str = ""  # of Tiergate: interpreted | compiled
    names_tenant: bool = True  # clients say at their login for whom they speak
    tls: Certificate | None = None
    http_port: int = 0  # of Tiergate

    @property
    def pgoptions(self) -> str:
        return f"-c app.tenant_id={self.tenant}" if self.names_tenant else ""

    def cpu(self) -> processes.Cpu:
        return processes.cpu(self.pid) if self.pid else processes.Cpu()


@dataclass(frozen=True)
class Elasticity:
    """How many connections a tenant may have, and from which number its cap moves (0: it does not); in how many seconds
    what is idle is closed, and what was not needed (0: that is not)."""

    most: int
    least: int
    idle: int
    surplus: int

    @property
    def limits(self) -> str:
        return f"limits.min_connections = {self.least}\nlimits.max_connections = {self.most}"

    @property
    def keys(self) -> str:
        return f'server_idle_timeout = "{self.idle}s"\nserver_surplus_timeout = "{self.surplus}s"'


@dataclass(frozen=True)
class Setup:
    """How the proxies are configured for a part of the benchmarks. All other settings are always the same."""

    tenant: Tenant
    auth_type: str = "trust"
    verifier: str = ""  # what the proxies know of the client's password, "" = the password itself
    tls: Certificate | None = None
    more_tenants: tuple[str, ...] = ()
    workers: int = 1
    pool_size: int = POOL_SIZE
    users: tuple[
        str, ...
    ] = ()  # log in as themselves and have pools of their own; () = all are "app", in one pool
    guaranteed: str = ""  # to the tenant, in Tiergate
    registry_dsn: str = ""  # where Tiergate has tenants stored
    prepared: bool = False  # PgBouncer before 1.21 then pools sessions, with a server connection a client
    cpus: frozenset[int] = frozenset()
    elasticity: Elasticity | None = None
    # What of fair shares is on in Tiergate, none of it in anybody's way.
    shares: tuple[str, ...] = USUAL_SHARES


@dataclass(frozen=True)
class Bench:
    """What all parts share."""

    directory: Path
    server: EmbeddedServer
    tenant: Tenant
    builds: dict[str, Path]  # build of Tiergate -> its tree
    pgbouncer: str = ""  # the program, "" = none
    pgbouncer_version: tuple[int, ...] = ()
    certificate: Certificate | None = None
    native: dict[str, Path] = field(default_factory=dict)
    under: tuple[str, ...] = ()  # a program that the proxies run under

    @contextmanager
    def running(self, setup: Setup, *, direct: bool = True) -> Iterator[list[Target]]:
        """All the ways there are, in the order of the table."""
        with ExitStack() as stack:
            found = []
            tenant = setup.tenant
            if direct:
                found.append(Target("direct", "direct", tenant.port, tenant.database, tenant.name))
            if self.pgbouncer:
                found.append(stack.enter_context(self.running_pgbouncer(setup)))
            for build in self.builds:
                found.append(stack.enter_context(self.running_tiergate(setup, build)))
            yield found

    @contextmanager
    def running_tiergate(self, setup: Setup, build: str) -> Iterator[Target]:
        port, http_port = free_port(), free_port()
        directory = Path(tempfile.mkdtemp(prefix="tiergate-", dir=self.directory))
        config = directory / "tiergate.toml"
        config.write_text(_tiergate_toml(setup, port, http_port))
        command = [*self.under, sys.executable, "-m", "proxy", "serve", "--config", str(config)]
        tree = self.builds[build]
        with processes.started(command, cwd=tree, cpus=setup.cpus) as process:
            listening(port, f"Tiergate ({build})", self.under)
            yield Target(
                f"Tiergate {build}", "tiergate", port, setup.tenant.database, setup.tenant.name,
                process.pid, build, tls=setup.tls, http_port=http_port,
            )  # fmt: skip

    @contextmanager
    def running_pgbouncer(self, setup: Setup) -> Iterator[Target]:
        """It knows no tenants: a `connect_query` sets the only one of the database."""
        port = free_port()
        directory = Path(tempfile.mkdtemp(prefix="pgbouncer-", dir=self.directory))
        known = [f'"app" "{setup.verifier or PASSWORD}"', *(f'"{name}" "{PASSWORD}"' for name in setup.users)]
        (directory / "users.txt").write_text("".join(f"{line}\n" for line in known))
        session = setup.prepared and self.pgbouncer_version < _FOLLOWS_STATEMENTS
        (directory / "pgbouncer.ini").write_text(_pgbouncer_ini(setup, port, directory, session))
        for path in (directory, *directory.iterdir()):
            path.chmod(0o755)
        user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None  # it refuses to run as root
        command = [*self.under, self.pgbouncer, "-q", str(directory / "pgbouncer.ini")]
        with processes.started(command, user=user, cpus=setup.cpus) as process:
            listening(port, "PgBouncer", self.under)
            name = "PgBouncer, session pooling" if session else "PgBouncer"
            tenant = setup.tenant
            yield Target(name, "pgbouncer", port, tenant.database, tenant.name, process.pid, tls=setup.tls)


def _tiergate_toml(setup: Setup, port: int, http_port: int) -> str:
    tenant = setup.tenant
    tls = ""
    if setup.tls:
        tls = f"""client_tls_sslmode = "require"
client_tls_key_file = "{setup.tls.key}"
client_tls_cert_file = "{setup.tls.chain}"
"""
    address = f'"127.0.0.1:{tenant.port}"'
    place = f"primary = {address}" if tenant.kind == "dedicated" else f"coordinators = [{address}]"
    others = "".join(f'[tenant.{name}]\ntier = "standard"\n' for name in setup.more_tenants)
    others += "".join(f'[user.{name}]\npassword = "{PASSWORD}"\ntenants = "*"\n' for name in setup.users)
    server_user = "" if setup.users else f'user = "app"\npassword = "{PASSWORD}"\n'
    elasticity, most = setup.elasticity, setup.pool_size * setup.workers
    caps = elasticity.limits if elasticity else f"limits.max_connections = {most}"
    capped = f"max_connections = {MOST_SERVERS // 2 if elasticity else most}"
    if "caps" not in setup.shares:
        capped = caps = ""
    if "moving" in setup.shares:
        caps = f"limits.min_connections = {most}\nlimits.max_connections = {most + 1}"
    if "adaptive" in setup.shares:
        capped += f"\nadaptive_concurrency = true\nmin_concurrency = {most}"
    limits = f"{caps}\nlimits.max_qps = 1000000" if "rate" in setup.shares else caps
    share = setup.guaranteed or ("20%" if "guarantee" in setup.shares else "")
    guaranteed = f'limits = {{ guaranteed_connections = "{share}" }}' if share else ""
    return f"""
[proxy]
listen_port = {port}
http_addr = "127.0.0.1:{http_port}"
workers = {setup.workers}
default_pool_size = {setup.pool_size}
max_client_conn = {MOST_CLIENTS}
auth_type = "{setup.auth_type}"
log_level = "warning"
query_timeout = "60s"
transaction_timeout = "120s"
idle_transaction_timeout = "60s"
default_tenant = "{tenant.name}"
registry_dsn = "{setup.registry_dsn}"
{elasticity.keys if elasticity else ""}
{tls}
[api_token.bench]
hash = "{token.hashed(API_TOKEN)}"
role = "viewer"
[user.app]
password = "{setup.verifier or PASSWORD}"
tenants = "*"
[cluster.place]
kind = "{tenant.kind}"
{place}
{server_user}
pool_size = {setup.pool_size}
{capped}
[tier.{tenant.tier}]
cluster = "place"
{limits}
limits.max_client_connections = {MOST_CLIENTS}
limits.max_queries_per_day = 0
[tenant.{tenant.name}]
tier = "{tenant.tier}"
{guaranteed}
{others}"""


def _pgbouncer_ini(setup: Setup, port: int, directory: Path, session: bool) -> str:
    tenant = setup.tenant
    pooling = "session" if session else "transaction"
    pool_size = MOST_SERVERS // 2 if session else setup.pool_size
    if setup.elasticity:
        pooling += f"\nserver_idle_timeout = {setup.elasticity.idle}"
    elif setup.users:
        pooling += f"\nmax_db_connections = {pool_size}"
    if setup.prepared and not session:
        pooling += "\nmax_prepared_statements = 200"
    tls = ""
    if setup.tls:
        tls = f"""client_tls_sslmode = require
client_tls_key_file = {setup.tls.key}
client_tls_cert_file = {setup.tls.chain}
"""
    server_user = "" if setup.users else f" user=app password={PASSWORD}"
    return f"""
[databases]
{tenant.database} = host=127.0.0.1 port={tenant.port}{server_user}\
 connect_query='SET app.tenant_id = ''{tenant.name}'''
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
auth_type = {setup.auth_type}
auth_file = {directory / "users.txt"}
pool_mode = {pooling}
default_pool_size = {pool_size}
max_client_conn = {MOST_CLIENTS}
query_timeout = 60
idle_transaction_timeout = 60
ignore_startup_parameters = extra_float_digits,options
log_connections = 0
log_disconnections = 0
unix_socket_dir =
{tls}"""


def listening(port: int, what: str, under: tuple[str, ...] = ()) -> None:
    def answers() -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    # Under a program that counts all it does it starts fifty times as slowly.
    processes.wait_until(answers, f"{what} on port {port}", 600.0 if under else 60.0)
