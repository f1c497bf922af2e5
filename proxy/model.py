"""The words of the domain as frozen values: who the tenants are, what their tier grants, where they live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from types import MappingProxyType
from typing import Any, NamedTuple

NO_PARAMETERS: Mapping[str, str] = MappingProxyType({})
NO_STORES: Mapping[tuple[str, str], Mapping[str, Mapping[str, Any]]] = MappingProxyType({})
NO_PEERS: Mapping[int, tuple[str, int]] = MappingProxyType({})


class PoolMode(Enum):
    SESSION = "session"
    TRANSACTION = "transaction"
    STATEMENT = "statement"


class Role(Enum):
    PRIMARY = "primary"
    REPLICA = "replica"
    COORDINATOR = "coordinator"


class ClusterKind(Enum):
    DEDICATED = "dedicated"
    VIP = "vip"
    SHARED = "shared"


class PinReason(Enum):
    """Why a session keeps its server connection beyond the transaction."""

    SET = "a parameter was set that cannot follow to another connection"
    SQL_PREPARE = "SQL-level PREPARE"
    LISTEN = "LISTEN"
    TEMP_TABLE = "a temporary table"
    ADVISORY_LOCK = "a session-level advisory lock"
    HOLD_CURSOR = "a cursor WITH HOLD"
    ROLE = "SET SESSION AUTHORIZATION"
    LOAD = "a library was loaded"
    SEQUENCE = "numbers were drawn from sequences, and currval() or lastval() is used"
    UNINSPECTED = "a statement too large or too strange to inspect"


class PoolKey(NamedTuple):
    """`at_start`: parameters (lower case) that a server takes only while a connection begins, sorted. `verifier`: a digest
    of the one whose keys open the connections, so that who has another never gets them."""

    cluster: str
    database: str
    user: str
    at_start: tuple[tuple[str, str], ...] = ()
    verifier: str = ""


class Endpoint(NamedTuple):
    """One host:port of a cluster. A host that begins with "/" is the directory of a unix socket."""

    host: str
    port: int
    role: Role

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a tenant, tier or user may use. Counts and seconds; 0 is no limit; None: as the one above says.

    `over` lays one set of limits over another: user over tenant over tier over proxy.
    """

    max_connections: int | None = None  # server connections in use at once
    min_connections: int | None = (
        None  # from where a tenant's cap moves up to `max_connections`; 0: it does not move
    )
    max_client_connections: int | None = None
    guaranteed_connections: float | None = None  # from 1 on so many, below 1 a share of the cluster's
    max_queue: int | None = None  # transactions that may wait at once
    max_qps: float | None = None
    burst: int | None = None  # queries at once; 0: what max_qps is in a second
    rate_wait: float | None = None  # for what is over the rate, before it is refused
    max_queries_per_day: int | None = None
    max_bytes_per_second: int | None = None  # both directions
    query_timeout: float | None = None
    transaction_timeout: float | None = None
    idle_transaction_timeout: float | None = None
    client_idle_timeout: float | None = None
    query_wait_timeout: float | None = None
    query_wait_notify: float | None = None  # of a wait so long the client is told
    max_storage_gb: float | None = None

    def over(self, lower: Limits) -> Limits:
        said = {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None}
        return replace(lower, **said)


UNLIMITED = Limits(
    max_connections=0,
    min_connections=0,
    max_client_connections=0,
    guaranteed_connections=0.0,
    max_queue=0,
    max_qps=0.0,
    burst=0,
    rate_wait=0.0,
    max_queries_per_day=0,
    max_bytes_per_second=0,
    query_timeout=0.0,
    transaction_timeout=0.0,
    idle_transaction_timeout=0.0,
    client_idle_timeout=0.0,
    query_wait_timeout=0.0,
    query_wait_notify=0.0,
    max_storage_gb=0.0,
)


