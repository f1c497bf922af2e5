"""The README's examples of drivers that choose a tenant for each request, run as they stand there.

Several requests at a time of tenants of two clusters, on fewer connections: each sees its own tenant's rows only,
also after errors, rollbacks and cancels, and a connection that is back in the driver's pool speaks for nobody.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import asyncpg  # type: ignore[import-untyped]
import psycopg
import pytest
import sqlalchemy as sa

from tests.integration.servers import connect
from tests.rawclient import SYNC, Frame, RawClient, bind, describe, execute, kinds, parse, rows, sqlstates

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy

Tables = dict[str, dict[str, Any]]
ROOT = Path(__file__).resolve().parents[2]
SEEN = {
    "std_1": ("std_1", "shared", 30, "std_1", "std_1"),
    "std_2": ("std_2", "shared", 30, "std_2", "std_2"),
    "ent_1": ("ent_1", "dedicated", 7, "ent_1", "ent_1"),
}
LOOK = (
    "SELECT current_setting('app.tenant_id'), (SELECT name FROM where_am_i), count(*), min(tenant_id), max(tenant_id)"
    " FROM orders"
)
TENANTS = list(SEEN)
IDS = {name: str(uuid.uuid5(uuid.NAMESPACE_DNS, name)) for name in (*TENANTS, "free_1")}
WAYS = ["plain", "error", "rollback", "cancel"]
REQUESTS = 8 * len(TENANTS) * len(WAYS)
SLEEP = "SELECT pg_sleep(60)"


@pytest.fixture(scope="module", autouse=True)
def _rows_of_its_own(dedicated: EmbeddedServer) -> Iterator[None]:
    with connect(dedicated) as connection:
        connection.execute(
            "INSERT INTO orders SELECT n, 'ent_1', 'item ' || n FROM generate_series(5001, 5007) n"
        )
        yield
        connection.execute("DELETE FROM orders WHERE tenant_id = 'ent_1'")


@pytest.fixture(scope="module")
def proxy(start_module_proxy: StartProxy, all_tiers: Tables) -> Proxy:
    tables = all_tiers | {"user.app": all_tiers["user.app"] | {"tenants": TENANTS}}
    tables |= {f"tenant.{name}": all_tiers[f"tenant.{name}"] | {"id": id_} for name, id_ in IDS.items()}
    return start_module_proxy(tables, default_pool_size=2, query_wait_timeout="30s")


def example(title: str, proxy: Proxy) -> str:
    """The Python under a heading of the README, with this proxy's address."""
    readme = (ROOT / "README.md").read_text()
    text = readme.split(f"\n### {title}\n", 1)[1].split("\n## ", 1)[0].split("\n### ", 1)[0]
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    for said, here in (
        ("change-me", "app-secret"), ("6432", str(proxy.port)), ("/erp", "/appdb"), ('"erp"', '"appdb"'),
    ):  # fmt: skip
        code = code.replace(said, here)
    return code


def load(title: str, proxy: Proxy) -> SimpleNamespace:
    names: dict[str, Any] = {}
    exec(compile(example(title, proxy), f"README, {title}", "exec"), names)
    return SimpleNamespace(**names)


class Undo(Exception):
    """A request that its application gives up."""


def request(number: int) -> tuple[str, str, str]:
    """Its tenant, what becomes of it, and a row that must not stay."""
    tenant = TENANTS[number % len(TENANTS)]
    row = f"INSERT INTO orders VALUES ({10_000 + number}, '{tenant}', 'lost')"
    return tenant, WAYS[number // len(TENANTS) % len(WAYS)], row


def serve(handle: Callable[[int], None]) -> None:
    """All requests, eight at a time."""
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(handle, range(REQUESTS)))


async def serve_async(handle: Callable[[int], Awaitable[None]]) -> None:
    running = asyncio.Semaphore(8)

    async def one(number: int) -> None:
        async with running:
            await handle(number)

    async with asyncio.TaskGroup() as tasks:
        for number in range(REQUESTS):
            tasks.create_task(one(number))


