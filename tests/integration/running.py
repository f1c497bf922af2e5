"""A proxy that runs in a thread of the test's process, on its own loop, and leaves nothing behind.

`Proxy.stop` looks for what is left: tasks, sockets, permits, sessions, and errors that reached the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import psycopg

from proxy import log, settings, worker
from proxy.cli.embedded import free_port
from proxy.net.readiness import Loop
from proxy.worker import Worker
from tests.rawclient import V3_0, Frame, RawClient, row_values
from tests.waiting import wait_until

T = TypeVar("T")

# What a proxy does once a second, hundreds of tests would wait for; and at its end for what only TLS needs.
worker._THOROUGH_EVERY = 4  # sweeps
_LAST_TURNS, worker._LAST_TURNS = worker._LAST_TURNS, 0.0


def open_sockets() -> dict[str, str]:
    """The sockets of this process by inode, each with its addresses where it has any."""
    found: dict[str, str] = {}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{fd}")
            if target.startswith("socket:"):
                found[target] = _describe(int(fd))
    return found


def _describe(fd: int) -> str:
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as sock:
        try:
            peer = sock.getpeername()
        except OSError:
            peer = None
        return f"{sock.getsockname()} -> {peer}"
    return "?"


def left_behind(worker: Worker) -> list[str]:
    """What a stopped worker still holds; its permits, sessions and connections."""
    plane, pools = worker.plane, worker.pools
    found = []
    counters = [plane.clients, pools.servers, *pools.room.clusters.values()]
    for account in plane.accounts:
        counters += [account.clients, account.servers]
        if account.waiting:
            found.append(f"tenant {account.tenant.name}: {account.waiting} waiting")
    for tier in plane.accounts.tiers():
        counters += [tier.clients, tier.servers]
    for user in plane.accounts.users():
        counters += [user.clients, user.servers]
        if user.waiting:
            found.append(f"user {user.user.name}: {user.waiting} waiting")
    found += [f"{counter.name}: {counter.used} permits" for counter in counters if counter.used]
    for what, things in {
        "sessions": plane.sessions,
        "cancel keys": plane._keys,
        "held connections": pools._held,
        "tasks of the pools": pools._tasks,
        "consoles": worker.consoles,
        "relays": plane.relays,
    }.items():
        if things:
            found.append(f"{len(things)} {what}: {list(things)[:3]}")
    for pool in pools:
        if connections := list(pool.connections()):
            found.append(f"pool {pool.key}: {connections}")
    return found


class Proxy:
    """A running proxy. `port`, `worker`; `call` runs something on its loop."""

    host = "127.0.0.1"
    _alive: ClassVar[int] = 0  # sockets are counted from the start of the first to the end of the last
    _before: ClassVar[dict[str, str]] = {}
    patience = 10.0  # seconds until the tasks of a proxy that has stopped must have ended

    def __init__(self, config: Path) -> None:
        self.config = config
        self.settings = settings.load(str(config), environ={})
        log.configure(self.settings.process.log_format, self.settings.process.log_level)
        self.port = self.settings.process.listen_port
        self.worker: Worker
        self._loop: asyncio.AbstractEventLoop
        self._end: asyncio.Event
        self._failure: BaseException | None = None
        self._ready = threading.Event()
        self._tasks: list[str] = []
        self._errors: list[str] = []
        if not Proxy._alive:
            Proxy._before = open_sockets()
        Proxy._alive += 1
        self._clients: list[RawClient] = []
        self._connections: list[psycopg.Connection[Any]] = []
        self._thread = threading.Thread(target=self._main, name="proxy", daemon=True)
        self._thread.start()
        if not self._ready.wait(20):
            raise AssertionError("the proxy has not started within 20 s")
        if self._failure is not None:
            self._thread.join()
            Proxy._alive -= 1
            raise self._failure

    # --- its thread ---------------------------------------------------------------------------------

    def _main(self) -> None:
        try:
            with asyncio.Runner(loop_factory=Loop) as runner:
                runner.run(self._serve())
        except BaseException as error:
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._loop_error)
        self._end = asyncio.Event()
        self.worker = Worker(self.settings)
        await self.worker.start()
        self._ready.set()
        await self._end.wait()
        async with asyncio.timeout(15):
            await self.worker.stop()
        tls = self.settings.tls
        if {tls.client_tls_sslmode, tls.server_tls_sslmode} != {"disable"}:
            await asyncio.sleep(_LAST_TURNS)
        deadline = self._loop.time() + self.patience
        while (tasks := asyncio.all_tasks() - {asyncio.current_task()}) and self._loop.time() < deadline:
            await asyncio.sleep(0.005)
        self._tasks = [repr(task) for task in tasks]

    def _loop_error(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._errors.append(f"{context.get('message')}: {context.get('exception')!r}")

    # --- from the test ------------------------------------------------------------------------------

    @property
    def http_port(self) -> int:
        return self.worker.http_port

    def call(self, function: Callable[[], T]) -> T:
        """The result of `function()`, called on the proxy's loop."""

        async def run() -> T:
            return function()

        return self.run(run())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        done: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return done.result(20)

    def reload(self, text: str) -> list[str]:
        """Writes the configuration anew and reloads it."""
        self.config.write_text(text)
        return self.call(self.worker.reload)

    def raw(
        self,
        user: str = "app@std_1",
        database: str = "appdb",
        password: str = "app-secret",
        *,
        parameters: dict[str, str] | None = None,
        protocol: int = V3_0,
        **more: Any,
    ) -> RawClient:
        """A raw client that is logged in, and closed at the proxy's end at the latest."""
        client = RawClient(self.port, **more)
        self._clients.append(client)
        return client.log_in(user, database, password, parameters=parameters, protocol=protocol)

    def unnamed(self, **more: Any) -> RawClient:
        """A raw client that has said nothing yet."""
        client = RawClient(self.port, **more)
        self._clients.append(client)
        return client

    def connect(
        self, user: str = "app@std_1", database: str = "appdb", password: str = "app-secret", **more: Any
    ) -> psycopg.Connection[Any]:
        """A psycopg connection, autocommit unless asked otherwise; closed at the proxy's end."""
        more.setdefault("autocommit", True)
        connection: psycopg.Connection[Any] = psycopg.connect(
            host=self.host, port=self.port, user=user, dbname=database, password=password, **more
        )
        self._connections.append(connection)
        return connection

    def replicator(self, kind: str = "database", **more: Any) -> RawClient:
        """A raw client of the enterprise tenant with a replication connection."""
        return self.raw(
            "replicator@ent_1", password="replicator-secret", parameters={"replication": kind}, **more
        )

    def dsn(self, user: str = "app@std_1", database: str = "appdb", password: str = "app-secret") -> str:
        return f"host={self.host} port={self.port} user={user} dbname={database} password={password}"

    def console(self, command: str) -> list[dict[str, str | None]]:
        """The rows of a console command by column."""
        with RawClient(self.port) as client:
            client.log_in("admin", "tiergate", "admin-secret")
            frames = client.checked(client.query(command))
        return table(frames)

    # --- the end ------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Stops it and fails if anything is left."""
        for connection in self._connections:
            connection.close()
        for client in self._clients:
            client.close()
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(30)
        Proxy._alive -= 1
        if self._thread.is_alive():
            raise AssertionError("the proxy has not stopped within 30 s")
        if self._failure is not None:
            raise self._failure
        gc.collect()
        problems = left_behind(self.worker)
        problems += [f"task: {task}" for task in self._tasks]
        problems += [f"error on the loop: {error}" for error in self._errors]
        if not Proxy._alive:
            now = open_sockets()
            problems += [f"socket: {now[inode]}" for inode in now.keys() - Proxy._before.keys()]
        if problems:
            raise AssertionError("left behind by the proxy:\n" + "\n".join(problems))


