"""What sessions share: who is there, and which of them a cancel key means."""

from __future__ import annotations

import pytest

from proxy.client.plane import Plane
from proxy.wire.startup import CancelRequest
from tests.client.stage import Stage


class Member:
    def __init__(self, pid: int, key: bytes) -> None:
        self.pid, self.key = pid, key
        self.cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1


@pytest.fixture
def plane(monkeypatch: pytest.MonkeyPatch) -> Plane:
    return Stage(monkeypatch).plane


def test_a_cancel_reaches_the_session_with_that_key_only(plane: Plane) -> None:
    one, two, same_pid = Member(1, b"aaaa"), Member(2, b"aaaa"), Member(1, b"bbbb")
    for member in (one, two, same_pid):
        plane.enter(member)
    plane.cancel(CancelRequest(1, b"bbbb"))
    assert [m.cancelled for m in (one, two, same_pid)] == [0, 0, 1]


@pytest.mark.parametrize(
    "request_", [CancelRequest(1, b"aaa"), CancelRequest(1, b""), CancelRequest(9, b"aaaa")]
)
def test_an_unknown_key_cancels_nothing(plane: Plane, request_: CancelRequest) -> None:
    member = Member(1, b"aaaa")
    plane.enter(member)
    plane.cancel(request_)
    assert member.cancelled == 0


def test_who_has_left_is_not_cancelled(plane: Plane) -> None:
    one, two = Member(1, b"aaaa"), Member(1, b"bbbb")
    plane.enter(one)
    plane.enter(two)
    plane.leave(one)
    plane.leave(one)
    plane.cancel(CancelRequest(1, b"aaaa"))
    plane.cancel(CancelRequest(1, b"bbbb"))
    assert (one.cancelled, two.cancelled) == (0, 1)
    assert plane.sessions == {two}


def test_nothing_is_kept_of_those_who_had_the_same_pid(plane: Plane) -> None:
    members = [Member(1, b"aaaa"), Member(1, b"bbbb"), Member(1, b"cccc")]
    for member in members:
        plane.enter(member)
    for member in members:
        plane.leave(member)
    assert not plane._keys


def test_leaving_within_a_cancel_does_no_harm(plane: Plane) -> None:
    class Leaving(Member):
        def cancel(self) -> None:
            plane.leave(self)

    plane.enter(Leaving(1, b"aaaa"))
    plane.enter(Leaving(1, b"aaaa"))
    plane.cancel(CancelRequest(1, b"aaaa"))
    assert plane.sessions == set()


def test_a_key_is_as_long_as_the_protocol_wants_it(plane: Plane) -> None:
    assert len(plane.new_key(0)[1]) == 4
    assert len(plane.new_key(2)[1]) == 32
    assert plane.new_key(0)[1] != plane.new_key(0)[1]


def test_a_pid_of_ours_is_nobody_elses(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter([b"\0\4aaaa", b"\0\4aaaa", b"\0\4", b"\0\10"])
    monkeypatch.setattr("proxy.client.plane.urandom", lambda _: next(numbers))
    first, _ = plane.new_key(0)
    plane.enter(Member(first, b"aaaa"))
    assert first != 0
    assert plane.new_key(0)[0] not in (0, first)
