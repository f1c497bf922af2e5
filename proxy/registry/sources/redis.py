"""Copies of rows in Redis (or Valkey), which the proxies of a fleet share.

A copy is good as long as it carries the generation of all copies and the stamp of its name. A change raises the stamp
before anybody reads the row anew; a lost feed raises the generation. So a copy that was made of an old row, however
late, is void as soon as it is there, and nothing needs to be deleted. Stamps outlive every copy that could carry them.

UP while the channel of changes is subscribed; only then copies are read and made. A process is on watch while it also
hears the registry's own changes and no change has escaped it: then all copies that are there are good, or are being
made void by it. Whoever begins, and whoever has lost a feed and has it back, asks for somebody on watch. If one vouches,
with an answer of the registry behind which no change can stand, nothing was missed, and it is on watch as well. If
nobody does, all copies become void, unless somebody has seen to that since it asked. So a fleet that starts, or loses
its registry, makes them void once, a proxy that is restarted among others not at all, and one that lost power without
anybody noticing cannot vouch. Nothing of all this is an error to anybody: without Redis the registry's database is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from time import monotonic
from typing import Any

from redis.asyncio import Redis as Client
from redis.asyncio.client import PubSub
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
_LOOK = 0.5  # seconds after which whoever listens looks whether it still should
_PING_EVERY = 5.0
_PATIENCE = 0.4  # seconds in which somebody must vouch
_SPREAD = 0.1  # seconds over which those who can take turns, so that one does
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_FAILURES = (RedisError, OSError, TimeoutError, ValueError)


# Key: the generation. Argument: what it was when whoever raises it already heard all changes.
_RAISE = """
if (redis.call('GET', KEYS[1]) or '0') == ARGV[1] then redis.call('INCR', KEYS[1]) end
"""


async def _always() -> bool:
    return True


class Redis:
    """`registry` says whose copies they are: several registries may use one Redis. `hears` asks the registry whether all its
    changes until now have been heard, and waits until the copies that they concern are void."""

    def __init__(
        self,
        url: str,
        registry: str,
        heard: Callable[[list[str]], None],
        hears: Callable[[], Awaitable[bool]] = _always,
    ) -> None:
        self.state = State(False, monotonic())
        digest = hashlib.sha256(registry.encode()).hexdigest()[:12]
        self._prefix = f"tiergate:registry:{_LAYOUT}:{digest}:"
        self._channel = self._prefix + "changes"
        self._generation = self._prefix + "generation"
        self._watch = self._prefix + "watch"
        self._heard = heard
        self._hears = hears
        self._has_heard = False  # the registry's feed has begun, once at least
        self._there = False  # the channel is subscribed, and nothing has failed since
        self._on_watch = False
        self._losses = 0  # of either feed: a watch that was begun before one is none
        self._asking: dict[str, asyncio.Future[None]] = {}
        self._vouched: deque[str] = deque(maxlen=256)  # questions that somebody has answered
        self._tasks: set[asyncio.Task[None]] = set()
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
            self._there = False
            self._lose_watch()
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
            await feed.subscribe(self._channel, self._watch)
            for _ in range(2):
                said = await feed.get_message(timeout=_ANSWER)
                if said is None or said["type"] != "subscribe":
                    raise TimeoutError
            self._lose_watch()
            self._there = True
            try:
                if self._has_heard:
                    self._spawn(self._rise_on_watch())
                else:
                    self._rise()
                await self._follow(feed)
            finally:
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    def _rise(self) -> None:
        self._served = True
        self.state = State(True, monotonic())

    async def _rise_on_watch(self) -> None:
        try:
            await self._take_watch()
        except _FAILURES as error:
            self._fails(error)
        else:
            self._rise()

    async def _follow(self, feed: PubSub) -> None:
        heard = pinged = monotonic()
        while not self._lost.is_set():
            said = await feed.get_message(timeout=_LOOK)
            now = monotonic()
            if said is not None:
                heard = now
                self._take(said)
            elif now - heard > 2 * _PING_EVERY:
                raise TimeoutError
            if now - pinged > _PING_EVERY:
                pinged = now
                await feed.ping()

    def _take(self, said: Mapping[str, Any]) -> None:
        if said["type"] == "subscribe":
            raise RedisError("subscribed again: the connection was another")
        if said["type"] != "message":
            return
        try:
            sender, *words = json.loads(said["data"])
            if sender == self._me:
                return
            if said["channel"] == self._watch:
                self._take_word(*words)
            else:
                (names,) = words
                self._heard([str(name) for name in names])
        except (ValueError, TypeError):
            return

    def _take_word(self, word: str, question: str) -> None:
        if word == "who" and self._on_watch:
            self._spawn(self._vouch(question))
        elif word == "I":
            self._vouched.append(question)
            asking = self._asking.get(question)
            if asking is not None and not asking.done():
                asking.set_result(None)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _fails(self, error: BaseException) -> None:
        """What it should have done it may not have done: it starts anew."""
        if self.state.up:
            self.state = State(False, monotonic(), str(error) or type(error).__name__)
        self._there = False
        self._lose_watch()
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
        if not self._there:
            return  # before it is on watch again, all it has missed is made void
        pipeline = self._client.pipeline(transaction=False)
        for name in names:
            pipeline.incr(self._stamp(name))
            pipeline.expire(self._stamp(name), _STAMP_TTL)
        pipeline.publish(self._channel, json.dumps([self._me, sorted(names)]))
        try:
            await pipeline.execute()
        except _FAILURES as error:
            self._fails(error)

    async def renew(self, *, begins: bool) -> None:
        self._has_heard = True
        self._lose_watch()
        if not self.state.up:
            return  # when it is, it is done
        try:
            await self._take_watch(ask=begins)
        except _FAILURES as error:
            self._fails(error)

    # --- who is on watch ------------------------------------------------------------------------------

    def _lose_watch(self) -> None:
        self._on_watch = False
        self._losses += 1

    async def _take_watch(self, *, ask: bool = True) -> None:
        """Both feeds are there. What has been missed before is void afterwards; without `ask`, everything."""
        losses = -1
        while losses != self._losses:
            losses = self._losses
            seen = await self._client.get(self._generation) or "0"
            if not (ask and await self._somebody_vouches()):
                client: Any = self._client
                await client.eval(_RAISE, 1, self._generation, seen)
        self._on_watch = True

    async def _somebody_vouches(self) -> bool:
        question = f"{random.getrandbits(64):x}"
        asking = self._asking[question] = asyncio.get_running_loop().create_future()
        try:
            await self._client.publish(self._watch, json.dumps([self._me, "who", question]))
            async with asyncio.timeout(_PATIENCE):
                await asking
        except TimeoutError:
            return False
        finally:
            del self._asking[question]
        return True

    async def _vouch(self, question: str) -> None:
        losses = self._losses
        await asyncio.sleep(random.uniform(0, _SPREAD))  # noqa: S311
        if question in self._vouched or not await self._hears():
            return
        if self._on_watch and losses == self._losses:
            with contextlib.suppress(*_FAILURES):  # then somebody else does, or nobody
                await self._client.publish(self._watch, json.dumps([self._me, "I", question]))

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
