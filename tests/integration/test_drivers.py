"""The drivers and programs that people use, through the proxy, in session and in transaction mode."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg  # type: ignore[import-untyped]
import psycopg
import pytest

from tests.integration.servers import DATABASE, backends, connect
from tests.waiting import wait_until

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy

Tables = dict[str, dict[str, Any]]
Connection = psycopg.Connection[Any]
MODES = ["transaction", "session"]


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def proxy(mode: str, start_module_proxy: StartProxy, all_tiers: Tables) -> Proxy:
    size = 8 if mode == "transaction" else 60  # in session mode every client keeps one
    return start_module_proxy(all_tiers, pool_mode=mode, default_pool_size=size, query_wait_timeout="15s")


# --- psycopg ----------------------------------------------------------------------------------------


def test_psycopg_transactions(proxy: Proxy) -> None:
    with proxy.connect(autocommit=False) as connection:
        with connection.transaction():
            connection.execute("INSERT INTO notes VALUES (501, 'kept')")
            with pytest.raises(psycopg.errors.DivisionByZero), connection.transaction():  # noqa: PT012
                connection.execute("INSERT INTO notes VALUES (501, 'lost')")
                connection.execute("SELECT 1/0")
        connection.commit()
        assert connection.execute("SELECT note FROM notes WHERE id = 501").fetchall() == [("kept",)]
        connection.execute("DELETE FROM notes WHERE id = 501")
        connection.rollback()
        connection.execute("DELETE FROM notes WHERE id = 501")
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS


def test_psycopg_prepared(proxy: Proxy) -> None:
    one, two = proxy.connect(prepare_threshold=0), proxy.connect("app@std_2", prepare_threshold=0)
    for n in range(20):
        assert one.execute("SELECT %s::int + 1", (n,)).fetchone() == (n + 1,)
        assert two.execute("SELECT %s::int + 2", (n,)).fetchone() == (n + 2,)
        assert one.execute("SELECT %s::text, %s::bytea", (str(n), b"\0\xff"), binary=True).fetchone() == (
            str(n),
            b"\0\xff",
        )


def test_psycopg_prepares_and_forgets_many(proxy: Proxy) -> None:
    connection = proxy.connect(prepare_threshold=0)
    connection.prepared_max = 5
    for n in range(60):
        assert connection.execute(f"SELECT %s::int + {n % 12}", (n,)).fetchone() == (n + n % 12,)


def test_psycopg_pipeline(proxy: Proxy) -> None:
    connection = proxy.connect()
    with connection.pipeline() as pipeline:
        cursors = [connection.execute("SELECT %s::int", (n,)) for n in range(300)]
        pipeline.sync()
        assert [cursor.fetchone() for cursor in cursors] == [(n,) for n in range(300)]
        with connection.transaction():
            connection.execute("INSERT INTO notes VALUES (502, 'pipe')")
    with pytest.raises(psycopg.errors.DivisionByZero), connection.pipeline():
        connection.execute("SELECT 1/0").connection.execute("SELECT 1")
    with connection.pipeline():
        assert connection.execute("SELECT count(*) FROM notes WHERE id = 502").fetchone() == (1,)
    connection.execute("DELETE FROM notes WHERE id = 502")


def test_psycopg_executemany(proxy: Proxy) -> None:
    with proxy.connect().cursor() as cursor:
        cursor.executemany("INSERT INTO notes VALUES (%s, %s)", [(503, str(n)) for n in range(500)])
        cursor.execute("DELETE FROM notes WHERE id = 503")
        assert cursor.rowcount == 500


def test_psycopg_server_side_cursors(proxy: Proxy) -> None:
    connection = proxy.connect(autocommit=False)
    with connection.cursor("named") as cursor:
        cursor.execute("SELECT n, repeat('x', 100) FROM generate_series(1, 5000) n")
        cursor.itersize = 700
        assert sum(row[0] for row in cursor) == 5000 * 5001 // 2
    with connection.cursor("scrolling", scrollable=True) as cursor:
        cursor.execute("SELECT n FROM generate_series(1, 100) n")
        cursor.scroll(50)
        assert cursor.fetchone() == (51,)
    connection.commit()
    with connection.cursor("held", withhold=True) as cursor:
        cursor.execute("SELECT n FROM generate_series(1, 100) n")
        connection.commit()
        assert len(cursor.fetchall()) == 100
    connection.rollback()


def test_psycopg_copy(proxy: Proxy) -> None:
    connection = proxy.connect()
    with connection.cursor() as cursor:
        with cursor.copy("COPY notes FROM STDIN") as copy:
            for n in range(5000):
                copy.write_row((504, f"line {n}"))
        with cursor.copy("COPY (SELECT note FROM notes WHERE id = 504) TO STDOUT (FORMAT binary)") as copy:
            copy.set_types(["text"])
            assert sum(1 for _ in copy.rows()) == 5000
        with (
            pytest.raises(psycopg.errors.InvalidTextRepresentation),
            cursor.copy("COPY notes FROM STDIN") as copy,
        ):
            copy.write("nonsense\tx\n")
        cursor.execute("SELECT count(*) FROM notes WHERE id = 504")
        assert cursor.fetchone() == (5000,)
        cursor.execute("DELETE FROM notes WHERE id = 504")


def test_psycopg_big_values(proxy: Proxy) -> None:
    connection = proxy.connect()
    value = os.urandom(6_000_000)
    row = connection.execute("SELECT %s::bytea", (value,), binary=True).fetchone()
    assert row == (value,)


def test_psycopg_notices_and_notifications(proxy: Proxy) -> None:
    connection, other = proxy.connect(), proxy.connect("app@std_2")
    notices: list[str] = []
    connection.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary or ""))
    connection.execute("SELECT complain('notice', 'hear me')")
    assert notices == ["hear me"]
    connection.execute("LISTEN driver_news")
    other.execute("NOTIFY driver_news, 'hello'")
    assert [n.payload for n in connection.notifies(timeout=10, stop_after=1)] == ["hello"]
    connection.execute("NOTIFY driver_news, 'mine'")
    own = connection.info.backend_pid
    assert [(n.pid, n.payload) for n in connection.notifies(timeout=10, stop_after=1)] == [(own, "mine")]


def test_psycopg_async(proxy: Proxy) -> None:
    async def ask(n: int) -> None:
        tenant = ("std_1", "std_2", "free_1")[n % 3]
        async with await psycopg.AsyncConnection.connect(proxy.dsn(f"app@{tenant}"), autocommit=True) as c:
            for m in range(10):
                cursor = await c.execute("SELECT current_setting('app.tenant_id'), %s::int", (n * 100 + m,))
                assert await cursor.fetchone() == (tenant, n * 100 + m)

    async def main() -> None:
        await asyncio.gather(*(ask(n) for n in range(12)))

    asyncio.run(main())


def test_psycopg_two_phase(proxy: Proxy) -> None:
    connection = proxy.connect(autocommit=False)
    xid = connection.xid(1, f"two-phase-{proxy.port}", "branch")
    connection.tpc_begin(xid)
    connection.execute("INSERT INTO notes VALUES (505, 'two phases')")
    connection.tpc_prepare()
    connection.tpc_commit()
    assert connection.execute("DELETE FROM notes WHERE id = 505").rowcount == 1
    connection.commit()


def test_psycopg_client_cursor_and_many_statements(proxy: Proxy) -> None:
    connection = proxy.connect(cursor_factory=psycopg.ClientCursor)
    cursor = connection.execute("SELECT %s; SELECT %s; SELECT %s", ("a", "b", 3))
    got = [cursor.fetchone()]
    while cursor.nextset():
        got.append(cursor.fetchone())
    assert got == [("a",), ("b",), (3,)]


# --- asyncpg ----------------------------------------------------------------------------------------


def with_asyncpg(
    proxy: Proxy, work: Callable[[asyncpg.Connection], Awaitable[None]], user: str = "app@std_1", **more: Any
) -> None:
    async def main() -> None:
        connection = await asyncpg.connect(
            host=proxy.host,
            port=proxy.port,
            user=user,
            database=DATABASE,
            password="app-secret",
            timeout=10,
            **more,
        )
        try:
            await work(connection)
        finally:
            await connection.close(timeout=10)

    asyncio.run(main())


def test_asyncpg_prepared_cache(proxy: Proxy) -> None:
    async def work(connection: asyncpg.Connection) -> None:
        for n in range(30):
            assert await connection.fetchval(f"SELECT $1::int + {n % 5}", n) == n + n % 5
        statement = await connection.prepare("SELECT $1::text || $2::text")
        for n in range(5):
            assert await statement.fetchval("a", str(n)) == f"a{n}"
        assert [a.name for a in statement.get_attributes()] == ["?column?"]

    with_asyncpg(proxy, work)
    with_asyncpg(proxy, work, "app@vip_1")
    with_asyncpg(proxy, work, statement_cache_size=0)
    with_asyncpg(proxy, work, statement_cache_size=2)


def test_asyncpg_transactions(proxy: Proxy) -> None:
    async def work(connection: asyncpg.Connection) -> None:
        async with connection.transaction(isolation="serializable"):
            await connection.execute("INSERT INTO notes VALUES ($1, $2)", 511, "kept")
            with pytest.raises(asyncpg.DivisionByZeroError):  # noqa: PT012
                async with connection.transaction():
                    await connection.execute("INSERT INTO notes VALUES (511, 'lost')")
                    await connection.fetchval("SELECT 1/0")
        assert [r["note"] for r in await connection.fetch("SELECT note FROM notes WHERE id = 511")] == [
            "kept"
        ]
        assert await connection.execute("DELETE FROM notes WHERE id = 511") == "DELETE 1"
        async with connection.transaction():
            found = [r[0] async for r in connection.cursor("SELECT generate_series(1, 500)", prefetch=60)]
        assert found == list(range(1, 501))

    with_asyncpg(proxy, work)


def test_asyncpg_copy(proxy: Proxy) -> None:
    async def work(connection: asyncpg.Connection) -> None:
        records = [(512, f"record {n}") for n in range(3000)]
        assert await connection.copy_records_to_table("notes", records=records) == "COPY 3000"
        pieces: list[bytes] = []

        async def keep(data: bytes) -> None:
            pieces.append(data)

        await connection.copy_from_query("SELECT * FROM notes WHERE id = $1", 512, output=keep)
        assert b"".join(pieces).count(b"\n") == 3000
        assert await connection.execute("DELETE FROM notes WHERE id = 512") == "DELETE 3000"

    with_asyncpg(proxy, work)


def test_asyncpg_listeners(proxy: Proxy) -> None:
    async def work(connection: asyncpg.Connection) -> None:
        heard: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
        await connection.add_listener("asyncpg_news", lambda *args: heard.put_nowait((args[1], args[3])))
        await connection.execute("SELECT pg_notify('asyncpg_news', 'hello')")
        assert await asyncio.wait_for(heard.get(), 10) == (connection.get_server_pid(), "hello")
        await connection.reset()

    with_asyncpg(proxy, work)


def test_asyncpg_timeout_cancels(proxy: Proxy, shared: EmbeddedServer) -> None:
    async def work(connection: asyncpg.Connection) -> None:
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await connection.fetchval("SELECT pg_sleep(26)", timeout=0.2)
            assert await connection.fetchval("SELECT 1") == 1
        task = asyncio.ensure_future(connection.fetchval("SELECT pg_sleep(26)"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await connection.fetchval("SELECT 2") == 2

    with_asyncpg(proxy, work)
    wait_until(lambda: not backends(shared, "query LIKE '%pg_sleep(26)%' AND state = 'active'"))


def test_asyncpg_after_alter_table(proxy: Proxy, shared: EmbeddedServer) -> None:
    """A changed result type makes asyncpg prepare again; so does the proxy."""
    with connect(shared) as direct:
        direct.execute(
            "DROP TABLE IF EXISTS changing; CREATE TABLE changing (a int); GRANT ALL ON changing TO app"
        )
        direct.execute("INSERT INTO changing VALUES (1)")

        async def work(connection: asyncpg.Connection) -> None:
            assert tuple(await connection.fetchrow("SELECT * FROM changing")) == (1,)
            for n in range(3):
                direct.execute(f"ALTER TABLE changing ADD COLUMN b{n} text DEFAULT 'x'")
                try:
                    row = await connection.fetchrow("SELECT * FROM changing")
                except asyncpg.InvalidCachedStatementError:
                    # As direct: the cache is thrown away, and the next attempt succeeds.
                    row = await connection.fetchrow("SELECT * FROM changing")
                assert tuple(row) == (1, *"x" * (n + 1))
                direct.execute("ALTER TABLE changing ALTER COLUMN a TYPE bigint")
                direct.execute("ALTER TABLE changing ALTER COLUMN a TYPE int")

        with_asyncpg(proxy, work)
        direct.execute("DROP TABLE changing")


def test_asyncpg_pool(proxy: Proxy) -> None:
    """A pool resets its connections, with what pins and what does not."""

    async def main() -> None:
        dsn = f"postgresql://app%40std_1:app-secret@{proxy.host}:{proxy.port}/{DATABASE}"
        async with asyncpg.create_pool(dsn, min_size=2, max_size=5, timeout=10) as pool:

            async def ask(n: int) -> None:
                async with pool.acquire() as connection, connection.transaction():
                    assert await connection.fetchval("SELECT $1::int", n) == n
                    assert await connection.fetchval("SELECT current_setting('app.tenant_id')") == "std_1"

            await asyncio.gather(*(ask(n) for n in range(60)))

    asyncio.run(main())


def test_asyncpg_types_and_introspection(proxy: Proxy) -> None:
    """Arrays, records and enums make asyncpg look into the catalogue in between."""

    async def work(connection: asyncpg.Connection) -> None:
        assert await connection.fetchval("SELECT ARRAY[1, 2, 3]") == [1, 2, 3]
        assert await connection.fetchval("SELECT $1::text[]", ["a", None]) == ["a", None]
        row = await connection.fetchval("SELECT i FROM items i WHERE id = 3")
        assert row["name"] == "item 3"
        assert await connection.fetchval("SELECT $1::jsonb", '{"a": 1}') == '{"a": 1}'

    with_asyncpg(proxy, work)


# --- programs ---------------------------------------------------------------------------------------


def program(name: str) -> str:
    from proxy.cli.embedded import bin_dir

    for path in (bin_dir() / name, Path("/usr/bin") / name, Path("/usr/lib/postgresql/15/bin") / name):
        if path.exists():
            return str(path)
    pytest.skip(f"no {name} in the wheel or the system")


def run(proxy: Proxy, name: str, *args: str, text: str = "", user: str = "app@std_1") -> str:
    environment = {
        **os.environ,
        "PGHOST": proxy.host,
        "PGPORT": str(proxy.port),
        "PGUSER": user,
        "PGDATABASE": DATABASE,
        "PGPASSWORD": "app-secret",
        "PGSSLMODE": "prefer",
        "PGGSSENCMODE": "disable",
    }
    done = subprocess.run(
        [program(name), *args],
        env=environment,
        input=text,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_psql(proxy: Proxy) -> None:
    script = r"""
