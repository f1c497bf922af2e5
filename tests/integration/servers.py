"""What the tests' PostgreSQL servers hold; and Debian's PostgreSQL 15, for where TLS is wanted."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psycopg
import trustme

from tests.waiting import wait_until

DATABASE = "appdb"
APP_PASSWORD = "app-secret"
DEBIAN = Path("/usr/lib/postgresql/15/bin")

# What the tests need; max_prepared_transactions is for two-phase commit, wal_level for replication.
SETTINGS = {
    "max_connections": "120",
    "max_prepared_transactions": "10",
    "wal_level": "logical",
    "max_wal_senders": "8",
    "shared_buffers": "32MB",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_wal_size": "96MB",
    "min_wal_size": "32MB",
}

# Every way a server can ask for a password; the superuser gets in without one.
HBA_PASSWORDS = """
local   all         all                      trust
host    all         postgres   127.0.0.1/32  trust
host    replication replicator 127.0.0.1/32  scram-sha-256
host    all         old        127.0.0.1/32  md5
host    all         other      127.0.0.1/32  password
host    all         all        127.0.0.1/32  scram-sha-256
"""

# On the server with TLS: a database with certificates, one without TLS, all else with TLS and a password.
HBA_TLS = """
host      all       postgres   127.0.0.1/32  trust
hostssl   certdb    all        127.0.0.1/32  cert
hostnossl plaindb   all        127.0.0.1/32  scram-sha-256
hostssl   all       all        127.0.0.1/32  scram-sha-256
"""

ROLES = f"""
CREATE ROLE app LOGIN PASSWORD '{APP_PASSWORD}';
CREATE ROLE other LOGIN PASSWORD 'other-secret';
CREATE ROLE replicator LOGIN REPLICATION PASSWORD 'replicator-secret';
CREATE ROLE builder LOGIN CREATEDB PASSWORD 'builder-secret';
CREATE ROLE no_login NOLOGIN;
CREATE ROLE app_reader NOLOGIN;
GRANT app_reader TO app;
SET password_encryption = 'md5';
CREATE ROLE old LOGIN PASSWORD 'old-secret';
"""

SCHEMA = """
CREATE TABLE where_am_i (name text NOT NULL);
CREATE TABLE orders (id int PRIMARY KEY, tenant_id text NOT NULL, item text NOT NULL);
INSERT INTO orders
    SELECT n, (ARRAY['std_1', 'std_2', 'free_1'])[n % 3 + 1], 'item ' || n FROM generate_series(1, 90) n;
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON orders
    USING (tenant_id = current_setting('app.tenant_id', true))
    WITH CHECK (tenant_id = current_setting('app.tenant_id', true));
CREATE TABLE items (id int PRIMARY KEY, name text NOT NULL, amount numeric(10, 2));
INSERT INTO items SELECT n, 'item ' || n, n * 1.25 FROM generate_series(1, 100) n;
CREATE TABLE notes (id int, note text);
CREATE FUNCTION complain(level text, what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF level = 'warning' THEN RAISE WARNING '%', what USING HINT = 'a hint', DETAIL = 'a detail';
    ELSIF level = 'notice' THEN RAISE NOTICE '%', what;
    ELSE RAISE EXCEPTION '%', what USING ERRCODE = 'P0001', HINT = 'a hint', DETAIL = 'a detail';
    END IF;
END $$;
CREATE PROCEDURE commit_between() LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO notes VALUES (1, 'one'); COMMIT; INSERT INTO notes VALUES (2, 'two'); ROLLBACK;
END $$;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO PUBLIC;
GRANT CREATE ON SCHEMA public TO PUBLIC;
"""


class Server(Protocol):
    """Anything that listens for PostgreSQL clients."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...


def connect(
    server: Server, database: str = DATABASE, user: str = "postgres", **more: object
) -> psycopg.Connection:
    """A direct autocommit connection, past the proxy."""
    return psycopg.connect(
        host=server.host,
        port=server.port,
        dbname=database,
        user=user,
        autocommit=True,
        **more,  # type: ignore[arg-type]
    )


def seed(server: Server) -> None:
    with connect(server, "postgres") as connection:
        connection.execute(ROLES)
        connection.execute(f"CREATE DATABASE {DATABASE} OWNER app")
    with connect(server) as connection:
        connection.execute(SCHEMA)


def name(server: Server, name: str) -> None:
    """What it says of itself."""
    with connect(server) as connection:
        connection.execute("INSERT INTO where_am_i VALUES (%s)", [name])


def backends(server: Server, where: str = "true") -> int:
    """How many client backends the server has of other sessions than the one that counts."""
    with connect(server, "postgres") as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('client backend', 'walsender')"
            f" AND pid <> pg_backend_pid() AND ({where})"
        ).fetchone()
    assert row is not None
    return int(row[0])


