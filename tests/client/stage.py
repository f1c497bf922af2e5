"""Sessions on a plane whose sockets only record: clients speak and read bytes, and so do servers."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from dataclasses import replace
from typing import Any

import pytest

from proxy.client.applicants import Login
from proxy.client.plane import Plane
from proxy.client.session import Session
from proxy.client.welcome import admit
from proxy.model import (
    ClientOptions,
    Cluster,
    ClusterKind,
    Directory,
    PoolMode,
    Role,
    ServerOptions,
    Tenant,
    Tier,
    User,
)
from proxy.net.stream import LoginStream
from proxy.protocol.lifecycle import SessionState
from proxy.protocol.state import display_names, intern
from proxy.protocol.tenancy import nobody
from proxy.registry.memory import Registry
from proxy.server.pool import Pool
from proxy.sql.verdict import Judge
from proxy.stats import ProcessStats
from proxy.wire import encode
from tests.rawclient import Frame
from tests.transports import REPORTED, Network, SteppedPools, Transport, endpoint

SHARED = Cluster("shared", ClusterKind.SHARED, (endpoint("coord", role=Role.COORDINATOR),), pool_size=2)
OWN = Cluster("own", ClusterKind.DEDICATED, (endpoint("own"),), pool_size=2)
TENANTS = (
    Tenant("acme", "standard", "shared"),
    Tenant("beta", "standard", "shared"),
    Tenant("big", "enterprise", "own"),
)
DIRECTORY = Directory(
    {"app": User("app", "app-secret", None), "bound": User("bound", "", frozenset({"acme"}))},
    {"shared": SHARED, "own": OWN},
    {"standard": Tier("standard"), "enterprise": Tier("enterprise")},
    {tenant.name: tenant for tenant in TENANTS},
)
BEGIN, COMMIT = encode.query(b"BEGIN"), encode.query(b"COMMIT")


def login(tenant: str = "acme", user: str = "app", replication: str = "", **parameters: str) -> Login:
    return Login(
        user=DIRECTORY.users[user],
        tenant=DIRECTORY.tenants[tenant],
        database="appdb",
        asked=intern(parameters),
        replication=replication,
        protocol_minor=0,
        tls=False,
        is_console=False,
    )


def done(tag: str = "SELECT 1", status: bytes = b"I") -> bytes:
    """A simple query's answer."""
    return encode.command_complete(tag) + encode.ready_for_query(status)


def settings_taken(*reported: tuple[str, str]) -> bytes:
    """The answer to a change of state in one batch."""
    said = b"".join(encode.parameter_status(name.encode(), value.encode()) for name, value in reported)
    return (
        encode.PARSE_COMPLETE
        + encode.BIND_COMPLETE
        + encode.data_row(["x"])
        + encode.command_complete("SELECT 1")
        + encode.CLOSE_COMPLETE
        + said
        + encode.ready_for_query()
    )


def assured(*reported: tuple[str, str]) -> bytes:
    """The answer to one behind which a request has followed, up to what that is answered with."""
    taken = settings_taken(*reported).removesuffix(encode.ready_for_query())
    found = encode.frame(b"t", b"\0\0") + encode.NO_DATA + encode.CLOSE_COMPLETE
    return taken + encode.PARSE_COMPLETE + encode.ready_for_query() + found


def settings_again(*reported: tuple[str, str]) -> bytes:
    """The answer to what is set again behind a RESET."""
    taken = settings_taken(*reported)
    changed, closed, rest = taken.partition(encode.CLOSE_COMPLETE)
    return encode.CLOSE_COMPLETE + changed + closed + encode.CLOSE_COMPLETE + rest


def _row(values: Iterable[str | None]) -> bytes:
    row = encode.data_row([*values])
    return (
        encode.PARSE_COMPLETE
        + encode.BIND_COMPLETE
        + row
        + encode.command_complete("SELECT 1")
        + encode.CLOSE_COMPLETE
    )


def inquired(*values: str | None, in_session: str | None = None, left: str = "") -> bytes:
    """The answer to an inquiry: the values of parameters (by name), the one of them that is said to be set in the
    session ("": none; None: nobody asks), and what is left of what pins ("t" or "f" each)."""
    said = _row(values) if values else b""
    if in_session is not None:
        row = _row([in_session])
        said += row if in_session else row.replace(encode.data_row([""]), b"")
    if left:
        said += _row(left)
    return said + encode.ready_for_query()


def frames(data: bytes) -> list[Frame]:
    found = []
    while data:
        end = 1 + int.from_bytes(data[1:5], "big")
        assert end <= len(data), "a frame in part"
        found.append(Frame(chr(data[0]), data[5:end]))
        data = data[end:]
    return found


class Client:
    """One client after its login."""

    def __init__(self, stage: Stage, session: Session, transport: Transport) -> None:
        self.stage = stage
        self.session = session
        self.transport = transport

    def says(self, *data: bytes) -> None:
        self.transport.say(*data)

    def reads(self) -> list[Frame]:
        """What it has been sent since it last looked."""
        return frames(self.transport.take())

    def kinds(self) -> str:
        return "".join(frame.kind for frame in self.reads())

    @property
    def state(self) -> SessionState:
        return self.session.state


