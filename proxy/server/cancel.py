"""Cancels what a server connection runs, over a connection made for it."""

from __future__ import annotations

from proxy.model import Endpoint
from proxy.net.tls import ServerTls
from proxy.server.login import say_and_wait
from proxy.wire import encode


async def cancel(endpoint: Endpoint, pid: int, key: bytes, tls: ServerTls, timeout: float) -> None:
    """Returns when the server has hung up, so when the signal has been sent. Raises ServerLost."""
    await say_and_wait(endpoint, tls, encode.cancel_request(pid, key), timeout or None)
