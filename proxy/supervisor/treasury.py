"""Speaks with Redis for the stakes of this proxy in the caps of its fleet (see admission/stakes.py).

One request at a time, on a connection that is thrown away when an answer is late: what was said on it may still be
done, and is then void. No transaction waits for any of this but one that finds the proxy's share used up.

States: UP while answers come, else down, which the log says once, with for how long the share is still good.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
from collections.abc import Callable
from time import monotonic
from typing import Any

from redis.asyncio import Redis as Client
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from proxy import log
from proxy.admission.stakes import LAST, SOFT, Demand, Row, Rule, Stakes
from proxy.control.views import FleetRow
from proxy.supervisor.deal import SCRIPT

_log = log.get("fleet")
_LAYOUT = 1  # of keys and values
_ANSWER = 0.5
_TICKS = 20  # in a ttl, at least
_SLOWEST_TICK = 0.25
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_FAILURES = (RedisError, OSError, TimeoutError, ValueError)


class Treasury:
    """`changed` is called with counters whose share is another, `over` with what has to end, with `True` by all means;
    `ticks` from time to time."""

    def __init__(
        self,
        url: str,
        name: str,
        rule: Rule,
        demand: Demand,
        changed: Callable[[list[str]], None],
        over: Callable[[bool, list[tuple[str, int]]], None],
        ticks: Callable[[], None],
    ) -> None:
        self.stakes = Stakes(secrets.token_hex(8), rule, demand, self._hurry)
        self.rule = rule
        self.up = False
        self.since = monotonic()
        self.reason = "not asked yet"
        self._url = url
        self._prefix = f"tiergate:fleet:{_LAYOUT}:{{{name}}}:"
        self._answer = min(_ANSWER, rule.ttl / 8)
        self._changed = changed
        self._over = over
        self._ticks = ticks
        self._client: Client | None = None
        self._wake = asyncio.Event()
        self._crowded = False
        self._closing = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._run()), loop.create_task(self._watch())]

    def _hurry(self) -> None:
        self._wake.set()

    # --- the conversation -----------------------------------------------------------------------------

    async def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._closing:
            self._wake.clear()
            due = self.stakes.due(monotonic())
            if due:
                try:
                    async with asyncio.timeout(due):
                        await self._wake.wait()
                    continue  # it may be due earlier now
                except TimeoutError:
                    pass
            try:
                changed = self.stakes.heard(await self._ask(self.stakes.request(monotonic())), monotonic())
            except (
                Exception
            ) as error:  # also of an answer that is none: whatever it is, the next may be better
                if not isinstance(error, _FAILURES):
                    _log.exception("a request to redis failed", error)
                self._is_down(str(error) or type(error).__name__)
                await self._hang_up()
                await asyncio.sleep(min(pause, self.rule.ttl / 16) * random.uniform(0.5, 1.0))  # noqa: S311
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                pause = _FIRST_PAUSE
                self._changed(changed)
                if self.stakes.differs:
                    self._is_down("the others have another fleet_size, fleet_reserve or fleet_ttl")
                else:
                    self._is_up()

    async def _ask(self, what: dict[str, Any]) -> dict[str, Any]:
        async with asyncio.timeout(self._answer):
            if self._client is None:
                self._client = Client.from_url(
                    self._url, retry=Retry(NoBackoff(), 0), single_connection_client=True
                )
                _forgets_nothing(await self._client.info("memory"))
            body = json.dumps(what, separators=(",", ":"))
            answer = self._client.eval(SCRIPT, 1, self._prefix, body, secrets.token_hex(8))
            said: dict[str, Any] = json.loads(await answer)
            return said

    async def _hang_up(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            try:
                async with asyncio.timeout(self._answer):
                    await client.aclose()
            except _FAILURES:
                pass  # it is nobody's any more

    def _is_up(self) -> None:
        if not self.up:
            self.up, self.since, self.reason = True, monotonic(), ""
            _log.info("redis of the fleet reached")
        crowded = self.stakes.others >= self.rule.size
        if crowded and not self._crowded:
            _log.error("more proxies than fleet_size", size=self.rule.size, proxies=self.stakes.others + 1)
        self._crowded = crowded

    def _is_down(self, reason: str) -> None:
        first = self.up or self.reason == "not asked yet"
        if self.up:
            self.since = monotonic()
        self.up, self.reason = False, reason
        changed = self.stakes.lost()
        if first:
            left = max(0.0, LAST * self.rule.ttl - self.stakes.silence(monotonic()))
            _log.error("redis of the fleet lost", reason=reason, share_kept_for=round(left, 1))
        self._changed(changed)

    # --- time -----------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while not self._closing:
            try:
                self._tick(monotonic())
            except Exception as error:
                _log.exception("the time of shares could not be looked at", error)
            await asyncio.sleep(min(_SLOWEST_TICK, self.rule.ttl / _TICKS))

    def _tick(self, now: float) -> None:
        before = self.stakes.cut
        changed = self.stakes.tick(now)
        if self.stakes.cut and not before and self.stakes.rows():
            _log.error("no answer of redis for too long: caps are this proxy's fixed part of them")
        self._changed(changed)
        by_all_means, what = self.stakes.excess(now)
        if what:
            self._over(by_all_means, what)
        self._ticks()

    # --- what is seen ---------------------------------------------------------------------------------

    def row(self) -> FleetRow:
        stakes, now = self.stakes, monotonic()
        state = "cut" if stakes.cut else "joined" if stakes.joined and stakes.settled else "joining"
        left = max(0, int(SOFT * self.rule.ttl - stakes.silence(now))) if stakes.joined else 0
        return FleetRow(
            int(self.up), int(now - self.since), self.reason, state, stakes.others + 1, self.rule.size, left
        )

    def seen(self) -> tuple[bool, bool, int, list[Row]]:
        return self.up, self.stakes.cut, self.stakes.others + 1, self.stakes.rows()

    # --- the end --------------------------------------------------------------------------------------

    async def close(self, gives_back: bool) -> None:
        """`gives_back`: nothing is used any more."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:  # a client library may keep a cancellation for itself
            await asyncio.wait(self._tasks)
        if self._tasks and self.up and gives_back:
            await self._hang_up()
            try:
                await self._ask(self.stakes.leave())
            except _FAILURES as error:
                _log.warning("the share of the fleet's caps was not given back", reason=str(error))
        await self._hang_up()
        self._tasks = []


def _forgets_nothing(memory: dict[str, Any]) -> None:
    """Raises ValueError for a Redis that drops what it likes: it would deal out anew what somebody has."""
    policy = str(memory.get("maxmemory_policy", ""))
    if memory.get("maxmemory") and policy.startswith("allkeys"):
        raise ValueError(f"it evicts keys that do not expire (maxmemory-policy {policy})")