def all_tiers(dedicated: Server, vip: Server, shared: Server) -> dict[str, dict[str, Any]]:
    """A configuration's tables with tenants of each tier, each on its own server."""
    return {
        "cluster.ent": {"kind": "dedicated", "primary": f"{dedicated.host}:{dedicated.port}"},
        "cluster.vip-1": {"kind": "vip", "coordinators": [f"{vip.host}:{vip.port}"]},
        "cluster.shared": {"kind": "shared", "coordinators": [f"{shared.host}:{shared.port}"]},
        "tenant.ent_1": {"tier": "enterprise", "cluster": "ent"},
        "tenant.vip_1": {"tier": "vip", "shard_id": 1},
        "tenant.std_1": {"tier": "standard"},
        "tenant.std_2": {"tier": "standard", "id": "0b0e7a34-3c55-4b60-9c3c-3b9f7d1e2a01"},
        "tenant.free_1": {"tier": "free"},
        "user.app": {"password": APP_PASSWORD, "tenants": "*"},
        "user.other": {"password": "other-secret", "tenants": ["std_1"]},
        "user.old": {"password": "old-secret", "tenants": "*"},
        "user.replicator": {"password": "replicator-secret", "tenants": "*"},
        "user.builder": {"password": "builder-secret", "tenants": "*"},
        "user.no_login": {"tenants": "*"},
        "user.postgres": {"tenants": "*"},
        "user.admin": {"password": "admin-secret", "tenants": "*"},
    }


# --- certificates -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificates:
    """Files of one authority: for a server on loopback, for clients by name, and a stranger's authority."""

    ca: str
    server_cert: str
    server_key: str
    client_cert: str
    client_key: str
    stranger_ca: str
    stranger_cert: str
    stranger_key: str


def make_certificates(directory: Path) -> Certificates:
    authority, stranger = trustme.CA(), trustme.CA()

    def write(name: str, *blobs: trustme.Blob) -> str:
        path = directory / name
        path.write_bytes(b"".join(blob.bytes() for blob in blobs))
        path.chmod(0o600)
        return str(path)

    server = authority.issue_cert("localhost", "127.0.0.1", "*.tiergate.test")
    client = authority.issue_cert("app@tiergate.test", common_name="app")
    foreign = stranger.issue_cert("app@tiergate.test", common_name="app")
    return Certificates(
        ca=write("ca.pem", authority.cert_pem),
        server_cert=write("server.pem", *server.cert_chain_pems),
        server_key=write("server.key", server.private_key_pem),
        client_cert=write("client.pem", *client.cert_chain_pems),
        client_key=write("client.key", client.private_key_pem),
        stranger_ca=write("stranger-ca.pem", stranger.cert_pem),
        stranger_cert=write("stranger.pem", *foreign.cert_chain_pems),
        stranger_key=write("stranger.key", foreign.private_key_pem),
    )


# --- Debian's PostgreSQL ----------------------------------------------------------------------------


def debian_missing() -> str:
    """Why Debian's PostgreSQL cannot be used here; "" if it can."""
    if not (DEBIAN / "postgres").exists():
        return f"no PostgreSQL 15 in {DEBIAN}"
    if os.geteuid() == 0:
        if shutil.which("runuser") is None:
            return "root, and no runuser to run PostgreSQL as another user"
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            return "root, and no user postgres to run PostgreSQL as"
    return ""


class DebianServer:
    """PostgreSQL 15 with TLS, started in `directory` on a port of its own."""

    host = "127.0.0.1"

    def __init__(
        self, directory: Path, port: int, certificates: Certificates, settings: Mapping[str, str], hba: str
    ) -> None:
        self.port = port
        self.data = directory / "data"
        self._prefix: list[str] = []
        directory.mkdir(parents=True, exist_ok=True)
        tls = {"ssl_cert_file": certificates.server_cert, "ssl_key_file": certificates.server_key}
        tls["ssl_ca_file"] = certificates.ca
        own = {key: shutil.copy(path, directory) for key, path in tls.items()}
        if os.geteuid() == 0:
            self._prefix = ["runuser", "-u", "postgres", "--"]
            account = pwd.getpwnam("postgres")
            for path in (directory, *own.values()):
                os.chown(path, account.pw_uid, account.pw_gid)
        self._run("initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        values = {
            **settings, **own, "ssl": "on", "port": str(port), "listen_addresses": self.host,
            "unix_socket_directories": "",
        }  # fmt: skip
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{key} = '{value}'\n" for key, value in values.items())
        (self.data / "pg_hba.conf").write_text(hba)
        self.start()

    def _run(self, program: str, *args: str) -> None:
        done = subprocess.run(
            [*self._prefix, str(DEBIAN / program), *args],
            capture_output=True,
            text=True,
            cwd="/",
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stdout}{done.stderr}")

    def start(self) -> None:
        self._run("pg_ctl", "-D", str(self.data), "-w", "-l", str(self.data / "log"), "start")
        wait_until(self._answers, what="PostgreSQL 15 to answer")

    def _answers(self) -> bool:
        try:
            psycopg.connect(host=self.host, port=self.port, user="postgres", dbname="postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.data), "-w", "-m", "immediate", "stop")
