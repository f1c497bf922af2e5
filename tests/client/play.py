"""Clients on a plane and servers that live in memory, whose bytes come in any pieces and any order; and each client
beside a server of its own that it says the same to."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import strategies as st

from proxy.model import PoolMode, ServerOptions
from proxy.protocol.lifecycle import SessionState
from proxy.wire import decode, encode
from tests.client.simulated import SimulatedServer
from tests.client.stage import DIRECTORY, Client, Stage, frames
from tests.rawclient import Frame
from tests.transports import Transport

STARTUPS: tuple[dict[str, str], ...] = (
    {},
    {"application_name": "app"},
    {"timezone": "CET"},
    {"work_mem": "8MB"},
)


def always(cycle: bytes, alone: SimulatedServer) -> bool:
    return True


def chooser_may(cycle: bytes, alone: SimulatedServer) -> bool:
    """What it is refused within a transaction is left out there."""
    texts = [cycle]
    for frame in frames(cycle):
        if frame.kind == "B":
            texts.append(alone.statements.get(frame.body.split(b"\0")[1], "").encode())
    of_session = (b"SET app.tenant_id", b"RESET ALL", b"DISCARD ALL")
    return alone.status != "T" or not any(each in text for each in of_session for text in texts)


@dataclass
class Speaker:
    """A client of the proxy, what it has left to say in cycles (those that it may say then), and what a server of its
    own has said to it."""

    client: Client
    alone: SimulatedServer
    cycles: deque[bytes]
    startup: dict[str, str]
    waits: bool
    may: Callable[[bytes, SimulatedServer], bool]
    unsent: bytes = b""
    read: bytes = b""
    expected: bytes = b""

    def says(self, size: int) -> bool:
        """Sends at most `size` bytes, of the next cycle only when the last is answered. Whether it could."""
        self.read += self.client.transport.take()
        if not self.unsent:
            if not self.cycles or (self.waits and ready(self.read) < ready(self.expected)):
                return False
            self.unsent = self.cycles.popleft()
            if not self.may(self.unsent, self.alone):
                self.unsent = b""
                return True
            self.expected += self.alone.feed(self.unsent)
        if not self.client.transport.reading:
            return False
        piece, self.unsent = self.unsent[:size], self.unsent[size:]
        self.client.says(piece)
        return True


def ready(said: bytes) -> int:
    return sum(frame.kind == "Z" for frame in whole(said))


def whole(said: bytes) -> list[Frame]:
    found = []
    at = 0
    while len(said) - at >= 5 and len(said) >= (end := at + 1 + int.from_bytes(said[at + 1 : at + 5], "big")):
        found.append(Frame(chr(said[at]), said[at + 5 : end]))
        at = end
    return found


def told(said: bytes) -> list[tuple[str, object]]:
    """What counts of an answer: errors by their SQLSTATE; parameters by themselves."""
    found: list[tuple[str, object]] = []
    for frame in frames(said):
        if frame.kind == "E":
            found.append(("E", decode.error_fields(frame.body)["C"]))
        elif frame.kind not in "SN":
            found.append((frame.kind, frame.body))
    return found


def believed(said: bytes, startup: dict[str, str]) -> dict[str, str]:
    values = {"TimeZone": "UTC", "application_name": ""}
    values |= {"TimeZone" if name == "timezone" else name: value for name, value in startup.items()}
    return values | dict(decode.parameter_status(frame.body) for frame in frames(said) if frame.kind == "S")


class Play:
    """`kind`: of all its clients: client, chooser (who may say in SQL whom it speaks for) or session (mode)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, servers: int, statements: int, kind: str) -> None:
        self.kind = kind
        size = servers if kind != "session" else 3
        clusters = {name: replace(cluster, pool_size=size) for name, cluster in DIRECTORY.clusters.items()}
        self.stage = Stage(
            monkeypatch,
            directory=replace(DIRECTORY, clusters=clusters),
            options=ServerOptions(
                max_prepared_statements=statements,
                pool_mode=PoolMode.SESSION if kind == "session" else PoolMode.TRANSACTION,
            ),
        )
        self.simulated: dict[Transport, SimulatedServer] = {}
        self.unsaid: dict[Transport, bytes] = {}
        self.speakers: list[Speaker] = []

    def joins(self, tenant: str, startup: dict[str, str], cycles: list[bytes], *, waits: bool) -> None:
        stage = self.stage
        may = always
        if self.kind == "chooser":
            client, may = stage.chooser(tenant, **startup), chooser_may
        elif self.kind == "session":
            client = self._keeps(tenant, startup)
        else:
            client = stage.client(tenant, **startup)
        alone = SimulatedServer({**startup, "app.tenant_id": tenant})
        self.speakers.append(Speaker(client, alone, deque(cycles), startup, waits, may))

    def _keeps(self, tenant: str, startup: dict[str, str]) -> Client:
        """Its login has brought its server connection to its state."""
        client = self.stage.client(tenant, **startup)
        session, pool = client.session, self.stage.pool
        pool.fill(len(self.speakers) + 1)
        self.stage.pools.step()
        taken = pool.acquire(session, 0.0)
        assert taken is not None
        session.keep(taken)
        taken.send(taken.apply(session.state_needed))
        while self.server_hears(0, 1 << 20):
            pass
        return client

    def server_hears(self, number: int, size: int) -> bool:
        """A server reads what it was sent and says at most `size` bytes of its answers."""
        servers = [server for server in self.stage.network.servers if not server.lost]
        for server in servers[number % len(servers) :] + servers[: number % len(servers)] if servers else []:
            simulated = self.simulated.setdefault(server, SimulatedServer())
            self.unsaid[server] = self.unsaid.get(server, b"") + simulated.feed(server.take())
            if server.aborted or (simulated.over and not self.unsaid[server]):
                server.hang_up()
                return True
            if self.unsaid[server] and server.reading:
                piece, self.unsaid[server] = self.unsaid[server][:size], self.unsaid[server][size:]
                server.say(piece)
                return True
        return False

    def plays(self, turns: list[tuple[int, int]]) -> None:
        """In the order of `turns`, then until nothing moves any more."""
        for who, size in turns:
            self.stage.pools.step()
            if who % 2:
                self.server_hears(who // 2, size)
            else:
                self.speakers[who // 2 % len(self.speakers)].says(size)
        moves, rounds = True, 0
        while moves:
            rounds += 1
            assert rounds < 10_000, "it goes round and round"
            self.stage.pools.step()
            moves = self.server_hears(0, 1 << 20)
            for speaker in self.speakers:
                moves = speaker.says(1 << 20) or moves


TURNS = st.lists(st.tuples(st.integers(0, 11), st.sampled_from([1, 3, 7, 40, 5_000])), max_size=60)


def scripts(
    cycle: st.SearchStrategy[bytes], startups: Sequence[dict[str, str]] = STARTUPS
) -> st.SearchStrategy[Any]:
    one = st.tuples(
        st.sampled_from(["acme", "beta"]), st.sampled_from(startups), st.lists(cycle, max_size=12)
    )
    return st.lists(one, min_size=1, max_size=3)


def check(
    script: list[Any],
    turns: list[tuple[int, int]],
    servers: int,
    statements: int,
    *,
    waits: bool,
    kind: str = "client",
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        play = Play(monkeypatch, servers, statements, kind)
        for tenant, startup, cycles in script:
            # At the end it is in no transaction and leaves, so that others get their turn.
            ending = [encode.query(b"ROLLBACK"), encode.query(b"SELECT 9"), encode.TERMINATE]
            play.joins(tenant, startup, cycles + ending, waits=waits)
        play.plays(turns)
        for speaker in play.speakers:
            speaker.read += speaker.client.transport.take()
            assert told(speaker.read) == told(speaker.expected)
            assert believed(speaker.read, speaker.startup) == believed(speaker.expected, speaker.startup)
            assert speaker.client.state is SessionState.CLOSED
        play.stage.leave()
