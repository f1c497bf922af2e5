"""What the shell may complete besides commands and options: words that are always the same, and the tenants of the proxy
that the environment or the options name. A proxy that does not answer at once has none."""

from __future__ import annotations

from collections.abc import Callable

import typer

from proxy.model import ApiRole

_WAIT = 1.0  # seconds
_SHOWN = 100
_TIERS = ("enterprise", "vip", "standard", "free")
_STATES = ("active", "suspended", "expired")
_QUOTAS = (
    "max_connections", "min_connections", "max_qps", "max_storage_gb", "query_timeout_ms", "cpu_quota_percentage",
    "memory_quota_gb",
)  # fmt: skip

Complete = Callable[[str], list[str]]


def _of(*words: str) -> Complete:
    def complete(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete


tiers = _of(*_TIERS)
states = _of(*_STATES)
roles = _of(*(role.value for role in ApiRole))
quotas = _of(*(f"{quota}=" for quota in _QUOTAS))


def tenants(ctx: typer.Context, incomplete: str) -> list[str]:
    """By their names. The API lists them in their order, so those that begin so are the first behind it."""
    from proxy.cli.options import URL
    from proxy.cli.remote import Api, Refused, Unreachable

    said = ctx.params
    api = Api(said.get("url") or URL, said.get("token") or "", said.get("ca_file") or "", _WAIT)
    try:
        found = api.get("/v1/tenants", cursor=incomplete, limit=_SHOWN)["items"]
    except (Refused, Unreachable):
        return []
    return [code for tenant in found if (code := str(tenant["tenant_code"])).startswith(incomplete)]
