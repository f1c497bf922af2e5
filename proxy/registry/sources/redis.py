"""Copies of rows in Redis (or Valkey), which the proxies of a fleet share.

A copy is good as long as it carries the generation of all copies and the stamp of its name. A change raises the stamp
before anybody reads the row anew; a lost feed raises the generation. So a copy that was made of an old row, however
late, is void as soon as it is there, and nothing needs to be deleted. Stamps outlive every copy that could carry them.

UP while the channel of changes is subscribed; only then copies are read and made. While it also hears the registry's own
changes a process is on watch. Whoever was and has lost either may have missed to make copies void, so its return raises
the generation. Whoever begins has missed nothing if another has been on watch since before: that one has seen to it. So
a proxy that is restarted among others, and all workers of a host but one, leave the copies as they are. That another
is on watch is told by its name in a list, with the time when it last said so, and by its subscription to a channel of
its own, which ends with its process. Nothing of all this is an error to anybody: without Redis the registry's database is
asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from time import monotonic
from typing import Any

from redis.asyncio import Redis as Client
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from proxy import log
from proxy.registry.rows import Row
from proxy.registry.sources import State, Ticket

_log = log.get("registry")
_LAYOUT = 1  # of keys and values
_COPY_TTL = 3600  # seconds
_STAMP_TTL = 2 * _COPY_TTL
_ANSWER = 0.5
_PING_EVERY = 5.0
_SILENCE = 15  # seconds after which nobody is on watch who has not said so again
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_FAILURES = (RedisError, OSError, TimeoutError, ValueError)


# Keys: the generation, who is on watch. Arguments: who comes, whether it has missed nothing if others are there, how long
# names are good, and who is in the list but gone.
_TAKE_WATCH = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[3])
redis.call('ZREM', KEYS[2], unpack(ARGV, 4))
redis.call('ZREM', KEYS[2], ARGV[1])
if ARGV[2] == '0' or redis.call('ZCARD', KEYS[2]) == 0 then
    redis.call('INCR', KEYS[1])
end
redis.call('ZADD', KEYS[2], now, ARGV[1])
"""