def _at_once(coroutine: Coroutine[Any, Any, Session]) -> Session:
    """A process that is alone asks nobody for permits."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        session: Session = done.value
        return session
    raise AssertionError("it waits")


class Stage:
    """A plane over recorded sockets. `server(n)` is the n-th server connection that was opened."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *,
        directory: Directory = DIRECTORY,
        options: ServerOptions | None = None,
        client_options: ClientOptions | None = None,
        **changes: Any,
    ) -> None:
        self.network = Network(monkeypatch)
        self.pools = SteppedPools(replace(options or ServerOptions(), **changes))
        self.process: ProcessStats = self.pools.process
        chosen = client_options or ClientOptions()
        self.registry = Registry(directory, chosen)
        self.plane = Plane(chosen, self.registry, self.pools, self.process, Judge())
        self.clients: list[Client] = []
        for name in REPORTED:
            display_names[name.lower()] = name

    def chooser(self, home: str = "", **parameters: str) -> Client:
        """A client that may say in SQL which tenant it speaks for; without `home` it has none yet."""
        who = login(**parameters)
        who.tenant, who.chooses = self.registry.known(home) or nobody(self.registry.lobby()), True
        return self._enter(who)

    def client(self, tenant: str = "acme", **parameters: str) -> Client:
        """A client in transaction mode that has been welcomed as if its pool knew all that it wants to know."""
        who = login(tenant, **parameters)
        who.tenant, who.user = self.registry.known(tenant), self.registry.user("app") or who.user
        return self._enter(who)

    def _enter(self, asked: Login) -> Client:
        session = _at_once(admit(self.plane, asked, LoginStream("client", 1)))
        transport = Transport(session)
        session.transport = transport
        session.pid, session.key = self.plane.new_key(0)
        reported = {name.lower(): value for name, value in self.network.reported.items()}
        known = {name: value for name, value in session.startup.parameters.items() if name in reported}
        session.told = intern(reported | known)
        if session.mode is not PoolMode.SESSION:
            session.step("welcomed")
        self.plane.enter(session)
        client = Client(self, session, transport)
        self.clients.append(client)
        return client

    def linked(self, tenant: str = "acme", **parameters: str) -> tuple[Client, Transport]:
        """A client in a transaction on a new server connection that has its state; nothing is left unread."""
        client = self.client(tenant, **parameters)
        client.says(BEGIN)
        self.pools.step()
        assert client.session.server is not None
        server = client.session.server.transport
        assert isinstance(server, Transport)
        asked = server.take()
        if asked != BEGIN:
            own = client.session.startup.parameters.items()
            answer = assured if b"tiergate_sure" in asked else settings_taken
            server.say(answer(*((n, v) for n, v in own if n in client.session.told.parameters)))
        assert (asked + server.take()).endswith(BEGIN)
        server.say(done("BEGIN", b"T"))
        assert client.kinds() == "CZ"
        return client, server

    def unlinked(self, tenant: str = "acme", **parameters: str) -> tuple[Client, Transport]:
        """The same client after its transaction; the connection is idle and has its state."""
        client, server = self.linked(tenant, **parameters)
        client.says(COMMIT)
        assert server.take() == COMMIT
        server.say(done("COMMIT"))
        assert client.kinds() == "CZ"
        assert client.state is SessionState.IDLE
        return client, server

    def kept(self, tenant: str = "acme", **parameters: str) -> tuple[Client, Transport]:
        """A client in session mode, with the server connection of its login."""
        client = self.client(tenant, **parameters)
        pool = self.pool
        pool.fill(1)
        self.pools.step()
        taken = pool.acquire(client.session, 0.0)
        assert taken is not None
        client.session.keep(taken)
        return client, self.server()

    def server(self, number: int = 0) -> Transport:
        return self.network.servers[number]

    @property
    def pool(self) -> Pool:
        (pool,) = self.pools
        return pool

    def leave(self) -> None:
        """Everybody leaves; nothing may be held any more."""
        self.network.connecting.open = self.network.cancelling.open = True
        for client in self.clients:
            client.transport.hang_up()
        for pool in self.pools:
            for server in pool.connections():
                pool.drop(server)
        for _ in range(5):
            self.pools.step()
            self.network.hang_ups()
            for pool in self.pools:
                for server in pool.connections():
                    pool.drop(server)
        assert self.held() == []

    def held(self) -> Iterable[str]:
        """Permits, sessions, waiters and connections that somebody still has."""
        found = []
        counters = [self.plane.clients, self.pools.servers]
        for account in self.plane.accounts:
            counters += [account.clients, account.servers, account.tier.clients, account.tier.servers]
        for user in self.plane.accounts.users():
            counters += [user.clients, user.servers]
        for account in self.plane.accounts:
            if account.waiting:
                found.append(f"{account.tenant.name}: {account.waiting} waiting")
        found += [f"{counter.name}: {counter.used}" for counter in counters if counter.used]
        found += [f"{pool.key}: in use" for pool in self.pools if not pool.unused]
        if self.plane.sessions:
            found.append(f"{len(self.plane.sessions)} sessions")
        return found
