"""Several workers as one: who is asked, what becomes of the answers, and of those that do not come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from proxy.control import counts as counting
from proxy.control import fleet
from proxy.control.counts import Counts
from proxy.control.fleet import Fleet, Result
from proxy.control.views import View
from proxy.errors import InvalidParameter
from proxy.net.channel import ChannelLost, NoAnswer


class Member:
    """A worker that answers what the test says, and notes what it was asked."""

    version = "1"

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.asked: list[tuple[str, ...]] = []
        self.before: Callable[[], Awaitable[None]] | None = None
        self.queries = 0

    async def _said(self, *asked: str) -> Any:
        self.asked.append(asked)
        if self.before is not None:
            await self.before()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def view(self, name: str, *words: str) -> View:
        answer: View = await self._said("view", name, *words)
        return answer

    async def act(self, verb: str, *words: str) -> Result:
        answer: Result = await self._said(verb, *words)
        return answer

    async def counts(self) -> Counts:
        await self._said("counts")
        found = counting.empty()
        found["counters"]["process"] = {"cancels": self.queries}
        return found

    async def problems(self) -> list[str]:
        answer: list[str] = await self._said("problems")
        return answer


class House:
    version = "1"

    def __init__(self, *problems: str) -> None:
        self.problems = list(problems)

    def own_view(self, name: str) -> View | None:
        return View(("own",), []) if name == "config" else None

    def own_act(self, verb: str, words: tuple[str, ...]) -> Awaitable[Result] | None:
        async def reload() -> Result:
            return ["workers"]

        return reload() if verb == "reload" else None

    def own_problems(self) -> list[str]:
        return self.problems

    def own_counts(self) -> Counts:
        return counting.empty()


def make(*members: Member, problems: tuple[str, ...] = ()) -> tuple[Fleet, dict[int, Member]]:
    by_number = dict(enumerate(members, 1))
    return Fleet(House(*problems), lambda *, starting=False: by_number), by_number


def run(work: Awaitable[Any]) -> Any:
    async def main() -> Any:
        return await work

    return asyncio.run(main())


def test_what_the_supervisor_does_itself_is_asked_of_nobody() -> None:
    one = Member()
    all_, _ = make(one)
    assert run(all_.view("config")).columns == ("own",)
    assert run(all_.act("reload")) == ["workers"]
    assert one.asked == []


@pytest.mark.parametrize("error", [ChannelLost("gone"), NoAnswer("late")])
def test_a_worker_that_is_gone_or_late_is_left_out(error: Exception) -> None:
    rows = View(("name", "clients", "servers"), [("t", 1, 1)])
    all_, _ = make(Member(rows), Member(error), Member(rows))
    assert run(all_.view("tiers")).rows == [("t", 2, 2)]
    all_, _ = make(Member(error))
    with pytest.raises(ChannelLost):
        run(all_.view("tiers"))


def test_a_refusal_is_one_only_if_all_refuse() -> None:
    refusal = InvalidParameter("not paused")
    all_, members = make(Member(refusal), Member(None))
    assert run(all_.act("resume", "*")) is None
    assert all(member.asked == [("resume", "*")] for member in members.values())
    all_, _ = make(Member(refusal), Member(refusal))
    with pytest.raises(InvalidParameter):
        run(all_.act("resume", "*"))


def test_a_bug_is_not_hidden() -> None:
    all_, _ = make(Member(KeyError("x")), Member(None))
    with pytest.raises(KeyError):
        run(all_.act("resume", "*"))


def test_what_was_paused_is_kept_for_workers_to_come() -> None:
    all_, members = make(Member(None), Member(None))
    run(all_.act("pause", "a"))
    run(all_.act("pause", "b"))
    assert all_.paused == {"a", "b"}
    run(all_.act("resume", "a"))
    assert all_.paused == {"b"}
    members[1].answer = members[2].answer = ["cluster", "c"]
    run(all_.act("kill", "c"))
    members[1].answer = members[2].answer = ["tenant", "t"]
    run(all_.act("kill", "t"))
    assert all_.paused == {"b", "c"}
    for member in members.values():
        member.answer = InvalidParameter("no such cluster")
    for verb in ("pause", "resume"):
        with pytest.raises(InvalidParameter):
            run(all_.act(verb, "x"))
    assert all_.paused == {"b", "c"}
    for member in members.values():
        member.answer = None
    run(all_.act("resume", "*"))
    assert all_.paused == set()


def test_what_was_disabled_is_kept_as_what_it_meant() -> None:
    all_, members = make(Member(["tenant", "acme"]))
    run(all_.act("disable", "0d0b5f4c-aaaa-bbbb-cccc-1234567890ab"))
    assert all_.disabled == {("tenant", "acme")}
    run(all_.act("enable", "acme", "tenant"))
    assert all_.disabled == set()
    members[1].answer = InvalidParameter("does not exist")
    with pytest.raises(InvalidParameter):
        run(all_.act("disable", "x"))
    assert all_.disabled == set()


def test_a_worker_that_comes_in_between_is_told_too() -> None:
    late = Member(["tenant", "acme"])
    one = Member(["tenant", "acme"])
    all_, members = make(one)

    async def join() -> None:
        members[2] = late

    one.before = join
    run(all_.act("disable", "acme"))
    assert late.asked == [("disable", "acme")]
    assert one.asked == [("disable", "acme")]


def test_a_client_is_killed_where_it_is() -> None:
    all_, members = make(Member(None), Member(None))
    run(all_.act("kill_client", "2:0x7f"))
    assert (members[1].asked, members[2].asked) == ([], [("kill_client", "0x7f")])
    run(all_.act("kill_client", str((1 << 47) + 55)))
    assert members[1].asked == [("kill_client", "55")]
    run(all_.act("kill_client", "0x80"))
    assert members[1].asked[1:] == members[2].asked[1:] == [("kill_client", "0x80")]
    with pytest.raises(InvalidParameter):
        run(all_.act("kill_client", "9:0x7f"))


def test_counts_never_go_back() -> None:
    all_, members = make(Member(), Member())

    def cancels() -> int:
        found: int = run(all_.counts())["counters"]["process"]["cancels"]
        return found

    members[1].queries, members[2].queries = 5, 7
    assert cancels() == 12
    members[1].answer = NoAnswer("late")
    members[2].queries = 8
    assert cancels() == 13
    all_.told(1, {"counters": {"process": {"cancels": 6}}, "gauges": {}, "most": {}})
    del members[1]
    all_.ended(1)
    assert cancels() == 14
    members[3] = Member()
    assert cancels() == 14
    members[3].queries = 1
    assert cancels() == 15


def test_an_upgrade_keeps_what_was_said_and_counted() -> None:
    stats = View(("database", "user", "cluster", "total_query_count"), [("d", "u", "c", 5)])
    all_, members = make(Member(stats))
    members[1].queries = 5
    run(all_.view("stats"))
    run(all_.counts())
    all_.paused.add("p")
    all_.disabled.add(("tenant", "t"))
    after, members = make(Member(stats), Member(stats))
    after.adopt(json.loads(json.dumps(all_.hand_on())))
    assert (after.paused, after.disabled) == ({"p"}, {("tenant", "t")})
    after.ended(1)
    del members[1]
    assert run(after.counts())["counters"]["process"]["cancels"] == 5
    assert run(after.view("stats")).rows == [("d", "u", "c", 10)]


def test_problems_are_those_of_all_workers() -> None:
    all_, members = make(Member(["draining", "down"]), Member(["down"]))
    assert run(all_.problems()) == ["down"]
    members[2].answer = []
    assert run(all_.problems()) == []
    members[1].answer = members[2].answer = ChannelLost("gone")
    assert run(all_.problems()) == ["no worker serves"]
    all_, _ = make(Member([]), problems=("draining",))
    assert run(all_.problems()) == ["draining"]


def test_both_ends_of_a_channel_understand_each_other() -> None:
    one = Member(View(("a", "b"), [(1, "x"), (None, 2.5)]))

    class Wire:
        """A channel that hands over what JSON makes of it."""

        async def ask(self, kind: str, timeout: float | None = 5.0, **fields: Any) -> Any:
            async def control() -> Any:
                return one

            answer = fleet.handlers(control)[kind](json.loads(json.dumps(fields)))
            assert isinstance(answer, Awaitable)
            return json.loads(json.dumps(await answer))

    remote = fleet.Remote(Wire(), "1")  # type: ignore[arg-type]
    assert run(remote.view("clients", "x")) == one.answer
    one.answer = ["k"]
    assert run(remote.act("kill", "std_1")) == ["k"]
    assert run(remote.problems()) == ["k"]
    one.queries = 3
    assert run(remote.counts())["counters"]["process"] == {"cancels": 3}
    assert one.asked == [("view", "clients", "x"), ("kill", "std_1"), ("problems",), ("counts",)]
