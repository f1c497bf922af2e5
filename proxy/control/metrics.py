"""Counters as Prometheus metrics, translated when they are scraped.

Names of the first group are fixed by dashboards that exist. Tenants are told one by one for the busiest
`EXACT_TENANTS`; the others of each tier are summed under tenant_id "other", so that ten thousand tenants do
not make ten thousand histograms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from proxy.control.counts import Counts
from proxy.stats import DURATION_BOUNDS

EXACT_TENANTS = 200
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Group:
    """The counts of one tenant, or of the rest of a tier."""

    def __init__(self, tenant: str, tier: str) -> None:
        self.labels = {"tenant_id": tenant, "tier": tier}
        self.queries = 0
        self.seconds = 0.0
        self.durations = [0] * (len(DURATION_BOUNDS) + 1)
        self.errors: dict[str, int] = {}
        self.connections = 0
        self.server_seconds = 0.0
        self.waiting = self.servers = 0
        self.due = 0.0
        self.throttled = 0
        self.throttled_seconds = 0.0
        self.refused: dict[str, int] = {}

    def add(self, counters: dict[str, Any], connections: int) -> None:
        self.connections += connections
        self.queries += counters["queries"]
        self.server_seconds += counters.get("server_seconds", 0.0)
        self.seconds += counters["seconds"]
        self.durations = [a + b for a, b in zip(self.durations, counters["durations"], strict=True)]
        self.throttled += counters.get("throttled", 0)
        self.throttled_seconds += counters.get("throttled_seconds", 0.0)
        for mine, more in ((self.errors, counters["errors"]), (self.refused, counters.get("refused", {}))):
            for key, count in more.items():
                mine[key] = mine.get(key, 0) + count


def _busiest_first(counts: Counts) -> list[tuple[str, dict[str, Any]]]:
    tenants: dict[str, dict[str, Any]] = counts["counters"].get("tenants", {})
    return sorted(tenants.items(), key=lambda item: item[1]["queries"], reverse=True)


def groups(counts: Counts, exact: int = EXACT_TENANTS) -> list[Group]:
    ranked = _busiest_first(counts)
    gauges = counts["gauges"]
    clients, waiting, servers, due = (
        gauges.get(f"tenants{what}", {}) for what in ("", "_waiting", "_servers", "_due")
    )
    found = []
    others: dict[str, Group] = {}
    for place, (name, counters) in enumerate(ranked):
        tier = counters["tier"]
        if place < exact:
            group = Group(name, tier)
            found.append(group)
        else:
            group = others.setdefault(tier, Group("other", tier))
        group.add(counters, clients.get(name, 0))
        group.waiting += waiting.get(name, 0)
        group.servers += servers.get(name, 0)
        group.due += due.get(name, 0.0)
    return found + list(others.values())


class CountsCollector(Collector):
    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._counters, self._gauges, self._most = counts["counters"], counts["gauges"], counts["most"]

    def collect(self) -> Iterator[Metric]:
        yield from self._tenants()
        yield from self._shares()
        yield from self._rates()
        yield from self._storage()
        yield from self._pools()
        yield self._endpoints()
        yield from self._concurrency()
        yield from self._process()
        yield from self._registry()
        yield from self._fleet()

    def _tenants(self) -> Iterator[Metric]:
        queries = Metric("db_query_count", "Queries answered.", "unknown")
        durations = Metric("db_query_duration_seconds", "From the request to ReadyForQuery.", "histogram")
        errors = Metric("db_query_errors", "Errors by SQLSTATE, ours and the servers'.", "unknown")
        active = Metric("tenant_active_connections", "Client connections of the tenant.", "gauge")
        for group in groups(self._counts):
            labels = group.labels
            queries.add_sample("db_query_count", labels, group.queries)
            active.add_sample("tenant_active_connections", labels, group.connections)
            for sqlstate, count in group.errors.items():
                errors.add_sample("db_query_errors", {**labels, "sqlstate": sqlstate}, count)
            below = 0
            bounds = [*(str(bound) for bound in DURATION_BOUNDS), "+Inf"]
            for bound, count in zip(bounds, group.durations, strict=True):
                below += count
                durations.add_sample("db_query_duration_seconds_bucket", {**labels, "le": bound}, below)
            durations.add_sample("db_query_duration_seconds_count", labels, below)
            durations.add_sample("db_query_duration_seconds_sum", labels, group.seconds)
        yield from (queries, durations, errors, active)

    def _shares(self) -> Iterator[Metric]:
        """Who has how much of the servers: asked for is what waits and what is given."""
        seconds = Metric("tiergate_tenant_server_seconds_total", "Time with a server connection.", "unknown")
        waiting = Metric("tiergate_tenant_waiting_transactions", "Waiting for a server connection.", "gauge")
        given = Metric("tiergate_tenant_servers", "Server connections that the tenant has.", "gauge")
        due = Metric("tiergate_tenant_servers_due", "What its weight is worth of its cluster's.", "gauge")
        for group in groups(self._counts):
            seconds.add_sample("tiergate_tenant_server_seconds_total", group.labels, group.server_seconds)
            waiting.add_sample("tiergate_tenant_waiting_transactions", group.labels, group.waiting)
            given.add_sample("tiergate_tenant_servers", group.labels, group.servers)
            due.add_sample("tiergate_tenant_servers_due", group.labels, group.due)
        yield from (seconds, waiting, given, due)

    def _rates(self) -> Iterator[Metric]:
        """Of tenants that have met their rates."""
        waited = Metric("tiergate_throttled_queries_total", "Waited for the tenant's rate.", "unknown")
        seconds = Metric("tiergate_throttled_seconds_total", "Time spent waiting for a rate.", "unknown")
        refused = Metric("tiergate_refused_queries_total", "Refused for a rate or a quota.", "unknown")
        for group in groups(self._counts):
            if group.throttled:
                waited.add_sample("tiergate_throttled_queries_total", group.labels, group.throttled)
                seconds.add_sample("tiergate_throttled_seconds_total", group.labels, group.throttled_seconds)
            for limit, count in group.refused.items():
                if count:
                    labels = {**group.labels, "limit": limit}
                    refused.add_sample("tiergate_refused_queries_total", labels, count)
        allowed = Metric("tiergate_max_qps", "Queries a second that the tenant may ask.", "gauge")
        limits = self._most.get("max_qps", {})
        for name, _ in _busiest_first(self._counts)[:EXACT_TENANTS]:
            if name in limits:
                allowed.add_sample("tiergate_max_qps", {"tenant_id": name}, limits[name])
        yield from (waited, seconds, refused, allowed)

    def _storage(self) -> Iterator[Metric]:
        used = Metric("tenant_storage_used_gb", "Storage that the tenant used when it was measured.", "gauge")
        allowed = Metric("tenant_storage_max_gb", "Storage that the tenant may use.", "gauge")
        measured, limits = self._most.get("storage_used_gb", {}), self._most.get("storage_max_gb", {})
        for name, _ in _busiest_first(self._counts)[:EXACT_TENANTS]:
            if name in limits:
                allowed.add_sample("tenant_storage_max_gb", {"tenant_id": name}, limits[name])
            if name in measured:
                used.add_sample("tenant_storage_used_gb", {"tenant_id": name}, measured[name])
        yield from (used, allowed)

    def _pools(self) -> Iterator[Metric]:
        servers = Metric("tiergate_servers", "Server connections by state.", "gauge")
        waiting = Metric("tiergate_waiting_clients", "Transactions that wait for a connection.", "gauge")
        seconds = Metric("tiergate_wait_seconds_total", "Time spent waiting for connections.", "unknown")
        received = Metric("tiergate_received_bytes_total", "Bytes from clients.", "unknown")
        sent = Metric("tiergate_sent_bytes_total", "Bytes to clients.", "unknown")
        transactions = Metric("tiergate_transactions_total", "Transactions done.", "unknown")
        for key, states in self._gauges.get("pools", {}).items():
            labels = _pool_labels(key)
            for state in ("active", "idle", "resetting", "login"):
                servers.add_sample("tiergate_servers", {**labels, "state": state}, states[state])
            waiting.add_sample("tiergate_waiting_clients", labels, states["waiting"])
        for key, counters in self._counters.get("pools", {}).items():
            labels = _pool_labels(key)
            seconds.add_sample("tiergate_wait_seconds_total", labels, counters["wait_seconds"])
            received.add_sample("tiergate_received_bytes_total", labels, counters["received"])
            sent.add_sample("tiergate_sent_bytes_total", labels, counters["sent"])
            transactions.add_sample("tiergate_transactions_total", labels, counters["transactions"])
        yield from (servers, waiting, seconds, received, sent, transactions)

    def _endpoints(self) -> Metric:
        ejected = Metric("tiergate_endpoints_ejected", "Endpoints set aside for now.", "gauge")
        for cluster, count in self._most.get("ejected", {}).items():
            ejected.add_sample("tiergate_endpoints_ejected", {"cluster": cluster}, count)
        return ejected

    def _concurrency(self) -> Iterator[Metric]:
        """Of clusters whose limits follow latency."""
        clusters: dict[str, dict[str, Any]] = self._most.get("concurrency", {})
        for name, what, text in (
            (
                "tiergate_concurrency_limit",
                "limit",
                "Transactions that may run at once, which follows latency.",
            ),
            (
                "tiergate_concurrency_baseline_seconds",
                "baseline_seconds",
                "What a transaction takes where there is no crowd.",
            ),
            ("tiergate_concurrency_latency_seconds", "latency_seconds", "What one took of late."),
            (
                "tiergate_concurrency_gradient",
                "gradient",
                "What latency leaves of the limit: 1 is all of it.",
            ),
        ):
            metric = Metric(name, text, "gauge")
            for cluster, now in clusters.items():
                metric.add_sample(name, {"cluster": cluster}, now[what])
            yield metric
        why = Metric("tiergate_concurrency_why", "Why the limit is what it is, in words.", "gauge")
        for cluster, now in clusters.items():
            reason = re.sub(r"[\d.]+ times", "times", now["why"])  # or there would be ever more of them
            why.add_sample("tiergate_concurrency_why", {"cluster": cluster, "why": reason}, 1)
        yield why

    def _process(self) -> Iterator[Metric]:
        process = self._counters.get("process", {})
        clients = Metric("tiergate_clients", "Client sessions by state.", "gauge")
        for state, count in self._gauges.get("clients", {}).items():
            clients.add_sample("tiergate_clients", {"state": state}, count)
        yield clients
        for name, text, counter in (
            ("tiergate_client_connections_total", "Client connections accepted.", "client_connections"),
            ("tiergate_rejected_connections_total", "Refused before a login.", "rejected_connections"),
            ("tiergate_login_failures_total", "Logins that failed.", "login_failures"),
            ("tiergate_server_connections_total", "Server connections opened.", "server_connections"),
            ("tiergate_server_failures_total", "Server connections that failed.", "server_failures"),
            ("tiergate_cancels_total", "Cancel requests sent to servers.", "cancels"),
        ):
            metric = Metric(name, text, "unknown")
            metric.add_sample(name, {}, process.get(counter, 0))
            yield metric
        refused = Metric(
            "tiergate_config_refused", "Whether the file as it is now could not be used.", "gauge"
        )
        refused.add_sample("tiergate_config_refused", {}, self._most.get("config_refused", 0))
        yield refused
        timeouts = Metric("tiergate_timeouts_total", "Limits of time that struck.", "unknown")
        for limit, count in self._counters.get("timeouts", {}).items():
            timeouts.add_sample("tiergate_timeouts_total", {"limit": limit}, count)
        pins = Metric("tiergate_pins_total", "Sessions that kept their server connection.", "unknown")
        for reason, count in self._counters.get("pins", {}).items():
            pins.add_sample("tiergate_pins_total", {"reason": reason}, count)
        yield from (timeouts, pins)

    def _registry(self) -> Iterator[Metric]:
        down = self._most.get("registry_down", {})
        if not down:
            return
        up = Metric("tiergate_registry_up", "Whether the store of tenants can be reached.", "gauge")
        lookups = Metric(
            "tiergate_registry_lookups_total", "Tenants that the store was asked for.", "unknown"
        )
        found = Metric("tiergate_registry_found_total", "Tenants that the store had.", "unknown")
        for store, is_down in down.items():
            up.add_sample("tiergate_registry_up", {"store": store}, 1 - is_down)
        for store, counters in self._counters.get("registry", {}).items():
            lookups.add_sample("tiergate_registry_lookups_total", {"store": store}, counters["asked"])
            found.add_sample("tiergate_registry_found_total", {"store": store}, counters["found"])
        yield from (up, lookups, found)
        gauges = self._gauges.get("registry", {})
        for name, text, gauge in (
            ("tiergate_registry_tenants", "Tenants of the registry in memory.", "tenants"),
            ("tiergate_registry_stale_tenants", "Those in use that should be asked about again.", "stale"),
        ):
            metric = Metric(name, text, "gauge")
            metric.add_sample(name, {}, gauges.get(gauge, 0))
            yield metric

    def _fleet(self) -> Iterator[Metric]:
        states = self._most.get("fleet", {})
        for name, text, key in (
            ("tiergate_fleet_redis_up", "Whether the Redis where proxies share caps answers.", "up"),
            ("tiergate_fleet_cut", "Whether only the fixed part of each cap may be used.", "cut"),
            ("tiergate_fleet_proxies", "Proxies that share caps.", "proxies"),
        ):
            if key in states:
                metric = Metric(name, text, "gauge")
                metric.add_sample(name, {}, states[key])
                yield metric
        for name, what, text in (
            ("tiergate_fleet_limit", "limit", "The cap of all proxies together, of the busiest counters."),
            ("tiergate_fleet_share", "share", "What this proxy may use of it."),
            ("tiergate_fleet_used", "used", "What its workers have."),
            ("tiergate_fleet_wanted", "wanted", "What is wanted besides."),
        ):
            values = self._gauges.get(f"fleet_{what}", {})
            if values:
                metric = Metric(name, text, "gauge")
                for counter, value in values.items():
                    metric.add_sample(name, {"counter": counter}, value)
                yield metric


def _pool_labels(key: str) -> dict[str, str]:
    return dict(zip(("cluster", "database", "user", "pool_mode"), key.split("\0"), strict=True))


def exposition(counts: Counts) -> bytes:
    """The text that a scrape gets."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(CountsCollector(counts))
    return generate_latest(registry)
