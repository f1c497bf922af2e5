"""`tiergate token new`: a token for the HTTP API, and what the configuration keeps of it."""

from __future__ import annotations

import json

import typer

from proxy.auth import token
from proxy.cli.problems import complain
from proxy.errors import ConfigError
from proxy.model import ApiRole
from proxy.settings.reader import dotted, shown


def run_new(name: str, role: str, tenant: str, *, as_json: bool) -> int:
    """The token goes to standard output, alone; the table for the file, without it, to standard error.

    As JSON it is one object, of the token and the keys of its table.
    """
    known = [kind.value for kind in ApiRole]
    if role not in known:
        complain(ConfigError(f'--role must be one of {", ".join(known)}, not "{role}"'))
        return 2
    if (role == ApiRole.TENANT_ADMIN.value) != bool(tenant):
        complain(ConfigError("--tenant is for the role tenant-admin, which needs it"))
        return 2
    made = token.new()
    if as_json:
        keys = {"hash": token.hashed(made), "role": role} | ({"tenant": tenant} if tenant else {})
        typer.echo(json.dumps({"token": made, "name": name, **keys}))
        return 0
    table = [f"[{dotted('api_token', name)}]", f'hash = "{token.hashed(made)}"', f'role = "{role}"']
    if tenant:
        table.append(f"tenant = {shown(tenant)}")
    typer.echo("\n".join(table), err=True)
    typer.echo(made)
    return 0
