"""Attempts of a tenant to reach another one's rows through a shared cluster: what is sent, and what must be seen.

Each is made twice: on a table whose policy asks the parameter, through a proxy without seal keys (`plain`), and on one
whose policy asks the seal (`sealed`). A step is a text (a Query) or frames; `{t}` is the table. Behind the last one the
table is read, unless a step has done so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.integration.sealed import KEY
from tests.rawclient import (
    FLUSH,
    SYNC,
    bind,
    close,
    copy_data,
    describe,
    execute,
    function_call,
    parse,
    query,
)

LEAKS, OWN, NOTHING = "LEAKS", "own rows", "no rows"
# Whoever attacks: bound to std_1 by its user or its login; or of a list without std_2, of which it has chosen std_1,
# or none yet.
USER, LOGIN, SERVICE, UNCHOSEN = "bound", "app@std_1", "service", "unchosen"
Frames = Callable[[str], bytes]
Step = str | Frames


@dataclass(frozen=True)
class Attempt:
    """`plain` and `sealed`: LEAKS, OWN, NOTHING, or a part of the errors that it must get."""

    who: str
    steps: tuple[Step, ...]
    plain: str
    sealed: str
    victim: tuple[Step, ...] = ()  # what it has done before on the server connection, and then left
    hears: str | None = None  # it hangs up when it has read a frame of this kind; "": at once

    @property
    def only_the_seal(self) -> bool:
        return self.plain == LEAKS


READ = "SELECT item FROM {t}"
NAMED = '42501: parameter "app.tenant_id" cannot be changed'
COMPUTED = "42501: set_config() with a computed parameter name"
BLOCK = "42501: a DO block that sets parameters"
FOR_ALL = "42501: parameters and passwords of a role or database cannot be changed"
MAY_NOT = "may not act for tenant"
SETTLED = "25001: the tenant cannot be changed within a transaction"
FAILED = "25P02: current transaction is aborted"
ROW_LEVEL = "42501: new row violates row-level security policy"
DENIED = "42501: permission denied"
OWNER = "42501: must be owner"
NO_SQL = '42601: syntax error at or near "WITHOUT"'
NOT_HIS = "42501: tenant context refused: the seal is not of this tenant and connection"
TOO_LONG = "42501: a statement that is too long to inspect"
LONG = 70_000  # not parsed
HUGE = 1_100_000  # not held, but looked at as it passes


def x(text: str, values: Sequence[str | bytes | None] = (), *, oids: Sequence[int] = (), name: str = "",
      formats: Sequence[int] = ()) -> Frames:  # fmt: skip
    """A batch of one statement."""
    return lambda t: (
        parse(text.replace("{t}", t), name, oids) + bind(values, name=name, formats=formats) + describe("P")
        + execute() + SYNC
    )  # fmt: skip


def raw(data: bytes) -> Frames:
    return lambda t: data


def several(*texts: str) -> Frames:
    """Queries that do not wait for answers."""
    return lambda t: b"".join(query(text.replace("{t}", t)) for text in texts)


def batch(*texts: str) -> Frames:
    return lambda t: b"".join(parse(s.replace("{t}", t)) + bind() + execute() for s in texts) + SYNC


def refused(who: str, *steps: Step, by: str) -> Attempt:
    return Attempt(who, steps, by, by)


def stopped(who: str, *steps: Step, by: str = NOT_HIS) -> Attempt:
    """The parameter's policy lets it through."""
    return Attempt(who, steps, LEAKS, by)


def user(*steps: Step, by: str) -> Attempt:
    return refused(USER, *steps, by=by)


def local(call: str) -> tuple[Step, ...]:
    return ("BEGIN", f"SELECT {call}", READ)


def padded(text: str, size: int) -> str:
    return f"/*{'x' * size}*/ {text}"


SET = "SET app.tenant_id = 'std_2'"
FORGED = f"1.{KEY}.9999999999." + "0" * 64
SJIS = "SET client_encoding = 'SJIS'"

