"""Rows in memory: what is fresh, stale, absent and unasked, and what leaves when there is no room."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.model import Cluster, ClusterKind, Endpoint, Role, Tenant
from proxy.registry.cache import UNASKED, Cache
from proxy.registry.rows import Home, Row

ID = "0b5a1d5e-6f0f-4f0e-9a53-0d5f2a1c7e01"


def row(code: str, number: int = 1, expires_at: float | None = None) -> Row:
    return Row(ID[:-2] + f"{number:02}", code, "standard", "shared_pool", expires_at=expires_at)


def home(of: Row, cluster: Cluster | None = None) -> Home:
    return Home(Tenant(of.tenant_code, of.tier, cluster.name if cluster else "shared", of.tenant_id), cluster)


def put(cache: Cache, of: Row, now: float = 0.0, cluster: Cluster | None = None) -> None:
    cache.put(of, home(of, cluster), now)


@pytest.fixture
def cache() -> Cache:
    return Cache(size=3, ttl=10.0, negative_ttl=2.0)


def test_an_entry_is_fresh_for_its_time_and_then_stale(cache: Cache) -> None:
    put(cache, row("a"), now=5.0)
    assert cache.settled("a", 14.9)
    assert not cache.settled("a", 15.0)
    assert cache.find("a") is cache.find(row("a").tenant_id.upper()) is not None


def test_an_absent_name_is_asked_for_again_after_a_short_time(cache: Cache) -> None:
    cache.put_absent("a", 0.0)
    assert cache.settled("a", 1.9)
    assert not cache.unasked("a")
    assert not cache.settled("a", 2.0)
    cache.put_absent(ID.upper(), 0.0)
    assert cache.settled(ID, 1.0)
    put(cache, row("b", 1), now=0.0)
    assert cache.settled(ID, 1.0)
    assert cache.find(ID) is not None


def test_an_outage_makes_names_unasked_and_keeps_what_is_known(cache: Cache) -> None:
    put(cache, row("known"))
    for name in ("known", "unknown"):
        cache.put_unasked(name, 20.0)
    assert cache.find("known") is not None
    assert not cache.unasked("known")
    assert cache.unasked("unknown")
    assert cache.settled("unknown", 20.0)
    assert not cache.settled("unknown", 20.0 + UNASKED)


def test_the_longest_unused_leaves_but_for_what_is_in_use(cache: Cache) -> None:
    cache.in_use = lambda code: code == "a"
    for number, code in enumerate("abcd"):
        put(cache, row(code, number))
    assert [entry.tenant.name for entry in cache] == ["c", "d", "a"] or len(cache) == 4
    cache.find("b")
    put(cache, row("e", 5))
    names = {entry.tenant.name for entry in cache}
    assert "a" in names
    assert "e" in names
    assert len(names) <= 4


def test_absences_are_bounded(cache: Cache) -> None:
    for number in range(10):
        cache.put_absent(f"n{number}", 0.0)
    assert not cache.settled("n0", 1.0)
    assert cache.settled("n9", 1.0)


def test_what_is_doubted_is_forgotten_or_stale(cache: Cache) -> None:
    cache.in_use = lambda code: code == "a"
    put(cache, row("a", 1))
    put(cache, row("b", 2))
    cache.put_absent("c", 0.0)
    cache.doubt(["a", row("b", 2).tenant_id, "c"])
    assert cache.find("a") is not None
    assert not cache.settled("a", 1.0)
    assert cache.find("b") is None
    assert not cache.settled("c", 1.0)
    assert cache.stale(1.0) == ["a"]
    put(cache, row("b", 2))
    cache.doubt_all()
    assert [entry.tenant.name for entry in cache] == ["a"]


def test_an_id_that_has_got_another_code_leads_to_that(cache: Cache) -> None:
    put(cache, row("old"))
    put(cache, row("new"))
    cache.put_absent("old", 0.0)
    found = cache.find(row("new").tenant_id)
    assert found is not None
    assert found.tenant.name == "new"


def test_clusters_of_rows_are_there_as_long_as_a_row_describes_them(cache: Cache) -> None:
    own = Cluster("x", ClusterKind.VIP, (Endpoint("h", 5432, Role.COORDINATOR),))
    put(cache, row("a", 1), cluster=own)
    put(cache, row("b", 2), cluster=own)
    put(cache, row("b", 2), cluster=own)
    cache.put_absent("a", 0.0)
    assert cache.cluster("x") == own
    assert list(cache.clusters()) == [own]
    put(cache, row("b", 2))
    assert cache.cluster("x") is None


def test_who_expires_is_told_once(cache: Cache) -> None:
    put(cache, row("a", 1, expires_at=100.0))
    put(cache, row("b", 2, expires_at=100.0))
    put(cache, replace(row("b", 2), expires_at=200.0))
    for _ in range(300):
        put(cache, row("c", 3, expires_at=1e9))
    assert not cache.expired(99.0)
    assert [entry.tenant.name for entry in cache.expired(100.0)] == ["a"]
    assert not cache.expired(150.0)
    assert [entry.tenant.name for entry in cache.expired(200.0)] == ["b"]
    assert len(cache._ends) < 200


def test_other_sizes_and_times_hold_from_then_on(cache: Cache) -> None:
    cache.hold(1, 20.0, 4.0)
    put(cache, row("a", 1))
    put(cache, row("b", 2))
    assert [entry.tenant.name for entry in cache] == ["b"]
    assert cache.settled("b", 19.0)


def test_another_configuration_gives_rows_their_homes_anew_those_in_use_at_once(cache: Cache) -> None:
    own = Cluster("x", ClusterKind.VIP, (Endpoint("h", 5432, Role.COORDINATOR),))
    cache.in_use = lambda code: code == "a"
    put(cache, row("a", 1), cluster=own)
    put(cache, row("b", 2), cluster=own)
    read = []

    def anew(of: Row) -> Home:
        read.append(of.tenant_code)
        return home(of)

    cache.reconfigured(anew)
    assert read == ["a"]
    assert cache.cluster("x") == own
    found = cache.find("b")
    assert found is not None
    assert found.tenant.cluster == "shared"
    assert cache.settled("b", 1.0)
    assert [entry.tenant.cluster for entry in cache] == ["shared", "shared"]
    assert read == ["a", "b"]
    assert cache.cluster("x") is None
