"""What a login is given is worked out once, and again when anything of it is another."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic

import pytest

from proxy.client.applicants import Login
from proxy.client.entrance import Entrance, entrance
from proxy.errors import NotAuthorized
from proxy.model import ClientOptions
from proxy.net.stream import LoginStream
from proxy.protocol.state import intern, status
from tests.client.stage import DIRECTORY, Stage, login

STREAM = LoginStream("client", 1)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def given(stage: Stage, asked: Login) -> Entrance:
    return entrance(stage.plane, asked, STREAM)


def test_who_says_the_same_is_given_the_same(stage: Stage) -> None:
    asked = login(application_name="me")
    first = given(stage, asked)
    assert given(stage, asked) is first
    assert given(stage, login(application_name="me")) is not first, "it is kept with the login"
    assert first.permits[0] is stage.plane.clients
    assert first.place.startup.parameters == {"application_name": "me", "app.tenant_id": "acme"}


def test_a_change_of_the_registry_is_seen(stage: Stage) -> None:
    asked = login()
    first = given(stage, asked)
    stage.registry.replace(DIRECTORY, ClientOptions())
    assert given(stage, asked) is not first
    stage.registry.disable("tenant", "acme")
    with pytest.raises(NotAuthorized, match="suspended"):
        given(stage, asked)


def test_a_pool_that_was_forgotten_is_made_anew(stage: Stage) -> None:
    asked = login()
    first = given(stage, asked)
    stage.pools.forget_unused(monotonic() + 1_000_000)
    assert given(stage, asked).place.pool is not first.place.pool


def test_a_parameter_that_is_only_for_a_connections_start_moves_to_the_pool(stage: Stage) -> None:
    asked = login(special="x")
    first = given(stage, asked)
    stage.pools.only_at_start.add("special")
    assert given(stage, asked).place.pool is not first.place.pool
    assert given(stage, asked).place.pool.key.at_start == (("special", "x"),)


def test_a_clients_own_address_is_in_none_that_is_kept(stage: Stage) -> None:
    stage.pools.options = replace(stage.pools.options, application_name_add_host=True)
    asked = login()
    assert given(stage, asked).place.startup.parameters["application_name"] == "app - client:1"
    other = entrance(stage.plane, asked, LoginStream("other", 2))
    assert other.place.startup.parameters["application_name"] == "app - other:2"


def test_what_a_server_has_said_of_the_parameters_is_told_again(stage: Stage) -> None:
    found = given(stage, login())
    assert not found.introduced(stage.plane)
    for zone in ("UTC", "CET"):
        told = intern({"timezone": zone})
        found.place.pool.introductions[intern({})] = (told, told)
        assert found.introduced(stage.plane)
        assert found.state.parameters == {"timezone": zone, "app.tenant_id": "acme"}
        assert (found.told, found.statuses) == (told, status("timezone", zone))
