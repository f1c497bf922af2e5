"""One epoll for all sockets of a loop: what is told, to whom, how often, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from proxy.net.readiness import END, IN, OUT, Watched, readiness
from tests.server.fakes import run

Both = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["uvloop", "asyncio"])
def loop_runs(request: pytest.FixtureRequest) -> Both:
    return lambda main: run(main, stdlib=request.param == "asyncio")


class Ear(Watched):
    def __init__(self, told: Callable[[int], object] = lambda events: None) -> None:
        self.heard: list[int] = []
        self.losses: list[Exception | None] = []
        self.told = told

    def ready(self, events: int) -> None:
        self.heard.append(events)
        self.told(events)

    def lost(self, error: Exception | None) -> None:
        self.losses.append(error)
        if error is not None:
            raise error


@contextlib.contextmanager
def pairs(count: int) -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    with contextlib.ExitStack() as stack:
        made = [socket.socketpair() for _ in range(count)]
        for both in made:
            for sock in both:
                sock.setblocking(False)
                stack.enter_context(sock)
        yield made


async def turns(count: int = 6) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_it_tells_once_until_it_is_asked_again(loop_runs: Both) -> None:
    async def main() -> None:
        watch = readiness(asyncio.get_running_loop())
        with pairs(1) as [(ours, theirs)]:
            ear = Ear()
            watch.add(ours.fileno(), ear, False)
            await turns()
            assert ear.heard == []
            theirs.send(b"x")
            await turns()
            assert ear.heard == [IN]
            await turns()
            assert ear.heard == [IN]
            watch.again(ours.fileno(), True, False)
            await turns()
            assert ear.heard == [IN, IN | OUT]
            theirs.send(b"y")
            await turns()
            assert len(ear.heard) == 3
            watch.remove(ours.fileno(), False)
            theirs.send(b"z")
            await turns()
            assert len(ear.heard) == 3

    loop_runs(main())


def test_what_is_there_before_is_told(loop_runs: Both) -> None:
    async def main() -> None:
        watch = readiness(asyncio.get_running_loop())
        with pairs(1) as [(ours, theirs)]:
            theirs.send(b"x")
            ear = Ear()
            watch.add(ours.fileno(), ear, True)
            await turns()
            assert ear.heard == [IN | OUT]
            watch.remove(ours.fileno(), False)

    loop_runs(main())


def test_all_are_told_and_one_that_fails_keeps_it_from_nobody(loop_runs: Both) -> None:
    async def main() -> None:
        reported: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context))
        watch = readiness(loop)
        with pairs(200) as made:
            ears = [Ear(lambda _, n=n: 1 // (n % 10)) for n in range(200)]
            for (ours, _), ear in zip(made, ears, strict=True):
                watch.add(ours.fileno(), ear, False)
            for _, theirs in made:
                theirs.send(b"x")
            await turns(12)
            assert [ear.heard for ear in ears] == [[IN]] * 200
            assert len(reported) == 20
            assert isinstance(reported[0]["exception"], ZeroDivisionError)
            for ours, _ in made:
                watch.remove(ours.fileno(), False)

    loop_runs(main())


def test_who_is_removed_by_another_in_the_same_turn_is_not_told(loop_runs: Both) -> None:
    async def main() -> None:
        watch = readiness(asyncio.get_running_loop())
        with pairs(2) as made:
            numbers = [ours.fileno() for ours, _ in made]
            heard: list[int] = []

            def told(at: int) -> None:
                heard.append(at)
                watch.remove(numbers[1 - at], False)

            for at in (0, 1):
                watch.add(numbers[at], Ear(lambda _, at=at: told(at)), False)
            for _, theirs in made:
                theirs.send(b"x")
            await turns()
            assert len(heard) == 1
            watch.remove(numbers[heard[0]], False)

    loop_runs(main())


def test_who_parts_hears_of_it_when_all_that_was_told_has_been_served(loop_runs: Both) -> None:
    async def main() -> None:
        reported: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context))
        watch = readiness(loop)
        with pairs(3) as made:
            order: list[str] = []
            ears: list[Ear] = []

            def told(at: int) -> None:
                order.append(f"{at}, lost so far: {sum(len(ear.losses) for ear in ears)}")
                watch.part(made[at][0].fileno(), ears[at], OSError() if at == 1 else None, False)

            ears += [Ear(lambda _, at=at: told(at)) for at in range(3)]
            for at in range(3):
                watch.add(made[at][0].fileno(), ears[at], False)
            for _, theirs in made:
                theirs.send(b"x")
            while not order:
                await asyncio.sleep(0)
            assert order == [f"{at}, lost so far: 0" for at in range(3)]
            assert [len(ear.losses) for ear in ears] == [1, 1, 1]
            assert len(reported) == 1  # and the one behind it has heard

    loop_runs(main())


def test_who_parts_at_another_time_hears_of_it_later(loop_runs: Both) -> None:
    async def main() -> None:
        watch = readiness(asyncio.get_running_loop())
        with pairs(2) as made:
            ears = [Ear(), Ear()]
            for (ours, _), ear in zip(made, ears, strict=True):
                watch.add(ours.fileno(), ear, False)
            for (ours, _), ear in zip(made, ears, strict=True):
                watch.part(ours.fileno(), ear, None, False)
            assert [ear.losses for ear in ears] == [[], []]
            await turns(2)
            assert [ear.losses for ear in ears] == [[None], [None]]

    loop_runs(main())


def test_nothing_is_left_of_it_when_nobody_is_watched(loop_runs: Both) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pairs(2) as [(one, theirs), (two, _)]:
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(3):
                watch = readiness(loop)
                assert readiness(loop) is watch
                ear = Ear(lambda _, watch=watch: watch.remove(one.fileno(), False))
                watch.add(one.fileno(), ear, False)
                watch.add(two.fileno(), Ear(), False)
                assert readiness(loop) is watch
                watch.remove(two.fileno(), False)
                theirs.send(b"x")
                await turns()
                assert one.recv(10) == b"x"
                assert ear.heard == [IN]
                assert len(os.listdir("/proc/self/fd")) == before
                assert readiness(loop) is not watch or not ear.heard
                watch = readiness(loop)
                watch.add(one.fileno(), Ear(), False)
                watch.remove(one.fileno(), False)

    loop_runs(main())


def test_a_descriptor_that_somebody_else_has_as_well_is_forgotten(loop_runs: Both) -> None:
    async def main() -> None:
        watch = readiness(asyncio.get_running_loop())
        with pairs(2) as [(ours, theirs), (other, others)]:
            kept, ear, rest = os.dup(ours.fileno()), Ear(), Ear()
            watch.add(other.fileno(), rest, False)
            watch.add(ours.fileno(), ear, False)
            watch.remove(ours.fileno(), False)
            ours.close()
            theirs.send(b"x")
            others.send(b"x")
            await turns()
            assert (ear.heard, rest.heard) == ([], [IN])
            os.close(kept)
            watch.remove(other.fileno(), False)

    loop_runs(main())


def test_what_no_epoll_takes_is_an_error_and_nothing_stays() -> None:
    async def main() -> None:
        before = len(os.listdir("/proc/self/fd"))
        watch = readiness(asyncio.get_running_loop())
        with open(os.devnull) as file, pytest.raises(OSError, match="not permitted"):
            watch.add(file.fileno(), Ear(), False)
        assert len(os.listdir("/proc/self/fd")) == before

    run(main())


def test_who_is_always_ready_again_keeps_the_loop_from_nothing(loop_runs: Both) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        watch = readiness(loop)
        with pairs(2) as made:
            numbers = [ours.fileno() for ours, _ in made]
            ears = [Ear(lambda _, fd=fd: watch.again(fd, True, False)) for fd in numbers]
            for fd, ear in zip(numbers, ears, strict=True):
                watch.add(fd, ear, True)
            await turns(20)
            assert min(len(ear.heard) for ear in ears) > 8
            assert abs(len(ears[0].heard) - len(ears[1].heard)) < 2
            for fd in numbers:
                watch.remove(fd, False)

    loop_runs(main())


def test_what_somebody_who_is_told_asks_of_the_loop_is_done_before_anybody_else_is(loop_runs: Both) -> None:
    """In C the loop does not wait by itself; nothing but the sockets wakes it here."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        watch = readiness(loop)
        one, two = socket.socketpair()
        far: asyncio.Future[bytes] = loop.create_future()

        class Far(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                far.set_result(data)

        writer, _ = await loop.create_unix_connection(asyncio.Protocol, sock=one)
        reader, _ = await loop.create_unix_connection(Far, sock=two)
        soon, later, elsewhere = asyncio.Event(), asyncio.Event(), asyncio.Event()
        asked: list[Callable[[], object]] = [
            lambda: loop.call_soon(soon.set),
            lambda: loop.call_later(0.001, later.set),
            lambda: loop.run_in_executor(None, lambda: loop.call_soon_threadsafe(elsewhere.set)),
            lambda: writer.write(b"written"),
        ]
        with pairs(len(asked)) as made:
            for (ours, theirs), ask in zip(made, asked, strict=True):
                watch.add(ours.fileno(), Ear(lambda _, ask=ask: ask()), False)
                await turns()
                theirs.send(b"x")
                await {0: soon.wait, 1: later.wait, 2: elsewhere.wait}.get(asked.index(ask), lambda: far)()
            assert far.result() == b"written"
            for ours, _ in made:
                watch.remove(ours.fileno(), False)
        writer.close()
        reader.close()

    loop_runs(main())


def test_a_loop_closes_while_somebody_is_watched() -> None:
    async def main() -> None:
        readiness(asyncio.get_running_loop()).add(ours.fileno(), Ear(), False)

    with pairs(1) as [(ours, _)]:
        run(main())


# --- who is in a hurry ------------------------------------------------------------------------------


def test_who_is_in_a_hurry_is_told_between_every_few_of_the_others(loop_runs: Both) -> None:
    async def main() -> None:
        watch = readiness(asyncio.get_running_loop())
        with pairs(41) as [(hurried, peer), *others]:
            heard: list[str] = []

            def other_told() -> None:
                heard.append("other")
                if len(heard) in (11, 25):
                    peer.send(b"x")

            watch.add(hurried.fileno(), Ear(lambda _: heard.append("hurried")), False)
            watch.hurry(hurried.fileno(), False, True)
            for ours, theirs in others:
                watch.add(ours.fileno(), Ear(lambda _: other_told()), False)
                theirs.send(b"x")
            peer.send(b"x")
            await turns()
            assert heard.count("other") == 40
            places = [at for at, who in enumerate(heard) if who == "hurried"]
            assert places[0] == 0, "it was the last to become ready"
            assert all(at <= place <= at + 1 for at, place in zip((11, 25), places[1:], strict=True))
            watch.remove(hurried.fileno(), True)
            for ours, _ in others:
                watch.remove(ours.fileno(), False)

    loop_runs(main())


def test_a_flood_of_those_in_a_hurry_takes_its_turns_with_the_others(loop_runs: Both) -> None:
    async def main() -> None:
        watch = readiness(asyncio.get_running_loop())
        with pairs(4) as made:
            numbers = [ours.fileno() for ours, _ in made]
            heard: list[bool] = []

            def told(at: int) -> None:
                heard.append(at < 3)
                if len(heard) < 900:  # more than is told in one turn of the loop
                    watch.again(numbers[at], True, at < 3)

            for at, fd in enumerate(numbers):
                watch.add(fd, Ear(lambda _, at=at: told(at)), True)
                if at < 3:
                    watch.hurry(fd, True, True)
            await turns(30)
            assert len(heard) > 900
            assert 200 < heard[:900].count(False) < 400, "one of them, and about two of the three, each time"
            for at, fd in enumerate(numbers):
                watch.remove(fd, at < 3)

    loop_runs(main())


def test_what_is_there_is_told_to_who_comes_to_be_in_a_hurry_and_to_who_is_not_any_more(
    loop_runs: Both,
) -> None:
    async def main() -> None:
        before = len(os.listdir("/proc/self/fd"))
        watch = readiness(asyncio.get_running_loop())
        with pairs(2) as [(ours, theirs), (other, others)]:
            fd = ours.fileno()
            ear, rest = Ear(), Ear()
            watch.add(fd, ear, False)
            watch.add(other.fileno(), rest, False)
            theirs.send(b"x")
            watch.hurry(fd, True, True)
            await turns()
            assert ear.heard == [IN | OUT]
            others.send(b"x")
            await turns()
            assert rest.heard == [IN]
            watch.again(fd, False, True)
            await turns()
            watch.hurry(fd, False, False)
            await turns()
            assert ear.heard == [IN | OUT, IN, IN]
            watch.remove(other.fileno(), False)
            watch.hurry(fd, False, True)
            await turns()
            theirs.close()
            await turns()
            assert ear.heard[4] & END
            watch.remove(fd, True)
        assert len(os.listdir("/proc/self/fd")) == before

    loop_runs(main())
