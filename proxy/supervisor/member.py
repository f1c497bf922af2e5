"""A worker process as one of several: it is told what to be over the channel, and leaves when that is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from time import monotonic
from typing import Literal

from proxy import __version__, log, settings
from proxy.client.shedding import shed
from proxy.control import counts as counting
from proxy.control import fleet
from proxy.errors import ShuttingDown, TiergateError
from proxy.net.channel import Channel, Fields, Handler
from proxy.server.custody import Custody
from proxy.server.leasing import Lessee
from proxy.supervisor.process import BLOCKED_AT_START
from proxy.worker import Worker

_log = log.get("worker")
_Wish = Literal["", "drain", "stop"]


class Member:
    """`run` returns when the worker has ended, for whatever reason."""

    def __init__(self, number: int, channel: int, sockets: list[int]) -> None:
        self._number = number
        given = [socket.socket(fileno=fd) for fd in sockets]
        self._sockets = [sock for sock in given if sock.type != socket.SOCK_SEQPACKET]
        others = [Custody(sock) for sock in given if sock.type == socket.SOCK_SEQPACKET]
        self._custody = others[0] if others else None
        self._end_of_channel = socket.socket(fileno=channel)
        self._worker: Worker | None = None
        self._serves = asyncio.Event()
        self._over = asyncio.Event()
        self._wish: _Wish = ""
        self._fleet_until: asyncio.TimerHandle | None = None
        self._lessee = Lessee(lambda: self.channel)
        self._handlers: dict[str, Handler] = {
            "start": self._start,
            "reload": self._reload,
            "drain": lambda _: self._leave("drain"),
            "stop": lambda _: self._leave("stop"),
            "retire": self._retire,
            **self._lessee.handlers(),
            "cancel": self._cancel,
            "alive": lambda _: None,
            "fleet": self._in_fleet,
            "shed": self._shed,
            **fleet.handlers(self._local),
        }
        self.channel = Channel(self._handlers, self._orphaned)

    async def run(self) -> None:
        log.configure()  # until the configuration says how
        log.identify(worker=self._number)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._leave, "drain")
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)  # the supervisor's to decide
        signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED_AT_START)
        await self.channel.open(self._end_of_channel)
        serves, over = asyncio.ensure_future(self._serves.wait()), asyncio.ensure_future(self._over.wait())
        await asyncio.wait({serves, over}, return_when=asyncio.FIRST_COMPLETED)
        serves.cancel()
        over.cancel()
        worker = self._worker
        if worker is not None:
            try:
                await worker.wants_to_stop.wait()
                self.channel.tell("leaving")
                await worker.until_told_to_stop()
            finally:
                await worker.stop()
                with contextlib.suppress(TiergateError):
                    await self.channel.ask("counted", **counting.take(worker.plane))
        if self._fleet_until is not None:
            self._fleet_until.cancel()
        self.channel.close()
        if self._custody is not None:
            self._custody.close()

    # --- what the supervisor says -------------------------------------------------------------------

    async def _start(self, orders: Fields) -> None:
        try:
            config = settings.parse(orders["text"], orders["path"], os.environ, orders["overrides"])
            log.configure(config.process.log_format, config.process.log_level)
            worker = Worker(
                config,
                sockets=self._sockets,
                control=fleet.Remote(self.channel, __version__),
                number=self._number,
                leases=self._lessee.leases,
                slices=self._lessee.slices,
                supervisor=self.channel,
                custody=self._custody,
            )
            worker.pools.adapting.tell = self._lessee.tell_strain
            self._lessee.decided = worker.pools.adapting.obey
            worker.overrides = orders["overrides"]
            for name in orders["paused"]:
                worker.pools.pause(name)
            for kind, name in orders["disabled"]:
                worker.registry.disable(kind, name)
            await worker.start()
        except TiergateError:
            self._over.set()
            raise
        self._worker = worker
        self._serves.set()
        if self._wish:
            self._leave(self._wish)

    async def _local(self) -> fleet.Control:
        await self._serves.wait()
        if self._worker is None:
            raise ShuttingDown("the proxy is shutting down")
        return self._worker.local

    async def _reload(self, orders: Fields) -> None:
        await self._serves.wait()
        worker = self._worker
        if worker is None:
            return
        fresh = settings.parse(orders["text"], orders["path"], os.environ, orders["overrides"])
        worker.apply(fresh)
        worker.overrides = orders["overrides"]

    async def _cancel(self, fields: Fields) -> None:
        if self._worker is not None:
            await self._worker.canceller.told(fields)

    def _leave(self, wish: _Wish) -> None:
        if self._worker is not None:
            self._worker.shutdown(wait=wish == "drain")
        elif wish == "stop" or not self._wish:
            self._wish = wish
            self._over.set()

    def _retire(self, orders: Fields) -> None:
        if self._worker is None:
            self._leave("stop")
        else:
            self._worker.retire(orders["timeout"])

    def _in_fleet(self, orders: Fields) -> None:
        """What this worker has of a fleet's caps is good as long as the supervisor says so."""
        if self._fleet_until is not None:
            self._fleet_until.cancel()
        left = max(0.0, orders["until"] - monotonic())
        self._fleet_until = asyncio.get_running_loop().call_later(left, self._forsaken)

    def _forsaken(self) -> None:
        _log.error("nothing heard of the supervisor: what is held of the fleet's caps is another's soon")
        self._leave("stop")

    def _shed(self, orders: Fields) -> None:
        if self._worker is not None:
            ended = shed(self._worker.plane, orders["rows"])
            _log.error("sessions ended, the share of the fleet's caps is less", sessions=ended)

    def _orphaned(self) -> None:
        """The supervisor is gone: nobody holds caps or replaces this worker any more."""
        _log.error("the supervisor is gone")
        self._leave("drain")
