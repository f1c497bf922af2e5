"""Attempts to reach another tenant's rows of a shared cluster through the proxy, with the seal and without.

Each attempt runs as tenant std_1 against two tables that differ in their policy only: `plain` asks the parameter,
`sealed` the seal. What each ends in is asserted for both, so that the table below says what the seal stops.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.integration.sealed import (
    KEY,
    OTHER_KEY,
    OTHER_SECRET,
    SECRET,
    seal,
    sealed_database,
)
from tests.integration.servers import connect
from tests.integration.tables import with_cluster

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy

Tables = dict[str, dict[str, Any]]
Connection = psycopg.Connection[Any]
DATABASE = "attacked"
KEYS = [f"{OTHER_KEY}:{OTHER_SECRET}", f"{KEY}:{SECRET}"]

# What std_1 has brought into the database beforehand: the proxy cannot see what these do.
PLANTED = """
CREATE FUNCTION become(tenant text) RETURNS text LANGUAGE sql AS
    $$SELECT set_config('app.tenant_id', tenant, true)$$;
CREATE FUNCTION become(tenant text, seal text) RETURNS text LANGUAGE sql AS
    $$SELECT set_config('app.tenant_id', tenant, true) || set_config('tiergate.seal', seal, true)$$;
CREATE FUNCTION does(what text) RETURNS void LANGUAGE plpgsql AS $$BEGIN EXECUTE what; END$$;
CREATE FUNCTION reads(what text) RETURNS SETOF text LANGUAGE plpgsql AS
    $$BEGIN PERFORM become('std_2'); RETURN QUERY EXECUTE 'SELECT DISTINCT tenant_id FROM ' || what; END$$;
CREATE FUNCTION reads_as_owner(what text) RETURNS SETOF text LANGUAGE plpgsql SECURITY DEFINER AS
    $$BEGIN PERFORM become('std_2'); RETURN QUERY EXECUTE 'SELECT DISTINCT tenant_id FROM ' || what; END$$;
CREATE FUNCTION catches(what text) RETURNS SETOF text LANGUAGE plpgsql AS
    $$BEGIN PERFORM become('std_2'); RETURN QUERY EXECUTE 'SELECT DISTINCT tenant_id FROM ' || what;
    EXCEPTION WHEN insufficient_privilege THEN RETURN NEXT 'caught'; END$$;
