"""The SQL face: database "tiergate" (also "pgbouncer"), for administrators and their tools."""

from proxy.control.console.conversation import Console, open_console

__all__ = ["Console", "open_console"]