\set ON_ERROR_STOP on
\pset format unaligned
\pset tuples_only on
SELECT name FROM where_am_i;
BEGIN;
SELECT current_setting('app.tenant_id');
COMMIT;
SELECT $1::int + 1 \bind 41 \g
SELECT 1 AS a \gdesc
SELECT 'SELECT ' || n FROM generate_series(7, 8) n \gexec
\copy (SELECT 9) TO STDOUT
\dt where_am_i
\d items
CREATE TEMP TABLE t (x int);
COPY t FROM STDIN;
10
11
\.
SELECT sum(x) FROM t;
\set FETCH_COUNT 10
SELECT count(*) FROM (SELECT generate_series(1, 35)) x;
"""
    lines = run(proxy, "psql", "-X", "-q", text=script).splitlines()
    for want in ("shared", "std_1", "42", "a|integer", "7", "8", "9", "21", "35"):
        assert want in lines, lines
    assert any("where_am_i" in line and "table" in line for line in lines)
    assert any("numeric(10,2)" in line for line in lines)


@pytest.mark.parametrize(("user", "home"), [("ent_1", "dedicated"), ("vip_1", "vip"), ("free_1", "shared")])
def test_psql_on_each_tier(proxy: Proxy, user: str, home: str) -> None:
    out = run(proxy, "psql", "-XAtc", "SELECT name FROM where_am_i", user=f"app@{user}")
    assert out == f"{home}\n"


def test_psql_error_and_on(proxy: Proxy) -> None:
    out = run(proxy, "psql", "-XAtq", text="SELECT 1/0;\nSELEC;\nSELECT 'on';\n")
    assert out == "on\n"


@pytest.fixture(scope="module")
def bench(proxy: Proxy) -> None:
    run(proxy, "pgbench", "-i", "-q", "-s", "1")


@pytest.mark.usefixtures("bench")
@pytest.mark.parametrize("protocol", ["simple", "extended", "prepared"])
@pytest.mark.parametrize("what", ["select", "tpcb"])
def test_pgbench(proxy: Proxy, protocol: str, what: str) -> None:
    # More clients than connections only where no transaction of pgbench waits for another one of it.
    clients = "12" if what == "select" else "6"
    args = ["-n", "-M", protocol, "-c", clients, "-j", "2", "-t", "40"]
    out = run(proxy, "pgbench", *args, *(["-S"] if what == "select" else []))
    assert f"number of transactions actually processed: {int(clients) * 40}/{int(clients) * 40}" in out
    assert "number of failed transactions: 0 " in out


@pytest.mark.usefixtures("bench")
def test_pgbench_pipeline_mode(proxy: Proxy, tmp_path: Path) -> None:
    script = tmp_path / "pipeline.sql"
    script.write_text(
        "\\set id random(1, 100)\n\\startpipeline\nBEGIN;\nSELECT name FROM items WHERE id = :id;\n"
        "SELECT :id + 1;\nCOMMIT;\n\\syncpipeline\nSELECT 1;\n\\endpipeline\n"
    )
    for protocol in ("extended", "prepared"):
        out = run(proxy, "pgbench", "-n", "-M", protocol, "-c", "4", "-t", "30", "-f", str(script))
        assert "number of transactions actually processed: 120/120" in out


@pytest.mark.parametrize("user", ["std_1", "std_2"])
def test_pg_dump_of_a_tenants_rows(proxy: Proxy, user: str) -> None:
    """From version 17 on it sets a parameter whose name it reads from pg_settings."""
    out = run(
        proxy,
        "pg_dump",
        "--data-only",
        "--enable-row-security",
        "--table=orders",
        "--inserts",
        user=f"app@{user}",
    )
    assert out.count("INSERT INTO public.orders") == 30
    assert {line.split("'")[1] for line in out.splitlines() if line.startswith("INSERT")} == {user}


def test_pgbench_connects_for_each_transaction(proxy: Proxy, tmp_path: Path) -> None:
    script = tmp_path / "one.sql"
    script.write_text("SELECT name FROM where_am_i;\n")
    out = run(proxy, "pgbench", "-n", "-C", "-c", "4", "-t", "15", "-f", str(script))
    assert "number of transactions actually processed: 60/60" in out


def test_pg_dump(proxy: Proxy) -> None:
    out = run(proxy, "pg_dump", "--schema-only", "-t", "items", user="app@ent_1")
    assert "CREATE TABLE public.items" in out
    assert run(proxy, "psql", "-XAtc", "SHOW search_path") == '"$user", public\n'
