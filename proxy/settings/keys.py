"""Every key there is, table by table. What is not here is an unknown key."""

from __future__ import annotations

from typing import Literal, NamedTuple

from proxy.model import ClusterKind, PoolMode
from proxy.settings import values as v
from proxy.settings.reader import Schema
from proxy.wire.way import MAX_PEER

Home = Literal["process", "server", "client", "limits", "tls", "tcp"]

AUTH_TYPES = ("scram-sha-256", "md5", "plain", "trust", "cert")
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
TLS_PROTOCOLS = ("secure", "legacy", "all", "tlsv1.0", "tlsv1.1", "tlsv1.2", "tlsv1.3")
POOL_MODE = v.member(PoolMode)

LIMITS: dict[str, v.Kind] = {
    "max_connections": v.COUNT,
    "min_connections": v.COUNT,
    "max_client_connections": v.COUNT,
    "guaranteed_connections": v.COUNT_OR_SHARE,
    "max_queue": v.COUNT,
    "max_qps": v.NUMBER,
    "burst": v.COUNT,
    "rate_wait": v.DURATION,
    "max_queries_per_day": v.COUNT,
    "max_bytes_per_second": v.BYTES,
    "query_timeout": v.DURATION,
    "transaction_timeout": v.DURATION,
    "idle_transaction_timeout": v.DURATION,
    "client_idle_timeout": v.DURATION,
    "query_wait_timeout": v.DURATION,
    "query_wait_notify": v.DURATION,
    "max_storage_gb": v.NUMBER,
}

# What all tenants of a tier can have a common limit of.
_COMMON = ("max_connections", "max_client_connections", "guaranteed_connections", "max_queue")
CAPS: dict[str, v.Kind] = {key: LIMITS[key] for key in _COMMON}

# A user has none of its own.
OF_TENANTS = frozenset(
    {
        "min_connections",
        "guaranteed_connections",
        "max_qps",
        "burst",
        "rate_wait",
        "max_queries_per_day",
        "max_bytes_per_second",
        "max_storage_gb",
    }
)

POLICY: dict[str, v.Kind] = {
    "max_joins": v.COUNT,
    "max_statements": v.COUNT,
    "max_statement_size": v.BYTES,
    "read_only": v.BOOLEAN,
    "forbidden_statements": v.NAMES,
    "locked_parameters": v.NAMES,
}


class ProxyKey(NamedTuple):
    """A key of [proxy]: its kind, the value object that holds it, and whether a reload can change it."""

    kind: v.Kind
    home: Home
    changeable: bool = True