@dataclass(frozen=True, slots=True)
class SqlPolicy:
    """What SQL a tenant may send. None: as the one above says; 0, False or nothing in it: no rule.

    `forbidden_statements` are names of `sql.vocabulary`, `locked_parameters` are in lower case.
    """

    max_joins: int | None = None
    max_statements: int | None = None
    max_statement_size: int | None = None  # bytes
    read_only: bool | None = None
    forbidden_statements: frozenset[str] | None = None
    locked_parameters: frozenset[str] | None = None

    def over(self, lower: SqlPolicy) -> SqlPolicy:
        said = {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None}
        return replace(lower, **said) if said else lower


NO_POLICY = SqlPolicy()


@dataclass(frozen=True, slots=True)
class Tier:
    """A class of service. `limits` hold for each tenant of it; `caps` for all its tenants together."""

    name: str
    limits: Limits = Limits()
    caps: Limits = Limits()
    weight: int = 1
    cluster: str = ""
    pool_mode: PoolMode | None = None
    parameters: Mapping[str, str] = field(default_factory=lambda: NO_PARAMETERS)
    max_tenants: int = 0
    default_shards: int = 0
    read_write_split: bool = False
    policy: SqlPolicy = NO_POLICY


class SealKey(NamedTuple):
    id: str
    secret: str

    def __repr__(self) -> str:
        return f"SealKey({self.id!r})"


@dataclass(frozen=True, slots=True)
class Seal:
    """How the tenant of a cluster's connections is proved to its databases. The last key signs."""

    tenant_guc: str
    lifetime: float
    keys: tuple[SealKey, ...]
    keys_file: str = field(default="", compare=False)  # where they stand, "" = in the configuration itself


@dataclass(frozen=True, slots=True)
class Cluster:
    """One data set and the endpoints that serve it."""

    name: str
    kind: ClusterKind
    endpoints: tuple[Endpoint, ...]
    dbname: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    pool_size: int = 20
    min_pool_size: int = 0
    max_connections: int = 0
    pool_mode: PoolMode | None = None
    read_pool_size: int = 0
    adaptive_concurrency: bool = (
        False  # `max_connections` is lowered while latency grows, to `min_concurrency`
    )
    min_concurrency: int = 4
    seal: Seal | None = None
    storage_user: str = ""  # who asks how much is stored; "" = nobody
    storage_password: str = field(default="", repr=False)
    auth_user: str = ""  # who asks about roles that the proxy does not know; "" = nobody
    auth_password: str = field(default="", repr=False)
    auth_query: str = ""  # "" = pg_authid
    auth_dbname: str = ""

    def with_role(self, *roles: Role) -> tuple[Endpoint, ...]:
        return tuple(e for e in self.endpoints if e.role in roles)


@dataclass(frozen=True, slots=True)
class Tenant:
    """A customer. `cluster` is already resolved to the name of a configured cluster.

    `limits` and `policy` are what the tenant's own table says; use `registry` for what holds. `placement` says
    why it lives on its cluster.
    """

    name: str
    tier: str
    cluster: str
    id: str = ""
    limits: Limits = Limits()
    pool_mode: PoolMode | None = None
    parameters: Mapping[str, str] = field(default_factory=lambda: NO_PARAMETERS)
    shard_id: int | None = None
    active: bool = True
    placement: str = ""
    policy: SqlPolicy = NO_POLICY


@dataclass(frozen=True, slots=True)
class User:
    """A login. `tenants` is None where it may act for every tenant ("*"), else the names it may act for."""

    name: str
    password: str = field(default="", repr=False)  # plain, md5... or a SCRAM-SHA-256$ verifier
    tenants: frozenset[str] | None = frozenset()
    auth_type: str = ""  # "" = the proxy's
    server_user: str = ""
    server_password: str = field(default="", repr=False)
    pool_mode: PoolMode | None = None
    limits: Limits = Limits()
    keep_sequences: bool = False  # its sessions keep what they draw, for currval() and lastval()

    def may_act_for(self, tenant: Tenant) -> bool:
        if self.tenants is None or tenant.name in self.tenants:
            return True
        return bool(tenant.id) and tenant.id in self.tenants


