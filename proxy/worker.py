"""Builds one data plane from settings: what is started in which order, and how it is drained and stopped."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import Coroutine, Sequence
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from proxy import BUILD, __version__, log, settings
from proxy.admission import charging
from proxy.admission.elastic import Elastic
from proxy.admission.lease import Leases
from proxy.admission.slices import Slices
from proxy.client.accept import Acceptor
from proxy.client.applicants import Login
from proxy.client.cancelling import Asks, Canceller
from proxy.client.following import (
    all_changed,
    follow_at_rest,
    forget_unused,
    tenants_changed,
    users_changed,
)
from proxy.client.plane import Plane
from proxy.client.relay import Relay
from proxy.client.rounds import Rounds
from proxy.client.strangers import asking
from proxy.client.welcome import Usher, count_refusal, welcome
from proxy.control.actions import Local
from proxy.control.console import Console, open_console
from proxy.control.fleet import Control
from proxy.control.views import WorkerRow
from proxy.errors import ShuttingDown, TiergateError
from proxy.net import listen, tls
from proxy.net.stream import LoginStream
from proxy.protocol.lifecycle import SessionState
from proxy.registry.cache import Cache
from proxy.registry.memory import Registry
from proxy.server.custody import Custody
from proxy.server.janitor import SWEEP, sweep
from proxy.server.pools import Pools
from proxy.settings import Settings
from proxy.sql.verdict import Judge
from proxy.stats import ProcessStats

if TYPE_CHECKING:
    from proxy.control.api import Http
    from proxy.registry.stores import Stores

_log = log.get("worker")
_VERDICTS = 10_000
_THOROUGH_EVERY = 20  # sweeps
_UNUSED_EVERY = 300
# uvloop closes sockets in later turns, and a loop that is closed while one of TLS is half closed may hang.
_LAST_TURNS = 0.05  # seconds


class Worker:
    """One process's data plane. `start` binds; `drain` lets transactions finish; `stop` ends everything.

    One of several is given the `sockets` to accept from, its `number`, the `control` that its consoles ask, the
    `leases` and `slices` through which it shares caps and rates, its end of the channel to the `supervisor`, and
    the `custody` that has a second hand on its server connections.
    """

    version = __version__

    def __init__(
        self,
        config: Settings,
        *,
        sockets: Sequence[socket.socket] | None = None,
        control: Control | None = None,
        number: int = 1,
        leases: Leases | None = None,
        slices: Slices | None = None,
        supervisor: Asks | None = None,
        custody: Custody | None = None,
    ) -> None:
        self.settings = config
        self.number = number
        self.overrides: dict[str, str] = {}
        self.process = ProcessStats()
        process = config.process
        rows = Cache(*process.registry_cache) if process.registry_dsn else None
        self.registry = Registry(config.directory, config.client, config.server, rows)
        self.leases = leases
        server_tls = tls.server_tls(config.tls.side("server"))
        self.pools = Pools(config.server, server_tls, self.process, leases, custody)
        self.plane = Plane(
            config.client, self.registry, self.pools, self.process, Judge(_VERDICTS), leases, number, slices
        )
        self.elastic = Elastic(self.pools.room)
        self.stores: Stores | None = None
        if rows is not None:
            from proxy.registry.stores import Stores  # its libraries nobody else has a use for

            changed, others = partial(tenants_changed, self.plane), partial(users_changed, self.plane)
            self.stores = Stores(self.registry, rows, self.plane.accounts, changed, others)
            self.stores.join(process.registry_dsn, process.redis_url)
        self.roles = self.registry.roles = asking(self.plane)
        self.local = Local(self.plane, self)
        self._control = control if control is not None else self.local
        self._sockets = sockets
        self._started_at = monotonic()
        self._retiring: asyncio.Task[None] | None = None
        self.consoles: set[Console] = set()
        self.http: Http | None = None
        self.stopped = asyncio.Event()
        self.wants_to_stop: asyncio.Event = asyncio.Event()
        self.stop_at_once = False
        self._listeners: list[listen.Listener] = []
        self.canceller = Canceller(self.plane, supervisor)
        self._acceptor = Acceptor(
            config.client,
            tls.client_tls(config.tls.side("client")),
            self.registry,
            Usher(self.plane, self._otherwise),
            self.canceller.landed,
            self.process,
        )
        self.plane.logging_in = lambda: self._acceptor.pending
        self._sweeps = 0
        self._rounds = Rounds(self.plane, self.process, _THOROUGH_EVERY)
        self._stats_turned = monotonic()
        self._timer: asyncio.TimerHandle | None = None

    # --- start --------------------------------------------------------------------------------------

    async def start(self) -> None:
        process = self.settings.process
        loop = asyncio.get_running_loop()
        self.roles.start()
        if self.stores is not None:
            self.stores.start()
        try:
            if self._sockets is not None:
                for sock in self._sockets:
                    self._listen(loop, sock, owns_path=False)
            else:
                await self._bind(loop)
        except BaseException:
            await self._close_faces()
            raise
        self._timer = loop.call_later(SWEEP, self._sweep)
        if self._sockets is None:
            _log.info(
                "listening",
                address=process.listen_addr,
                port=self.port,
                http_port=self.http_port,
                build=BUILD,
            )

    async def _bind(self, loop: asyncio.AbstractEventLoop) -> None:
        process = self.settings.process
        if process.listen_port:
            for sock in listen.tcp_sockets(process.listen_addr, process.listen_port, process.listen_backlog):
                self._listen(loop, sock)
        if process.unix_socket_dir:
            sock = listen.unix_socket(
                process.unix_socket_dir, self.port or process.listen_port, process.unix_socket_mode,
                process.listen_backlog,
            )  # fmt: skip
            self._listen(loop, sock)
        if process.http is not None:
            from proxy.hosting import http_face  # a worker among others has no use for its libraries

            self.http = http_face(self.local, lambda: self.settings)
            await self.http.start(*process.http)

    def _listen(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, *, owns_path: bool = True
    ) -> None:
        tcp, accept = self.settings.client.tcp, self._acceptor.accept
        self._listeners.append(listen.Listener(loop, sock, accept, options=tcp, owns_path=owns_path))

    @property
    def port(self) -> int:
        for listener in self._listeners:
            if listener.family != socket.AF_UNIX:
                return listener.port
        return 0

    @property
    def http_port(self) -> int:
        return self.http.port if self.http is not None else 0

    def _sweep(self) -> None:
        self._sweeps += 1
        now = monotonic()
        thorough = self._sweeps % _THOROUGH_EVERY == 0
        try:
            sweep(self.pools, now, thorough=thorough)
            self.elastic.look(self.plane.accounts if thorough else None)
            self._rounds.look(now)
            if thorough:
                charging.rest(self.plane.accounts)
                for relay in list(self.plane.relays):
                    relay.follow()
                self._turn_stats(now)
            if self._sweeps % _UNUSED_EVERY == 0:
                forget_unused(self.plane)
            if self.leases is not None:
                self.leases.look(now, unused=self._sweeps % _UNUSED_EVERY == 0)
        except Exception as error:
            _log.exception("sweep failed", error)
        self._timer = asyncio.get_running_loop().call_later(SWEEP, self._sweep)

    def _turn_stats(self, now: float) -> None:
        period = self.settings.process.stats_period
        if period and now - self._stats_turned >= period:
            self._stats_turned = now
            for pool in self.pools:
                pool.stats.turn(now)

    # --- clients ------------------------------------------------------------------------------------

    def _otherwise(self, login: Login, stream: LoginStream) -> Coroutine[Any, Any, None] | None:
        """Of those who are no ordinary session, or not at once."""
        if login.is_console:
            console = open_console(self.plane, self._control, login, stream)
            self.consoles.add(console)
            console.on_close = self.consoles.discard
            return None
        return self._welcome(login, stream)

    async def _welcome(self, login: Login, stream: LoginStream) -> None:
        """Where something is to be waited for."""
        try:
            if login.replication:
                await Relay.open(self.plane, login, stream)
            else:
                await welcome(self.plane, login, stream)
        except TiergateError as error:
            count_refusal(self.plane, login, error)
            raise

    # --- operations (for the console) ---------------------------------------------------------------

    def reload(self) -> list[str]:
        """Reads the configuration file again; returns the keys whose change needs a restart. Raises ConfigError."""
        self.process.config_refused = True  # unless it is taken
        needing = self.apply(settings.load(self.settings.path, overrides=self.overrides))
        self.process.config_refused = False
        return needing

    def apply(self, fresh: Settings) -> list[str]:
        server_tls, client_tls = certificates(fresh)  # what cannot be used changes nothing
        if self.http is not None:
            self.http.reload()
        needing = settings.restart_needed(self.settings, fresh)
        self.settings = fresh
        self.registry.replace(fresh.directory, fresh.client, fresh.server)
        if self.registry.rows is not None:
            self.registry.rows.hold(*fresh.process.registry_cache)
        all_changed(self.plane)
        clusters = {cluster.name: cluster for cluster in self.registry.clusters()}
        self.pools.reload(fresh.server, server_tls, clusters)
        self.plane.options = fresh.client
        self.plane.clients.limit = fresh.client.max_client_conn
        self._acceptor.reload(fresh.client, client_tls)
        for listener in self._listeners:
            listener.tune(fresh.client.tcp)
        follow_at_rest(self.plane)
        log.configure(fresh.process.log_format, fresh.process.log_level)
        _log.info("configuration reloaded", needs_restart=needing)
        return needing

    def set(self, key: str, value: str) -> None:
        """SET key = value: as if the file said so, until the next restart. Raises ConfigError."""
        overrides = {**self.overrides, key: value}
        fresh = settings.load(self.settings.path, overrides=overrides)
        self.overrides = overrides
        self.apply(fresh)

    def config_rows(self) -> list[tuple[str, str, str, str]]:
        return settings.describe(self.settings)

    def worker_row(self) -> WorkerRow:
        state = "retiring" if self._retiring is not None else "draining" if self.plane.draining else "ready"
        return WorkerRow(
            self.number, os.getpid(), state, self.version, int(monotonic() - self._started_at), 0
        )

    def shutdown(self, wait: bool) -> None:
        self.stop_at_once = not wait
        self.wants_to_stop.set()

    # --- the end ------------------------------------------------------------------------------------

    async def until_told_to_stop(self) -> None:
        """Serves; returns when it shall stop and, unless at once, has drained."""
        await self.wants_to_stop.wait()
        if self.stop_at_once:
            return
        timeout = self.settings.process.shutdown_timeout
        _log.info("draining", timeout=timeout)
        # 0 is "off" for a duration everywhere: no bound.
        drain = asyncio.ensure_future(self.drain(timeout or float("inf")))
        while not drain.done() and not self.stop_at_once:
            await asyncio.wait({drain}, timeout=0.05)
        if not drain.done():
            drain.cancel()
            _log.warning("drain given up")
        elif not drain.result():
            _log.warning("drain incomplete", timeout=timeout)

    def retire(self, timeout: float) -> None:
        """Others take the new clients; its own are served until they leave. After `timeout` (0: never) it drains."""
        if self._retiring is None:
            self._stop_listening()
            self._retiring = asyncio.get_running_loop().create_task(self._retire(timeout or float("inf")))

    async def _retire(self, timeout: float) -> None:
        _log.info("retiring", clients=len(self.plane.sessions))
        deadline = monotonic() + timeout
        while (self.plane.sessions or self.plane.relays or self._acceptor.pending) and monotonic() < deadline:
            await asyncio.sleep(0.05)
        self.shutdown(wait=True)

    async def drain(self, timeout: float) -> bool:
        """No new clients; sessions end as soon as they are in no transaction. True if all did within `timeout`."""
        self.plane.draining = True
        self._stop_listening()
        error = ShuttingDown("terminating connection due to administrator command")
        for session in list(self.plane.sessions):
            if session.state is SessionState.IDLE or (session.server is not None and session.rests):
                session.end(error)
        deadline = monotonic() + timeout
        while (self.plane.sessions or self.plane.relays) and monotonic() < deadline:
            await asyncio.sleep(0.02)
        return not self.plane.sessions

    async def stop(self) -> None:
        self.plane.draining = True
        error = ShuttingDown("terminating connection due to administrator command")
        await self._acceptor.close()
        for session in list(self.plane.sessions):
            session.end(error)
        for relay in list(self.plane.relays):
            relay.close()
        for console in list(self.consoles):
            console.end(error)
        if self._timer is not None:
            self._timer.cancel()
        if self._retiring is not None:
            self._retiring.cancel()
        await self.pools.close()
        await self._close_faces()
        await asyncio.sleep(_LAST_TURNS)
        self.stopped.set()
        _log.info("stopped")

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    async def _close_faces(self) -> None:
        self._stop_listening()
        await self.roles.close()
        if self.stores is not None:
            stores, self.stores = self.stores, None
            await stores.close()
        if self.http is not None:
            http, self.http = self.http, None
            await http.stop()


def certificates(config: Settings) -> tuple[tls.ServerTls, tls.ClientTls | None]:
    """What the files hold, for servers and for clients. Raises ConfigError."""
    return tls.server_tls(config.tls.side("server")), tls.client_tls(config.tls.side("client"))


def write_pidfile(path: str) -> None:
    Path(path).write_text(f"{os.getpid()}\n")


def tame_collector() -> None:
    """What is there when a process begins to serve stays. After that cycles are few: they are looked for seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