@contextmanager
def cancelling(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Cancels what it does until it is over."""
    over = threading.Event()

    def cancel() -> None:
        while not over.wait(0.02):
            connection.cancel_safe()

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def work(connection: psycopg.Connection[Any], number: int) -> None:
    """In a transaction of the request's tenant."""
    tenant, way, row = request(number)
    assert connection.execute(LOOK).fetchone() == SEEN[tenant]
    if way == "plain":
        return
    connection.execute(row)
    if way == "error":
        connection.execute("SELECT 1/0")
    elif way == "cancel":
        with cancelling(connection):
            connection.execute(SLEEP)
    raise Undo


EXPECTED_TO_FAIL = (Undo, psycopg.errors.DivisionByZero, psycopg.errors.QueryCanceled)


def speaks_for_nobody(connection: psycopg.Connection[Any]) -> None:
    assert connection.execute("SHOW app.tenant_id").fetchone() == ("",)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="no tenant has been chosen"):
        connection.execute("SELECT count(*) FROM orders")


# --- psycopg ----------------------------------------------------------------------------------------


def test_psycopg(proxy: Proxy) -> None:
    readme = load("psycopg", proxy)

    def by_transaction(number: int) -> None:
        with suppress(*EXPECTED_TO_FAIL), readme.transaction_of(request(number)[0]) as connection:
            work(connection, number)

    def by_connection(number: int) -> None:
        tenant = request(number)[0]
        with suppress(*EXPECTED_TO_FAIL), readme.connection_of(tenant) as connection:
            for _ in range(2):
                assert connection.execute(LOOK).fetchone() == SEEN[tenant]
            with suppress(Undo), connection.transaction():
                work(connection, number)
            assert connection.execute(LOOK).fetchone() == SEEN[tenant]

    with readme.pool as pool:
        serve(by_transaction)
        serve(by_connection)
        connections = [pool.getconn() for _ in range(pool.max_size)]
        for connection in connections:
            speaks_for_nobody(connection)
            pool.putconn(connection)


def test_psycopg_gives_back_what_it_left_open(proxy: Proxy) -> None:
    readme = load("psycopg", proxy)
    with readme.pool as pool:
        connections = [pool.getconn() for _ in range(pool.max_size)]
        for connection in connections[1:]:
            pool.putconn(connection)
        connection = connections[0]
        connection.execute("BEGIN")
        connection.execute("SET app.tenant_id = 'ent_1'")
        with suppress(psycopg.errors.DivisionByZero):
            connection.execute("SELECT 1/0")
        pool.putconn(connection)
        connections = [pool.getconn() for _ in range(pool.max_size)]
        assert connection in connections
        for connection in connections:
            speaks_for_nobody(connection)
            pool.putconn(connection)


# --- asyncpg ----------------------------------------------------------------------------------------


async def work_asyncpg(connection: Any, number: int) -> None:
    tenant, way, row = request(number)
    assert tuple(await connection.fetchrow(LOOK)) == SEEN[tenant]
    if way == "plain":
        return
    await connection.execute(row)
    if way == "error":
        await connection.execute("SELECT 1/0")
    elif way == "cancel":
        await asyncio.wait_for(connection.execute(SLEEP), 0.02)
    raise Undo


ASYNCPG_FAILS = (Undo, asyncpg.DivisionByZeroError, TimeoutError)


async def nobodys(pool: asyncpg.Pool, count: int = 4) -> None:
    connections = [await pool.acquire() for _ in range(count)]
    for connection in connections:
        assert await connection.fetchval("SHOW app.tenant_id") == ""
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="no tenant has been chosen"):
            await connection.fetchval("SELECT count(*) FROM orders")
        await pool.release(connection)


def test_asyncpg_by_transaction(proxy: Proxy) -> None:
    readme = load("asyncpg", proxy)

    async def main() -> None:
        async with asyncpg.create_pool(readme.ADDRESS, min_size=1, max_size=4) as pool:

            async def handle(number: int) -> None:
                with suppress(*ASYNCPG_FAILS):
                    async with readme.transaction_of(pool, request(number)[0]) as connection:
                        await work_asyncpg(connection, number)

            await serve_async(handle)
            await nobodys(pool)

    asyncio.run(main())


