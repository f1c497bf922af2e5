"""Servers are logged in to with the keys of clients: users are known in one place, and no plain password is anywhere."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import asyncpg
import psycopg
import pytest

from proxy.auth import scram
from proxy.cli.embedded import EmbeddedServer
from tests.cli.running import serving
from tests.conftest import StartProxy
from tests.integration.registry import Book, tenant_id
from tests.integration.running import Proxy, configuration
from tests.integration.servers import APP_PASSWORD, DebianServer, Server, connect
from tests.rawclient import ServerError
from tests.waiting import wait_until

WHO = "SELECT current_user"


def verifier(server: Server, role: str = "app") -> str:
    with connect(server) as connection:
        row = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", (role,)).fetchone()
    assert row is not None
    return str(row[0])


def run(server: Server, text: str) -> None:
    with connect(server) as connection:
        connection.execute(text.encode())


def tables(server: Server, **user: Any) -> dict[str, dict[str, Any]]:
    return {
        "cluster.own": {"kind": "dedicated", "primary": f"{server.host}:{server.port}"},
        "tenant.acme": {"tier": "enterprise", "cluster": "own"},
        "user.app": {"password": verifier(server), "tenants": ["acme"], **user},
        "user.other": {"password": "other-secret", "tenants": ["acme"]},
        "user.admin": {"password": "admin-secret", "tenants": "*"},
    }


@pytest.fixture
def anna(dedicated: EmbeddedServer) -> Iterator[EmbeddedServer]:
    run(dedicated, "CREATE ROLE anna LOGIN PASSWORD 'anna-secret'")
    yield dedicated
    run(dedicated, "DROP ROLE anna")


def ejected(proxy: Proxy) -> list[Any]:
    return proxy.worker.pools.health.ejected(monotonic())


async def by_asyncpg(proxy: Proxy, user: str, password: str) -> str:
    connection = await asyncpg.connect(
        host=proxy.host, port=proxy.port, user=user, password=password, database="appdb"
    )
    try:
        return str(await connection.fetchval(WHO))
    finally:
        await connection.close()


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_clients_key_opens_the_server(
    start_proxy: StartProxy, dedicated: EmbeddedServer, mode: str
) -> None:
    proxy = start_proxy(tables(dedicated), auth_type="scram-sha-256", pool_mode=mode)
    first, second = proxy.connect("app", password=APP_PASSWORD), proxy.raw("app", password=APP_PASSWORD)
    for _ in range(2):
        assert first.execute(WHO).fetchone() == ("app",)
        assert second.value(WHO) == "app"
    assert asyncio.run(by_asyncpg(proxy, "app@acme", APP_PASSWORD)) == "app"
    assert APP_PASSWORD not in repr(proxy.settings)


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_over_tls_the_proof_is_bound_to_the_channel(
    start_proxy: StartProxy, tls_server: DebianServer, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[bytes] = []
    first = scram.ClientExchange.first
    monkeypatch.setattr(scram.ClientExchange, "first", lambda self: said.append(first(self)) or said[-1])
    proxy = start_proxy(
        tables(tls_server), auth_type="scram-sha-256", pool_mode=mode, server_tls_sslmode="require"
    )
    assert proxy.connect("app", password=APP_PASSWORD).execute(WHO).fetchone() == ("app",)
    assert said
    assert all(message.startswith(b"p=tls-server-end-point,,") for message in said)


def test_a_user_that_only_the_server_knows(start_proxy: StartProxy, anna: EmbeddedServer) -> None:
    proxy = start_proxy(tables(anna), auth_type="scram-sha-256", auth_user="postgres")
    client = proxy.raw("anna@acme", password="anna-secret")
    assert client.rows("SELECT current_user, current_setting('app.tenant_id')") == [["anna", "acme"]]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        proxy.connect("anna@acme", password="wrong")


def test_a_password_that_has_changed_is_of_no_use_until_its_owner_connects_again(
    start_proxy: StartProxy, anna: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.registry.roles._LOOK", 0.05)
    monkeypatch.setattr("proxy.registry.roles._GOOD", 0.01)
    proxy = start_proxy(tables(anna), auth_type="scram-sha-256", auth_user="postgres")
    client = proxy.raw("anna@acme", password="anna-secret")
    assert client.value(WHO) == "anna"
    run(anna, "ALTER ROLE anna PASSWORD 'next-secret'")

    def refused() -> bool:
        try:
            client.value(WHO)
        except ServerError as error:
            return error.fields["C"] == "28P01" and "Connect again" in error.fields["H"]
        return False

    wait_until(refused)
    assert not ejected(proxy)
    assert proxy.raw("anna@acme", password="next-secret").value(WHO) == "anna"
    assert client.value(WHO) == "anna", "somebody has proved that it is still who it was"


def test_a_server_with_another_verifier_says_so_and_is_not_set_aside(
    start_proxy: StartProxy, dedicated: EmbeddedServer
) -> None:
    salted = scram.make_verifier(APP_PASSWORD, b"other salt")
    own = scram.read_verifier(verifier(dedicated))
    forged = scram.make_verifier("another password", own.salt)  # with the server's salt
    for made, password in ((salted, APP_PASSWORD), (forged, "another password")):
        proxy = start_proxy(
            tables(dedicated, password=scram_text(made)), auth_type="scram-sha-256", min_pool_size=1
        )
        with pytest.raises(psycopg.OperationalError, match="another verifier of the password"):
            proxy.connect("app", password=password)
        assert not ejected(proxy)
        assert proxy.raw("other", password="other-secret").value(WHO) == "other"


def scram_text(made: scram.Verifier) -> str:
    salt, stored, server = (
        b64encode(part).decode() for part in (made.salt, made.stored_key, made.server_key)
    )
    return f"SCRAM-SHA-256${made.iterations}:{salt}${stored}:{server}"


def test_plain_gives_the_key_as_well_and_without_a_proof_there_is_none(
    start_proxy: StartProxy, dedicated: EmbeddedServer
) -> None:
    proxy = start_proxy(tables(dedicated, auth_type="plain"))
    assert proxy.connect("app", password=APP_PASSWORD).execute(WHO).fetchone() == ("app",)
    trusting = start_proxy(tables(dedicated, auth_type="trust"), min_pool_size=1)
    with pytest.raises(psycopg.OperationalError, match="no client has given its key"):
        trusting.connect("app")
    assert not ejected(trusting)


def test_keys_are_forgotten_when_nobody_is_there_who_has_given_them(
    start_proxy: StartProxy, dedicated: EmbeddedServer
) -> None:
    proxy = start_proxy(tables(dedicated), auth_type="scram-sha-256", min_pool_size=1)
    pools = proxy.worker.pools
    for _ in range(2):
        client = proxy.raw("app", password=APP_PASSWORD)
        assert client.value(WHO) == "app"
        assert [bool(pool.client_key) for pool in pools] == [True]
        client.close()
        wait_until(lambda: not any(pool.client_key for pool in pools))
        proxy.call(pools.reconnect)  # so that the next one needs its key


def test_each_worker_learns_from_its_own_logins(tmp_path: Path, dedicated: EmbeddedServer) -> None:
    text = configuration(
        tables(dedicated),
        auth_type="scram-sha-256",
        workers=2,
        min_pool_size=2,
        log_format="json",
        log_level="info",
    )
    config = tmp_path / "tiergate.toml"
    config.write_text(text)
    with serving(config) as proxy:
        clients = [
            psycopg.connect(
                f"host=127.0.0.1 port={proxy.port} user=app password={APP_PASSWORD} dbname=appdb",
                autocommit=True,
            )
            for _ in range(12)
        ]
        assert {client.execute(WHO).fetchone() for client in clients} == {("app",)}
        for client in clients:
            client.close()
    assert "no server connection" not in proxy.event_names()


def test_users_of_the_registry_by_their_own_verifiers_and_never_by_anothers(
    start_proxy: StartProxy, anna: EmbeddedServer, registry: Book
) -> None:
    registry.add("club", "rival", cluster_name="own")
    for tenant, stored in (
        ("club", verifier(anna, "anna")),
        ("rival", scram_text(scram.make_verifier("rival-secret"))),
    ):
        registry.run(
            "INSERT INTO tenant_users (tenant_id, user_name, verifier) VALUES (%s, 'anna', %s)",
            tenant_id(tenant),
            stored,
        )
    proxy = start_proxy(tables(anna), auth_type="scram-sha-256", registry_dsn=registry.dsn)
    client = proxy.raw("anna@club", password="anna-secret")
    backend = client.value("SELECT current_user || pg_backend_pid()")
    for _ in range(2):
        with pytest.raises(psycopg.OperationalError, match="another verifier of the password"):
            proxy.connect("anna@rival", password="rival-secret")
        assert client.value("SELECT current_user || pg_backend_pid()") == backend, (
            "nobody else's doing disturbs it"
        )


def test_a_key_goes_with_its_session_to_a_server_that_has_the_same_verifier(
    start_proxy: StartProxy, dedicated: EmbeddedServer, tls_server: DebianServer
) -> None:
    run(dedicated, "CREATE ROLE mover LOGIN PASSWORD 'mover-secret'")
    known = verifier(dedicated, "mover")
    run(tls_server, f"CREATE ROLE mover LOGIN PASSWORD '{known}'")
    try:
        said = tables(dedicated) | {
            "cluster.new": {"kind": "dedicated", "primary": f"{tls_server.host}:{tls_server.port}"},
            "user.mover": {"password": known, "tenants": ["acme"]},
        }
        keys: dict[str, Any] = {"auth_type": "scram-sha-256", "server_tls_sslmode": "prefer"}
        proxy = start_proxy(said, **keys)
        client = proxy.raw("mover", password="mover-secret")
        where = "SELECT current_user || ' ' || (SELECT name FROM where_am_i)"
        assert client.value(where) == "mover dedicated"
        said["tenant.acme"] = {"tier": "enterprise", "cluster": "new"}
        proxy.reload(configuration(said, listen_port=proxy.port, **keys))
        assert client.value(where) == "mover tls"
    finally:
        run(dedicated, "DROP ROLE mover")
        run(tls_server, "DROP ROLE mover")
