"""The red team: every attempt of `attempts.py` and `shared_attempts.py` and every race of `races.py`, without the seal
and with it.

One server connection is shared by whoever attacks, the victim and an honest session of the attacker's own tenant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.integration import attempts
from tests.integration.attempts import CALLS, LEAKS, SERVICE, UNCHOSEN, USER, Attempt
from tests.integration.races import RACES
from tests.integration.red_side import DATABASE, OWNERS, Side, ends, leaves, made
from tests.integration.sealed import KEY, SECRET, sealed_database
from tests.integration.servers import connect
from tests.integration.shared_attempts import BESIDE, FENCE, MORE
from tests.integration.tables import with_cluster
from tests.integration.test_seal_attacks import ATTEMPTS as SEAL_ATTEMPTS
from tests.integration.test_seal_attacks import PLANTED

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy

Tables = dict[str, dict[str, Any]]
ATTEMPTS = attempts.ATTEMPTS | MORE
# What is planted beside `PLANTED`, of which the proxy cannot see what it does when it is used.
MORE = """
CREATE PROCEDURE nothing(text) LANGUAGE sql AS '';
CREATE TYPE evil.whom AS (tenant text);
CREATE FUNCTION evil.to_text(w evil.whom) RETURNS text LANGUAGE sql AS 'SELECT public.become(w.tenant)';
CREATE CAST (evil.whom AS text) WITH FUNCTION evil.to_text(evil.whom);
CREATE OPERATOR evil.@@@ (RIGHTARG = text, PROCEDURE = become);
CREATE VIEW evil.becomes AS SELECT become('std_2');
CREATE TABLE evil.door (tenant text);
CREATE RULE opens AS ON INSERT TO evil.door DO ALSO SELECT public.become(NEW.tenant);
CREATE TABLE evil.gate (tenant text);
CREATE FUNCTION evil.opens() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM public.become(NEW.tenant); RETURN NULL; END';
CREATE TRIGGER opens BEFORE INSERT ON evil.gate FOR EACH ROW EXECUTE FUNCTION evil.opens();
CREATE FUNCTION evil.same(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
    'BEGIN PERFORM public.become(t); RETURN t; END';
CREATE TABLE evil.indexed (tenant text);
CREATE INDEX ON evil.indexed (evil.same(tenant));
CREATE TABLE evil.checked (tenant text CHECK (evil.same(tenant) <> ''));
CREATE TABLE evil.filled (tenant text DEFAULT public.become('std_2'), n int);
CREATE TABLE evil.generated (tenant text, same text GENERATED ALWAYS AS (evil.same(tenant)) STORED);
CREATE TABLE evil.parted (tenant text) PARTITION BY LIST (evil.same(tenant));
CREATE TABLE evil.part PARTITION OF evil.parted DEFAULT;
CREATE DOMAIN evil.known AS text CHECK (evil.same(VALUE) <> '');
CREATE FUNCTION evil.latter(a text, b text) RETURNS text LANGUAGE sql AS 'SELECT public.become(b)';
CREATE AGGREGATE evil.last_of(text) (sfunc = evil.latter, stype = text, initcond = '');
CREATE PROCEDURE evil.becoming(tenant text) LANGUAGE sql AS 'SELECT public.become(tenant)';
CREATE VIEW evil.pg_settings AS SELECT 'app.tenant_id'::text AS name;
CREATE FUNCTION evil.version() RETURNS text LANGUAGE plpgsql AS
    'BEGIN PERFORM public.become(''std_2''); RETURN (SELECT string_agg(item, '','') FROM public.plain); END';
CREATE FUNCTION evil.current_database() RETURNS text LANGUAGE plpgsql AS
    'BEGIN PERFORM public.become(''std_2''); RETURN (SELECT string_agg(item, '','') FROM public.sealed); END';
"""


# Ways out of the server that need no password, and back into it.
OUTWARD = """
CREATE EXTENSION dblink;
GRANT EXECUTE ON FUNCTION dblink_connect_u(text), dblink_connect_u(text, text) TO app;
CREATE EXTENSION postgres_fdw;
CREATE SERVER itself FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '{port}', dbname 'red_team');
CREATE USER MAPPING FOR app SERVER itself OPTIONS (user 'app', password_required 'false');
GRANT USAGE ON FOREIGN SERVER itself TO app;
"""
FAR = """
CREATE FUNCTION evil.all_of_{t}() RETURNS SETOF text LANGUAGE plpgsql AS
    'BEGIN PERFORM public.become(''std_2''); RETURN QUERY SELECT item FROM public.{t}; END';
