"""TOML and environment to frozen values; the only reader of configuration."""

from proxy.settings.describe import describe, restart_needed
from proxy.settings.loading import digest, load, parse, read
from proxy.settings.options import ProcessSettings, Settings, TlsSettings
from proxy.settings.values import duration, format_duration

__all__ = [
    "ProcessSettings",
    "Settings",
    "TlsSettings",
    "describe",
    "digest",
    "duration",
    "format_duration",
    "load",
    "parse",
    "read",
    "restart_needed",
]
