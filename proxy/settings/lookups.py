"""Who asks a cluster about roles that the configuration does not know, and with what query."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from proxy.model import Cluster, ClusterKind, ServerOptions
from proxy.settings import passwords
from proxy.settings.reader import Reader

_ASKS_WHO = re.compile(r"\$1(?!\d)")
_ASKS_WHOSE = re.compile(r"\$2(?!\d)")


def read_auth(
    reader: Reader, said: dict[str, Any], where: str, cluster: Cluster, options: ServerOptions
) -> Cluster:
    """The cluster with its own keys, else those of [proxy]."""
    user: str = said.get("auth_user", options.auth_user)
    password = reader.secret(said, "auth_password", where)
    if not password and user == options.auth_user:
        password = options.auth_password
    query: str = said.get("auth_query", options.auth_query)
    if said.get("auth_query") and not user:
        reader.missing(where, "auth_user", "missing; auth_query needs it")
    _check(reader, where, query if "auth_query" in said else "", said.get("auth_password", ""))
    if (
        "auth_query" in said
        and query
        and cluster.kind is not ClusterKind.DEDICATED
        and not _ASKS_WHOSE.search(query)
    ):
        reader.problem(
            where, "auth_query", "must ask whose a role is, the tenant $2: several live on such a cluster"
        )
    database: str = said.get("auth_dbname", options.auth_dbname)
    return replace(cluster, auth_user=user, auth_password=password, auth_query=query, auth_dbname=database)


def check_auth(reader: Reader, options: ServerOptions) -> None:
    """Those of [proxy]."""
    if options.auth_query and not options.auth_user:
        reader.missing("proxy", "auth_user", "missing; auth_query needs it")
    _check(reader, "proxy", options.auth_query, options.auth_password)


def _check(reader: Reader, where: str, query: str, password: str) -> None:
    if query and not _ASKS_WHO.search(query):
        reader.problem(where, "auth_query", "must ask for the user $1")
    wrong = passwords.malformed(password) or passwords.useless_for_server(password)
    if wrong:
        reader.problem(where, "auth_password", wrong)
