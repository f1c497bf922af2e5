"""More attempts: by what one role of the database shares, and what PostgreSQL keeps from a role without rights.

The tenants of a shared cluster are one role there. `FENCE` is what README says to take from that role.
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.integration.attempts import (
    CALLS,
    DENIED,
    FAILED,
    FREE,
    LOGIN,
    MAY_NOT,
    NAMED,
    NOTHING,
    OWN,
    OWNER,
    READ,
    SERVICE,
    USER,
    Attempt,
    after,
    left,
    raw,
    refused,
    stopped,
    user,
)
from tests.rawclient import SYNC, bind, execute, function_call, parse

README = Path(__file__).parents[2] / "README.md"
_block = re.search(r"```sql\n(-- What one role shares.*?)```", README.read_text("utf-8"), re.DOTALL)
assert _block is not None
FENCE = _block[1]

NO_ROLE = "42501: permission denied to"
SEAL = "coalesce(current_setting('tiergate.seal', true), '')"
LOCAL = "SET LOCAL app.tenant_id = 'std_2'"

RIGHTS = {
    "a program's output": user("COPY drop_box FROM PROGRAM 'id'", by=DENIED),
    "a file's lines": user("COPY drop_box FROM '/etc/hostname'", by=DENIED),
    "a file read": user("SELECT pg_read_file('PG_VERSION')", by=DENIED),
    "a directory": user("SELECT pg_ls_dir('base')", by=DENIED),
    "the write-ahead log's files": user("SELECT * FROM pg_ls_waldir()", by=DENIED),
    "the server's log": user("SELECT pg_current_logfile()", by=DENIED),
    "a replica, physical": refused(f"{USER}?replication=true", by=DENIED),
    "a replica, named at the login": refused(f"{LOGIN}?replication=database", by=DENIED),
    "a slot": user("SELECT pg_create_logical_replication_slot('mine', 'pgoutput')", by=NO_ROLE),
    "a slot's changes": user("SELECT pg_logical_slot_peek_changes('any', NULL, NULL)", by=NO_ROLE),
    "a publication of the table": user("CREATE PUBLICATION mine FOR TABLE {t}", by="42501"),
    "a publication of all tables": user("CREATE PUBLICATION mine FOR ALL TABLES", by="42501"),
    "a subscription": user(
        "CREATE SUBSCRIPTION mine CONNECTION '' PUBLICATION p WITH (connect = false)", by="42501"
    ),
    "an event trigger": user(
        "CREATE EVENT TRIGGER mine ON ddl_command_end EXECUTE FUNCTION evil.opens()", by=NO_ROLE
    ),
    "an extension": user("CREATE EXTENSION pageinspect", by="42501: permission denied to create extension"),
    "a foreign data wrapper": user("CREATE FOREIGN DATA WRAPPER mine", by=NO_ROLE),
    "a function in C": user("CREATE FUNCTION evil.c() RETURNS int LANGUAGE c AS 'libc', 'getpid'", by=DENIED),
    "a role of one's own": user("CREATE ROLE mine LOGIN", by=NO_ROLE),
    "a role beyond policies": user("ALTER ROLE app BYPASSRLS", by="42501"),
    "to be a member of the superuser": user("GRANT postgres TO app", by="42501"),
    "to be a member of who reads all": user("GRANT pg_read_all_data TO app", by="42501"),
    "the table's owner": user("ALTER TABLE {t} OWNER TO app", by=OWNER),
    "the table's parent": user("CREATE TABLE evil.child () INHERITS ({t})", by=OWNER),
    "a rule of the table": user("CREATE RULE mine AS ON SELECT TO {t} DO INSTEAD SELECT 1", by=OWNER),
    "the policy altered": user("ALTER POLICY own ON {t} USING (true)", by=OWNER),
    "the catalog": user("UPDATE pg_class SET relrowsecurity = false", by=DENIED),
    "the policies' catalog": user("DELETE FROM pg_policy", by=DENIED),
    "statistics that are kept": user("SELECT stavalues1 FROM pg_statistic", by=DENIED),
    "statistics of one's own": user("CREATE STATISTICS mine (mcv) ON tenant_id, item FROM {t}", by=OWNER),
    "a lossy index of one's own": user("CREATE INDEX ON {t} (item)", by=OWNER),
    "the roles' secrets": user("SELECT rolpassword FROM pg_authid", by=DENIED),
    "an operator that is always true": user(
        "SET search_path = evil, pg_catalog, public", "SELECT item FROM {t} WHERE tenant_id = 'std_2'", by=OWN
    ),
    "an operator in the sort": user(
        "SET search_path = evil, pg_catalog, public", "SELECT item FROM {t} ORDER BY tenant_id = 'std_2'", by=OWN
    ),
    "a function that sees rows too early": user("SELECT item FROM {t} WHERE leaks(item)", by=OWN),
    "a function that claims to leak nothing": user(
        "CREATE FUNCTION evil.safe(text) RETURNS boolean LANGUAGE sql LEAKPROOF AS 'SELECT true'",
        by="42501: only superuser can define a leakproof function",
    ),
}  # fmt: skip

SCOPES = {
    "SET LOCAL behind a savepoint": user("BEGIN", "SAVEPOINT a", LOCAL, "ROLLBACK TO a", READ, by=NAMED),
    "SET LOCAL in a savepoint that has failed": user(
        "BEGIN", "SAVEPOINT a", "SELECT 1/0", LOCAL, "ROLLBACK TO a", READ, by=NAMED
    ),
    "a savepoint within one": user(
        "BEGIN", "SAVEPOINT a", "SAVEPOINT a", LOCAL, "ROLLBACK TO a", "RELEASE a", READ, by=NAMED
    ),
    "a service user's, taken back": refused(
        SERVICE, "BEGIN", "SAVEPOINT a", FREE, "ROLLBACK TO a", READ, by=OWN
    ),
    "a service user's, of the victim": refused(
        SERVICE, "BEGIN", "SAVEPOINT a", LOCAL, "ROLLBACK TO a", READ, by=MAY_NOT
    ),
    "a service user's, released": refused(
        SERVICE, "BEGIN", "SAVEPOINT a", LOCAL, "RELEASE a", READ, by=MAY_NOT
    ),
    "a service user's behind a failure": refused(
        SERVICE, "BEGIN", "SELECT 1/0", LOCAL, "ROLLBACK", READ, by=FAILED
    ),
    "behind PREPARE TRANSACTION": after(
        SERVICE, "BEGIN", "SET LOCAL app.tenant_id = 'std_1'", "SELECT 1", "PREPARE TRANSACTION 'mine'",
        "ROLLBACK PREPARED 'mine'", READ,
    ),
    "a statement prepared for the tenant before": refused(
        SERVICE, raw(parse("SELECT current_setting('app.tenant_id') AS item", "w") + SYNC),
        "SET app.tenant_id = 'free_1'", raw(bind(name="w") + execute() + SYNC), "SET app.tenant_id = 'std_1'", READ,
        by=OWN,
    ),
}  # fmt: skip

SHARES = {
    "a large object": left(
        "SELECT lo_from_bytea(0, 'secret of std_2')", looks=("SELECT lo_get(oid) FROM pg_largeobject_metadata",),
        by=DENIED,
    ),
    "a large object that is opened": left("SELECT 1", looks=("BEGIN", "SELECT lo_open(4711, 262144)"), by=DENIED),
    "what another backend runs": left(
        "SELECT 'secret of std_2'", looks=("SELECT query FROM pg_stat_activity",), by=DENIED
    ),
    "what it runs, by its number": left(
        "SELECT 'secret of std_2'",
        looks=("SELECT pg_stat_get_backend_activity(n) FROM generate_series(1, 100) AS n",), by=DENIED,
    ),
    "another backend cancelled": left("SELECT 1", looks=("SELECT pg_cancel_backend(1)",), by=DENIED),
    "another backend ended": left("SELECT 1", looks=("SELECT pg_terminate_backend(1)",), by=DENIED),
    "channels that it listens to": left("LISTEN c", looks=("SELECT pg_listening_channels() AS item", READ)),
    "a payload that came too early": left("NOTIFY c, 'secret of std_2'", looks=("LISTEN c", "SELECT 1", READ)),
    "numbers that it has drawn": left(
        "SELECT nextval('numbers')", looks=("SELECT currval('numbers')",), by="55000"
    ),
    "the number that it has drawn last": left(
        "SELECT nextval('numbers')", looks=("SELECT lastval()",), by="55000"
    ),
    "a lock of its session": left(
        "SELECT pg_advisory_lock(4711)", looks=("SELECT pg_advisory_unlock(4711)", READ)
    ),
    "a parameter of its transaction": left(
        "BEGIN", "SET LOCAL app.note = 'secret of std_2'", "COMMIT",
        looks=("SELECT current_setting('app.note', true)", READ),
    ),
}  # fmt: skip

# By dblink and postgres_fdw the server itself connects: to itself, where the proxy is not asked.
HERE = "'host=127.0.0.1 port=' || inet_server_port() || ' dbname=red_team user=app'"
DIAL = f"SELECT dblink_connect_u('mine', {HERE})"
THERE = "SELECT * FROM dblink('mine', $${what}$$) AS t (item text)"
AS_VICTIM = THERE.replace("{what}", "SET app.tenant_id = 'std_2'; SELECT item FROM {t}")
UNSEALED = "42501: tenant context refused: there is no seal"
ELSEWHERE = {
    "the server again": stopped(USER, DIAL, AS_VICTIM, by=UNSEALED),
    "the server again, as a startup parameter says": stopped(
        USER, DIAL.replace("user=app", "user=app options=-capp.tenant_id=std_2"),
        THERE.replace("{what}", "SELECT item FROM {t}"), by=UNSEALED,
    ),
    "the server again, with the own seal": stopped(
        USER, DIAL, f"SELECT dblink_exec('mine', format('SET tiergate.seal = %L', {SEAL}))", AS_VICTIM,
    ),
    "a foreign table": user("SELECT item FROM evil.far_{t}", by=NOTHING),
    "a foreign view that calls a function": stopped(USER, "SELECT item FROM evil.far_view_of_{t}", by=UNSEALED),
    "the victim's connection": left(DIAL, looks=(AS_VICTIM,), by="2F003"),
    "the victim's connection without a name": left(
        f'SELECT "dblink_connect_u"({HERE})', looks=("SELECT * FROM dblink('SELECT 1 FROM {t}') AS t (item text)",),
        by="08003",
    ),
    "the victim's connection from within a block": left(
        f"DO $$BEGIN PERFORM dblink_connect_u('mine', {HERE}); END$$", looks=(AS_VICTIM,), by="2F003"
    ),
    "the victim's connection by a call of a number": left(
        lambda _: function_call(
            CALLS["dblink_connect_u"], b"host=127.0.0.1 dbname=postgres user=app port=%d" % CALLS["port"]
        ),
        looks=("SELECT * FROM dblink('SELECT 1 FROM {t}') AS t (item text)",), by="08003",
    ),
    "the victim's connection behind its DISCARD ALL": left(DIAL, "DISCARD ALL", looks=(AS_VICTIM,), by="2F003"),
}  # fmt: skip

# Of a victim that is at work meanwhile on another connection; `{temp}` is its schema for temporary tables.
BESIDE = {
    "its temporary table": (("CREATE TEMP TABLE mine AS SELECT item FROM {t}",), ("SELECT * FROM {temp}.mine",), DENIED),
    "a copy of it": (("CREATE TEMP TABLE mine AS SELECT item FROM {t}",), ("COPY {temp}.mine TO STDOUT",), DENIED),
    "a row into it": (("CREATE TEMP TABLE mine (item text)",), ("INSERT INTO {temp}.mine VALUES ('x')",), DENIED),
    "its schema ahead in the path": (
        ("CREATE TEMP TABLE mine AS SELECT item FROM {t}",),
        ("SET search_path = {temp}, public", "SELECT * FROM mine"), "42P01",
    ),
    "its cursor WITH HOLD": (("DECLARE c CURSOR WITH HOLD FOR SELECT item FROM {t}",), ("FETCH ALL FROM c",), "34000"),
    "its prepared statement": (("PREPARE p AS SELECT item FROM {t}", "LISTEN c"), ("EXECUTE p",), "26000"),
    "its advisory lock": (("SELECT pg_advisory_lock(815)",), ("SELECT pg_advisory_unlock(815)", READ), OWN),
    "its open transaction": (("BEGIN", "UPDATE {t} SET item = item"), (READ,), OWN),
    "its prepared transaction's rows": (
        ("BEGIN", "INSERT INTO {t} VALUES ('std_2', 4711, 'secret of std_2')", "PREPARE TRANSACTION 'victims'"),
        ("ROLLBACK PREPARED 'victims'", READ), OWN,
    ),
    "the proxy, as itself": (
        (), ("SELECT dblink_connect_u('mine', 'host=127.0.0.1 port={proxy} dbname=red_team user=bound password=app-secret')",
             THERE.replace("{what}", "SELECT item FROM {t}")), OWN,
    ),
    "the proxy, as the victim": (
        (), ("SELECT dblink_connect_u('host=127.0.0.1 port={proxy} dbname=red_team user=bound@std_2 password=app-secret')",),
        'user "bound" may not act for tenant "std_2"',
    ),
    "what it runs": (("BEGIN", "SELECT 'secret of std_2'"), ("SELECT query FROM pg_stat_activity",), DENIED),
}  # fmt: skip

MORE: dict[str, Attempt] = {
    f"{group}: {name}": attempt
    for group, table in {
        "by rights": RIGHTS,
        "by scope": SCOPES,
        "shared": SHARES,
        "elsewhere": ELSEWHERE,
    }.items()
    for name, attempt in table.items()
}
