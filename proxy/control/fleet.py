"""What operators see and do when several workers serve: every one is asked, and the answers become one.

`Control` is all that a face (console, HTTP) knows. Behind it stands the one process of a small installation, the
supervisor's `Fleet`, or, for a console that a worker has taken, `Remote`, which asks the supervisor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypedDict

from proxy import log
from proxy.control import counts as counting
from proxy.control import merging
from proxy.control.counts import Counts
from proxy.control.views import View
from proxy.errors import NoSuchName, TiergateError
from proxy.net.channel import Channel, ChannelLost, Fields, Handler, NoAnswer


class Taken(TypedDict):
    """What came of a configuration: keys that need a restart, and the workers that have not said that they have it."""

    needs_restart: list[str]
    without: list[int]


Result = int | list[str] | Taken | None

_log = log.get("fleet")
_SEEN = 10.0  # seconds within which a worker must have told what it sees
_SCRAPED = 3.0  # and what it has counted: who scrapes waits 10
# These wait for transactions, for another program, or for much to be read.
_SLOW_VERBS = frozenset({"pause", "wait_close", "upgrade", "reload", "set"})


class Control(Protocol):
    """`view` is a SHOW by its name, `act` a verb; both raise a TiergateError that says why they could not."""

    version: str

    async def view(self, name: str, *words: str) -> View: ...
    async def act(self, verb: str, *words: str) -> Result: ...
    async def counts(self) -> Counts: ...
    async def problems(self) -> list[str]: ...


class House(Protocol):
    """What the supervisor answers and does itself."""

    version: str

    def own_view(self, name: str) -> View | None: ...
    def own_act(self, verb: str, words: tuple[str, ...]) -> Awaitable[Result] | None: ...
    def own_problems(self) -> list[str]: ...
    def own_counts(self) -> Counts: ...


# --- over a channel ---------------------------------------------------------------------------------


class Remote:
    """Asks the other end of a channel, which has `handlers`."""

    def __init__(self, channel: Channel, version: str) -> None:
        self.version = version
        self._channel = channel

    async def view(self, name: str, *words: str) -> View:
        seen = _SCRAPED if name == "registry" else _SEEN  # which /readyz tells of
        answer = await self._channel.ask("view", seen, name=name, words=words)
        return View(tuple(answer["columns"]), [tuple(row) for row in answer["rows"]])

    async def act(self, verb: str, *words: str) -> Result:
        timeout = None if verb in _SLOW_VERBS else _SEEN
        result: Result = (await self._channel.ask("act", timeout, verb=verb, words=words))["result"]
        return result

    async def counts(self) -> Counts:
        return await self._channel.ask("counts", _SCRAPED)

    async def problems(self) -> list[str]:
        found: list[str] = (await self._channel.ask("problems", _SCRAPED))["problems"]
        return found


def handlers(control: Callable[[], Awaitable[Control]]) -> dict[str, Handler]:
    """What a `Remote` of the other end asks; answered once there is a `control`."""

    async def view(fields: Fields) -> Fields:
        found = await (await control()).view(fields["name"], *fields["words"])
        return {"columns": found.columns, "rows": found.rows}

    async def act(fields: Fields) -> Fields:
        return {"result": await (await control()).act(fields["verb"], *fields["words"])}

    async def counts(_: Fields) -> Fields:
        return await (await control()).counts()

    async def problems(_: Fields) -> Fields:
        return {"problems": await (await control()).problems()}

    return {"view": view, "act": act, "counts": counts, "problems": problems}


# --- all workers as one -----------------------------------------------------------------------------


class Fleet:
    """`members` gives the workers by number, with starting=True also those that start.

    What was paused or disabled is kept for new ones.
    """

    def __init__(self, house: House, members: Callable[..., Mapping[int, Control]]) -> None:
        self.version = house.version
        self.paused: set[str] = set()
        self.disabled: set[tuple[str, str]] = set()  # kind and name
        self._house = house
        self._members = members
        self._gone = counting.empty()
        self._last: dict[int, Counts] = {}
        self._gone_views: dict[str, View | None] = {}
        self._last_views: dict[str, dict[int, View]] = {}

    # --- seeing -------------------------------------------------------------------------------------

    async def view(self, name: str, *words: str) -> View:
        own = self._house.own_view(name)
        if own is not None:
            return own
        if name == "totals":
            return merging.totals(await self.view("stats"))
        views = await self._all(lambda member: member.view(name, *words))
        how = merging.SUMS.get(name)
        if how is not None and how.counts:
            last = self._last_views.setdefault(name, {})
            for number, view in views.items():
                if number in last:
                    self._keep_view(name, last[number], view)
                last[number] = view
        found = merging.merged(name, views, self._gone_views.get(name))
        if name == "lists":
            pools = len((await self.view("pools")).rows)
            found = View(
                found.columns, [(row[0], pools if row[0] == "pools" else row[1]) for row in found.rows]
            )
        return found

    def _keep_view(self, name: str, last: View, now: View | None) -> None:
        self._gone_views[name] = merging.kept(merging.SUMS[name], self._gone_views.get(name), last, now)

    async def counts(self) -> Counts:
        """A worker that does not answer counts with what it told last."""
        for number, counts in (await self._all(lambda member: member.counts(), least=0)).items():
            self.told(number, counts)
        total = counting.empty()
        counting.add(total, self._gone)
        counting.add(total, self._house.own_counts())
        for counts in self._last.values():
            counting.add(total, counts)
        return total

    def told(self, number: int, counts: Counts) -> None:
        """A worker's counts of now."""
        if number in self._last:
            counting.keep(self._gone, self._last[number], counts)
        self._last[number] = counts

    def ended(self, number: int) -> None:
        """A worker is gone: what it counted stays in the sums."""
        last = self._last.pop(number, None)
        if last is not None:
            counting.keep(self._gone, last, None)
        for name, views in self._last_views.items():
            view = views.pop(number, None)
            if view is not None:
                self._keep_view(name, view, None)

    async def problems(self) -> list[str]:
        """Those of the supervisor, and what every worker complains of."""
        found = self._house.own_problems()
        told = await self._all(lambda member: member.problems(), least=0)
        if not told:
            return [*found, "no worker serves"]
        first, *others = told.values()
        return found + [problem for problem in first if all(problem in other for other in others)]

    # --- an upgrade ---------------------------------------------------------------------------------

    def hand_on(self) -> dict[str, Any]:
        return {
            "paused": sorted(self.paused),
            "disabled": sorted(self.disabled),
            "gone": self._gone,
            "last": self._last,
            "gone_views": self._gone_views,
            "last_views": self._last_views,
        }

    def adopt(self, handed: dict[str, Any]) -> None:
        """What the program before knew, after its way through JSON."""
        self.paused = set(handed["paused"])
        self.disabled = {(kind, name) for kind, name in handed["disabled"]}
        self._gone = handed["gone"]
        self._last = {int(number): counts for number, counts in handed["last"].items()}
        self._gone_views = {name: _view(parts) for name, parts in handed["gone_views"].items()}
        for name, views in handed["last_views"].items():
            found = {int(number): _view(parts) for number, parts in views.items()}
            self._last_views[name] = {number: view for number, view in found.items() if view is not None}

    # --- doing --------------------------------------------------------------------------------------

    async def act(self, verb: str, *words: str) -> Result:
        own = self._house.own_act(verb, words)
        if own is not None:
            return await own
        if verb == "kill_client":
            return await self._kill_client(*words)
        pauses = verb == "pause" and words[0] not in self.paused
        if pauses:  # before it is done, which may take long, and workers may start meanwhile
            self.paused.add(words[0])
        asked: set[int] = set()
        try:
            results = await self._all(lambda member: member.act(verb, *words), starting=True, asked=asked)
        except TiergateError:
            if pauses:
                self.paused.discard(words[0])
            raise
        self._remember(verb, words[0], next(iter(results.values())))
        late = [member for number, member in self._members(starting=True).items() if number not in asked]
        await asyncio.gather(*(member.act(verb, *words) for member in late), return_exceptions=True)
        return None

    def _remember(self, verb: str, name: str, meant: Result) -> None:
        """For workers that start later; `meant` is what the name has meant to those that were asked."""
        named = (str(meant[0]), str(meant[1])) if isinstance(meant, list) else ("cluster", name)
        match verb:
            case "resume":
                self.paused -= self.paused if name == "*" else {name}
            case "kill" if named[0] == "cluster":
                self.paused.add(named[1])
            case "disable":
                self.disabled.add(named)
            case "enable":
                self.disabled.discard(named)

    async def _kill_client(self, which: str) -> Result:
        number, which = merging.whose(which)
        members = {n: member for n, member in self._members().items() if number in (0, n)}
        if not members:
            raise NoSuchName(f"no client {which}")
        await self._all(lambda member: member.act("kill_client", which), of=members)
        return None

    async def _all(
        self,
        ask: Callable[[Control], Awaitable[Any]],
        *,
        least: int = 1,
        starting: bool = False,
        of: Mapping[int, Control] | None = None,
        asked: set[int] | None = None,
    ) -> dict[int, Any]:
        """What the workers answer. A worker that is gone is no error; a refusal is one if all refuse."""
        members = dict(of if of is not None else self._members(starting=starting))
        if asked is not None:
            asked.update(members)
        answers = await asyncio.gather(*(ask(member) for member in members.values()), return_exceptions=True)
        found: dict[int, Any] = {}
        refusals: list[TiergateError] = []
        for number, answer in zip(members, answers, strict=True):
            if isinstance(answer, NoAnswer):
                _log.warning("a worker does not answer", worker=number)
            elif isinstance(answer, TiergateError):
                if not isinstance(answer, ChannelLost):
                    refusals.append(answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                found[number] = answer
        if not found and refusals:
            raise refusals[0]
        if len(found) < least:
            raise ChannelLost("no worker serves at the moment", hint="Try again.")
        return found


def _view(parts: Any) -> View | None:
    return View(tuple(parts[0]), [tuple(row) for row in parts[1]]) if parts is not None else None
