"""From an authenticated login to a session: who is admitted, what a server says of its parameters, and what is told."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, cast

import pytest

from proxy.client.applicants import Login
from proxy.client.session import Session
from proxy.client.welcome import welcome
from proxy.errors import CapReached, NotAuthorized, ServerLost, ServerRefused, ShuttingDown
from proxy.model import ClientOptions, Limits, PoolMode, ServerOptions, Tier, User
from proxy.net.stream import LoginStream
from proxy.protocol.lifecycle import SessionState
from proxy.wire import decode, encode
from tests.client.stage import DIRECTORY, Stage, frames, login, settings_taken
from tests.rawclient import Frame
from tests.transports import REPORTED, Transport

ONE = encode.query(b"SELECT 1")


class Door:
    """Logins on a stage. `transport` is the socket of the last one."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.transport = Transport()

    async def begins(self, asked: Login, early: bytes = b"") -> asyncio.Task[Session]:
        """It runs until it waits for a server, if it does."""
        stream = LoginStream()
        self.transport = Transport(stream)
        stream.connection_made(self.transport)
        if early:
            stream.data_received(early)
        task = asyncio.ensure_future(welcome(self.stage.plane, asked, stream))
        await self.turns()
        return task

    async def turns(self) -> None:
        for _ in range(4):
            await asyncio.sleep(0)
            self.stage.pools.step()

    async def logs_in(self, asked: Login) -> Session:
        """With a server that takes what it is asked to take."""
        task = await self.begins(asked)
        if not task.done():
            server = self.stage.network.servers[-1]
            if server.take():
                server.say(settings_taken())
        return await task

    def said(self) -> list[Frame]:
        return frames(self.transport.take())


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


@pytest.fixture
def door(stage: Stage) -> Door:
    return Door(stage)


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


def statuses(said: list[Frame]) -> dict[str, str]:
    return dict(decode.parameter_status(frame.body) for frame in said if frame.kind == "S")


# --- the welcome ------------------------------------------------------------------------------------


def test_the_first_login_has_a_server_try_its_parameters_and_is_told_what_that_reports(door: Door) -> None:
    async def main() -> None:
        task = await door.begins(login(application_name="me", timezone="utc"))
        server = door.stage.server()
        asked = server.take()
        assert b"application_name" in asked
        assert b"acme" in asked
        assert door.said() == [], "nothing is told before that"
        server.say(settings_taken(("application_name", "me")))
        session = await task
        said = door.said()
        assert "".join(frame.kind for frame in said) == "SSSSKZ"
        assert statuses(said) == {**REPORTED, "application_name": "me"}
        assert decode.backend_key_data(said[-2].body) == (session.pid, session.key)
        assert session.startup.parameters["timezone"] == "UTC", "as the server spells it"
        assert session.state is SessionState.IDLE
        assert len(door.stage.pool.idle) == 1

    run(main())


def test_the_next_with_the_same_parameters_asks_nobody(door: Door) -> None:
    async def main() -> None:
        await door.logs_in(login(application_name="me"))
        for tenant in ("acme", "beta"):
            session = await (await door.begins(login(tenant, application_name="me")))
            assert session.state_needed.parameters["app.tenant_id"] == tenant
            assert statuses(door.said()).keys() == REPORTED.keys()
        assert door.stage.server().take() == b""

    run(main())


def test_one_with_others_asks_again(door: Door) -> None:
    async def main() -> None:
        await door.logs_in(login(application_name="me"))
        task = await door.begins(login(application_name="you"))
        assert b"you" in door.stage.server().take()
        door.stage.server().say(settings_taken(("application_name", "you")))
        await task
        assert statuses(door.said())["application_name"] == "you"

    run(main())


