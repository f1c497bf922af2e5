"""A proxy whose every transaction meets another server connection than the one before: for suites that others own.

    python -m tests.suites.moving --server HOST:PORT --port 6543 [--mode transaction] [--connections 4] [--users a,b]

One cluster, one tenant that no client needs to name, no passwords. A pool lends the connection that has been
idle longest, and keeps several open from the start. SIGINT or SIGTERM ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import tempfile
from pathlib import Path

import uvloop

from proxy import log, settings
from proxy.protocol.state import State
from proxy.server.connection import ServerConnection
from proxy.server.pool import Pool
from proxy.worker import Worker
from tests.integration.running import configuration


def move() -> None:
    """From now on a pool of this process lends what has been idle longest, so that a client alone comes round all
    connections."""

    def longest_idle(pool: Pool, needs: State, now: float) -> ServerConnection | None:
        return pool.idle[0]

    Pool._pick = longest_idle  # type: ignore[method-assign]


def written(server: str, port: int, mode: str, connections: int, users: list[str], **proxy: object) -> str:
    tables: dict[str, dict[str, object]] = {
        "cluster.one": {
            "kind": "dedicated",
            "primary": server,
            "pool_size": 40,
            "min_pool_size": connections if mode != "session" else 0,
        },
        "tenant.one": {"tier": "enterprise", "cluster": "one"},
        **{f"user.{user}": {"tenants": "*"} for user in users},
    }
    return configuration(tables, listen_port=port, pool_mode=mode, default_tenant="one", **proxy)


async def serve(config: Path) -> None:
    values = settings.load(str(config), environ={})
    log.configure(values.process.log_format, values.process.log_level)
    worker = Worker(values)
    end = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    await worker.start()
    print(f"listening on {values.process.listen_port}", flush=True)
    await end.wait()
    await worker.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mode", default="transaction")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--users", default="postgres")
    parser.add_argument("--log", default="warning")
    arguments = parser.parse_args()
    move()
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "moving.toml"
        config.write_text(
            written(
                arguments.server,
                arguments.port,
                arguments.mode,
                arguments.connections,
                arguments.users.split(","),
                log_level=arguments.log,
            )
        )
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(config))


if __name__ == "__main__":
    main()