SPELLINGS = {
    "SET": user(SET, by=NAMED),
    "SET, named at the login": refused(LOGIN, SET, by=NAMED),
    "SET SESSION": user("SET SESSION app.tenant_id TO 'std_2'", by=NAMED),
    "SET LOCAL in a block": user("BEGIN", "SET LOCAL app.tenant_id = 'std_2'", READ, by=NAMED),
    "SET of a quoted name": user("SET \"app\".\"tenant_id\" = 'std_2'", by=NAMED),
    "SET of a name quoted with its dot": user("SET \"app.tenant_id\" = 'std_2'", by=NAMED),
    "SET in mixed case": user("sEt ApP.TenAnT_Id To std_2", by=NAMED),
    "SET in unicode": user("SET U&\"app\".U&\"\\0074enant_id\" = 'std_2'", by=NAMED),
    "SET in unicode with another escape": user(
        "SET U&\"!0061pp\" UESCAPE '!' . tenant_id = 'std_2'", by=NAMED
    ),
    "SET full of comments": user("SET/*a*/app/*.*/./**/tenant_id/*=*/=/**/'std_2'", by=NAMED),
    "SET behind a nested comment": user("/* /* */ */" + SET, by=NAMED),
    "SET behind a line comment that a CR ends": user("-- a\r" + SET, by=NAMED),
    "SET behind empty statements": user(" ;; ;" + SET, by=NAMED),
    "SET behind another statement": user("SELECT 1; " + SET, by=NAMED),
    "SET behind a COMMIT": user("BEGIN", "COMMIT; " + SET, by=NAMED),
    "a whole transaction in one text": user(
        "BEGIN; SET LOCAL app.tenant_id = 'std_2'; " + READ + "; COMMIT", by=NAMED
    ),
    "SET FROM CURRENT": user("SET app.tenant_id FROM CURRENT", by=NAMED),
    "RESET": user("RESET app.tenant_id", by=NAMED),
    "SET TO DEFAULT": user("SET app.tenant_id TO DEFAULT", by=NAMED),
    "SET of a list": user("SET app.tenant_id = 'std_1', 'std_2'", by=NAMED),
    "set_config": user(*local("set_config('app.tenant_id', 'std_2', true)"), by=NAMED),
    "set_config, escaped": user(*local(r"set_config(E'app.tenant\x5fid', 'std_2', true)"), by=NAMED),
    "set_config, in unicode": user(*local(r"set_config(U&'\0061pp.tenant_id', 'std_2', true)"), by=NAMED),
    "set_config, dollar-quoted": user(*local("set_config($a$app.tenant_id$a$, 'std_2', true)"), by=NAMED),
    "set_config, a literal in two lines": user(*local("set_config('app.ten'\n'ant_id', 'std_2', true)"), by=NAMED),
    "set_config, arguments by name": user(
        *local("set_config(is_local => true, new_value => 'std_2', setting_name => 'app.tenant_id')"), by=NAMED
    ),
    "set_config itself in unicode": user(*local(r"""U&"set\005fconfig"('app.tenant_id', 'std_2', true)"""), by=NAMED),
    "set_config, qualified and quoted": user(
        *local("""pg_catalog."set_config"('APP.Tenant_Id'::varchar, 'std_2', true)"""), by=NAMED
    ),
    "set_config, concatenated": user(*local("set_config('app.' || 'tenant_id', 'std_2', true)"), by=COMPUTED),
    "set_config, lower()": user(*local("set_config(lower('APP.TENANT_ID'), 'std_2', true)"), by=COMPUTED),
    "set_config, from a row": user(
        *local("set_config(n, 'std_2', true) FROM (VALUES ('app.tenant_id')) AS v (n)"), by=COMPUTED
    ),
    "set_config, blanks that a cast drops": user(
        *local("set_config('app.tenant_id '::bpchar, 'std_2', true)"), by=COMPUTED
    ),
    "set_config, an end that a cast drops": user(
        *local(f"set_config('app.tenant_id{' ' * 60}xx'::name::bpchar, 'std_2', true)"), by=COMPUTED
    ),
    "set_config, a type called text": user(
        "CREATE DOMAIN evil.text AS bpchar", *local("set_config('app.tenant_id '::evil.text, 'std_2', true)"),
        "ROLLBACK", "DROP DOMAIN evil.text", by=COMPUTED,
    ),
    "set_config, a type called text ahead of PostgreSQL's": user(
        "CREATE DOMAIN evil.text AS bpchar", "BEGIN", "SET LOCAL search_path = evil, pg_catalog, public",
        "SELECT set_config('app.tenant_id '::text, 'std_2', true)", READ, "ROLLBACK", "DROP DOMAIN evil.text", by=COMPUTED,
    ),
}  # fmt: skip

