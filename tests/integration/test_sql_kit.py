"""The SQL kit by itself, on each PostgreSQL there is: what a seal must be, and what a policy with it costs."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from proxy.cli.sql import scripts
from tests.examples import examples
from tests.integration.sealed import (
    KEY,
    OTHER_KEY,
    OTHER_SECRET,
    SECRET,
    install,
    put,
    seal,
    sealed_database,
)
from tests.integration.servers import APP_PASSWORD, Server, connect

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer

Connection = psycopg.Connection[Any]
ROWS = "SELECT DISTINCT tenant_id FROM sealed"


@pytest.fixture(scope="module", params=["shared", "tls_server"])
def server(request: pytest.FixtureRequest) -> Server:
    """The embedded PostgreSQL 18, and Debian's 15."""
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def database(server: Server) -> Iterator[str]:
    with sealed_database(server, "kit") as name:
        yield name


@pytest.fixture
def admin(server: Server, database: str) -> Iterator[Connection]:
    with connect(server, database) as connection:
        yield connection


@pytest.fixture
def app(server: Server, database: str) -> Iterator[Connection]:
    with connect(server, database, "app", password=APP_PASSWORD) as connection:
        yield connection


def refused(connection: Connection, statement: str = ROWS) -> str | None:
    """The reason why the tenant context is refused."""
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="tenant context refused") as caught:
        connection.execute(statement.encode())
    return caught.value.diag.message_detail


def rows(connection: Connection, statement: str = ROWS) -> list[Any]:
    return [row[0] for row in connection.execute(statement.encode()).fetchall()]


# --- the HMAC ---------------------------------------------------------------------------------------


@hypothesis(
    max_examples=examples(30), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    secret=st.text(
        st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=32, max_size=150
    ),
    message=st.binary(max_size=300),
)
def test_what_is_kept_of_a_key_makes_the_hmac_that_python_makes(
    admin: Connection, secret: str, message: bytes
) -> None:
    with admin.transaction(force_rollback=True):
        admin.execute("SELECT tiergate.store_key('tried', %s)", (secret,))
        row = admin.execute(
            "SELECT sha256(outer_pad || sha256(inner_pad || %s::bytea)) FROM tiergate.seal_key WHERE id = 'tried'",
            (message,),
        ).fetchone()
    assert row is not None
    assert bytes(row[0]) == hmac.new(secret.encode(), message, hashlib.sha256).digest()


def test_a_key_that_is_there_is_not_replaced_by_another_secret(admin: Connection) -> None:
    admin.execute("SELECT tiergate.store_key(%s, %s)", (KEY, SECRET))
    with pytest.raises(psycopg.errors.RaiseException, match="another secret"):
        admin.execute("SELECT tiergate.store_key(%s, %s)", (KEY, OTHER_SECRET))


@pytest.mark.parametrize("key", [("short", "x" * 31), ("not an id", "x" * 32), ("", "x" * 32)])
def test_keys_that_are_none(admin: Connection, key: tuple[str, str]) -> None:
    with pytest.raises(psycopg.Error):
        admin.execute("SELECT tiergate.store_key(%s, %s)", key)


# --- what a seal must be ----------------------------------------------------------------------------


@pytest.mark.parametrize("tenant", ["std_1", "free_1", "nobody", "caf\u00e9", "o'x", "a\nb"])
def test_a_good_seal_names_the_tenant(app: Connection, tenant: str) -> None:
    put(app, tenant, seal(app, tenant))
    assert rows(app, "SELECT tiergate.current_tenant()") == [tenant]
    assert rows(app) == ([tenant] if tenant in ("std_1", "free_1") else [])


def test_nobody_is_named_and_nothing_proved(app: Connection) -> None:
    assert rows(app, "SELECT tiergate.current_tenant()") == [None]
    assert rows(app) == []


