"""Roles of servers as users: asked about at each login, each for one tenant, and never for another by chance."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from io import StringIO

import pytest

from proxy import log
from proxy.model import ClientOptions, Cluster, ClusterKind, Directory, Tenant, Tier, User
from proxy.registry.memory import Registry, UserUnknown
from proxy.registry.roles import Roles, StoredRole
from proxy.registry.sources import SourceDown

OWN = Cluster("own", ClusterKind.DEDICATED, (), auth_user="asker")
SHARED = Cluster("shared", ClusterKind.SHARED, (), auth_user="asker")
SILENT = Cluster("silent", ClusterKind.DEDICATED, ())
ACME, CLUB, QUIET = (
    Tenant("acme", "standard", "own"),
    Tenant("club", "standard", "shared"),
    Tenant("quiet", "standard", "silent"),
)
VERIFIER = "SCRAM-SHA-256$4096:a$b:c"


class Servers:
    def __init__(self) -> None:
        self.roles = {"anna": StoredRole(VERIFIER)}
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self.queries: list[str] = []
        self.up = True

    async def role(self, cluster: Cluster, query: str, *values: str) -> StoredRole | None:
        self.asked.append((cluster.name, values))
        self.queries.append(query)
        await asyncio.sleep(0)
        if not self.up:
            raise SourceDown("refused")
        return self.roles.get(values[0])

    def rest(self) -> None: ...

    async def close(self) -> None: ...


class Scene:
    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        patch.setattr("proxy.registry.roles.monotonic", lambda: self.now)
        patch.setattr("proxy.registry.roles.time", lambda: self.now)
        self.used: set[str] = set()
        self.told: list[str] = []
        self.servers = Servers()
        self.auth_type = "scram-sha-256"
        self.take(OWN, SHARED)
        self.roles = Roles(
            self.registry, self.servers, self.told.extend, lambda: self.used, lambda: self.auth_type, 3
        )
        self.registry.roles = self.roles

    def take(self, *clusters: Cluster) -> None:
        tenants = {tenant.name: tenant for tenant in (ACME, CLUB, QUIET)}
        directory = Directory(
            {"app": User("app")},
            {cluster.name: cluster for cluster in (*clusters, SILENT)},
            {"standard": Tier("standard")},
            tenants,
        )
        if not hasattr(self, "registry"):
            self.registry = Registry(directory, ClientOptions())
        self.registry.replace(directory, ClientOptions())

    def find(self, role: str, tenant: Tenant) -> User | None:
        return asyncio.run(self.roles.find(role, tenant))


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def test_a_role_is_its_tenants_alone(scene: Scene) -> None:
    anna = User(
        "anna@acme",
        VERIFIER,
        frozenset({"acme"}),
        "scram-sha-256",
        server_user="anna",
        server_password=VERIFIER,
    )
    assert scene.find("anna", ACME) == anna
    assert scene.registry.user("anna@acme") is scene.roles.get("anna@acme")
    assert scene.registry.user("anna@club") is None
    assert scene.servers.asked == [("own", ("anna",))]


@pytest.mark.parametrize(
    ("auth_type", "method"),
    [("md5", "md5"), ("plain", "plain"), ("trust", "scram-sha-256"), ("cert", "scram-sha-256")],
)
def test_a_role_proves_itself(scene: Scene, auth_type: str, method: str) -> None:
    scene.auth_type = auth_type
    found = scene.find("anna", ACME)
    assert found is not None
    assert found.auth_type == method


def test_where_others_live_the_query_says_whose_a_role_is(scene: Scene) -> None:
    scene.find("anna", CLUB)
    assert scene.servers.asked == [("shared", ("anna", "club"))]
    assert "pg_auth_members" in scene.servers.queries[0]
    scene.take(OWN, replace(SHARED, auth_query="SELECT f($1)"))
    scene.now += 2
    assert scene.find("anna", CLUB) is None
    assert scene.roles.get("anna@club") is None
    assert len(scene.servers.asked) == 1


def test_a_storm_is_one_question_and_the_next_second_another(scene: Scene) -> None:
    async def play() -> None:
        for _ in range(2):
            names = ["anna", "otto"] * 100
            found = await asyncio.gather(*(scene.roles.find(name, ACME) for name in names))
            assert [user is not None for user in found] == [True, False] * 100
            scene.now += 1.1
        assert sorted(scene.servers.asked) == [("own", ("anna",))] * 2 + [("own", ("otto",))] * 2

    asyncio.run(play())


def test_until_when_a_password_is_valid_is_looked_at_each_time(scene: Scene) -> None:
    scene.servers.roles["anna"] = StoredRole(VERIFIER, 100.5)
    assert scene.find("anna", ACME) is not None
    scene.now += 0.6
    assert scene.find("anna", ACME) is None
    assert len(scene.servers.asked) == 1


def test_in_an_outage_nobody_new_is_let_in_and_nobody_is_unknown(
    scene: Scene,
) -> None:
    io = StringIO()
    log.configure(stream=io)
    scene.find("anna", ACME)
    scene.servers.up = False
    scene.now += 2
    with pytest.raises(UserUnknown, match="cannot be looked up now"):
        scene.find("anna", ACME)
    assert scene.registry.user("anna@acme") is not None, "its sessions go on"
    with pytest.raises(UserUnknown):
        scene.find("otto", ACME)
    scene.servers.up = True
    assert scene.find("anna", ACME) is not None
    said = io.getvalue()
    assert (said.count("auth_query failed"), said.count("auth_query is answered again")) == (1, 1)


@pytest.mark.parametrize(
    ("role", "tenant"),
    [("anna", QUIET), ("a\0", ACME), ("\udcff", ACME), ("anna", replace(ACME, name="a@b"))],
)
def test_who_is_not_asked_about(scene: Scene, role: str, tenant: Tenant) -> None:
    assert scene.find(role, tenant) is None
    assert not scene.servers.asked


def test_those_that_are_connected_are_asked_about_and_told(scene: Scene) -> None:
    async def play() -> None:
        await scene.roles.find("anna", ACME)
        scene.used = {"anna@acme", "app"}
        scene.now += 2
        await scene.roles.refresh("anna@acme")
        assert not scene.told
        scene.now += 2
        scene.servers.up = False
        await scene.roles.refresh("anna@acme")
        assert not scene.told
        scene.servers.up, scene.servers.roles = True, {}
        await scene.roles.refresh("anna@acme")
        assert scene.told == ["anna@acme"]

    asyncio.run(play())


def test_a_cluster_that_is_not_asked_any_more_ends_its_users(scene: Scene) -> None:
    async def play() -> None:
        await scene.roles.find("anna", ACME)
        scene.used = {"anna@acme"}
        scene.take(replace(OWN, auth_user=""), SHARED)
        await scene.roles.refresh("anna@acme")
        assert scene.told == ["anna@acme"]
        assert scene.registry.user("anna@acme") is None

    asyncio.run(play())


def test_no_more_are_kept_than_may_be_but_for_the_connected(scene: Scene) -> None:
    scene.find("anna", ACME)
    scene.used = {"anna@acme"}
    for number in range(10):
        scene.find(f"u{number}", ACME)
    assert len(scene.roles._found) <= 4
    assert scene.roles.get("anna@acme") is not None


@pytest.mark.parametrize(
    ("name", "so"), [("anna", True), ("anna@acme", True), ("app", False), ("app@acme", False), ("", False)]
)
def test_whom_the_file_does_not_have(scene: Scene, name: str, so: bool) -> None:
    assert scene.registry.is_foreign(name) is so
    scene.take(replace(OWN, auth_user=""), replace(SHARED, auth_user=""))
    assert not scene.registry.is_foreign(name)
