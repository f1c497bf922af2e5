"""Counters as Prometheus metrics, translated when they are scraped.

Names of the first group are fixed by dashboards that exist. Tenants are told one by one for the busiest
`EXACT_TENANTS`; the others of each tier are summed under tenant_id "other", so that ten thousand tenants do
not make ten thousand histograms.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from time import monotonic

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from proxy.admission.accounts import Account
from proxy.client.plane import Plane
from proxy.protocol.lifecycle import SessionState
from proxy.server.pool import Pool
from proxy.stats import DURATION_BOUNDS, TenantStats

EXACT_TENANTS = 200
CONTENT_TYPE = CONTENT_TYPE_LATEST


class _Group:
    """The counts of one tenant, or of the rest of a tier."""

    def __init__(self, tenant: str, tier: str) -> None:
        self.labels = {"tenant_id": tenant, "tier": tier}
        self.stats = TenantStats()
        self.connections = 0

    def add(self, account: Account) -> None:
        self.connections += account.clients.used
        stats = account.stats
        self.stats.queries += stats.queries
        self.stats.durations.merge(stats.durations)
        for sqlstate, count in stats.errors.items():
            self.stats.errors[sqlstate] = self.stats.errors.get(sqlstate, 0) + count


def _busiest_first(accounts: Iterable[Account]) -> list[Account]:
    return sorted(accounts, key=lambda account: account.stats.queries, reverse=True)


def groups(accounts: Iterable[Account], exact: int = EXACT_TENANTS) -> list[_Group]:
    ranked = _busiest_first(accounts)
    found = []
    for account in ranked[:exact]:
        group = _Group(account.tenant.name, account.tenant.tier)
        group.add(account)
        found.append(group)
    others: dict[str, _Group] = {}
    for account in ranked[exact:]:
        tier = account.tenant.tier
        others.setdefault(tier, _Group("other", tier)).add(account)
    return found + list(others.values())


class PlaneCollector(Collector):
    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    def collect(self) -> Iterator[Metric]:
        yield from self._tenants()
        yield from self._storage()
        yield from self._pools()
        yield self._endpoints()
        yield from self._process()

    def _tenants(self) -> Iterator[Metric]:
        queries = Metric("db_query_count", "Queries answered.", "unknown")
        durations = Metric("db_query_duration_seconds", "From the request to ReadyForQuery.", "histogram")
        errors = Metric("db_query_errors", "Errors by SQLSTATE, ours and the servers'.", "unknown")
        active = Metric("tenant_active_connections", "Client connections of the tenant.", "gauge")
        for group in groups(self._plane.accounts):
            labels = group.labels
            queries.add_sample("db_query_count", labels, group.stats.queries)
            active.add_sample("tenant_active_connections", labels, group.connections)
            for sqlstate, count in group.stats.errors.items():
                errors.add_sample("db_query_errors", {**labels, "sqlstate": sqlstate}, count)
            below = 0
            bounds = [*(str(bound) for bound in DURATION_BOUNDS), "+Inf"]
            for bound, count in zip(bounds, group.stats.durations.buckets, strict=True):
                below += count
                durations.add_sample("db_query_duration_seconds_bucket", {**labels, "le": bound}, below)
            durations.add_sample("db_query_duration_seconds_count", labels, below)
            durations.add_sample("db_query_duration_seconds_sum", labels, group.stats.durations.total)
        yield from (queries, durations, errors, active)

    def _storage(self) -> Iterator[Metric]:
        allowed = Metric("tenant_storage_max_gb", "Storage that the tenant may use.", "gauge")
        for account in _busiest_first(self._plane.accounts)[:EXACT_TENANTS]:
            limit = account.limits.max_storage_gb
            if limit:
                allowed.add_sample("tenant_storage_max_gb", {"tenant_id": account.tenant.name}, limit)
        yield allowed

    def _pools(self) -> Iterator[Metric]:
        servers = Metric("tiergate_servers", "Server connections by state.", "gauge")
        waiting = Metric("tiergate_waiting_clients", "Transactions that wait for a connection.", "gauge")
        seconds = Metric("tiergate_wait_seconds_total", "Time spent waiting for connections.", "unknown")
        received = Metric("tiergate_received_bytes_total", "Bytes from clients.", "unknown")
        sent = Metric("tiergate_sent_bytes_total", "Bytes to clients.", "unknown")
        transactions = Metric("tiergate_transactions_total", "Transactions done.", "unknown")
        # Pools that differ in parameters of the connection's start only have the same labels.
        same: dict[tuple[str, ...], list[Pool]] = {}
        for pool in self._plane.pools:
            same.setdefault((*pool.key[:3], pool.mode.value), []).append(pool)
        for values, group in same.items():
            labels = dict(zip(("cluster", "database", "user", "pool_mode"), values, strict=True))
            states = (
                ("active", sum(len(pool.active) for pool in group)),
                ("idle", sum(len(pool.idle) for pool in group)),
                ("resetting", sum(len(pool.resetting) for pool in group)),
                ("login", sum(pool.opening for pool in group)),
            )
            for state, count in states:
                servers.add_sample("tiergate_servers", {**labels, "state": state}, count)
            counts = [pool.stats for pool in group]
            waiting.add_sample("tiergate_waiting_clients", labels, sum(len(pool.queue) for pool in group))
            seconds.add_sample("tiergate_wait_seconds_total", labels, sum(s.wait_seconds for s in counts))
            received.add_sample(
                "tiergate_received_bytes_total", labels, sum(s.bytes_received for s in counts)
            )
            sent.add_sample("tiergate_sent_bytes_total", labels, sum(s.bytes_sent for s in counts))
            transactions.add_sample(
                "tiergate_transactions_total", labels, sum(s.transactions for s in counts)
            )
        yield from (servers, waiting, seconds, received, sent, transactions)

    def _endpoints(self) -> Metric:
        ejected = Metric("tiergate_endpoints_ejected", "Endpoints set aside for now.", "gauge")
        now, health = monotonic(), self._plane.pools.health
        for cluster in self._plane.registry.clusters():
            count = sum(not health.healthy(endpoint, now) for endpoint in cluster.endpoints)
            ejected.add_sample("tiergate_endpoints_ejected", {"cluster": cluster.name}, count)
        return ejected

    def _process(self) -> Iterator[Metric]:
        plane, process = self._plane, self._plane.process
        clients = Metric("tiergate_clients", "Client sessions by state.", "gauge")
        states = dict.fromkeys((state.value for state in SessionState if state is not SessionState.CLOSED), 0)
        for session in plane.sessions:
            states[session.state.value] += 1
        for state, count in states.items():
            clients.add_sample("tiergate_clients", {"state": state}, count)
        yield clients
        for name, text, value in (
            ("tiergate_client_connections_total", "Client connections accepted.", process.client_connections),
            ("tiergate_rejected_connections_total", "Refused before a login.", process.rejected_connections),
            ("tiergate_login_failures_total", "Logins that failed.", process.login_failures),
            ("tiergate_server_connections_total", "Server connections opened.", process.server_connections),
            ("tiergate_server_failures_total", "Server connections that failed.", process.server_failures),
            ("tiergate_cancels_total", "Cancel requests sent to servers.", process.cancels),
        ):
            metric = Metric(name, text, "unknown")
            metric.add_sample(name, {}, value)
            yield metric
        timeouts = Metric("tiergate_timeouts_total", "Limits of time that struck.", "unknown")
        for limit, count in process.timeouts.items():
            timeouts.add_sample("tiergate_timeouts_total", {"limit": limit}, count)
        pins = Metric("tiergate_pins_total", "Sessions that kept their server connection.", "unknown")
        for reason, count in process.pins.items():
            pins.add_sample("tiergate_pins_total", {"reason": reason}, count)
        yield from (timeouts, pins)


def exposition(plane: Plane) -> bytes:
    """The text that a scrape gets."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(PlaneCollector(plane))
    return generate_latest(registry)
