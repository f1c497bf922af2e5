"""Rules on SQL through the proxy, on real servers: what is refused, how the session goes on, and what gets past."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.integration.running import configuration
from tests.integration.servers import connect
from tests.rawclient import (
    SYNC,
    RawClient,
    ServerError,
    ask,
    bind,
    close,
    errors,
    execute,
    function_call,
    kinds,
    parse,
    query,
    rows,
    sqlstates,
)

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy

Tables = dict[str, dict[str, Any]]
Connection = psycopg.Connection[Any]

RULES = {
    "max_joins": 3,
    "max_statements": 4,
    "max_statement_size": "20kB",
    "forbidden_statements": ["Truncate", "create  function", "copy program", "lock", "drop"],
    "locked_parameters": ["Work_Mem", "statement_timeout", "DateStyle"],
    "parameters": {"work_mem": "5MB", "statement_timeout": "20s", "DateStyle": "ISO, YMD"},
}
PLANTED = """
CREATE TABLE kept (x int);
INSERT INTO kept VALUES (1);
GRANT ALL ON kept TO PUBLIC;
CREATE FUNCTION writes() RETURNS void LANGUAGE sql AS 'INSERT INTO kept VALUES (2)';
CREATE FUNCTION opens_and_writes() RETURNS void LANGUAGE plpgsql AS
    $$BEGIN PERFORM set_config('transaction_read_only', 'off', true); INSERT INTO kept VALUES (2); END$$;
CREATE FUNCTION opens() RETURNS text LANGUAGE sql AS $$SELECT set_config('default_transaction_read_only', 'off', false)$$;
CREATE PROCEDURE commits_and_writes() LANGUAGE plpgsql AS
    $$BEGIN COMMIT; SET TRANSACTION READ WRITE; INSERT INTO kept VALUES (2); END$$;
