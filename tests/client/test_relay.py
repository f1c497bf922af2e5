"""Replication connections: bytes both ways unread, one end for both, and permits that balance."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest

from proxy.client.applicants import Login
from proxy.client.relay import Relay
from proxy.errors import CapReached, NoHealthyEndpoint, ServerLost, ServerRefused, StatementRefused
from proxy.model import Directory, Limits, Role, SqlPolicy, Tier
from proxy.net.stream import LoginStream
from proxy.wire import decode, encode
from proxy.wire.startup import CancelRequest
from tests.client.stage import DIRECTORY, OWN, Stage, frames, login
from tests.transports import REPORTED, Transport, endpoint

COPY_BOTH = encode.frame(b"W", b"\0\0\0")
WAL = encode.frame(b"d", b"w" * 50)
START = encode.query(b"START_REPLICATION 0/0")


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def replication(tenant: str = "big", **parameters: str) -> Login:
    return login(tenant, replication="true", **parameters)


async def opened(stage: Stage, asked: Login, early: bytes = b"") -> tuple[Relay, Transport]:
    stream = LoginStream()
    transport = Transport(stream)
    stream.connection_made(transport)
    if early:
        stream.data_received(early)
    return await Relay.open(stage.plane, asked, stream), transport


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


def test_the_servers_welcome_is_told_with_a_key_of_ours(stage: Stage) -> None:
    async def main() -> None:
        relay, client = await opened(stage, replication())
        said = frames(client.take())
        assert "".join(frame.kind for frame in said) == "SSSSKZ"
        assert dict(decode.parameter_status(frame.body) for frame in said[:4]) == REPORTED
        pid, key = decode.backend_key_data(said[4].body)
        assert (pid, key) == (101, relay.key)
        assert key != b"key!"

    run(main())


def test_the_server_is_asked_for_the_same_kind_of_replication(stage: Stage) -> None:
    async def main() -> None:
        await opened(stage, login("big", replication="database", application_name="standby"))
        (asked,) = stage.network.logins
        assert asked["parameters"] == {"application_name": "standby", "replication": "database"}
        assert (asked["database"], asked["user"]) == ("appdb", "app")

    run(main())


def test_bytes_pass_as_they_come_both_ways(stage: Stage) -> None:
    async def main() -> None:
        _, client = await opened(stage, replication(), early=START[:7])
        server = stage.server()
        assert server.take() == START[:7], "what came with the login goes first"
        client.take()
        client.say(START[7:])
        assert server.take() == START[7:]
        server.say(COPY_BOTH + WAL[:20])
        server.say(WAL[20:], b"\xff not looked at")
        assert client.take() == COPY_BOTH + WAL + b"\xff not looked at"

    run(main())


def test_backpressure_holds_the_other_side(stage: Stage) -> None:
    async def main() -> None:
        _, client = await opened(stage, replication())
        server = stage.server()
        for slow, fast in ((client, server), (server, client)):
            slow.get_protocol().pause_writing()  # type: ignore[attr-defined]
            assert not fast.reading
            assert slow.reading
            slow.get_protocol().resume_writing()  # type: ignore[attr-defined]
            assert fast.reading

    run(main())


@pytest.mark.parametrize("who", ["client", "server", "operator"])
def test_when_one_side_ends_so_does_the_other_and_nothing_is_held(stage: Stage, who: str) -> None:
    async def main() -> None:
        relay, client = await opened(stage, replication())
        server = stage.server()
        assert stage.plane.clients.used == stage.pools.servers.used == 1
        assert stage.plane.accounts.account(DIRECTORY.tenants["big"]).servers.used == 1
        if who == "client":
            client.hang_up()
        elif who == "server":
            server.hang_up()
        else:
            relay.close()
        assert client.closed
        assert server.closed
        client.hang_up()
        server.hang_up()
        relay.close()
        assert stage.held() == []
        assert stage.pools.room.cluster("own").used == 0
        assert not stage.plane.relays

    run(main())


def test_a_cancel_goes_on_with_the_servers_own_key(stage: Stage) -> None:
    async def main() -> None:
        relay, _ = await opened(stage, replication())
        stage.plane.cancel(CancelRequest(relay.pid, b"nope"))
        stage.pools.step()
        assert stage.network.cancels == []
        stage.plane.cancel(CancelRequest(relay.pid, relay.key))
        stage.pools.step()
        assert stage.network.cancels == [101]

    run(main())


def ruled() -> Directory:
    tiers = {**DIRECTORY.tiers, "enterprise": Tier("enterprise", policy=SqlPolicy(read_only=True))}
    return replace(DIRECTORY, tiers=tiers)


def test_a_tenant_with_rules_on_sql_has_no_connection_that_takes_sql_unread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch, directory=ruled())

    async def main() -> None:
        with pytest.raises(StatementRefused, match="its SQL has rules"):
            await opened(stage, login("big", replication="database"))
        assert stage.held() == []
        relay, _ = await opened(stage, replication())
        relay.follow()
        assert stage.plane.relays == {relay}
        relay.close()

    run(main())


def test_it_ends_where_its_tenant_gets_rules(stage: Stage) -> None:
    async def main() -> None:
        relay, _ = await opened(stage, login("big", replication="database"))
        stage.registry.replace(DIRECTORY, stage.plane.options)
        relay.follow()
        assert stage.plane.relays == {relay}
        stage.registry.replace(ruled(), stage.plane.options)
        relay.follow()
        assert not stage.plane.relays

    run(main())


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (ServerLost("down"), NoHealthyEndpoint),
        (ServerRefused("no", "28000", encode.error("no", "28000")), ServerRefused),
    ],
)
def test_a_server_that_cannot_be_had_is_told_and_nothing_is_held(
    stage: Stage, refusal: Exception, kind: type[Exception]
) -> None:
    async def main() -> None:
        stage.network.refusal = refusal
        with pytest.raises(kind):
            await opened(stage, replication())
        assert stage.held() == []
        assert not stage.plane.relays

    run(main())


def test_a_cluster_without_a_primary_has_no_replication(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = replace(OWN, endpoints=(endpoint(role=Role.REPLICA),))
    stage = Stage(monkeypatch, directory=replace(DIRECTORY, clusters={**DIRECTORY.clusters, "own": cluster}))

    async def main() -> None:
        with pytest.raises(NoHealthyEndpoint, match="no primary"):
            await opened(stage, replication())
        assert stage.held() == []

    run(main())


def test_it_counts_against_the_caps_on_server_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    big = replace(DIRECTORY.tenants["big"], limits=Limits(max_connections=1))
    directory = replace(DIRECTORY, tenants={**DIRECTORY.tenants, "big": big})
    stage = Stage(monkeypatch, directory=directory)

    async def main() -> None:
        asked = replication()
        asked.tenant = big
        relay, _ = await opened(stage, asked)
        held = stage.held()
        with pytest.raises(CapReached, match="max_connections"):
            await opened(stage, asked)
        assert stage.held() == held
        relay.close()
        await opened(stage, asked)

    run(main())
