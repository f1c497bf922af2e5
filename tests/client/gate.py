"""An Acceptor on loopback in a thread of its own, behind which a stub answers; it must leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, ClassVar, TypeVar

from proxy import log
from proxy.client.accept import Acceptor
from proxy.client.applicants import Login
from proxy.model import ClientOptions, Cluster, ClusterKind, Directory, Endpoint, Role, Tenant, Tier, User
from proxy.net.listen import Listener, tcp_sockets
from proxy.net.readiness import Loop
from proxy.net.stream import LoginStream
from proxy.net.tls import ClientTls
from proxy.registry.memory import Registry
from proxy.stats import ProcessStats
from proxy.wire import encode
from proxy.wire.startup import CancelRequest
from tests.integration.running import open_sockets
from tests.rawclient import RawClient
from tests.waiting import wait_until

T = TypeVar("T")
ACME_ID = "0b5a1d5e-6f0f-4f0e-9a53-0d5f2a1c7e01"
_CLUSTER = Cluster("shared", ClusterKind.SHARED, (Endpoint("db", 5432, Role.COORDINATOR),))
TENANTS = (
    Tenant("acme", "standard", "shared", id=ACME_ID),
    Tenant("beta", "standard", "shared"),
    Tenant("asleep", "standard", "shared", active=False),
)
USERS = (
    User("app", "app-secret", None),
    User("bound", "bound-secret", frozenset({"acme"})),
    User("two", "two-secret", frozenset({"acme", "beta"})),
    User("trusted", "", None, auth_type="trust"),
    User("hashed", "hashed-secret", None, auth_type="md5"),
    User("digest", "md5" + hashlib.md5(b"digest-secretdigest").hexdigest(), None, auth_type="md5"),
    User("open", "open-secret", None, auth_type="plain"),
    User("carded", "", None, auth_type="cert"),
    User("at@acme", "at-secret", None),
    User("admin", "admin-secret", None),
    User("watcher", "watcher-secret", None),
)
DIRECTORY = Directory(
    {user.name: user for user in USERS},
    {"shared": _CLUSTER},
    {"standard": Tier("standard")},
    {tenant.name: tenant for tenant in TENANTS},
)
OPTIONS = ClientOptions(stats_users=frozenset({"watcher"}))


_COLUMN = struct.pack("!H7sIhIhih", 1, b"answer", 0, 0, 25, -1, -1, 0)


class _Answering(asyncio.Protocol):
    """Answers whatever is asked with one row: the user and whether TLS is spoken."""

    def __init__(self, login: Login, transport: asyncio.Transport, on_close: Callable[[], None]) -> None:
        self._row = encode.data_row([f"{login.user.name} {'tls' if login.tls else 'plain'}"])
        self._transport = transport
        self._on_close = on_close

    def data_received(self, data: bytes) -> None:
        if data[:1] == b"X":
            self._transport.close()
        elif data[:1] == b"Q":
            said = encode.frame(b"T", _COLUMN) + self._row
            self._transport.write(said + encode.command_complete("SELECT 1") + encode.ready_for_query())

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_close()


class Gate:
    """`logins` and `cancels` are what came through; `port` is where to knock."""

    host = "127.0.0.1"
    _alive: ClassVar[int] = 0  # sockets are counted from the start of the first to the end of the last
    _before: ClassVar[dict[str, str]] = {}

    def __init__(self, options: ClientOptions, tls: ClientTls | None) -> None:
        self.registry = Registry(DIRECTORY, options)
        self.process = ProcessStats()
        self.logins: list[Login] = []
        self.addresses: list[str] = []  # theirs
        self.cancels: list[CancelRequest] = []
        self.failure: Exception | None = None  # what the stub raises
        self._sessions: set[asyncio.Transport] = set()
        self._unheard: list[str] = []
        self._ready = threading.Event()
        self._options, self._tls = options, tls
        log.configure("json", "error", io.StringIO())
        self._clients: list[RawClient] = []
        self._left: list[str] = []
        if not Gate._alive:
            Gate._before = open_sockets()
        Gate._alive += 1
        self._thread = threading.Thread(target=self._main, name="gate", daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=Loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(lambda _, context: self._unheard.append(repr(context)))
        self._end = asyncio.Event()
        self.acceptor = Acceptor(
            self._options, self._tls, self.registry, self._logged_in, self.cancels.append, self.process
        )
        listeners = [
            Listener(self._loop, sock, self.acceptor.accept) for sock in tcp_sockets("127.0.0.1", 0, 64)
        ]
        self.port = listeners[0].port
        self._ready.set()
        await self._end.wait()
        for listener in listeners:
            listener.close()
        await self.acceptor.close()
        for transport in list(self._sessions):
            transport.abort()
        deadline = self._loop.time() + 10
        while len(asyncio.all_tasks()) > 1 and self._loop.time() < deadline:
            await asyncio.sleep(0.002)
        self._left = [repr(task) for task in asyncio.all_tasks() - {asyncio.current_task()}]

    def _logged_in(self, login: Login, stream: LoginStream) -> None:
        self.logins.append(login)
        self.addresses.append(stream.address)
        if self.failure is not None:
            raise self.failure
        transport = stream.transport
        self._sessions.add(transport)
        for name, value in (("server_version", "18.0"), ("client_encoding", "UTF8")):
            stream.write(encode.parameter_status(name.encode(), value.encode()))
        stream.write(encode.backend_key_data(1, b"key!") + encode.ready_for_query())
        session = _Answering(login, transport, lambda: self._sessions.discard(transport))
        rest = stream.take_over(session)
        if rest:
            session.data_received(rest)

    # --- from the test ------------------------------------------------------------------------------

    def client(self, **more: Any) -> RawClient:
        client = RawClient(self.port, **more)
        self._clients.append(client)
        return client

    def log_in(self, user: str, password: str = "", database: str = "", **parameters: str) -> Login:
        """What the proxy has understood of a login with these."""
        self.client().log_in(user, database, password, parameters=parameters)
        return self.logins[-1]

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def nobody_pending(self) -> None:
        self.nobody_pending_but(0)

    def nobody_pending_but(self, count: int) -> None:
        wait_until(lambda: self.acceptor.pending == count, what="the end of all logins")

    def stop(self) -> None:
        for client in self._clients:
            client.hang_up()
        self.nobody_pending()
        assert not self.acceptor._by_address
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)
        assert not self._thread.is_alive()
        assert not self._left
        assert not self._unheard
        Gate._alive -= 1
        if not Gate._alive:
            new = {inode: text for inode, text in open_sockets().items() if inode not in Gate._before}
            assert not new, f"sockets are left: {new}"


@contextlib.contextmanager
def gate(options: ClientOptions = OPTIONS, tls: ClientTls | None = None) -> Iterator[Gate]:
    running = Gate(options, tls)
    try:
        yield running
    finally:
        running.stop()
