"""The parent of several workers: holds the configuration and the sockets, hosts the control plane, is upgraded."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Mapping
from time import monotonic
from typing import Any

from proxy import BUILD, __version__, log, settings
from proxy.client.cancelling import OVER_WITHIN
from proxy.control import fleet, views
from proxy.control.api import Http, listening
from proxy.control.counts import Counts
from proxy.control.fleet import Fleet, Result, Taken
from proxy.control.views import View, WorkerRow
from proxy.errors import ConfigError, InvalidParameter
from proxy.hosting import http_face
from proxy.net.channel import Fields, Handler
from proxy.settings import Settings
from proxy.supervisor import heritage, upgrading
from proxy.supervisor.crew import Crew
from proxy.supervisor.heritage import Heritage
from proxy.supervisor.permits import Permits
from proxy.supervisor.process import WorkerProcess
from proxy.supervisor.sockets import Sockets
from proxy.supervisor.telling import tell_all
from proxy.worker import certificates

_log = log.get("supervisor")


class Supervisor:
    """`start` returns when clients can come. The configuration is kept as text: a new worker gets the same."""

    version = __version__

    def __init__(self, config: Settings, text: str, before: Heritage | None = None) -> None:
        self.settings = config
        self.overrides: dict[str, str] = {}
        self.fleet = Fleet(self, self._members)
        self.http: Http | None = None
        self.crew: Crew
        self.permits = Permits(lambda: certificates(self.settings)[0])
        self._text = text
        self._before = before
        self._http_sock: socket.socket | None = None
        self._wants_to_stop = asyncio.Event()
        self._stop_at_once = asyncio.Event()
        self._upgrading = False
        self._config_refused = False
        self._tasks: set[asyncio.Task[None]] = set()

    # --- start --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Raises ConfigError if it cannot listen or no worker can start."""
        process, before = self.settings.process, self._before
        slots = process.worker_count
        if before is None:
            sockets = Sockets.open(process, slots)
        else:
            sockets = Sockets.adopt(before["sockets"])
        vault = self.permits.vault
        self.crew = Crew(slots, sockets, self._orders, self._handlers, self._ended, self._began, vault.new)
        try:
            if before is not None:
                await self._take_over(before)
            else:
                self.permits.join_fleet(self.settings.process, self.crew.kill, None)
                await self._start_http(None)
                if not await self._start_crew():
                    return
        except BaseException:
            await self.stop()
            raise
        self._spawn(self.crew.watch(lambda: self.settings.process.worker_hang_timeout))
        _log.info(
            "listening", address=process.listen_addr, port=self.port, http_port=self.http_port, workers=slots, build=BUILD
        )  # fmt: skip

    async def _start_crew(self) -> bool:
        """False if it was told to stop meanwhile."""
        start = asyncio.ensure_future(self.crew.start())
        stop = asyncio.ensure_future(self._wants_to_stop.wait())
        await asyncio.wait({start, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not start.done():
            start.cancel()
            return False
        start.result()
        return True

    async def _start_http(self, left: int | None) -> None:
        """On the socket that is `left` by the program before, if there is one."""
        where = self.settings.process.http
        if left is not None:
            self._http_sock = socket.socket(fileno=left)
        elif where is not None:
            self._http_sock = listening(*where)
        if self._http_sock is not None:
            self.http = http_face(self.fleet, lambda: self.settings, fresh=self._before is None)
            await self.http.serve(self._http_sock.dup())

    async def _take_over(self, before: Heritage) -> None:
        self.overrides = before["overrides"]
        self.fleet.adopt(before["fleet"])
        self.permits.join_fleet(self.settings.process, self.crew.kill, before.get("stakes"))
        self.crew.next_number = before["next_number"]
        old = [row["number"] for row in before["workers"]]
        self.permits.expect(old)
        for row in before["workers"]:
            self.permits.vault.adopt(row["number"], row.get("custody"))
        for row in before["workers"]:
            await self.crew.adopt(row)
        try:
            await self._start_http(before["http"])
        except ConfigError as error:  # no reason to end what serves
            _log.error("no HTTP", problems=list(error.problems))
        self._before = None
        self._spawn(self._replace(set(old)))

    async def _replace(self, old: set[int]) -> None:
        await self.crew.start_beside_others()
        self.crew.retire(old, self.settings.process.upgrade_timeout)
        _log.info("upgraded", version=self.version, retiring=len(old & self.crew.processes.keys()))

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def port(self) -> int:
        return self.crew.sockets.port

    @property
    def http_port(self) -> int:
        return self.http.port if self.http is not None else 0

    # --- workers ------------------------------------------------------------------------------------

    def _orders(self) -> Fields:
        return {
            "text": self._text,
            "path": self.settings.path,
            "overrides": self.overrides,
            "paused": sorted(self.fleet.paused),
            "disabled": sorted(self.fleet.disabled),
        }

    def _members(self, *, starting: bool = False) -> Mapping[int, fleet.Control]:
        return self.crew.members(starting=starting)

    def _handlers(self, process: WorkerProcess) -> dict[str, Handler]:
        async def control() -> Fleet:
            return self.fleet

        return {
            **self.permits.handlers(process.number),
            "cancel": lambda fields: self._cancel(process, fields),
            "leaving": lambda _: self.crew.leaving(process),
            "counted": lambda counts: self.fleet.told(process.number, counts),
            **fleet.handlers(control),
        }

    async def _cancel(self, landed: WorkerProcess, fields: Fields) -> None:
        """Shown to the workers that it may be for: their numbers are known by the last eight bits, or not at all.
        Answered when all of them are done with it."""
        shown = [
            process.channel.ask("cancel", OVER_WITHIN, **fields)
            for process in self.crew.processes.values()
            if process is not landed and fields["worker"] in (None, process.number & 0xFF)
        ]
        await asyncio.gather(*shown, return_exceptions=True)

    def _began(self, process: WorkerProcess, adopted: bool) -> None:
        (self.permits.adopted if adopted else self.permits.joined)(process.number, process.channel)

    def _ended(self, process: WorkerProcess) -> None:
        self.permits.gone(process.number)
        self.fleet.ended(process.number)

    # --- what it answers itself ---------------------------------------------------------------------

    def own_view(self, name: str) -> View | None:
        if name == "config":
            return views.config(settings.describe(self.settings))
        if name == "workers":
            now = monotonic()
            return views.workers(
                [
                    WorkerRow(
                        p.number, p.pid, "silent" if p.silent else p.state.value, p.version, int(now - p.started_at),
                        self.crew.restarts[p.slot] if p.slot < self.crew.slots else 0,
                    )
                    for p in self.crew.processes.values()
                ]
            )  # fmt: skip
        if name in ("fleet", "shares"):
            return self.permits.view(name)
        return None

    def own_act(self, verb: str, words: tuple[str, ...]) -> Awaitable[Result] | None:
        match verb:
            case "reload":
                return self.reload()
            case "set":
                return self._set(*words)
            case "shutdown":
                return self._shutdown(words == ("wait",))
            case "upgrade":
                return self.upgrade()
        return None

    def own_counts(self) -> Counts:
        counts = self.permits.counts()
        counts["most"]["config_refused"] = int(self._config_refused)
        return counts

    def own_problems(self) -> list[str]:
        if self.crew.ending:
            return ["draining"]
        return [] if self.crew.serves else ["no worker accepts clients"]

    # --- verbs --------------------------------------------------------------------------------------

    async def reload(self) -> Taken:
        """Reads the file again, for all workers or for none; tells the keys that need a restart."""
        self._config_refused = True  # unless it is taken
        needing = self._take(settings.read(self.settings.path), self.overrides)
        self._config_refused = False
        return await self._tell_all(needing)

    async def _set(self, key: str, value: str) -> Taken:
        return await self._tell_all(self._take(self._text, {**self.overrides, key: value}))

    def _take(self, text: str, overrides: dict[str, str]) -> list[str]:
        """For this process, and for workers that start from now on. Raises ConfigError, and then nothing has changed."""
        fresh = settings.parse(text, self.settings.path, os.environ, overrides)
        certificates(fresh)
        if self.http is not None:
            self.http.reload()
        needing = settings.restart_needed(self.settings, fresh)
        self.settings, self._text, self.overrides = fresh, text, overrides
        log.configure(fresh.process.log_format, fresh.process.log_level)
        return needing

    async def _tell_all(self, needing: list[str]) -> Taken:
        speaking = self.crew.members(starting=True)
        asked = [process for process in self.crew.processes.values() if process.number in speaking]
        without = await tell_all(asked, self._orders())
        _log.info("configuration reloaded", needs_restart=needing, without=without)
        return {"needs_restart": needing, "without": without}

    async def _shutdown(self, wait: bool) -> Result:
        self.shutdown(wait)
        return None

    def shutdown(self, wait: bool) -> None:
        """A second time, or at once: without waiting."""
        if not wait or self._wants_to_stop.is_set():
            self._stop_at_once.set()
        self._wants_to_stop.set()

    # --- upgrade in place ---------------------------------------------------------------------------

    async def upgrade(self) -> Result:
        """Replaces the program by what is installed now. Returns before it happens. Raises if it must not."""
        if self._upgrading or self.crew.ending:
            raise InvalidParameter("an upgrade or a shutdown is under way")
        self._upgrading = True
        try:
            await upgrading.try_program(self.settings.path)
        except BaseException:
            self._upgrading = False
            raise
        self._spawn(self._exec())
        return None

    async def _exec(self) -> None:
        _log.info("upgrading", version=self.version)
        if self.http is not None:
            await self.http.rest()
        await upgrading.come_to_rest(self.crew, self.permits.vault)
        processes, self.crew.resting = list(self.crew.processes.values()), True
        for process in processes:
            process.channel.pause()
        try:
            await upgrading.until_all_is_said(processes)
            if self.http is not None:
                await self.http.stop()
            self._replace_program()
        except Exception as error:
            _log.exception("the upgrade has failed, nothing has changed", error)
        self.crew.resting = False
        for process in processes:
            process.channel.resume()
        if self.http is not None and self._http_sock is not None:
            await self.http.stop()  # it may have failed before that
            await self.http.serve(self._http_sock.dup())
        self._upgrading = False

    def _replace_program(self) -> None:
        """Does not return, unless it fails."""
        rows, descriptors = upgrading.workers(self.crew, self.permits.vault)
        descriptors += [sock.fileno() for sock in self.crew.sockets.all()]
        http = self._http_sock.fileno() if self._http_sock is not None else None
        if http is not None:
            descriptors.append(http)
        left = {
            "workers": rows,
            "next_number": self.crew.next_number,
            "sockets": self.crew.sockets.hand_on(),
            "http": http,
            "text": self._text,
            "overrides": self.overrides,
            "fleet": self.fleet.hand_on(),
            "stakes": self.permits.hand_on(),
        }
        fd = heritage.write(left, descriptors)
        try:
            heritage.replace_program(fd, descriptors)
        finally:
            os.close(fd)

    # --- the end ------------------------------------------------------------------------------------

    async def until_told_to_stop(self) -> None:
        """Returns when it shall stop and, unless at once, all workers have drained."""
        await self._wants_to_stop.wait()
        if self._stop_at_once.is_set():
            return
        timeout = self.settings.process.shutdown_timeout
        _log.info("draining", timeout=timeout)
        drain = asyncio.ensure_future(self.crew.drain(timeout))
        at_once = asyncio.ensure_future(self._stop_at_once.wait())
        await asyncio.wait({drain, at_once}, return_when=asyncio.FIRST_COMPLETED)
        if not drain.done():
            drain.cancel()
            _log.warning("drain given up")
        at_once.cancel()

    async def stop(self) -> None:
        await self.crew.stop()
        await self.permits.close()
        for task in self._tasks:
            task.cancel()
        if self.http is not None:
            http, self.http = self.http, None
            await http.stop()
        if self._http_sock is not None:
            self._http_sock.close()
        _log.info("stopped")
