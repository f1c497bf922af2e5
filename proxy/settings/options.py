"""What the whole process is told: where it listens, how it logs, how it ends, which certificates it holds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

from proxy.model import ApiToken, ClientOptions, Directory, ServerOptions, TlsOptions
from proxy.routing import addresses


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """`shutdown_timeout` bounds a drain, `upgrade_timeout` the rest of the life of workers that were replaced,
    `worker_hang_timeout` the silence of one that serves.

    Keys here need a restart, except the log's, the registry's size in memory and those that are times.
    """

    listen_addr: str = "127.0.0.1"
    listen_port: int = 6432
    listen_backlog: int = 1024
    unix_socket_dir: str = ""
    unix_socket_mode: int = 0o777
    http_addr: str = "127.0.0.1:9187"
    http_tls_cert_file: str = ""
    http_tls_key_file: str = ""
    http_insecure: bool = False
    workers: int = 1
    supervised: bool = False
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    shutdown_timeout: float = 60.0
    stats_period: float = 60.0
    upgrade_timeout: float = 0.0
    worker_hang_timeout: float = 30.0
    usage_interval: float = 60.0
    redis_url: str = ""
    fleet_name: str = "tiergate"
    fleet_size: int = 0  # proxies that share caps; 0: each has its own
    fleet_reserve: int = 50  # percent of a cap
    fleet_ttl: float = 60.0
    registry_dsn: str = ""
    registry_cache_size: int = 10_000
    registry_ttl: float = 300.0
    registry_negative_ttl: float = 5.0
    pidfile: str = ""
    watch_config: bool = True

    @property
    def registry_cache(self) -> tuple[int, float, float]:
        """How many tenants are kept, and how long those that are there and those that are not are believed."""
        return self.registry_cache_size, self.registry_ttl, self.registry_negative_ttl

    @property
    def worker_count(self) -> int:
        """`workers`, or as many as there are cores that this process may use."""
        return self.workers or len(os.sched_getaffinity(0))

    @property
    def has_supervisor(self) -> bool:
        """One worker is a process that is alone, unless something is wanted that only a supervisor does."""
        return self.worker_count > 1 or self.supervised or self.fleet_size > 0

    @property
    def http(self) -> tuple[str, int] | None:
        """Host and port of `http_addr`; None where it is empty."""
        return addresses.parse(self.http_addr, 9187) if self.http_addr else None


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """PgBouncer's TLS keys. File names are absolute or empty."""

    client_tls_sslmode: str = "disable"
    client_tls_key_file: str = ""
    client_tls_cert_file: str = ""
    client_tls_ca_file: str = ""
    client_tls_protocols: tuple[str, ...] = ("secure",)
    client_tls_ciphers: str = "default"
    server_tls_sslmode: str = "prefer"
    server_tls_key_file: str = ""
    server_tls_cert_file: str = ""
    server_tls_ca_file: str = ""
    server_tls_protocols: tuple[str, ...] = ("secure",)
    server_tls_ciphers: str = "default"

    def side(self, side: Literal["client", "server"]) -> TlsOptions:
        said = {field.name: getattr(self, f"{side}_tls_{field.name}") for field in fields(TlsOptions)}
        return TlsOptions(**said)


@dataclass(frozen=True, slots=True)
class Settings:
    """All that one configuration says. `unused` holds, by full key, what has no effect yet."""

    path: str
    server: ServerOptions
    client: ClientOptions
    directory: Directory
    process: ProcessSettings
    tls: TlsSettings
    unused: Mapping[str, object]
    api_tokens: Mapping[str, ApiToken]
    digest: str = field(default="", compare=False)  # of its text