PROXY: dict[str, ProxyKey] = {
    "listen_addr": ProxyKey(v.WORD, "process", False),
    "listen_port": ProxyKey(v.PORT, "process", False),
    "listen_backlog": ProxyKey(v.POSITIVE, "process", False),
    "unix_socket_dir": ProxyKey(v.TEXT, "process", False),
    "unix_socket_mode": ProxyKey(v.SOCKET_MODE, "process", False),
    "http_addr": ProxyKey(v.TEXT, "process", False),
    "http_tls_cert_file": ProxyKey(v.TEXT, "process", False),
    "http_tls_key_file": ProxyKey(v.TEXT, "process", False),
    "http_insecure": ProxyKey(v.BOOLEAN, "process", False),
    "workers": ProxyKey(v.COUNT, "process", False),
    "supervised": ProxyKey(v.BOOLEAN, "process", False),
    "log_format": ProxyKey(v.choice("console", "json"), "process"),
    "log_level": ProxyKey(v.choice("debug", "info", "warning", "error"), "process"),
    "shutdown_timeout": ProxyKey(v.DURATION, "process"),
    "stats_period": ProxyKey(v.DURATION, "process"),
    "upgrade_timeout": ProxyKey(v.DURATION, "process"),
    "worker_hang_timeout": ProxyKey(v.DURATION, "process"),
    "usage_interval": ProxyKey(v.DURATION, "process"),
    "redis_url": ProxyKey(v.SECRET, "process", False),
    "fleet_name": ProxyKey(v.WORD, "process", False),
    "fleet_size": ProxyKey(v.integer(0, MAX_PEER), "process", False),
    "fleet_reserve": ProxyKey(v.integer(0, 100), "process", False),
    "fleet_ttl": ProxyKey(v.DURATION, "process", False),
    "registry_dsn": ProxyKey(v.SECRET, "process", False),
    "registry_cache_size": ProxyKey(v.POSITIVE, "process"),
    "registry_ttl": ProxyKey(v.DURATION, "process"),
    "registry_negative_ttl": ProxyKey(v.DURATION, "process"),
    "pidfile": ProxyKey(v.TEXT, "process", False),
    "watch_config": ProxyKey(v.BOOLEAN, "process"),
    "pool_mode": ProxyKey(POOL_MODE, "server"),
    "default_pool_size": ProxyKey(v.POSITIVE, "server"),
    "min_pool_size": ProxyKey(v.COUNT, "server"),
    "max_server_connections": ProxyKey(v.COUNT, "server"),
    "max_prepared_statements": ProxyKey(v.COUNT, "server"),
    "server_connect_timeout": ProxyKey(v.DURATION, "server"),
    "server_login_timeout": ProxyKey(v.DURATION, "server"),
    "server_login_retry": ProxyKey(v.DURATION, "server"),
    "server_lifetime": ProxyKey(v.DURATION, "server"),
    "server_idle_timeout": ProxyKey(v.DURATION, "server"),
    "server_surplus_timeout": ProxyKey(v.DURATION, "server"),
    "server_check_delay": ProxyKey(v.DURATION, "server"),
    "server_check_query": ProxyKey(v.TEXT, "server"),
    "server_reset_query": ProxyKey(v.TEXT, "server"),
    "cancel_wait_timeout": ProxyKey(v.DURATION, "server"),
    "pool_idle_timeout": ProxyKey(v.DURATION, "server"),
    "application_name_add_host": ProxyKey(v.BOOLEAN, "server"),
    "seal_lifetime": ProxyKey(v.DURATION, "server"),
    "auth_user": ProxyKey(v.TEXT, "server"),
    "auth_password": ProxyKey(v.SECRET, "server"),
    "auth_query": ProxyKey(v.TEXT, "server"),
    "auth_dbname": ProxyKey(v.TEXT, "server"),
    "auth_type": ProxyKey(v.choice(*AUTH_TYPES), "client"),
    "peer_id": ProxyKey(v.integer(0, MAX_PEER), "client"),
    "max_client_conn": ProxyKey(v.COUNT, "client"),
    "max_logins": ProxyKey(v.COUNT, "client"),
    "max_logins_per_address": ProxyKey(v.COUNT, "client"),
    "max_logins_per_tenant": ProxyKey(v.COUNT, "client"),
    "client_login_timeout": ProxyKey(v.DURATION, "client"),
    "tenant_guc": ProxyKey(v.WORD, "client"),
    "identify": ProxyKey(v.choices("startup", "user", "sni", "session"), "client"),
    "default_tenant": ProxyKey(v.TEXT, "client"),
    "admin_users": ProxyKey(v.NAME_SET, "client"),
    "stats_users": ProxyKey(v.NAME_SET, "client"),
    "pin_notice": ProxyKey(v.BOOLEAN, "client"),
    "query_timeout": ProxyKey(v.DURATION, "limits"),
    "transaction_timeout": ProxyKey(v.DURATION, "limits"),
    "idle_transaction_timeout": ProxyKey(v.DURATION, "limits"),
    "client_idle_timeout": ProxyKey(v.DURATION, "limits"),
    "query_wait_timeout": ProxyKey(v.DURATION, "limits"),
    "query_wait_notify": ProxyKey(v.DURATION, "limits"),
    "rate_wait": ProxyKey(v.DURATION, "limits"),
    "tcp_keepalive": ProxyKey(v.BOOLEAN, "tcp"),
    "tcp_keepidle": ProxyKey(v.DURATION, "tcp"),
    "tcp_keepintvl": ProxyKey(v.DURATION, "tcp"),
    "tcp_keepcnt": ProxyKey(v.integer(0, 127), "tcp"),
    "tcp_user_timeout": ProxyKey(v.DURATION, "tcp"),
    **{
        f"{side}_tls_{name}": ProxyKey(kind, "tls")
        for side in ("client", "server")
        for name, kind in {
            "sslmode": v.choice(*SSL_MODES),
            "key_file": v.TEXT,
            "cert_file": v.TEXT,
            "ca_file": v.TEXT,
            "protocols": v.choices(*TLS_PROTOCOLS),
            "ciphers": v.WORD,
        }.items()
    },
}

PROXY_TABLE: Schema = {key: row.kind for key, row in PROXY.items()} | {"limits": LIMITS}

USER: Schema = {
    "password": v.SECRET,
    "password_file": v.TEXT,
    "tenants": v.TENANTS,
    "auth_type": v.choice(*AUTH_TYPES),
    "server_user": v.TEXT,
    "server_password": v.SECRET,
    "server_password_file": v.TEXT,
    "pool_mode": POOL_MODE,
    "keep_sequences": v.BOOLEAN,
    "limits": {key: kind for key, kind in LIMITS.items() if key not in OF_TENANTS},
}

# Who asks a cluster about its roles, and how.
AUTH: dict[str, v.Kind] = {
    "auth_user": v.TEXT,
    "auth_password": v.SECRET,
    "auth_password_file": v.TEXT,
    "auth_query": v.TEXT,
    "auth_dbname": v.TEXT,
}

CLUSTER: Schema = {
    "kind": v.member(ClusterKind),
    "primary": v.PRIMARY,
    "replicas": v.ADDRESSES,
    "coordinators": v.ADDRESSES,
    "dbname": v.TEXT,
    "user": v.TEXT,
    "password": v.SECRET,
    "password_file": v.TEXT,
    "pool_size": v.POSITIVE,
    "read_pool_size": v.COUNT,
    "min_pool_size": v.COUNT,
    "max_connections": v.COUNT,
    "adaptive_concurrency": v.BOOLEAN,
    "min_concurrency": v.POSITIVE,
    "pool_mode": POOL_MODE,
    "storage_user": v.TEXT,
    "storage_password": v.SECRET,
    "storage_password_file": v.TEXT,
    "seal_keys": v.SEAL_KEYS,
    "seal_keys_file": v.TEXT,
    **AUTH,
}

# Other stores of a tenant, for those who ask where its resources are: nothing of theirs is ours to judge.
STORES: dict[str, v.Kind] = {"redis": v.TABLE, "clickhouse": v.TABLE, "kafka": v.TABLE}

TIER: Schema = {
    "limits": LIMITS,
    "caps": CAPS,
    "weight": v.POSITIVE,
    "cluster": v.TEXT,
    "pool_mode": POOL_MODE,
    "parameters": v.PARAMETERS,
    "max_tenants": v.COUNT,
    "default_shards": v.COUNT,
    "read_write_split": v.BOOLEAN,
    **POLICY,
    "pool_type": v.kept(v.choice("dedicated", "shared_dedicated", "shared")),
    "auto_shard": v.kept(v.BOOLEAN),
    "auto_scale": v.kept(v.BOOLEAN),
    "min_shards": v.kept(v.COUNT),
    "max_shards": v.kept(v.COUNT),
    **STORES,
}

TENANT: Schema = {
    "tier": v.WORD,
    "id": v.UUID,
    "cluster": v.TEXT,
    "shard_id": v.COUNT,
    "limits": LIMITS,
    "pool_mode": POOL_MODE,
    "parameters": v.PARAMETERS,
    **POLICY,
    "active": v.BOOLEAN,
    "postgresql": {
        "cluster_type": v.choice("dedicated", "vip", "shared_dedicated", "shared"),
        "primary": v.PRIMARY,
        "read_replicas": v.ADDRESSES,
        "coordinator_hosts": v.ADDRESSES,
        "pool_size": v.POSITIVE,
        "read_pool_size": v.COUNT,
        "min_pool_size": v.COUNT,
        "dbname": v.TEXT,
        "user": v.TEXT,
        "password": v.SECRET,
        "password_file": v.TEXT,
        "worker_shard": v.kept(v.COUNT),
        "cpu_quota": v.kept(v.PERCENT),
        "memory_quota": v.kept(v.SIZE),
        **AUTH,
    },
    "expected_data_size": v.kept(v.SIZE),
    "expected_qps": v.kept(v.NUMBER),
    "auto_scaling": {
        "scale_up_qps_threshold": v.kept(v.NUMBER),
        "scale_down_qps_threshold": v.kept(v.NUMBER),
        "scale_up_data_threshold": v.kept(v.SIZE),
        "scale_down_data_threshold": v.kept(v.SIZE),
        "rebalance_window": v.kept(v.WINDOW),
    },
    **STORES,
}

PEER = v.PEER

TABLES: dict[str, Schema] = {"user": USER, "cluster": CLUSTER, "tier": TIER, "tenant": TENANT}
