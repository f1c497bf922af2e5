"""The names that dashboards know, text that Prometheus can read, and a bound on how much of it there is."""

from __future__ import annotations

import re
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.admission.accounts import Account, TierAccount
from proxy.control import counts as counting
from proxy.control import metrics
from proxy.control.counts import Counts
from proxy.model import Limits, Tenant, Tier
from proxy.stats import DURATION_BOUNDS
from tests.rawclient import query, send_cancel
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.conftest import StartProxy
    from tests.integration.running import Proxy

Tables = dict[str, dict[str, Any]]
Samples = dict[tuple[str, str], float]


@pytest.fixture
def proxy(start_proxy: StartProxy, all_tiers: Tables) -> Proxy:
    return start_proxy(all_tiers)


def scrape(proxy: Proxy) -> str:
    return proxy.call(lambda: metrics.exposition(counting.take(proxy.worker.plane))).decode()


def one(text: str, name: str, **labels: str) -> float:
    found = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(found) == 1, (name, labels, found)
    return float(found[0])


def test_the_fixed_names_stand_in_the_text_as_they_are(proxy: Proxy) -> None:
    client = proxy.raw()
    client.query("SELECT 1")
    client.query("SELECT 1/0")
    text = scrape(proxy)
    for name in (
        "db_query_count", "db_query_duration_seconds_bucket", "db_query_duration_seconds_sum",
        "db_query_duration_seconds_count", "db_query_errors", "tenant_active_connections",
    ):  # fmt: skip
        assert re.search(rf'^{name}{{.*tenant_id="std_1".*}} ', text, re.MULTILINE), name
    assert not re.search(r"^(db_query|tenant)\w*_(total|created)\b", text, re.MULTILINE)


def test_values(proxy: Proxy) -> None:
    client, other = proxy.raw(), proxy.raw("app@vip_1")
    client.query("SELECT 1")
    client.query("SELECT pg_sleep(0.03)")
    client.query("SELECT 1/0")
    other.query("SELECT 1")
    text = scrape(proxy)
    assert one(text, "db_query_count", tenant_id="std_1", tier="standard") == 3
    assert one(text, "db_query_count", tenant_id="vip_1", tier="vip") == 1
    assert one(text, "db_query_errors", tenant_id="std_1", sqlstate="22012") == 1
    assert one(text, "tenant_active_connections", tenant_id="std_1") == 1
    assert one(text, "db_query_duration_seconds_count", tenant_id="std_1") == 3
    assert one(text, "db_query_duration_seconds_bucket", tenant_id="std_1", le="+Inf") == 3
    assert one(text, "db_query_duration_seconds_bucket", tenant_id="std_1", le="0.025") <= 2
    assert 0.03 <= one(text, "db_query_duration_seconds_sum", tenant_id="std_1") < 5
    assert one(text, "tiergate_servers", cluster="shared", state="idle") == 1
    assert one(text, "tiergate_clients", state="idle") == 2
    assert one(text, "tiergate_tenant_server_seconds_total", tenant_id="std_1") >= 0.03
    assert one(text, "tiergate_tenant_servers", tenant_id="std_1") == 0
    client.send(query("SELECT pg_sleep(60)"))
    wait_until(lambda: one(scrape(proxy), "tiergate_tenant_servers", tenant_id="std_1") == 1)
    assert one(scrape(proxy), "tiergate_tenant_servers_due", tenant_id="std_1") > 1
    assert one(scrape(proxy), "tiergate_tenant_waiting_transactions", tenant_id="std_1") == 0
    send_cancel(proxy.port, client.pid, client.key)
    client.read_ready()
    client.close()
    other.close()


def test_buckets_are_cumulative_and_in_order(proxy: Proxy) -> None:
    client = proxy.raw()
    for _ in range(5):
        client.query("SELECT 1")
    text = scrape(proxy)
    found = [
        float(value)
        for value in re.findall(r'^db_query_duration_seconds_bucket{.*tenant_id="std_1".*} (\S+)', text, re.M)
    ]
    assert found == sorted(found)
    assert len(found) == len(DURATION_BOUNDS) + 1


def _count(counts: Counts, many: int, tier: str = "free") -> None:
    shared = TierAccount(Tier(tier))
    accounts = []
    for number in range(many):
        account = Account(Tenant(f"{tier}_{number}", tier, "shared"), shared, Limits())
        account.stats.queries = number
        account.stats.durations.add(0.001)
        account.stats.error("57014")
        account.clients.take()
        accounts.append(account)
    more = counting.empty()
    counting.take_tenants(accounts, more)
    counting.add(counts, more)


