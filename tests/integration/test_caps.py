"""Counted rights: a full cap queues, a full queue and a wait too long are errors that the session survives."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.running import configuration, waiting
from tests.integration.servers import backends
from tests.integration.tables import with_cluster, with_limits
from tests.rawclient import (
    SYNC,
    RawClient,
    ServerError,
    ask,
    bind,
    errors,
    execute,
    kinds,
    parse,
    query,
    rows,
    sqlstates,
)
from tests.waiting import wait_until

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy

Tables = dict[str, dict[str, Any]]
PID = "SELECT pg_backend_pid()"


def tenant_row(proxy: Proxy, tenant: str = "std_1") -> dict[str, str | None]:
    return next(row for row in proxy.console("SHOW TENANTS") if row["name"] == tenant)


def all_back(proxy: Proxy) -> None:
    """Nobody holds a permit of a server connection."""
    wait_until(lambda: all(row["servers"] == "0" for row in proxy.console("SHOW TENANTS")))
    assert all(row["servers"] == "0" for row in proxy.console("SHOW TIERS"))
    assert all(row["waiting"] == "0" for row in proxy.console("SHOW TENANTS"))


# --- server connections -----------------------------------------------------------------------------


def test_a_capped_tenant_queues_and_works(
    start_proxy: StartProxy, all_tiers: Tables, shared: EmbeddedServer
) -> None:
    proxy = start_proxy(with_limits(all_tiers, max_connections=1))
    clients = [proxy.raw() for _ in range(4)]
    neighbour = proxy.raw("app@std_2")
    began = time.monotonic()
    for n, client in enumerate(clients):
        client.send(query(f"SELECT {n}, 'capped' FROM pg_sleep(0.2)"))
    most = 0
    while tenant_row(proxy)["waiting"] != "0":
        most = max(most, backends(shared, "state = 'active' AND query LIKE '%''capped''%'"))
        assert neighbour.value("SELECT 1") == "1", "a capped tenant is nobody else's concern"
    for n, client in enumerate(clients):
        assert rows(client.read_ready()) == [[str(n), "capped"]]
    assert time.monotonic() - began >= 0.8
    assert most == 1
    all_back(proxy)


def test_within_a_transaction_the_permit_is_kept(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(with_limits(all_tiers, max_connections=1))
    one, two = proxy.raw(), proxy.raw()
    one.query("BEGIN")
    two.send(query("SELECT 2"))
    waiting(proxy, 1)
    assert two.nothing_to_read(0.1)
    assert one.value("SELECT 1") == "1"
    one.query("COMMIT")
    assert rows(two.read_ready()) == [["2"]]
    all_back(proxy)


def test_a_tiers_cap(start_proxy: StartProxy, all_tiers: Tables) -> None:
    tables = all_tiers | {"tier.standard": {"caps": {"max_connections": 2}}}
    proxy = start_proxy(tables)
    one, two, three = proxy.raw("app@std_1"), proxy.raw("app@std_2"), proxy.raw("app@std_1")
    free = proxy.raw("app@free_1")
    one.query("BEGIN")
    two.query("BEGIN")
    three.send(query("SELECT 3"))
    waiting(proxy, 1)
    assert free.value("SELECT 'another tier'") == "another tier"
    two.query("COMMIT")
    assert rows(three.read_ready()) == [["3"]]
    one.query("COMMIT")
    all_back(proxy)


@pytest.mark.parametrize("cap", ["cluster", "process"])
def test_an_idle_connection_of_another_pool_makes_room(
    start_proxy: StartProxy, all_tiers: Tables, shared: EmbeddedServer, cap: str
) -> None:
    limit = {"max_connections": 2} if cap == "cluster" else {}
    more = {"max_server_connections": 2} if cap == "process" else {}
    proxy = start_proxy(with_cluster(all_tiers, **limit), **more)
    where = "datname = 'appdb'"
    before = backends(shared, where)
    users = ["app@std_1", "other@std_1", "builder@std_2", "postgres@free_1"]
    for _ in range(3):
        for user in users:
            client = proxy.raw(user)
            assert client.value("SELECT current_user") == user.partition("@")[0]
            assert backends(shared, where) - before <= 2
            client.close()
    all_back(proxy)


def test_a_clusters_cap_queues_when_nothing_is_idle(
    start_proxy: StartProxy, all_tiers: Tables, shared: EmbeddedServer
) -> None:
    proxy = start_proxy(with_cluster(all_tiers, max_connections=2))
    one, two, three = proxy.raw("app@std_1"), proxy.raw("builder@std_2"), proxy.raw("other@std_1")
    one.query("BEGIN")
    two.query("BEGIN")
    three.send(query("SELECT current_user"))
    waiting(proxy, 1)
    assert three.nothing_to_read(0.1)
    two.query("COMMIT")
    assert rows(three.read_ready()) == [["other"]]
    one.query("COMMIT")
    all_back(proxy)


def test_pool_size_is_never_exceeded(
    start_proxy: StartProxy, all_tiers: Tables, shared: EmbeddedServer
) -> None:
    proxy = start_proxy(with_cluster(all_tiers, pool_size=3))
    where = "usename = 'app' AND datname = 'appdb'"
    before = backends(shared, where)
    clients = [proxy.raw(f"app@{tenant}") for tenant in ("std_1", "std_2", "free_1") * 5]
    for _ in range(3):
        for client in clients:
            client.send(query("SELECT pg_backend_pid() FROM pg_sleep(0.02)"))
        assert backends(shared, where) - before <= 3
        pids = {rows(client.read_ready())[0][0] for client in clients}
        assert len(pids) <= 3
    all_back(proxy)


@pytest.mark.parametrize("pools", ["its own pool", "a pool of all users"])
def test_a_user_is_capped_over_its_tenants(start_proxy: StartProxy, all_tiers: Tables, pools: str) -> None:
    tables = all_tiers | {"user.app": all_tiers["user.app"] | {"limits": {"max_connections": 1}}}
    if pools == "a pool of all users":
        tables = with_cluster(tables, user="app")
    proxy = start_proxy(tables)
    one, two, unlimited = proxy.raw("app@std_1"), proxy.raw("app@std_2"), proxy.raw("builder@std_2")
    one.query("BEGIN")
    two.send(query("SELECT 'two'"))
    waiting(proxy, 1)
    assert unlimited.value("SELECT 'another user'") == "another user"
    row = next(row for row in proxy.console("SHOW USERS") if row["name"] == "app")
    assert [row[key] for key in ("max_user_connections", "current_connections", "waiting")] == ["1", "1", "1"]
    one.query("COMMIT")
    assert rows(two.read_ready()) == [["two"]]
    all_back(proxy)


# --- clients ----------------------------------------------------------------------------------------


def refused(proxy: Proxy, user: str = "app@std_1") -> dict[str, str]:
    with pytest.raises(ServerError) as error:
        proxy.raw(user)
    return error.value.fields


def test_max_client_conn(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(all_tiers, max_client_conn=2)
    one, two = proxy.raw(), proxy.raw("app@ent_1")
    fields = refused(proxy, "app@vip_1")
    assert (fields["S"], fields["C"]) == ("FATAL", "53300")
    assert "max_client_conn" in fields["M"]
    one.close()
    wait_until(lambda: _enters(proxy))
    assert two.value("SELECT 1") == "1"


def _enters(proxy: Proxy) -> bool:
    try:
        proxy.raw().close()
    except ServerError as error:
        if error.sqlstate != "53300":
            raise
        return False
    return True


@pytest.mark.parametrize("place", ["tenant", "tier", "user"])
def test_clients_of_a_tenant_and_of_a_tier(start_proxy: StartProxy, all_tiers: Tables, place: str) -> None:
    if place == "tenant":
        tables = with_limits(all_tiers, max_client_connections=2)
    elif place == "tier":
        tables = all_tiers | {"tier.standard": {"caps": {"max_client_connections": 2}}}
    else:
        tables = all_tiers | {"user.app": all_tiers["user.app"] | {"limits": {"max_client_connections": 2}}}
    proxy = start_proxy(tables)
    one, _two = proxy.raw(), proxy.raw()
    fields = refused(proxy)
    assert (fields["S"], fields["C"]) == ("FATAL", "53300")
    assert place in fields["M"]
    assert proxy.raw("postgres@free_1").value("SELECT 1") == "1"
    assert tenant_row(proxy)["clients"] == "2"
    one.close()
    wait_until(lambda: _enters(proxy))


def test_a_wrong_password_costs_the_tenant_nothing(start_proxy: StartProxy, all_tiers: Tables) -> None:
    tables = with_limits(all_tiers, max_client_connections=1)
    tables["user.app"] = tables["user.app"] | {"auth_type": "scram-sha-256"}
    proxy = start_proxy(tables)
    for _ in range(5):
        with pytest.raises(ServerError) as error:
            proxy.raw(password="wrong")
        assert error.value.sqlstate == "28P01"
    assert proxy.raw().value("SELECT 1") == "1"


# --- queues -----------------------------------------------------------------------------------------


def test_a_full_queue(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(with_limits(all_tiers, max_connections=1, max_queue=2))
    holder, *queued = [proxy.raw() for _ in range(3)]
    late = proxy.raw()
    holder.query("BEGIN")
    for client in queued:
        client.send(query("SELECT 'queued'"))
    waiting(proxy, 2)
    for request, ready in ((query("SELECT 1"), 1), (ask("SELECT 1") + SYNC + ask("SELECT 2") + SYNC, 2)):
        answer = late.ask(request, ready)
        assert sqlstates(answer) == ["53300"] * ready
        assert errors(answer)[0]["S"] == "ERROR"
        assert kinds(answer) == "EZ" * ready
        assert late.status == "I"
    holder.query("COMMIT")
    for client in queued:
        assert rows(client.read_ready()) == [["queued"]]
    assert late.value("SELECT 'lives'") == "lives"
    all_back(proxy)


def test_a_full_queue_of_one_tenant_is_not_anothers(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(with_limits(with_cluster(all_tiers, pool_size=1), max_queue=1))
    holder, first, second, other = proxy.raw(), proxy.raw(), proxy.raw(), proxy.raw("app@std_2")
    holder.query("BEGIN")
    first.send(query("SELECT 'first'"))
    waiting(proxy, 1)
    assert sqlstates(second.query("SELECT 1")) == ["53300"]
    other.send(query("SELECT 'other'"))
    waiting(proxy, 2)
    holder.query("COMMIT")
    assert rows(first.read_ready()) == [["first"]]
    assert rows(other.read_ready()) == [["other"]]


def test_a_full_queue_of_a_tier(start_proxy: StartProxy, all_tiers: Tables) -> None:
    caps = {"max_queue": 1}
    _one_waits_and_no_more(
        start_proxy(with_cluster(all_tiers, pool_size=1) | {"tier.standard": {"caps": caps}})
    )


def test_a_full_queue_of_a_user(start_proxy: StartProxy, all_tiers: Tables) -> None:
    limits = {"max_connections": 1, "max_queue": 1}
    _one_waits_and_no_more(start_proxy(all_tiers | {"user.app": all_tiers["user.app"] | {"limits": limits}}))


def _one_waits_and_no_more(proxy: Proxy) -> None:
    """Of two tenants of one tier and one user."""
    holder, queued, late = proxy.raw(), proxy.raw("app@std_2"), proxy.raw()
    holder.query("BEGIN")
    queued.send(query("SELECT 'queued'"))
    waiting(proxy, 1)
    assert sqlstates(late.query("SELECT 1")) == ["53300"]
    holder.query("COMMIT")
    assert rows(queued.read_ready()) == [["queued"]]
    assert late.value("SELECT 'lives'") == "lives"


def waits_too_long(client: RawClient) -> None:
    """Every kind of request, each with its right number of ReadyForQuery."""
    cases = [
        (query("SELECT 1"), "EZ"),
        (query("SELECT 1; SELECT 2"), "EZ"),
        (ask("SELECT 1") + SYNC, "EZ"),
        (ask("SELECT 1") + ask("SELECT 2") + ask("SELECT 3") + SYNC, "EZ"),
        (parse("SELECT 1", "named") + SYNC, "EZ"),
        (bind() + execute() + SYNC, "EZ"),
        (query("BEGIN"), "EZ"),
        (query("COPY notes FROM STDIN"), "EZ"),
    ]
    for request, answer in cases:
        found = client.ask(request)
        assert (kinds(found), sqlstates(found)) == (answer, ["53300"])
        assert errors(found)[0]["S"] == "ERROR"
        assert errors(found)[0]["M"] == "query_wait_timeout"
        assert client.status == "I"
        assert client.nothing_to_read(0.02)


@pytest.mark.parametrize("place", ["proxy", "tenant"])
def test_query_wait_timeout(start_proxy: StartProxy, all_tiers: Tables, place: str) -> None:
    limit = {"query_wait_timeout": "100ms"}
    tables = with_cluster(all_tiers, pool_size=1)
    if place == "tenant":
        proxy = start_proxy(with_limits(tables, "std_2", **limit))
    else:
        proxy = start_proxy(tables, **limit)
    holder, client = proxy.raw(), proxy.raw("app@std_2")
    holder.query("BEGIN")
    waits_too_long(client)
    holder.query("COMMIT")
    assert client.prepared("SELECT 'lives'") == [["lives"]]
    assert client.value("SELECT 'lives'") == "lives"
    all_back(proxy)


def test_a_pipeline_waits_as_one_request_a_sync(start_proxy: StartProxy, all_tiers: Tables) -> None:
    tables = with_limits(with_cluster(all_tiers, pool_size=1), "std_2", query_wait_timeout="150ms")
    proxy = start_proxy(tables)
    holder, client = proxy.raw(), proxy.raw("app@std_2")
    holder.query("BEGIN")
    answer = client.ask((ask("SELECT 1") + SYNC) * 3 + query("SELECT 4"), ready=4)
    assert sqlstates(answer) == ["53300"] * 4
    assert kinds(answer) == "EZEZEZEZ"
    holder.query("COMMIT")
    assert client.value("SELECT 5") == "5"


def test_the_wait_of_a_login(start_proxy: StartProxy, all_tiers: Tables) -> None:
    """In session mode a login waits for its connection, no longer than a query would."""
    proxy = start_proxy(with_cluster(all_tiers, pool_size=1, pool_mode="session"), query_wait_timeout="500ms")
    holder = proxy.raw()
    fields = refused(proxy)
    assert (fields["C"], fields["M"]) == ("53300", "query_wait_timeout")
    holder.close()
    assert proxy.raw().value("SELECT 1") == "1"


@pytest.mark.parametrize("whose", ["tenant", "user"])
def test_raised_by_reload(start_proxy: StartProxy, all_tiers: Tables, whose: str) -> None:
    def limited(limit: int) -> Tables:
        if whose == "tenant":
            return with_limits(all_tiers, max_connections=limit)
        return all_tiers | {"user.app": all_tiers["user.app"] | {"limits": {"max_connections": limit}}}

    proxy = start_proxy(limited(1))
    holder, client = proxy.raw(), proxy.raw()
    holder.query("BEGIN")
    client.send(query("SELECT 'raised'"))
    waiting(proxy, 1)
    proxy.reload(configuration(limited(2), listen_port=proxy.port))
    assert rows(client.read_ready()) == [["raised"]]
    holder.query("COMMIT")


def test_permits_go_back_after_trouble(start_proxy: StartProxy, all_tiers: Tables) -> None:
    """Errors, waits too long, cancels, clients that vanish: all counts return to zero."""
    tables = with_limits(with_cluster(all_tiers, pool_size=2), max_connections=2, query_timeout="100ms")
    proxy = start_proxy(tables, query_wait_timeout="60ms")

    unexpected: list[str] = []

    def trouble(n: int) -> None:
        for m in range(6):
            client = RawClient(proxy.port)
            try:
                client.log_in(f"app@{('std_1', 'std_2')[n % 2]}", "appdb")
                if m % 3 == 0:
                    client.query("BEGIN; SELECT 1/0")
                elif m % 3 == 1:
                    client.query("SELECT pg_sleep(0.2)")
                else:
                    client.query("BEGIN; SELECT 1")
                    client.send(query("SELECT pg_sleep(0.3)"))
            except ServerError as error:
                if error.sqlstate != "53300":
                    unexpected.append(str(error))
            finally:
                (client.reset if m % 2 else client.close)()

    threads = [threading.Thread(target=trouble, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not unexpected
    wait_until(lambda: not proxy.console("SHOW CLIENTS"))
    all_back(proxy)
    assert all(row["clients"] == "0" for row in proxy.console("SHOW TENANTS"))

    def served() -> bool:
        try:
            return proxy.raw().value("SELECT 1") == "1"
        except ServerError:  # a connection is not opened in 60 ms on a busy machine
            return False

    wait_until(served)


def test_the_first_login_of_a_tenant_does_not_wait_for_a_pool_that_others_fill(
    shared: EmbeddedServer, start_proxy: StartProxy
) -> None:
    proxy = start_proxy(
        {
            "cluster.shared": {
                "kind": "shared",
                "coordinators": [f"{shared.host}:{shared.port}"],
                "pool_size": 1,
            },
            "tenant.std_1": {"tier": "standard"},
            "tenant.std_2": {"tier": "standard"},
            "user.app": {"password": "app-secret", "tenants": "*"},
        },
        query_wait_timeout="3s",
    )
    holder = proxy.raw(user="app@std_1")
    holder.send(query("BEGIN"))
    holder.read_ready()
    newcomer = proxy.raw(user="app@std_2")
    holder.send(query("COMMIT"))
    holder.read_ready()
    newcomer.send(query("SHOW app.tenant_id"))
    assert b"std_2" in newcomer.read_ready()[1].body