def test_each_fault_of_a_seal_is_refused_with_its_reason(app: Connection, admin: Connection) -> None:
    good = seal(app, "std_1")
    version, key, expires, digest = good.split(".")
    malformed = "the seal is malformed"
    other = "the seal is not of this tenant and connection"
    for forged, reason in {
        "": "there is no seal",
        "x": malformed,
        f"2.{key}.{expires}.{digest}": malformed,
        good[:-1]: malformed,
        good + "0": malformed,
        good + ".": malformed,
        good.upper(): malformed,
        f"{version}.{key}.-1.{digest}": malformed,
        f"{version}.{key}.1e99.{digest}": malformed,
        f"{version}.{key}..{digest}": malformed,
        f"{version}.{key}.9999999999999.{digest}": malformed,
        f"{version}.unknown.{expires}.{digest}": "the key of the seal is unknown",
        f"{version}..{expires}.{digest}": "the key of the seal is unknown",
        f"{version}.{key}.{int(expires) + 1}.{digest}": other,
        f"{version}.{key}.{expires}.{digest[::-1]}": other,
        f"{version}.{key}.{expires}.{'0' * 64}": other,
        seal(app, "std_2"): other,
        seal(app, "std_1", backend=seal(admin, "std_1")): other,
        seal(app, "std_1", secret=OTHER_SECRET): other,
        seal(app, "std_1", life=-1): "the seal has expired",
    }.items():
        put(app, "std_1", forged)
        assert refused(app) == reason, forged
    put(app, "std_1", good)
    assert rows(app) == ["std_1"]
    put(app, "", good)
    assert refused(app) == other


def test_a_seal_of_another_connection_is_refused(app: Connection, server: Server, database: str) -> None:
    with connect(server, database, "app", password=APP_PASSWORD) as other:
        put(app, "std_1", seal(other, "std_1"))
    assert refused(app) == "the seal is not of this tenant and connection"


def test_a_refusal_stands_in_the_servers_log_even_if_it_is_caught(shared: EmbeddedServer) -> None:
    with sealed_database(shared, "kit_logged") as name, connect(shared, name, "app") as app:
        put(app, "o'x", "1.first.17." + "0" * 64)
        app.execute("DO $$BEGIN PERFORM * FROM sealed; EXCEPTION WHEN OTHERS THEN NULL; END$$")
    line = "tenant context refused: the seal is not of this tenant and connection (tenant 'o''x', key 'first', role app)"
    assert line in shared.log()


def test_what_began_in_time_keeps_its_rows(app: Connection) -> None:
    put(app, "std_1", seal(app, "std_1", life=1))
    with app.transaction():
        assert rows(app) == ["std_1"]
        app.execute("SELECT pg_sleep(2.2)")
        assert rows(app) == ["std_1"], "the transaction began in time"
        app.execute("SAVEPOINT s")
        assert rows(app) == ["std_1"]
    assert refused(app) == "the seal has expired"


def test_a_procedure_that_commits_keeps_its_rows_too(app: Connection) -> None:
    app.execute(
        "CREATE OR REPLACE PROCEDURE slowly() LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(2.2); COMMIT;"
        " INSERT INTO drop_box SELECT count(*) FROM sealed; COMMIT; END$$"
    )
    put(app, "std_1", seal(app, "std_1", life=1))
    app.execute("CALL slowly()")
    assert rows(app, "DELETE FROM drop_box RETURNING note") == ["100"]


def test_keys_live_side_by_side_until_one_is_retired(app: Connection, admin: Connection) -> None:
    admin.execute("SELECT tiergate.store_key(%s, %s)", (OTHER_KEY, OTHER_SECRET))
    old, new = seal(app, "std_1"), seal(app, "std_1", key=OTHER_KEY, secret=OTHER_SECRET)
    for each in (old, new):
        put(app, "std_1", each)
        assert rows(app) == ["std_1"]
    admin.execute("UPDATE tiergate.seal_key SET retired_at = now() + interval '1 hour' WHERE id = %s", (KEY,))
    put(app, "std_1", old)
    assert rows(app) == ["std_1"], "not yet"
    admin.execute("UPDATE tiergate.seal_key SET retired_at = now() WHERE id = %s", (KEY,))
    assert refused(app) == "the key of the seal has been retired"
    put(app, "std_1", new)
    assert rows(app) == ["std_1"]
    admin.execute("SELECT tiergate.store_key(%s, %s)", (KEY, SECRET))
    put(app, "std_1", old)
    assert rows(app) == ["std_1"], "taken back"


