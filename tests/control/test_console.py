"""The console over real drivers: simple and extended queries, who may do what, and what is refused how."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Any

import asyncpg
import psycopg
import pytest

from proxy import BUILD, __version__
from proxy.control.console import commands
from proxy.control.views import VIEWS
from tests import rawclient
from tests.rawclient import ServerError, sqlstates
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy

Tables = dict[str, dict[str, Any]]
SHOWS = ["VERSION", "CONFIG", "HELP", "ROUTE std_1", *(name.upper() for name in VIEWS)]
MAY_BE_EMPTY = {"STATS", "ACTIVE_SOCKETS", "QUEUE", "CONCURRENCY", "FLEET", "PEERS", "SHARES"}


@pytest.fixture(scope="module")
def proxy(start_module_proxy: StartProxy, all_tiers: Tables) -> Proxy:
    tables = all_tiers | {"user.watcher": {"password": "watcher-secret"}}
    return start_module_proxy(tables, stats_users=["watcher"])


def psql(proxy: Proxy, user: str = "admin", database: str = "tiergate") -> psycopg.Connection[Any]:
    return proxy.connect(user, database, f"{user}-secret")


@pytest.mark.parametrize("show", SHOWS)
def test_every_show_is_the_same_in_simple_and_extended_queries(proxy: Proxy, show: str) -> None:
    proxy.raw().value("SELECT 1")
    with psql(proxy) as console:
        with psycopg.ClientCursor(console) as cursor:
            cursor.execute(f"SHOW {show};".encode())
            simple = [column.name for column in cursor.description or ()]
            assert len(cursor.fetchall()) >= (0 if show in MAY_BE_EMPTY else 1)
        prepared = console.execute(f"show {show.lower()}".encode(), prepare=True)
        assert [column.name for column in prepared.description or ()] == simple
        assert len(set(simple)) == len(simple)
        for row in prepared.fetchall():
            assert len(row) == len(simple)


def test_every_show_with_asyncpg(proxy: Proxy) -> None:
    proxy.raw().value("SELECT 1")

    async def main() -> dict[str, list[Any]]:
        console = await asyncpg.connect(
            host=proxy.host, port=proxy.port, user="admin", password="admin-secret", database="pgbouncer"
        )
        try:
            return {show: await console.fetch(f"SHOW {show}") for show in SHOWS}
        finally:
            await console.close()

    found = asyncio.run(main())
    assert {row["name"] for row in found["TENANTS"]} == {"ent_1", "vip_1", "std_1", "std_2", "free_1"}
    pool = next(row for row in found["POOLS"] if row["user"] == "app")
    assert pool["cl_active"] == len(found["CLIENTS"])
    assert (pool["cluster"], pool["maxwait"]) == ("shared", 0)
    assert pool["sv_idle"] >= 1


def test_binary_results_as_psycopg_asks_for_them(proxy: Proxy) -> None:
    with psql(proxy) as console:
        row = console.execute("SHOW TENANTS", binary=True).fetchone()
        text = console.execute("SHOW TENANTS").fetchone()
    assert row == text


def test_version_names_the_product(proxy: Proxy) -> None:
    assert proxy.console("SHOW VERSION")[0]["version"] == f"Tiergate {__version__} ({BUILD})"


def test_help_names_every_view_and_command(proxy: Proxy) -> None:
    said = " ".join(str(row["command"]) for row in proxy.console("SHOW HELP"))
    for word in [
        *VIEWS,
        "route",
        "reload",
        "pause",
        "resume",
        "reconnect",
        "wait_close",
        "kill",
        "disable",
        "enable",
        "set",
    ]:
        assert word.upper() in said
    assert "SHUTDOWN" in said


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("KILL  std_1", "KILL std_1"),
        ("pause", "pause"),
        ("SET auth_password = 'x y'", "SET auth_password"),
        ("SET auth_password TO secret", "SET auth_password"),
        ("SET auth_password=secret", "SET auth_password"),
    ],
)
def test_the_log_has_what_was_done_to_whom_and_no_secret(statement: str, said: str) -> None:
    assert commands.told(statement) == said


def test_several_statements_in_one_query(proxy: Proxy) -> None:
    client = proxy.raw("admin", "tiergate", "admin-secret")
    frames = client.query("SHOW VERSION; ; SHOW HELP;")
    assert rawclient.kinds(frames).count("T") == 2
    assert rawclient.kinds(client.query("")) == "IZ"
    assert rawclient.kinds(client.query(" ; ")) == "IZ"


def test_an_error_in_an_extended_batch_skips_to_the_sync(proxy: Proxy) -> None:
    client = proxy.raw("admin", "tiergate", "admin-secret")
    frames = client.ask(rawclient.ask("SHOW NONSENSE") + rawclient.ask("SHOW VERSION") + rawclient.SYNC)
    assert sqlstates(frames) == ["42601"]
    assert "D" not in rawclient.kinds(frames)
    assert len(client.prepared("SHOW VERSION")) == 1
    assert sqlstates(client.ask(rawclient.bind(name="none") + rawclient.SYNC)) == ["26000"]


@pytest.mark.parametrize(
    "command",
    ["SELECT 1", "SHOW", "SHOW NONSENSE", "SHOW POOLS now", "KILL a b", "ENABLE a b", "DISABLE", "PAUSE a b", "SHUTDOWN now",
     "SET", "SHOW ROUTE",
     "DROP TABLE x", "'", '"', "SET log_level ="],
)  # fmt: skip
def test_an_unknown_command_is_a_syntax_error(proxy: Proxy, command: str) -> None:
    client = proxy.raw("admin", "tiergate", "admin-secret")
    assert sqlstates(client.query(command)) == ["42601"]
    assert client.status == "I"
    assert len(client.rows("SHOW VERSION")) == 1


@pytest.mark.parametrize(
    "command",
    ["PAUSE", "RESUME", "RELOAD", "KILL std_1", "DISABLE std_1", "ENABLE std_1", "RECONNECT", "WAIT_CLOSE", "SHUTDOWN",
     "SET log_level = debug"],
)  # fmt: skip
def test_stats_users_may_only_show(proxy: Proxy, command: str) -> None:
    client = proxy.raw("watcher", "tiergate", "watcher-secret")
    assert len(client.rows("SHOW TENANTS")) == 5
    assert sqlstates(client.query(command)) == ["42501"]
    assert sqlstates(client.ask(rawclient.ask(command) + rawclient.SYNC)) == ["42501"]


@pytest.mark.parametrize("database", ["tiergate", "pgbouncer"])
def test_the_console_is_closed_to_others(proxy: Proxy, database: str) -> None:
    with pytest.raises(ServerError) as refused:
        proxy.raw("app", database)
    assert refused.value.sqlstate == "28000"


def test_a_statement_too_long_ends_the_console_only(proxy: Proxy) -> None:
    other = proxy.raw()
    client = proxy.raw("admin", "tiergate", "admin-secret")
    client.send(rawclient.query("SHOW " + "x" * 100_000))
    assert sqlstates(client.read_to_eof()) == ["08P01"]
    assert other.value("SELECT 1") == "1"


def test_consoles_are_forgotten(proxy: Proxy) -> None:
    before = proxy.call(lambda: len(proxy.worker.consoles))
    client = proxy.raw("admin", "tiergate", "admin-secret")
    wait_until(lambda: proxy.call(lambda: len(proxy.worker.consoles)) == before + 1)
    client.hang_up()
    wait_until(lambda: proxy.call(lambda: len(proxy.worker.consoles)) == before)


def memory_of(proxy: Proxy) -> tuple[int, int]:
    """Bytes that wait in the last console there is: to be sent, and to be done."""
    (console,) = proxy.worker.consoles
    return console._transport.get_write_buffer_size(), console._waiting_size


def test_a_client_that_does_not_read_is_not_worked_for(start_proxy: StartProxy, all_tiers: Tables) -> None:
    many = {f"tenant.t{n}": {"tier": "standard"} for n in range(2_000)}
    proxy = start_proxy(all_tiers | many)
    client = proxy.raw("admin", "tiergate", "admin-secret")
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    asked = 20
    client.send(rawclient.query("SHOW TENANTS; SHOW TENANTS") * asked)  # some 10 MB
    wait_until(lambda: proxy.call(lambda: memory_of(proxy)[0]) > 0)
    most = 0
    for _ in range(20):
        most = max(most, proxy.call(lambda: memory_of(proxy)[0]))
    assert most < 2_000_000
    assert len(rawclient.rows(client.read_ready(asked))) == 2 * asked * 2_005
    assert proxy.call(lambda: memory_of(proxy)) == (0, 0)


def test_messages_that_wait_are_not_read_without_end(start_proxy: StartProxy, all_tiers: Tables) -> None:
    proxy = start_proxy(all_tiers)
    busy = proxy.raw()
    busy.query("BEGIN")
    client = proxy.raw("admin", "tiergate", "admin-secret")
    client.send(rawclient.query("PAUSE"))
    wait_until(lambda: proxy.call(lambda: proxy.worker.pools.paused("*")))
    asked = 300
    sending = threading.Thread(
        target=client.sock.sendall, args=(rawclient.query("SHOW VERSION" + " " * 60_000) * asked,)
    )
    sending.start()
    wait_until(lambda: proxy.call(lambda: memory_of(proxy)[1]) > 262_144)
    assert proxy.call(lambda: memory_of(proxy)[1]) < 1_000_000
    busy.query("COMMIT")
    assert rawclient.kinds(client.read_ready(1 + asked)).count("D") == asked
    sending.join(10)
    assert not sending.is_alive()
    assert proxy.call(lambda: memory_of(proxy)) == (0, 0)


def test_names_are_bounded(proxy: Proxy) -> None:
    client = proxy.raw("admin", "tiergate", "admin-secret")
    frames = client.ask(
        b"".join(rawclient.parse("SHOW VERSION", f"s{n}") for n in range(1_001)) + rawclient.SYNC
    )
    assert rawclient.kinds(frames) == "1" * 1_000 + "EZ"
    assert sqlstates(frames) == ["54000"]
    client.ask(rawclient.close("S", "s0") + rawclient.SYNC)
    assert client.prepared("SHOW VERSION")


def test_words() -> None:
    assert commands.words("SET  \"a\"\"b\" = 'it''s'") == ["SET", 'a"b', "=", "it's"]
    assert commands.split("a 'b;c' ;; \"d;\" ; ") == ["a 'b;c'", '"d;"']