@pytest.mark.parametrize("many", [0, 1, metrics.EXACT_TENANTS, metrics.EXACT_TENANTS + 1, 10_000])
def test_the_busiest_tenants_are_told_and_the_others_summed(many: int) -> None:
    counts = counting.empty()
    _count(counts, many)
    _count(counts, min(many, 3), "vip")
    found = metrics.groups(counts)
    assert len(found) <= metrics.EXACT_TENANTS + 2
    for total in (
        lambda g: g.queries, lambda g: sum(g.durations), lambda g: g.connections, lambda g: g.errors.get("57014", 0)
    ):  # fmt: skip
        check: Callable[[Any], int] = total
        whole = metrics.groups(counts, exact=many + 3)
        assert sum(map(check, found)) == sum(map(check, whole))
    names = [group.labels["tenant_id"] for group in found]
    assert len({tuple(group.labels.items()) for group in found}) == len(found)
    if many > metrics.EXACT_TENANTS:
        assert f"free_{many - 1}" in names
        assert "free_0" not in names
        assert {"tenant_id": "other", "tier": "free"} in [group.labels for group in found]


def test_rates_are_told_of_those_that_met_them() -> None:
    counts = counting.empty()
    account = Account(Tenant("acme", "free", "shared"), TierAccount(Tier("free")), Limits(max_qps=5))
    stats = account.stats
    stats.throttled, stats.throttled_seconds, stats.refused_rate = 3, 1.5, 2
    _count(counts, 2)
    counting.take_tenants([account], counts)
    text = metrics.exposition(counts).decode()
    assert one(text, "tiergate_throttled_queries_total") == 3
    assert one(text, "tiergate_throttled_seconds_total") == 1.5
    assert one(text, "tiergate_refused_queries_total") == 2
    assert one(text, "tiergate_refused_queries_total", tenant_id="acme", tier="free", limit="rate") == 2
    assert one(text, "tiergate_max_qps") == one(text, "tiergate_max_qps", tenant_id="acme") == 5


def test_storage_limits_are_bounded_too(
    start_proxy: StartProxy, all_tiers: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {f"tenant.{name}.limits": {"max_storage_gb": 5} for name in ("std_1", "std_2")}
    proxy = start_proxy(all_tiers | limits)
    proxy.raw("app@std_2").query("SELECT 1")
    for _ in range(2):
        proxy.raw("app@std_1").query("SELECT 1")
    text = scrape(proxy)
    assert one(text, "tenant_storage_max_gb", tenant_id="std_1") == 5
    assert one(text, "tenant_storage_max_gb", tenant_id="std_2") == 5
    monkeypatch.setattr(metrics, "EXACT_TENANTS", 1)
    assert one(scrape(proxy), "tenant_storage_max_gb") == 5


def test_pools_that_differ_in_start_parameters_only_are_one_series(proxy: Proxy) -> None:
    clients = [proxy.raw(parameters=said) for said in ({}, {"ignore_system_indexes": "on"})]
    for client in clients:
        client.query("SELECT 1")
    text = scrape(proxy)
    assert len(proxy.console("SHOW POOLS")) == 2
    assert one(text, "tiergate_transactions_total", cluster="shared", user="app") == 2
    assert one(text, "tiergate_servers", cluster="shared", user="app", state="idle") == 2


def test_ejected_endpoints_are_counted(proxy: Proxy) -> None:
    def eject() -> None:
        cluster = proxy.worker.registry.cluster("shared")
        assert cluster is not None
        proxy.worker.pools.health.eject(cluster.endpoints[0], monotonic() + 60, "for this test")

    assert one(scrape(proxy), "tiergate_endpoints_ejected", cluster="shared") == 0
    proxy.call(eject)
    assert one(scrape(proxy), "tiergate_endpoints_ejected", cluster="shared") == 1
    assert one(scrape(proxy), "tiergate_endpoints_ejected", cluster="vip-1") == 0


def of_registry(asked: int, *, redis_down: int) -> Counts:
    counts = counting.empty()
    counts["counters"]["registry"] = {
        "redis": {"asked": 9, "found": 4},
        "postgresql": {"asked": asked, "found": 1},
    }
    counts["gauges"]["registry"] = {"tenants": 7, "stale": 2}
    counts["most"]["registry_down"] = {"redis": redis_down, "postgresql": 0}
    return counts


def test_a_registry_is_up_where_every_worker_reaches_it() -> None:
    total = counting.empty()
    for counts in (of_registry(3, redis_down=1), of_registry(2, redis_down=0)):
        counting.add(total, counts)
    text = metrics.exposition(total).decode()
    assert one(text, "tiergate_registry_up", store="redis") == 0
    assert one(text, "tiergate_registry_up", store="postgresql") == 1
    assert one(text, "tiergate_registry_lookups_total", store="postgresql") == 5
    assert one(text, "tiergate_registry_found_total", store="redis") == 8
    assert one(text, "tiergate_registry_tenants") == 14
    assert one(text, "tiergate_registry_stale_tenants") == 4
    assert "tiergate_registry" not in metrics.exposition(counting.empty()).decode()
