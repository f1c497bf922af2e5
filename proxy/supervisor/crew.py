"""The worker processes: one in each slot, replaced when it ends, and those of before an upgrade."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from time import monotonic
from typing import Any

from proxy import __version__, log
from proxy.control.fleet import Control
from proxy.errors import ConfigError, ShuttingDown, TiergateError
from proxy.net.channel import ChannelLost, Fields, Handler
from proxy.supervisor.process import Backoff, State, WorkerProcess, spawn
from proxy.supervisor.sockets import Sockets

_log = log.get("supervisor")
_START_TIMEOUT = 60.0
_DYING = 0.5  # seconds between the end of a worker's channel and its own
_LOOK = 1.0  # seconds between two looks at the workers, at most
_SILENT = 0.8  # seconds without an answer, and nobody waits for a worker until it speaks again
_AT_ONCE = 10.0  # seconds that a worker has to stop before it is killed
_SPEAKING = (State.READY, State.RETIRING, State.ENDING)


class Crew:
    """`orders` is what a new worker is told; `handlers` what it may say. `began` is called with each that can be spoken to
    (and whether it was there before), `ended` with each that is gone; `custody` gives a socket besides those to
    accept from, of type SOCK_SEQPACKET."""

    def __init__(
        self,
        slots: int,
        sockets: Sockets,
        orders: Callable[[], Fields],
        handlers: Callable[[WorkerProcess], Mapping[str, Handler]],
        ended: Callable[[WorkerProcess], None],
        began: Callable[[WorkerProcess, bool], None] = lambda _, __: None,
        custody: Callable[[int], socket.socket] | None = None,
    ) -> None:
        self.slots = slots
        self.sockets = sockets
        self.processes: dict[int, WorkerProcess] = {}
        self.restarts = [0] * slots
        self.next_number = 1
        self.ending = False
        self.resting = False  # nobody is heard: the program is being replaced
        self._orders = orders
        self._handlers = handlers
        self._began = began
        self._ended = ended
        self._custody = custody
        self._keepers: list[asyncio.Task[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    # --- start --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns when all slots serve. Raises what the first worker of a slot could not start for."""
        for result in await asyncio.gather(*self._keep_all(), return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def start_beside_others(self) -> None:
        """Returns when all slots serve, however often that has to be tried: those of before serve meanwhile."""
        own = self.next_number
        await asyncio.gather(*self._keep_all(), return_exceptions=True)
        while self.slots > sum(p.number >= own and p.state is State.READY for p in self.processes.values()):
            await asyncio.sleep(0.05)

    def _keep_all(self) -> list[asyncio.Future[None]]:
        """Fills all slots; one future a slot tells how the first start went."""
        loop = asyncio.get_running_loop()
        firsts: list[asyncio.Future[None]] = [loop.create_future() for _ in range(self.slots)]
        self._keepers = [loop.create_task(self._keep(slot, first)) for slot, first in enumerate(firsts)]
        return firsts

    async def _keep(self, slot: int, first: asyncio.Future[None]) -> None:
        """One slot: its worker, and the next one whenever that ends."""
        try:
            await self._keep_on(slot, first)
        finally:
            _settle(first, ShuttingDown("the proxy is shutting down"))

    async def _keep_on(self, slot: int, first: asyncio.Future[None]) -> None:
        backoff = Backoff()
        while not self.ending:
            try:
                process = await self._spawn(slot)
            except OSError as error:
                _log.error("a worker cannot be started", error=str(error))
                _settle(first, ConfigError(f"a worker cannot be started: {error}"))
                await asyncio.sleep(backoff.after(0.0))
                continue
            try:
                await self._begin(process)
            except TiergateError as error:
                if not self.ending:
                    _log.error("a worker has not started", worker=process.number, error=error.message)
                _settle(first, error)
                process.step("end")
                process.channel.tell("stop")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_AT_ONCE):
                        await process.gone.wait()
                process.kill()
            else:
                _settle(first, None)
            await process.leaves.wait()
            if not self.ending:
                self.restarts[slot] += 1
                pause = backoff.after(monotonic() - process.started_at)
                if pause > backoff.first:
                    _log.warning(
                        "workers end soon after their start, the next waits",
                        after=process.number,
                        seconds=pause,
                    )
                await asyncio.sleep(pause)

    async def _spawn(self, slot: int) -> WorkerProcess:
        number, self.next_number = self.next_number, self.next_number + 1
        more = [self._custody(number)] if self._custody is not None else []
        try:
            pid, sock = spawn(number, [*self.sockets.share(slot, self.slots), *more])
        finally:
            for its in more:
                its.close()
        process = WorkerProcess(number, slot, pid, __version__)
        await self._listen_to(process, sock)
        return process

    async def _listen_to(self, process: WorkerProcess, sock: socket.socket, handed: Any = None) -> None:
        self.processes[process.number] = process
        channel = process.speak(self._handlers(process), partial(self._lost, process))
        await channel.open(sock, handed)
        self._began(process, handed is not None)

    async def _begin(self, process: WorkerProcess) -> None:
        try:
            await process.channel.ask("start", _START_TIMEOUT, **self._orders())
        except ChannelLost:
            raise ConfigError("a worker has ended while it started; the log says why") from None
        process.step("ready")
        _log.info("worker started", worker=process.number, pid=process.pid)

    async def adopt(self, row: dict[str, Any]) -> None:
        """A worker that the program before has started."""
        process = WorkerProcess(row["number"], row["slot"], row["pid"], row["version"], State(row["state"]))
        process.started_at = monotonic() - row["age"]
        if row["fd"] is not None:
            await self._listen_to(process, socket.socket(fileno=row["fd"]), row["handed"])
        else:
            self.processes[process.number] = process
            process.speak({}, _nothing).close()
            self._lost(process)

    # --- who there is -------------------------------------------------------------------------------

    def members(self, *, starting: bool = False) -> dict[int, Control]:
        """Those that can be asked; with `starting` also those that will answer a little later, once they have started
        or are silent no more."""
        states = (State.STARTING, *_SPEAKING) if starting else _SPEAKING
        return {
            number: p.control
            for number, p in self.processes.items()
            if p.state in states and (starting or not p.silent)
        }

    @property
    def serves(self) -> bool:
        return any(process.state is State.READY for process in self.processes.values())

    # --- ends ---------------------------------------------------------------------------------------

    def _lost(self, process: WorkerProcess) -> None:
        """The channel's end: the worker has ended, or must not go on, since it cannot be spoken to."""
        self._spawn_task(self._reap(process))

    def _spawn_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reap(self, process: WorkerProcess) -> None:
        """Not by SIGCHLD, which the loop keeps to itself: the end of the channel tells as much."""
        deadline = monotonic() + (_AT_ONCE if process.state is State.ENDING else _DYING)
        pause = 0.002
        while True:
            how = process.has_ended()
            if how:
                self._is_gone(process, how)
                return
            if monotonic() > deadline:
                process.kill()
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.05)

    def _is_gone(self, process: WorkerProcess, how: str) -> None:
        said = _log.info if process.state is State.ENDING else _log.error
        said("worker ended", worker=process.number, pid=process.pid, state=process.state.value, how=how)
        process.step("gone")
        del self.processes[process.number]
        process.channel.close()
        self._ended(process)
        process.gone.set()

    async def watch(self, timeout: Callable[[], float]) -> None:
        """Asks each for a sign of life, for ever. One whose loop does not turn can be told nothing, and its clients wait
        for nothing: after `timeout` (0: never) it is killed, and replaced like any that has ended."""
        while True:
            pause = min(timeout() / 2, _LOOK) or _LOOK
            before = monotonic()
            await asyncio.sleep(pause)
            # What they have said meanwhile may be unread as long as this process stood still itself.
            unheard = self.resting or monotonic() - before > pause + _LOOK
            for process in self.processes.values():
                if process.state in _SPEAKING:
                    self._look_at(process, timeout(), unheard)

    def _look_at(self, process: WorkerProcess, limit: float, unheard: bool) -> None:
        now = monotonic()
        if process.asked_at is None:
            process.asked_at = now
            self._spawn_task(self._call(process))
        elif unheard:
            process.asked_at = now
        elif limit and now - process.asked_at > limit:
            _log.error("a worker is killed, since it hangs", worker=process.number, seconds=limit)
            process.kill()
            process.asked_at = now  # it may take a while to go
        elif now - process.asked_at > _SILENT and not process.silent:
            process.silent = True
            _log.warning("a worker is silent", worker=process.number)

    async def _call(self, process: WorkerProcess) -> None:
        # One of an older program does not know the question, and says so.
        with contextlib.suppress(TiergateError):
            await process.channel.ask("alive", None)
        if process.silent and not process.channel.closed:
            _log.info("a worker is silent no more", worker=process.number)
        process.asked_at, process.silent = None, False

    def kill(self, number: int) -> None:
        self.processes[number].kill()

    def leaving(self, process: WorkerProcess) -> None:
        """It has said that it ends."""
        process.step("end")

    def retire(self, numbers: set[int], timeout: float) -> None:
        for process in list(self.processes.values()):
            if process.number in numbers:
                process.step("retire")
                process.channel.tell("retire", timeout=timeout)

    async def drain(self, timeout: float) -> None:
        """All finish what they do and end; returns when the last is gone. After `timeout` they stop by themselves."""
        self._end()
        for process in self.processes.values():
            process.channel.tell("drain")
        await self._all_gone(timeout + _AT_ONCE if timeout else None)

    async def stop(self) -> None:
        self._end()
        for process in self.processes.values():
            process.channel.tell("stop")
        await self._all_gone(_AT_ONCE)

    def _end(self) -> None:
        self.ending = True
        self.sockets.close()
        for process in self.processes.values():
            process.step("end")
        for keeper in self._keepers:
            keeper.cancel()

    async def _all_gone(self, timeout: float | None) -> None:
        try:
            async with asyncio.timeout(timeout):
                while self.processes:
                    await next(iter(self.processes.values())).gone.wait()
        except TimeoutError:
            for process in self.processes.values():
                _log.warning("a worker is killed, since it does not end", worker=process.number)
                process.kill()
            while self.processes:
                await next(iter(self.processes.values())).gone.wait()


def _nothing() -> None:
    pass


def _settle(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(None)
