"""A proxy with HTTP and a token of every role, and how its API is called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import httpx
import psycopg

from proxy.auth import token
from proxy.cli.embedded import free_port
from proxy.cli.sql import scripts
from proxy.control.api import Desk, Http
from proxy.control.storage import Storage
from proxy.control.tenancy import Tenancy
from proxy.net.tls import server_tls
from proxy.registry.store import Store
from tests.conftest import StartProxy
from tests.integration.running import Proxy
from tests.integration.servers import APP_PASSWORD, Server, connect

# The architecture document's, as a hand would type it; its indexes have these names.
BY_HAND = """
CREATE TABLE tenant_registry (
    tenant_id UUID PRIMARY KEY, tenant_code VARCHAR(50) UNIQUE NOT NULL, tenant_name VARCHAR(200) NOT NULL,
    tier VARCHAR(20) NOT NULL CHECK (tier IN ('enterprise', 'vip', 'standard', 'free')),
    cluster_endpoint_type VARCHAR(20) NOT NULL, primary_endpoint VARCHAR(255), replica_endpoints TEXT[],
    shard_id INTEGER, coordinator_endpoints TEXT[], max_connections INTEGER DEFAULT 10,
    min_connections INTEGER DEFAULT 1, cpu_quota_percentage FLOAT, memory_quota_gb FLOAT, max_qps INTEGER,
    max_storage_gb INTEGER, query_timeout_ms INTEGER DEFAULT 30000, active BOOLEAN DEFAULT true,
    created_at TIMESTAMPTZ DEFAULT NOW(), updated_at TIMESTAMPTZ DEFAULT NOW(), expires_at TIMESTAMPTZ,
    created_by VARCHAR(100), updated_by VARCHAR(100)
);
CREATE INDEX idx_tenant_registry_active ON tenant_registry(active);
CREATE INDEX idx_tenant_registry_tier ON tenant_registry(tier);
CREATE INDEX idx_tenant_registry_shard ON tenant_registry(shard_id) WHERE shard_id IS NOT NULL;
"""
TOKENS = {role: token.new() for role in ("viewer", "operator", "admin", "tenant-admin")}
ID = "0b0e7a34-3c55-4b60-9c3c-3b9f7d1e2a01"
Tables = dict[str, dict[str, Any]]


class HasHttp(Protocol):
    @property
    def http_port(self) -> int: ...


def tables(server: Server) -> Tables:
    """Three tenants on one server; the tenant-admin is std_1's."""
    found: Tables = {
        "cluster.shared": {"kind": "shared", "primary": f"{server.host}:{server.port}"},
        "tenant.std_1": {"tier": "standard"},
        "tenant.std_2": {"tier": "standard", "id": ID},
        "tenant.free_1": {"tier": "free"},
        "user.app": {"password": APP_PASSWORD, "tenants": "*"},
        "user.admin": {"password": "admin-secret", "tenants": "*"},
    }
    for role, made in TOKENS.items():
        found[f"api_token.{role}"] = {"hash": token.hashed(made), "role": role}
    found["api_token.tenant-admin"]["tenant"] = "std_1"
    return found


def start(start_proxy: StartProxy, server: Server, **proxy: Any) -> Proxy:
    return start_proxy(tables(server), **{"http_addr": f"127.0.0.1:{free_port()}", **proxy})


def call(
    proxy: HasHttp,
    method: str,
    path: str,
    role: str | None = "admin",
    *,
    headers: dict[str, str] | None = None,
    **more: Any,
) -> httpx.Response:
    known = {"Authorization": f"Bearer {TOKENS.get(role, role)}"} if role else {}
    url = f"http://127.0.0.1:{proxy.http_port}{path}"
    return httpx.request(
        method, url, headers=known | (headers or {}), timeout=10, verify=False, trust_env=False, **more
    )


@contextmanager
def database(server: Server, name: str = "by_hand") -> Iterator[str]:
    """An empty one, by its URL."""
    with connect(server, "postgres") as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
        admin.execute(f"CREATE DATABASE {name}".encode())
    yield f"postgresql://postgres@{server.host}:{server.port}/{name}"
    with connect(server, "postgres") as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@contextmanager
def registry(server: Server) -> Iterator[str]:
    """A database with the registry's tables, by its URL."""
    with database(server, "managed") as dsn:
        with psycopg.connect(dsn) as connection:
            for script in scripts("registry_kit").values():
                connection.execute(script.encode())
        yield dsn


class Managed:
    """The API of a running proxy, once more, on a registry; `call` is as above."""

    def __init__(self, proxy: Proxy, dsn: str, server: Server | None = None) -> None:
        self.worker = proxy.worker
        self.dsn = dsn
        self.server = server
        worker = proxy.worker
        self.store = Store(dsn)
        tenancy = Tenancy(self.store, lambda: worker.settings.directory, lambda: worker.settings.server)
        self.proxy = proxy
        self.storage = Storage(
            tenancy,
            lambda: worker.settings.server,
            lambda: server_tls(worker.settings.tls.side("server")),
            lambda: worker.settings.client.tenant_guc,
        )
        desk = Desk(worker.local, lambda: worker.settings.api_tokens, tenancy, self.storage)
        self.http = Http(desk)
        proxy.run(self.http.start("127.0.0.1", 0))

    @property
    def http_port(self) -> int:
        return self.http.port

    def close(self) -> None:
        self.proxy.run(self.http.stop())

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []
