"""What others write programs, tests and dashboards against, written out: a name that falls off is missed here.

The README is compared with the code elsewhere (cli/test_readme.py); both could lose a name together. What is here was
agreed upon, so it changes only when that does.
"""

from __future__ import annotations

import re
from typing import cast

import pytest
from typer.main import get_command

from proxy import errors, settings
from proxy.admission.accounts import Account, TierAccount
from proxy.cli import main
from proxy.control import counts as counting
from proxy.control import metrics, views
from proxy.control.api import Desk
from proxy.control.api.app import make_app
from proxy.control.console.commands import HELP
from proxy.errors import TiergateError
from proxy.model import Limits, PoolMode, Tenant, Tier
from proxy.worker import Worker

PROXY = """
[proxy]
listen_addr = "127.0.0.1"
listen_port = 6432
unix_socket_dir = ""
workers = 1
pool_mode = "transaction"
default_pool_size = 20
max_client_conn = 10000
max_prepared_statements = 200
query_wait_timeout = "120s"
auth_type = "scram-sha-256"
client_tls_sslmode = "disable"
server_tls_sslmode = "prefer"
tenant_guc = "app.tenant_id"
identify = ["startup", "user", "sni", "session"]
default_tenant = ""
admin_users = ["admin"]
http_addr = "127.0.0.1:9187"
redis_url = ""
registry_dsn = ""
"""

COMMANDS = {
    "serve": {"--config"},
    "check": {"--config"},
    "demo": {"--port", "--dir", "--check"},
    "tenants list": {"--config", "--json"},
    "tenants show": {"--config", "--json"},
    "tenants route": {"--url", "--token"},
    "tenants create": {"--url", "--token"},
    "tenants delete": {"--url", "--token"},
    "tenants set-tier": {"--url", "--token"},
    "tenants set-limits": {"--url", "--token"},
    "tenants suspend": {"--url", "--token"},
    "tenants resume": {"--url", "--token"},
    "pools": {"--url", "--token", "--json"},
    "top": {"--url", "--token", "--json"},
    "sql install": {"--config", "--cluster", "--database", "--registry", "--dsn"},
    "sql upgrade": {"--config", "--cluster", "--database", "--registry", "--dsn"},
    "sql status": {"--config", "--cluster", "--database", "--registry", "--dsn"},
    "sql rotate-key": {"--config", "--cluster", "--now"},
    "token new": {"--role", "--tenant", "--json"},
}

SQLSTATES = {
    "CapReached": "53300",
    "RateExceeded": "53400",
    "QueryCanceled": "57014",
    "IdleInTransactionTimeout": "25P03",
    "TransactionTimeout": "25P04",
    "ClientIdleTimeout": "57P05",
    "UnknownTenant": "3D000",
    "UnknownDatabase": "3D000",
    "InvalidPassword": "28P01",
    "NotAuthorized": "28000",
    "TenantChangeRefused": "42501",
    "TenantChangeInTransaction": "25001",
    "StatementRefused": "0A000",
    "NoHealthyEndpoint": "57P03",
    "ServerLost": "08006",
    "ShuttingDown": "57P01",
    "DuplicateStatement": "42P05",
}

METRICS = {
    "db_query_count": {"tenant_id", "tier"},
    "db_query_duration_seconds_bucket": {"tenant_id", "tier", "le"},
    "db_query_duration_seconds_sum": {"tenant_id", "tier"},
    "db_query_duration_seconds_count": {"tenant_id", "tier"},
    "db_query_errors": {"tenant_id", "tier", "sqlstate"},
    "tenant_active_connections": {"tenant_id", "tier"},
    "tenant_storage_used_gb": {"tenant_id"},
    "tenant_storage_max_gb": {"tenant_id"},
}

SHOWN = (
    "ACTIVE_SOCKETS CLIENTS CLUSTERS CONCURRENCY CONFIG DATABASES FLEET HELP LISTS PEERS POOLS QUEUE REGISTRY ROUTE SERVERS"
    " SHARES SOCKETS STATE STATS STATS_AVERAGES STATS_TOTALS TENANTS TIERS TOTALS USERS VERSION WORKERS"
)
VERBS = "RELOAD PAUSE RESUME RECONNECT WAIT_CLOSE DISABLE ENABLE KILL KILL_CLIENT SET UPGRADE SHUTDOWN"

# PgBouncer's own are in control/test_views.py; these stand behind them, or are views that it has not.
COLUMNS = {
    "pools": "cluster paused",
    "clients": "tenant tier cluster pool_mode pins place",
    "servers": "cluster tenant uses being_canceled",
    "stats": "user cluster",
    "tenants": "name id tier cluster active disabled clients max_client_connections servers max_connections connections_now"
    " waiting queries transactions errors query_timeout sql_rules max_qps max_queries_per_day throttled refused_rate"
    " refused_quota server_time share_asked share_due share_given",
    "tiers": "name weight pool_mode max_tenants tenants clients max_client_connections servers max_connections"
    " tenant_max_connections tenant_query_timeout sql_rules",
    "clusters": "name kind endpoint role healthy reason connections",
    "registry": "store up seconds reason asked found tenants stale",
    "queue": "cluster database user place tenant tier weight waiting wait wait_us owes_ms guaranteed why",
    "concurrency": "cluster limit min max running connections baseline_us latency_us gradient why",
}

