"""Each tenant lands on the server of its tier, however it says who it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.rawclient import ServerError

if TYPE_CHECKING:
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy

Tables = dict[str, dict[str, Any]]
STD_2_ID = "0b0e7a34-3c55-4b60-9c3c-3b9f7d1e2a01"
HOMES = [
    ("ent_1", "dedicated"),
    ("vip_1", "vip"),
    ("std_1", "shared"),
    ("std_2", "shared"),
    ("free_1", "shared"),
]
KNOWN_PASSWORDS = ("user.app", "user.admin")
WHERE = "SELECT name, current_setting('app.tenant_id', true) FROM where_am_i"


@pytest.fixture(scope="module")
def proxy(start_module_proxy: StartProxy, all_tiers: Tables) -> Proxy:
    return start_module_proxy(all_tiers)


def refusal(proxy: Proxy, user: str, parameters: dict[str, str] | None = None, **more: Any) -> dict[str, str]:
    with pytest.raises(ServerError) as refused:
        proxy.raw(user, parameters=parameters, **more)
    assert refused.value.fields["S"] == "FATAL"
    assert "\n" not in refused.value.message
    return refused.value.fields


@pytest.mark.parametrize(("tenant", "home"), HOMES)
def test_by_user_at_tenant(proxy: Proxy, tenant: str, home: str) -> None:
    with proxy.connect(f"app@{tenant}") as connection:
        assert connection.execute(WHERE).fetchone() == (home, tenant)
        assert connection.execute("SELECT current_user::text").fetchone() == ("app",)


@pytest.mark.parametrize(("tenant", "home"), HOMES)
@pytest.mark.parametrize("spelling", ["-c app.tenant_id={}", "--app.tenant_id={}", "-capp.tenant_id={}"])
def test_by_startup_option(proxy: Proxy, tenant: str, home: str, spelling: str) -> None:
    with proxy.connect("app", options=spelling.format(tenant)) as connection:
        assert connection.execute(WHERE).fetchone() == (home, tenant)


@pytest.mark.parametrize(("tenant", "home"), HOMES)
def test_by_bare_parameter(proxy: Proxy, tenant: str, home: str) -> None:
    client = proxy.raw("app", parameters={"app.tenant_id": tenant})
    assert client.rows(WHERE) == [[home, tenant]]


def test_by_id(proxy: Proxy) -> None:
    """The name or the id names the same tenant; the server hears one spelling of it."""
    for client in (
        proxy.raw(f"app@{STD_2_ID}"),
        proxy.raw(f"app@{STD_2_ID.upper()}"),
        proxy.raw("app", parameters={"app.tenant_id": STD_2_ID}),
        proxy.raw("app", parameters={"options": f"-c app.tenant_id={STD_2_ID}"}),
    ):
        assert client.rows(WHERE) == [["shared", "std_2"]]
        client.close()


def test_default_tenant(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(all_tiers, default_tenant="vip_1")
    assert proxy.raw("app").rows(WHERE) == [["vip", "vip_1"]]
    assert proxy.raw("app@ent_1").rows(WHERE) == [["dedicated", "ent_1"]]


def test_rows_of_a_shared_server_are_the_tenants_own(proxy: Proxy) -> None:
    for tenant in ("std_1", "std_2", "free_1"):
        with proxy.connect(f"app@{tenant}") as connection:
            assert connection.execute("SELECT DISTINCT tenant_id FROM orders").fetchall() == [(tenant,)]
            assert connection.execute("SELECT count(*) FROM orders").fetchone() == (30,)


def test_tenant_the_user_may_not_be(proxy: Proxy) -> None:
    assert refusal(proxy, "other@std_2")["C"] == "28000"
    assert refusal(proxy, "other", {"options": "-c app.tenant_id=std_2"})["C"] == "28000"
    assert refusal(proxy, "other", {"app.tenant_id": "ent_1"})["C"] == "28000"
    assert proxy.raw("other@std_1").rows(WHERE) == [["shared", "std_1"]]


def test_two_claims_that_differ(proxy: Proxy) -> None:
    """`identify` has an order, but a session that contradicts itself is not guessed at."""
    with pytest.raises(ServerError) as refused:
        proxy.raw("other@std_1", parameters={"options": "-c app.tenant_id=std_2"}).rows(WHERE)
    assert refused.value.sqlstate in ("28000", "3D000")


def test_unknown_tenant(proxy: Proxy) -> None:
    assert refusal(proxy, "app@nobody")["C"] == "3D000"
    assert refusal(proxy, "app", {"options": "-c app.tenant_id=nobody"})["C"] == "3D000"
    assert refusal(proxy, "app", {"app.tenant_id": "00000000-0000-0000-0000-000000000000"})["C"] == "3D000"


def test_no_tenant_named_and_none_by_default(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(all_tiers, identify=["startup", "user"])
    with pytest.raises(ServerError) as refused:
        proxy.raw("app").value("SELECT 1")
    assert refused.value.sqlstate in ("28000", "3D000")


def test_sources_of_the_claim_can_be_switched_off(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(all_tiers, identify=["startup"])
    with pytest.raises(ServerError):
        proxy.raw("app@std_1")
    assert proxy.raw("app", parameters={"app.tenant_id": "std_1"}).rows(WHERE) == [["shared", "std_1"]]


def test_inactive_tenant(start_proxy: StartProxy, all_tiers: Tables) -> None:
    tables = all_tiers | {"tenant.std_1": {"tier": "standard", "active": False}}
    proxy = start_proxy(tables)
    assert refusal(proxy, "app@std_1")["C"] in ("28000", "3D000")
    assert proxy.raw("app@std_2").rows(WHERE) == [["shared", "std_2"]]


def test_wrong_password_says_nothing_of_the_tenant(start_proxy: StartProxy, all_tiers: Tables) -> None:
    tables = {
        name: table for name, table in all_tiers.items() if name in KNOWN_PASSWORDS or "user" not in name
    }
    proxy = start_proxy(tables, auth_type="scram-sha-256")
    known = refusal(proxy, "app@std_1", password="wrong")
    unknown = refusal(proxy, "app@nobody", password="wrong")
    assert known["C"] == unknown["C"] == "28P01"
    assert proxy.raw("app@std_1").rows(WHERE) == [["shared", "std_1"]]
    assert refusal(proxy, "app@nobody")["C"] == "3D000"


def test_another_guc(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(all_tiers, tenant_guc="my.tenant")
    client = proxy.raw("app", parameters={"options": "-c my.tenant=std_2 -c app.tenant_id=free"})
    assert client.rows("SELECT current_setting('my.tenant'), current_setting('app.tenant_id')") == [
        ["std_2", "free"]
    ]


def test_show_route(proxy: Proxy, all_tiers: Tables) -> None:
    clusters = {"ent_1": "ent", "vip_1": "vip-1", "std_1": "shared", "free_1": "shared", STD_2_ID: "shared"}
    for tenant, cluster in clusters.items():
        steps = proxy.console(f'SHOW ROUTE "{tenant}" USER app DATABASE appdb')
        values = {row["step"]: row["value"] for row in steps}
        assert cluster in values.values(), steps
        said = all_tiers[f"cluster.{cluster}"]
        address = said["primary"] if "primary" in said else said["coordinators"][0]
        assert any(address in (value or "") for value in values.values()), steps
        assert all(row["reason"] for row in steps)
    with pytest.raises(ServerError):
        proxy.console("SHOW ROUTE nobody")


def test_missing_database_is_the_servers_own_error(proxy: Proxy) -> None:
    for tenant in ("ent_1", "vip_1", "std_1"):
        found = refusal(proxy, f"app@{tenant}", database="nowhere")
        assert (found["C"], found["M"]) == ("3D000", 'database "nowhere" does not exist')


def test_role_that_may_not_log_in(proxy: Proxy) -> None:
    found = refusal(proxy, "no_login@std_1")
    assert found["C"] == "28000"
    assert found["M"] == 'role "no_login" is not permitted to log in'


def test_reload_moves_a_tenant(start_proxy: StartProxy, all_tiers: Tables) -> None:
    from tests.integration.running import configuration

    proxy = start_proxy(all_tiers)
    client = proxy.raw("app@std_1")
    assert client.rows(WHERE) == [["shared", "std_1"]]
    moved = all_tiers | {"tenant.std_1": {"tier": "enterprise", "cluster": "ent"}}
    proxy.reload(configuration(moved, listen_port=proxy.port))
    assert proxy.raw("app@std_1").rows(WHERE) == [["dedicated", "std_1"]]
    # A session that was there goes on, wherever it is: nothing of it may be lost.
    assert client.value("SELECT current_setting('app.tenant_id')") == "std_1"


def test_a_claim_with_odd_bytes_is_a_clean_refusal(proxy: Proxy) -> None:
    for name in ("x'; DROP TABLE orders; --", "ä\u2603", "a" * 5000, " ", "%s", "../shared"):
        client = proxy.unnamed()
        with pytest.raises(ServerError) as refused:
            client.log_in("app", "appdb", parameters={"app.tenant_id": name})
        assert refused.value.sqlstate in ("3D000", "28000", "08P01"), name
    with proxy.connect("app@std_1") as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (30,)


def test_psycopg_reads_the_refusal(proxy: Proxy) -> None:
    with pytest.raises(psycopg.OperationalError, match="nobody"):
        proxy.connect("app@nobody")
