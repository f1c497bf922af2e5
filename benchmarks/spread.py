"""How new connections spread over workers: a socket each on one port (SO_REUSEPORT) or one that all inherit.

    python benchmarks/spread.py [--workers 4] [--repetitions 9]

Starts processes that accept as a worker does (`proxy.net.listen.Listener` on uvloop), each with some work for every
connection (a login costs about as much), and connects to them: one after the other, as an application that
starts, or many at once, as after a restart. Prints Markdown: the largest share of a worker as a multiple of
the mean (1.00 is even), the smallest one, and the slowest connect. Loopback only.
"""

from __future__ import annotations

import argparse
import os
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from proxy.net import listen

ROOT = Path(__file__).parent.parent
WORK = 0.001  # seconds of CPU a connection


@dataclass(frozen=True)
class Spread:
    most: float
    least: float
    slowest_ms: float


def accept(number: int, fd: int) -> None:
    """One worker: says its number to whoever connects. Ends with its standard input."""
    import asyncio

    import uvloop

    async def main() -> None:
        loop = asyncio.get_running_loop()
        held: list[socket.socket] = []

        def accepted(sock: socket.socket) -> None:
            until = time.process_time() + WORK
            while time.process_time() < until:
                pass
            sock.send(bytes([number]))
            held.append(sock)

        listener = listen.Listener(loop, socket.socket(fileno=fd), accepted)
        print("ready", flush=True)
        over = asyncio.Event()
        loop.add_reader(0, over.set)
        await over.wait()
        listener.close()
        for sock in held:
            sock.close()

    uvloop.run(main())


def run(way: str, workers: int, clients: int, at_once: bool) -> Spread:
    own = way == "a socket each"
    first = listen.tcp_sockets("127.0.0.1", 0, 1024, shares_port=own)
    port = first[0].getsockname()[1]
    sockets = list(first)
    if own:
        while len(sockets) < workers:
            sockets += listen.tcp_sockets("127.0.0.1", port, 1024, shares_port=True)
    processes = []
    for number in range(workers):
        fd = sockets[number if own else 0].fileno()
        os.set_inheritable(fd, True)
        processes.append(
            subprocess.Popen(
                [sys.executable, __file__, "--accept", str(number), str(fd)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[fd], cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        )  # fmt: skip
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        counts, slowest = connect(port, clients, at_once)
    finally:
        for process in processes:
            process.communicate()
        for sock in sockets:
            sock.close()
    mean = clients / workers
    shares = [counts[number] / mean for number in range(workers)]
    return Spread(max(shares), min(shares), slowest * 1000)


def connect(port: int, clients: int, at_once: bool) -> tuple[Counter[int], float]:
    counts: Counter[int] = Counter()
    slowest = 0.0
    sockets: list[socket.socket] = []
    try:
        with selectors.DefaultSelector() as selector:
            for _ in range(clients):
                began = time.monotonic()
                sock = socket.create_connection(("127.0.0.1", port), 30)
                sockets.append(sock)
                if at_once:
                    selector.register(sock, selectors.EVENT_READ, began)
                else:
                    counts[sock.recv(1)[0]] += 1
                    slowest = max(slowest, time.monotonic() - began)
            while sum(counts.values()) < clients:
                for key, _ in selector.select(30):
                    counts[key.fileobj.recv(1)[0]] += 1  # type: ignore[union-attr]
                    slowest = max(slowest, time.monotonic() - key.data)
                    selector.unregister(key.fileobj)
    finally:
        for sock in sockets:
            sock.close()
    return counts, slowest


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--accept", nargs=2, type=int, metavar=("NUMBER", "FD"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.accept:
        accept(*options.accept)
        return 0
    print(
        "| clients | they come | sockets | largest share | smallest | slowest connect, ms |\n|---|---|---|---|---|---|"
    )
    for clients in (16, 64, 500):
        for at_once in (False, True):
            for way in ("a socket each", "one for all"):
                runs = [run(way, options.workers, clients, at_once) for _ in range(options.repetitions)]
                most, least, slowest = (
                    statistics.median(getattr(found, name) for found in runs)
                    for name in ("most", "least", "slowest_ms")
                )
                come = "at once" if at_once else "one by one"
                print(
                    f"| {clients} | {come} | {way} | {most:.2f} | {least:.2f} | {slowest:.1f} |", flush=True
                )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
