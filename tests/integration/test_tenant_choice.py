"""A service user says in SQL which tenant it speaks for; what it reads is what PostgreSQL says to the same script."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.tables import one_connection
from tests.rawclient import (
    FLUSH,
    SYNC,
    Frame,
    RawClient,
    ask,
    bind,
    close,
    describe,
    error_fields,
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
WHO = "SELECT current_setting('app.tenant_id', true), count(*), min(tenant_id), max(tenant_id) FROM orders"
STD_2_ID = "0b0e7a34-3c55-4b60-9c3c-3b9f7d1e2a01"


def service(tables: Tables, mode: str = "transaction", size: int = 1) -> Tables:
    """A service user of several tenants."""
    tenants = ["std_1", "std_2", "ent_1", "vip_1"]
    return one_connection(tables, mode, size) | {"user.app": tables["user.app"] | {"tenants": tenants}}


@pytest.fixture
def proxy(start_proxy: StartProxy, all_tiers: Tables) -> Proxy:
    return start_proxy(service(all_tiers), default_tenant="std_1")


@pytest.fixture
def lobby(start_proxy: StartProxy, all_tiers: Tables) -> Proxy:
    """There is no tenant for those who name none."""
    return start_proxy(service(all_tiers))


def direct(server: EmbeddedServer, home: str = "std_1") -> RawClient:
    return RawClient(server.port).log_in(
        "app", "appdb", "app-secret", parameters={"options": f"-c app.tenant_id={home}"}
    )


def heard(frames: list[Frame]) -> list[tuple[str, Any]]:
    """What must be equal: everything but the wording, and what only one side can know, of errors."""
    found: list[tuple[str, Any]] = []
    for frame in frames:
        if frame.kind in "EN":
            fields = error_fields(frame.body)
            found.append((frame.kind, (fields["S"], fields["C"], fields["M"], fields.get("P"))))
        elif frame.kind == "T" or frame.kind != "S":
            found.append((frame.kind, frame.body))
    return found


def same(proxy: Proxy, server: EmbeddedServer, script: list[bytes]) -> None:
    with direct(server) as other, proxy.raw("app") as client:
        for number, data in enumerate(script):
            ready = max(1, sum(frame.kind in "QS" for frame in _frames(data)))
            expected, found = other.ask(data, ready), client.ask(data, ready)
            assert heard(found) == heard(expected), (number, data)


def _frames(data: bytes) -> list[Frame]:
    found = []
    while data:
        end = 1 + int.from_bytes(data[1:5], "big")
        found.append(Frame(chr(data[0]), data[5:end]))
        data = data[end:]
    return found


def x(text: str, values: list[str] | None = None) -> bytes:
    return ask(text, values or []) + SYNC


def q(*texts: str) -> list[bytes]:
    return [query(text) for text in texts]


S1, S2 = (f"SET app.tenant_id = '{tenant}'" for tenant in ("std_1", "std_2"))
L1, L2 = (f"SET LOCAL app.tenant_id = '{tenant}'" for tenant in ("std_1", "std_2"))
CONFIG = "SELECT set_config('app.tenant_id', $1, false)"
SERIALIZABLE = "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"
SEVERAL = "SELECT set_config('work_mem', $2, $3), set_config('app.tenant_id', $1, $3) AS t, set_config('a.b', $2, $3)"
OTHERS = "SELECT current_setting('work_mem'), current_setting('a.b', true)"
REPEATABLE = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
RUN = bind() + execute()
SCRIPTS = {
    "set": q(S2, WHO, "SHOW app.tenant_id", "RESET app.tenant_id", WHO),
    "set to default": q(S2, "SET app.tenant_id TO DEFAULT", WHO),
    "spelled otherwise": q('SET "app"."Tenant_ID" TO std_2', WHO, "set session APP.tenant_id = 'std_1'", WHO),
    "by function": q("SELECT set_config('app.tenant_id', 'std_2', false)", WHO,
        "SELECT set_config('App.Tenant_id', 'std_1', false) AS x", WHO),
    "by function with its schema": q("SELECT pg_catalog.set_config('app.tenant_id', 'std_2', 'off')", WHO),
    "local": q("BEGIN", L2, WHO, "COMMIT", WHO),
    "local by function": q("BEGIN", "SELECT set_config('app.tenant_id', 'std_2', true)", WHO, "ROLLBACK", WHO),
    "local outside": q(L2, WHO, "SELECT set_config('app.tenant_id', 'std_2', true)", WHO),
    "set that is committed": q("BEGIN", S2, WHO, "COMMIT", WHO),
    "set that is rolled back": q("BEGIN", S2, WHO, "ROLLBACK", WHO),
    "set that fails": q("BEGIN", S2, "SELECT 1/0", "COMMIT", WHO),
    "set in a block without work": q("BEGIN", S2, "COMMIT", WHO, "BEGIN", S1, "ROLLBACK", WHO),
    "set and local": q("BEGIN", S2, L1, WHO, "COMMIT", WHO),
    "local and set": q("BEGIN", L1, S2, WHO, "COMMIT", WHO),
    "savepoints": q(
        "BEGIN", "SAVEPOINT a", S2, "SAVEPOINT b", L1, "ROLLBACK TO b",
        "SHOW app.tenant_id", "RELEASE b", "SELECT current_setting('app.tenant_id')", "ROLLBACK TO SAVEPOINT a", WHO,
        "ROLLBACK TO a",
        WHO, "COMMIT", WHO,
    ),
    "a savepoint that is released": q("BEGIN", "SAVEPOINT a", S2, "RELEASE a", WHO, "COMMIT", WHO),
    "an unknown savepoint": q("BEGIN", "SAVEPOINT a", "ROLLBACK TO b", WHO, "SHOW app.tenant_id", "SAVEPOINT c",
        "ROLLBACK TO a", WHO, "COMMIT"),
    "a failed block": q("BEGIN", "RELEASE nothing", "BEGIN", "SET TRANSACTION READ ONLY", "COMMIT", WHO),
    "savepoints of the server": q("BEGIN", "SAVEPOINT a", "SELECT 1/0", "ROLLBACK TO a", WHO, "COMMIT", WHO),
    "options": q("BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY", "SHOW transaction_isolation",
        "SHOW transaction_read_only", "COMMIT"),
    "set transaction": q("START TRANSACTION", REPEATABLE, L2, "SHOW transaction_isolation", WHO, "END"),
    "set transaction behind a savepoint": q("BEGIN", "SAVEPOINT a", SERIALIZABLE, "ROLLBACK TO a", "COMMIT"),
    "set transaction outside": q("SET TRANSACTION READ ONLY", WHO),
    "set transaction in a text": q(
        "SET TRANSACTION READ ONLY; INSERT INTO notes VALUES (1, 'x')", "SET TRANSACTION READ ONLY; COMMIT AND CHAIN", WHO,
        "SET TRANSACTION READ ONLY; ROLLBACK AND CHAIN",
        S2 + "; SET TRANSACTION READ ONLY; INSERT INTO notes VALUES (1, 'x')", WHO,
    ),
    "begin twice": q("BEGIN", "BEGIN READ ONLY", "SHOW transaction_read_only", "BEGIN", "COMMIT", "COMMIT"),
    "no block": q("COMMIT", "ROLLBACK", "SAVEPOINT a", "RELEASE a", "ROLLBACK TO a", WHO),
    "comments": q("/* request 1 */ BEGIN -- go", "-- who\nSET LOCAL app.tenant_id = 'std_2' /* it */", WHO,
        "/**/ROLLBACK;", WHO),
    "several": q("BEGIN; SET LOCAL app.tenant_id = 'std_2'; " + WHO + "; COMMIT", WHO, S2 + "; " + WHO, WHO),
    "several that are done here": q("BEGIN; SAVEPOINT a; SET LOCAL app.tenant_id = 'std_2'", WHO, "COMMIT",
        "BEGIN; COMMIT; " + WHO),
    "several that fail": q("SET app.tenant_id = 'std_2'; SELECT 1/0", WHO,
        "SET app.tenant_id = 'std_2'; SELECT nosuch FROM orders", WHO,
                           L2 + "; " + WHO, WHO, "BEGIN; SELECT 1/0", WHO, "ROLLBACK", WHO),
    "several that end": q(L2 + "; COMMIT; " + WHO, WHO, S2 + "; ROLLBACK; " + WHO, WHO, S2 + "; SELECT 1; ROLLBACK", WHO,
        S2 + "; COMMIT; SELECT 1/0", WHO, S1 + "; ROLLBACK; " + S1, WHO),
    "a batch that ends": [x(S1) + parse(L2) + RUN + parse("COMMIT") + RUN + parse(WHO) + RUN + SYNC, x(WHO),
        parse(S2) + RUN + parse("ROLLBACK") + RUN + parse(WHO) + RUN + SYNC, x(WHO)],
    "savepoints behind the name": q("BEGIN", L2, "SAVEPOINT a", WHO, "SAVEPOINT b", "ROLLBACK TO b", "ROLLBACK TO a", WHO,
        "COMMIT", WHO),
    "a syntax error": q("BEGIN", "SET LOCAL work_mem", "ROLLBACK", "BEGIN ISOLATION LEVEL NONE", "SELEC",
        "BEGIN; SELEC", WHO),
    "prepared in SQL": q(
        "PREPARE w (int) AS " + WHO, "EXECUTE w(1)", S2, "EXECUTE w(1)", "BEGIN", L1, "EXECUTE w(1)", "EXECUTE w(2)",
        "COMMIT", "EXECUTE w(1)", "BEGIN", L1, "EXECUTE nothing", "ROLLBACK", "BEGIN", "DEALLOCATE w", "ROLLBACK",
        "EXECUTE w(1)", "BEGIN", "SELECT name FROM pg_prepared_statements", "COMMIT",
    ),
    "prepared in SQL, extended": [
        x("PREPARE w AS " + WHO), x(S2), x("BEGIN"), x("EXECUTE w"), x("COMMIT"), x(S1),
        x("BEGIN"), x(L2), x("EXECUTE w"), x("ROLLBACK"), x("DEALLOCATE w"), x("EXECUTE w"),
    ],
    "reset all": q(S2, "RESET ALL", WHO),
    "reset all ahead in a text": q(S2, "RESET ALL; " + WHO, WHO, S2, "RESET ALL; SELECT 1/0", WHO, "RESET ALL;", WHO),
    "reset all in a block": q(S2, "BEGIN", L2, "RESET app.tenant_id", WHO, "COMMIT", WHO),
    "reset all that is rolled back": q(S2, "BEGIN", "RESET ALL", "ROLLBACK", WHO),
    "discard all": q(S2, WHO, "DISCARD ALL", WHO),
    "extended": [
        x(S2), x(WHO), x("SHOW app.tenant_id"), x(CONFIG, ["std_1"]),
        x(WHO), x("BEGIN"), x("SELECT set_config('app.tenant_id', $1, $2)", ["std_2", "t"]), x(WHO), x("COMMIT"), x(WHO),
    ],
    "prepared": [
        parse("SELECT set_config('app.tenant_id', $1, true)", "who") + describe("S", "who") + SYNC, parse("BEGIN",
        "b") + SYNC,
        parse("BEGIN", "b") + SYNC,
        bind(name="b") + execute() + bind(["std_2"], name="who") + describe("P") + execute() + SYNC, x(WHO), x("COMMIT"),
        x(WHO), close("S", "who") + close("S", "none") + close("P", "none") + SYNC, bind(["std_2"],
        name="who") + execute() + SYNC,
    ],
    "in one batch": [
        parse("BEGIN") + RUN + parse(L2) + bind() + describe("P") + execute() + parse(WHO) + bind()
        + describe("P") + execute() + SYNC, x("ROLLBACK"), x(WHO),
    ],
    "an autocommit batch": [
        parse(S2) + RUN + parse(WHO) + RUN + SYNC, x(WHO),
        parse(S1) + RUN + parse("SELECT 1/0") + RUN + SYNC, x(WHO),
    ],
    "row limits": [
        parse("SHOW app.tenant_id") + bind() + execute(rows=1) + execute() + SYNC,
        parse("SELECT set_config('app.tenant_id', 'std_2', false)") + bind() + execute(rows=1) + execute() + SYNC,
        x("BEGIN"), parse(CONFIG) + bind(["std_1"]) + describe("P") + execute(rows=1) + SYNC, x(WHO), x("ROLLBACK"),
        parse("SELECT set_config('app.tenant_id', 'std_2', false)") + bind(portal="p") + execute("p",
        rows=5) + close("P", "p") + SYNC, x(WHO),
    ],
    "wrong number of values": [parse(CONFIG, "w") + bind(name="w") + execute() + SYNC, x(WHO)],
    "among others": q(
        "SELECT set_config('work_mem', '1MB', false), set_config('app.tenant_id', 'std_2', false)", WHO, OTHERS,
        "SELECT set_config('app.tenant_id', 'std_1', false), set_config('work_mem', 'none', false)",
        WHO, OTHERS, S1, WHO, OTHERS,
        "BEGIN; SELECT set_config('app.tenant_id', 'std_2', true), set_config('work_mem', '2MB', true)",
        WHO, OTHERS, "COMMIT", WHO, OTHERS,
        "BEGIN", "SELECT set_config('app.tenant_id', 'std_2', false), set_config('a.b', 'x', false)", "ROLLBACK",
        WHO, OTHERS,
        "SELECT set_config('app.tenant_id', 'std_2', true), set_config('work_mem', '3MB', true)", WHO, OTHERS,
    ),
    "among others, extended": [
        x(SEVERAL, ["std_2", "1MB", "f"]), x(WHO), x(OTHERS), parse(SEVERAL, "s") + describe("S", "s") + SYNC,
        bind(["std_1", "2MB", "f"], name="s") + execute() + SYNC, x(WHO), x(OTHERS), x("BEGIN"),
        bind(["std_2", "3MB", "t"], name="s") + describe("P") + execute() + SYNC, x(WHO), x(OTHERS), x("COMMIT"),
        x(WHO), x(OTHERS), bind(["std_2", "none", "f"], name="s") + execute() + SYNC, x(WHO), x(OTHERS),
    ],
    "errors in a block": [x("BEGIN"), x("ROLLBACK TO x"), x(L2), x(WHO), SYNC, x("ROLLBACK"), SYNC],
}  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_reads_what_it_reads_direct(name: str, proxy: Proxy, shared: EmbeddedServer) -> None:
    same(proxy, shared, SCRIPTS[name])


def tenant_of(client: RawClient) -> str | None:
    """Whose rows it reads; one tenant's at most."""
    found = client.rows("SELECT DISTINCT tenant_id FROM orders")
    assert len(found) <= 1
    return found[0][0] if found else None