def test_asyncpg_by_hooks(proxy: Proxy) -> None:
    readme = load("asyncpg", proxy)
    found = set()

    async def before(connection: asyncpg.Connection) -> None:
        """A connection is lent, and its tenant has not been chosen."""
        found.add(await connection.fetchval("SHOW app.tenant_id"))
        await readme.choose_tenant(connection)

    readme.pool_with_hooks.__globals__["choose_tenant"] = before

    async def main() -> None:
        async with readme.pool_with_hooks() as pool:

            async def handle(number: int) -> None:
                tenant = request(number)[0]
                readme.tenant.set(tenant)
                with suppress(*ASYNCPG_FAILS):
                    async with pool.acquire() as connection:
                        assert tuple(await connection.fetchrow(LOOK)) == SEEN[tenant]
                        with suppress(Undo):
                            async with connection.transaction():
                                await work_asyncpg(connection, number)
                        assert tuple(await connection.fetchrow(LOOK)) == SEEN[tenant]

            await serve_async(handle)
            with pytest.raises(LookupError):  # nobody has said whose request it is
                await pool.acquire()
            readme.tenant.set("")
            await nobodys(pool)
        assert found == {""}

    asyncio.run(main())


# --- SQLAlchemy -------------------------------------------------------------------------------------


def work_sqlalchemy(connection: sa.Connection, number: int) -> None:
    tenant, way, row = request(number)
    assert tuple(connection.execute(sa.text(LOOK)).one()) == SEEN[tenant]
    if way == "plain":
        return
    connection.execute(sa.text(row))
    if way == "error":
        connection.execute(sa.text("SELECT 1/0"))
    elif way == "cancel":
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        with cancelling(driver):
            connection.execute(sa.text(SLEEP))
    raise Undo


SQLALCHEMY_FAILS = (Undo, sa.exc.DataError, sa.exc.OperationalError)


@pytest.mark.parametrize("name", ["engine", "hooked"])
def test_sqlalchemy(name: str, proxy: Proxy) -> None:
    readme = load("SQLAlchemy", proxy)
    engine: sa.Engine = getattr(readme, name)
    found = set()

    def before(connection: psycopg.Connection[Any], *_: object) -> None:
        """A checkout, before its tenant is chosen."""
        found.update(connection.execute("SHOW app.tenant_id").fetchall())
        connection.rollback()

    sa.event.listen(engine, "checkout", before, insert=True)

    def handle(number: int) -> None:
        tenant, way, _ = request(number)
        readme.tenant.set(tenant)
        with engine.connect() as connection:
            failed = False
            try:
                with connection.begin():
                    work_sqlalchemy(connection, number)
            except SQLALCHEMY_FAILS:
                failed = True
            assert failed == (way != "plain")
            assert tuple(connection.execute(sa.text(LOOK)).one()) == SEEN[tenant]

    serve(handle)
    readme.tenant.set("")
    connections = [engine.connect() for _ in range(4)]
    for connection in connections:
        with pytest.raises(sa.exc.ProgrammingError, match="no tenant has been chosen"):
            connection.execute(sa.text("SELECT count(*) FROM orders"))
        connection.rollback()
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        speaks_for_nobody(driver)
    for connection in connections:
        connection.close()
    engine.dispose()
    assert found == {("",)}


def test_sqlalchemy_sessions_and_autocommit(proxy: Proxy) -> None:
    from sqlalchemy.orm import Session

    readme = load("SQLAlchemy", proxy)
    for number in range(12):
        tenant = request(number)[0]
        readme.tenant.set(tenant)
        with Session(readme.engine) as session:
            for _ in range(2):
                assert tuple(session.execute(sa.text(LOOK)).one()) == SEEN[tenant]
                session.commit()
            with suppress(sa.exc.DataError), session.begin_nested():
                session.execute(sa.text("SELECT 1/0"))
            assert tuple(session.execute(sa.text(LOOK)).one()) == SEEN[tenant]
        with readme.hooked.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            assert tuple(connection.execute(sa.text(LOOK)).one()) == SEEN[tenant]
        with readme.engine.connect().execution_options(isolation_level="SERIALIZABLE") as connection:
            assert connection.execute(sa.text("SHOW transaction_isolation")).scalar() == "serializable"
            assert tuple(connection.execute(sa.text(LOOK)).one()) == SEEN[tenant]
    readme.engine.dispose()
    readme.hooked.dispose()


