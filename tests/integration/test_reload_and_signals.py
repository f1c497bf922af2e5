"""A changed configuration reaches the sessions that run: limits, tenants, users and clusters, and drops nobody.

What each signal does to the process is in tests/cli/test_serve.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from proxy.errors import ConfigError
from tests import rawclient
from tests.integration.running import configuration
from tests.rawclient import ServerError, sqlstates
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy

Tables = dict[str, dict[str, Any]]


@pytest.fixture
def proxy(start_proxy: StartProxy, all_tiers: Tables) -> Proxy:
    return start_proxy(all_tiers)


def changed(proxy: Proxy, tables: Tables, **keys: object) -> list[str]:
    return proxy.reload(configuration(tables, **{"listen_port": proxy.port, **keys}))


def test_a_limit_holds_for_sessions_that_run(proxy: Proxy, all_tiers: Tables) -> None:
    client, other = proxy.raw(), proxy.raw("app@std_2")
    client.query("SELECT 1")
    assert changed(proxy, all_tiers | {"tenant.std_1.limits": {"query_timeout": "100ms"}}) == []
    assert sqlstates(client.query("SELECT pg_sleep(20)")) == ["57014"]
    assert client.value("SELECT 1") == "1"
    assert sqlstates(other.query("SELECT pg_sleep(0.3)")) == []
    changed(proxy, all_tiers)
    assert sqlstates(client.query("SELECT pg_sleep(0.3)")) == []


def test_a_raised_cap_lets_those_who_wait_go_on(start_proxy: StartProxy, all_tiers: Tables) -> None:
    def capped(most: int) -> Tables:
        return all_tiers | {"tenant.std_1.limits": {"max_connections": most}}

    proxy = start_proxy(capped(1))
    first, second = proxy.raw(), proxy.raw()
    first.query("BEGIN")
    second.send(rawclient.query("SELECT 2"))
    wait_until(lambda: proxy.console("SHOW POOLS")[0]["cl_waiting"] == "1")
    changed(proxy, capped(2))
    assert rawclient.rows(second.read_ready()) == [["2"]]
    first.query("COMMIT")


def test_tenants_and_users_come_and_go(proxy: Proxy, all_tiers: Tables) -> None:
    with pytest.raises(ServerError) as unknown:
        proxy.raw("app@new_1")
    assert unknown.value.sqlstate == "3D000"
    kept = proxy.raw()
    kept.query("BEGIN")
    changed(
        proxy, all_tiers | {"tenant.new_1": {"tier": "vip", "shard_id": 1}, "user.fresh": {"tenants": "*"}}
    )
    assert proxy.raw("app@new_1").value("SELECT name FROM where_am_i") == "vip"
    assert kept.value("SELECT 1") == "1"
    kept.query("COMMIT")
    changed(proxy, all_tiers)
    with pytest.raises(ServerError) as gone:
        proxy.raw("app@new_1")
    assert gone.value.sqlstate == "3D000"
    assert kept.value("SELECT 1") == "1"


def test_a_cluster_that_moves_takes_its_sessions_along(proxy: Proxy, all_tiers: Tables) -> None:
    client = proxy.raw()
    where = "SELECT name FROM where_am_i"
    client.query("BEGIN")
    assert client.value(where) == "shared"
    moved = all_tiers | {
        "cluster.shared": {"kind": "shared", "primary": all_tiers["cluster.vip-1"]["coordinators"][0]}
    }
    changed(proxy, moved)
    assert client.value(where) == "shared"
    client.query("COMMIT")
    wait_until(lambda: client.value(where) == "vip")
    assert proxy.raw().value(where) == "vip"


@pytest.mark.parametrize(("mode", "keeps"), [("session", "SELECT 1"), ("transaction", "LISTEN news")])
def test_who_keeps_a_connection_ends_when_its_tenant_has_moved(
    start_proxy: StartProxy, all_tiers: Tables, mode: str, keeps: str
) -> None:
    proxy = start_proxy(all_tiers, pool_mode=mode)
    idle, busy, bystander = proxy.raw(), proxy.raw(), proxy.raw("app@std_2")
    for client in (idle, busy, bystander):
        client.query(keeps)
    busy.query("BEGIN")
    changed(proxy, all_tiers | {"tenant.std_1": {"tier": "standard", "cluster": "vip-1"}}, pool_mode=mode)
    fields = rawclient.error_fields(idle.read_to_eof()[-1].body)
    assert (fields["C"], fields["M"]) == (
        "57P01",
        'tenant "std_1" has moved, and the session kept its server connection',
    )
    assert busy.value("SELECT name FROM where_am_i") == "shared"
    frames = busy.query("COMMIT")
    assert rawclient.kinds(frames)[:2] == "CZ"
    assert rawclient.error_fields(busy.read_to_eof()[-1].body)["C"] == "57P01"
    assert bystander.value("SELECT 1") == "1"
    assert proxy.raw().value("SELECT name FROM where_am_i") == "vip"


def test_in_session_mode_a_suspended_tenants_sessions_end(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(all_tiers, pool_mode="session")
    client, bystander = proxy.raw(), proxy.raw("app@std_2")
    changed(proxy, all_tiers | {"tenant.std_1": {"tier": "standard", "active": False}}, pool_mode="session")
    assert rawclient.error_fields(client.read_to_eof()[-1].body)["C"] == "57P01"
    assert bystander.value("SELECT 1") == "1"


def test_who_keeps_a_connection_goes_to_a_new_place_on_its_cluster_when_it_lets_go(
    proxy: Proxy, all_tiers: Tables
) -> None:
    client = proxy.raw()
    client.query("LISTEN news")
    backend = client.value("SELECT pg_backend_pid()")
    changed(proxy, all_tiers | {"user.app": {"password": "other", "tenants": "*", "server_user": "other"}})
    assert client.value("SELECT current_user || pg_backend_pid()") == f"app{backend}"
    client.query("UNLISTEN news")
    assert client.value("SELECT current_user") == "other"


@pytest.mark.parametrize("text", ["[proxy]\nlisten_prot = 1\n", "not TOML", ""])
def test_a_bad_file_changes_nothing(proxy: Proxy, text: str) -> None:
    client = proxy.raw()
    proxy.config.write_text(text + "\n[proxy.nonsense]\nx = 1\n")
    with pytest.raises(ConfigError):
        proxy.call(proxy.worker.reload)
    with pytest.raises(ServerError) as refused:
        proxy.console("RELOAD")
    assert refused.value.sqlstate == "F0000"
    assert client.value("SELECT 1") == "1"
    assert proxy.raw("app@vip_1").value("SELECT 1") == "1"


def test_reload_says_what_needs_a_restart(proxy: Proxy, all_tiers: Tables) -> None:
    assert changed(proxy, all_tiers, listen_backlog=7) == ["listen_backlog"]
    text = proxy.config.read_text().replace("listen_backlog = 7", "listen_backlog = 8")
    proxy.config.write_text(text)
    admin = proxy.raw("admin", "tiergate", "admin-secret")
    frames = admin.query("RELOAD")
    assert rawclient.kinds(frames) == "NCZ"
    assert b"listen_backlog" in frames[0].body
