"""A database with the SQL kit, rows of two tenants under both kinds of policy, and seals made by hand."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from proxy.cli.sql import scripts
from tests.integration.servers import Server, connect

KEY = "first"
SECRET = "the first secret of these tests, 43 letters"
OTHER_KEY, OTHER_SECRET = "second", "the second secret of these tests, as long "

# `plain` asks the parameter, `sealed` the seal; apart from that they are the same.
TABLES = """
CREATE TABLE plain (tenant_id text NOT NULL, id int NOT NULL, item text NOT NULL, PRIMARY KEY (tenant_id, id));
INSERT INTO plain SELECT (ARRAY['std_1', 'std_2', 'free_1'])[n % 3 + 1], n, 'item ' || n
    FROM generate_series(1, 300) AS n;
ALTER TABLE plain SET (parallel_workers = 2);
CREATE TABLE sealed (LIKE plain INCLUDING ALL) WITH (parallel_workers = 2);
INSERT INTO sealed SELECT * FROM plain;
ALTER TABLE plain ENABLE ROW LEVEL SECURITY;
ALTER TABLE sealed ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON plain
    USING (tenant_id = current_setting('app.tenant_id', true))
    WITH CHECK (tenant_id = current_setting('app.tenant_id', true));
CREATE POLICY own ON sealed
    USING (tenant_id = (SELECT tiergate.current_tenant()))
    WITH CHECK (tenant_id = (SELECT tiergate.current_tenant()));
CREATE TABLE drop_box (note text);
GRANT SELECT, INSERT, UPDATE, DELETE ON plain, sealed, drop_box TO app;
GRANT CREATE ON SCHEMA public TO app;
ANALYZE;
"""


def install(server: Server, database: str) -> None:
    """By hand, as the file itself says."""
    with connect(server, database) as connection:
        for script in scripts().values():
            connection.execute(script.encode())
        connection.execute("SELECT tiergate.store_key(%s, %s)", (KEY, SECRET))


@contextmanager
def sealed_database(server: Server, name: str) -> Iterator[str]:
    with connect(server, "postgres") as connection:
        connection.execute(f"CREATE DATABASE {name} OWNER app".encode())
    install(server, name)
    with connect(server, name) as connection:
        connection.execute(TABLES.encode())
    yield name
    with connect(server, "postgres") as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def seal(
    connection: psycopg.Connection[Any],
    tenant: str,
    *,
    life: int = 900,
    key: str = KEY,
    secret: str = SECRET,
    backend: str = "",
) -> str:
    """A seal for this very backend, as only who knows the secret can make it."""
    row = connection.execute("SELECT tiergate.introduce()").fetchone()
    assert row is not None
    _version, now, own = row[0].split(" ")
    expires = int(now) + life
    message = f"tiergate seal 1\n{key}\n{expires}\n{backend or own}\n{tenant}".encode()
    return f"1.{key}.{expires}.{hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()}"


def put(connection: psycopg.Connection[Any], tenant: str, seal: str) -> None:
    connection.execute(
        "SELECT set_config('app.tenant_id', %s, false), set_config('tiergate.seal', %s, false)",
        (tenant, seal),
    )