def waiting(proxy: Proxy, count: int = 1) -> None:
    """Waits until so many clients wait for a server connection."""
    wait_until(lambda: sum(int(row["cl_waiting"] or 0) for row in proxy.console("SHOW POOLS")) == count)


def table(frames: list[Frame]) -> list[dict[str, str | None]]:
    """Rows as dictionaries, by the names of the last RowDescription."""
    names: list[str] = []
    found = []
    for frame in frames:
        if frame.kind == "T":
            names = column_names(frame.body)
        elif frame.kind == "D":
            values = [None if v is None else v.decode() for v in row_values(frame.body)]
            found.append(dict(zip(names, values, strict=True)))
    return found


def column_names(description: bytes) -> list[str]:
    names = []
    at = 2
    for _ in range(int.from_bytes(description[:2], "big")):
        end = description.index(0, at)
        names.append(description[at:end].decode())
        at = end + 19
    return names


# --- configurations ---------------------------------------------------------------------------------


def toml(value: object) -> str:
    """A value as TOML writes it (numbers, texts, lists and flat tables)."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(v)}" for key, v in value.items()) + " }"
    return json.dumps(value)


def configuration(tables: dict[str, dict[str, object]], **proxy: object) -> str:
    """A configuration file: [proxy] on a free port without HTTP unless said otherwise, and other tables."""
    values: dict[str, object] = {
        "listen_addr": "127.0.0.1",
        "listen_port": free_port(),
        "http_addr": "",
        "auth_type": "trust",
        "log_level": "warning",
        "server_tls_sslmode": "disable",
    } | proxy
    lines = []
    for name, content in {"proxy": values, **tables}.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {toml(value)}" for key, value in content.items()]
        lines.append("")
    return "\n".join(lines)


@contextlib.contextmanager
def running(config: Path, text: str) -> Iterator[Proxy]:
    config.write_text(text)
    proxy = Proxy(config)
    try:
        yield proxy
    finally:
        proxy.stop()
