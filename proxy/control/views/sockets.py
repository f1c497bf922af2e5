"""Whose connections there are: clients and servers, replication included, in PgBouncer's columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from time import monotonic

from proxy.client.plane import Plane
from proxy.client.relay import Relay
from proxy.client.session import Session
from proxy.control.views import queue
from proxy.control.views.view import Value, View, split_microseconds
from proxy.net.transport import Transport
from proxy.protocol.lifecycle import ServerState, SessionState
from proxy.server.connection import ServerConnection
from proxy.server.pool import Pool

_COLUMNS = (
    "type", "user", "database", "replication", "state", "addr", "port", "local_addr", "local_port", "connect_time",
    "request_time", "wait", "wait_us", "close_needed", "ptr", "link", "remote_pid", "tls", "application_name",
    "prepared_statements", "id",
)  # fmt: skip
_BUFFERS = (
    "recv_pos", "pkt_pos", "pkt_remain", "send_pos", "send_remain", "pkt_avail", "send_avail"
)  # fmt: skip
_CLIENT_STATES = {SessionState.LINKED: "active", SessionState.PINNED: "active"}
_SERVER_STATES = {ServerState.RESETTING: "tested", ServerState.GONE: "closing"}
_ACTIVE = ("active", "waiting", "tested")
_STATE = _COLUMNS.index("state")
Row = tuple[Value, ...]


def pointer(thing: object) -> str:
    return f"{id(thing):#x}"


def _address(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    return (host, int(port)) if colon and port.isdigit() else (address, 0)


def _when(moment: float, now: float) -> str:
    """A moment of the monotonic clock as a time of day, as PgBouncer writes it."""
    return (datetime.now(UTC) - timedelta(seconds=now - moment)).strftime("%Y-%m-%d %H:%M:%S UTC")


def _local(transport: Transport) -> tuple[str, int]:
    name = transport.get_extra_info("sockname")
    return (name[0], name[1]) if isinstance(name, tuple) else ("unix", 0)


def _tls(transport: Transport) -> str:
    return "TLS" if transport.get_extra_info("ssl_object") is not None else ""


def clients(plane: Plane) -> View:
    now = monotonic()
    places = queue.places(plane)
    rows = [(*_client(session, now), *_place(session), places.get(id(session))) for session in plane.sessions]
    rows += [(*_relayed_client(relay, now), *_place(relay.session), None) for relay in plane.relays]
    return View((*_COLUMNS, "tenant", "tier", "cluster", "pool_mode", "pins", "place"), rows)


def _client(session: Session, now: float) -> Row:
    login, server = session.login, session.server
    waiting = session.state is SessionState.WAITING or session.throttled is not None
    if waiting:
        asked = session.waiting_since
    else:
        asked = server.query_since if server is not None else session.idle_since
    return (
        "C", session.user.name, login.database, "none", _CLIENT_STATES.get(session.state, session.state.value),
        *_address(session.address), *_local(session.transport), _when(session.connected_at, now), _when(asked, now),
        *split_microseconds(now - session.waiting_since if waiting else 0.0), 0, pointer(session),
        pointer(server) if server is not None else "", session.pid, "TLS" if login.tls else "",
        session.state_needed.parameters.get("application_name", ""), len(session.statements), id(session),
    )  # fmt: skip


def _place(session: Session) -> Row:
    pins = ", ".join(sorted(reason.value for reason in session.pins))
    tenant, cluster = session.speaks_for, session.pool.key.cluster
    if tenant is not session.tenant:  # its next statement goes there
        cluster = tenant.cluster
    return (tenant.name, tenant.tier, cluster, session.mode.value, pins)


def servers(plane: Plane) -> View:
    now = monotonic()
    rows = [
        (
            *_server(pool, server, now), pool.key.cluster,
            server.account.tenant.name if server.account is not None else "", server.uses, server.cancels,
        )
        for pool in plane.pools
        for server in pool.connections()
    ]  # fmt: skip
    rows += [(*_relayed_server(relay, now), relay.cluster, relay.tenant, 1, 0) for relay in plane.relays]
    return View((*_COLUMNS, "cluster", "tenant", "uses", "being_canceled"), rows)


def _server(pool: Pool, server: ServerConnection, now: float) -> Row:
    return (
        "S", pool.key.user, pool.key.database, "none", _SERVER_STATES.get(server.state, server.state.value),
        server.endpoint.host, server.endpoint.port, *_local(server.transport), _when(server.opened_at, now),
        _when(server.query_since or server.opened_at, now), 0, 0, int(server.generation != pool.generation),
        pointer(server), pointer(server.link) if server.link is not None else "", server.pid, _tls(server.transport),
        server.values.parameters.get("application_name", ""), len(server.prepared), id(server),
    )  # fmt: skip


def _relayed_client(relay: Relay, now: float) -> Row:
    login = relay.session.login
    return (
        "C", relay.session.user.name, login.database, relay.kind, "active", *_address(relay.session.address),
        *_local(relay.client.transport), *_begun(relay, now), 0, 0, 0, pointer(relay), pointer(relay.server), relay.pid,
        "TLS" if login.tls else "", login.asked.parameters.get("application_name", ""), 0, id(relay),
    )  # fmt: skip


def _relayed_server(relay: Relay, now: float) -> Row:
    key = relay.session.pool.key
    return (
        "S", key.user, key.database, relay.kind, "active", relay.endpoint.host, relay.endpoint.port,
        *_local(relay.server.transport), *_begun(relay, now), 0, 0, 0, pointer(relay.server), pointer(relay), relay.pid,
        _tls(relay.server.transport), relay.session.login.asked.parameters.get("application_name", ""), 0, id(relay.server),
    )  # fmt: skip


def _begun(relay: Relay, now: float) -> tuple[str, str]:
    began = _when(relay.session.connected_at, now)
    return began, began


def _sockets(plane: Plane, wanted: Callable[[str], bool]) -> View:
    """Of PgBouncer's buffers those are told that there are: what waits to be read, and to be sent."""
    now = monotonic()
    rows: list[Row] = []
    for row, transport, unread in _all(plane, now):
        state = str(row[_STATE])
        if wanted(state):
            side = "cl" if row[0] == "C" else "sv"
            named = (*row[:_STATE], f"{side}_{state}", *row[_STATE + 1 :])
            rows.append((*named, 0, 0, 0, 0, 0, unread, transport.get_write_buffer_size()))
    return View((*_COLUMNS, *_BUFFERS), rows)


def _all(plane: Plane, now: float) -> Iterator[tuple[Row, Transport, int]]:
    for session in plane.sessions:
        yield _client(session, now), session.transport, len(session.parked)
    for pool in plane.pools:
        for server in pool.connections():
            yield _server(pool, server, now), server.transport, 0
    for relay in plane.relays:
        yield _relayed_client(relay, now), relay.client.transport, 0
        yield _relayed_server(relay, now), relay.server.transport, 0


def sockets(plane: Plane) -> View:
    return _sockets(plane, lambda _: True)


def active_sockets(plane: Plane) -> View:
    return _sockets(plane, _ACTIVE.__contains__)
