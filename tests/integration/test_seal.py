"""Sealed tenants through the proxy: the seal is there when it is needed, renewed in time, and follows its keys."""

from __future__ import annotations

import io
from collections.abc import Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from proxy import log, settings
from proxy.errors import ConfigError
from tests.integration.running import configuration
from tests.integration.sealed import KEY, OTHER_KEY, OTHER_SECRET, SECRET, put, sealed_database
from tests.integration.servers import backends, connect
from tests.integration.tables import with_cluster
from tests.rawclient import SYNC, ask, errors, rows
from tests.waiting import wait_until

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy

Tables = dict[str, dict[str, Any]]
DATABASE = "sealed"
OLD, NEW = f"{KEY}:{SECRET}", f"{OTHER_KEY}:{OTHER_SECRET}"
READ = "SELECT DISTINCT tenant_id FROM sealed"
SEAL = "SELECT current_setting('tiergate.seal')"


@pytest.fixture(scope="module")
def server(shared: EmbeddedServer) -> Iterator[EmbeddedServer]:
    with sealed_database(shared, DATABASE):
        yield shared


@pytest.fixture
def tables(all_tiers: Tables, server: EmbeddedServer) -> Tables:
    """The shared cluster with one connection and sealed tenants."""
    return with_cluster(all_tiers, pool_size=1, seal_keys=[OLD])


def outlive(client: Any, what: str) -> None:
    """Waits until seals of one second that are there now have expired, by the server's clock."""
    wait_until(
        lambda: (
            int(client.value("SELECT extract(epoch FROM clock_timestamp())::bigint"))
            > int(what.split(".")[2]) + 1
        )
    )


def test_tenants_that_alternate_on_one_connection_see_their_rows(
    start_proxy: StartProxy, tables: Tables
) -> None:
    proxy = start_proxy(tables)
    clients = {tenant: proxy.raw(f"app@{tenant}", DATABASE) for tenant in ("std_1", "std_2", "free_1")}
    for _ in range(3):
        for tenant, client in clients.items():
            assert client.rows(READ) == [[tenant]]
            assert client.prepared(READ) == [[tenant]]
    assert backends(home(proxy), "datname = 'sealed'") == 1


def home(proxy: Proxy) -> Any:
    (endpoint,) = proxy.settings.directory.clusters["shared"].endpoints
    return endpoint


def test_the_same_tenant_again_is_not_sealed_again(start_proxy: StartProxy, tables: Tables) -> None:
    proxy = start_proxy(tables)
    first, twin = proxy.raw(database=DATABASE), proxy.raw(database=DATABASE)
    seal = first.value(SEAL)
    assert [client.value(SEAL) for client in (twin, first, twin)] == [seal] * 3


RESETS = ["RESET ALL", "DISCARD ALL", "RESET app.tenant_id", "BEGIN; RESET ALL; ROLLBACK"]


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_reset_leaves_the_tenant_sealed(
    start_proxy: StartProxy, tables: Tables, mode: str, reset: str, extended: bool
) -> None:
    client = start_proxy(with_cluster(tables, pool_mode=mode)).raw(database=DATABASE)
    for part in reset.split("; "):
        answer = client.ask(ask(part) + SYNC) if extended else client.query(part)
        if part != "RESET app.tenant_id":  # which may be refused
            client.checked(answer)
    assert client.rows(READ) == [["std_1"]]


def test_a_reset_within_a_batch_leaves_the_tenant_sealed_for_its_rest(
    start_proxy: StartProxy, tables: Tables
) -> None:
    client = start_proxy(tables).raw(database=DATABASE)
    answer = client.checked(client.ask(ask("RESET ALL") + ask(READ) + SYNC))
    assert rows(answer) == [["std_1"]]


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_seal_is_renewed_before_it_expires(start_proxy: StartProxy, tables: Tables, mode: str) -> None:
    """Also of a client that keeps its connection and says nothing, which is what outliving it takes here."""
    proxy = start_proxy(with_cluster(tables, pool_mode=mode), seal_lifetime="2s")
    client, clock = proxy.raw(database=DATABASE), connect(home(proxy), DATABASE)
    with clock:
        first = client.value(SEAL)
        assert first is not None
        expires = int(first.split(".")[2])
        wait_until(lambda: now(clock) > expires + 1)
        assert client.rows(READ) == [["std_1"]]
        assert client.value(SEAL) != first


