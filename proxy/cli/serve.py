"""Runs one worker, or a supervisor of several, in the foreground and turns signals into what they mean.

The meaning of the signals is PgBouncer's: SIGTERM waits for clients, a second one no longer does. SIGINT and
SIGQUIT end everything at once, as PostgreSQL's fast shutdown. Every ordered end is exit 0, as with both.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path

import uvloop

from proxy import log, settings
from proxy.cli.problems import complain
from proxy.cli.watching import Watch
from proxy.errors import ConfigError, TiergateError
from proxy.net import turns
from proxy.net.readiness import Loop
from proxy.settings import Settings
from proxy.supervisor import heritage
from proxy.supervisor.heritage import Heritage
from proxy.supervisor.supervisor import Supervisor
from proxy.worker import Worker, tame_collector, write_pidfile

Ready = Callable[[Worker], Awaitable[None]]

_log = log.get("serve")
_DESCRIPTORS_BESIDE_CLIENTS = 100


def run(config: Path) -> int:
    before = heritage.receive()
    try:
        text, loaded = _load(str(config), before)
        log.configure(loaded.process.log_format, loaded.process.log_level)
        if before is not None or loaded.process.has_supervisor:
            uvloop.run(supervise(loaded, text, before), loop_factory=Loop)
        else:
            tame_collector()
            turns.shorten()
            uvloop.run(serve(loaded), loop_factory=Loop)
    except ConfigError as error:
        complain(error)
        return 1
    return 0


def _load(path: str, before: Heritage | None) -> tuple[str, Settings]:
    """The file, or what it said when it was good: in an upgrade there are clients who must not suffer for it."""
    overrides: dict[str, str] = before["overrides"] if before is not None else {}
    try:
        text = settings.read(path)
        return text, settings.parse(text, path, os.environ, overrides)
    except ConfigError as error:
        if before is None:
            raise
        _log.error("the configuration cannot be used, the old one stays", problems=list(error.problems))
        text = before["text"]
        return text, settings.parse(text, path, os.environ, overrides)


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
        signal.SIGUSR2: _refuse_upgrade,
    }
    for number, action in signals.items():
        loop.add_signal_handler(number, action)
    try:
        await worker.start()
        watch = loop.create_task(Watch(lambda: worker.settings, partial(_reload_now, worker)).run())
        try:
            with _pidfile(config.process.pidfile):
                if ready is not None:
                    await ready(worker)
                await worker.until_told_to_stop()
        finally:
            watch.cancel()
            await worker.stop()
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def _refuse_upgrade() -> None:
    """Left alone, the signal would end the process and drop all clients."""
    _log.error(
        "upgrade refused", problems=["one process cannot be upgraded in place: set supervised to true"]
    )


async def supervise(config: Settings, text: str, before: Heritage | None) -> None:
    """The same with several workers. `before` is what the program has left whose place this one takes."""
    raise_descriptor_limit(config)
    supervisor = Supervisor(config, text, before)
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def later(work: Callable[[], Coroutine[None, None, None]]) -> None:
        task = loop.create_task(work())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def reload() -> None:
        try:
            await supervisor.reload()
        except ConfigError as error:
            _log.error("reload refused, the old configuration stays", problems=list(error.problems))

    async def upgrade() -> None:
        try:
            await supervisor.upgrade()
        except TiergateError as error:
            _log.error("upgrade refused", problems=error.message.split("\n"))

    signals: dict[signal.Signals, Callable[[], None]] = {
        signal.SIGTERM: partial(supervisor.shutdown, wait=True),
        signal.SIGINT: partial(supervisor.shutdown, wait=False),
        signal.SIGQUIT: partial(supervisor.shutdown, wait=False),
        signal.SIGHUP: partial(later, reload),
        signal.SIGUSR2: partial(later, upgrade),
    }
    for number, action in signals.items():
        loop.add_signal_handler(number, action)
    heritage.unblock_signals()
    try:
        await supervisor.start()
        watch = loop.create_task(Watch(lambda: supervisor.settings, reload).run())
        try:
            with _pidfile(config.process.pidfile, must=before is None):
                await supervisor.until_told_to_stop()
        finally:
            watch.cancel()
            await supervisor.stop()
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def _terminate(worker: Worker) -> None:
    worker.shutdown(wait=not worker.wants_to_stop.is_set())


async def _reload_now(worker: Worker) -> None:
    _reload(worker)


def _reload(worker: Worker) -> None:
    try:
        worker.reload()
    except ConfigError as error:
        _log.error("reload refused, the old configuration stays", problems=list(error.problems))


@contextlib.contextmanager
def _pidfile(path: str, *, must: bool = True) -> Iterator[None]:
    if not path:
        yield
        return
    try:
        write_pidfile(path)
    except OSError as error:
        if must:
            raise ConfigError(f"pidfile {path} cannot be written: {error.strerror}") from None
        _log.error("pidfile cannot be written", path=path, error=error.strerror)
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
