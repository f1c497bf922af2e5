"""A tenant registry to write into, and the configuration of proxies that read it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from proxy.cli.embedded import EmbeddedServer
from proxy.cli.sql import scripts
from tests.integration.servers import connect

DATABASE = "registry"


def tenant_id(code: str) -> str:
    return str(uuid5(NAMESPACE_URL, code))


class Book:
    """The registry's table. Each statement is a transaction of its own, on a connection that does not stay."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.server = server
        with connect(server, "postgres") as admin:
            admin.execute(f"CREATE DATABASE {DATABASE}".encode())
        for script in scripts("registry_kit").values():
            self.run(script)

    @property
    def dsn(self) -> str:
        return f"postgresql://postgres@{self.server.host}:{self.server.port}/{DATABASE}"

    def run(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        return self.run_in(DATABASE, text, *values)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody can read the table."""
        with connect(self.server, DATABASE) as connection, connection.transaction():
            connection.execute("LOCK TABLE tenant_registry IN ACCESS EXCLUSIVE MODE")
            yield

    def run_in(self, database: str, text: str, *values: Any) -> list[tuple[Any, ...]]:
        with connect(self.server, database) as connection:
            cursor = connection.execute(text.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def add(self, *codes: str, **columns: Any) -> None:
        said = {"tier": "standard", "cluster_endpoint_type": "shared_pool", "max_connections": None} | columns
        names = ["tenant_id", "tenant_code", "tenant_name", *said]
        row = f"({', '.join(['%s'] * len(names))})"
        values = [value for code in codes for value in (tenant_id(code), code, code.title(), *said.values())]
        self.run(
            f"INSERT INTO tenant_registry ({', '.join(names)}) VALUES {', '.join([row] * len(codes))}",
            *values,
        )

    def change(self, code: str, **columns: Any) -> None:
        said = ", ".join(f"{name} = %s" for name in columns)
        self.run(f"UPDATE tenant_registry SET {said} WHERE tenant_code = %s", *columns.values(), code)

    def remove(self, code: str) -> None:
        self.run("DELETE FROM tenant_registry WHERE tenant_code = %s", code)

    def add_user(self, user: str, tenant: str, password: str, **columns: Any) -> None:
        """As a hand would, with the verifier that PostgreSQL makes of the password."""
        self.run("SET password_encryption = 'scram-sha-256'; DROP ROLE IF EXISTS maker")
        self.run(f"CREATE ROLE maker PASSWORD '{password}'")
        names = ", ".join(["tenant_id", "user_name", "verifier", *columns])
        self.run(
            f"INSERT INTO tenant_users ({names}) SELECT %s, %s, rolpassword{', %s' * len(columns)} FROM pg_authid"
            " WHERE rolname = 'maker'",
            tenant_id(tenant), user, *columns.values(),
        )  # fmt: skip

    def change_user(self, user: str, change: str) -> None:
        self.run(f"UPDATE tenant_users SET {change} WHERE user_name = %s", user)

    def cut(self, text: str) -> None:
        """Ends every connection of proxies and runs `text` before any of them is back."""
        with connect(self.server, DATABASE) as connection:
            connection.execute("BEGIN")
            connection.execute("LOCK TABLE tenant_registry IN ACCESS EXCLUSIVE MODE")
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tiergate registry'"
            )
            connection.execute(text.encode())
            connection.execute("COMMIT")


def tables(shared: EmbeddedServer, vip: EmbeddedServer) -> dict[str, dict[str, Any]]:
    """Two clusters, one tenant of the file, one user for all."""
    return {
        "cluster.shared": {"kind": "shared", "coordinators": [f"{shared.host}:{shared.port}"]},
        "cluster.other": {"kind": "vip", "coordinators": [f"{vip.host}:{vip.port}"]},
        "tenant.std_1": {"tier": "standard"},
        "tier.vip": {"cluster": "other"},
        "user.app": {"password": "app-secret", "tenants": "*"},
        "user.admin": {"password": "admin-secret", "tenants": "*"},
    }
