from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from proxy.client import cancelling
from proxy.client.cancelling import Canceller
from proxy.model import ClientOptions, Endpoint
from proxy.wire.startup import CancelRequest, decode_cancel
from proxy.wire.way import MAX_HOPS, Way, passed_on, word
from tests.client.stage import Stage

PEERS = {1: ("one", 6432), 2: ("two", 6432), 3: ("three", 6432)}


class Scene:
    """A worker, number 5 of peer 1; what it sends to peers is only noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stage = Stage(monkeypatch, client_options=ClientOptions(peer_id=1, peers=PEERS))
        self.stage.plane.number = 5
        self.told: list[dict[str, Any]] = []
        self.sent: list[tuple[str, CancelRequest]] = []
        self.patience: list[float | None] = []
        self.canceller = Canceller(self.stage.plane, self)

        async def say(endpoint: Endpoint, _tls: object, packet: bytes, timeout: float | None) -> None:
            self.patience.append(timeout)
            self.sent.append((endpoint.host, decode_cancel(packet[4:])))

        monkeypatch.setattr(cancelling, "say_and_wait", say)

    async def ask(self, kind: str, timeout: float | None = None, **fields: Any) -> dict[str, Any]:
        assert kind == "cancel"
        self.told.append(fields)
        return {}

    def lands(self, request: CancelRequest) -> None:
        self.canceller.landed(request)
        self.stage.pools.step()


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def request(peer: int, worker: int, key: bytes = b"\xff\0k!") -> CancelRequest:
    return CancelRequest(word(Way.to(peer, worker), 77), key)


def test_its_own_that_is_gone_goes_nowhere(scene: Scene) -> None:
    scene.lands(request(1, 5))
    assert (scene.told, scene.sent) == ([], [])


def test_another_workers_goes_over_the_supervisor(scene: Scene) -> None:
    asked = request(1, 6)
    scene.lands(asked)
    assert scene.sent == []
    assert scene.told == [{"worker": 6, "pid": asked.pid, "key": "\xff\0k!"}]
    asyncio.run(scene.canceller.told(scene.told[0]))  # unknown there as well


def test_another_hosts_goes_there_until_it_has_gone_round_enough(scene: Scene) -> None:
    asked = request(2, 5)
    scene.lands(asked)
    for hops in range(1, MAX_HOPS + 1):
        scene.lands(passed_on(asked, hops))
    assert scene.told == []
    assert scene.sent == [("two", passed_on(asked, hops)) for hops in range(1, MAX_HOPS + 1)]


def test_an_unknown_hosts_goes_nowhere(scene: Scene) -> None:
    scene.lands(request(9, 5))
    assert (scene.told, scene.sent) == ([], [])


def test_one_without_a_way_is_shown_to_all_once(scene: Scene) -> None:
    asked = CancelRequest(4711, b"1234")
    scene.lands(asked)
    assert scene.told == [{"worker": None, "pid": 4711, "key": "1234"}]
    assert scene.sent == [("two", passed_on(asked, 1)), ("three", passed_on(asked, 1))]
    scene.lands(passed_on(asked, 1))
    assert len(scene.told) == 2
    assert len(scene.sent) == 2


def test_no_more_than_some_are_on_their_way(scene: Scene) -> None:
    for _ in range(200):
        scene.canceller.landed(request(2, 5))
    scene.stage.pools.step()
    assert len(scene.sent) == cancelling._MOST_AT_ONCE
    scene.lands(request(2, 5))
    assert len(scene.sent) == cancelling._MOST_AT_ONCE + 1


def test_a_peer_that_hangs_keeps_none_from_another(scene: Scene) -> None:
    for _ in range(200):
        scene.canceller.landed(request(2, 5))  # no step: none of them comes to an end
    scene.canceller.landed(request(3, 5))
    scene.stage.pools.step()
    assert [host for host, _ in scene.sent].count("three") == 1
    assert scene.canceller._under_way == {}


def test_no_peer_is_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    scene.stage.pools.options = replace(scene.stage.pools.options, cancel_wait_timeout=0)
    scene.lands(request(2, 5))
    assert scene.patience == [cancelling.OVER_WITHIN]