"""
UNPLANTED = """
DROP TABLE kept;
DROP FUNCTION writes, opens_and_writes, opens;
DROP PROCEDURE commits_and_writes;
"""


def with_rules(tables: Tables, **changes: Any) -> Tables:
    return tables | {
        "tier.standard": RULES | changes,
        "tenant.std_2": tables["tenant.std_2"] | {"max_joins": 5, "locked_parameters": []},
        "tier.free": {"read_only": True},
        "cluster.shared": tables["cluster.shared"] | {"pool_size": 2},
    }


@pytest.fixture(scope="module")
def planted(shared: EmbeddedServer) -> Iterator[None]:
    with connect(shared) as connection:
        connection.execute(PLANTED)
        yield
        connection.execute(
            "SET lock_timeout = '10s'"
        )  # of a client that a failed test has left in a transaction
        connection.execute(UNPLANTED)


@pytest.fixture(scope="module")
def proxy(start_module_proxy: StartProxy, all_tiers: Tables, planted: None) -> Proxy:
    return start_module_proxy(with_rules(all_tiers))


@pytest.fixture(scope="module")
def in_session_mode(start_module_proxy: StartProxy, all_tiers: Tables, planted: None) -> Proxy:
    return start_module_proxy(with_rules(all_tiers), pool_mode="session")


def joined(count: int) -> str:
    return "SELECT count(*) FROM where_am_i a0" + "".join(f", where_am_i a{n + 1}" for n in range(count))


def one(connection: Connection, sql: str) -> Any:
    row = connection.execute(sql).fetchone()
    assert row is not None
    return row[0]


def failure(client: RawClient, frames: bytes) -> tuple[str, str]:
    client.send(frames)
    answer = client.read_ready()
    (error,) = errors(answer)
    return error["C"], error["M"]


# --- the numbers ------------------------------------------------------------------------------------


def test_a_wide_join_is_refused_and_the_session_goes_on(proxy: Proxy) -> None:
    with proxy.connect("app@std_1") as connection:
        assert one(connection, joined(3)) == 1
        with pytest.raises(psycopg.errors.FeatureNotSupported) as caught:
            connection.execute(joined(4))
        assert caught.value.diag.message_primary == (
            'the statement has 4 joins; tier "standard" allows 3 (max_joins)'
        )
        assert one(connection, "SELECT 1") == 1


def test_a_tenant_may_be_allowed_more(proxy: Proxy) -> None:
    with proxy.connect("app@std_2") as connection:
        assert one(connection, joined(5)) == 1
        with pytest.raises(psycopg.errors.FeatureNotSupported, match='6 joins; tenant "std_2" allows 5'):
            connection.execute(joined(6))
    with proxy.connect("app@ent_1") as connection:
        assert one(connection, joined(7)) == 1


@pytest.mark.parametrize("way", ["simple", "extended", "prepare", "explain", "declare"])
def test_a_transaction_fails_as_it_would_by_an_error_of_the_servers(proxy: Proxy, way: str) -> None:
    client = proxy.raw(user="app@std_1")
    client.query("BEGIN")
    sql = {"prepare": "PREPARE p AS ", "explain": "EXPLAIN ", "declare": "DECLARE c CURSOR FOR "}.get(way, "")
    frames = ask(joined(4)) + SYNC if way == "extended" else query(sql + joined(4))
    assert failure(client, frames)[0] == "0A000"
    assert failure(client, query("SELECT 1"))[0] == "25P02"
    assert kinds(client.query("ROLLBACK")) == "CZ"
    assert rows(client.query("SELECT 1")) == [["1"]]


def test_a_savepoint_saves_the_transaction(proxy: Proxy) -> None:
    with proxy.connect("app@std_1", autocommit=False) as connection:
        connection.execute("SELECT 1")
        with pytest.raises(psycopg.errors.FeatureNotSupported), connection.transaction():
            connection.execute(joined(4))
        assert one(connection, "SELECT 2") == 2


def test_what_stands_behind_a_refused_parse_is_skipped(proxy: Proxy) -> None:
    client = proxy.raw(user="app@std_1")
    client.send(ask("SELECT 1") + ask(joined(4)) + ask("SELECT 2") + SYNC + ask("SELECT 3") + SYNC)
    answer = client.read_ready() + client.read_ready()
    assert rows(answer) == [["1"], ["3"]]
    assert sqlstates(answer) == ["0A000"]


def test_postgresql_says_itself_what_is_no_sql(proxy: Proxy) -> None:
    for tenant in ("std_1", "free_1"):
        with proxy.connect(f"app@{tenant}") as connection:
            for sql in ("SELECT FROM WHERE a JOIN b JOIN c JOIN d JOIN e (", "SELEC 1", "INSERT INTO"):
                with pytest.raises(psycopg.errors.SyntaxError):
                    connection.execute(sql)
            with pytest.raises(psycopg.errors.UndefinedTable):
                connection.execute("SELECT * FROM nowhere")


def test_statements_and_size(proxy: Proxy) -> None:
    client = proxy.raw(user="app@std_1")
    assert rows(client.query("SELECT 1; SELECT 2; SELECT ';'; SELECT 4;")) == [["1"], ["2"], [";"], ["4"]]
    assert failure(client, query("SELECT 1;" * 5)) == (
        "0A000",
        'the text has 5 statements; tier "standard" allows 4 (max_statements)',
    )
    for size in (21_000, 900_000, 3_000_000):
        long = "SELECT 1 --" + "x" * size
        for frames in (query(long), ask(long) + SYNC):
            assert failure(client, frames) == (
                "0A000",
                f'the statement has {len(long)} bytes; tier "standard" allows 20480 (max_statement_size)',
            )
        assert rows(client.query("SELECT 1")) == [["1"]]
    client.send(ask("SELECT length($1)", ["x" * 3_000_000]) + SYNC)
    assert rows(client.read_ready()) == [["3000000"]]


# --- forbidden statements ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "name"),
    [
        ("TRUNCATE kept", "TRUNCATE"),
        ("/* x */ tRUNCATE/**/kept", "TRUNCATE"),
        ("SELECT 1; TRUNCATE kept", "TRUNCATE"),
        ("DO $$ BEGIN TRUNCATE kept; END $$", "TRUNCATE within a function or block"),
        ("COPY kept FROM PROGRAM 'echo 2'", "COPY PROGRAM"),
        ("LOCK kept", "LOCK"),
        ("DROP TABLE kept", "DROP"),
        ("DROP FUNCTION writes", "DROP"),
        ("CREATE OR REPLACE FUNCTION f() RETURNS int RETURN 1", "CREATE FUNCTION"),
    ],
)
def test_forbidden_statements(proxy: Proxy, sql: str, name: str) -> None:
    client = proxy.raw(user="app@std_1")
    expected = ("0A000", f'{name} is forbidden for tier "standard" (forbidden_statements)')
    assert failure(client, query(sql)) == expected
    if ";" not in sql or "$$" in sql:
        assert failure(client, ask(sql) + SYNC) == expected
    assert rows(client.query("SELECT 1 AS truncate, 'drop table kept'")) == [["1", "drop table kept"]]


def test_what_is_near_to_it_runs(proxy: Proxy) -> None:
    with proxy.connect("app@std_1") as connection:
        connection.execute("INSERT INTO notes VALUES (7, 'drop')")
        connection.execute("DELETE FROM notes WHERE id = 7")
        with connection.cursor().copy("COPY where_am_i TO STDOUT") as copy:
            assert list(copy)


# --- locked parameters ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "SET work_mem = '1GB'",
        "SET \"WORK_MEM\" TO '1GB'",
        "SET U&\"work\\005fmem\" = '1GB'",
        "BEGIN; SET LOCAL work_mem = '1GB'; SHOW work_mem",
        "SELECT set_config('work_mem', '1GB', false)",
        "SELECT set_config(E'w\\x6frk_mem', '1GB', false)",
        "SELECT set_config('work' || '_mem', '1GB', false)",
        "DO $$ BEGIN SET work_mem = '1GB'; END $$",
        "DO $$ BEGIN EXECUTE 'SET work' || '_mem = ''1GB'''; END $$",
        "UPDATE pg_settings SET setting = '999999' WHERE name = 'work_mem'",
        "ALTER ROLE app SET work_mem = '1GB'",
        "ALTER ROLE CURRENT_USER IN DATABASE appdb SET work_mem = '1GB'",
        "ALTER ROLE app RESET ALL",
        "ALTER DATABASE appdb SET work_mem = '1GB'",
        "CREATE PROCEDURE p() LANGUAGE sql SET work_mem = '1GB' AS ''",
        "SET statement_timeout = 0",
        "SET datestyle = 'German'",
        "RESET ALL; SHOW work_mem",
        "SET work_mem TO DEFAULT; SHOW work_mem",
        "SELECT query_to_xml('SET work_mem = ''1GB''', true, true, '')",
    ],
)
def test_a_locked_parameter_keeps_its_value(proxy: Proxy, sql: str) -> None:
    client = proxy.raw(user="app@std_1")
    code, message = failure(client, query(sql))
    assert code == "42501", message
    if client.status != "I":
        client.query("ROLLBACK")
    assert client.value("SHOW work_mem") == "5MB"
    assert client.value("SHOW statement_timeout") == "20s"
    assert client.value("SHOW datestyle") == "ISO, YMD"


def test_resets_go_back_to_what_the_tier_says(proxy: Proxy) -> None:
    client = proxy.raw(user="app@std_1")
    for sql in (
        "RESET work_mem",
        "RESET ALL",
        "DISCARD ALL",
        "SET work_mem TO DEFAULT",
        "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;",
    ):
        assert not errors(client.query(sql)), sql
        assert client.value("SHOW work_mem") == "5MB", sql
    client.send(ask("RESET ALL") + ask("SHOW work_mem") + SYNC)
    assert rows(client.read_ready()) == [["5MB"]]


def test_a_function_call_does_not_change_it(proxy: Proxy) -> None:
    client = proxy.raw(user="app@std_1")
    assert failure(client, function_call(2078, b"work_mem", b"1GB", b"f"))[0] == "42501"
    assert client.value("SHOW work_mem") == "5MB"


@pytest.mark.parametrize("way", ["options", "parameter"])
def test_a_startup_packet_does_not_either(proxy: Proxy, way: str) -> None:
    said = {"options": "-c Work_Mem=1GB"} if way == "options" else {"work_mem": "1GB"}
    with pytest.raises(ServerError) as caught:
        proxy.raw(user="app@std_1", parameters=said)
    assert caught.value.sqlstate == "42501"
    assert (
        caught.value.message
        == 'parameter "work_mem" cannot be changed: locked by tier "standard" (locked_parameters)'
    )


def test_a_tenant_may_be_given_the_key(proxy: Proxy) -> None:
    with proxy.connect("app@std_2") as connection, connection.transaction():
        connection.execute("SET LOCAL work_mem = '9MB'")
        assert one(connection, "SHOW work_mem") == "9MB"


# --- read_only --------------------------------------------------------------------------------------

WRITES = [
    "INSERT INTO kept VALUES (2)",
    "UPDATE kept SET x = 2",
    "DELETE FROM kept",
    "MERGE INTO kept USING (SELECT 1) s ON false WHEN NOT MATCHED THEN INSERT VALUES (2)",
    "TRUNCATE kept",
    "WITH w AS (INSERT INTO kept VALUES (2) RETURNING x) SELECT * FROM w",
    "EXPLAIN ANALYZE INSERT INTO kept VALUES (2)",
    "PREPARE w AS INSERT INTO kept VALUES (2)",
    "COPY (INSERT INTO kept VALUES (2) RETURNING x) TO STDOUT",
    "COPY kept FROM STDIN",
    "CREATE TABLE made (x int)",
    "CREATE TEMP TABLE made (x int)",
    "SELECT 1 INTO made",
    "CREATE TABLE made AS SELECT 1",
    "DO $$ BEGIN INSERT INTO kept VALUES (2); END $$",
    "DO $$ BEGIN COMMIT; SET TRANSACTION READ WRITE; INSERT INTO kept VALUES (2); END $$",
    "CALL commits_and_writes()",
    "SELECT writes()",
    "SELECT opens_and_writes()",
    "BEGIN READ WRITE; SELECT writes(); COMMIT",
    "BEGIN; SET TRANSACTION READ WRITE; SELECT writes(); COMMIT",
    "BEGIN; SET transaction_read_only = off; SELECT writes(); COMMIT",
    "BEGIN; SELECT set_config('transaction_read_only', 'off', true); SELECT writes(); COMMIT",
    "SET default_transaction_read_only = off; SELECT writes()",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE; SELECT writes()",
    'SET U&"default\\005ftransaction_read_only" = off; SELECT writes()',
    "SELECT set_config('default_transaction_' || 'read_only', 'off', false)",
    "RESET ALL; SELECT writes()",
    "RESET default_transaction_read_only; COMMIT; SELECT writes()",
    "ALTER ROLE app SET default_transaction_read_only = off",
    "SELECT query_to_xml('SET default_transaction_read_only = off', true, true, '')",
    "UPDATE pg_settings SET setting = 'off' WHERE name = 'default_transaction_read_only'",
]


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_read_only_tenant_writes_nothing(
    proxy: Proxy, in_session_mode: Proxy, shared: EmbeddedServer, mode: str
) -> None:
    client = (proxy if mode == "transaction" else in_session_mode).raw(user="app@free_1")
    ends = {}
    for sql in WRITES:
        for frames in (query(sql), ask(sql) + SYNC) if ";" not in sql else (query(sql),):
            code, _ = failure(client, frames)
            ends.setdefault(sql, set()).add(code)
            if client.status != "I":
                client.query("ROLLBACK")
            assert client.value("SHOW transaction_read_only") == "on", sql
    by_the_server = {sql for sql, codes in ends.items() if codes == {"25006"}}
    assert by_the_server == {"SELECT writes()"}
    assert ends["SELECT opens_and_writes()"] == {"25001"}
    assert {code for codes in ends.values() for code in codes} == {"0A000", "42501", "25001", "25006"}
    with connect(shared) as connection:
        assert connection.execute("SELECT x FROM kept").fetchall() == [(1,)]
        assert one(connection, "SELECT to_regclass('made')") is None


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_read_only_tenant_reads(proxy: Proxy, in_session_mode: Proxy, mode: str) -> None:
    client = (proxy if mode == "transaction" else in_session_mode).raw(user="app@free_1")
    for sql in (
        "SELECT * FROM kept",
        "BEGIN READ ONLY; SELECT 1; COMMIT",
        "START TRANSACTION ISOLATION LEVEL SERIALIZABLE; DECLARE c CURSOR FOR TABLE kept; FETCH c; ROLLBACK",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SET default_transaction_read_only TO on",
        "SET work_mem = '7MB'",
        "EXPLAIN ANALYZE SELECT * FROM kept",
        "COPY kept TO STDOUT",
        "RESET ALL",
        "RESET default_transaction_read_only",
        "DISCARD ALL",
    ):
        assert not errors(client.query(sql)), sql
        assert failure(client, query("SELECT writes()"))[0] == "25006", sql


def test_a_function_that_opens_the_session_does_so_only_till_the_next_checkout(
    proxy: Proxy, shared: EmbeddedServer
) -> None:
    client = proxy.raw(user="app@free_1")
    assert not errors(client.query("SELECT opens()"))
    assert failure(client, query("SELECT writes()"))[0] == "25006"
    with connect(shared) as connection:
        assert connection.execute("SELECT x FROM kept").fetchall() == [(1,)]


def test_others_on_the_same_connections_write(proxy: Proxy) -> None:
    reader, writer = proxy.raw(user="app@free_1"), proxy.raw(user="app@std_1")
    for _ in range(4):
        assert failure(reader, query("SELECT writes()"))[0] == "25006"
        assert kinds(writer.query("UPDATE where_am_i SET name = name")) == "CZ"
        assert writer.value("SHOW default_transaction_read_only") == "off"
        assert writer.value("SHOW work_mem") == "5MB"
        assert reader.value("SHOW work_mem") != "5MB"


def test_a_read_only_tenant_has_no_logical_replication(proxy: Proxy) -> None:
    with pytest.raises(ServerError, match="its SQL has rules"):
        proxy.raw("replicator@free_1", parameters={"replication": "database"})


# --- who says in SQL for which tenant ----------------------------------------------------------------


@pytest.fixture(scope="module")
def lobby(start_module_proxy: StartProxy, all_tiers: Tables, planted: None) -> Proxy:
    tables = with_rules(all_tiers)
    return start_module_proxy(
        tables | {"user.app": tables["user.app"] | {"tenants": ["std_1", "free_1", "ent_1"]}}
    )


def test_the_rules_are_those_of_the_tenant_that_is_spoken_for(lobby: Proxy) -> None:
    client = lobby.raw(user="app")
    client.send(parse(joined(4), "wide") + SYNC)
    assert sqlstates(client.read_ready()) == ["42501"]  # no tenant has been chosen
    for _ in range(2):
        assert not errors(client.query("SET app.tenant_id = 'ent_1'"))
        client.send(parse(joined(4), "wide") + bind(name="wide") + execute() + close("S", "wide") + SYNC)
        assert rows(client.read_ready()) == [["1"]]
        assert not errors(client.query("SET app.tenant_id = 'std_1'"))
        assert failure(client, query(joined(4)))[0] == "0A000"
        assert failure(client, query("SET work_mem = '1GB'"))[0] == "42501"
        assert client.value("SHOW work_mem") == "5MB"
        assert not errors(client.query("SET app.tenant_id = 'free_1'"))
        assert failure(client, query("SELECT writes()"))[0] == "25006"
        assert failure(client, query("INSERT INTO kept VALUES (2)"))[0] == "0A000"
        assert not errors(client.query("RESET app.tenant_id"))


def test_a_statement_that_one_tenant_has_prepared_is_not_run_for_another_that_may_not(lobby: Proxy) -> None:
    client = lobby.raw(user="app")
    client.query("SET app.tenant_id = 'ent_1'")
    client.send(parse(joined(4), "wide") + SYNC)
    assert not errors(client.read_ready())
    client.query("SET app.tenant_id = 'std_1'")
    assert failure(client, bind(name="wide") + execute() + SYNC)[0] == "0A000"


@pytest.mark.parametrize(
    "begin",
    [
        ["BEGIN READ WRITE"],
        ["START TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ WRITE"],
        ["BEGIN", "SET TRANSACTION READ WRITE"],
        ["BEGIN", "SAVEPOINT a", "SET transaction_read_only = off"],
    ],
)
@pytest.mark.parametrize("when", ["before", "within", "both"])
def test_a_block_that_was_begun_for_nobody_is_not_opened_for_a_read_only_tenant(
    lobby: Proxy, shared: EmbeddedServer, begin: list[str], when: str
) -> None:
    client = lobby.raw(user="app")
    if when != "within":
        client.query("SET app.tenant_id = 'free_1'")
    codes = []
    for sql in (
        *begin,
        *(["SET LOCAL app.tenant_id = 'free_1'"] if when != "before" else []),
        "SELECT writes()",
    ):
        codes += sqlstates(client.query(sql))
    assert codes
    assert set(codes) <= {"0A000", "42501", "25001", "25006", "25P02"}, codes
    client.query("ROLLBACK")
    assert client.status == "I"
    with connect(shared) as connection:
        assert connection.execute("SELECT x FROM kept").fetchall() == [(1,)]


# --- a reload ---------------------------------------------------------------------------------------


def test_a_reload_holds_from_the_next_transaction_on(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(all_tiers)
    client = proxy.raw(user="app@std_1")
    client.query("BEGIN")
    proxy.reload(configuration(with_rules(all_tiers), listen_port=proxy.port))
    assert not errors(client.query(joined(4)))
    client.query("COMMIT")
    assert failure(client, query(joined(4)))[0] == "0A000"
    assert client.value("SHOW work_mem") == "5MB"
    proxy.reload(configuration(with_rules(all_tiers, max_joins=4), listen_port=proxy.port))
    assert not errors(client.query(joined(4)))
    proxy.reload(configuration(all_tiers, listen_port=proxy.port))
    assert not errors(client.query("SET work_mem = '7MB'"))
    assert client.value("SHOW work_mem") == "7MB"


# --- what operators see -----------------------------------------------------------------------------


def test_what_the_console_shows(proxy: Proxy) -> None:
    rules = {row["name"]: row["sql_rules"] for row in proxy.console("SHOW TENANTS")}
    assert rules["ent_1"] == ""
    assert rules["free_1"] == "read_only = true"
    assert rules["std_2"] is not None
    assert rules["std_2"].startswith(
        "max_joins = 5; max_statements = 4; max_statement_size = 20480; forbidden"
    )
    tiers = {row["name"]: row["sql_rules"] for row in proxy.console("SHOW TIERS")}
    assert tiers["free"] == "read_only = true"
    assert tiers["vip"] == ""
    route = {row["step"]: (row["value"], row["reason"]) for row in proxy.console("SHOW ROUTE std_2")}
    assert route["max_joins"] == ("5", 'said by tenant "std_2"')
    assert route["max_statements"] == ("4", 'said by tier "standard"')


def test_refusals_are_counted_by_their_sqlstate(proxy: Proxy) -> None:
    client = proxy.raw(user="app@std_1")
    account = next(a for a in proxy.worker.plane.accounts if a.tenant.name == "std_1")
    before = dict(account.stats.errors)
    failure(client, query(joined(4)))
    failure(client, query("SET work_mem = 1"))
    changes = {
        code: n - before.get(code, 0) for code, n in account.stats.errors.items() if n != before.get(code, 0)
    }
    assert changes == {"0A000": 1, "42501": 1}
