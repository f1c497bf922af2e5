"""Who may do what: every route of the document with every role and with none."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from proxy.auth import token
from proxy.cli.embedded import free_port
from proxy.control.api.access import MAY, Right
from proxy.control.api.app import make_app
from proxy.model import ApiRole
from tests.control.api import calling
from tests.control.api.calling import ID, TOKENS, call
from tests.integration.running import configuration

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy
    from tests.integration.servers import Certificates

OPEN = {"/metrics", "/healthz", "/readyz"}


@pytest.fixture(scope="module")
def proxy(start_module_proxy: StartProxy, shared: EmbeddedServer) -> Proxy:
    return calling.start(start_module_proxy, shared)


def operations(proxy: Proxy) -> list[tuple[str, str, dict[str, Any]]]:
    document = call(proxy, "GET", "/openapi.json", None).json()
    return [(method, path, said) for path, of in document["paths"].items() for method, said in of.items()]


def filled(path: str) -> str:
    """A path whose names are there for nobody, so that a verb that gets through does nothing."""
    return path.replace("{tenant}", "nobody").replace("{name}", "nowhere").replace("{client}", "0x0")


def test_every_route_with_every_role_and_with_none(proxy: Proxy) -> None:
    found = operations(proxy)
    assert len(found) > 15
    for method, path, said in found:
        right = Right(said["x-right"])
        assert (right is Right.OPEN) == (path in OPEN), path
        if right is Right.OPEN:
            assert call(proxy, method, path, None).status_code == 200
            continue
        for stranger in (None, "x", token.hashed(TOKENS["admin"])):
            answer = call(proxy, method, filled(path), stranger)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["content-type"] == "application/problem+json"
        for role in ApiRole:
            if right in MAY[role] and path in ("/v1/drain", "/v1/reload"):
                continue  # they would be done
            answer = call(proxy, method, filled(path), role.value)
            refused = right not in MAY[role] or (role is ApiRole.TENANT_ADMIN and "{tenant}" in path)
            assert (answer.status_code == 403) == refused, (role, method, path, answer.text)
            assert answer.status_code < 500 or answer.status_code == 501


def test_the_roles_grow() -> None:
    assert MAY[ApiRole.VIEWER] < MAY[ApiRole.OPERATOR] < MAY[ApiRole.ADMIN] == set(Right)
    assert not MAY[ApiRole.TENANT_ADMIN] & {Right.SEE, Right.OPERATE, Right.ADMINISTER}


def test_a_route_that_says_nothing_answers_nobody(proxy: Proxy) -> None:
    worker = proxy.worker
    app = make_app(worker.http._desk)
    app.add_api_route("/forgotten", lambda: "seen")

    async def status(headers: dict[str, str]) -> int:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return (await client.get("/forgotten", headers=headers)).status_code

    assert asyncio.run(status({"Authorization": f"Bearer {TOKENS['admin']}"})) == 403
    assert asyncio.run(status({})) == 401


def test_a_tenants_administrator_has_that_tenant_alone(proxy: Proxy) -> None:
    def status(tenant: str) -> int:
        return call(proxy, "GET", f"/v1/tenants/{tenant}/route", "tenant-admin").status_code

    assert [status(name) for name in ("std_1", "std_2", ID, "free_1", "nobody")] == [200, 403, 403, 403, 403]


def test_a_tenants_administrator_learns_of_no_users(proxy: Proxy) -> None:
    for user in ("app", "nobody"):
        path = f"/v1/tenants/std_1/route?user={user}"
        assert call(proxy, "GET", path, "tenant-admin").status_code == 403
    shown = call(proxy, "GET", "/v1/tenants/std_1/route", "tenant-admin")
    assert (shown.status_code, shown.headers["cache-control"]) == (200, "no-store")


def test_the_administrator_of_an_id(start_proxy: StartProxy, shared: EmbeddedServer) -> None:
    tables = calling.tables(shared)
    tables["api_token.tenant-admin"]["tenant"] = ID.upper()
    tables["tenant.std_1"]["id"] = ID.replace("0b", "0c")
    proxy = start_proxy(tables, http_addr=f"127.0.0.1:{free_port()}")
    for tenant, status in {"std_2": 200, ID: 200, ID.upper(): 200, "std_1": 403}.items():
        assert call(proxy, "GET", f"/v1/tenants/{tenant}/route", "tenant-admin").status_code == status


def test_tokens_change_at_a_reload(start_proxy: StartProxy, shared: EmbeddedServer) -> None:
    proxy = calling.start(start_proxy, shared)
    tables, new = calling.tables(shared), token.new()
    port = proxy.settings.process.listen_port
    address = f"127.0.0.1:{proxy.http_port}"

    def reload() -> None:
        proxy.reload(configuration(tables, listen_port=port, http_addr=address))

    tables["api_token.next"] = {"hash": token.hashed(new), "role": "viewer"}
    reload()
    assert [call(proxy, "GET", "/v1/pools", role).status_code for role in ("viewer", new)] == [200, 200]
    del tables["api_token.viewer"]
    reload()
    assert [call(proxy, "GET", "/v1/pools", role).status_code for role in ("viewer", new)] == [401, 200]


def test_a_body_is_bounded_and_not_read_from_strangers(proxy: Proxy) -> None:
    path = "/v1/reload"
    assert call(proxy, "POST", path, "operator", content=b"x" * 100_000).status_code == 413
    assert call(proxy, "POST", path, "operator", content=iter([b"x"])).status_code == 411
    with socket.create_connection(("127.0.0.1", proxy.http_port), 5) as sock:
        sock.sendall(b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 401")  # of the body nothing has come


def test_over_tls(start_proxy: StartProxy, shared: EmbeddedServer, certificates: Certificates) -> None:
    proxy = calling.start(
        start_proxy,
        shared,
        http_tls_cert_file=certificates.server_cert,
        http_tls_key_file=certificates.server_key,
    )
    context = ssl.create_default_context(cafile=certificates.ca)
    url = f"https://127.0.0.1:{proxy.http_port}/v1/pools"
    header = {"Authorization": f"Bearer {TOKENS['viewer']}"}
    assert httpx.get(url, headers=header, verify=context).status_code == 200
    proxy.call(proxy.worker.reload)
    assert httpx.get(url, headers=header, verify=context).status_code == 200