CREATE VIEW evil.view_of_{t} AS SELECT * FROM evil.all_of_{t}() AS item;
CREATE FOREIGN TABLE evil.far_{t} (tenant_id text, item text) SERVER itself
    OPTIONS (schema_name 'public', table_name '{t}');
CREATE FOREIGN TABLE evil.far_view_of_{t} (item text) SERVER itself
    OPTIONS (schema_name 'evil', table_name 'view_of_{t}');
"""


@pytest.fixture(scope="module")
def field(shared: EmbeddedServer) -> Iterator[psycopg.Connection[Any]]:
    with sealed_database(shared, DATABASE):
        with connect(shared, DATABASE, "app") as app:
            app.execute(PLANTED.encode())
            app.execute(MORE.encode())
        with connect(shared, DATABASE) as admin:
            admin.execute(OUTWARD.replace("{port}", str(shared.port)).encode())
        with connect(shared, DATABASE, "app") as app:
            for table in ("plain", "sealed"):
                app.execute(FAR.replace("{t}", table).encode())
        with connect(shared, DATABASE) as admin:
            for table in ("plain", "sealed"):
                admin.execute(f"UPDATE {table} SET item = 'secret of ' || tenant_id || ' ' || id".encode())
            admin.execute("CREATE TABLE original AS SELECT * FROM plain; ANALYZE")
            admin.execute("CREATE SEQUENCE numbers; GRANT ALL ON numbers TO app")
            admin.execute(
                "CREATE FUNCTION cancels_itself() RETURNS boolean LANGUAGE sql SECURITY DEFINER"
                " AS 'SELECT pg_cancel_backend(pg_backend_pid())'"
            )
            admin.execute(
                "CREATE FUNCTION reads_object(oid) RETURNS bytea LANGUAGE sql SECURITY DEFINER"
                " AS 'SELECT pg_catalog.lo_get($1)'"
            )
            admin.execute(FENCE.encode())
            for name, oid in admin.execute(
                "SELECT proname, oid FROM pg_proc WHERE proname IN ('become', 'dblink_connect_u') AND pronargs = 1"
            ):
                CALLS[name] = oid
            CALLS["port"] = shared.port
            yield admin


def configured(all_tiers: Tables, **cluster: Any) -> Tables:
    own = {"password": "app-secret", "server_user": "app", "server_password": "app-secret"}
    return with_cluster(all_tiers, pool_size=1, **cluster) | {
        f"user.{USER}": own | {"tenants": ["std_1"]},
        f"user.{SERVICE}": own | {"tenants": ["std_1", "free_1"]},
        f"user.{UNCHOSEN}": own | {"tenants": ["std_1", "free_1"]},
    }


@pytest.fixture(scope="module", params=["without the seal", "with the seal"])
def side(
    request: pytest.FixtureRequest,
    start_module_proxy: StartProxy,
    all_tiers: Tables,
    shared: EmbeddedServer,
    field: psycopg.Connection[Any],
) -> Side:
    sealed = request.param == "with the seal"
    keys = {"seal_keys": [f"{KEY}:{SECRET}"]} if sealed else {}
    proxy = start_module_proxy(configured(all_tiers, **keys))
    honest = {tenant: proxy.raw(f"app@{tenant}", DATABASE) for tenant in OWNERS}
    found = Side(shared, proxy, "sealed" if sealed else "plain", field, "", honest)
    return found._replace(rows=found.victims())


@pytest.mark.parametrize("name", ATTEMPTS)
def test_attempt(side: Side, name: str) -> None:
    attempt: Attempt = ATTEMPTS[name]
    if attempt.victim:
        leaves(side, attempt.victim, attempt.hears)
    end = ends(side, made(side, attempt.steps, attempt.who))
    wanted = attempt.plain if side.table == "plain" else attempt.sealed
    assert wanted in end, end
    side.untouched()


def test_a_name_is_the_same_in_every_client_encoding(
    start_proxy: StartProxy, all_tiers: Tables, field: object
) -> None:
    """As the bytes of LATIN1, the name of one of these tenants in UTF-8 is that of the other."""
    tables = configured(all_tiers) | {
        'tenant."\\u00e9"': {"tier": "standard"},
        'tenant."\\u00c3\\u00a9"': {"tier": "standard"},
    }
    proxy = start_proxy(tables)
    read = "SELECT encode(convert_to(current_setting('app.tenant_id'), 'UTF8'), 'hex')"
    clients = {
        name: proxy.raw("app", DATABASE, parameters={"app.tenant_id": name}) for name in ("é", "Ã©", "std_1")
    }
    for encodings in (("LATIN1", "UTF8"), ("LATIN1", "LATIN1"), ("UTF8", "LATIN1")):
        clients["std_1"].checked(clients["std_1"].query(f"SET client_encoding = '{encodings[0]}'"))
        for name in ("é", "Ã©"):
            clients[name].checked(clients[name].query(f"SET client_encoding = '{encodings[1]}'"))
            for _ in range(2):
                assert clients["std_1"].value(read) == b"std_1".hex()
                assert clients[name].value(read) == name.encode().hex()


@pytest.fixture(scope="module")
def wide(
    start_module_proxy: StartProxy, all_tiers: Tables, shared: EmbeddedServer, field: psycopg.Connection[Any]
) -> Side:
    """With a few server connections, without the seal."""
    proxy = start_module_proxy(configured(all_tiers) | with_cluster(all_tiers, pool_size=4))
    found = Side(shared, proxy, "plain", field, "", {})
    return found._replace(rows=found.victims())


@pytest.mark.parametrize("name", BESIDE)
def test_beside_the_victim(wide: Side, name: str) -> None:
    does, looks, wanted = BESIDE[name]
    with wide.enters("app@std_2") as victim:
        for text in does:
            victim.checked(victim.query(text.replace("{t}", wide.table)))
        (temp,) = wide.admin.execute(
            # That of a victim before it may still be there.
            "SELECT coalesce((SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = 'mine'"
            " ORDER BY oid DESC LIMIT 1), '')"
        ).fetchone() or ("",)
        end = ends(
            wide,
            made(
                wide,
                tuple(
                    step.replace("{temp}", temp).replace("{proxy}", str(wide.proxy.port)) for step in looks
                ),
                USER,
            ),
        )
        assert wanted in end, end


@pytest.mark.parametrize("name", RACES)
def test_race(side: Side, name: str) -> None:
    RACES[name](side)
    assert not side.damaged()
    side.untouched()


def test_what_only_the_seal_stops() -> None:
    """The two runs side by side, and what README says of them."""
    stopped = sorted(name for name, attempt in ATTEMPTS.items() if attempt.only_the_seal)
    assert len(ATTEMPTS) + len(RACES) >= 60
    assert not any(attempt.sealed == LEAKS for attempt in ATTEMPTS.values())
    assert all(name.startswith(("unseen: ", "elsewhere: ")) for name in stopped), stopped
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    said = re.search(r"makes (\d+) attempts .*?, each without the seal and with it: (\d+) are stopped by the\s+seal alone",
                     readme, re.DOTALL)  # fmt: skip
    assert said is not None
    older = [attempt.plain == LEAKS for attempt in SEAL_ATTEMPTS.values()]
    assert int(said[1]) == len(ATTEMPTS) + len(BESIDE) + len(RACES) + len(older)
    assert int(said[2]) == len(stopped) + sum(older)