class Redis:
    """`registry` says whose copies they are: several registries may use one Redis. `hears` says whether the registry's own
    changes are heard at this moment."""

    def __init__(
        self,
        url: str,
        registry: str,
        heard: Callable[[list[str]], None],
        hears: Callable[[], bool] = lambda: True,
    ) -> None:
        self.state = State(False, monotonic())
        digest = hashlib.sha256(registry.encode()).hexdigest()[:12]
        self._prefix = f"tiergate:registry:{_LAYOUT}:{digest}:"
        self._channel = self._prefix + "changes"
        self._generation = self._prefix + "generation"
        self._watchers = self._prefix + "watchers"
        self._heard = heard
        self._hears = hears
        self._has_heard = False  # the registry's feed has begun, once at least
        self._was_on_watch = False
        self._client: Client = Client.from_url(
            url,
            socket_timeout=_ANSWER,
            socket_connect_timeout=_ANSWER,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )
        self._me = f"{random.getrandbits(64):x}"
        self._lost = asyncio.Event()
        self._served = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self.state.up:
            with contextlib.suppress(*_FAILURES):
                await self._client.zrem(self._watchers, self._me)
        await self._client.aclose()

    # --- the feed -------------------------------------------------------------------------------------

    async def _run(self) -> None:
        pause = _FIRST_PAUSE
        failed = False
        while True:
            try:
                await self._serve()
                reason = self.state.reason
            except _FAILURES as error:
                reason = str(error) or type(error).__name__
            was_up, self._served = self._served, False
            if was_up:
                pause, failed = _FIRST_PAUSE, False
            if not failed:
                _log.warning("redis lost" if was_up else "redis cannot be reached", reason=reason)
            failed = True
            self.state = State(False, monotonic() if was_up else self.state.since, reason)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _serve(self) -> None:
        """Until the feed is lost, or an answer fails."""
        self._lost.clear()
        async with self._client.pubsub() as feed:
            await feed.subscribe(self._channel, self._own_channel(self._me))
            for _ in range(2):
                said = await feed.get_message(timeout=_ANSWER)
                if said is None or said["type"] != "subscribe":
                    raise TimeoutError
            if self._has_heard:
                await self._take_watch()
            self._served = True
            self.state = State(True, monotonic())
            heard = pinged = monotonic()
            while not self._lost.is_set():
                said = await feed.get_message(timeout=_ANSWER)
                now = monotonic()
                if said is not None:
                    heard = now
                    self._take(said)
                elif now - heard > 2 * _PING_EVERY:
                    raise TimeoutError
                if now - pinged > _PING_EVERY:
                    pinged = now
                    await feed.ping()
                    await self._stay_on_watch()

    def _take(self, said: Mapping[str, Any]) -> None:
        if said["type"] == "subscribe":
            raise RedisError("subscribed again: the connection was another")
        if said["type"] != "message":
            return
        try:
            sender, names = json.loads(said["data"])
        except (ValueError, TypeError):
            return
        if sender != self._me:
            self._heard([str(name) for name in names])

    def _fails(self, error: BaseException) -> None:
        """What it should have done it may not have done: it starts anew."""
        if self.state.up:
            self.state = State(False, monotonic(), str(error) or type(error).__name__)
        self._lost.set()

    # --- copies ---------------------------------------------------------------------------------------

    async def get(self, names: Sequence[str]) -> tuple[dict[str, Row], Ticket]:
        """The copies that are good, and the ticket for those that are not there; an empty one where none may be made."""
        if not (names and self.state.up):
            return {}, Ticket("", {})
        keys = [self._generation]
        for name in names:
            keys += (self._stamp(name), self._copy(name))
        try:
            said: list[Any] = list(await self._client.mget(keys))
        except _FAILURES as error:
            self._fails(error)
            return {}, Ticket("", {})
        ticket = Ticket(said[0] or "0", {name: said[1 + 2 * at] or "0" for at, name in enumerate(names)})
        rows = {}
        for at, name in enumerate(names):
            row = _good(said[2 + 2 * at], ticket, name)
            if row is not None:
                rows[name] = row
        return rows, ticket

    async def put(self, rows: Mapping[str, Row], ticket: Ticket) -> None:
        if not self.state.up:
            return
        pipeline = self._client.pipeline(transaction=False)
        for name, row in rows.items():
            copy = f"{ticket.generation} {ticket.stamps[name]} {row.to_json()}"
            pipeline.set(self._copy(name), copy, ex=_COPY_TTL)
        try:
            await pipeline.execute()
        except _FAILURES as error:
            self._fails(error)

    async def invalidate(self, names: Collection[str]) -> None:
        if not self.state.up:
            return
        pipeline = self._client.pipeline(transaction=False)
        for name in names:
            pipeline.incr(self._stamp(name))
            pipeline.expire(self._stamp(name), _STAMP_TTL)
        pipeline.publish(self._channel, json.dumps([self._me, sorted(names)]))
        try:
            await pipeline.execute()
        except _FAILURES as error:
            self._fails(error)

    async def renew(self) -> None:
        self._has_heard = True
        if not self.state.up:
            return  # when it is, it is done
        try:
            await self._take_watch()
        except _FAILURES as error:
            self._fails(error)

    # --- who is on watch ------------------------------------------------------------------------------

    async def _take_watch(self) -> None:
        """All copies are void, unless this process begins and another has been on watch."""
        client: Any = self._client
        begins, gone = not self._was_on_watch, [""]
        if begins:
            names = list(await client.zrange(self._watchers, 0, -1))
            present = await client.pubsub_numsub(*map(self._own_channel, names)) if names else []
            gone += [name for name, (_, count) in zip(names, present, strict=True) if not int(count)]
        await client.eval(
            _TAKE_WATCH, 2, self._generation, self._watchers, self._me, int(begins), _SILENCE, *gone
        )
        self._was_on_watch = True

    async def _stay_on_watch(self) -> None:
        if not self._was_on_watch:
            return
        client: Any = self._client
        if self._hears():
            seconds, _ = await client.time()
            await client.zadd(self._watchers, {self._me: seconds})
        else:
            await client.zrem(self._watchers, self._me)

    def _own_channel(self, name: str) -> str:
        return f"{self._prefix}watch:{name}"

    def _stamp(self, name: str) -> str:
        return f"{self._prefix}stamp:{name}"

    def _copy(self, name: str) -> str:
        return f"{self._prefix}copy:{name}"


def _good(copy: str | None, ticket: Ticket, name: str) -> Row | None:
    if not copy:
        return None
    generation, _, rest = copy.partition(" ")
    stamp, _, text = rest.partition(" ")
    if generation != ticket.generation or stamp != ticket.stamps[name]:
        return None
    return Row.from_json(text)
