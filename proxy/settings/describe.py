"""The settings as rows of text, for SHOW CONFIG."""

from __future__ import annotations

from dataclasses import fields
from enum import Enum

from proxy.model import ClientOptions, ServerOptions, TcpOptions
from proxy.settings import values
from proxy.settings.keys import PROXY, Home
from proxy.settings.loading import DEFAULT_LIMITS
from proxy.settings.options import ProcessSettings, Settings, TlsSettings


def describe(settings: Settings) -> list[tuple[str, str, str, str]]:
    """(key, value, default, changeable) of every key of [proxy], as PgBouncer has them; secrets hidden."""
    now: dict[Home, object] = {
        "process": settings.process,
        "server": settings.server,
        "client": settings.client,
        "limits": settings.client.limits,
        "tls": settings.tls,
        "tcp": settings.client.tcp,
    }
    usual: dict[Home, object] = {
        "process": ProcessSettings(),
        "server": ServerOptions(),
        "client": ClientOptions(),
        "limits": DEFAULT_LIMITS,
        "tls": TlsSettings(),
        "tcp": TcpOptions(),
    }
    return [
        (
            key,
            _text(key, getattr(now[row.home], key)),
            _text(key, getattr(usual[row.home], key)),
            "yes" if row.changeable else "no",
        )
        for key, row in sorted(PROXY.items())
    ]


def _text(key: str, value: object) -> str:
    kind = PROXY[key].kind
    if kind.secret:
        return "********" if value else ""
    if kind is values.DURATION and isinstance(value, int | float):
        return values.format_duration(value)
    if kind is values.SOCKET_MODE and isinstance(value, int):
        return f"{value:04o}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, tuple):
        return ", ".join(value)
    if isinstance(value, frozenset):
        return ", ".join(sorted(value))
    return str(value)


def restart_needed(old: Settings, new: Settings) -> list[str]:
    """The keys that a reload found changed and cannot apply."""
    return [
        row.name
        for row in fields(ProcessSettings)
        if not PROXY[row.name].changeable and getattr(old.process, row.name) != getattr(new.process, row.name)
    ]
