"""The HTTP face: metrics and health, on the loop of the process that hosts it."""

from proxy.control.api.server import Http, listening

__all__ = ["Http", "listening"]
