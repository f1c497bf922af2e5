"""`tiergate demo --check`: does by itself what the demo says to try, and tells what came of it."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from proxy.cli.demo_servers import Servers
from proxy.cli.embedded import bin_dir

_PATIENCE = 10.0
Connection = psycopg.Connection[tuple[Any, ...]]


class Failed(Exception):
    """What was seen is not what was promised."""


@dataclass(frozen=True)
class Demo:
    """What a check needs to know of the running demo."""

    port: int
    http_port: int
    servers: Servers
    homes: Mapping[str, str]
    database: str
    app_password: str
    admin_password: str

    def connect(self, user: str, *, database: str = "", **more: Any) -> Connection:
        password = self.admin_password if user == "admin" else self.app_password
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user=user, password=password, dbname=database or self.database,
            autocommit=True, connect_timeout=10, **more,
        )  # fmt: skip

    def console(self, command: str) -> list[dict[str, str]]:
        """Rows by column; the console speaks the simple protocol and answers in text."""
        with self.connect("admin", database="tiergate") as connection:
            cursor = connection.execute(command.encode())
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, map(str, row), strict=True)) for row in cursor.fetchall()]

    def http(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=10) as answer:
            text: str = answer.read().decode()
        return text


def run_checks(demo: Demo) -> bool:
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in ("check", "result", "seen"):
        table.add_column(column)
    passed = True
    for name, check in _CHECKS.items():
        try:
            result, seen = "ok", check(demo)
        except Exception as error:
            passed = False
            result, seen = "FAILED", f"{type(error).__name__}: {error}".strip()
        table.add_row(name, result, escape(seen))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 1000
    console.print(table)
    console.print("The demo works." if passed else "The demo does NOT work.")
    return passed


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise Failed(what)


def _one(connection: Connection, query: bytes) -> Any:
    row = connection.execute(query).fetchone()
    return row[0] if row else None


def _lands(demo: Demo) -> str:
    ports = {
        "acme": demo.servers.acme.port,
        "vip-1": demo.servers.vip.port,
        "shared": demo.servers.shared.port,
    }
    for tenant, home in demo.homes.items():
        with demo.connect(f"app@{tenant}") as connection:
            row = connection.execute("SELECT cluster, inet_server_port() FROM where_am_i").fetchone()
        _expect(row == (home, ports[home]), f"{tenant} belongs on {home} :{ports[home]}, saw {row}")
    return f"{len(demo.homes)} tenants on {len(ports)} servers"


def _startup_option(demo: Demo) -> str:
    with demo.connect("app", options="-c app.tenant_id=globex") as connection:
        seen = connection.execute(
            "SELECT cluster, current_setting('app.tenant_id') FROM where_am_i"
        ).fetchone()
    _expect(seen == ("vip-1", "globex"), f"saw {seen}")
    return "globex on vip-1"


def _rows(demo: Demo) -> str:
    for tenant in ("globex", "initech", "shop1", "shop2", "trial1"):
        with demo.connect(f"app@{tenant}") as connection:
            seen = connection.execute("SELECT DISTINCT tenant_id, count(*) FROM orders GROUP BY 1").fetchall()
        _expect(seen == [(tenant, 100)], f"{tenant} saw {seen}")
    return "each tenant its own 100 orders"


def _refused(demo: Demo) -> str:
    said = []
    for user in ("acme_erp@shop1", "app@nobody"):
        try:
            demo.connect(user).close()
        except psycopg.OperationalError as error:
            _expect("FATAL: " in str(error), f"{user}: {error}")
            said.append(str(error).rpartition("FATAL: ")[2].strip())
        else:
            raise Failed(f"{user} was let in")
    return "; ".join(said)


def _prepared(demo: Demo) -> str:
    with (
        demo.connect("app@shop1", prepare_threshold=0) as one,
        demo.connect("app@shop2", prepare_threshold=0) as two,
    ):
        for n in range(1, 31):
            for connection, tenant in ((one, "shop1"), (two, "shop2")):
                query = "SELECT name FROM products WHERE id = %s"
                row = connection.execute(query, (1 + n % 10,)).fetchone()
                _expect(row == (f"Product {1 + n % 10} of {tenant}",), f"{tenant} saw {row}")
    return "60 executions of two clients on shared connections"


def _queue(demo: Demo) -> str:
    with (
        demo.connect("app@capped") as first,
        demo.connect("app@capped") as second,
        ThreadPoolExecutor(1) as pool,
    ):
        with first.transaction():
            first.execute("SELECT 1")
            later = pool.submit(_one, second, b"SELECT 'my turn'")
            deadline = time.monotonic() + _PATIENCE
            while not (waiting := _waiting(demo)) and not later.done() and time.monotonic() < deadline:
                time.sleep(0.02)
            _expect(waiting == 1 and not later.done(), f"{waiting} waiting, second done: {later.done()}")
        _expect(later.result(_PATIENCE) == "my turn", "the second client got no answer")
    return "the second client waited until the first had finished"


def _waiting(demo: Demo) -> int:
    return sum(int(row["cl_waiting"]) for row in demo.console("SHOW POOLS"))


def _timeout(demo: Demo) -> str:
    with demo.connect("app@slow") as connection:
        began = time.monotonic()
        try:
            connection.execute("SELECT pg_sleep(30)")
        except psycopg.errors.QueryCanceled as error:
            took, said = time.monotonic() - began, str(error.diag.message_primary)
        else:
            raise Failed("it was not cancelled")
        _expect(0.9 < took < 5, f"cancelled after {took:.1f} s")
        _expect(_one(connection, b"SELECT 42") == 42, "the connection did not go on")
    return f"57014 after {took:.1f} s ({said}); the connection went on"


def _replica(demo: Demo) -> str:
    seen = demo.servers.acme.sql("SELECT state FROM pg_stat_replication")
    _expect(seen == [("streaming",)], f"pg_stat_replication: {seen}")
    with demo.connect("app@acme") as connection:
        connection.execute("INSERT INTO customers VALUES (DEFAULT, 1000, 'Streamed') ON CONFLICT DO NOTHING")
        tenant = _one(connection, b"SELECT tenant_id FROM customers WHERE id = 1000")
    _expect(tenant == "acme", f"the row belongs to {tenant}")
    deadline = time.monotonic() + _PATIENCE
    query = "SELECT count(*) FROM customers WHERE id = 1000"
    while (seen := demo.servers.replica.sql(query, demo.database)) != [(1,)]:
        _expect(time.monotonic() < deadline, f"the replica has {seen}")
        time.sleep(0.02)
    return "a row written through the proxy is on the replica"


def _console(demo: Demo) -> str:
    route = demo.console("SHOW ROUTE acme")
    _expect(any("acme" in row.values() for row in route), f"SHOW ROUTE acme: {route}")
    address = f"127.0.0.1:{demo.servers.acme.port}"
    _expect(any(address in row.values() for row in route), f"no {address} in SHOW ROUTE acme: {route}")
    pools = demo.console("SHOW POOLS")
    clusters = {row["cluster"] for row in pools}
    _expect({"acme", "vip-1", "shared"} <= clusters, f"SHOW POOLS has {sorted(clusters)}")
    tenants = {row["name"]: row for row in demo.console("SHOW TENANTS")}
    _expect(set(demo.homes) <= set(tenants), f"SHOW TENANTS has {sorted(tenants)}")
    return f"SHOW ROUTE ({len(route)} steps), POOLS ({len(pools)}), TENANTS ({len(tenants)})"


def _http(demo: Demo) -> str:
    for path in ("/healthz", "/readyz"):
        demo.http(path)
    counts = [line for line in demo.http("/metrics").splitlines() if line.startswith("db_query_count")]
    _expect(any('tenant_id="shop1"' in line for line in counts), f"db_query_count: {counts[:3]}")
    return f"healthy, ready, db_query_count of {len(counts)} tenants"


def _pgbench(demo: Demo) -> str:
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "orders"
        script.write_text("\\set n random(1, 100)\nSELECT customer_id FROM orders WHERE id = :n;\n")
        result = subprocess.run(
            [bin_dir() / "pgbench", "-n", "-M", "prepared", "-c", "30", "-t", "20", "-f", script,
             "-h", "127.0.0.1", "-p", str(demo.port), "-U", "app@shop3", demo.database],
            env={**os.environ, "PGPASSWORD": demo.app_password}, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
    _expect(result.returncode == 0, result.stderr.strip()[-500:])
    facts = [
        line for line in result.stdout.splitlines() if line.startswith(("number of transactions act", "tps"))
    ]
    return ", ".join(facts)


_CHECKS: dict[str, Callable[[Demo], str]] = {
    "each tenant on its own server": _lands,
    "the tenant as a startup option": _startup_option,
    "row-level security": _rows,
    "refused logins": _refused,
    "prepared statements": _prepared,
    "a capped tenant queues": _queue,
    "a slow query is cancelled": _timeout,
    "streaming replica": _replica,
    "pgbench, 30 clients": _pgbench,
    "console": _console,
    "HTTP": _http,
}
