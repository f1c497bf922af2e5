"""`tiergate sql`: brings the SQL kit to a database, stores and rotates the keys of its seals, says what is there.

The statements run on a connection of their own, as a role that is not the applications' (see the kit). Values are
bound, and where the role may, the server's log is told not to write them down.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import typer

from proxy import settings
from proxy.cli import registry_sql
from proxy.cli.problems import complain
from proxy.errors import ConfigError, TiergateError
from proxy.model import Cluster, Endpoint, Role, SealKey, ServerOptions, TlsOptions
from proxy.net.stream import LoginStream
from proxy.net.tls import ServerTls, server_tls
from proxy.routing import addresses
from proxy.server.asking import Row, ask, run
from proxy.server.login import connect
from proxy.settings import seals

_PARAMETERS = {
    "application_name": "tiergate sql", "client_encoding": "UTF8", "search_path": "pg_catalog, pg_temp",
}  # fmt: skip
_QUIET = ("log_statement", "none"), ("log_min_duration_statement", "-1"), ("log_parameter_max_length", "0")
_WHO_READS_KEYS = """
SELECT r.rolname FROM pg_catalog.pg_roles AS r
WHERE r.rolcanlogin AND NOT r.rolsuper
  AND r.oid <> (SELECT c.relowner FROM pg_catalog.pg_class AS c WHERE c.oid = 'tiergate.seal_key'::regclass)
  AND pg_catalog.has_table_privilege(r.oid, 'tiergate.seal_key', 'SELECT') ORDER BY 1
"""
_POLICIES = """
SELECT p.schemaname || '.' || p.tablename || ': ' || p.policyname FROM pg_catalog.pg_policies AS p
WHERE pg_catalog.strpos(pg_catalog.concat(p.qual, ' ', p.with_check), $1) > 0 ORDER BY 1
"""
_KEYS = """
SELECT k.id, pg_catalog.to_char(k.created_at, 'YYYY-MM-DD HH24:MI'),
       CASE WHEN k.retired_at <= pg_catalog.now() THEN 'retired'
            WHEN k.retired_at IS NOT NULL THEN 'until ' || pg_catalog.to_char(k.retired_at, 'YYYY-MM-DD HH24:MI')
            ELSE 'good' END
FROM tiergate.seal_key AS k ORDER BY k.created_at, k.id
"""


@dataclass(frozen=True)
class Where:
    """What is asked for on the command line: a cluster of a configuration, a DSN, or both (keys of the one, login
    of the other)."""

    config: Path | None = None
    cluster: str = ""
    dsn: str = ""
    user: str = ""
    database: str = ""
    registry: bool = False  # the tenant registry, not the kit
    json: bool = False


@dataclass(frozen=True)
class Target:
    endpoints: tuple[Endpoint, ...]
    user: str
    password: str
    database: str
    tls: ServerTls
    options: ServerOptions
    cluster: Cluster | None
    tenant_guc: str

    @property
    def keys(self) -> tuple[SealKey, ...]:
        return self.cluster.seal.keys if self.cluster is not None and self.cluster.seal is not None else ()

    @property
    def keys_file(self) -> str:
        return (
            self.cluster.seal.keys_file if self.cluster is not None and self.cluster.seal is not None else ""
        )

    @property
    def grace(self) -> float:
        """How long a key that is no longer configured stays good: seals live no longer."""
        return self.options.seal_lifetime


Work = Callable[[LoginStream, Target], Coroutine[Any, Any, list[str]]]


def scripts(kit: str = "kit") -> dict[int, str]:
    """The kit's files by version; those of the registry are `registry_kit`."""
    found = {}
    for file in files("proxy.cli").joinpath(kit).iterdir():
        if match := re.fullmatch(r"(\d+)_\w+\.sql", file.name):
            found[int(match[1])] = file.read_text()
    return dict(sorted(found.items()))


def run_install(where: Where) -> int:
    return _everywhere(where, _on_registry(registry_sql.install) if where.registry else _install, named=True)


def run_upgrade(where: Where) -> int:
    return _everywhere(
        where, _on_registry(registry_sql.upgrade) if where.registry else _upgrade, named=where.registry
    )


def run_status(where: Where) -> int:
    return _everywhere(
        where, _on_registry(registry_sql.status) if where.registry else _status, named=where.registry
    )


def _on_registry(work: Callable[[LoginStream, dict[int, str]], Coroutine[Any, Any, list[str]]]) -> Work:
    async def on(stream: LoginStream, _: Target) -> list[str]:
        return await work(stream, scripts("registry_kit"))

    return on


