"""host[:port] as people write it: names, IPv4, IPv6 with or without brackets, directories of unix sockets."""

from __future__ import annotations

DEFAULT_PORT = 5432
EXAMPLE = 'a host such as "pg1", "pg1:5433", "[::1]:5433" or "/run/postgresql"'


def parse(text: str, default_port: int = DEFAULT_PORT) -> tuple[str, int]:
    """Raise ValueError where `text` is no address. An IPv6 address without brackets has no port."""
    text = text.strip()
    if text.startswith("["):
        host, closing, rest = text[1:].partition("]")
        if not closing or ":" not in host or (rest and not rest.startswith(":")):
            raise ValueError
        return host, _port(rest[1:]) if rest else default_port
    host, colon, port = text.rpartition(":")
    if text.startswith("/"):
        if colon and port.isascii() and port.isdigit():
            return host, _port(port)
        return text, default_port
    if colon and ":" in host:
        host, colon = text, ""
    elif not colon:
        host = text
    if not host or any(c.isspace() or c in "/[]," for c in host):
        raise ValueError
    return host, _port(port) if colon else default_port


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 0 < int(text) < 65536:
        raise ValueError(f'port "{text}" is not a number from 1 to 65535')
    return int(text)
