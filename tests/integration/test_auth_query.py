"""Users that only the servers know: asked about at each login, of one tenant each, and what an outage does to them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from proxy.cli.embedded import EmbeddedServer
from tests.conftest import StartProxy
from tests.integration.running import Proxy
from tests.integration.servers import connect
from tests.rawclient import RawClient, ServerError, error_fields
from tests.waiting import wait_until

ROLES = """
CREATE ROLE one_tenant NOLOGIN; CREATE ROLE other_tenant NOLOGIN;
CREATE ROLE anna LOGIN PASSWORD 'anna-secret' IN ROLE one_tenant;
CREATE ROLE stray LOGIN PASSWORD 'stray-secret';
CREATE ROLE bare LOGIN IN ROLE one_tenant;
CREATE ROLE root LOGIN SUPERUSER PASSWORD 'root-secret' IN ROLE one_tenant;
CREATE ROLE late LOGIN PASSWORD 'late-secret' VALID UNTIL '2020-01-01' IN ROLE one_tenant;
SET password_encryption = 'md5'; CREATE ROLE aged LOGIN PASSWORD 'aged-secret' IN ROLE one_tenant
"""


def run(server: EmbeddedServer, text: str) -> None:
    with connect(server) as connection:
        connection.execute(text.encode())


@pytest.fixture(scope="module")
def roles(shared: EmbeddedServer) -> Iterator[EmbeddedServer]:
    run(shared, ROLES)
    yield shared
    run(shared, "DROP ROLE anna, stray, bare, root, late, aged, one_tenant, other_tenant")


def tables(server: EmbeddedServer, **cluster: Any) -> dict[str, dict[str, Any]]:
    return {
        "cluster.shared": {
            "kind": "shared", "coordinators": [f"{server.host}:{server.port}"], "user": "app", "auth_user": "postgres",
            **cluster,
        },
        "tenant.one_tenant": {"tier": "standard"},
        "tenant.other_tenant": {"tier": "standard"},
        "user.filed": {"password": "filed-secret", "tenants": "*"},
        "user.admin": {"password": "admin-secret", "tenants": "*"},
    }  # fmt: skip


@pytest.fixture(scope="module")
def proxy(start_module_proxy: StartProxy, roles: EmbeddedServer) -> Iterator[Proxy]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("proxy.registry.roles._LOOK", 0.1)
        patch.setattr("proxy.registry.roles._GOOD", 0.05)
        yield start_module_proxy(tables(roles), auth_type="scram-sha-256")


def refused(proxy: Proxy, user: str, password: str, **more: Any) -> dict[str, str]:
    with RawClient(proxy.port) as client, pytest.raises(ServerError) as told:
        client.log_in(user, "appdb", password, **more)
    return told.value.fields


def test_a_role_of_the_tenant_logs_in_for_that_tenant_alone(proxy: Proxy) -> None:
    by_name = proxy.raw("anna@one_tenant", password="anna-secret")
    by_option = proxy.raw(
        "anna", password="anna-secret", parameters={"options": "-c app.tenant_id=one_tenant"}
    )
    for client in (by_name, by_option):
        assert client.value("SELECT current_setting('app.tenant_id')") == "one_tenant"
    driver = proxy.connect("anna@one_tenant", password="anna-secret")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        driver.execute("SET app.tenant_id = 'other_tenant'")
    assert proxy.raw("filed@other_tenant", password="filed-secret").value("SELECT 1") == "1"
    with RawClient(proxy.port) as client, pytest.raises(ServerError):
        client.log_in("anna@one_tenant", "tiergate", "anna-secret")


def test_who_names_no_tenant_is_looked_up_for_the_default_one(
    start_proxy: StartProxy, roles: EmbeddedServer
) -> None:
    """What PgBouncer does: one tenant, and no client says so."""
    address = f"{roles.host}:{roles.port}"
    proxy = start_proxy(
        {
            "cluster.main": {"kind": "dedicated", "primary": address, "auth_user": "postgres"},
            "tenant.main": {"tier": "standard", "cluster": "main"},
        },
        auth_type="scram-sha-256",
        default_tenant="main",
    )
    client = proxy.raw("stray", password="stray-secret")
    assert client.value("SELECT current_user || current_setting('app.tenant_id')") == "straymain"
    assert refused(proxy, "stray", "wrong")["C"] == "28P01"


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("anna@one_tenant", "wrong"),
        ("anna@one_tenant", ""),
        ("anna@other_tenant", "anna-secret"),  # of another tenant
        ("anna@nowhere", "anna-secret"),
        ("anna", "anna-secret"),  # of no tenant
        ("stray@one_tenant", "stray-secret"),  # of none that is known
        ("nobody@one_tenant", "secret"),
        ("bare@one_tenant", ""),
        ("root@one_tenant", "root-secret"),
        ("late@one_tenant", "late-secret"),
        ("aged@one_tenant", "aged-secret"),  # md5, where SCRAM is wanted
        ("one_tenant@one_tenant", "secret"),
        ("filed@one_tenant", "anna-secret"),  # the file's goes before
    ],
)
def test_nobody_else_does_and_nobody_is_told_why(proxy: Proxy, user: str, password: str) -> None:
    told = refused(proxy, user, password)
    assert (told["C"], told["M"]) == (
        "28P01", f'password authentication failed for user "{user.partition("@")[0]}"',
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "undo"),
    [
        ("NOLOGIN", "LOGIN"),
        ("VALID UNTIL '2020-01-01'", "VALID UNTIL 'infinity'"),
        ("PASSWORD NULL", "PASSWORD 'anna-secret'"),
    ],
)
def test_a_role_that_may_log_in_no_more_is_refused_and_its_sessions_end(
    proxy: Proxy, roles: EmbeddedServer, change: str, undo: str
) -> None:
    client = proxy.raw("anna@one_tenant", password="anna-secret")
    bystander = proxy.raw("filed@one_tenant", password="filed-secret")
    run(roles, f"ALTER ROLE anna {change}")
    try:
        assert error_fields(client.read_to_eof()[-1].body)["C"] == "28000"
        assert refused(proxy, "anna@one_tenant", "anna-secret")["C"] == "28P01"
        assert bystander.value("SELECT 1") == "1"
    finally:
        run(roles, f"ALTER ROLE anna {undo}")
    wait_until(lambda: logs_in(proxy, "anna@one_tenant", "anna-secret"))


def logs_in(proxy: Proxy, user: str, password: str) -> bool:
    with RawClient(proxy.port) as client:
        try:
            client.log_in(user, "appdb", password)
        except ServerError:
            return False
        return True


def test_a_new_password_is_asked_for_at_once(proxy: Proxy, roles: EmbeddedServer) -> None:
    run(roles, "GRANT one_tenant TO stray")
    wait_until(lambda: logs_in(proxy, "stray@one_tenant", "stray-secret"))
    run(roles, "ALTER ROLE stray PASSWORD 'next-secret'")
    wait_until(lambda: logs_in(proxy, "stray@one_tenant", "next-secret"), timeout=4.0)
    assert not logs_in(proxy, "stray@one_tenant", "stray-secret")
    run(roles, "REVOKE one_tenant FROM stray")


def test_md5_where_it_is_allowed_and_a_query_of_ones_own(
    start_proxy: StartProxy, roles: EmbeddedServer
) -> None:
    query = (
        "SELECT rolname, rolpassword FROM pg_authid WHERE rolname = $1 AND rolcanlogin AND $2 = 'one_tenant'"
    )
    proxy = start_proxy(tables(roles, auth_query=query), auth_type="md5")
    named = {"options": "-c app.tenant_id=one_tenant"}
    assert proxy.raw("aged", password="aged-secret", parameters=named).value("SELECT 1") == "1"
    assert proxy.raw("anna", password="anna-secret", parameters=named).value("SELECT 1") == "1"
    assert refused(proxy, "aged", "wrong", parameters=named)["C"] == "28P01"
    assert refused(proxy, "aged@other_tenant", "aged-secret")["C"] == "28P01"


def test_while_the_server_is_away_nobody_is_called_unknown(
    start_proxy: StartProxy, victim: EmbeddedServer
) -> None:
    run(victim, "CREATE ROLE anna LOGIN PASSWORD 'anna-secret'")
    said = tables(victim) | {
        "cluster.shared": {"kind": "dedicated", "primary": f"{victim.host}:{victim.port}", "user": "app"},
        "tenant.one_tenant": {"tier": "enterprise", "cluster": "shared"},
    }
    del said["tenant.other_tenant"]
    proxy = start_proxy(said, auth_type="scram-sha-256", auth_user="postgres", server_login_retry="100ms")
    client = proxy.raw(
        "anna@one_tenant", password="anna-secret"
    )  # it is the only one there: no group is needed
    assert client.value("SELECT current_user") == "app"
    victim.stop()
    wait_until(lambda: not logs_in(proxy, "anna@one_tenant", "anna-secret"))  # an answer is good for a second
    assert refused(proxy, "anna@one_tenant", "anna-secret")["C"] == "57P03"
    told = refused(proxy, "nobody@one_tenant", "secret")
    assert told["C"] == "57P03"
    assert "Try again" in told["H"]
    assert refused(proxy, "nobody@nowhere", "secret")["C"] == "28P01"
    victim.start()
    wait_until(lambda: logs_in(proxy, "anna@one_tenant", "anna-secret"))
    assert refused(proxy, "nobody@one_tenant", "secret")["C"] == "28P01"
