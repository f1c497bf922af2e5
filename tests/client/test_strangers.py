"""Whom the file does not have: looked up by what is claimed, before the proof; a wrong claim is nobody's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from proxy.client.greeting import Greeting
from proxy.client.strangers import claimed, meet
from proxy.model import ClientOptions, Cluster, ClusterKind, Directory, Tenant, Tier, User
from proxy.registry.memory import Registry
from proxy.wire.startup import Startup

TENANTS = {name: Tenant(name, "standard", "own") for name in ("acme", "club")}


class Roles:
    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def get(self, name: str) -> User | None:
        return None

    async def find(self, role: str, tenant: Tenant) -> User | None:
        self.asked.append((role, tenant.name))
        return User(f"{role}@{tenant.name}", "secret", frozenset({tenant.name}), server_user=role)


@pytest.fixture
def registry() -> Registry:
    own = Cluster("own", ClusterKind.DEDICATED, (), auth_user="asker")
    found = Registry(Directory({}, {"own": own}, {"standard": Tier("standard")}, TENANTS), ClientOptions())
    found.roles = Roles()
    return found


def greeting(**said: str) -> Greeting:
    return Greeting(Startup(3, 0, {"database": "db", **said}, ()), None, b"")


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ({"user": "anna@acme"}, [("anna", "acme")]),
        ({"user": "anna", "options": "-c app.tenant_id=club"}, [("anna", "club")]),
        ({"user": "a@b@acme"}, [("a@b", "acme")]),
        ({"user": "anna"}, []),
        ({"user": "anna@nowhere"}, []),
        ({"user": "anna@acme", "options": "-c app.tenant_id=club"}, []),
    ],
)
def test_whom_a_claim_asks_about(registry: Registry, said: dict[str, Any], asked: list[Any]) -> None:
    met = asyncio.run(meet(greeting(**said), ClientOptions(), registry))
    assert isinstance(registry.roles, Roles)
    assert registry.roles.asked == asked
    assert (met.user is not None) == bool(asked)


def test_what_is_claimed_first(registry: Registry) -> None:
    assert claimed(greeting(user="anna@acme"), ClientOptions(), registry) == "acme"
    assert claimed(greeting(user="anna"), ClientOptions(), registry) == ""


def test_where_no_cluster_is_asked_nobody_is_found(registry: Registry) -> None:
    registry.replace(Directory({}, {}, {}, TENANTS), ClientOptions())
    assert asyncio.run(meet(greeting(user="anna@acme"), ClientOptions(), registry)).user is None
