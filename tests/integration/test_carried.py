"""Parameters that servers do not report follow their session and no other, and pins end with their causes: asked of
PostgreSQL 18 and 15, with one server connection for all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.running import Proxy
from tests.integration.servers import DebianServer, connect
from tests.rawclient import SYNC, RawClient, ask, bind, execute, parse, query, rows, sqlstates
from tests.waiting import wait_until

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy

PID = "SELECT pg_backend_pid()"
SET_IN_SESSION = "SELECT name, setting FROM pg_settings WHERE source = 'session' ORDER BY name"


def tables(server: EmbeddedServer | DebianServer, size: int = 1) -> dict[str, dict[str, Any]]:
    return {
        "cluster.one": {"kind": "dedicated", "primary": f"127.0.0.1:{server.port}", "pool_size": size},
        "tenant.one": {"tier": "enterprise", "cluster": "one"},
        "user.app": {"password": "app-secret", "tenants": "*"},
        "user.postgres": {"tenants": "*"},
        "user.admin": {"password": "admin-secret", "tenants": "*"},
    }


@pytest.fixture(params=["shared", "tls_server"], scope="module")
def server(request: pytest.FixtureRequest) -> EmbeddedServer | DebianServer:
    """The older one does not report search_path."""
    server: EmbeddedServer | DebianServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture(scope="module")
def proxy(server: EmbeddedServer | DebianServer, start_module_proxy: StartProxy) -> Proxy:
    return start_module_proxy(
        tables(server), default_tenant="one", query_wait_timeout="5s", server_tls_sslmode="prefer"
    )


def user(proxy: Proxy, name: str = "app") -> RawClient:
    return proxy.raw(name)


def pins(proxy: Proxy) -> set[str]:
    return {str(row["pins"]) for row in proxy.console("SHOW CLIENTS") if row["pins"]}


def free(proxy: Proxy) -> None:
    """A client is answered before its server is asked what is left."""
    wait_until(lambda: pins(proxy) == set())


def done(client: RawClient, text: str) -> None:
    client.checked(client.query(text))


SETS = {
    "SET work_mem = '7MB'": ("work_mem", "7MB"),
    "SET statement_timeout = 12345": ("statement_timeout", "12345ms"),
    "SET lock_timeout TO '2s'; SELECT 1": ("lock_timeout", "2s"),
    "BEGIN; SET work_mem = '6MB'; COMMIT": ("work_mem", "6MB"),
    "SELECT set_config('work_mem', '8MB', false)": ("work_mem", "8MB"),
    "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE": (
        "default_transaction_isolation",
        "serializable",
    ),
    "SET search_path = pg_catalog, public": ("search_path", "pg_catalog, public"),
    "SET default_text_search_config = 'pg_catalog.german'": (
        "default_text_search_config",
        "pg_catalog.german",
    ),
    "SET own.thing = 'it''s \\ \"mine\"'": ("own.thing", 'it\'s \\ "mine"'),
    "SET ROLE app_reader": ("role", "app_reader"),
    "SET extra_float_digits = 0; SET bytea_output = 'escape'": ("bytea_output", "escape"),
}


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
@pytest.mark.parametrize("text", SETS)
def test_a_parameter_is_its_sessions_and_no_others(proxy: Proxy, text: str, extended: bool) -> None:
    name, value = SETS[text]
    show = f"SELECT coalesce(current_setting('{name}', true), '')"
    with user(proxy) as first, user(proxy) as second:
        before, pid = second.value(show), first.value(PID)
        if extended:
            done(first, "SELECT 1")
            first.checked(first.ask(b"".join(ask(part) for part in text.split("; ")) + SYNC))
        else:
            done(first, text)
        for _ in range(3):
            assert second.value(show) == before
            assert first.value(show) == value
        assert second.value(PID) == first.value(PID) == pid, "they share the only connection"
        free(proxy)
        first.close()
        assert second.value(show) == before
        assert [name for name, _ in second.rows(SET_IN_SESSION) if name not in ("app.tenant_id",)] == []


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
def test_the_limit_of_pg_trgm_is_its_sessions(
    proxy: Proxy, server: EmbeddedServer | DebianServer, extended: bool
) -> None:
    """A parameter that another function than set_config() sets."""
    with connect(server) as admin, user(proxy) as first, user(proxy) as second:
        admin.execute("CREATE EXTENSION pg_trgm")
        done(second, "SELECT set_limit(0.5)")
        first.checked(
            first.ask(ask("SELECT set_limit(0.75)") + SYNC if extended else query("SELECT set_limit(0.75)"))
        )
        for _ in range(2):
            assert second.value("SELECT show_limit()") == "0.5"
            assert first.value("SELECT show_limit()") == "0.75"
        with user(proxy) as third:
            assert third.value("SELECT show_limit()") == "0.3"
        free(proxy)
        admin.execute("DROP EXTENSION pg_trgm")


def test_names_that_are_bound_follow_too(proxy: Proxy) -> None:
    with user(proxy) as first, user(proxy) as second:
        before = second.value("SHOW work_mem")
        first.checked(first.ask(parse("SELECT set_config($1, $2, false)", "s") + SYNC))
        for value in ("7MB", "9MB"):
            first.checked(first.ask(bind(["Work_Mem", value], name="s") + execute() + SYNC))
            assert second.value("SHOW work_mem") == before
            assert first.value("SHOW work_mem") == value
        first.checked(first.ask(bind(["own.bound", "x"], name="s") + execute() + SYNC))
        assert second.value("SELECT coalesce(current_setting('own.bound', true), '')") == ""
        assert first.value("SHOW own.bound") == "x"
        free(proxy)


def test_what_only_the_database_owner_may_set_survives_a_role(proxy: Proxy) -> None:
    """It is set again before the role is taken, who might not set it."""
    with user(proxy, "postgres") as first, user(proxy, "postgres") as second:
        done(first, "SET log_statement = 'ddl'")
        done(first, "SET ROLE app_reader")
        for _ in range(2):
            assert second.rows("SELECT current_user, current_setting('log_statement')") == [
                ["postgres", "none"]
            ]
            assert first.rows("SELECT current_user, current_setting('log_statement')") == [
                ["app_reader", "ddl"]
            ]
        done(first, "SET work_mem = '7MB'")
        assert second.value("SELECT current_user") == "postgres"
        assert first.rows("SELECT current_user, current_setting('work_mem')") == [["app_reader", "7MB"]]
        done(second, "SET ROLE app")
        assert second.value("SELECT current_user") == "app"
        assert first.value("SELECT current_user") == "app_reader"
        done(first, "RESET ROLE")
        assert first.rows("SELECT current_user, current_setting('log_statement')") == [["postgres", "ddl"]]
        free(proxy)


def test_a_role_that_is_gone_fails_closed(proxy: Proxy, server: EmbeddedServer | DebianServer) -> None:
    with connect(server) as connection:
        connection.execute("DROP ROLE IF EXISTS fleeting; CREATE ROLE fleeting; GRANT fleeting TO app")
        with user(proxy) as first, user(proxy) as second:
            done(first, "SET ROLE fleeting")
            assert second.value("SELECT current_user") == "app"
            assert first.value("SELECT current_user") == "fleeting"
            assert second.value("SELECT current_user") == "app"
            connection.execute("DROP ROLE fleeting")
            answer = first.query("SELECT 'ran as somebody else'")
            assert rows(answer) == []
            assert sqlstates(answer) == ["22023"]
            assert second.value("SELECT current_user") == "app"


# Shadows of whatever is asked of the server, in a schema that goes before pg_catalog.
TRAP = """
DROP SCHEMA IF EXISTS trap CASCADE; CREATE SCHEMA trap; GRANT ALL ON SCHEMA trap TO PUBLIC;
CREATE FUNCTION trap.sprung() RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'sprung'; END$$;
CREATE FUNCTION trap.current_setting(text, boolean) RETURNS text LANGUAGE sql AS 'SELECT trap.sprung()';
CREATE FUNCTION trap.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS 'SELECT trap.sprung()';
CREATE FUNCTION trap.lower(text) RETURNS text LANGUAGE sql AS 'SELECT trap.sprung()';
CREATE FUNCTION trap.pg_backend_pid() RETURNS int LANGUAGE sql AS 'SELECT trap.sprung()::int';
CREATE FUNCTION trap.pg_my_temp_schema() RETURNS oid LANGUAGE sql AS 'SELECT trap.sprung()::oid';
CREATE FUNCTION trap.pg_listening_channels() RETURNS SETOF text LANGUAGE sql AS 'SELECT trap.sprung()';
CREATE FUNCTION trap.same(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT trap.sprung()::boolean';
CREATE FUNCTION trap.same(oid, oid) RETURNS boolean LANGUAGE sql AS 'SELECT trap.sprung()::boolean';
CREATE FUNCTION trap.same(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT trap.sprung()::boolean';
CREATE OPERATOR trap.= (leftarg = text, rightarg = text, procedure = trap.same);
CREATE OPERATOR trap.= (leftarg = oid, rightarg = oid, procedure = trap.same);
CREATE OPERATOR trap.= (leftarg = int, rightarg = int, procedure = trap.same);
CREATE VIEW trap.pg_settings AS SELECT trap.sprung() AS name, trap.sprung() AS source;
CREATE VIEW trap.pg_locks AS SELECT trap.sprung() AS locktype;
CREATE VIEW trap.pg_cursors AS SELECT trap.sprung() AS name;
CREATE DOMAIN trap.text AS pg_catalog.text CHECK (trap.sprung() IS NULL);
CREATE DOMAIN trap.oid AS pg_catalog.oid CHECK (trap.sprung() IS NULL);
"""


def test_what_is_asked_does_not_meet_the_clients_own(
    proxy: Proxy, server: EmbeddedServer | DebianServer
) -> None:
    with connect(server) as connection:
        connection.execute(TRAP)
    with user(proxy) as first, user(proxy) as second:
        done(first, "SET search_path = trap, pg_catalog")
        assert sqlstates(first.query("SELECT current_setting('a', true)")) == ["P0001"], "the trap works"
        done(first, "BEGIN; SET work_mem = '7MB'; SET lock_timeout = '3s'; COMMIT")
        done(first, "LISTEN a; SELECT pg_catalog.pg_advisory_lock(9); CREATE TEMP TABLE t ()")
        done(first, "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT")
        assert len(pins(proxy)) == 1
        done(first, "UNLISTEN a; SELECT pg_catalog.pg_advisory_unlock(9); DROP TABLE t; CLOSE c")
        free(proxy)
        assert second.value("SHOW work_mem") != "7MB"
        assert first.value("SHOW work_mem") == "7MB"


CAUSES = {
    "LISTEN": ("LISTEN heard", "UNLISTEN *", "SELECT count(*) FROM pg_listening_channels()"),
    "advisory lock": (
        "SELECT pg_advisory_lock(77)",
        "SELECT pg_advisory_unlock(77)",
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    ),
    "two locks": (
        "SELECT pg_advisory_lock(77), pg_advisory_lock_shared(78)",
        "SELECT pg_advisory_unlock_all()",
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    ),
    "temporary table": (
        "CREATE TEMP TABLE mine (n serial PRIMARY KEY, t text)",
        "DROP TABLE mine",
        "SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()",
    ),
    "temporary function": (
        "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "DROP FUNCTION pg_temp.f()",
        "SELECT count(*) FROM pg_proc WHERE pronamespace = pg_my_temp_schema()",
    ),
    "DISCARD TEMP": (
        "CREATE TEMP TABLE mine AS SELECT 1 AS n",
        "DISCARD TEMP",
        "SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()",
    ),
    "cursor": (
        "BEGIN; DECLARE held CURSOR WITH HOLD FOR SELECT 1; COMMIT",
        "CLOSE ALL",
        "SELECT count(*) FROM pg_cursors",
    ),
    "another user": (
        "SET SESSION AUTHORIZATION app_reader; SET work_mem = '5MB'",
        "RESET SESSION AUTHORIZATION; RESET work_mem",
        "SELECT session_user, current_user, current_setting('work_mem')",
    ),
}


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
@pytest.mark.parametrize("cause", CAUSES)
def test_a_pin_ends_with_its_cause(
    proxy: Proxy, server: EmbeddedServer | DebianServer, cause: str, extended: bool
) -> None:
    begins, ends, question = CAUSES[cause]
    with user(proxy, "postgres") as first, user(proxy, "postgres") as second:
        before = second.rows(question)
        pid = second.value(PID)
        done(first, begins)
        assert len(pins(proxy)) == 1
        assert first.rows(question) != before
        second.send(query(question))
        assert second.nothing_to_read(0.1), "the only connection is the first one's"
        if extended:
            first.checked(first.ask(b"".join(ask(part) for part in ends.split("; ")) + SYNC))
        else:
            done(first, ends)
        assert rows(second.checked(second.read_ready())) == before
        free(proxy)
        assert second.value(PID) == pid, "it has been given back, not closed"
        done(first, begins.replace("mine", "mine2").replace("pg_temp.f", "pg_temp.f2"))
        assert len(pins(proxy)) == 1
    free(proxy)
    with user(proxy, "postgres") as third:
        assert third.rows(question) == before, "and one that leaves with its pin leaves nothing"


def test_what_never_came_to_be_does_not_pin(proxy: Proxy) -> None:
    with user(proxy) as first, user(proxy) as second:
        for text in (
            "BEGIN; LISTEN heard; ROLLBACK",
            "CREATE TEMP TABLE mine (n no_such_type)",
            "CREATE TEMP TABLE mine (n int); SELECT 1 / 0",
            "SELECT pg_try_advisory_lock(5), pg_advisory_unlock(5)",
            "BEGIN; DECLARE held CURSOR WITH HOLD FOR SELECT 1; ROLLBACK",
        ):
            first.query(text)
            assert second.value("SELECT 'free'") == "free"
            free(proxy)


def test_a_lock_that_is_left_keeps_the_pin(proxy: Proxy) -> None:
    with user(proxy) as first:
        done(first, "SELECT pg_advisory_lock(1), pg_advisory_lock(1), pg_advisory_lock(2)")
        for key, left in ((1, 1), (2, 1), (1, 0)):
            done(first, f"SELECT pg_advisory_unlock({key})")
            wait_until(lambda left=left: len(pins(proxy)) == left)


def test_a_timeout_that_strikes_all_there_is(proxy: Proxy) -> None:
    """Whatever becomes of the question, the session goes on, and nobody else meets its timeout."""
    with user(proxy) as first, user(proxy) as second:
        for _ in range(10):
            done(first, "SET statement_timeout = 1")
            assert sqlstates(first.query("SELECT pg_sleep(1)")) == ["57014"]
            first.query("RESET statement_timeout")
            assert first.value("SHOW statement_timeout") == "0"
            assert second.value("SHOW statement_timeout") == "0"
        free(proxy)


def test_what_would_end_an_idle_connection_stays_with_it(proxy: Proxy) -> None:
    with user(proxy) as first, user(proxy) as second:
        done(first, "SET idle_session_timeout = '100s'")
        assert len(pins(proxy)) == 1
        done(first, "DISCARD ALL")
        assert second.value("SHOW idle_session_timeout") == "0"


def test_many_sessions_each_with_values_of_its_own(
    server: EmbeddedServer | DebianServer, start_proxy: StartProxy
) -> None:
    proxy = start_proxy(tables(server, 2), default_tenant="one", server_tls_sslmode="prefer")
    clients = [user(proxy) for _ in range(6)]
    for turn in range(8):
        for number, client in enumerate(clients):
            done(
                client,
                f"BEGIN; SET own.who = 'client {number}, {turn}'; SET work_mem = '{number + 2}MB'; COMMIT",
            )
        for number, client in reversed([*enumerate(clients)]):
            done(client, f"BEGIN; SET own.who = 'nobody'; SET work_mem = '{number + 40}MB'; ROLLBACK")
            assert client.rows("SELECT current_setting('own.who'), current_setting('work_mem')") == [
                [f"client {number}, {turn}", f"{number + 2}MB"]
            ]
    free(proxy)
    for client in clients:
        client.close()