def test_what_is_remembered_of_them_is_bounded(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.client.welcome._REMEMBERED", 2)

    async def main() -> None:
        for name in ("a", "b", "c"):
            await door.logs_in(login(application_name=name))
        assert len(door.stage.pool.introductions) == 2
        await (await door.begins(login(application_name="c")))
        task = await door.begins(login(application_name="a"))
        assert not task.done()
        door.stage.server().say(settings_taken())
        await task

    run(main())


def test_requests_that_came_with_the_login_are_answered_behind_the_welcome(door: Door) -> None:
    async def main() -> None:
        await door.logs_in(login())
        door.said()
        task = await door.begins(login(), early=encode.SYNC + ONE)
        await task
        assert "".join(frame.kind for frame in door.said()) == "SSSSKZZ"
        assert door.stage.server().take() == ONE

    run(main())


def test_in_session_mode_the_connection_is_the_sessions_own(monkeypatch: pytest.MonkeyPatch) -> None:
    door = Door(Stage(monkeypatch, options=ServerOptions(pool_mode=PoolMode.SESSION)))

    async def main() -> None:
        first = await door.logs_in(login())
        second = await door.logs_in(login())
        assert first.state is second.state is SessionState.LINKED
        assert (first.pid, second.pid) == (101, 102), "the servers' own, as pg_backend_pid() says"
        assert first.server is not second.server

    run(main())


# --- who is not admitted ----------------------------------------------------------------------------


LIMITED = Limits(max_client_connections=1)


@pytest.mark.parametrize(
    ("what", "match"),
    [
        ("proxy", "max_client_conn"),
        ("tenant", 'tenant "acme"'),
        ("tier", 'tier "standard"'),
        ("user", 'user "app"'),
    ],
)
def test_a_cap_on_clients_refuses_one_more(monkeypatch: pytest.MonkeyPatch, what: str, match: str) -> None:
    directory, options = DIRECTORY, ClientOptions()
    if what == "proxy":
        options = ClientOptions(max_client_conn=1)
    elif what == "tenant":
        acme = replace(DIRECTORY.tenants["acme"], limits=LIMITED)
        directory = replace(DIRECTORY, tenants={**DIRECTORY.tenants, "acme": acme})
    elif what == "tier":
        directory = replace(DIRECTORY, tiers={**DIRECTORY.tiers, "standard": Tier("standard", caps=LIMITED)})
    else:
        directory = replace(
            DIRECTORY, users={**DIRECTORY.users, "app": User("app", "", None, limits=LIMITED)}
        )
    door = Door(Stage(monkeypatch, directory=directory, client_options=options))

    def asked() -> Login:
        who, registry = login(), door.stage.registry
        who.tenant, who.user = registry.known("acme"), registry.user("app") or who.user
        return who

    async def main() -> None:
        first = await door.logs_in(asked())
        held = door.stage.held()
        with pytest.raises(CapReached, match=match):
            await door.logs_in(asked())
        assert door.stage.held() == held
        cast(Transport, first.transport).hang_up()
        await door.logs_in(asked())

    run(main())


@pytest.mark.parametrize(("why", "error"), [("draining", ShuttingDown), ("suspended", NotAuthorized)])
def test_nobody_is_admitted_during_a_drain_or_for_a_suspended_tenant(
    door: Door, why: str, error: type[Exception]
) -> None:
    async def main() -> None:
        if why == "draining":
            door.stage.plane.draining = True
        else:
            door.stage.registry.disable("tenant", "acme")
        with pytest.raises(error):
            await door.logs_in(login())
        assert door.stage.held() == []

    run(main())


# --- what the server refuses ------------------------------------------------------------------------


def test_a_parameter_that_the_server_refuses_refuses_the_login_in_its_words(door: Door) -> None:
    async def main() -> None:
        task = await door.begins(login(timezone="Nowhere"))
        server = door.stage.server()
        server.say(encode.error('invalid value for parameter "TimeZone"', "22023"), encode.ready_for_query())
        with pytest.raises(ServerRefused) as caught:
            await task
        assert b"SFATAL\0" in caught.value.frame
        assert caught.value.sqlstate == "22023"
        assert server.aborted, "nobody knows which settings it has now"
        server.hang_up()
        assert door.stage.held() == []

    run(main())


def test_one_that_is_only_for_a_connections_start_is_tried_there(door: Door) -> None:
    async def main() -> None:
        task = await door.begins(login(special="x"))
        door.stage.server().say(
            encode.error('parameter "special" cannot be set after connection start', "55P02"),
            encode.ready_for_query(),
        )
        await door.turns()
        assert door.stage.network.logins[-1]["parameters"] == {"special": "x"}
        door.stage.server(1).say(settings_taken())
        session = await task
        assert session.pool.key.at_start == (("special", "x"),)
        again = await door.begins(login(special="y"))
        assert door.stage.network.logins[-1]["parameters"] == {"special": "y"}, "the next time at once"
        door.stage.server(2).say(settings_taken())
        await again

    run(main())


def test_the_tenants_own_parameter_cannot_lead_round_and_round(door: Door) -> None:
    async def main() -> None:
        task = await door.begins(login())
        for number in range(3):
            if task.done():
                break
            door.stage.server(number).say(
                encode.error('parameter "app.tenant_id" cannot be set after connection start', "55P02"),
                encode.ready_for_query(),
            )
            door.stage.network.hang_ups()
            await door.turns()
        with pytest.raises(ServerRefused):
            await task

    run(main())


# --- servers that go --------------------------------------------------------------------------------


def test_a_server_that_goes_while_it_tries_them_is_told(door: Door) -> None:
    async def main() -> None:
        task = await door.begins(login())
        door.stage.server().hang_up()
        with pytest.raises(ServerLost):
            await task
        assert door.stage.held() == []

    run(main())


def test_with_its_own_last_word_where_it_has_one(door: Door) -> None:
    async def main() -> None:
        task = await door.begins(login())
        door.stage.server().say(
            encode.error("the database system is shutting down", "57P01", severity="FATAL")
        )
        door.stage.server().hang_up()
        with pytest.raises(ServerRefused, match="shutting down"):
            await task

    run(main())


@pytest.mark.parametrize("mode", [PoolMode.TRANSACTION, PoolMode.SESSION])
def test_a_server_that_goes_right_behind_its_answer_is_told_too(
    monkeypatch: pytest.MonkeyPatch, mode: PoolMode
) -> None:
    """Both come in one turn of the loop, before the login goes on."""
    door = Door(Stage(monkeypatch, options=ServerOptions(pool_mode=mode)))

    async def main() -> None:
        task = await door.begins(login())
        door.stage.server().say(settings_taken())
        door.stage.server().hang_up()
        with pytest.raises(ServerLost):
            await task
        assert door.stage.held() == []

    run(main())


def test_a_server_that_cannot_be_reached_refuses_the_login(door: Door) -> None:
    async def main() -> None:
        door.stage.network.refusal = ServerLost("the server cannot be reached")
        task = await door.begins(login())
        await door.turns()
        with pytest.raises(Exception, match="cannot be reached"):
            await task
        assert door.stage.held() == []

    run(main())


# --- logins that are given up -----------------------------------------------------------------------


@pytest.mark.parametrize("when", ["waiting", "trying", "tried"])
def test_a_login_that_is_given_up_leaves_nothing(door: Door, when: str) -> None:
    async def main() -> None:
        door.stage.network.connecting.open = when != "waiting"
        task = await door.begins(login())
        if when == "tried":
            door.stage.server().say(settings_taken())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not door.stage.pool.queue
        assert not door.stage.pool.active
        assert door.stage.plane.clients.used == 0
        door.stage.network.connecting.open = True
        await door.turns()
        for server in door.stage.network.servers:
            server.hang_up()
        assert door.stage.held() == []

    run(main())
