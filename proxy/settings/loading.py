"""From a TOML text and the environment to Settings, or to one ConfigError that tells every problem."""

from __future__ import annotations

import gc
import hashlib
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any

from proxy.errors import ConfigError
from proxy.model import UNLIMITED, ClientOptions, Limits, ServerOptions, TcpOptions
from proxy.settings import api, directory
from proxy.settings.keys import PEER, PROXY, PROXY_TABLE, TABLES, Home
from proxy.settings.lookups import check_auth
from proxy.settings.options import ProcessSettings, Settings, TlsSettings
from proxy.settings.reader import Reader, dotted, suggestion
from proxy.settings.values import Kind
from proxy.wire.way import MAX_PEER

NOTHING: Mapping[str, str] = MappingProxyType({})
PREFIX = "TIERGATE_"

_POSTGRESQL = ("postgresql", "postgres")
_REDIS = ("redis", "rediss", "unix")
_CHECKS = 4  # in a fleet_ttl a busy backend looks so often whether its proxy is still there
_SHORTEST_TTL = 1.0

# The proxy is the top of the order user, tenant, tier, proxy: here every limit has a value.
DEFAULT_LIMITS = replace(UNLIMITED, query_wait_timeout=120.0, query_wait_notify=5.0, rate_wait=0.1)


def load(
    path: str, environ: Mapping[str, str] | None = None, overrides: Mapping[str, str] = NOTHING
) -> Settings:
    """The file at `path` under the environment (the process's own unless given) and what an operator SET."""
    return parse(read(path), path, os.environ if environ is None else environ, overrides)


