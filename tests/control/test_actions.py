"""What operators do takes effect, on whom it is meant for and on nobody else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests import rawclient
from tests.rawclient import ServerError, errors, sqlstates
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy

Tables = dict[str, dict[str, Any]]


@pytest.fixture
def proxy(start_proxy: StartProxy, all_tiers: Tables) -> Proxy:
    return start_proxy(all_tiers)


def failure(proxy: Proxy, command: str) -> str:
    with pytest.raises(ServerError) as refused:
        proxy.console(command)
    return refused.value.sqlstate


def test_pause_waits_for_transactions_and_holds_new_ones_until_resume(proxy: Proxy) -> None:
    busy, other, elsewhere = proxy.raw(), proxy.raw(), proxy.raw("app@vip_1")
    busy.query("BEGIN")
    console = proxy.raw("admin", "tiergate", "admin-secret")
    console.send(rawclient.query("PAUSE shared"))
    wait_until(lambda: proxy.call(lambda: proxy.worker.pools.paused("shared")))
    other.send(rawclient.query("SELECT 2"))
    assert console.nothing_to_read(0.1)
    assert busy.value("SELECT 1") == "1"
    busy.query("COMMIT")
    assert rawclient.kinds(console.read_ready()) == "CZ"
    assert elsewhere.value("SELECT 3") == "3"
    assert other.nothing_to_read(0.1)
    proxy.console("RESUME shared")
    assert rawclient.rows(other.read_ready()) == [["2"]]
    assert failure(proxy, "RESUME shared") == "22023"


def test_pause_of_all_is_ended_by_resume(proxy: Proxy) -> None:
    proxy.console("PAUSE")
    assert {row["paused"] for row in proxy.console("SHOW DATABASES")} == {"1"}
    proxy.console("RESUME")
    assert {row["paused"] for row in proxy.console("SHOW DATABASES")} == {"0"}
    assert proxy.raw("app@vip_1").value("SELECT 1") == "1"
    assert failure(proxy, "RESUME") == "22023"


def test_reconnect_replaces_connections_when_they_are_free(proxy: Proxy) -> None:
    client = proxy.raw()
    before = client.value("SELECT pg_backend_pid()")
    client.query("BEGIN")
    proxy.console("RECONNECT shared")
    assert client.value("SELECT pg_backend_pid()") == before
    client.query("COMMIT")
    assert client.value("SELECT pg_backend_pid()") != before


def test_kill_ends_a_tenants_sessions_only(proxy: Proxy) -> None:
    mine, other = proxy.raw("app@std_1"), proxy.raw("app@std_2")
    mine.query("BEGIN")
    proxy.console("KILL std_1")
    frames = mine.read_to_eof()
    assert (sqlstates(frames), errors(frames)[0]["S"]) == (["57P01"], "FATAL")
    assert other.value("SELECT 1") == "1"
    assert proxy.raw("app@std_1").value("SELECT 1") == "1"


@pytest.mark.parametrize("command", ["KILL_CLIENT", "kill client"])
def test_kill_by_cluster_and_by_pointer(proxy: Proxy, command: str) -> None:
    vip, shared = proxy.raw("app@vip_1"), proxy.raw()
    proxy.console("KILL vip-1")
    assert sqlstates(vip.read_to_eof()) == ["57P01"]
    (row,) = proxy.console("SHOW CLIENTS")
    proxy.console(f"{command} {row['ptr']}")
    assert sqlstates(shared.read_to_eof()) == ["57P01"]
    assert failure(proxy, f"{command} {row['ptr']}") == "22023"


@pytest.mark.parametrize("name", ["std_1", "shared"])
def test_disable_refuses_logins_until_enable(proxy: Proxy, name: str) -> None:
    proxy.console(f"DISABLE {name}")
    with pytest.raises(ServerError) as refused:
        proxy.raw("app@std_1").value("SELECT 1")
    assert refused.value.sqlstate in ("28000", "57P03")
    assert proxy.raw("app@vip_1").value("SELECT 1") == "1"
    proxy.console(f"ENABLE {name}")
    assert proxy.raw("app@std_1").value("SELECT 1") == "1"
    assert failure(proxy, f"ENABLE {name}") == "22023"


@pytest.mark.parametrize("command", ["KILL", "DISABLE", "ENABLE", "PAUSE", "RESUME", "RECONNECT"])
def test_an_unknown_name_is_refused(proxy: Proxy, command: str) -> None:
    assert failure(proxy, f"{command} nobody") == "22023"


def test_set_takes_effect_and_is_shown(proxy: Proxy) -> None:
    client = proxy.raw()
    proxy.console("SET query_timeout = '100ms'")
    config = {row["key"]: row["value"] for row in proxy.console("SHOW CONFIG")}
    assert config["query_timeout"] == "100ms"
    assert sqlstates(client.query("SELECT pg_sleep(20)")) == ["57014"]
    assert client.value("SELECT 1") == "1"
    with pytest.raises(ServerError, match="query_timeout"):
        proxy.console("SET query_timeuot = 1")
    with pytest.raises(ServerError):
        proxy.console("SET query_timeout = nonsense")
    assert {row["key"]: row["value"] for row in proxy.console("SHOW CONFIG")}["query_timeout"] == "100ms"
