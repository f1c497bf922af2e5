"""Who may use the HTTP API, and how it may be reached: its tokens, and the address and TLS of its server."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from proxy.auth import token
from proxy.model import ApiRole, ApiToken
from proxy.routing import addresses
from proxy.settings import values
from proxy.settings.options import ProcessSettings
from proxy.settings.reader import Reader, Schema, dotted

TABLE = "api_token"


def _hash(value: object) -> str:
    if not isinstance(value, str) or not token.is_hash(value):
        raise ValueError
    return value


_TOKEN: Schema = {
    "hash": values.Kind('"sha256$" and 64 hexadecimal digits, as tiergate token new prints it', _hash, secret=True),
    "role": values.member(ApiRole),
    "tenant": values.TEXT,
}  # fmt: skip


def read_tokens(reader: Reader, document: dict[str, Any]) -> Mapping[str, ApiToken]:
    tables = document.get(TABLE, {})
    if not isinstance(tables, dict):
        reader.problem(TABLE, "", f"must be written as [{TABLE}.NAME]")
        return MappingProxyType({})
    tokens: dict[str, ApiToken] = {}
    owners: dict[str, str] = {}
    for name, raw in tables.items():
        where = dotted(TABLE, name)
        said = reader.read(raw, _TOKEN, where)
        for key in ("hash", "role"):
            if key not in said:
                reader.missing(where, key, "missing")
        if not said.keys() >= {"hash", "role"}:
            continue
        found = ApiToken(name, said["hash"], said["role"], said.get("tenant", ""))
        if found.role is ApiRole.TENANT_ADMIN and not found.tenant:
            reader.missing(where, "tenant", "missing; a tenant-admin is one tenant's")
        elif found.role is not ApiRole.TENANT_ADMIN and found.tenant:
            reader.problem(where, "tenant", f"is only for the role tenant-admin, not {found.role.value}")
        if found.hash in owners:
            reader.problem(where, "hash", f"is also that of [{dotted(TABLE, owners[found.hash])}]")
        owners[found.hash] = name
        tokens[name] = found
    return MappingProxyType(tokens)


def check_http(reader: Reader, process: ProcessSettings) -> ProcessSettings:
    """With the names of its files made absolute. Tokens do not cross a network in the clear unless that is wanted."""
    files = {key: getattr(process, key) for key in ("http_tls_cert_file", "http_tls_key_file")}
    for key, name in files.items():
        if name:
            files[key] = reader.absolute(name)
            if not os.access(files[key], os.R_OK):
                reader.problem("proxy", key, f'"{files[key]}" is not there or cannot be read')
    for have, need in (tuple(files), tuple(files)[::-1]):
        if files[have] and not files[need]:
            reader.missing("proxy", need, f"missing; {have} needs it")
    try:
        http = process.http
    except ValueError:
        reader.problem(
            "proxy", "http_addr", f'must be {addresses.EXAMPLE}, or empty for none, not "{process.http_addr}"'
        )
        return process
    if http is not None and not (_loopback(http[0]) or process.http_insecure or all(files.values())):
        reader.problem(
            "proxy",
            "http_addr",
            f'"{process.http_addr}" can be reached from elsewhere: give http_tls_cert_file and http_tls_key_file, '
            "or say http_insecure = true",
        )
    return replace(process, **files)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