HIDDEN = {
    "in a FROM": user("BEGIN", "SELECT * FROM set_config('app.tenant_id', 'std_2', true)", READ, by=NAMED),
    "in a CTE": user("WITH w AS (SELECT set_config('app.tenant_id', 'std_2', true)) SELECT item FROM w, {t}", by=NAMED),
    "in an INSERT": user("INSERT INTO drop_box VALUES (set_config('app.tenant_id', 'std_2', false))", by=NAMED),
    "in a COPY": user("COPY (SELECT set_config('app.tenant_id', 'std_2', false)) TO STDOUT", by=NAMED),
    "in an EXPLAIN ANALYZE": user("EXPLAIN ANALYZE SELECT set_config('app.tenant_id', 'std_2', false)", by=NAMED),
    "in a CALL": user("CALL nothing(set_config('app.tenant_id', 'std_2', false))", by=NAMED),
    "in a view": user("CREATE TEMP VIEW v AS SELECT set_config('app.tenant_id', 'std_2', false)", by=NAMED),
    "in a default": user("CREATE TEMP TABLE d (a text DEFAULT set_config('app.tenant_id', 'std_2', false))", by=NAMED),
    "in a domain's check": user(
        "CREATE DOMAIN evil.d AS text CHECK (set_config('app.tenant_id', VALUE, false) <> '')", by=NAMED
    ),
    "in an index": user("CREATE INDEX ON drop_box (set_config('app.tenant_id', note, false))", by=NAMED),
    "in a function's standard body": user(
        "CREATE FUNCTION evil.f() RETURNS text RETURN set_config('app.tenant_id', 'std_2', false)", by=NAMED
    ),
    "in a cursor": user("BEGIN", "DECLARE c CURSOR FOR SELECT set_config('app.tenant_id', 'std_2', true)", by=NAMED),
    "in a cursor WITH HOLD": user(
        "DECLARE c CURSOR WITH HOLD FOR SELECT set_config('app.tenant_id', 'std_2', false)", by=NAMED
    ),
    "in a PREPARE": user("PREPARE p (text) AS SELECT set_config('app.tenant_id', $1, true)", by=NAMED),
    "in an aggregate": user(
        "CREATE AGGREGATE evil.a(text, bool) (sfunc = set_config, stype = text, initcond = 'app.tenant_id')",
        "SELECT evil.a('std_2', true)", by="42501: an aggregate that sets parameters",
    ),
    "in a function that runs a text": user(
        "BEGIN", "SELECT query_to_xml('SELECT set_con' || 'fig(''app.tenant_id'', ''std_2'', true)', true, false, '')",
        READ, by="42501: a function that runs a text",
    ),
    "UPDATE pg_settings": user(
        "UPDATE pg_settings SET setting = 'std_2' WHERE name = 'app.tenant_id'", by="42501: UPDATE of pg_settings"
    ),
    "UPDATE of a view of pg_settings": user(
        "CREATE VIEW evil.mine AS SELECT * FROM pg_settings",
        "UPDATE evil.mine SET setting = 'std_2' WHERE name = 'app.tenant_id'", READ, "DROP VIEW evil.mine", by=OWN,
    ),
    "a DO block": user("DO $$BEGIN SET app.tenant_id = 'std_2'; END$$", by=BLOCK),
    "a DO block full of comments": user("DO $$BEGIN/**/SET/**/LOCAL app.tenant_id = 'std_2'; END$$", by=BLOCK),
    "a DO block that performs": user("DO $$BEGIN PERFORM set_config('app.tenant_id', 'std_2', false); END$$", by=BLOCK),
    "a DO block in an escaped string": user(
        r"DO E'BEGIN EXE\x43UTE \'SET app.tenant_id = \'\'std_2\'\'\'; END'", by=BLOCK
    ),
    "a DO block in another language": user("DO LANGUAGE plpython3u 'plpy.execute(1)'", by="42501: a DO block in another"),
    "CREATE FUNCTION ... SET": user(
        "CREATE FUNCTION evil.g() RETURNS int LANGUAGE sql SET app.tenant_id = 'std_2' AS 'SELECT 1'", by=NAMED
    ),
    "CREATE PROCEDURE ... SET FROM CURRENT": user(
        "CREATE PROCEDURE evil.p() LANGUAGE sql SET app.tenant_id FROM CURRENT AS 'SELECT 1'", by=NAMED
    ),
    "ALTER FUNCTION ... SET": user("ALTER FUNCTION reads(text) SET app.tenant_id = 'std_2'", by=NAMED),
    "ALTER ROLE ... SET": user("ALTER ROLE app SET app.tenant_id = 'std_2'", by=NAMED),
    "ALTER ROLE ALL ... SET": user("ALTER ROLE ALL IN DATABASE attacked SET \"App\".tenant_id = 'std_2'", by=NAMED),
    "ALTER DATABASE ... SET": user("ALTER DATABASE attacked SET app.tenant_id = 'std_2'", by=NAMED),
    "ALTER ROLE ... SET of the path of all": user("ALTER ROLE app SET search_path = evil, pg_catalog, public", by=FOR_ALL),
    "ALTER USER CURRENT_USER, in unicode": user(
        "ALTER USER CURRENT_USER IN DATABASE red_team SET U&\"search\\005fpath\" TO evil, public", by=FOR_ALL
    ),
    "ALTER ROLE ... RESET ALL": user("ALTER ROLE SESSION_USER RESET ALL", by=FOR_ALL),
    "ALTER ROLE behind another statement": user("SELECT 1;/**/ALTER/**/ROLE app SET row_security = off", by=FOR_ALL),
    "ALTER ROLE in a batch": user(x("ALTER ROLE app SET search_path FROM CURRENT"), by=FOR_ALL),
    "ALTER ROLE in a DO block": user("DO $$BEGIN ALTER ROLE app SET search_path = evil, public; END$$", by=BLOCK),
    "ALTER ROLE in a text that is not parsed": user(
        padded("ALTER ROLE app SET search_path = evil, public", LONG), by="42501: a statement that cannot"
    ),
    "ALTER ROLE in a text that is not held": user(padded("ALTER/**/ROLE app RESET ALL", HUGE), by=TOO_LONG),
    "ALTER ROLE of who may choose": refused(SERVICE, "ALTER ROLE app SET search_path = evil, public", by=FOR_ALL),
    "ALTER DATABASE ... SET of the path of all": user("ALTER DATABASE red_team SET search_path = evil", by=FOR_ALL),
    "a password for the server itself": user("ALTER USER app PASSWORD 'mine'", by=FOR_ALL),
    "ALTER SYSTEM SET": user("ALTER SYSTEM SET app.tenant_id = 'std_2'", by=NAMED),
    "strings with backslashes": user(
        "SET standard_conforming_strings = off", r"SELECT 'a\'';SET app.tenant_id TO std_2;--'", by=NAMED
    ),
    "a character that ends in a backslash": user(
        SJIS, raw(query(b"SELECT E'\x83\\'; SET app.tenant_id TO std_2; --'")), by="42501: a statement with a backslash"
    ),
    "the same in an ordinary string": user(
        SJIS, "SET standard_conforming_strings = off",
        raw(query(b"SELECT '\x83\\'; SET app.tenant_id TO std_2; --'")), by="42501",
    ),
    "a text that is not parsed": user(padded(SET, LONG), by=NAMED),
    "set_config in a text that is not parsed": user(
        padded("SELECT set_config('app.' || 'tenant' || '_id', 'std_2', false)", LONG), by="42501: a statement that cannot"
    ),
    "unicode in a text that is not parsed": user(
        padded("SET U&\"app\".U&\"\\0074enant_id\" = 'std_2'", LONG), by="42501: a statement that cannot"
    ),
    "a text that is not held": user(padded(SET, HUGE), by=TOO_LONG),
    "set_config in a text that is not held": user(
        padded("SELECT set_config('app.' || 'tenant' || '_id', 'std_2', false)", HUGE), by=TOO_LONG
    ),
    "a Parse that is not held": user(x(padded(SET, HUGE)), by=TOO_LONG),
    "syntax that the parser does not know": user("SELECT 1 WITHOUT DOUBT; " + SET, by=NO_SQL),
    "the same in unicode": user("SET U&\"app\".U&\"\\0074enant_id\" WITHOUT DOUBT", by=NO_SQL),
    "the same in a batch": user(x(SET + " WITHOUT DOUBT"), by=NO_SQL),
    "the same amid requests that do not wait": user(
        several("BEGIN", SET + " WITHOUT DOUBT; " + SET, READ, "ROLLBACK", READ), by=NO_SQL
    ),
    "an EXECUTE that is no SQL": user("EXECUTE nothing WITHOUT DOUBT", "EXECUTE nothing WITHOUT DOUBT", by=NO_SQL),
}  # fmt: skip

MESSAGES = {
    "SET in a batch": user(x(SET), by=NAMED),
    "SET and a read in one batch": user(batch("SET LOCAL app.tenant_id = 'std_2'", READ), by=NAMED),
    "requests that do not wait": user(several("BEGIN", "SET LOCAL app.tenant_id = 'std_2'", READ, "COMMIT"), by=NAMED),
    "a bound value": user(x("SELECT set_config('app.tenant_id', $1, false)", ["std_2"]), by=NAMED),
    "a bound value of a named statement": user(
        x("SELECT set_config('app.tenant_id', $1, false)", ["std_2"], name="s"), by=NAMED
    ),
    "a bound name": user(x("SELECT set_config($1, $2, false)", ["app.tenant_id", "std_2"]), by="42501"),
    "a bound name in binary": user(
        x("SELECT set_config($1, $2, false)", ["App.Tenant_ID", "std_2"], formats=[1, 1], name="n"), by="42501"
    ),
    "a bound name whose blanks its type drops": user(
        x("SELECT set_config($1, $2, false)", ["app.tenant_id ", "std_2"], oids=[1042, 25]), by="42501"
    ),
    "a bound name with a zero in it": user(
        x("SELECT set_config($1, $2, false)", [b"app.tenant_id\0", "std_2"]), by="42501"
    ),
    "a call by number": user(raw(function_call(2078, b"app.tenant_id", b"std_2", b"f")), by=NAMED),
    "a call by number in binary": user(
        raw(function_call(2078, b"APP.tenant_id", b"std_2", b"\0", argument_format=1)), by=NAMED
    ),
    "a call by number, a zero in the name": user(
        raw(function_call(2078, b"app.tenant_id\0x", b"std_2", b"f")), by="22021"
    ),
    "a call by number that runs a text": user(
        raw(function_call(2924, b"SELECT set_config('app.tenant_id', 'std_2', false)", b"t", b"f", b"")),
        by="42501: a call of this function by its number",
    ),
    "a portal that nobody has made": user(raw(execute("victims") + SYNC), by="34000"),
    "a statement of the proxy's": user(raw(bind(name="tiergate_1") + execute() + SYNC), by="26000"),
    "the unnamed statement of whoever was there": user(raw(bind() + execute() + SYNC), by="26000"),
}  # fmt: skip

