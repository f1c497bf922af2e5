"""Nothing of a session is seen by the next one on the same server connection."""

from __future__ import annotations

import itertools
import random
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.integration.servers import connect
from tests.integration.tables import one_connection
from tests.rawclient import (
    SYNC,
    Closed,
    RawClient,
    ask,
    bind,
    describe,
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
TENANT = "SELECT current_setting('app.tenant_id', true)"


@pytest.fixture(params=["transaction", "session"])
def proxy(request: pytest.FixtureRequest, start_proxy: StartProxy, all_tiers: Tables) -> Proxy:
    return start_proxy(one_connection(all_tiers, request.param))


@pytest.fixture
def pooled(start_proxy: StartProxy, all_tiers: Tables) -> Proxy:
    """Transaction mode with one server connection."""
    return start_proxy(one_connection(all_tiers))


def setting(client: RawClient, name: str) -> str | None:
    return client.value(f"SELECT current_setting('{name}', true)")


# What a session leaves, and a question whose answer would show it to the next one.
TRACES = {
    "reported": ("SET DateStyle = 'German'", "SHOW DateStyle"),
    "reported by function": ("SELECT set_config('IntervalStyle', 'iso_8601', false)", "SHOW IntervalStyle"),
    "application_name": ("SET application_name = 'someone'", "SHOW application_name"),
    "unreported": ("SET work_mem = '7MB'", "SHOW work_mem"),
    "unreported by function": ("SELECT set_config('work_mem', '9MB', false)", "SHOW work_mem"),
    "placeholder": ("SET my.secret = 'mine'", "SELECT coalesce(current_setting('my.secret', true), '')"),
    "search_path": ("SET search_path = pg_catalog", "SHOW search_path"),
    "statement_timeout": ("SET statement_timeout = 12345", "SHOW statement_timeout"),
    "characteristics": (
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SHOW default_transaction_read_only",
    ),
    "time zone": ("SET TIME ZONE 'Asia/Tokyo'", "SHOW TimeZone"),
    "names": ("SET NAMES 'LATIN1'", "SHOW client_encoding"),
    "role": ("SET ROLE app_reader", "SELECT current_user::text || current_setting('role')"),
    "temporary table": (
        "CREATE TEMP TABLE mine (x int)",
        "SELECT count(*) FROM pg_class WHERE relname = 'mine'",
    ),
    "temporary table by SELECT": (
        "SELECT 1 AS x INTO TEMP mine",
        "SELECT count(*) FROM pg_class WHERE relname = 'mine'",
    ),
    "temporary view": (
        "CREATE TEMP VIEW mine AS SELECT 1",
        "SELECT count(*) FROM pg_class WHERE relname = 'mine'",
    ),
    "SQL PREPARE": (
        "PREPARE mine AS SELECT 1",
        "SELECT count(*) FROM pg_prepared_statements WHERE name = 'mine'",
    ),
    "advisory lock": (
        "SELECT pg_advisory_lock(4711)",
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711",
    ),
    "shared advisory lock": (
        "SELECT pg_try_advisory_lock_shared(4711)",
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711",
    ),
    "LISTEN": ("LISTEN mine", "SELECT count(*) FROM pg_listening_channels()"),
    "cursor": (
        "DECLARE mine CURSOR WITH HOLD FOR SELECT 1",
        "SELECT count(*) FROM pg_cursors WHERE name = 'mine'",
    ),
    "lock inside DO": (
        "DO $$BEGIN PERFORM pg_advisory_lock(4711); END$$",
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711",
    ),
    "setting in a transaction": ("BEGIN; SET work_mem = '6MB'; COMMIT", "SHOW work_mem"),
    "setting with SET LOCAL": ("BEGIN; SET LOCAL work_mem = '6MB'; COMMIT", "SHOW work_mem"),
    "currval": ("SELECT setval('one_sequence', 42)", None),
    "session authorization": ("SET SESSION AUTHORIZATION DEFAULT", "SELECT session_user::text"),
    "seed": ("SELECT setseed(0.5)", "SELECT count(*) FROM pg_cursors"),
}


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
@pytest.mark.parametrize("trace", [name for name, (_, question) in TRACES.items() if question])
def test_nothing_is_left(proxy: Proxy, trace: str, extended: bool) -> None:
    act, question = TRACES[trace]
    assert question is not None
    first = proxy.raw()
    before, pid = first.value(question), first.value(PID)
    if extended:
        for part in act.split("; ") if act.startswith("BEGIN") else [act]:
            first.checked(first.ask(ask(part) + SYNC))
    else:
        first.checked(first.query(act))
    first.close()
    second = proxy.raw("app@std_2")
    assert second.value(question) == before
    if trace == "lock inside DO":  # what could not be inspected is not lent again
        assert second.value(PID) != pid
    else:
        assert second.value(PID) == pid, "another connection shows nothing"


@pytest.mark.parametrize(
    "trace",
    [
        "reported",
        "reported by function",
        "application_name",
        "unreported",
        "unreported by function",
        "placeholder",
        "search_path",
        "statement_timeout",
        "time zone",
        "characteristics",
        "names",
        "SQL PREPARE",
    ],
)
def test_nothing_is_seen_meanwhile_and_the_own_stays(
    start_proxy: StartProxy, all_tiers: Tables, trace: str
) -> None:
    """Two sessions that live at the same time on at most two connections."""
    proxy = start_proxy(one_connection(all_tiers, size=2))
    act, question = TRACES[trace]
    assert question is not None
    first, second = proxy.raw(), proxy.raw("app@std_2")
    before = second.value(question)
    first.checked(first.query(act))
    mine = first.value(question)
    assert mine != before
    for _ in range(4):
        assert second.value(question) == before
        assert first.value(question) == mine
        assert second.prepared(question) == [[before]]
        assert first.prepared(question) == [[mine]]


def test_statements_by_message(pooled: Proxy) -> None:
    """The same name means each session's own statement, on one server connection."""
    first, second = pooled.raw(), pooled.raw("app@std_2")
    first.checked(first.ask(parse("SELECT 'first'", "s") + SYNC))
    assert sqlstates(second.ask(bind(name="s") + execute() + SYNC)) == ["26000"]
    second.checked(second.ask(parse("SELECT 'second', $1::int", "s") + SYNC))
    assert first.value(PID) == second.value(PID)
    for n in range(3):
        assert rows(first.ask(bind(name="s") + execute() + SYNC)) == [["first"]]
        assert rows(second.ask(bind([str(n)], name="s") + execute() + SYNC)) == [["second", str(n)]]


def test_statements_in_sql(pooled: Proxy) -> None:
    """The same for those that are prepared in SQL, and none is seen that is another's."""
    first, second = pooled.raw(), pooled.raw("app@std_2")
    first.checked(first.query("PREPARE s AS SELECT 'first', current_setting('app.tenant_id')"))
    first.checked(first.ask(parse("SELECT 'a secret'", "m") + SYNC))
    assert sqlstates(second.query("EXECUTE s")) == ["26000"]
    assert sqlstates(second.ask(bind(name="s") + SYNC)) == ["26000"]
    assert second.rows("SELECT * FROM pg_prepared_statements") == []
    second.checked(second.query("PREPARE s (int) AS SELECT 'second', current_setting('app.tenant_id'), $1"))
    assert first.value(PID) == second.value(PID)
    for n in range(3):
        assert first.rows("EXECUTE s") == [["first", "std_1"]]
        assert second.rows(f"EXECUTE s({n})") == [["second", "std_2", str(n)]]
    assert first.rows("SELECT name FROM pg_prepared_statements ORDER BY name") == [["m"], ["s"]]
    assert second.rows("SELECT name FROM pg_prepared_statements") == [["s"]]
    second.checked(second.query("DEALLOCATE s"))
    assert first.rows("EXECUTE s") == [["first", "std_1"]]
    assert sqlstates(second.query("EXECUTE s(1)")) == ["26000"]


def test_the_unnamed_statement(pooled: Proxy) -> None:
    first, second = pooled.raw(), pooled.raw("app@std_2")
    first.checked(first.ask(parse("SELECT 'first'") + SYNC))
    assert sqlstates(second.ask(bind() + execute() + SYNC)) == ["26000"]
    assert sqlstates(second.ask(describe("S") + SYNC)) == ["26000"]
    second.checked(second.ask(parse("SELECT 'second'") + SYNC))
    assert rows(first.ask(bind() + execute() + SYNC)) == [["first"]]
    assert rows(second.ask(bind() + execute() + SYNC)) == [["second"]]


def test_what_pins_is_given_back(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(one_connection(all_tiers, size=2))
    first, second = proxy.raw(), proxy.raw("app@std_2")
    first.query("CREATE TEMP TABLE mine AS SELECT 'first' AS who")
    pid = first.value(PID)
    (reason,) = {row["pins"] for row in proxy.console("SHOW CLIENTS") if row["pins"]}
    assert reason
    for _ in range(3):
        assert second.value(
            "SELECT count(*) FROM pg_class WHERE relname = 'mine' AND relpersistence = 't'"
        ) == ("1"), "the catalogue is shared"
        assert sqlstates(second.query("SELECT * FROM mine")) == ["42P01"]
        assert first.rows("SELECT who FROM mine") == [["first"]]
        assert first.value(PID) == pid
    first.query("DISCARD ALL")
    assert sqlstates(first.query("SELECT * FROM mine")) == ["42P01"]
    wait_until(lambda: not any(row["pins"] for row in proxy.console("SHOW CLIENTS")))
    assert setting(first, "app.tenant_id") == "std_1"


def test_notifications_reach_their_listener_only(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(one_connection(all_tiers, size=3))
    listener, other = proxy.raw(), proxy.raw("app@std_2")
    listener.query("LISTEN news")
    other.query("NOTIFY news, 'hello'")
    found = listener.read_until("A")
    assert b"news\0hello\0" in found[-1].body
    listener.close()
    stranger = proxy.raw("app@free_1")
    for client in (stranger, other):
        assert "A" not in [frame.kind for frame in client.query("NOTIFY news, 'again'")]
        assert client.nothing_to_read(0.1)


def test_advisory_locks_are_the_sessions(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(one_connection(all_tiers, size=2))
    first, second = proxy.raw(), proxy.raw("app@std_2")
    first.query("SELECT pg_advisory_lock(815)")
    for _ in range(3):
        assert second.value("SELECT pg_try_advisory_lock(815)") == "f"
    first.close()
    wait_until(lambda: second.value("SELECT pg_try_advisory_lock(815)") == "t")


# --- startup parameters -----------------------------------------------------------------------------


def test_startup_parameters_follow(pooled: Proxy) -> None:
    options = "-c search_path=pg_catalog -c statement_timeout=4321 -c my.var=a\\ b --work-mem=5MB"
    first = pooled.raw(
        parameters={
            "options": options,
            "IntervalStyle": "iso_8601",
            "application_name": "one",
            "other.var": "x" * 9000,
            "DateStyle": "SQL, DMY",
        }
    )
    second = pooled.raw("app@std_2")
    for _ in range(3):
        assert first.rows(
            "SELECT current_setting('search_path'), current_setting('statement_timeout'),"
            " current_setting('my.var'), current_setting('work_mem'), current_setting('IntervalStyle'),"
            " current_setting('application_name'), length(current_setting('other.var')), current_setting('DateStyle')"
        ) == [["pg_catalog", "4321ms", "a b", "5MB", "iso_8601", "one", "9000", "SQL, DMY"]]
        for name in ("my.var", "other.var"):
            assert setting(second, name) in (None, "")
        assert setting(second, "search_path") == '"$user", public'
        assert setting(second, "statement_timeout") == "0"
        assert setting(second, "DateStyle") == "ISO, MDY"
    assert first.value(PID) == second.value(PID)


def test_parameters_that_only_a_beginning_connection_takes(
    start_proxy: StartProxy, all_tiers: Tables
) -> None:
    proxy = start_proxy(one_connection(all_tiers, size=2))
    plain = proxy.raw()
    for spelling in ("ignore_system_indexes", "IGNORE_SYSTEM_INDEXES"):
        other = proxy.raw("app@std_2", parameters={spelling: "on", "options": "-c work_mem=5MB"})
        assert setting(other, "ignore_system_indexes") == "on"
        assert setting(other, "work_mem") == "5MB"
        assert setting(plain, "ignore_system_indexes") == "off"
        assert setting(other, "app.tenant_id") == "std_2"
    assert other.value(PID) != plain.value(PID)


@pytest.mark.parametrize("reset", ["RESET work_mem", "SET work_mem TO DEFAULT", "RESET ALL", "DISCARD ALL"])
def test_reset_goes_back_to_the_startup_value(proxy: Proxy, reset: str) -> None:
    client = proxy.raw(
        parameters={"options": "-c work_mem=5MB", "application_name": "mine", "DateStyle": "German"}
    )
    client.checked(client.query("SET work_mem = '7MB'"))
    client.checked(client.query("SET application_name = 'other'"))
    client.checked(client.query("SET DateStyle = 'ISO'"))
    client.checked(client.query(reset))
    assert setting(client, "work_mem") == "5MB"
    everything = reset in ("RESET ALL", "DISCARD ALL")
    assert setting(client, "application_name") == ("mine" if everything else "other")
    assert (setting(client, "DateStyle") or "").startswith("German" if everything else "ISO")
    assert setting(client, "app.tenant_id") == "std_1"
    assert client.parameters["application_name"] == ("mine" if everything else "other")


def test_behind_a_reset_in_the_same_text_the_own_values_are_there(proxy: Proxy) -> None:
    client = proxy.raw(parameters={"options": "-c work_mem=5MB -c my.var='\"é", "DateStyle": "German"})
    show = "SELECT current_setting('app.tenant_id'), current_setting('work_mem'), current_setting('my.var', true)"
    own = [["std_1", "5MB", "'\"é"]]
    client.checked(client.query("SET work_mem = '7MB'"))
    assert kinds(client.query(f"SELECT 1; RESET ALL; {show}")) == "TDCCTDCZ"
    assert client.rows(f"RESET ALL; {show}") == own
    assert client.rows(f"RESET work_mem; {show}") == own
    assert client.rows(f"BEGIN; RESET ALL; {show}; COMMIT") == own
    assert client.rows(f"SET work_mem TO DEFAULT; {show}") == own
    (error,) = errors(client.query("RESET ALL; SELECT nothing_of_the_kind"))
    assert error["P"] == "19"
    client.checked(client.query("SET work_mem = '7MB'"))
    assert sqlstates(client.query("RESET ALL; SELECT 1/0")) == ["22012"]
    assert setting(client, "work_mem") == "7MB", "the RESET was undone with the text"
    assert (setting(client, "DateStyle") or "").startswith("German")


def test_values_of_ten_kilobytes_follow(pooled: Proxy) -> None:
    first, second = pooled.raw(), pooled.raw("app@std_2")
    path = ", ".join(f"schema_{n:04}" for n in range(900))
    first.checked(first.query(f"SET search_path = {path}"))
    for _ in range(2):
        assert setting(first, "search_path") == path
        assert setting(second, "search_path") == '"$user", public'


def test_a_rolled_back_setting_is_gone(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(one_connection(all_tiers, size=2))  # a SET of what no server reports pins
    first, second = proxy.raw(), proxy.raw("app@std_2")
    for name, value in (("application_name", "gone"), ("work_mem", "6MB"), ("TimeZone", "Asia/Tokyo")):
        before = setting(first, name)
        first.query("BEGIN")
        first.checked(first.query(f"SET {name} = '{value}'"))
        first.query("ROLLBACK")
        assert setting(first, name) == before
        assert setting(second, name) == before
        assert setting(first, name) == before


# --- the tenant -------------------------------------------------------------------------------------

CHANGES = [
    "SET app.tenant_id = 'std_2'",
    "SET SESSION app.tenant_id TO 'std_2'",
    "SET LOCAL app.tenant_id = 'std_2'",
    "SET \"app.tenant_id\" = 'std_2'",
    'SET "app"."tenant_id" = \'std_2\'',
    "SET APP.Tenant_ID = 'std_2'",
    "SET /* x */ app.tenant_id = 'std_2'",
    "SET app . tenant_id = 'std_2'",
    "SELECT set_config('app.tenant_id', 'std_2', false)",
    "SELECT pg_catalog.set_config('app.tenant_id', 'std_2', true)",
    "SELECT set_config('App.Tenant_Id', 'std_2', false)",
    "SELECT set_config('app.' || 'tenant_id', 'std_2', false)",
    "SELECT set_config(E'app.\\x74enant_id', 'std_2', false)",
    "SELECT 1; SET app.tenant_id = 'std_2'",
    "WITH x AS (SELECT set_config('app.tenant_id', 'std_2', false)) SELECT * FROM x",
    "SELECT * FROM set_config('app.tenant_id', 'std_2', false)",
    "UPDATE pg_settings SET setting = 'std_2' WHERE name = 'app.tenant_id'",
    "UPDATE pg_catalog.pg_settings SET setting = 'std_2' WHERE name ~ 'tenant'",
    "RESET app.tenant_id",
    "ALTER ROLE app SET app.tenant_id = 'std_2'",
    "CREATE FUNCTION pg_temp.f() RETURNS int SET app.tenant_id = 'std_2' LANGUAGE sql AS 'SELECT 1'",
    "DO $$BEGIN PERFORM set_config('app.tenant_id', 'std_2', false); END$$",
    "DO $$BEGIN SET app.tenant_id = 'std_2'; END$$",
    "DO $$BEGIN EXECUTE 'SET app.ten' || 'ant_id = ''std_2'''; END$$",
    "EXPLAIN ANALYZE SELECT set_config('app.tenant_id', 'std_2', false)",
    "PREPARE p AS SELECT set_config('app.tenant_id', 'std_2', false)",
    "COPY (SELECT set_config('app.tenant_id', 'std_2', false)) TO STDOUT",
]


@pytest.mark.parametrize("change", CHANGES)
def test_the_tenant_cannot_be_changed(proxy: Proxy, change: str) -> None:
    """Refused with 42501, or without effect on what the next statement sees."""
    client = proxy.raw()
    simple = client.query(change)
    assert client.value(TENANT) == "std_1"
    extended = client.ask(ask(change) + SYNC)
    assert client.value(TENANT) == "std_1"
    assert client.rows("SELECT DISTINCT tenant_id FROM orders") == [["std_1"]]
    if change.startswith(("SET", "SELECT set_config('app.tenant_id'", "SELECT set_config('App")):
        assert sqlstates(simple) == ["42501"]
        assert sqlstates(extended) == ["42501"]
        client.query("BEGIN")
        assert sqlstates(client.query(change)) == ["42501"]
        assert client.status == "E"
        client.query("ROLLBACK")
    client.close()
    assert proxy.raw("app@free_1").value(TENANT) == "free_1"


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        ("DO $$BEGIN SET work_mem = '5MB'; END$$", "a DO block that sets parameters or runs dynamic SQL"),
        ("DO $$BEGIN EXECUTE 'SELECT 1'; END$$", "a DO block that sets parameters or runs dynamic SQL"),
        ("DO LANGUAGE plperl $$1$$", "a DO block in another language than plpgsql"),
        ("UPDATE pg_settings SET setting = '1' WHERE name = 'x'", "UPDATE of pg_settings"),
        ("SELECT query_to_xml('SELECT 1', true, false, '')", "a function that runs a text as a statement"),
        ("SELECT set_config('work' || '_mem', '5MB', false)", "set_config() with a computed parameter name"),
    ],
)
def test_a_refusal_says_what_is_refused(proxy: Proxy, refused: str, said: str) -> None:
    client = proxy.raw()
    (error,) = errors(client.query(refused))
    assert (error["C"], error["M"]) == ("42501", f"{said} is not allowed on a shared cluster")
    assert error["H"]
    assert client.value("SELECT 1") == "1"


def test_the_name_as_a_parameter_value(proxy: Proxy) -> None:
    """The verdict cannot see a bound name: it is refused on a shared cluster."""
    client = proxy.raw()
    answer = client.ask(ask("SELECT set_config($1, $2, false)", ["app.tenant_id", "std_2"]) + SYNC)
    assert sqlstates(answer) == ["42501"]
    assert client.value(TENANT) == "std_1"


def test_a_refused_change_in_a_pipeline(proxy: Proxy) -> None:
    client = proxy.raw()
    answer = client.ask(
        ask("SELECT 1") + ask("SET app.tenant_id = 'std_2'") + ask("SELECT 2") + SYNC + ask(TENANT) + SYNC,
        ready=2,
    )
    assert sqlstates(answer) == ["42501"]
    assert rows(answer) == [["1"], ["std_1"]]


def test_other_settings_of_the_namespace_are_free(proxy: Proxy) -> None:
    client = proxy.raw()
    client.checked(client.query("SET app.tenant_id_note = 'x'"))
    client.checked(client.query("SELECT 'SET app.tenant_id = 1', $$set_config('app.tenant_id')$$"))
    client.checked(client.query("-- SET app.tenant_id = 'std_2'\nSELECT 1"))
    assert client.value(TENANT) == "std_1"


def test_functions_of_the_database_cannot_change_it_for_others(pooled: Proxy, shared: EmbeddedServer) -> None:
    """A function's own SET is out of the proxy's sight; what it leaves must not reach anybody else."""
    with connect(shared) as direct:
        direct.execute(
            "CREATE OR REPLACE FUNCTION sneaky() RETURNS text LANGUAGE sql AS"
            " $$SELECT set_config('app.tenant_id', 'free_1', false)$$"
        )
    first, second = pooled.raw(), pooled.raw("app@std_2")
    first.query("SELECT sneaky()")
    assert second.value(TENANT) == "std_2"
    first.query("BEGIN; SELECT sneaky(); COMMIT")
    assert second.value(TENANT) == "std_2"
    # The same state as the session before had it: nothing is taken for granted.
    assert pooled.raw().value(TENANT) == "std_1"


def test_what_a_tenant_is_called_where_it_lives_alone_does_not_go_with_it(
    start_proxy: StartProxy, all_tiers: Tables
) -> None:
    proxy = start_proxy(all_tiers)
    with proxy.raw("app@ent_1") as client:
        client.checked(client.query("SET app.tenant_id = 'std_2'; SET work_mem = '5MB'"))
        assert client.value(TENANT) == "std_2"
        proxy.reload(proxy.config.read_text().replace('cluster = "ent"', 'cluster = "shared"'))
        assert client.rows("SELECT DISTINCT tenant_id FROM orders") == []
        assert client.value(TENANT) == "ent_1"
        assert client.value("SHOW work_mem") == "5MB"


def test_who_has_named_another_where_it_lived_alone_ends_when_others_come(
    start_proxy: StartProxy, all_tiers: Tables
) -> None:
    proxy = start_proxy(all_tiers)
    with proxy.raw("app@ent_1") as client, proxy.raw("app@ent_1") as honest:
        client.checked(client.query("LISTEN x"))
        client.checked(client.query("SET app.tenant_id = 'vip_1'"))
        assert client.value(TENANT) == "vip_1"
        honest.checked(honest.query("LISTEN x"))
        proxy.reload(proxy.config.read_text().replace("shard_id = 1", 'cluster = "ent"'))
        with pytest.raises(Closed):
            client.query("SELECT 1")
        assert honest.value(TENANT) == "ent_1"


def test_what_a_role_begins_with_does_not_reach_whom_the_tier_says_it(
    start_proxy: StartProxy, all_tiers: Tables, shared: EmbeddedServer
) -> None:
    """A function that a tenant has brought may ALTER ROLE, which nobody sees and PostgreSQL lets it."""
    with connect(shared) as direct:
        direct.execute(
            "CREATE FUNCTION alters() RETURNS void LANGUAGE plpgsql AS"
            " $$BEGIN EXECUTE 'ALTER ROLE app SET search_path = evil, pg_catalog, public'; END$$"
        )
        try:
            proxy = start_proxy(all_tiers | {"tier.standard": {"parameters": {"search_path": "public"}}})
            with proxy.raw("app@std_2") as attacker:
                attacker.checked(attacker.query("SELECT alters()"))
            proxy.console("RECONNECT")
            with proxy.raw() as client:
                assert client.value("SHOW search_path") == "public"
                client.checked(client.query("SET search_path = evil; RESET search_path"))
                assert client.value("SHOW search_path") == "public"
        finally:
            direct.execute("ALTER ROLE app RESET ALL; DROP FUNCTION alters()")


@pytest.mark.parametrize("how", ["close", "hang_up", "reset"])
def test_what_was_set_in_a_transaction_whose_client_has_left_is_not_taken_for_set(
    start_proxy: StartProxy, all_tiers: Tables, how: str
) -> None:
    """The connection's reported parameters go back with our ROLLBACK, and who has the same needs them set."""
    proxy = start_proxy(one_connection(all_tiers))
    client, other = proxy.raw(), proxy.raw()
    client.checked(client.query("SET TimeZone = 'Asia/Tokyo'"))
    for text in ("SELECT 1", "BEGIN", "SET TimeZone = 'Asia/Tokyo'"):
        other.checked(other.query(text))
    getattr(other, how)()
    for _ in range(2):
        assert client.value("SHOW TimeZone") == "Asia/Tokyo"
    assert proxy.raw().value("SHOW TimeZone") != "Asia/Tokyo"


@pytest.mark.parametrize("size", [1, 3])
def test_the_tenant_is_right_in_every_transaction(
    start_proxy: StartProxy, all_tiers: Tables, size: int
) -> None:
    """Sessions of all tenants interleave on few connections; every first statement sees its own tenant."""
    proxy = start_proxy(one_connection(all_tiers, size=size))
    tenants = ["std_1", "std_2", "free_1"] * 3
    clients = [(tenant, proxy.raw(f"app@{tenant}")) for tenant in tenants]
    failures: list[str] = []
    counter = itertools.count()

    def work(tenant: str, client: RawClient, seed: int) -> None:
        chance = random.Random(seed)
        text = f"{TENANT}, (SELECT string_agg(DISTINCT tenant_id, ',') FROM orders)"
        for _ in range(40):
            echo = str(next(counter))
            kind = chance.randrange(5)
            if kind == 0:
                got = rows(client.query(f"{text}, '{echo}'"))
            elif kind == 1:
                got = client.prepared(f"{text}, $1::text", [echo])
            elif kind == 2:
                client.query("BEGIN")
                got = rows(client.query(f"{text}, '{echo}'"))
                client.query("COMMIT" if chance.random() < 0.5 else "ROLLBACK")
            elif kind == 3:
                client.query("BEGIN; SELECT 1/0")
                client.query("ROLLBACK")
                got = rows(client.query(f"{text}, '{echo}'"))
            else:
                got = rows(client.ask(ask("SELECT 1/0") + SYNC + ask(f"{text}, '{echo}'") + SYNC, ready=2))
            if got != [[tenant, tenant, echo]]:
                failures.append(f"{tenant} {kind} {echo}: {got}")

    threads = [
        threading.Thread(target=work, args=(tenant, client, n)) for n, (tenant, client) in enumerate(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_drivers_share_a_connection_without_seeing_each_other(pooled: Proxy) -> None:
    def said(connection: psycopg.Connection[Any]) -> tuple[Any, ...] | None:
        return connection.execute(
            "SELECT current_setting('app.tenant_id'), current_setting('TimeZone'), %s::int",
            (7,),
            prepare=True,
        ).fetchone()

    one = pooled.connect("app@std_1", options="-c TimeZone=Asia/Tokyo")
    two = pooled.connect("app@std_2", options="-c TimeZone=Europe/Berlin")
    for _ in range(5):
        assert said(one) == ("std_1", "Asia/Tokyo", 7)
        assert said(two) == ("std_2", "Europe/Berlin", 7)


def test_a_batch_without_sync_belongs_to_its_session(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(one_connection(all_tiers, size=2))
    first, second = proxy.raw(), proxy.raw("app@std_2")
    first.send(parse("SELECT 'first'") + bind() + execute() + b"H\0\0\0\4")
    assert rows(first.read_until("C")) == [["first"]]
    for _ in range(3):
        assert second.prepared("SELECT 'second'") == [["second"]]
    first.send(SYNC)
    first.read_ready()
    first.send(query("SELECT 1"))
    assert rows(first.read_ready()) == [["1"]]