def now(connection: psycopg.Connection[Any]) -> float:
    row = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    assert row is not None
    return float(row[0])


def test_a_client_that_never_rests_is_renewed_between_its_transactions(
    start_proxy: StartProxy, tables: Tables
) -> None:
    """It keeps its connection by a pin, and the next request is there before the sweep looks."""
    client = start_proxy(tables, seal_lifetime="2s").raw(database=DATABASE)
    client.query("CREATE TEMP TABLE pins (x int)")
    seals: set[str | None] = set()
    until = monotonic() + 20
    while len(seals) < 3 and monotonic() < until:
        assert client.rows("SELECT tenant_id, pg_sleep(0.2) FROM sealed LIMIT 1")[0][0] == "std_1"
        seals.add(client.value(SEAL))
    assert len(seals) == 3


def test_a_transaction_that_outlives_its_seal_keeps_its_rows(start_proxy: StartProxy, tables: Tables) -> None:
    client = start_proxy(tables, seal_lifetime="1s").raw(database=DATABASE)
    client.query("BEGIN")
    seal = client.value(SEAL)
    assert seal is not None
    outlive(client, seal)
    assert client.rows(READ) == [["std_1"]]
    assert client.value(SEAL) == seal, "nothing is set within a transaction"
    client.query("COMMIT")
    assert client.rows(READ) == [["std_1"]]


def test_keys_rotate_without_a_restart(
    start_proxy: StartProxy, tables: Tables, server: EmbeddedServer
) -> None:
    proxy = start_proxy(tables)
    client = proxy.raw(database=DATABASE)
    seal = client.value(SEAL)
    assert seal is not None
    assert seal.split(".")[1] == KEY
    with connect(server, DATABASE) as admin:
        admin.execute("SELECT tiergate.store_key(%s, %s)", (OTHER_KEY, OTHER_SECRET))
        proxy.reload(configuration(with_cluster(tables, seal_keys=[OLD, NEW]), listen_port=proxy.port))
        seal = client.value(SEAL)
        assert seal is not None
        assert seal.split(".")[1] == OTHER_KEY, "from the next transaction on"
        admin.execute("UPDATE tiergate.seal_key SET retired_at = now() WHERE id = %s", (KEY,))
        try:
            assert client.rows(READ) == [["std_1"]]
        finally:
            admin.execute("UPDATE tiergate.seal_key SET retired_at = NULL")


def test_keys_rotate_for_a_client_that_keeps_its_connection(
    start_proxy: StartProxy, tables: Tables, server: EmbeddedServer
) -> None:
    proxy = start_proxy(with_cluster(tables, pool_mode="session"))
    client = proxy.raw(database=DATABASE)
    with connect(server, DATABASE) as admin:
        admin.execute("SELECT tiergate.store_key(%s, %s)", (OTHER_KEY, OTHER_SECRET))
    changed = with_cluster(tables, pool_mode="session", seal_keys=[NEW])
    proxy.reload(configuration(changed, listen_port=proxy.port))
    wait_until(lambda: (client.value(SEAL) or "").split(".")[1] == OTHER_KEY)


def test_sealing_is_turned_on_and_off_by_a_reload(start_proxy: StartProxy, tables: Tables) -> None:
    plain = {name: dict(content) for name, content in tables.items()}
    del plain["cluster.shared"]["seal_keys"]
    proxy = start_proxy(plain)
    client = proxy.raw(database=DATABASE)
    (error,) = errors(client.query(READ))
    assert (error["C"], error["D"]) == ("42501", "there is no seal")
    proxy.reload(configuration(tables, listen_port=proxy.port))
    wait_until(lambda: not errors(client.query(READ)))
    assert client.rows(READ) == [["std_1"]]
    proxy.reload(configuration(plain, listen_port=proxy.port))
    wait_until(lambda: errors(client.query(READ)))