RIGHTS = {
    "INSERT for the victim": user("INSERT INTO {t} VALUES ('std_2', 9999, 'x')", by=ROW_LEVEL),
    "INSERT over a row of the victim": user(
        "INSERT INTO {t} SELECT 'std_2', n, 'x' FROM generate_series(1, 300) n"
        " ON CONFLICT (tenant_id, id) DO UPDATE SET item = 'x'", by=ROW_LEVEL,
    ),
    "rows given to the victim": user("UPDATE {t} SET tenant_id = 'std_2'", by=ROW_LEVEL),
    "UPDATE of the victim's rows": user("UPDATE {t} SET item = 'x' WHERE tenant_id = 'std_2'", READ, by=OWN),
    "DELETE of the victim's rows": user("DELETE FROM {t} WHERE tenant_id = 'std_2'", READ, by=OWN),
    "MERGE": user(
        "MERGE INTO {t} USING (VALUES ('std_2')) AS v (w) ON tenant_id = w WHEN MATCHED THEN DELETE"
        " WHEN NOT MATCHED THEN INSERT VALUES (w, 9999, 'x')", by=ROW_LEVEL,
    ),
    "COPY FROM": user(
        lambda t: query(f"COPY {t} FROM STDIN") + copy_data(b"std_2\t9999\tx\n") + b"c\0\0\0\4", by="0A000"
    ),
    "COPY TO STDOUT": user("COPY {t} TO STDOUT", by=OWN),
    "COPY to a file": user("COPY {t} TO '/tmp/rows'", by=DENIED),
    "COPY to a program": user("COPY {t} TO PROGRAM 'cat'", by=DENIED),
    "the file of the table": user("SELECT pg_read_binary_file(pg_relation_filepath('{t}'))", by=DENIED),
    "a large object of a file": user("SELECT lo_import('PG_VERSION')", by=DENIED),
    "a large object as a file": user("SELECT lo_export(lo_from_bytea(0, 'x'), '/tmp/object')", by=DENIED),
    "TRUNCATE": user("TRUNCATE {t}", by=DENIED),
    "no policies": user("ALTER TABLE {t} DISABLE ROW LEVEL SECURITY", by=OWNER),
    "a policy of one's own": user("CREATE POLICY mine ON {t} USING (true)", by=OWNER),
    "a trigger of one's own": user(
        "CREATE TRIGGER t BEFORE UPDATE ON {t} FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        by=DENIED,
    ),
    "a foreign key that probes": user("CREATE TABLE evil.fk (a text, b int, FOREIGN KEY (a, b) REFERENCES {t})", by=DENIED),
    "row_security = off": user("SET row_security = off", by="42501: query would be affected by row-level security"),
    "the superuser's role": user("SET ROLE postgres", by=DENIED),
    "the superuser's authorization": user("SET SESSION AUTHORIZATION postgres", by=DENIED),
    "statistics": user("SELECT most_common_vals FROM pg_stats WHERE tablename = '{t}'", by=NOTHING),
    "rows by their place": user("SELECT item FROM {t} WHERE ctid >= '(0,1)'", by=OWN),
    "a sample": user("SELECT item FROM {t} TABLESAMPLE SYSTEM (100)", by=OWN),
    "a copy": user("CREATE TABLE evil.c AS TABLE {t}", "SELECT item FROM evil.c", "DROP TABLE evil.c", by=OWN),
    "a materialized view": user(
        "CREATE MATERIALIZED VIEW evil.m AS TABLE {t}", "SELECT item FROM evil.m", "DROP MATERIALIZED VIEW evil.m", by=OWN
    ),
    "the kit's own functions": user("SELECT tiergate.store_key('mine', repeat('x', 40))", by=DENIED),
    "the kit's parameter": user("SELECT tiergate.set_tenant_guc('app.mine')", by=DENIED),
    "the kit replaced": user(
        "CREATE OR REPLACE FUNCTION tiergate.current_tenant() RETURNS text LANGUAGE sql AS $$SELECT 'std_2'$$", by=DENIED
    ),
    "other functions ahead in the path": user(
        "SET search_path = evil, pg_catalog, public", "SELECT current_setting('app.tenant_id', true)", READ, by=OWN
    ),
    "temporary ones": user(
        "CREATE FUNCTION pg_temp.current_setting(text, boolean) RETURNS text LANGUAGE sql AS $$SELECT 'std_2'::text$$",
        "SET search_path = pg_temp, pg_catalog, public", READ, by=OWN,
    ),
    "a temporary table in its place": user(
        "CREATE TEMP TABLE {t} (tenant_id text, item text)", "INSERT INTO {t} VALUES ('std_2', 'x')", by=NOTHING
    ),
    "RESET ALL": user("RESET ALL", by=OWN),
    "RESET ALL ahead in the text": user("RESET ALL; " + READ, by=OWN),
    "RESET ALL amid the text": user("SELECT 1; RESET ALL; " + READ + "; RESET ALL", by=OWN),
    "RESET ALL in a text that is not parsed": user(padded("RESET ALL; " + READ, LONG), by=NOTHING),
    "RESET ALL that is committed in a text that fails": user("RESET ALL; COMMIT; BEGIN; SELECT 1/0", by="22012"),
    "DISCARD ALL": user("DISCARD ALL", by=OWN),
    "a notification of what is read": user(
        "LISTEN c", "SELECT pg_notify('c', left(string_agg(item, ','), 5000)) FROM {t}", by=OWN
    ),
}  # fmt: skip

