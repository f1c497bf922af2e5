"""A proxy with HTTP and a token of every role, and how its API is called."""

from __future__ import annotations

from typing import Any

import httpx

from proxy.auth import token
from proxy.cli.embedded import free_port
from tests.conftest import StartProxy
from tests.integration.running import Proxy
from tests.integration.servers import APP_PASSWORD, Server

TOKENS = {role: token.new() for role in ("viewer", "operator", "admin", "tenant-admin")}
ID = "0b0e7a34-3c55-4b60-9c3c-3b9f7d1e2a01"
Tables = dict[str, dict[str, Any]]


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
    proxy: Proxy,
    method: str,
    path: str,
    role: str | None = "admin",
    *,
    headers: dict[str, str] | None = None,
    **more: Any,
) -> httpx.Response:
    known = {"Authorization": f"Bearer {TOKENS.get(role, role)}"} if role else {}
    url = f"http://127.0.0.1:{proxy.http_port}{path}"
    return httpx.request(method, url, headers=known | (headers or {}), timeout=10, **more)