def read(path: str) -> str:
    """The text of a configuration file. Raises ConfigError."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8") from None


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def parse(
    text: str, path: str, environ: Mapping[str, str] = NOTHING, overrides: Mapping[str, str] = NOTHING
) -> Settings:
    with _no_collection():
        return _parse(text, path, environ, overrides)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Ten thousand tenants are some hundred thousand new objects without a cycle among them; the collector would look
    through all that a running process holds, again and again, while its clients wait for the reload."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _parse(text: str, path: str, environ: Mapping[str, str], overrides: Mapping[str, str]) -> Settings:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from None
    reader = Reader(path, environ)
    for key in sorted(document.keys() - {"proxy", "peers", api.TABLE, *TABLES}):
        known = ["proxy", "peers", api.TABLE, *TABLES]
        reader.problem(dotted(key), "", "unknown table" + suggestion(key, known, of_pgbouncer=True))
    said = reader.read(document.get("proxy", {}), PROXY_TABLE, "proxy")
    _override(reader, said, environ, overrides)
    tls = TlsSettings(**_of(said, "tls"))
    process = ProcessSettings(**_of(said, "process"))
    tcp = TcpOptions(**_of(said, "tcp"))
    server = ServerOptions(**_of(said, "server"), tcp=tcp)
    client = ClientOptions(
        **_of(said, "client"),
        tcp=tcp,
        client_tls_sslmode=tls.client_tls_sslmode,
        peers=_peers(reader, document.get("peers", {}), said.get("peer_id", 0)),
        limits=_limits(reader, said),
    )
    process = _as_fleet(process, len({*client.peers, client.peer_id}) if client.peers else 0)
    registry, proxies = bool(process.registry_dsn), max(1, process.fleet_size)
    people = directory.build(reader, document, server, client, registry=registry, proxies=proxies)
    _check_process(reader, process)
    check_auth(reader, server)
    if process.fleet_size:
        server = replace(server, client_connection_check_interval=process.fleet_ttl / _CHECKS)
    process = api.check_http(reader, process)
    tokens = api.read_tokens(reader, document)
    tls = _check_tls(reader, tls, client.auth_type, [u.auth_type for u in people.users.values()])
    if reader.problems:
        raise ConfigError("\n".join(reader.problems))
    unused = MappingProxyType(reader.unused)
    return Settings(path, server, client, people, process, tls, unused, tokens, digest(text))


def _override(
    reader: Reader, said: dict[str, Any], environ: Mapping[str, str], overrides: Mapping[str, str]
) -> None:
    """Variables of our prefix that are no key are left alone: Kubernetes makes some for a Service."""
    for key, row in PROXY.items():
        name = PREFIX + key.upper()
        if name in environ:
            _set(reader, said, key, row.kind, environ[name], f"environment {name}")
    for key, text in overrides.items():
        if key not in PROXY:
            reader.problem("SET", key, "unknown key" + suggestion(key, PROXY, of_pgbouncer=True))
        elif not PROXY[key].changeable:
            reader.problem("SET", key, "only a restart can change it")
        else:
            _set(reader, said, key, PROXY[key].kind, text, "SET")


def _set(reader: Reader, said: dict[str, Any], key: str, kind: Kind, text: str, where: str) -> None:
    reader.value(said, key, kind, kind.from_text(text), where)


def _of(said: dict[str, Any], home: Home) -> dict[str, Any]:
    return {key: value for key, value in said.items() if key in PROXY and PROXY[key].home == home}


def _limits(reader: Reader, said: dict[str, Any]) -> Limits:
    flat, table = _of(said, "limits"), said.get("limits", {})
    for key in flat.keys() & table.keys():
        reader.problem("proxy.limits", key, f"[proxy] {key} says it as well; keep one of them")
    return Limits(**table | flat).over(DEFAULT_LIMITS)


def _peers(reader: Reader, table: object, own: int) -> Mapping[int, tuple[str, int]]:
    """The proxies of the fleet by their id. A proxy that has peers must say which one it is itself."""
    peers = table if isinstance(table, dict) else {}
    good = {n: v for n, v in peers.items() if n.isascii() and n.isdigit() and 0 < int(n) <= MAX_PEER}
    for name in peers.keys() - good.keys():
        reader.problem("peers", dotted(name), f"must be a proxy's id, 1 to {MAX_PEER}")
    said = reader.read(good if peers else table, dict.fromkeys(good, PEER), "peers")
    if said and not own:
        reader.missing("proxy", "peer_id", "missing; [peers] needs to know which one this proxy is")
    return MappingProxyType({int(name): address for name, address in said.items()})


def _as_fleet(process: ProcessSettings, peers: int) -> ProcessSettings:
    """Where it is not said how many proxies share caps, those that are listed do."""
    return replace(process, fleet_size=process.fleet_size or peers) if process.redis_url else process


def _check_process(reader: Reader, process: ProcessSettings) -> None:
    if process.redis_url and not process.registry_dsn and not process.fleet_size:
        reader.missing("proxy", "registry_dsn", "missing; redis_url keeps copies of what is stored there")
    if process.fleet_size and not process.redis_url:
        reader.missing("proxy", "redis_url", "missing; fleet_size proxies share their caps there")
    if process.fleet_ttl < _SHORTEST_TTL:
        reader.problem("proxy", "fleet_ttl", f"must be at least {_SHORTEST_TTL:.0f}s")
    for key, schemes in (("registry_dsn", _POSTGRESQL), ("redis_url", _REDIS)):
        said: str = getattr(process, key)
        if said and said.partition("://")[0] not in schemes:
            reader.problem("proxy", key, f"must begin with {schemes[0]}://")
    if process.registry_dsn and not process.registry_ttl:
        reader.missing("proxy", "registry_ttl", "must be more than 0")
    if not process.listen_port and not process.unix_socket_dir:
        reader.problem("proxy", "listen_port", "is 0 and unix_socket_dir is empty: nothing would listen")


def _check_tls(reader: Reader, tls: TlsSettings, auth_type: str, users: list[str]) -> TlsSettings:
    changed: dict[str, Any] = {f.name: getattr(tls, f.name) for f in fields(TlsSettings)}
    for side in ("client", "server"):
        for part in ("key_file", "cert_file", "ca_file"):
            key = f"{side}_tls_{part}"
            if not changed[key]:
                continue
            changed[key] = reader.absolute(changed[key])
            if not os.path.isfile(changed[key]):
                reader.problem("proxy", key, f'there is no file "{changed[key]}"')
            elif not os.access(changed[key], os.R_OK):
                reader.problem("proxy", key, f'"{changed[key]}" cannot be read')
        if bool(changed[f"{side}_tls_key_file"]) != bool(changed[f"{side}_tls_cert_file"]):
            have, need = ("key", "cert") if changed[f"{side}_tls_key_file"] else ("cert", "key")
            reader.missing("proxy", f"{side}_tls_{need}_file", f"missing; {side}_tls_{have}_file needs it")
    mode = tls.client_tls_sslmode
    if mode != "disable" and not tls.client_tls_key_file and not tls.client_tls_cert_file:
        reader.problem(
            "proxy", "client_tls_cert_file", f'missing; client_tls_sslmode "{mode}" needs it and a key'
        )
    if mode in ("verify-ca", "verify-full") and not tls.client_tls_ca_file:
        reader.missing("proxy", "client_tls_ca_file", f'missing; client_tls_sslmode "{mode}" needs it')
    if "cert" in (auth_type, *users) and mode not in ("verify-ca", "verify-full"):
        reader.problem("proxy", "client_tls_sslmode", f'auth_type "cert" needs "verify-full", not "{mode}"')
    return TlsSettings(**changed)