BECOME = "SELECT become('std_2')"
UNSEEN = {
    "a function": stopped(USER, "BEGIN", BECOME),
    "a function, named at the login": stopped(LOGIN, "BEGIN", BECOME),
    "a function in the text that reads": stopped(USER, BECOME + "; " + READ),
    "a function in the batch that reads": stopped(USER, batch(BECOME, READ)),
    "a function that is called in a row": stopped(USER, "SELECT item FROM {t}, (SELECT become('std_2') OFFSET 0) AS b"),
    "a call of it by number": stopped(USER, "BEGIN", lambda t: function_call(CALLS["become"], b"std_2")),
    "a cast that is a function": stopped(USER, "BEGIN", "SELECT ROW('std_2')::evil.whom::text"),
    "an operator that is one": stopped(USER, "BEGIN", "SELECT OPERATOR(evil.@@@) 'std_2'::text"),
    "a view that calls one": stopped(USER, "BEGIN", "SELECT * FROM evil.becomes"),
    "a rule that calls one": stopped(USER, "BEGIN", "INSERT INTO evil.door VALUES ('std_2')"),
    "a trigger that calls one": stopped(USER, "BEGIN", "INSERT INTO evil.gate VALUES ('std_2')"),
    "an index that calls one": stopped(USER, "BEGIN", "INSERT INTO evil.indexed VALUES ('std_2')"),
    "a check that calls one": stopped(USER, "BEGIN", "INSERT INTO evil.checked VALUES ('std_2')"),
    "a check that a COPY asks": stopped(
        USER, "BEGIN", lambda t: query("COPY evil.checked FROM STDIN") + copy_data(b"std_2\n") + b"c\0\0\0\4"
    ),
    "a default that calls one": stopped(USER, "BEGIN", "INSERT INTO evil.filled (n) VALUES (1)"),
    "a generated column that calls one": stopped(USER, "BEGIN", "INSERT INTO evil.generated VALUES ('std_2')"),
    "a partition that is found by one": stopped(USER, "BEGIN", "INSERT INTO evil.parted VALUES ('std_2')"),
    "a domain that calls one": stopped(USER, "BEGIN", x("SELECT $1::evil.known", ["std_2"])),
    "a domain that is only tried": stopped(USER, "BEGIN", "SELECT pg_input_is_valid('std_2', 'evil.known')"),
    "an aggregate of it": stopped(USER, "BEGIN", "SELECT evil.last_of(t) OVER () FROM (VALUES ('std_2')) AS v (t)"),
    "in a COPY": stopped(USER, "BEGIN", "COPY (" + BECOME + ") TO STDOUT"),
    "in an EXPLAIN ANALYZE": stopped(USER, "BEGIN", "EXPLAIN ANALYZE " + BECOME),
    "a procedure": stopped(USER, "BEGIN", "CALL evil.becoming('std_2')"),
    "a prepared statement that calls one": stopped(USER, "BEGIN", "PREPARE b AS " + BECOME, "EXECUTE b"),
    "a cursor that calls one": stopped(USER, "BEGIN", "DECLARE c CURSOR FOR " + BECOME, "FETCH c"),
    "pg_settings in one's own words": stopped(
        USER, "BEGIN", "SET LOCAL search_path = evil, pg_catalog, public",
        "SELECT set_config(name, 'std_2', true) FROM pg_settings WHERE name = 'work_mem'",
    ),
    "INSERT as the victim": stopped(USER, BECOME + "; INSERT INTO {t} VALUES ('std_2', 9999, 'x')"),
    "UPDATE as the victim": stopped(USER, BECOME + "; UPDATE {t} SET item = 'x' WHERE tenant_id = 'std_2'"),
    "DELETE as the victim": stopped(USER, BECOME + "; DELETE FROM {t} WHERE tenant_id = 'std_2'"),
    "COPY as the victim": stopped(USER, BECOME + "; COPY {t} TO STDOUT"),
    "COPY into a table of one's own": stopped(
        USER, "BEGIN", BECOME, "INSERT INTO drop_box SELECT item FROM {t}", "SELECT * FROM drop_box"
    ),
    "a notification of what the victim has": stopped(
        USER, "LISTEN c", "BEGIN", BECOME, "SELECT pg_notify('c', left(string_agg(item, ','), 5000)) FROM {t}", "COMMIT"
    ),
    "a large object of what the victim has": stopped(
        USER, "BEGIN", BECOME, "SELECT lo_from_bytea(4242, string_agg(item, ',')::bytea) FROM {t}",
        "SELECT convert_from(public.reads_object(4242), 'UTF8')",
    ),
    "a function, by a service user": stopped(SERVICE, "BEGIN", BECOME),
    "a function in a block held back": stopped(
        SERVICE, several("BEGIN", "SET LOCAL app.tenant_id = 'free_1'", BECOME, READ)
    ),
    "a function of one's own in place of version()": stopped(
        UNCHOSEN, "SET search_path = evil, pg_catalog, public",
        lambda t: query("SELECT version()" if t == "plain" else "SELECT current_database()"), by="refused: there is no seal",
    ),
    "the victim's name and the own seal": stopped(
        USER, "SELECT become('std_2', current_setting('tiergate.seal', true)); " + READ
    ),
    "a forged seal": stopped(USER, f"SELECT become('std_2', '{FORGED}'); " + READ),
    "a seal in capitals": stopped(
        USER, "SELECT become('std_2', upper(current_setting('tiergate.seal', true))); " + READ, by="refused: the seal is mal"
    ),
    "two seals at once": stopped(
        USER, f"SELECT become('std_2', '{FORGED}.{FORGED}'); " + READ, by="refused: the seal is malformed"
    ),
    "a seal of a day too far": stopped(
        USER, f"SELECT become('std_2', '{FORGED.replace('9999999999', '9' * 13)}'); " + READ, by="refused: the seal is mal"
    ),
    "a seal of another version": stopped(
        USER, f"SELECT become('std_2', '2{FORGED[1:]}'); " + READ, by="the seal is malformed"
    ),
    "a seal at the startup": stopped(f"{USER}?tiergate.seal={FORGED}", "BEGIN", BECOME),
}  # fmt: skip