def test_a_database_without_the_kit_says_so(start_proxy: StartProxy, tables: Tables) -> None:
    proxy = start_proxy(tables)
    with pytest.raises(
        psycopg.OperationalError, match="the tenant cannot be sealed in this database"
    ) as caught:
        proxy.connect()
    assert "tiergate sql install" in str(caught.value)


def test_a_client_cannot_bring_a_seal_along(start_proxy: StartProxy, tables: Tables) -> None:
    proxy = start_proxy(tables)
    client = proxy.raw(database=DATABASE, parameters={"options": "-c tiergate.seal=mine"})
    assert client.value(SEAL) != "mine"
    assert client.rows(READ) == [["std_1"]]


def test_no_secret_is_shown(start_proxy: StartProxy, tables: Tables, server: EmbeddedServer) -> None:
    proxy = start_proxy(tables)
    written = io.StringIO()
    log.configure("json", "debug", written)
    try:
        client = proxy.raw(database=DATABASE)
        client.query(READ)
        proxy.call(lambda: proxy.worker.set("log_level", "debug"))
        log.configure("json", "debug", written)
        shown = ""
        for view in ("CONFIG", "CLUSTERS", "SERVERS", "CLIENTS", "POOLS", "DATABASES", "TENANTS", "USERS"):
            shown += repr(proxy.console(f"SHOW {view}"))
        with pytest.raises(ConfigError) as caught:
            settings.parse(configuration(with_cluster(tables, seal_keys=[f"no id:{SECRET}"])), "f.toml")
        shown += caught.value.message
    finally:
        log.configure("console", "warning")
    with connect(server, DATABASE) as admin:
        shown += repr(admin.execute("SELECT query FROM pg_stat_activity").fetchall())
    shown += written.getvalue() + server.log()
    assert SECRET not in shown
    assert "'15m'" in shown, "SHOW CONFIG has seal_lifetime"


@pytest.mark.parametrize(
    "trace", ["RESET tiergate.seal", "SELECT spoils('')", "SELECT spoils('1.first.1.x')"]
)
def test_a_seal_that_a_client_has_spoilt_is_put_right(
    start_proxy: StartProxy, tables: Tables, server: EmbeddedServer, trace: str
) -> None:
    with connect(server, DATABASE, "app") as app:
        app.execute(
            "CREATE OR REPLACE FUNCTION spoils(seal text) RETURNS text LANGUAGE sql AS"
            " $$SELECT set_config('tiergate.seal', seal, false)$$"
        )
    proxy = start_proxy(tables)
    first, second = proxy.raw(database=DATABASE), proxy.raw(database=DATABASE)
    first.query(trace)
    (error,) = errors(second.query(READ))
    assert error["M"] == "tenant context refused"
    assert second.rows(READ) == [["std_1"]]


def test_what_the_seal_does_not_stop(start_proxy: StartProxy, tables: Tables, server: EmbeddedServer) -> None:
    """A tenant that gives its seal away, on that very connection, until the seal expires: only then it is over."""
    with connect(server, DATABASE, "app") as app:
        app.execute(
            "CREATE OR REPLACE FUNCTION become(tenant text, seal text) RETURNS text LANGUAGE sql AS"
            " $$SELECT set_config('app.tenant_id', tenant, true) || set_config('tiergate.seal', seal, true)$$"
        )
    proxy = start_proxy(tables, seal_lifetime="2s")
    generous, taker = proxy.raw("app@std_2", DATABASE), proxy.raw("app@std_1", DATABASE)
    given = generous.value(SEAL)
    assert given is not None
    taker.query("BEGIN")
    taker.query(f"SELECT become('std_2', '{given}')")
    assert taker.rows(READ) == [["std_2"]]
    taker.query("ROLLBACK")
    outlive(taker, given)
    taker.query("BEGIN")
    taker.query(f"SELECT become('std_2', '{given}')")
    (error,) = errors(taker.query(READ))
    assert error["D"] == "the seal has expired"


def test_a_connection_that_is_not_the_proxys_sees_nothing(server: EmbeddedServer) -> None:
    with connect(server, DATABASE, "app") as app:
        assert app.execute(READ.encode()).fetchall() == []
        put(app, "std_1", "")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="tenant context refused"):
            app.execute(READ.encode())