def test_sqlalchemy_asks_whether_a_connection_works_before_it_has_a_tenant(proxy: Proxy) -> None:
    readme = load("SQLAlchemy", proxy)
    engine = sa.create_engine(readme.engine.url, pool_size=1, use_native_hstore=False, pool_pre_ping=True)
    sa.event.listen(engine, "begin", readme.local_tenant)
    readme.tenant.set("std_1")
    used = set()
    for _ in range(3):
        with engine.connect() as connection:
            assert tuple(connection.execute(sa.text(LOOK)).one()) == SEEN["std_1"]
            used.add(id(connection.connection.driver_connection))
    assert len(used) == 1
    engine.dispose()


def test_sqlalchemy_looks_for_types_where_a_session_has_a_home(
    start_proxy: StartProxy, all_tiers: Tables
) -> None:
    proxy = start_proxy(all_tiers, default_tenant="std_1")
    readme = load("SQLAlchemy", proxy)
    engine = sa.create_engine(readme.engine.url, pool_size=1)
    sa.event.listen(engine, "begin", readme.local_tenant)
    readme.tenant.set("std_2")
    with engine.connect() as connection:
        assert tuple(connection.execute(sa.text(LOOK)).one()) == SEEN["std_2"]
    engine.dispose()


def test_sqlalchemy_with_asyncpg(proxy: Proxy) -> None:
    readme = load("SQLAlchemy", proxy)
    engine = readme.async_engine

    async def handle(number: int) -> None:
        tenant, way, row = request(number)
        readme.tenant.set(tenant)
        with suppress(Undo, sa.exc.DBAPIError, TimeoutError):
            async with engine.begin() as connection:
                assert tuple((await connection.execute(sa.text(LOOK))).one()) == SEEN[tenant]
                if way == "plain":
                    return
                await connection.execute(sa.text(row))
                if way == "error":
                    await connection.execute(sa.text("SELECT 1/0"))
                elif way == "cancel":
                    await asyncio.wait_for(connection.execute(sa.text(SLEEP)), 0.02)
                raise Undo

    async def main() -> None:
        await serve_async(handle)
        readme.tenant.set("")
        connections = [await engine.connect() for _ in range(4)]
        for connection in connections:
            with pytest.raises(sa.exc.DBAPIError, match="no tenant has been chosen"):
                await connection.execute(sa.text("SELECT count(*) FROM orders"))
            await connection.rollback()
            driver = (await connection.get_raw_connection()).driver_connection
            assert await driver.fetchval("SHOW app.tenant_id") == ""
            await connection.close()
        await engine.dispose()

    asyncio.run(main())


# --- Django -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"server_side_binding": True}, {"pool": {"min_size": 1, "max_size": 4}}],
    ids=["plain", "server-side binding", "pool"],
)
def test_django(options: dict[str, Any], proxy: Proxy, tmp_path: Path) -> None:
    """In a process of its own: a process has one configuration of Django. Hosts are called by the tenants' ids."""
    (tmp_path / "tenants.py").write_text(example("Django", proxy))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(Path(__file__).with_name("django_site.py"))],
        input=json.dumps({"options": options, "seen": SEEN, "look": LOOK, "hosts": IDS}),
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout) == {
        "served": 120, "failed": 60, "wrong": [], "left": [""] * 4, "unknown": [500, 500], "tasks": TENANTS * 2,
    }  # fmt: skip


# --- JDBC -------------------------------------------------------------------------------------------


