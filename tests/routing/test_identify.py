"""Which tenant a login claims, from which source, and who may act for it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import NotAuthorized
from proxy.model import Tenant, User
from proxy.routing.identify import Claim, LoginFacts, authorize, identify

ALL = ("startup", "user", "sni", "session")
ID = "0b5a1d5e-6f0f-4f0e-9a53-0d5f2a1c7e01"
ACME = Tenant("acme", "standard", "shared", id=ID)
KNOWN = {"acme": ACME, ID: ACME, "beta": Tenant("beta", "standard", "shared")}


def facts(user: str = "app", guc: str = "", **more: Any) -> LoginFacts:
    parameters = {"user": user, "database": "db"} | ({"app.tenant_id": guc} if guc else {})
    return LoginFacts(**{"user": user, "database": "db", "parameters": parameters} | more)


def claim(f: LoginFacts, order: tuple[str, ...] = ALL, users: tuple[str, ...] = ("app",)) -> Claim:
    return identify(f, order, users.__contains__, KNOWN.get)


def test_no_claim_at_all() -> None:
    assert claim(facts()) == Claim("app", "", "")


def test_startup_parameter_in_any_case() -> None:
    assert claim(facts(guc="acme")) == Claim("app", "acme", "startup")
    assert claim(facts(parameters={"APP.Tenant_ID": ID})) == Claim("app", ID, "startup")
    assert claim(facts(parameters={"my.t": "acme"}, tenant_guc="My.T")) == Claim("app", "acme", "startup")
    assert claim(facts(parameters={"app.tenant_id": ""})) == Claim("app", "", "")


def test_user_at_tenant() -> None:
    assert claim(facts("app@acme")) == Claim("app", "acme", "user")
    assert claim(facts("app@acme", sni="x.example")) == Claim("app", "acme", "user")
    assert claim(facts("a@b@acme")) == Claim("a@b", "acme", "user")
    assert claim(facts("app@")) == Claim("app", "", "")


def test_a_known_user_with_an_at_is_that_user() -> None:
    assert claim(facts("bob@corp"), users=("bob@corp",)) == Claim("bob@corp", "", "")
    assert claim(facts("bob@corp@acme"), users=("bob@corp",)) == Claim("bob@corp", "acme", "user")


def test_the_user_is_left_alone_where_it_is_no_source() -> None:
    assert claim(facts("app@acme"), order=("startup",)) == Claim("app@acme", "", "")


def test_the_user_is_split_even_where_another_source_said_it_first() -> None:
    assert claim(facts("app@acme", guc="acme")) == Claim("app", "acme", "startup")
    assert claim(facts("app@acme", guc="acme"), order=("user", "startup")) == Claim("app", "acme", "user")


def test_the_first_label_of_the_host_name() -> None:
    assert claim(facts(sni="acme.db.example.com")) == Claim("app", "acme", "sni")
    assert claim(facts(sni="ACME.db.example.com")) == Claim("app", "acme", "sni")
    assert claim(facts(sni="acme")) == Claim("app", "acme", "sni")


@pytest.mark.parametrize("sni", ["pooler.example.com", "localhost", "", ".", ".acme"])
def test_a_host_name_that_is_no_tenants_is_no_claim(sni: str) -> None:
    assert claim(facts(sni=sni)) == Claim("app", "", "")
    assert claim(facts(sni=sni, guc="beta")) == Claim("app", "beta", "startup")


def test_without_a_registry_every_label_is_a_claim() -> None:
    assert identify(facts(sni="x.example"), ALL, lambda user: True) == Claim("app", "x", "sni")


def test_the_default_comes_last() -> None:
    assert claim(facts(default_tenant="beta")) == Claim("app", "beta", "default")
    assert claim(facts(default_tenant="beta", guc="acme")) == Claim("app", "acme", "startup")


def test_unknown_tenants_are_claims_all_the_same() -> None:
    assert claim(facts("app@nobody")) == Claim("app", "nobody", "user")


@pytest.mark.parametrize(
    "conflict",
    [
        facts("app@beta", guc="acme"),
        facts(guc="acme", sni="beta.example.com"),
        facts("app@acme", sni="beta.example.com"),
        facts("app@acme", guc="ACME"),
        facts("app@nobody", guc="acme"),
        facts(parameters={"app.tenant_id": "acme", "App.Tenant_Id": "beta"}),
    ],
)
def test_claims_that_contradict_each_other_are_refused(conflict: LoginFacts) -> None:
    with pytest.raises(NotAuthorized) as caught:
        claim(conflict)
    assert caught.value.sqlstate == "28000"


def test_name_and_id_of_one_tenant_agree() -> None:
    assert claim(facts("app@acme", guc=ID)) == Claim("app", ID, "startup")
    with pytest.raises(NotAuthorized):
        identify(facts("app@acme", guc=ID), ALL, lambda user: False)


def test_a_source_that_is_switched_off_cannot_conflict() -> None:
    assert claim(facts(guc="acme", sni="beta.example"), order=("startup",)) == Claim("app", "acme", "startup")


@given(
    st.permutations(ALL),
    st.sampled_from(["", "acme", "beta"]),
    st.sampled_from(["", "acme", "beta"]),
    st.sampled_from(["", "acme", "beta"]),
)
def test_whatever_the_order_one_tenant_or_a_refusal(order: list[str], guc: str, user: str, sni: str) -> None:
    f = facts(f"app@{user}" if user else "app", guc=guc, sni=f"{sni}.example" if sni else "")
    said = {name for name in (guc, user, sni) if name}
    if len(said) > 1:
        with pytest.raises(NotAuthorized):
            claim(f, tuple(order))
    else:
        found = claim(f, tuple(order))
        assert found.user == "app"
        assert {found.tenant} - {""} == said
        assert bool(found.source) == bool(said)


def test_a_user_acts_for_those_it_is_given() -> None:
    authorize(User("app", tenants=None), ACME)
    authorize(User("app", tenants=frozenset({"acme"})), ACME)
    authorize(User("app", tenants=frozenset({ID})), ACME)
    for tenants in (frozenset(), frozenset({"beta"}), frozenset({""}), frozenset({"*"})):
        with pytest.raises(NotAuthorized, match='user "app" may not act for tenant "acme"') as caught:
            authorize(User("app", tenants=tenants), ACME)
        assert caught.value.sqlstate == "28000"


def test_an_id_that_is_empty_is_nobodys() -> None:
    with pytest.raises(NotAuthorized):
        authorize(User("app", tenants=frozenset({""})), Tenant("beta", "standard", "shared"))


def test_a_tenant_that_is_not_active_is_refused() -> None:
    with pytest.raises(NotAuthorized, match="not active"):
        authorize(User("app", tenants=None), Tenant("acme", "standard", "shared", active=False))
