"""The HTTP face: metrics, health and the management API, on the loop of the process that hosts it."""

from proxy.control.api.desk import Desk
from proxy.control.api.server import Companion, Http, listening

__all__ = ["Companion", "Desk", "Http", "listening"]
