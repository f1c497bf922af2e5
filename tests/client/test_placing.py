"""Where a session's transactions go and with which parameters, at the login and when the registry changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from proxy.client.placing import follow_registry
from proxy.errors import NoHealthyEndpoint, NotAuthorized, ShuttingDown
from proxy.model import Directory, Limits, PoolMode, ServerOptions, Tier
from proxy.protocol.state import with_parameter
from proxy.registry.memory import OLD
from proxy.wire import encode
from tests.client.stage import DIRECTORY, Client, Stage


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def parameters(client: Client) -> Mapping[str, str]:
    return client.session.startup.parameters


def tenant(**changes: object) -> Directory:
    tenants = dict(DIRECTORY.tenants)
    tenants["acme"] = replace(tenants["acme"], **changes)  # type: ignore[arg-type]
    return replace(DIRECTORY, tenants=tenants)


# --- at the login -----------------------------------------------------------------------------------


def test_the_pool_is_that_of_the_tenants_cluster_the_database_and_the_user(stage: Stage) -> None:
    assert stage.client().session.pool.key == ("shared", "appdb", "app", (), "")
    assert stage.client("big").session.pool.key == ("own", "appdb", "app", (), "")


def test_tenants_of_a_cluster_share_a_pool(stage: Stage) -> None:
    assert stage.client("acme").session.pool is stage.client("beta").session.pool


def test_the_tenants_name_is_a_parameter_whatever_the_client_says(stage: Stage) -> None:
    client = stage.client("acme", **{"app.tenant_id": "beta"})
    assert parameters(client) == {"app.tenant_id": "acme"}


def test_the_clients_parameters_go_over_the_tenants_and_those_over_the_tiers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tier = Tier("standard", parameters={"Work_Mem": "1MB", "a.x": "tier", "a.y": "tier"})
    directory = replace(
        tenant(parameters={"a.x": "tenant", "A.Y": "tenant"}),
        tiers={"standard": tier, "enterprise": Tier("enterprise")},
    )
    client = Stage(monkeypatch, directory=directory).client(**{"A.x": "client"})
    assert parameters(client) == {
        "work_mem": "1MB",
        "a.x": "client",
        "a.y": "tenant",
        "app.tenant_id": "acme",
    }


@pytest.mark.parametrize(("said", "name"), [({}, "app"), ({"application_name": "psql"}, "psql")])
def test_the_clients_address_can_be_part_of_its_name(
    monkeypatch: pytest.MonkeyPatch, said: dict[str, str], name: str
) -> None:
    stage = Stage(monkeypatch, options=ServerOptions(application_name_add_host=True))
    assert parameters(stage.client(**said))["application_name"] == f"{name} - client:1"


def test_what_servers_take_only_at_a_start_chooses_the_pool(stage: Stage) -> None:
    client = stage.client(session_preload_libraries="x")
    assert client.session.pool.key.at_start == (("session_preload_libraries", "x"),)
    assert "session_preload_libraries" not in parameters(client)


@pytest.mark.parametrize(
    ("cluster_user", "server_user", "expected"),
    [
        ("", "", ("app", "app-secret")),
        ("", "backend", ("backend", "backend-secret")),
        ("pooler", "backend", ("pooler", "pooler-secret")),
    ],
)
def test_the_servers_login_is_the_clusters_or_the_users_or_the_clients_own(
    monkeypatch: pytest.MonkeyPatch, cluster_user: str, server_user: str, expected: tuple[str, str]
) -> None:
    cluster = DIRECTORY.clusters["shared"]
    if cluster_user:
        cluster = replace(cluster, user=cluster_user, password="pooler-secret")
    user = DIRECTORY.users["app"]
    if server_user:
        user = replace(user, server_user=server_user, server_password="backend-secret")
    directory = replace(
        DIRECTORY, clusters={**DIRECTORY.clusters, "shared": cluster}, users={**DIRECTORY.users, "app": user}
    )
    assert Stage(monkeypatch, directory=directory).client().session.pool.login == expected


def test_a_disabled_cluster_takes_nobody(stage: Stage) -> None:
    stage.registry.disable("cluster", "shared")
    with pytest.raises(NoHealthyEndpoint, match='"shared" is not available'):
        stage.client()
    assert stage.held() == []


# --- when the registry changes ----------------------------------------------------------------------


def test_a_tenant_that_moves_takes_its_own_settings_along(stage: Stage) -> None:
    client = stage.client(application_name="mine")
    session = client.session
    session.state_needed = with_parameter(session.state_needed, "timezone", "Asia/Tokyo")
    session.state_needed = with_parameter(session.state_needed, "application_name", "changed")
    stage.registry.replace(tenant(cluster="own"), stage.plane.options)
    follow_registry(session, session.let_go)
    assert session.pool.key.cluster == "own"
    assert session.state_needed.parameters == {
        "timezone": "Asia/Tokyo",
        "application_name": "changed",
        "app.tenant_id": "acme",
    }
    assert session.startup.parameters["application_name"] == "mine"


def test_new_limits_hold_from_the_next_transaction(stage: Stage) -> None:
    session = stage.client().session
    stage.registry.replace(
        tenant(limits=Limits(query_wait_timeout=3.0, max_connections=1)), stage.plane.options
    )
    follow_registry(session, session.let_go)
    assert session.wait_limit == 3.0
    assert session.account.servers.limit == 1
    assert session.epoch == stage.registry.epoch


def test_a_new_pool_mode_is_taken_up(stage: Stage) -> None:
    session = stage.client().session
    stage.registry.replace(tenant(pool_mode=PoolMode.STATEMENT), stage.plane.options)
    follow_registry(session, session.let_go)
    assert session.mode is PoolMode.STATEMENT


def test_who_has_a_connection_keeps_its_place(stage: Stage) -> None:
    client, _server = stage.linked()
    pool = client.session.pool
    stage.registry.replace(tenant(pool_mode=PoolMode.STATEMENT), stage.plane.options)
    follow_registry(client.session, client.session.let_go)
    assert client.session.pool is pool
    assert client.session.epoch == OLD, "the new one is for when the connection is let go"
    stage.leave()


def test_who_has_a_connection_cannot_follow_its_tenant_to_another_cluster(stage: Stage) -> None:
    client, _server = stage.linked()
    stage.registry.replace(tenant(cluster="own"), stage.plane.options)
    with pytest.raises(ShuttingDown, match='tenant "acme" has moved'):
        follow_registry(client.session, client.session.let_go)
    stage.leave()


@pytest.mark.parametrize(
    ("directory", "error"),
    [
        (tenant(active=False), ShuttingDown),
        (replace(DIRECTORY, tenants={}), ShuttingDown),
        (replace(DIRECTORY, users={}), NotAuthorized),
        (
            replace(DIRECTORY, users={"app": replace(DIRECTORY.users["app"], tenants=frozenset({"beta"}))}),
            NotAuthorized,
        ),
        (tenant(cluster="nowhere"), NoHealthyEndpoint),
    ],
)
def test_who_may_not_be_there_any_more_is_told(
    stage: Stage, directory: Directory, error: type[Exception]
) -> None:
    session = stage.client().session
    stage.registry.replace(directory, stage.plane.options)
    with pytest.raises(error):
        follow_registry(session, session.let_go)


def test_a_suspended_tenant_is_told(stage: Stage) -> None:
    session = stage.client().session
    stage.registry.disable("tenant", "acme")
    with pytest.raises(ShuttingDown, match="suspended"):
        follow_registry(session, session.let_go)


# --- sessions that change their tenant ----------------------------------------------------------------


def turned(client: Client, tenant: str) -> Client:
    chooser = client.session.chooser
    assert chooser is not None
    client.says(encode.query(f"SET app.tenant_id = '{tenant}'".encode()))
    assert chooser.turn()
    assert client.session.tenant.name == tenant
    return client


def test_who_comes_back_to_a_tenant_finds_the_same_place(stage: Stage) -> None:
    client = turned(turned(stage.chooser("acme"), "beta"), "acme")
    found = list(stage.plane.places.values())
    turned(turned(client, "beta"), "acme")
    assert list(stage.plane.places.values()) == found
    assert parameters(client) == {"app.tenant_id": "acme"}
    stage.leave()


def test_another_place_of_the_tenant_is_found_once_the_registry_says_so(stage: Stage) -> None:
    client = turned(turned(stage.chooser("acme"), "beta"), "acme")
    stage.registry.replace(tenant(parameters={"work_mem": "1MB"}), stage.plane.options, stage.pools.options)
    turned(turned(client, "beta"), "acme")
    assert parameters(client) == {"app.tenant_id": "acme", "work_mem": "1MB"}
    stage.leave()


def test_clients_that_ask_for_other_parameters_have_places_of_their_own(stage: Stage) -> None:
    turned(turned(stage.chooser("acme"), "beta"), "acme")
    other = turned(turned(stage.chooser("acme", work_mem="2MB"), "beta"), "acme")
    assert parameters(other) == {"app.tenant_id": "acme", "work_mem": "2MB"}
    stage.leave()


def test_a_place_with_the_clients_address_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, options=ServerOptions(application_name_add_host=True))
    turned(stage.chooser("acme"), "beta")
    assert not stage.plane.places
    stage.leave()


def test_no_more_places_are_kept_than_so_many(stage: Stage) -> None:
    stage.plane.placed_in = stage.registry.epoch
    stage.plane.places.update(dict.fromkeys(range(4096)))
    turned(stage.chooser("acme"), "beta")
    assert len(stage.plane.places) == 1
    stage.leave()