ROUTES = """
GET /healthz
GET /metrics
GET /readyz
DELETE /v1/clients/{}
DELETE /v1/tenants/{}
GET /v1/activity
GET /v1/audit
GET /v1/clients
GET /v1/clusters
GET /v1/concurrency
GET /v1/pools
GET /v1/queue
GET /v1/servers
GET /v1/stats
GET /v1/tenants
GET /v1/tenants/{}
GET /v1/tenants/{}/resources
GET /v1/tenants/{}/route
GET /v1/tenants/{}/usage
GET /v1/tiers
GET /v1/workers
PATCH /v1/tenants/{}
POST /v1/clusters/{}/kill
POST /v1/clusters/{}/pause
POST /v1/clusters/{}/reconnect
POST /v1/clusters/{}/resume
POST /v1/drain
POST /v1/reload
POST /v1/tenants
POST /v1/tenants/{}/kill
POST /v1/tenants/{}/resume
POST /v1/tenants/{}/storage
POST /v1/tenants/{}/suspend
POST /v1/tenants/{}/tier
"""


def test_every_command_with_its_options() -> None:
    for name, options in COMMANDS.items():
        command = get_command(main)
        for word in name.split():
            command = command.commands[word]  # type: ignore[attr-defined]
        found = {option for parameter in command.params for option in parameter.opts}
        assert options <= found, name


def test_the_process_has_the_defaults_that_were_agreed_upon() -> None:
    said = settings.describe(settings.parse(PROXY, "design.toml"))
    usual = {key: default for key, _, default, _ in settings.describe(settings.parse("", "empty.toml"))}
    assert {key: value for key, value, _, _ in said} == usual
    assert usual.keys() >= set(re.findall(r"^(\w+) =", PROXY, re.MULTILINE))


def test_tiers_and_modes() -> None:
    assert settings.parse("", "empty.toml").directory.tiers.keys() == {
        "enterprise",
        "vip",
        "standard",
        "free",
    }
    assert [mode.value for mode in PoolMode] == ["session", "transaction", "statement"]


@pytest.mark.parametrize("name", SQLSTATES)
def test_every_sqlstate(name: str) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, TiergateError)
    assert kind.sqlstate == SQLSTATES[name]


def test_every_metric_of_the_dashboards_with_its_labels() -> None:
    account = Account(Tenant("acme", "vip", "vip-1"), TierAccount(Tier("vip")), Limits(max_storage_gb=5))
    account.stats.queries = 1
    account.stats.durations.add(0.001)
    account.stats.error("57014")
    account.clients.take()
    counts = counting.empty()
    counting.take_tenants([account], counts)
    counts["most"]["storage_used_gb"] = {"acme": 1.5}
    found: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^(\w+)\{(.*)\} ", metrics.exposition(counts).decode(), re.MULTILINE):
        found[name] = set(re.findall(r'(\w+)="', labels))
    assert {name: found.get(name) for name in METRICS} == METRICS
    assert {name for name in found if not name.startswith("tiergate_")} == METRICS.keys()


def test_every_command_of_the_console() -> None:
    said = " ".join(HELP)
    for word in [*SHOWN.split(), *VERBS.split()]:
        assert re.search(rf"\b{word}\b", said), word
    assert {name.lower() for name in SHOWN.split()} >= views.VIEWS.keys()


@pytest.fixture(scope="module")
def worker() -> Worker:
    text = '[cluster.shared]\nkind = "shared"\nprimary = "127.0.0.1:5432"\n[tenant.acme]\ntier = "standard"\n'
    return Worker(settings.parse(text, "names.toml"))


@pytest.mark.parametrize("view", COLUMNS)
def test_every_column_of_our_own(worker: Worker, view: str) -> None:
    columns = views.VIEWS[view](worker.plane).columns
    wanted = COLUMNS[view].split()
    assert [column for column in columns if column in wanted] == wanted


def test_the_columns_of_the_supervisors_views() -> None:
    assert views.workers([]).columns == ("worker", "pid", "state", "version", "age", "restarts")
    assert views.FleetRow._fields == (
        "redis", "seconds", "reason", "state", "proxies", "fleet_size", "share_seconds",
    )  # fmt: skip


def test_every_route_of_http() -> None:
    found = {
        f"{method.upper()} {re.sub(r'{.*?}', '{}', path)}"
        for path, methods in make_app(cast(Desk, None)).openapi()["paths"].items()
        for method in methods
    }
    assert found == set(ROUTES.strip().splitlines())