def test_a_prepared_transaction_keeps_what_was_set(proxy: Proxy) -> None:
    client = proxy.raw("app")
    for text in ("BEGIN", "SET app.tenant_id = 'std_2'", "SELECT 1", "PREPARE TRANSACTION 'choice'"):
        client.checked(client.query(text))
    assert tenant_of(client) == "std_2"
    client.checked(client.query("ROLLBACK PREPARED 'choice'"))


def test_the_pool_of_the_tenant_serves_it(proxy: Proxy) -> None:
    client = proxy.raw("app")
    where = "SELECT name FROM where_am_i"
    for tenant, place in (("std_2", "shared"), ("ent_1", "dedicated"), ("vip_1", "vip"), ("std_1", "shared")):
        client.checked(client.query(f"SET app.tenant_id = '{tenant}'"))
        assert client.value(where) == place
        (row,) = [r for r in proxy.console("SHOW CLIENTS") if r["user"] == "app"]
        assert (row["tenant"], row["cluster"]) == (
            tenant,
            {"dedicated": "ent", "vip": "vip-1"}.get(place, place),
        )
        client.checked(client.query("BEGIN; SET LOCAL app.tenant_id = 'ent_1'"))
        assert client.value(where) == "dedicated"
        client.checked(client.query("COMMIT"))
        assert client.value(where) == place


