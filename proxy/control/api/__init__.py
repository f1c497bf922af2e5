"""The HTTP face: metrics and health, on the data plane's own loop."""

from proxy.control.api.server import Http

__all__ = ["Http"]