class ApiRole(Enum):
    """What the bearer of an API token is: each of the first three may all that the one before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"
    TENANT_ADMIN = "tenant-admin"  # of one tenant, whose affairs alone it may see


@dataclass(frozen=True, slots=True)
class ApiToken:
    """Who may use the HTTP API: what is kept is a hash of the token. `tenant` is a name or an id."""

    name: str
    hash: str = field(repr=False)
    role: ApiRole
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class TcpOptions:
    """When a peer that says nothing is asked whether it is there, and when it is given up. Seconds; 0: as the kernel
    has it."""

    tcp_keepalive: bool = True
    tcp_keepidle: float = 60.0
    tcp_keepintvl: float = 10.0
    tcp_keepcnt: int = 6
    tcp_user_timeout: float = 0.0


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How server connections are made, kept and reset. Times in seconds; 0 is off."""

    pool_mode: PoolMode = PoolMode.TRANSACTION
    default_pool_size: int = 20
    min_pool_size: int = 0
    max_server_connections: int = 0  # of the whole process
    max_prepared_statements: int = 200
    server_connect_timeout: float = 15.0
    server_login_timeout: float = 15.0
    server_login_retry: float = 15.0
    server_lifetime: float = 3600.0
    server_idle_timeout: float = 600.0
    server_surplus_timeout: float = 60.0  # for which a pool has not needed as many as it has
    server_check_delay: float = 30.0
    server_check_query: str = "SELECT 1"
    server_reset_query: str = "DISCARD ALL"
    cancel_wait_timeout: float = 10.0
    pool_idle_timeout: float = 3600.0
    application_name_add_host: bool = False
    seal_lifetime: float = 900.0
    auth_user: str = ""  # of clusters that say nothing else
    auth_password: str = field(default="", repr=False)
    auth_query: str = ""
    auth_dbname: str = ""
    client_connection_check_interval: float = 0.0  # how often a busy backend looks whether its proxy is there
    tcp: TcpOptions = field(default_factory=TcpOptions)


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How clients are accepted, identified and logged in. Times in seconds; 0 is off."""

    auth_type: str = "scram-sha-256"
    max_client_conn: int = 10_000
    max_logins: int = 1_000  # connections that have not authenticated yet, all together
    max_logins_per_address: int = 200  # and from one address
    max_logins_per_tenant: int = 500  # and that claim one tenant; 0: no limit
    client_login_timeout: float = 60.0
    tenant_guc: str = "app.tenant_id"
    identify: tuple[str, ...] = ("startup", "user", "sni", "session")
    default_tenant: str = ""
    admin_users: frozenset[str] = frozenset({"admin"})
    stats_users: frozenset[str] = frozenset()
    client_tls_sslmode: str = "disable"
    peer_id: int = 0  # which of `peers` this proxy is; 0: it is alone
    peers: Mapping[int, tuple[str, int]] = field(default_factory=lambda: NO_PEERS)  # where each listens
    tcp: TcpOptions = field(default_factory=TcpOptions)
    limits: Limits = Limits()  # the proxy's own, under every tier's
    pin_notice: bool = False


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """How TLS is spoken on one side. File names are absolute or empty."""

    sslmode: str
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    protocols: tuple[str, ...] = ("secure",)
    ciphers: str = "default"


@dataclass(frozen=True, slots=True)
class Directory:
    """Everyone and everything the configuration names, as one consistent snapshot. `stores` are the tables that say of
    a tier or a tenant, ("tier", name), where its Redis, ClickHouse and Kafka are."""

    users: Mapping[str, User]
    clusters: Mapping[str, Cluster]
    tiers: Mapping[str, Tier]
    tenants: Mapping[str, Tenant]
    stores: Mapping[tuple[str, str], Mapping[str, Mapping[str, Any]]] = field(
        default_factory=lambda: NO_STORES
    )