ID = "0b0e7a34-3c55-4b60-9c3c-3b9f7d1e2a01"
FREE = "SET LOCAL app.tenant_id = 'free_1'"
STARTUP = {
    "by options": refused(f"{USER}?options=-c app.tenant_id=std_2", by="28000"),
    "by options with a dash": refused(f"{USER}?options=--App.tenant-id=std_2", by="28000"),
    "by a startup parameter": refused(f"{USER}?APP.Tenant_ID=std_2", by="28000"),
    "by two of them": refused(f"{USER}?app.tenant_id=std_1&APP.tenant_id=std_2", by="28000"),
    "by the user's name": refused(f"{USER}@std_2", by="28000"),
    "by the id": refused(f"{USER}@{ID.upper()}", by="28000"),
    "by a service user's options": refused("service?options=-capp.tenant_id=std_2", by="28000"),
    "as the superuser": refused(f"{USER}?options=-c role=postgres", by=DENIED),
    "without policies": refused(f"{USER}?options=-c row_security=off", by="42501: query would be"),
    "with a path of one's own": refused(f"{USER}?options=-c search_path=evil,public", by=OWN),
    "as a replica": refused(f"{USER}?replication=database", by=DENIED),
}  # fmt: skip

SERVICES = {
    "SET": refused(SERVICE, SET, by=MAY_NOT),
    "SET where none is chosen": refused(UNCHOSEN, SET, by=MAY_NOT),
    "no choice": refused(UNCHOSEN, READ, by="42501: no tenant has been chosen"),
    "no choice in a batch": refused(UNCHOSEN, batch(READ), by="42501: no tenant has been chosen"),
    "an empty choice": refused(SERVICE, "SET app.tenant_id = ''", by="42501: no tenant has been chosen"),
    "a role where none is chosen": refused(UNCHOSEN, "SET ROLE app_reader", by="42501: no tenant has been chosen"),
    "SET by the id": refused(SERVICE, f"SET app.tenant_id = '{ID}'", by=MAY_NOT),
    "SET by the id in capitals": refused(SERVICE, f"SET app.tenant_id = '{ID.upper()}'", by=MAY_NOT),
    "a name with a blank": refused(SERVICE, "SET app.tenant_id = 'std_2 '", by=MAY_NOT),
    "a name in capitals": refused(SERVICE, "SET app.tenant_id = 'STD_2'", by=MAY_NOT),
    "a bound value": refused(SERVICE, x("SELECT set_config('app.tenant_id', $1, false)", ["std_2"]), by=MAY_NOT),
    "a bound value in binary": refused(
        SERVICE, x("SELECT set_config('app.tenant_id', $1, $2)", [b"std_2", b"\0"], formats=[1, 1], name="s"), by=MAY_NOT
    ),
    "a bound value with a zero": refused(
        SERVICE, x("SELECT set_config('app.tenant_id', $1, false)", [b"std_2\0"]), by=MAY_NOT
    ),
    "a statement that was bound to another": refused(
        SERVICE, x("SELECT set_config('app.tenant_id', $1, true)", ["free_1"], name="s"),
        raw(bind(["std_2"], name="s") + execute() + SYNC), by=MAY_NOT,
    ),
    "such a statement within a transaction": refused(
        SERVICE, x("SELECT set_config('app.tenant_id', $1, true)", ["free_1"], name="s"), "BEGIN", "SELECT 1",
        raw(bind(["std_2"], name="s") + execute() + SYNC), READ, by=SETTLED,
    ),
    "a value whose blanks its type drops": refused(
        SERVICE, "BEGIN", "SELECT 1", x("SELECT set_config('app.tenant_id', $1, true)", ["std_1"], oids=[1042]), READ,
        by="42501",
    ),
    "the own name by a type of one's own": refused(
        SERVICE, "BEGIN", "SELECT 1", "SELECT set_config('app.tenant_id', 'std_1'::text, true)", READ, by="42501"
    ),
    "a portal from before the transaction": refused(
        SERVICE, raw(parse("SELECT set_config('app.tenant_id', 'free_1', true)") + bind(portal="p") + SYNC), "BEGIN",
        "SELECT 1", raw(execute("p") + SYNC), READ, by="34000",
    ),
    "SET LOCAL in a block held back": refused(SERVICE, "BEGIN", "SET LOCAL app.tenant_id = 'std_2'", READ, by=MAY_NOT),
    "requests that do not wait": refused(
        SERVICE, several("BEGIN", "SET LOCAL app.tenant_id = 'std_2'", READ, "COMMIT"), by=MAY_NOT
    ),
    "a batch": refused(SERVICE, batch("BEGIN", "SET LOCAL app.tenant_id = 'std_2'", READ), by=MAY_NOT),
    "back to a savepoint behind the refusal": refused(
        SERVICE, "BEGIN", "SAVEPOINT a", "SET LOCAL app.tenant_id = 'std_2'", "ROLLBACK TO a", READ, by=MAY_NOT
    ),
    "SET within a transaction": refused(SERVICE, "BEGIN", READ, "SET LOCAL app.tenant_id = 'std_2'", READ, by=SETTLED),
    "computed": refused(SERVICE, "SELECT set_config('app.' || 'tenant_id', 'std_2', false)", by=COMPUTED),
    "beside something else": refused(SERVICE, "SELECT 1; " + SET, by="42501: parameter"),
    "blanks that a cast drops": refused(
        SERVICE, "SELECT set_config('app.tenant_id '::bpchar, 'std_2', false)", by=COMPUTED
    ),
    "behind the end of another's block": refused(
        SERVICE, "BEGIN; " + FREE, "SELECT 1", "COMMIT; " + READ, by="25001: the session's tenant changes with the end"
    ),
    "behind its end in a batch": refused(
        SERVICE, "BEGIN; " + FREE, "SELECT 1", batch("COMMIT", READ), by="25001: the transaction of another tenant has ended"
    ),
    "a chain behind another's block": refused(
        SERVICE, "BEGIN; " + FREE, "SELECT 1", "COMMIT AND CHAIN", READ, by="25001: the session's tenant changes"
    ),
    "back to a savepoint from before the choice": refused(
        SERVICE, "BEGIN", "SAVEPOINT a", FREE, "SELECT 1", "ROLLBACK TO a", READ,
        by="25001: the tenant of this transaction was chosen behind",
    ),
    "a choice that its text rolls back": refused(SERVICE, "SET app.tenant_id = 'free_1'; ROLLBACK; " + READ, by=OWN),
    "a local choice that its text commits": refused(SERVICE, FREE + "; COMMIT; " + READ, by=OWN),
    "RESET ALL within another's transaction": refused(
        SERVICE, "SET app.tenant_id = 'free_1'", "BEGIN", "SELECT 1", "RESET ALL", READ,
        by="25001: the tenant cannot be changed within a transaction, as RESET ALL",
    ),
    "RESET ALL": refused(SERVICE, "RESET ALL", by="42501: no tenant has been chosen"),
    "RESET ALL ahead in the text": refused(
        SERVICE, "SET app.tenant_id = 'free_1'", "RESET ALL; " + READ, by="42501: no tenant has been chosen"
    ),
    "DISCARD ALL ahead in a batch": refused(
        SERVICE, "SET app.tenant_id = 'free_1'", batch("DISCARD ALL", READ), by="25001: the transaction of another tenant"
    ),
    "DISCARD ALL": refused(SERVICE, "DISCARD ALL", by="42501: no tenant has been chosen"),
    "a text that is not parsed": refused(SERVICE, padded(SET, LONG), by="42501: parameter"),
    "a text that is not held": refused(SERVICE, padded(SET, HUGE), by=TOO_LONG),
    "a block that is begun in a text that is not parsed": refused(
        SERVICE, padded("BEGIN; SET LOCAL app.tenant_id = 'std_2'", LONG), READ, by="42501: parameter"
    ),
    "a statement that is closed": refused(
        SERVICE, x("SELECT set_config('app.tenant_id', $1, true)", ["free_1"], name="s"),
        raw(close("S", "s") + bind(["std_2"], name="s") + SYNC), by="26000",
    ),
}  # fmt: skip


