"""The console's language: one statement to rows or a command tag.

Words are case-insensitive, names may be quoted. SHOW is for all who may open the console, the rest for
administrators.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from proxy import BUILD
from proxy.control import views
from proxy.control.fleet import Control, Result
from proxy.control.views import View
from proxy.errors import ClientError

HELP = (
    "SHOW VERSION|CONFIG|POOLS|CLIENTS|SERVERS|SOCKETS|ACTIVE_SOCKETS|DATABASES|USERS|LISTS|PEERS|STATE",
    "SHOW STATS|STATS_TOTALS|STATS_AVERAGES|TOTALS|TENANTS|TIERS|CLUSTERS",
    "SHOW WORKERS|REGISTRY|QUEUE|CONCURRENCY|FLEET|SHARES",
    "SHOW ROUTE tenant [USER user] [DATABASE database]",
    "SHOW HELP",
    "SET key = value",
    "RELOAD",
    "PAUSE [cluster]",
    "RESUME [cluster]",
    "RECONNECT [cluster]",
    "WAIT_CLOSE [cluster]",
    "DISABLE [TENANT|CLUSTER] name",
    "ENABLE [TENANT|CLUSTER] name",
    "KILL [[TENANT|CLUSTER] name]",
    "KILL CLIENT ptr (also KILL_CLIENT)",
    "UPGRADE",
    "SHUTDOWN [WAIT_FOR_CLIENTS|WAIT_FOR_SERVERS]",
)
_WORD = re.compile(r"""\s*(?:"((?:[^"]|"")*)"|'((?:[^']|'')*)'|(=)|([^\s;='"]+))""")

_KINDS = ("tenant", "cluster")


class CommandSyntax(ClientError):
    sqlstate = "42601"


class MayOnlyShow(ClientError):
    sqlstate = "42501"


class Answer(NamedTuple):
    """`view` is None for a command that gives no rows; `notices` are said before the tag."""

    tag: str
    view: View | None = None
    notices: tuple[str, ...] = ()


def words(statement: str) -> list[str]:
    found, at = [], 0
    statement = statement.strip()
    while at < len(statement):
        match = _WORD.match(statement, at)
        if match is None:
            raise CommandSyntax(f"invalid command '{statement}', use SHOW HELP;")
        quoted, literal, equals, bare = match.groups()
        if quoted is not None:
            found.append(quoted.replace('""', '"'))
        elif literal is not None:
            found.append(literal.replace("''", "'"))
        else:
            found.append(equals or bare)
        at = match.end()
    return found


def told(statement: str) -> str:
    """What the log says of a command that has been done: all of it, but that a value which is SET may be a secret."""
    parts = words(statement)
    return " ".join(parts[:2] if parts[0].lower() == "set" else parts)


def split(text: str) -> list[str]:
    """The statements of a text: what stands between semicolons that are not in quotes."""
    parts = re.findall(r"""(?:"(?:[^"]|"")*"|'(?:[^']|'')*'|[^;"']|["'])+""", text)
    return [part.strip() for part in parts if part.strip()]


async def execute(control: Control, statement: str, *, may_write: bool, as_pgbouncer: bool = False) -> Answer:
    """`as_pgbouncer`: rows are by PgBouncer's keys."""
    parts = words(statement)
    verb, rest = parts[0].lower(), parts[1:]
    if verb == "show":
        return await show(control, rest, as_pgbouncer=as_pgbouncer)
    if not may_write:
        raise MayOnlyShow("only administrators may do that")
    name = rest[0] if rest else ""
    match verb, len(rest):
        case "reload", 0:
            return Answer("RELOAD", notices=_notices(await control.act("reload"), of_keys=True))
        case "pause" | "resume", 0 | 1:
            await control.act(verb, name or "*")
            return Answer(verb.upper())
        case "reconnect", 0 | 1:
            await control.act(verb, name)
            return Answer("RECONNECT")
        case "wait_close", 0 | 1:
            await control.act(verb, name)
            return Answer("WAIT_CLOSE")
        case "disable" | "enable" | "kill", 1 | 2 if len(rest) == 1 or name.lower() in _KINDS:
            kind = [word.lower() for word in rest[:-1]]
            await control.act(verb, rest[-1], *kind)
            return Answer(verb.upper())
        case "kill", 0:
            await control.act("kill", "*")
            return Answer("KILL")
        case "kill_client", 1:
            await control.act("kill_client", name)
            return Answer("KILL_CLIENT")
        case "kill", 2 if name.lower() == "client":
            await control.act("kill_client", rest[1])
            return Answer("KILL CLIENT")
        case "upgrade", 0:
            await control.act("upgrade")
            return Answer("UPGRADE")
        case "shutdown", 0 | 1 if not rest or name.lower() in ("wait_for_clients", "wait_for_servers"):
            await control.act("shutdown", *(("wait",) if rest else ()))
            return Answer("SHUTDOWN")
        case "set", n if n >= 2:
            value = [word for word in rest[1:] if word != "=" and word.lower() != "to"]
            if len(value) == 1:
                taken = await control.act("set", name, value[0])
                return Answer("SET", notices=_notices(taken, of_keys=False))
    raise CommandSyntax(f"invalid command '{statement}', use SHOW HELP;")


def _notices(taken: Result, *, of_keys: bool) -> tuple[str, ...]:
    """`of_keys`: also of those that need a restart."""
    if not isinstance(taken, dict):
        return ()
    said = []
    if taken["needs_restart"] and of_keys:
        said.append(f"a restart is needed for: {', '.join(taken['needs_restart'])}")
    if taken["without"]:
        workers = ", ".join(map(str, taken["without"]))
        said.append(
            f"not answered yet by worker: {workers}; what hangs takes it up when it goes on, or is replaced"
        )
    return tuple(said)


async def show(control: Control, rest: list[str], *, as_pgbouncer: bool) -> Answer:
    name = rest[0].lower() if rest else ""
    if name == "help":
        return Answer("SHOW", View(("command",), [(line,) for line in HELP]))
    if name == "version":
        return Answer("SHOW", View(("version",), [(f"Tiergate {control.version} ({BUILD})",)]))
    if name == "route":
        return Answer("SHOW", await control.view("route", *_route(rest[1:])))
    if as_pgbouncer and name in views.AS_PGBOUNCER:
        name = views.PGBOUNCER + name
    if name not in views.NAMES or len(rest) > 1:
        raise CommandSyntax(f"invalid command 'SHOW {' '.join(rest)}', use SHOW HELP;")
    return Answer("SHOW", await control.view(name))


def _route(rest: list[str]) -> tuple[str, str, str]:
    """Tenant, user and database of SHOW ROUTE."""
    if rest[:1] and rest[0].lower() == "for":
        rest = rest[1:]
    options = dict(zip([word.lower() for word in rest[1::2]], rest[2::2], strict=False))
    if len(rest) % 2 == 0 or options.keys() - {"user", "database"}:
        raise CommandSyntax("SHOW ROUTE tenant [USER user] [DATABASE database]")
    return rest[0], options.get("user", ""), options.get("database", "")
