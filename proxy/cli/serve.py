"""Runs one worker in the foreground and turns signals into reload, drain and stop.

The meaning of the signals is PgBouncer's: SIGTERM waits for clients, a second one no longer does. SIGINT and
SIGQUIT end everything at once, as PostgreSQL's fast shutdown. Every ordered end is exit 0, as with both.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import uvloop

from proxy import log, settings
from proxy.cli.problems import complain
from proxy.errors import ConfigError
from proxy.settings import Settings
from proxy.worker import Worker, write_pidfile

Ready = Callable[[Worker], Awaitable[None]]

_log = log.get("serve")
_DESCRIPTORS_BESIDE_CLIENTS = 100


def run(config: Path) -> int:
    try:
        loaded = settings.load(str(config))
        log.configure(loaded.process.log_format, loaded.process.log_level)
        uvloop.run(serve(loaded))
    except ConfigError as error:
        complain(error)
        return 1
    return 0


async def serve(config: Settings, ready: Ready | None = None) -> None:
    """Until a signal or the console ends it. `ready` is awaited once clients can come."""
    raise_descriptor_limit(config)
    worker = Worker(config)
    loop = asyncio.get_running_loop()
    signals: dict[signal.Signals, Callable[[], None]] = {
        signal.SIGTERM: partial(_terminate, worker),
        signal.SIGINT: partial(worker.shutdown, wait=False),
        signal.SIGQUIT: partial(worker.shutdown, wait=False),
        signal.SIGHUP: partial(_reload, worker),
    }
    for number, action in signals.items():
        loop.add_signal_handler(number, action)
    try:
        await worker.start()
        try:
            with _pidfile(config.process.pidfile):
                if ready is not None:
                    await ready(worker)
                await worker.until_told_to_stop()
        finally:
            await worker.stop()
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def _terminate(worker: Worker) -> None:
    worker.shutdown(wait=not worker.wants_to_stop.is_set())


def _reload(worker: Worker) -> None:
    try:
        worker.reload()
    except ConfigError as error:
        _log.error("reload refused, the old configuration stays", problems=list(error.problems))


@contextlib.contextmanager
def _pidfile(path: str) -> Iterator[None]:
    if not path:
        yield
        return
    try:
        write_pidfile(path)
    except OSError as error:
        raise ConfigError(f"pidfile {path} cannot be written: {error.strerror}") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


def raise_descriptor_limit(config: Settings) -> None:
    """A client is a descriptor; the soft limit of most systems is 1024, the hard one far above."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    needed = (
        config.client.max_client_conn + config.server.max_server_connections + _DESCRIPTORS_BESIDE_CLIENTS
    )
    if soft != resource.RLIM_INFINITY and soft < needed:
        _log.warning("fewer file descriptors than max_client_conn may need", limit=soft, needed=needed)
