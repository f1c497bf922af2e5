"""The console's language: one statement to rows or a command tag.

Words are case-insensitive, names may be quoted. SHOW is for all who may open the console, the rest for
administrators.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from proxy.client.plane import Plane
from proxy.control import actions, views
from proxy.control.actions import Operations
from proxy.control.views import Value, View
from proxy.errors import ClientError

HELP = (
    "SHOW VERSION|CONFIG|POOLS|CLIENTS|SERVERS|SOCKETS|ACTIVE_SOCKETS|DATABASES|USERS|LISTS|STATE",
    "SHOW STATS|STATS_TOTALS|STATS_AVERAGES|TOTALS|TENANTS|TIERS|CLUSTERS",
    "SHOW ROUTE tenant [USER user] [DATABASE database]",
    "SHOW HELP",
    "SET key = value",
    "RELOAD",
    "PAUSE [cluster]",
    "RESUME [cluster]",
    "RECONNECT [cluster]",
    "DISABLE [TENANT|CLUSTER] name",
    "ENABLE [TENANT|CLUSTER] name",
    "KILL [[TENANT|CLUSTER] name]",
    "KILL CLIENT ptr (also KILL_CLIENT)",
    "SHUTDOWN [WAIT_FOR_CLIENTS]",
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


def split(text: str) -> list[str]:
    """The statements of a text: what stands between semicolons that are not in quotes."""
    parts = re.findall(r"""(?:"(?:[^"]|"")*"|'(?:[^']|'')*'|[^;"']|["'])+""", text)
    return [part.strip() for part in parts if part.strip()]


async def execute(
    plane: Plane, operations: Operations, statement: str, *, may_write: bool, as_pgbouncer: bool = False
) -> Answer:
    """`as_pgbouncer`: rows are by PgBouncer's keys."""
    parts = words(statement)
    verb, rest = parts[0].lower(), parts[1:]
    if verb == "show":
        return show(plane, operations, rest, as_pgbouncer=as_pgbouncer)
    if not may_write:
        raise MayOnlyShow("only administrators may do that")
    name = rest[0] if rest else ""
    match verb, len(rest):
        case "reload", 0:
            needing = operations.reload()
            notices = (f"a restart is needed for: {', '.join(needing)}",) if needing else ()
            return Answer("RELOAD", notices=notices)
        case "pause", 0 | 1:
            await actions.pause(plane, name or "*")
            return Answer("PAUSE")
        case "resume", 0 | 1:
            actions.resume(plane, name or "*")
            return Answer("RESUME")
        case "reconnect", 0 | 1:
            actions.reconnect(plane, name)
            return Answer("RECONNECT")
        case "disable", 1 | 2 if len(rest) == 1 or name.lower() in _KINDS:
            actions.disable(plane, rest[-1], *_kind(rest))
            return Answer("DISABLE")
        case "enable", 1 | 2 if len(rest) == 1 or name.lower() in _KINDS:
            actions.enable(plane, rest[-1], *_kind(rest))
            return Answer("ENABLE")
        case "kill", 0:
            actions.kill(plane, "*")
            return Answer("KILL")
        case "kill", 1 | 2 if len(rest) == 1 or name.lower() in _KINDS:
            actions.kill(plane, rest[-1], *_kind(rest))
            return Answer("KILL")
        case "kill_client", 1:
            actions.kill_client(plane, name)
            return Answer("KILL_CLIENT")
        case "kill", 2 if name.lower() == "client":
            actions.kill_client(plane, rest[1])
            return Answer("KILL CLIENT")
        case "shutdown", 0 | 1 if not rest or name.lower() in ("wait_for_clients", "wait_for_servers"):
            operations.shutdown(wait=bool(rest))
            return Answer("SHUTDOWN")
        case "set", n if n >= 2:
            value = [word for word in rest[1:] if word != "=" and word.lower() != "to"]
            if len(value) == 1:
                operations.set(name, value[0])
                return Answer("SET")
    raise CommandSyntax(f"invalid command '{statement}', use SHOW HELP;")


def _kind(rest: list[str]) -> list[str]:
    """What stands before the name: nothing, or which kind of thing it names."""
    return [word.lower() for word in rest[:-1]]


def show(plane: Plane, operations: Operations, rest: list[str], *, as_pgbouncer: bool) -> Answer:
    name = rest[0].lower() if rest else ""
    if name == "help":
        return Answer("SHOW", View(("command",), [(line,) for line in HELP]))
    if name == "version":
        return Answer("SHOW", View(("version",), [(f"Tiergate {operations.version} (interpreted)",)]))
    if name == "config":
        rows: list[tuple[Value, ...]] = [tuple(row) for row in operations.config_rows()]
        return Answer("SHOW", View(("key", "value", "default", "changeable"), rows))
    if name == "route":
        return Answer("SHOW", _route(plane, rest[1:]))
    view = (views.AS_PGBOUNCER if as_pgbouncer else {}).get(name) or views.VIEWS.get(name)
    if view is None or len(rest) > 1:
        raise CommandSyntax(f"invalid command 'SHOW {' '.join(rest)}', use SHOW HELP;")
    return Answer("SHOW", view(plane))


def _route(plane: Plane, rest: list[str]) -> View:
    if rest[:1] and rest[0].lower() == "for":
        rest = rest[1:]
    options = dict(zip([word.lower() for word in rest[1::2]], rest[2::2], strict=False))
    if len(rest) % 2 == 0 or options.keys() - {"user", "database"}:
        raise CommandSyntax("SHOW ROUTE tenant [USER user] [DATABASE database]")
    return views.route(plane, rest[0], options.get("user", ""), options.get("database", ""))