def run_rotate(where: Where, *, at_once: bool) -> int:
    """In all databases that have the kit. A file of keys gets a new one, which signs after the next reload; keys
    in the configuration's text are the operator's to change, and are stored as they are."""
    try:
        target = replace(_target(where), database="")
        if not target.keys:
            raise ConfigError(f'cluster "{where.cluster}" has neither seal_keys nor seal_keys_file')
        if not target.keys_file:
            return _on_all(target, _rotation(target.keys, at_once))
        fresh = SealKey(time.strftime("%Y%m%d-") + secrets.token_hex(3), secrets.token_urlsafe(32))
        kept = (target.keys[-1], fresh)
        failed = _on_all(target, _rotation(kept, at_once))
        if failed:
            return failed  # a server without the key would refuse what it signs
        _write(target.keys_file, kept)
    except ConfigError as error:
        complain(error)
        return 1
    typer.echo(f"{target.keys_file}: key {fresh.id} signs after the next reload (SIGHUP)")
    return 0


def _write(path: str, keys: tuple[SealKey, ...]) -> None:
    """At once or not at all, and readable for nobody who could not read it before."""
    beside = f"{path}.new"
    try:
        old = os.stat(path)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            with contextlib.suppress(PermissionError):
                os.fchown(descriptor, old.st_uid, old.st_gid)
            os.fchmod(descriptor, old.st_mode & 0o777)
            file.write(seals.format_keys(keys))
        os.replace(beside, path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None


# --- where ------------------------------------------------------------------------------------------


def _everywhere(where: Where, work: Work, *, named: bool = False) -> int:
    try:
        target = _target(where)
        if named and not target.database:
            what = "the registry's" if where.registry else "the kit is installed in each database of its own"
            raise ConfigError(f"say --database: {what}")
        return _on_all(target, work, as_json=where.json)
    except ConfigError as error:
        complain(error)
        return 1


def _on_all(target: Target, work: Work, *, as_json: bool = False) -> int:
    """As JSON what each database says, and what went wrong, stand in one list."""
    found = asyncio.run(_each(target, work))
    for one in found if not as_json else ():
        for line in one["said"]:
            typer.echo(f"{one['at']}: {line}")
        if one["error"] is not None:
            typer.echo(f"tiergate: {one['at']}: {one['error']}", err=True)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    return int(any(one["error"] is not None for one in found))


async def _each(target: Target, work: Work) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for endpoint in target.endpoints:
        at = f"{endpoint}"
        try:
            for database in await _databases(endpoint, target):
                at = f"{endpoint}/{database}"
                async with _connected(endpoint, target, database) as stream:
                    said = await work(stream, target)
                found.append({"at": at, "said": said, "error": None})
        except (TiergateError, OSError) as error:
            reason = error.message if isinstance(error, TiergateError) else str(error)
            found.append({"at": at, "said": [], "error": reason})
    return found


async def _databases(endpoint: Endpoint, target: Target) -> list[str]:
    """The one that is asked for, or all that have the kit."""
    if target.database:
        return [target.database]
    found = []
    async with _connected(endpoint, target, "postgres") as stream:
        rows = await ask(
            stream, "SELECT d.datname FROM pg_catalog.pg_database AS d WHERE d.datallowconn ORDER BY 1"
        )
    for row in rows:
        name = row[0] or ""
        async with _connected(endpoint, target, name) as stream:
            if await _version(stream):
                found.append(name)
    if not found:
        raise ConfigError("no database has the kit; tiergate sql install")
    return found


@contextlib.asynccontextmanager
async def _connected(endpoint: Endpoint, target: Target, database: str) -> AsyncIterator[LoginStream]:
    done = await connect(
        endpoint, database=database, user=target.user, password=target.password, options=target.options,
        tls=target.tls, parameters=_PARAMETERS,
    )  # fmt: skip
    try:
        if done.parameters.get("is_superuser") == "on":
            for name, value in _QUIET:
                await ask(done.stream, "SELECT pg_catalog.set_config($1, $2, false)", name, value)
        yield done.stream
    finally:
        await done.stream.close()


def _target(where: Where) -> Target:
    """Raises ConfigError."""
    options, tls, cluster, guc = ServerOptions(), TlsOptions("prefer"), None, "app.tenant_id"
    dsn = where.dsn
    if where.config is not None:
        loaded = settings.load(str(where.config))
        options, tls, guc = loaded.server, loaded.tls.side("server"), loaded.client.tenant_guc
        cluster = loaded.directory.clusters.get(where.cluster)
        if where.registry:
            dsn = dsn or loaded.process.registry_dsn
            if not dsn:
                raise ConfigError(f"{where.config}: there is no registry_dsn; say --dsn")
        elif cluster is None:
            raise ConfigError(f'{where.config}: no cluster is called "{where.cluster}"')
    elif not dsn:
        raise ConfigError("say --config FILE and --cluster NAME, or --dsn")
    endpoints = cluster.with_role(Role.PRIMARY, Role.COORDINATOR) if cluster is not None else ()
    user = where.user or os.environ.get("PGUSER", "postgres")
    password = os.environ.get("PGPASSWORD", "")
    database = where.database or (cluster.dbname if cluster is not None else "")
    if dsn:
        host, user, password, database = _dsn(dsn, user, password, database)
        endpoints = (Endpoint(*host, Role.PRIMARY),)
    return Target(endpoints, user, password, database, server_tls(tls), options, cluster, guc)


def _dsn(text: str, user: str, password: str, database: str) -> tuple[tuple[str, int], str, str, str]:
    """`postgresql://user:password@host:port/database`; what it does not say is as before."""
    try:
        found = urlsplit(text)
        if found.scheme not in ("postgresql", "postgres"):
            raise ValueError
        host = (unquote(found.hostname or "127.0.0.1"), found.port or addresses.DEFAULT_PORT)
    except ValueError:
        raise ConfigError("the DSN must be postgresql://user:password@host:port/database") from None
    return (
        host,
        unquote(found.username or user),
        unquote(found.password or password),
        unquote(found.path.removeprefix("/")) or database,
    )


# --- what is done -----------------------------------------------------------------------------------


async def _version(stream: LoginStream) -> int:
    """0 where there is no kit."""
    ((there,),) = await ask(stream, "SELECT pg_catalog.to_regprocedure('tiergate.version()') IS NOT NULL")
    if there != "t":
        return 0
    ((version,),) = await ask(stream, "SELECT tiergate.version()")
    return int(version or 0)


async def _install(stream: LoginStream, target: Target) -> list[str]:
    before = await _version(stream)
    if before > (newest := max(scripts())):
        raise ConfigError(
            f"kit {before} is newer than this program, which knows {newest}: nothing is changed"
        )
    for script in scripts().values():  # those of before too: they are harmless, and repair what was changed
        await run(stream, script)
    await ask(stream, "SELECT tiergate.set_tenant_guc($1)", target.tenant_guc)
    for key in target.keys:
        await ask(stream, "SELECT tiergate.store_key($1, $2)", key.id, key.secret)
    said = [f"kit {await _version(stream)} installed" if not before else f"kit {before} is now {newest}"]
    said += await _on_workers(stream)
    return said + await _warnings(stream, target)


async def _upgrade(stream: LoginStream, target: Target) -> list[str]:
    if not await _version(stream):
        raise ConfigError("there is no kit; tiergate sql install")
    return await _install(stream, target)


async def _status(stream: LoginStream, target: Target) -> list[str]:
    version = await _version(stream)
    if not version:
        raise ConfigError("there is no kit; tiergate sql install")
    newest = max(scripts())
    said = [
        f"kit {version}"
        + (f", of which {newest} is the newest: tiergate sql upgrade" if version < newest else "")
    ]
    stored = await ask(stream, _KEYS)
    said += [f"key {name}: {state}, stored {since}" for name, since, state in stored]
    good = {name for name, _, state in stored if state != "retired"}
    said += [f"key {key.id}: configured, NOT stored" for key in target.keys if key.id not in good]
    said += [f"policy {row[0]}" for row in await ask(stream, _POLICIES, "tiergate.current_tenant()")]
    return said + await _warnings(stream, target)


def _rotation(keys: tuple[SealKey, ...], at_once: bool) -> Work:
    async def work(stream: LoginStream, target: Target) -> list[str]:
        for key in keys:
            await ask(stream, "SELECT tiergate.store_key($1, $2)", key.id, key.secret)
        retired = await ask(
            stream,
            "UPDATE tiergate.seal_key AS k SET retired_at = pg_catalog.now() + $1::pg_catalog.interval"
            " WHERE k.id <> ALL (pg_catalog.string_to_array($2, ',')) AND k.retired_at IS NULL RETURNING k.id",
            "0 seconds" if at_once else f"{target.grace} seconds",
            ",".join(key.id for key in keys),
        )
        when = "now" if at_once else f"in {settings.format_duration(target.grace)}"
        return [f"key {key.id} is stored" for key in keys] + [
            f"key {row[0]} retires {when}" for row in retired
        ]

    return work


async def _warnings(stream: LoginStream, target: Target) -> list[str]:
    said = [f"WARNING: role {row[0]} can read the keys" for row in await ask(stream, _WHO_READS_KEYS)]
    unsealed = await ask(stream, _POLICIES, f"current_setting('{target.tenant_guc}'")
    return said + [f"WARNING: policy {row[0]} asks the parameter, not its seal" for row in unsealed]


async def _on_workers(stream: LoginStream) -> list[str]:
    """Citus: what a policy on a distributed table calls must be there on every node. The keys are not brought
    there: a worker's backend is not the one that the proxy has sealed, and would refuse the seal in any case."""
    rows: list[Row] = await ask(
        stream, "SELECT 1 FROM pg_catalog.pg_extension AS e WHERE e.extname = 'citus'"
    )
    if not rows:
        return []
    failed: list[str] = []
    for script in scripts().values():
        answers = await ask(
            stream, "SELECT nodename, success, result FROM pg_catalog.run_command_on_workers($1)", script
        )
        failed += [f"WARNING: worker {node}: {result}" for node, success, result in answers if success != "t"]
    return failed or ["kit installed on the Citus workers"]