def test_writing_is_held_to_the_tenant_as_well(app: Connection) -> None:
    put(app, "std_1", seal(app, "std_1"))
    with app.transaction(force_rollback=True):
        app.execute("INSERT INTO sealed VALUES (tiergate.current_tenant(), 1000, 'mine')")
    for write in (
        "INSERT INTO sealed VALUES ('std_2', 1000, 'x')",
        "UPDATE sealed SET tenant_id = 'std_2'",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            app.execute(write.encode())
    assert app.execute("UPDATE sealed SET item = 'x' WHERE tenant_id = 'std_2'").rowcount == 0
    assert app.execute("DELETE FROM sealed WHERE tenant_id = 'std_2'").rowcount == 0


# --- what the applications' role may not --------------------------------------------------------------


@pytest.mark.parametrize(
    "attempt",
    [
        "SELECT * FROM tiergate.seal_key",
        "COPY tiergate.seal_key TO STDOUT",
        "UPDATE tiergate.seal_key SET retired_at = NULL",
        "DELETE FROM tiergate.seal_key",
        "SELECT tiergate.store_key('mine', repeat('x', 40))",
        "SELECT tiergate.set_tenant_guc('my.tenant')",
        "CREATE TABLE tiergate.mine (x int)",
        "CREATE OR REPLACE FUNCTION tiergate.current_tenant() RETURNS text LANGUAGE sql AS 'SELECT 1::text'",
        "CREATE OR REPLACE FUNCTION tiergate.tenant_guc() RETURNS text LANGUAGE sql AS 'SELECT 1::text'",
        "ALTER FUNCTION tiergate.current_tenant() RESET ALL",
        "ALTER FUNCTION tiergate.current_tenant() SECURITY INVOKER",
        "DROP FUNCTION tiergate.current_tenant() CASCADE",
        "DROP SCHEMA tiergate CASCADE",
        "ALTER SCHEMA tiergate RENAME TO other",
        "ALTER TABLE sealed DISABLE ROW LEVEL SECURITY",
        "DROP POLICY own ON sealed",
    ],
)
def test_the_kit_is_out_of_the_applications_reach(app: Connection, attempt: str) -> None:
    """Though the role owns the database and may create things in it."""
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute(attempt.encode())


def test_nothing_of_a_key_is_seen_in_pg_stat_activity(app: Connection, admin: Connection) -> None:
    put(app, "std_1", seal(app, "std_1"))
    text = repr(admin.execute("SELECT * FROM pg_stat_activity").fetchall())
    assert SECRET not in text
    assert "1.first." not in text, "a seal is bound as well"


def test_it_installs_twice_and_keeps_its_keys_and_name(
    server: Server, database: str, admin: Connection
) -> None:
    before = admin.execute("SELECT id, inner_pad, created_at FROM tiergate.seal_key ORDER BY 1").fetchall()
    with admin.transaction(force_rollback=True):
        admin.execute("SELECT tiergate.set_tenant_guc('my.tenant')")
    install(server, database)
    assert (
        admin.execute("SELECT id, inner_pad, created_at FROM tiergate.seal_key ORDER BY 1").fetchall()
        == before
    )
    assert rows(admin, "SELECT tiergate.tenant_guc()") == ["app.tenant_id"]


def test_the_name_of_the_parameter_can_be_another(admin: Connection) -> None:
    with admin.transaction(force_rollback=True):
        admin.execute("SELECT tiergate.set_tenant_guc('my.o''tenant')")
        assert rows(admin, "SELECT tiergate.tenant_guc()") == ["my.o'tenant"]


def test_a_schema_that_somebody_else_made_is_not_trusted(server: Server) -> None:
    with connect(server, "postgres") as connection:
        connection.execute("CREATE DATABASE squatted OWNER app")
    try:
        with connect(server, "squatted", "app", password=APP_PASSWORD) as app:
            app.execute("CREATE SCHEMA tiergate")
        with pytest.raises(psycopg.errors.RaiseException, match="belongs to another role"):
            install(server, "squatted")
    finally:
        with connect(server, "postgres") as connection:
            connection.execute("DROP DATABASE squatted WITH (FORCE)")


# --- what it costs ----------------------------------------------------------------------------------


def plan(connection: Connection, query: str) -> str:
    return "\n".join(row[0] for row in connection.execute(f"EXPLAIN (ANALYZE, COSTS off) {query}".encode()))


def test_a_policy_uses_the_index_and_asks_once_a_statement(app: Connection) -> None:
    put(app, "std_1", seal(app, "std_1"))
    app.execute("SET enable_seqscan = off")
    for query in (
        "SELECT * FROM sealed",
        "SELECT * FROM sealed WHERE id = 3",
        "UPDATE sealed SET item = item WHERE id = 3",
    ):
        text = plan(app, query)
        assert "InitPlan 1" in text
        (index,) = [line for line in text.splitlines() if "Index Cond:" in line][:1]
        assert "tenant_id = " in index, text
        assert "current_tenant" not in text, "nothing calls it row by row"


def test_parallel_workers_are_given_the_tenant(app: Connection, admin: Connection) -> None:
    put(app, "std_1", seal(app, "std_1"))
    app.execute(
        "SET max_parallel_workers_per_gather = 2; SET min_parallel_table_scan_size = 0; SET parallel_setup_cost = 0;"
        " SET parallel_tuple_cost = 0; SET enable_indexscan = off; SET enable_indexonlyscan = off;"
        " SET enable_bitmapscan = off; SET parallel_leader_participation = off"
    )
    text = plan(app, "SELECT count(*) FROM sealed")
    assert "Gather" in text
    assert "InitPlan 1" in text
    assert rows(app, "SELECT count(*) FROM sealed") == [100]


def test_a_hot_standby_verifies_seals(victim: EmbeddedServer) -> None:
    with sealed_database(victim, "kit"):
        replica = victim.base_backup(victim.data_dir.with_name(f"{victim.data_dir.name}-replica"))
        try:
            with connect(replica, "kit", "app") as app:
                put(app, "std_1", seal(app, "std_1"))
                assert rows(app) == ["std_1"]
                with connect(victim, "kit", "app") as primary:
                    put(app, "std_1", seal(primary, "std_1"))
                assert refused(app) == "the seal is not of this tenant and connection"
        finally:
            replica.stop()


def test_over_a_unix_socket(shared: EmbeddedServer) -> None:
    """Where there is no port, the backend's start tells it from others."""
    with sealed_database(shared, "kit_unix") as name:
        where = {"host": str(shared.socket_dir), "port": shared.port, "dbname": name, "user": "app"}
        with (
            psycopg.connect(**where, autocommit=True) as app,
            psycopg.connect(**where, autocommit=True) as other,
        ):
            put(app, "std_1", seal(app, "std_1"))
            assert rows(app) == ["std_1"]
            assert len(rows(app, "SELECT tiergate.backend()")[0].split("/")) == 2
            put(app, "std_1", seal(other, "std_1"))
            assert refused(app) == "the seal is not of this tenant and connection"


def test_the_owner_need_not_be_a_superuser(server: Server) -> None:
    with connect(server, "postgres") as admin:
        admin.execute("CREATE ROLE kit_owner LOGIN PASSWORD 'kit-secret' IN ROLE pg_read_all_stats")
        admin.execute("CREATE DATABASE owned OWNER app")
        admin.execute("GRANT CREATE ON DATABASE owned TO kit_owner")
    try:
        with connect(server, "owned", "kit_owner", password="kit-secret") as owner:
            for _ in range(2):
                for script in scripts().values():
                    owner.execute(script.encode())
            owner.execute("SELECT tiergate.store_key(%s, %s)", (KEY, SECRET))
        with connect(server, "owned", "app", password=APP_PASSWORD) as app:
            put(app, "std_1", seal(app, "std_1"))
            assert rows(app, "SELECT tiergate.current_tenant()") == ["std_1"]
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                app.execute("TABLE tiergate.seal_key")
    finally:
        with connect(server, "postgres") as admin:
            admin.execute("DROP DATABASE owned WITH (FORCE)")
            admin.execute("DROP ROLE kit_owner")
