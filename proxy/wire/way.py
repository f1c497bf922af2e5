"""The way to a client that a cancel request is for: which proxy of a fleet, and which of its workers, serves it.

A CancelRequest comes on a connection of its own, so it may land in any worker and, behind a load balancer, on any
host. The process id that a client is told is ours to choose in transaction mode, and holds the way: a mark, the id of
the proxy, the number of the worker (its last eight bits), and fourteen random bits. Where it is the server's own
(session mode, replication) it has no room for that; a secret of 32 bytes (protocol 3.2) then begins with such a word,
and of the rest 28 bytes are random. With a secret of four bytes all are random, and there is no way: such a request
is shown to all (see client/cancelling.py). The secret is compared as a whole and in constant time.

From one proxy to another a request goes with a byte more behind its secret: how often it has been passed on.
"""

from __future__ import annotations

from typing import NamedTuple

from proxy.wire.startup import CancelRequest

MAX_PEER = 255
MAX_HOPS = 3
RANDOM_BITS = 14
SHORT, LONG = 4, 32  # lengths of secrets

_MARK = 1 << 30  # above every process id that a server has


class Way(NamedTuple):
    peer: int
    worker: int  # its last eight bits

    @classmethod
    def to(cls, peer: int, worker: int) -> Way:
        return cls(peer, worker & 0xFF)


def word(way: Way, random: int) -> int:
    """What holds the way; a valid process id."""
    return _MARK | way.peer << 22 | way.worker << RANDOM_BITS | random % (1 << RANDOM_BITS)


def way_of(request: CancelRequest) -> Way | None:
    """None where the request does not say."""
    found = request.pid
    if not _is_word(found) and len(request.key) == LONG:
        found = int.from_bytes(request.key[:4], "big")
    if not _is_word(found):
        return None
    return Way(found >> 22 & 0xFF, found >> RANDOM_BITS & 0xFF)


def _is_word(number: int) -> bool:
    return number >> 30 == 1


def passed_on(request: CancelRequest, hops: int) -> CancelRequest:
    return CancelRequest(request.pid, request.key + bytes([hops]))


def arrived(request: CancelRequest) -> tuple[CancelRequest, int]:
    """The request as its client made it, and how often it has been passed on."""
    if len(request.key) in (SHORT + 1, LONG + 1) and 0 < request.key[-1] <= MAX_HOPS:
        return CancelRequest(request.pid, request.key[:-1]), request.key[-1]
    return request, 0
