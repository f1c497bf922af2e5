"""One epoll for all sockets of a loop: what is told, to whom, how often, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from proxy.net.readiness import IN, OUT, Watched, readiness
from tests.server.fakes import run

Both = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["uvloop", "asyncio"])
def loop_runs(request: pytest.FixtureRequest) -> Both:
    return lambda main: run(main, stdlib=request.param == "asyncio")


class Ear(Watched):
    def __init__(self, told: Callable[[int], object] = lambda events: None) -> None:
        self.heard: list[int] = []
        self.told = told

    def ready(self, events: int) -> None:
        self.heard.append(events)
        self.told(events)


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
            watch.again(ours.fileno(), True)
            await turns()
            assert ear.heard == [IN, IN | OUT]
            theirs.send(b"y")
            await turns()
            assert len(ear.heard) == 3
            watch.remove(ours.fileno())
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
            watch.remove(ours.fileno())

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
                watch.remove(ours.fileno())

    loop_runs(main())


def test_who_is_removed_by_another_in_the_same_turn_is_not_told(loop_runs: Both) -> None:
    async def main() -> None:
        watch = readiness(asyncio.get_running_loop())
        with pairs(2) as made:
            numbers = [ours.fileno() for ours, _ in made]
            heard: list[int] = []

            def told(at: int) -> None:
                heard.append(at)
                watch.remove(numbers[1 - at])

            for at in (0, 1):
                watch.add(numbers[at], Ear(lambda _, at=at: told(at)), False)
            for _, theirs in made:
                theirs.send(b"x")
            await turns()
            assert len(heard) == 1
            watch.remove(numbers[heard[0]])

    loop_runs(main())


def test_nothing_is_left_of_it_when_nobody_is_watched(loop_runs: Both) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pairs(2) as [(one, theirs), (two, _)]:
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(3):
                watch = readiness(loop)
                assert readiness(loop) is watch
                ear = Ear(lambda _, watch=watch: watch.remove(one.fileno()))
                watch.add(one.fileno(), ear, False)
                watch.add(two.fileno(), Ear(), False)
                assert readiness(loop) is watch
                watch.remove(two.fileno())
                theirs.send(b"x")
                await turns()
                assert one.recv(10) == b"x"
                assert ear.heard == [IN]
                assert len(os.listdir("/proc/self/fd")) == before
                assert readiness(loop) is not watch or not ear.heard
                watch = readiness(loop)
                watch.add(one.fileno(), Ear(), False)
                watch.remove(one.fileno())

    loop_runs(main())


def test_a_descriptor_that_somebody_else_has_as_well_is_forgotten(loop_runs: Both) -> None:
    async def main() -> None:
        watch = readiness(asyncio.get_running_loop())
        with pairs(2) as [(ours, theirs), (other, others)]:
            kept, ear, rest = os.dup(ours.fileno()), Ear(), Ear()
            watch.add(other.fileno(), rest, False)
            watch.add(ours.fileno(), ear, False)
            watch.remove(ours.fileno())
            ours.close()
            theirs.send(b"x")
            others.send(b"x")
            await turns()
            assert (ear.heard, rest.heard) == ([], [IN])
            os.close(kept)
            watch.remove(other.fileno())

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
            ears = [Ear(lambda _, fd=fd: watch.again(fd, True)) for fd in numbers]
            for fd, ear in zip(numbers, ears, strict=True):
                watch.add(fd, ear, True)
            await turns(20)
            assert min(len(ear.heard) for ear in ears) > 8
            assert abs(len(ears[0].heard) - len(ears[1].heard)) < 2
            for fd in numbers:
                watch.remove(fd)

    loop_runs(main())