CREATE FUNCTION leaks(tenant text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
    $$BEGIN RAISE NOTICE '%', tenant; RETURN true; END$$;
CREATE FUNCTION in_worker() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$SELECT tiergate.current_tenant()$$;
CREATE SCHEMA evil;
CREATE FUNCTION evil.sha256(bytea) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$SELECT ''::bytea$$;
CREATE FUNCTION evil.least(timestamptz, timestamptz) RETURNS timestamptz LANGUAGE sql AS $$SELECT 'epoch'::timestamptz$$;
CREATE FUNCTION evil.pg_backend_pid() RETURNS int LANGUAGE sql AS $$SELECT 1$$;
CREATE FUNCTION evil.current_setting(text, boolean) RETURNS text LANGUAGE sql AS $$SELECT 'std_2'::text$$;
CREATE FUNCTION evil.differs(bytea, bytea) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT false$$;
CREATE OPERATOR evil.<> (LEFTARG = bytea, RIGHTARG = bytea, PROCEDURE = evil.differs);
CREATE FUNCTION evil.same(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT true$$;
CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, PROCEDURE = evil.same);
CREATE VIEW view_of_plain AS SELECT * FROM plain;
CREATE VIEW view_of_sealed AS SELECT * FROM sealed;
"""

NOT_HIS = "tenant context refused: the seal is not of this tenant and connection"
LEAKS, OWN, NOTHING = "LEAKS", "own rows", "no rows"
REFUSED = "is not allowed on a shared cluster"
DENIED = "permission denied"


@dataclass(frozen=True)
class Attempt:
    """Statements, of which the last one's rows tell tenants. `{t}` is the table; what follows it is how the attempt
    ends there: LEAKS, OWN, NOTHING, or a part of the error."""

    steps: tuple[str, ...]
    plain: str
    sealed: str


READ = "SELECT DISTINCT tenant_id FROM {t}"
BECOME = "SELECT become('std_2')"
FORGED = f"1.{KEY}.9999999999." + "0" * 64


def attempt(*steps: str, plain: str, sealed: str) -> Attempt:
    return Attempt(steps, plain, sealed)


ATTEMPTS = {
    # The parser sees these.
    "SET": attempt("SET app.tenant_id = 'std_2'", READ, plain="tenant", sealed="tenant"),
    "set_config": attempt(
        "SELECT set_config('app.tenant_id', 'std_2', true)", READ, plain="tenant", sealed="tenant"
    ),
    "SET in a DO block": attempt(
        "DO $$BEGIN SET LOCAL app.tenant_id = 'std_2'; END$$", READ, plain=REFUSED, sealed=REFUSED
    ),
    "EXECUTE in a DO block": attempt(
        "DO $$BEGIN EXECUTE 'SET LOCAL app.ten' || 'ant_id = ''std_2'''; END$$",
        READ,
        plain=REFUSED,
        sealed=REFUSED,
    ),
    "ALTER ROLE": attempt(
        "ALTER ROLE app SET app.tenant_id = 'std_2'", READ, plain="tenant", sealed="tenant"
    ),
    "a function's own SET": attempt(
        "CREATE FUNCTION own() RETURNS text LANGUAGE sql SET app.tenant_id = 'std_2' AS $$SELECT 1::text$$",
        READ,
        plain="tenant",
        sealed="tenant",
    ),
    # These it does not.
    "a function's set_config": attempt(BECOME, READ, plain=LEAKS, sealed=NOT_HIS),
    "a function's EXECUTE": attempt(
        "SELECT does('SET LOCAL app.tenant_id = ''std_2''')", READ, plain=LEAKS, sealed=NOT_HIS
    ),
    "within one statement": attempt("SELECT reads('{t}')", plain=LEAKS, sealed=NOT_HIS),
    "a SECURITY DEFINER function": attempt("SELECT reads_as_owner('{t}')", plain=LEAKS, sealed=NOT_HIS),
    "a function that catches the error": attempt("SELECT catches('{t}')", plain=LEAKS, sealed=NOTHING),
    "a DO block that calls a function": attempt(
        "DO $$BEGIN PERFORM become('std_2'); END$$", READ, plain=LEAKS, sealed=NOT_HIS
    ),
    "a forged seal": attempt(f"SELECT become('std_2', '{FORGED}')", READ, plain=LEAKS, sealed=NOT_HIS),
    "a seal copied from another connection": attempt(
        "SELECT become('std_2', '{copied}')", READ, plain=LEAKS, sealed=NOT_HIS
    ),
    "an expired seal": attempt(
        "SELECT become('std_2', '{expired}')", READ, plain=LEAKS, sealed="refused: the seal has expired"
    ),
    "a truncated seal": attempt(
        "SELECT become('std_2', left(current_setting('tiergate.seal'), -1))",
        READ,
        plain=LEAKS,
        sealed="refused: the seal is malformed",
    ),
    "a seal with an unknown key": attempt(
        f"SELECT become('std_2', '{FORGED.replace(KEY, 'mine')}')",
        READ,
        plain=LEAKS,
        sealed="refused: the key of the seal is unknown",
    ),
    "a seal with a key that was retired": attempt(
        "SELECT become('std_2', '{retired}')",
        READ,
        plain=LEAKS,
        sealed="refused: the key of the seal has been retired",
    ),
    "a seal with a later expiry": attempt(
        "SELECT become('std_2', regexp_replace(current_setting('tiergate.seal'), '[0-9]{{9,}}', '9999999999'))",
        READ,
        plain=LEAKS,
        sealed=NOT_HIS,
    ),
    "no seal": attempt("SELECT become('std_2', '')", READ, plain=LEAKS, sealed="refused: there is no seal"),
    "SET of the seal": attempt(
        f"SET LOCAL tiergate.seal = '{FORGED}'", BECOME, READ, plain=LEAKS, sealed=NOT_HIS
    ),
    "RESET ALL in a function": attempt("SELECT does('RESET ALL')", READ, plain=NOTHING, sealed=NOTHING),
    "RESET ALL": attempt("RESET ALL", READ, plain=OWN, sealed=OWN),
    "ALTER ROLE in a function": attempt(
        "SELECT does('ALTER ROLE app SET app.tenant_id = ''std_2''')", READ, plain=DENIED, sealed=DENIED
    ),
    "a search_path with other functions and operators": attempt(
        "SET LOCAL search_path = evil, pg_catalog, public", BECOME, READ, plain=LEAKS, sealed=NOT_HIS
    ),
    "temporary functions and tables": attempt(
        "CREATE FUNCTION pg_temp.sha256(bytea) RETURNS bytea LANGUAGE sql AS $$SELECT ''::bytea$$",
        "CREATE TEMP TABLE seal_key AS SELECT 'first' AS id, ''::bytea AS inner_pad, ''::bytea AS outer_pad,"
        " NULL::timestamptz AS retired_at",
        "SET LOCAL search_path = pg_temp, pg_catalog, public",
        BECOME,
        READ,
        plain=LEAKS,
        sealed=NOT_HIS,
    ),
    "a function of one's own in the kit's place": attempt(
        "CREATE FUNCTION current_tenant() RETURNS text LANGUAGE sql AS $$SELECT 'std_2'::text$$",
        "SET LOCAL search_path = public, tiergate, pg_catalog",
        "SELECT DISTINCT tenant_id FROM {t} WHERE tenant_id = current_tenant()",
        plain=NOTHING,
        sealed=NOTHING,
    ),
    "parameters that change how SQL is read": attempt(
        "SET LOCAL standard_conforming_strings = off",
        "SET LOCAL transform_null_equals = on",
        "SET LOCAL bytea_output = escape",
        BECOME,
        READ,
        plain=LEAKS,
        sealed=NOT_HIS,
    ),
    "row_security = off": attempt(
        "SET LOCAL row_security = off", READ, plain="row-level", sealed="row-level"
    ),
    "a prepared statement": attempt(
        "PREPARE read AS " + READ, "EXECUTE read", BECOME, "EXECUTE read", plain=LEAKS, sealed=NOT_HIS
    ),
    "a prepared statement with a generic plan": attempt(
        "SET LOCAL plan_cache_mode = force_generic_plan",
        "PREPARE read AS " + READ,
        "EXECUTE read",
        BECOME,
        "EXECUTE read",
        plain=LEAKS,
        sealed=NOT_HIS,
    ),
    "a cursor that is open already": attempt(
        "DECLARE held CURSOR FOR " + READ, BECOME, "FETCH ALL FROM held", plain=LEAKS, sealed=NOT_HIS
    ),
    "a cursor that has been read from": attempt(
        "DECLARE held CURSOR FOR SELECT tenant_id FROM {t}",
        "FETCH 1 FROM held",
        BECOME,
        "FETCH ALL FROM held",
        plain=LEAKS,
        sealed=OWN,  # its tenant was settled with the first row
    ),
    "a savepoint that is rolled back": attempt(
        "SAVEPOINT s", BECOME, "ROLLBACK TO s", READ, plain=OWN, sealed=OWN
    ),
    "parallel workers": attempt(
        "SET LOCAL parallel_setup_cost = 0",
        "SET LOCAL parallel_tuple_cost = 0",
        "SET LOCAL min_parallel_table_scan_size = 0",
        "SET LOCAL enable_indexscan = off",
        "SET LOCAL enable_indexonlyscan = off",
        "SET LOCAL enable_bitmapscan = off",
        BECOME,
        READ,
        plain=LEAKS,
        sealed=NOT_HIS,
    ),
    "a call from a parallel worker": attempt(
        "SET LOCAL parallel_setup_cost = 0",
        "SET LOCAL parallel_tuple_cost = 0",
        "SET LOCAL min_parallel_table_scan_size = 0",
        "SET LOCAL parallel_leader_participation = off",
        BECOME,
        "SELECT DISTINCT tenant_id FROM {t} WHERE in_worker() IS NOT NULL",
        plain="tenant context refused",  # by in_worker()
        sealed=NOT_HIS,
    ),
    "a function that tells what it is asked about": attempt(
        "SELECT DISTINCT tenant_id FROM {t} WHERE leaks(tenant_id)", plain=OWN, sealed=OWN
    ),
    "and with another tenant": attempt(
        BECOME, "SELECT DISTINCT tenant_id FROM {t} WHERE leaks(tenant_id)", plain=LEAKS, sealed=NOT_HIS
    ),
    "a view of one's own": attempt(
        BECOME, "SELECT DISTINCT tenant_id FROM view_of_{t}", plain=LEAKS, sealed=NOT_HIS
    ),
    "COPY": attempt(BECOME, "COPY {t} (tenant_id) TO STDOUT", plain=LEAKS, sealed=NOT_HIS),
    "INSERT": attempt(
        BECOME, "INSERT INTO {t} VALUES ('std_2', 9999, 'x') RETURNING tenant_id", plain=LEAKS, sealed=NOT_HIS
    ),
    "UPDATE": attempt(BECOME, "UPDATE {t} SET item = 'x' RETURNING tenant_id", plain=LEAKS, sealed=NOT_HIS),
    "DELETE": attempt(BECOME, "DELETE FROM {t} RETURNING tenant_id", plain=LEAKS, sealed=NOT_HIS),
    "the keys": attempt("SELECT id FROM tiergate.seal_key", plain=DENIED, sealed=DENIED),
    "the keys by a function": attempt(
        "SELECT reads('tiergate.seal_key AS k (tenant_id)')", plain=DENIED, sealed=DENIED
    ),
}


@pytest.fixture(scope="module")
def attacked(shared: EmbeddedServer) -> Iterator[EmbeddedServer]:
    with sealed_database(shared, DATABASE):
        with connect(shared, DATABASE) as admin:
            admin.execute("SELECT tiergate.store_key(%s, %s)", (OTHER_KEY, OTHER_SECRET))
            admin.execute("UPDATE tiergate.seal_key SET retired_at = now() WHERE id = %s", (OTHER_KEY,))
        with connect(shared, DATABASE, "app") as app:
            app.execute(PLANTED.encode())
        yield shared


@pytest.fixture(scope="module")
def proxy(start_module_proxy: StartProxy, all_tiers: Tables, attacked: EmbeddedServer) -> Proxy:
    return start_module_proxy(with_cluster(all_tiers, seal_keys=KEYS, pool_size=3))


def ends(connection: Connection, steps: tuple[str, ...], table: str, seals: dict[str, str]) -> str:
    told: list[str] = []
    connection.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
    found: list[Any] = []
    try:
        for step in steps:
            text = step.format(t=table, **seals)
            cursor = connection.cursor()
            if text.startswith("COPY"):
                with cursor.copy(text.encode()) as copy:
                    found = [bytes(row).decode().strip() for row in copy]
            else:
                cursor.execute(text.encode())
                found = [row[0] for row in cursor.fetchall()] if cursor.description else []
    except psycopg.Error as error:
        assert "std_2" not in told
        return f"{error.diag.message_primary}: {error.diag.message_detail}"
    tenants = {*found, *told} & {"std_1", "std_2", "free_1"}
    return LEAKS if tenants - {"std_1"} else OWN if tenants else NOTHING


@pytest.mark.parametrize("table", ["plain", "sealed"])
@pytest.mark.parametrize("name", ATTEMPTS)
def test_attempt(proxy: Proxy, name: str, table: str) -> None:
    case = ATTEMPTS[name]
    with proxy.connect("app@std_2", DATABASE) as victim, proxy.connect("app@std_1", DATABASE) as attacker:
        victim.execute("BEGIN")  # and keeps its connection, so that the attacker has another
        copied = victim.execute("SELECT current_setting('tiergate.seal')").fetchone()
        assert copied is not None
        attacker.execute("BEGIN")
        seals = {
            "copied": copied[0],
            "expired": seal(attacker, "std_2", life=-5),
            "retired": seal(attacker, "std_2", key=OTHER_KEY, secret=OTHER_SECRET),
        }
        end = ends(attacker, case.steps, table, seals)
        attacker.execute("ROLLBACK")
        wanted = case.plain if table == "plain" else case.sealed
        assert wanted in end, end
        # Nothing of it is left: it sees its own rows, and so does the next one.
        assert attacker.execute(f"SELECT DISTINCT tenant_id FROM {table}".encode()).fetchall() == [("std_1",)]
        victim.execute("ROLLBACK")
        assert victim.execute(f"SELECT DISTINCT tenant_id FROM {table}".encode()).fetchall() == [("std_2",)]


def test_the_seal_stops_what_the_parser_cannot_see() -> None:
    """The attempts that reach other tenants' rows where only the parameter is asked; none where the seal is."""
    assert sum(case.plain == LEAKS for case in ATTEMPTS.values()) >= 20
    assert not any(case.sealed == LEAKS for case in ATTEMPTS.values())