def left(*steps: Step, looks: tuple[Step, ...] = (), by: str = OWN) -> Attempt:
    return Attempt(USER, looks, by, by, steps)


def gone(*steps: Step, hears: str) -> Attempt:
    return Attempt(USER, (), OWN, OWN, steps, hears)


def after(who: str, *steps: Step, by: str = OWN) -> Attempt:
    """The connection has last spoken for the victim, and is told of the attacker's tenant within its transaction."""
    return Attempt(who, steps, by, by, (READ,))


SLIPS = {
    "an error and a read behind it": after(USER, several("SELECT 1/0", READ), by="22012"),
    "errors and reads by turns": after(USER, several(*["SELECT 1/0", READ] * 8), by="22012"),
    "batches that fail and reads behind them": after(
        USER, lambda t: b"".join(x(text)(t) for text in ["SELECT 1/0", READ] * 4), by="22012"
    ),
    "a value that fails and a read behind it": after(USER, several("SELECT 'a'::int", READ), by="22P02"),
    "ROLLBACK and a read in one text": after(USER, "ROLLBACK; " + READ),
    "ROLLBACK behind a SELECT in one text": after(USER, "SELECT 1; ROLLBACK; " + READ),
    "ROLLBACK and a read in one batch": after(USER, batch("ROLLBACK", READ)),
    "ROLLBACK between reads in one batch": after(USER, batch(READ, "ROLLBACK", READ)),
    "a ROLLBACK that was prepared before": after(
        USER, raw(parse("ROLLBACK", "r") + SYNC),
        lambda t: parse("SELECT 1") + bind() + execute() + bind(name="r") + execute() + parse(f"SELECT item FROM {t}")
        + bind() + execute() + SYNC,
    ),
    "a ROLLBACK under the name that the batch parses": after(
        USER, raw(parse("ROLLBACK", "r") + SYNC),
        lambda t: parse("SELECT 1", "r") + bind(name="r") + execute() + parse(f"SELECT item FROM {t}") + bind() + execute()
        + SYNC, by="42P05",
    ),
    "a ROLLBACK that takes the name's place": after(
        USER, lambda t: parse("SELECT 1", "r") + close("S", "r") + parse("ROLLBACK", "r") + bind(name="r") + execute()
        + parse(f"SELECT item FROM {t}") + bind() + execute() + SYNC,
    ),
    "ROLLBACK in an EXECUTE": after(
        USER, raw(parse("ROLLBACK", "r") + SYNC), several("EXECUTE r", READ), by="26000"
    ),
    "two statements in one Parse": after(USER, x("SELECT 1; ROLLBACK"), by="42601"),
    "a ROLLBACK behind a comment": after(USER, "/* SELECT */ ROLLBACK; " + READ),
    "a ROLLBACK behind a line comment": after(USER, "SELECT 1 -- ;\n; ROLLBACK; " + READ),
    "a ROLLBACK behind a literal that is none": after(
        USER, "SET standard_conforming_strings = off", r"SELECT 'a\''; ROLLBACK; SELECT item FROM {t} --'",
    ),
    "the same in another encoding": after(
        USER, SJIS, lambda t: query(b"SELECT '\x83\\'; ROLLBACK; SELECT item FROM " + t.encode() + b" --'"),
    ),
    "a zero in the text": after(USER, raw(query("SELECT 1\0; ROLLBACK")), by="08P01"),
    "a portal that the batch has not bound": after(USER, lambda t: execute() + parse(f"SELECT item FROM {t}") + SYNC,
                                                   by="34000"),
    "the portal of the change": after(USER, raw(parse("SELECT 1") + execute("tiergate_state") + SYNC), by="34000"),
    "the statement of the change": after(USER, raw(parse("SELECT 1") + bind(name="tiergate_state") + execute() + SYNC),
                                         by="26000"),
    "the statement of the question": after(USER, "SELECT 1", raw(bind(name="tiergate_query") + execute() + SYNC),
                                           by="26000"),
    "the unnamed statement behind a question": after(
        USER, x(READ), "SELECT 1", raw(bind() + execute() + SYNC), by="26000"
    ),
    "BEGIN and what does not wait for it": after(USER, several("BEGIN", READ, "ROLLBACK", READ)),
    "BEGIN with more than that": after(USER, several("BEGIN READ ONLY; ROLLBACK; " + READ, READ)),
    "a BEGIN that fails": after(USER, several("BEGIN SELECT", READ), by="42601"),
    "a block that is rolled back": after(USER, "BEGIN", several("SELECT 1", "ROLLBACK", READ)),
    "a block that chains": after(USER, "BEGIN", several("ROLLBACK AND CHAIN", READ, "ROLLBACK")),
    "a block that is prepared": after(
        USER, several("BEGIN", "PREPARE TRANSACTION 'slip'", READ, "ROLLBACK PREPARED 'slip'")
    ),
    "its own backend's cancel": after(USER, several("SELECT cancels_itself()", READ), by="57014"),
    "behind the ROLLBACK of another's block": after(
        SERVICE, "BEGIN", FREE, several("SELECT 1/0", "ROLLBACK; " + READ), by="22012"
    ),
    "a chain behind the ROLLBACK of another's block": after(
        SERVICE, "BEGIN", FREE, "SELECT 1", several("ROLLBACK AND CHAIN", READ), by="25001"
    ),
    "behind it in a batch": after(SERVICE, "BEGIN", FREE, "SELECT 1", batch("ROLLBACK", READ), by="25001"),
    "behind it in a text that is not parsed": after(
        SERVICE, "BEGIN", FREE, "SELECT 1", padded("ROLLBACK; " + READ, LONG), by="25001"
    ),
    "behind it in a text that is not held": after(
        SERVICE, "BEGIN", FREE, "SELECT 1", padded("ROLLBACK; " + READ, HUGE), by=TOO_LONG
    ),
    "a ROLLBACK that is not held in a batch": after(
        SERVICE, "BEGIN", FREE, "SELECT 1", batch(padded("ROLLBACK", HUGE), READ), by=TOO_LONG
    ),
    "back to a savepoint that stood ahead of the choice": after(
        SERVICE, "BEGIN", "SAVEPOINT a", FREE, several("SELECT 1/0", "ROLLBACK TO a", READ), by="22012"
    ),
    "a lock that outlives the block": after(
        SERVICE, "SET app.tenant_id = 'std_1'", "BEGIN", "SET app.tenant_id = 'free_1'", "SET LOCAL app.tenant_id = 'std_1'",
        several("SELECT pg_advisory_lock(1)", "ROLLBACK", READ),
    ),
    "a lock that outlives another's block": after(
        SERVICE, "SET app.tenant_id = 'std_1'", "BEGIN", FREE, several("SELECT pg_advisory_lock(1)", "ROLLBACK", READ),
    ),
    "the choice beside another parameter, rolled back": after(
        SERVICE, "SELECT set_config('app.tenant_id', 'std_1', false), set_config('a.b', 'x', false)",
        several("BEGIN", "SELECT 1", "ROLLBACK", READ),
    ),
    "another's tenant beside another parameter": refused(
        SERVICE, "SELECT set_config('a.b', 'x', false), set_config('app.tenant_id', 'std_2', false)", by=MAY_NOT
    ),
    "another's by a bound value beside another parameter": refused(
        SERVICE, x("SELECT set_config('a.b', $1, false), set_config('app.tenant_id', $2, false)", ["x", "std_2"]), by=MAY_NOT
    ),
    "the name bound twice": refused(
        SERVICE,
        x("SELECT set_config('app.tenant_id', $1, true), set_config('app.Tenant_id', $2, true)", ["std_1", "std_2"]),
        by="42501",
    ),
    "a bound name beside it": refused(
        SERVICE,
        x("SELECT set_config('app.tenant_id', $1, true), set_config($2, 'std_2', true)", ["std_1", "app.tenant_id"]),
        by="42501",
    ),
}  # fmt: skip