def test_by_id(proxy: Proxy) -> None:
    client = proxy.raw("app")
    client.checked(client.query(f"SET app.tenant_id = '{STD_2_ID.upper()}'"))
    assert client.value("SHOW app.tenant_id") == "std_2"
    assert client.rows(WHO)[0][:2] == ["std_2", "30"]


@pytest.mark.parametrize(
    ("text", "sqlstate"),
    [
        ("SET app.tenant_id = 'free_1'", "42501"),  # another's
        ("SET app.tenant_id = 'none'", "42501"),
        ("SELECT set_config('app.tenant_id', 'free_1', false)", "42501"),
        ("SELECT set_config('app.tenant_id', 'std_2', false), 1", "42501"),
        ("SELECT set_config('app.tenant_id', 'std_2', false), set_config('a' || 'b', 'x', false)", "42501"),
        ("SELECT set_config('app.tenant_id', 'free_1', false), set_config('a.b', 'x', false)", "42501"),
        (
            "SELECT set_config('app.tenant_id', 'std_1', true), set_config('app.tenant_id', 'std_2', true)",
            "42501",
        ),
        ("SELECT set_config('app.' || 'tenant_id', 'std_2', false)", "42501"),
        ("SELECT set_config('app.tenant_id '::bpchar, 'std_2', false)", "42501"),
        ("SET app.tenant_id FROM CURRENT", "42501"),
        ("ALTER ROLE app SET app.tenant_id = 'std_2'", "42501"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql SET app.tenant_id = 'std_2' AS 'SELECT 1'", "42501"),
        ("SELECT 1; SET app.tenant_id = 'std_2'", "42501"),
        ("UPDATE pg_settings SET setting = 'std_2' WHERE name = 'app.tenant_id'", "42501"),
        ("DO $$ BEGIN PERFORM set_config('app.tenant_id', 'std_2', false); END $$", "42501"),
    ],
)
def test_what_is_refused(text: str, sqlstate: str, proxy: Proxy) -> None:
    client = proxy.raw("app")
    for data in (query(text), ask(text) + SYNC):
        assert sqlstates(client.ask(data)) in ([sqlstate], ["42601"])
        assert client.rows(WHO)[0][0] == "std_1"
    client.checked(client.query("BEGIN"))
    assert sqlstates(client.query(text)) == [sqlstate]
    assert sqlstates(client.query(WHO)) == ["25P02"]
    client.checked(client.query("ROLLBACK"))
    assert tenant_of(client) == "std_1"


def test_with_other_parameters_the_session_is_not_pinned(proxy: Proxy) -> None:
    client = proxy.raw("app")
    client.checked(
        client.query("SELECT set_config('app.tenant_id', 'std_2', false), set_config('a.b', 'x', false)")
    )
    assert client.rows(WHO)[0][0] == "std_2"
    wait_until(lambda: not any(pool.active for pool in proxy.worker.pools))
    client.checked(client.query(S1))
    assert client.rows("SELECT current_setting('app.tenant_id'), current_setting('a.b')") == [["std_1", "x"]]


def test_within_a_transaction_the_tenant_is_settled(proxy: Proxy) -> None:
    client = proxy.raw("app")
    for change in (
        query("SET app.tenant_id = 'std_2'"),
        query("SET LOCAL app.tenant_id = 'std_2'"),
        query("RESET app.tenant_id"),
        ask("SET LOCAL app.tenant_id = 'std_2'") + SYNC,
        ask("SELECT set_config('app.tenant_id', $1, true)", ["std_2"]) + SYNC,
    ):
        client.checked(client.query("BEGIN"))
        client.checked(client.query(WHO))
        assert sqlstates(client.ask(change)) == ["25001"]
        assert sqlstates(client.query(WHO)) == ["25P02"]
        client.checked(client.query("ROLLBACK"))
        assert tenant_of(client) == "std_1"


def test_a_savepoint_ahead_of_the_name_is_not_gone_back_to(proxy: Proxy) -> None:
    """The server would keep the tenant of which it was told before the block."""
    client = proxy.raw("app")
    for name in (S2, L2):
        for back in (
            query("ROLLBACK TO a"),
            ask("ROLLBACK TO SAVEPOINT a") + SYNC,
            query("SELECT 1; ROLLBACK TO a"),
        ):
            for text in ("BEGIN", "SAVEPOINT a", name, WHO):
                client.checked(client.query(text))
            assert sqlstates(client.ask(back)) == ["25001"]
            assert sqlstates(client.query(WHO)) == ["25P02"]
            client.query("COMMIT")
            assert tenant_of(client) == "std_1"


def test_nothing_runs_behind_a_reset_of_the_tenant_within_its_transaction(proxy: Proxy) -> None:
    client = proxy.raw("app")
    for reset in (query("RESET ALL"), ask("RESET ALL") + SYNC):
        for end, tenant in (("ROLLBACK", "std_2"), ("COMMIT", "std_1")):
            for text in (S2, "BEGIN", WHO):
                client.checked(client.query(text))
            client.checked(client.ask(reset))
            if end == "ROLLBACK":
                assert sqlstates(client.query(WHO)) == ["25001"]
            client.query(end)
            assert tenant_of(client) == tenant


def test_clients_are_shown_with_the_tenant_that_they_speak_for(lobby: Proxy) -> None:
    client = lobby.raw("app")

    def shown() -> tuple[str | None, ...]:
        (row,) = [row for row in lobby.console("SHOW CLIENTS") if row["user"] == "app"]
        return row["tenant"], row["tier"], row["cluster"]

    nobody = shown()
    assert nobody[:2] == ("", "")
    client.checked(client.query("SET app.tenant_id = 'ent_1'"))
    assert shown() == ("ent_1", "enterprise", "ent")
    client.checked(client.query(WHO))
    assert shown() == ("ent_1", "enterprise", "ent")
    client.checked(client.query("BEGIN; SET LOCAL app.tenant_id = 'std_2'"))
    assert shown() == ("std_2", "standard", "shared")
    client.checked(client.query("COMMIT; RESET app.tenant_id"))
    assert shown() == nobody


@pytest.mark.parametrize("home", ["std_1", ""])
def test_what_follows_a_reset_in_one_text_or_batch_is_not_run_for_the_tenant_before(
    start_proxy: StartProxy, all_tiers: Tables, home: str
) -> None:
    client = start_proxy(service(all_tiers), default_tenant=home).raw("app")
    told = "25001" if home else "42501"
    client.checked(client.query(S2))
    if home:
        assert client.rows(f"RESET ALL; {WHO}")[0][0] == home
    else:
        assert sqlstates(client.query(f"RESET ALL; {WHO}")) == [told]
    for text in (f"{WHO}; RESET ALL; {WHO}", f"RESET ALL; COMMIT; {WHO}"):
        client.checked(client.query(S2))
        assert sqlstates(client.query(text)) == [told]
        assert tenant_of(client) == "std_2"
    client.checked(client.query("BEGIN"))
    assert tenant_of(client) == "std_2"
    assert sqlstates(client.query(f"RESET ALL; {WHO}")) == [told]
    client.query("ROLLBACK")
    assert tenant_of(client) == "std_2"
    client.checked(client.query("RESET ALL; SET DateStyle = 'German'; SELECT pg_advisory_unlock_all()"))
    assert client.value("SHOW DateStyle") == "German, DMY"
    client.checked(client.query(S2))
    frames = client.ask(ask("DISCARD ALL") + ask(WHO) + SYNC)
    assert (kinds(frames).count("C"), sqlstates(frames)) == (1, ["25001"])
    assert sqlstates(client.query(WHO)) == ([] if home else ["42501"])


def test_a_session_goes_on_behind_a_batch_that_failed_ahead_of_its_end(proxy: Proxy) -> None:
    client = proxy.raw("app")
    client.checked(client.query(S2))
    batch = b"".join(ask(text) for text in ("BEGIN", L1, WHO, "SELECT 1/0", "COMMIT"))
    assert sqlstates(client.ask(batch + SYNC)) == ["22012"]
    for step in (ask(WHO) + SYNC, query(WHO)):
        assert sqlstates(client.ask(step)) == ["25P02"]
    client.checked(client.query("ROLLBACK"))
    assert tenant_of(client) == "std_2"


def test_the_same_tenant_may_be_named_within_its_transaction(proxy: Proxy) -> None:
    client = proxy.raw("app")
    client.checked(client.query("BEGIN"))
    assert tenant_of(client) == "std_1"
    for change in (
        query("SET app.tenant_id = 'std_1'"),
        query("SET LOCAL app.tenant_id = 'std_1'"),
        ask("SELECT set_config('app.tenant_id', $1, $2)", ["std_1", "t"]) + SYNC,
    ):
        client.checked(client.ask(change))
        assert tenant_of(client) == "std_1"
    client.checked(client.query("COMMIT"))
    (row,) = [r for r in proxy.console("SHOW CLIENTS") if r["user"] == "app"]
    assert row["state"] != "pinned"
    assert not row["pins"]


def test_nothing_runs_behind_the_end_of_another_tenants_transaction(proxy: Proxy) -> None:
    """In one text or batch with the COMMIT it would run as the tenant whose transaction has ended."""
    client = proxy.raw("app")
    for end in (
        query("COMMIT; " + WHO),
        query("COMMIT AND CHAIN"),
        query("/* */ END; SELECT 1"),
        ask("COMMIT") + ask(WHO) + SYNC,
        parse("COMMIT", "end")
        + bind(name="end", portal="p")
        + execute("p")
        + parse(WHO)
        + bind()
        + execute()
        + SYNC,
    ):
        client.checked(client.query("BEGIN; SET LOCAL app.tenant_id = 'std_2'"))
        client.checked(client.query(WHO))
        assert sqlstates(client.ask(end)) == ["25001"]
        client.query("ROLLBACK")
        assert tenant_of(client) == "std_1"
    client.checked(client.query("BEGIN"))
    client.checked(client.query(WHO))
    client.checked(client.query("COMMIT; " + WHO))  # the same tenant


def test_requests_that_do_not_wait_for_answers(proxy: Proxy) -> None:
    client = proxy.raw("app")
    tenants = ["std_2", "ent_1", "std_1", "std_2"]
    data = b"".join(
        query(f"SET app.tenant_id = '{t}'") + query("SELECT current_setting('app.tenant_id'), 1")
        for t in tenants
    )
    assert [row[0] for row in rows(client.ask(data, 8))] == tenants
    data = b"".join(
        query("BEGIN")
        + query(f"SET LOCAL app.tenant_id = '{t}'")
        + query("SELECT current_setting('app.tenant_id'), 1")
        + query("COMMIT")
        for t in tenants
    )
    assert [row[0] for row in rows(client.ask(data, 16))] == tenants
    data = b"".join(
        ask("SELECT set_config('app.tenant_id', $1, false)", [t])
        + SYNC
        + ask("SELECT current_setting('app.tenant_id'), 1")
        + SYNC
        for t in tenants
    )
    assert [row[0] for row in rows(client.ask(data, 8))][1::2] == tenants


@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
@pytest.mark.parametrize(
    "choose",
    [
        query("BEGIN") + query("SET LOCAL app.tenant_id = 'std_2'"),
        query("SET app.tenant_id = 'std_2'") + query("BEGIN"),
        ask("BEGIN") + ask("SELECT set_config('app.tenant_id', $1, true)", ["std_2"]) + SYNC + SYNC,
        bind(["std_2"], name="choose") + execute() + SYNC + query("BEGIN"),
    ],
    ids=["block", "simple", "extended", "prepared"],
)
def test_a_statement_is_prepared_without_a_sync(choose: bytes, at_once: bool, proxy: Proxy) -> None:
    """asyncpg prepares with a Flush; what it says next is not of that transaction."""
    client = proxy.raw("app")
    for name in ("one", "two"):
        client.checked(client.ask(parse(CONFIG, "choose") + SYNC))
        prepare = parse(WHO, name) + describe("S", name) + FLUSH
        if at_once:
            frames = client.ask(prepare + choose, 2)
        else:
            client.send(prepare)
            client.read_until("T")
            frames = client.ask(choose, 2)
        client.checked(frames)
        use = bind(name=name) + execute() + SYNC
        assert rows(client.ask(use))[0][0] == "std_2"
        client.checked(client.query("COMMIT"))
        client.checked(client.query("RESET app.tenant_id"))
        assert rows(client.ask(use))[0][0] == "std_1"
        client.checked(client.ask(close("S", "choose") + SYNC))


def test_a_batch_that_has_worked_is_one_transaction(proxy: Proxy) -> None:
    client = proxy.raw("app")
    choose = ask("SELECT set_config('app.tenant_id', $1, true)", ["std_2"]) + SYNC
    for work in (ask(WHO), parse(WHO) + bind()):
        client.send(work + FLUSH)
        client.read_until("C2")
        assert sqlstates(client.ask(choose)) == ["25001"]
    client.send(parse("SELEC", "bad") + FLUSH)
    client.read_until("E")
    assert kinds(client.ask(choose)) == "Z"  # skipped
    assert tenant_of(client) == "std_1"
    assert sqlstates(client.ask(parse("SELEC", "bad") + FLUSH + choose)) == ["42601"]
    assert tenant_of(client) == "std_1"


# --- where no tenant has been chosen ----------------------------------------------------------------


def test_before_a_tenant_is_chosen(lobby: Proxy) -> None:
    client = lobby.raw("app")
    for data in (
        query("SELECT now()"),
        query(WHO),
        ask(WHO) + SYNC,
        query("SELECT * FROM items; SELECT 1"),
        query("TABLE items"),
    ):
        (error,) = [error_fields(f.body) for f in client.ask(data) if f.kind == "E"]
        assert error["C"] == "42501"
        assert "SET app.tenant_id" in error["H"]
    assert client.value("SHOW app.tenant_id") == ""
    assert client.value("SELECT current_setting('app.tenant_id', true)") == ""
    client.checked(client.query("SET app.tenant_id = 'std_2'"))
    assert tenant_of(client) == "std_2"
    client.checked(client.query("RESET app.tenant_id"))
    assert sqlstates(client.query(WHO)) == ["42501"]
    client.checked(client.query("SET app.tenant_id = 'std_1'"))
    client.checked(client.query("SET app.tenant_id = ''"))
    assert sqlstates(client.query(WHO)) == ["42501"]


def test_a_block_before_a_tenant_is_chosen(lobby: Proxy) -> None:
    client = lobby.raw("app")
    client.checked(client.query("BEGIN"))
    client.checked(client.query("SET LOCAL app.tenant_id = 'std_2'"))
    assert tenant_of(client) == "std_2"
    client.checked(client.query("COMMIT"))
    client.checked(client.query("BEGIN"))
    assert sqlstates(client.query(WHO)) == ["42501"]
    assert sqlstates(client.query("SET LOCAL app.tenant_id = 'std_2'")) == ["25P02"]
    assert kinds(client.query("ROLLBACK")) == "CZ"


def test_what_concerns_the_session_alone_needs_no_tenant(lobby: Proxy) -> None:
    """Drivers and their pools ask such things when they connect and when they give a connection back."""
    client = lobby.raw("app")
    for text in (
        "select pg_catalog.version()", "SHOW standard_conforming_strings", "SELECT current_schema()",
        "SET TIME ZONE 'Asia/Tokyo'",
        "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;", "DISCARD ALL", "", "SET DateStyle = 'German'",
        "SELECT 1", "SELECT set_config('TimeZone', 'UTC', false)",
    ):  # fmt: skip
        client.checked(client.query(text))
    client.checked(client.ask(ask("SELECT set_config('TimeZone', $1, false)", ["Asia/Tokyo"]) + SYNC))
    for text in (
        "SELECT set_config('app.tenant_id', 'std_1', false), 1",
        "SELECT set_config('role', 'none', false)",
    ):
        assert sqlstates(client.query(text)) == ["42501"]
    client.checked(client.query("SET app.tenant_id = 'std_1'"))
    assert client.value("SHOW DateStyle") == "German, DMY"
    assert client.value("SHOW TimeZone") == "Asia/Tokyo"


def test_a_statement_that_was_prepared_for_a_tenant_waits_for_one(lobby: Proxy) -> None:
    client = lobby.raw("app")
    client.checked(client.query("SET app.tenant_id = 'std_2'"))
    client.checked(client.ask(parse(WHO, "who") + SYNC))
    use = bind(name="who") + execute() + SYNC
    assert rows(client.ask(use))[0][0] == "std_2"
    client.checked(client.query("RESET app.tenant_id"))
    assert sqlstates(client.ask(use)) == ["42501"]
    client.checked(client.query("SET app.tenant_id = 'std_1'"))
    assert rows(client.ask(use))[0][0] == "std_1"


def test_who_may_choose(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(service(all_tiers))
    named = proxy.raw("app@std_1")
    assert sqlstates(named.query("SET app.tenant_id = 'std_2'")) == ["42501"]
    only_one = proxy.raw("other", password="other-secret")
    assert sqlstates(only_one.query("SET app.tenant_id = 'std_2'")) == ["42501"]
    anyone = proxy.raw("old", password="old-secret")
    assert sqlstates(anyone.query("SET app.tenant_id = 'nowhere'")) == ["3D000"]


def test_where_statements_are_the_servers_no_value_is_bound(
    start_proxy: StartProxy, all_tiers: Tables
) -> None:
    """What a statement of the client's name is bound to cannot be seen."""
    proxy = start_proxy(service(all_tiers), default_tenant="std_1", max_prepared_statements=0)
    for ahead in ("SELECT 1", "BEGIN; SELECT 1"):
        client = proxy.raw("app")
        client.checked(client.query(ahead))
        assert sqlstates(client.ask(parse(CONFIG, "s") + SYNC)) == ["42501"]
        found = client.ask(bind(["free_1"], name="s") + execute() + SYNC)
        assert sqlstates(found)[0] in ("26000", "25P02")
        client.query("ROLLBACK")
        assert tenant_of(client) == "std_1"
    client.checked(client.ask(x(CONFIG, ["std_2"])))  # unnamed
    assert tenant_of(client) == "std_2"


def test_not_where_sessions_may_not(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(service(all_tiers), identify=["startup", "user"], default_tenant="std_1")
    client = proxy.raw("app")
    assert sqlstates(client.query("SET app.tenant_id = 'std_2'")) == ["42501"]
    assert tenant_of(client) == "std_1"


# --- connections that are kept ----------------------------------------------------------------------


def test_a_session_that_keeps_its_connection(proxy: Proxy) -> None:
    client = proxy.raw("app")
    client.checked(client.query("CREATE TEMP TABLE mine AS SELECT 7 AS x"))
    client.checked(client.query("SET app.tenant_id = 'std_2'"))
    assert tenant_of(client) == "std_2"
    assert client.value("SELECT x FROM mine") == "7"
    client.checked(client.query("BEGIN; SET LOCAL app.tenant_id = 'std_1'"))
    assert tenant_of(client) == "std_1"
    client.checked(client.query("COMMIT"))
    assert tenant_of(client) == "std_2"
    client.checked(client.query("SET app.tenant_id = 'ent_1'"))
    assert sqlstates(client.query("SELECT name FROM where_am_i")) == ["42501"]  # it would lose its table
    client.checked(client.query("SET app.tenant_id = 'std_2'"))
    assert client.value("SELECT x FROM mine") == "7"
    client.checked(client.query("DISCARD ALL"))
    client.checked(client.query("SET app.tenant_id = 'ent_1'"))
    assert client.value("SELECT name FROM where_am_i") == "dedicated"


def test_session_mode(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(service(all_tiers, "session", 2), pool_mode="session")
    client = proxy.raw("app")
    assert sqlstates(client.query(WHO)) == ["42501"]
    client.checked(client.query("SET app.tenant_id = 'ent_1'"))
    assert client.value("SELECT name FROM where_am_i") == "dedicated"
    client.checked(client.query("SET app.tenant_id = 'std_1'"))
    assert sqlstates(client.query("SELECT name FROM where_am_i")) == ["42501"]
    other = proxy.raw("app")
    for tenant in ("std_2", "std_1"):
        other.checked(other.query(f"SET app.tenant_id = '{tenant}'"))
        assert tenant_of(other) == tenant


def in_blocks(client: RawClient, count: int) -> None:
    """So many blocks that name no tenant."""
    for _ in range(count):
        for text in ("BEGIN", "SELECT 1", "COMMIT"):
            client.checked(client.query(text))


NAMED = "SELECT set_config('app.tenant_id', 'std_2', true)"
BEHIND = {
    "local": (query(L2),),
    "set": (query(S2),),
    "by message": (ask(CONFIG.replace("false", "true"), ["std_2"]) + SYNC,),
    "prepared": (bind(["std_2"], name="named") + execute() + SYNC,),
    "in one text": (query(f"{L2}; {WHO}"),),
    "behind a savepoint": (query("SAVEPOINT a"), query(L2)),
    "behind options": (query(REPEATABLE), query(L2)),
    "begun twice": (query("BEGIN"), query(NAMED)),
    "asked for first": (query("SHOW app.tenant_id; " + L2),),
}


@pytest.mark.parametrize("how", BEHIND)
def test_a_block_that_was_begun_at_once_may_still_be_anothers(
    proxy: Proxy, shared: EmbeddedServer, how: str
) -> None:
    """A session whose blocks have named nobody has them begun at once; that changes nothing of what it may do."""
    with direct(shared) as other, proxy.raw("app") as client:
        for side in (other, client):
            side.checked(side.ask(parse(CONFIG.replace("false", "true"), "named") + SYNC))
            in_blocks(side, 10)
            side.checked(side.query("BEGIN"))
        (session,) = proxy.call(lambda: [s for s in proxy.worker.plane.sessions if s.pid == client.pid])
        assert session.server is not None  # or this tests nothing
        for step in (*BEHIND[how], query(WHO), query("COMMIT"), query(WHO)):
            assert heard(client.ask(step)) == heard(other.ask(step)), step


def test_a_block_that_was_begun_at_once_is_its_tenants_once_it_has_worked(proxy: Proxy) -> None:
    client = proxy.raw("app")
    in_blocks(client, 10)
    for work in (query("SELECT 1"), ask("SELECT 1") + SYNC, query("DECLARE c CURSOR FOR SELECT 1")):
        client.checked(client.query("BEGIN"))
        client.checked(client.ask(work))
        assert sqlstates(client.query(L2)) == ["25001"]
        assert sqlstates(client.query(WHO)) == ["25P02"]
        client.query("ROLLBACK")
        assert tenant_of(client) == "std_1"


def test_pipelined_blocks_may_be_anothers_too(proxy: Proxy) -> None:
    client = proxy.raw("app")
    in_blocks(client, 10)
    client.send(query("BEGIN"))
    client.send(query(L2) + query(WHO) + query("COMMIT") + query(WHO))
    assert [row[0] for row in rows(client.read_ready(5))] == ["std_2", "std_1"]
    in_blocks(client, 120)
    client.send(b"".join(query(text) for text in ("BEGIN", L2, WHO, "COMMIT", WHO)))
    assert [row[0] for row in rows(client.read_ready(5))] == ["std_2", "std_1"]


# --- random scripts ---------------------------------------------------------------------------------

SEEDS = 40
_ENDS = ("COMMIT", "ROLLBACK", "END", "ABORT")
_OF_BLOCKS = (
    "SAVEPOINT a",
    "SAVEPOINT b",
    "ROLLBACK TO a",
    "ROLLBACK TO SAVEPOINT b",
    "RELEASE a",
    "RELEASE b",
)
_BEGINS = ("BEGIN", "BEGIN READ ONLY", "START TRANSACTION ISOLATION LEVEL SERIALIZABLE", "BEGIN -- x")
_READS = (WHO, WHO, "SELECT 1 / 0", "SELECT count(*) FROM items", "SHOW transaction_isolation")
_NAMES = (
    S1, S2, S2, L1, L2, L2, "RESET app.tenant_id", "SET LOCAL app.tenant_id TO DEFAULT",
    "SELECT set_config('app.tenant_id', 'std_2', false)", "SELECT set_config('app.tenant_id', 'std_1', true)",
)  # fmt: skip
_ASKS = ("SHOW app.tenant_id", "SELECT current_setting('app.tenant_id')")


class Author:
    """Writes scripts that name tenants where they may be named: not once a server has the block."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._in_block = self._served = False
        self._savepoints: set[str] = set()
        self._before: set[str] = set()  # savepoints from before the tenant was named last

    def steps(self, count: int) -> list[bytes]:
        return [*(self._step() for _ in range(count)), *q("ROLLBACK", WHO)]

    def _step(self) -> bytes:
        draw = self._random
        several = not self._served and draw.random() < 0.25
        texts = [self._text()]
        while several and texts[-1] not in _READS and draw.random() < 0.6:
            texts.append(self._text())
        if len(texts) > 1:
            plain = ["BEGIN" if text in _BEGINS else text for text in texts]
            return query("; ".join(plain))
        if draw.random() < 0.5:
            return query(texts[0])
        if texts[0] == _NAMES[8] and draw.random() < 0.5:
            return x(CONFIG, ["std_2"])
        return x(texts[0])

    def _text(self) -> str:
        draw = self._random
        kinds = [_OF_BLOCKS, _READS, _ASKS] if self._in_block else [_READS, _ASKS, _BEGINS, _BEGINS, _ENDS]
        if self._in_block:
            kinds += [_ENDS]
        if not self._served:
            kinds += [_NAMES, _NAMES]
        if self._in_block and not self._served and not self._savepoints:
            kinds += [("SET TRANSACTION READ ONLY", "BEGIN")]
        text = draw.choice(draw.choice(kinds))
        while self._served and text.rpartition(" ")[2] in self._before and text.startswith("ROLLBACK TO"):
            text = draw.choice(_READS)
        if text in _BEGINS:
            self._in_block = True
        elif text in _ENDS:
            self._in_block = self._served = False
            self._savepoints, self._before = set(), set()
        elif text in _READS:
            self._served = self._in_block
        elif text.startswith("SAVEPOINT") and self._in_block:
            self._savepoints.add(text.rpartition(" ")[2])
        elif text in _NAMES or text.startswith("ROLLBACK TO"):
            self._before |= self._savepoints
        return text


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_random_scripts(
    mode: str, start_proxy: StartProxy, all_tiers: Tables, shared: EmbeddedServer
) -> None:
    proxy = start_proxy(service(all_tiers, mode, 4), default_tenant="std_1", pool_mode=mode)
    for seed in range(SEEDS):
        script = Author(seed).steps(25)
        try:
            same(proxy, shared, script)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from None


def test_what_it_has_set_follows_it_to_its_tenants_and_nobody_else(proxy: Proxy) -> None:
    """In one write: each batch may be for another connection, and the one before it is asked first what it has."""
    enterprise = "SET app.tenant_id = 'ent_1'"
    values = "SELECT current_setting('work_mem'), current_setting('lock_timeout')"
    with proxy.raw("app") as client, proxy.raw("app@std_1") as other:
        (before,) = other.rows(values)
        for _ in range(3):
            texts = q(
                "SET work_mem = '5MB'", S2, values, "SET lock_timeout = '2s'", enterprise, values,
                "RESET work_mem", S1, values, "RESET lock_timeout",
            )  # fmt: skip
            answer = client.checked(client.ask(b"".join(texts), len(texts)))
            assert rows(answer) == [["5MB", before[1]], ["5MB", "2s"], [before[0], "2s"]]
            assert other.rows(values) == [before]
        client.send(b"".join(q("SET work_mem = '5MB'", S2, values, "SET lock_timeout = '2s'", enterprise)))
        client.close()
        assert other.rows(values) == [before]


def test_in_session_mode_a_tenant_is_chosen_during_a_pause(
    start_proxy: StartProxy, all_tiers: Tables
) -> None:
    """PAUSE waits for who has a connection to leave; so long these work."""
    proxy = start_proxy(service(all_tiers, "session", 2), default_tenant="std_1")
    client = proxy.raw("app")
    assert tenant_of(client) == "std_1"
    pause = threading.Thread(target=proxy.console, args=("PAUSE",))
    pause.start()
    wait_until(lambda: any(row["paused"] == "1" for row in proxy.console("SHOW DATABASES")))
    for name, tenant in ((S2, "std_2"), (S1, "std_1")):
        client.checked(client.query(name))
        assert tenant_of(client) == tenant
    assert pause.is_alive()
    client.close()
    pause.join(10)
    assert not pause.is_alive()
    proxy.console("RESUME")
    client = proxy.raw("app")
    client.checked(client.query(S2))
    assert tenant_of(client) == "std_2"