class Jdbc:
    """What PostgreSQL's JDBC driver sends: BEGIN goes ahead of a transaction's first statement in the same batch, all
    in the extended protocol, and a statement gets a name with its fifth use."""

    def __init__(self, client: RawClient) -> None:
        self._client = client
        self._uses: dict[str, int] = {}
        self._names: dict[str, str] = {}
        self._in_block = False
        for text in ("SET extra_float_digits = 3", "SET application_name = 'PostgreSQL JDBC Driver'"):
            client.checked(client.ask(parse(text) + bind() + execute(rows=1) + SYNC))

    def _statement(
        self, text: str, values: list[str], *, described: bool, oids: tuple[int, ...] = ()
    ) -> bytes:
        uses = self._uses[text] = self._uses.get(text, 0) + 1
        name, out = self._names.get(text, ""), b""
        if not name and uses >= 5:
            name = self._names[text] = f"S_{len(self._names) + 1}"
            out = parse(text, name, oids)
            out += describe("S", name) if described else b""
        elif not name:
            out = parse(text, "", oids)
        out += bind(values, name=name)
        return out + (describe("P") if described else b"") + execute()

    def execute(self, text: str, values: list[str] | None = None) -> list[Frame]:
        """In a transaction, which it begins if need be."""
        out = b"" if self._in_block else self._statement("BEGIN", [], described=False)
        self._in_block = True
        values = values or []
        oids = (1043, 16)[: len(values)]  # varchar, as setString() says, and bool
        return self._client.ask(out + self._statement(text, values, described=True, oids=oids) + SYNC)

    def end(self, text: str = "COMMIT") -> None:
        assert self._in_block
        self._in_block = False
        self._client.checked(self._client.ask(self._statement(text, [], described=False) + SYNC))

    def works(self) -> bool:
        """Connection.isValid()."""
        return kinds(self._client.ask(parse("") + bind() + describe("P") + execute() + SYNC)) == "12nIZ"


@pytest.mark.parametrize(
    ("choose", "values"),
    [
        ("SELECT set_config('app.tenant_id', $1, $2)", ["{}", "TRUE"]),
        ("SELECT set_config('app.tenant_id', $1, true)", ["{}"]),
        ("SET LOCAL app.tenant_id = '{}'", []),
    ],
)
def test_jdbc_by_transaction(choose: str, values: list[str], proxy: Proxy) -> None:
    drivers = [Jdbc(proxy.raw("app")) for _ in range(4)]
    for number in range(72):
        driver = drivers[number % 4]
        tenant, way, row = request(number)
        assert driver.works()
        chosen = driver.execute(choose.format(tenant), [value.format(tenant) for value in values])
        assert sqlstates(chosen) == []
        assert rows(chosen) == ([[tenant]] if values else [])
        assert rows(driver.execute(LOOK)) == [[str(value) for value in SEEN[tenant]]]
        if way != "plain":
            assert sqlstates(driver.execute(row)) == []
        if way == "error":
            assert sqlstates(driver.execute("SELECT 1/0")) == ["22012"]
            assert sqlstates(driver.execute(LOOK)) == ["25P02"]
        driver.end("COMMIT" if way == "plain" else "ROLLBACK")
        assert sqlstates(driver.execute("SELECT count(*) FROM orders")) == ["42501"]
        driver.end("ROLLBACK")


def test_jdbc_by_checkout(proxy: Proxy) -> None:
    """With a pool whose hooks are transactions of their own."""
    driver = Jdbc(proxy.raw("app"))
    for number in range(36):
        tenant = request(number)[0]
        assert rows(driver.execute("SELECT set_config('app.tenant_id', $1, $2)", [tenant, "false"])) == [
            [tenant]
        ]
        driver.end()
        for end in ("COMMIT", "ROLLBACK"):
            assert rows(driver.execute(LOOK)) == [[str(value) for value in SEEN[tenant]]]
            driver.end(end)
        assert sqlstates(driver.execute("RESET app.tenant_id")) == []
        driver.end()
        assert sqlstates(driver.execute("SELECT count(*) FROM orders")) == ["42501"]
        driver.end("ROLLBACK")