COPIED = b"secret of std_2\n"
LEFT = {
    "a cursor WITH HOLD": left("DECLARE c CURSOR WITH HOLD FOR " + READ, looks=("FETCH ALL FROM c",), by="34000"),
    "a temporary table": left("CREATE TEMP TABLE mine AS " + READ, looks=("SELECT * FROM mine",), by="42P01"),
    "a temporary view": left("CREATE TEMP VIEW seen AS " + READ, looks=("SELECT * FROM seen",), by="42P01"),
    "a statement prepared in SQL": left("PREPARE p AS " + READ, looks=("EXECUTE p",), by="26000"),
    "a statement prepared by message": left(
        x(READ, name="s"), looks=(raw(bind(name="s") + execute() + SYNC),), by="26000"
    ),
    "the unnamed statement": left(x(READ), looks=(raw(bind() + execute() + SYNC),), by="26000"),
    "an open portal": left(
        "BEGIN", lambda t: parse(f"SELECT item FROM {t}") + bind(portal="p") + execute("p", 1) + SYNC,
        looks=(raw(execute("p") + SYNC),), by="34000",
    ),
    "a parameter": left("SET app.note = 'secret of std_2'", looks=("SELECT current_setting('app.note', true)", READ)),
    "a parameter set by a bound name": left(
        x("SELECT set_config('app.note', $1, false)", ["secret of std_2"]),
        looks=("SELECT current_setting('app.note', true)", READ),
    ),
    "a name that it listens to": left("LISTEN c", looks=("SELECT pg_notify('c', 'secret of ' || 'std_2')", READ)),
    "a transaction": gone("BEGIN", "UPDATE {t} SET item = 'x'", hears="Z"),
    "a transaction that has failed": gone("BEGIN", "SELECT 1/0", hears="Z"),
    "a batch without its end": gone(lambda t: parse(f"SELECT item FROM {t}") + bind() + execute() + FLUSH, hears="C"),
    "a result that is half read": gone("SELECT a.item FROM {t} a, {t} b, {t} c", hears="D"),
    "half a request": gone(lambda t: query(f"SELECT item FROM {t}")[:-5], hears=""),
    "a copy that has not ended": gone(lambda t: query("COPY drop_box FROM STDIN") + copy_data(COPIED), hears="G"),
}  # fmt: skip

CALLS: dict[str, int] = {}  # oids of what is planted, and the port of its server, found by the fixture

GROUPS = {
    "spelled": SPELLINGS, "hidden": HIDDEN, "by message": MESSAGES, "by right": RIGHTS, "unseen": UNSEEN,
    "left by the victim": LEFT, "slips": SLIPS, "at the login": STARTUP, "by a service user": SERVICES,
}  # fmt: skip
ATTEMPTS = {f"{group}: {name}": a for group, table in GROUPS.items() for name, a in table.items()}
