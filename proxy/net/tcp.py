"""What TCP is told of each connection: to send at once, and to find out that a peer has vanished without a word."""

from __future__ import annotations

import socket
from functools import cache

from proxy.model import TcpOptions


def tune(sock: socket.socket, options: TcpOptions) -> None:
    """A socket of TCP; of one that listens, those that are accepted from now on."""
    tcp = socket.IPPROTO_TCP
    sock.setsockopt(tcp, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(options.tcp_keepalive))
    for option, value in (
        (socket.TCP_KEEPIDLE, options.tcp_keepidle),
        (socket.TCP_KEEPINTVL, options.tcp_keepintvl),
        (socket.TCP_KEEPCNT, options.tcp_keepcnt),
    ):
        sock.setsockopt(tcp, option, max(1, round(value)) if value else _kernels(option))
    sock.setsockopt(tcp, socket.TCP_USER_TIMEOUT, round(options.tcp_user_timeout * 1000))


@cache
def _kernels(option: int) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as fresh:
        return fresh.getsockopt(socket.IPPROTO_TCP, option)
