"""Sessions are looked at some at a time, each once a round, and what is found is done."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic

import pytest

from proxy.client import rounds
from proxy.client.rounds import Rounds
from tests.client.stage import Stage
from tests.rawclient import sqlstates


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def test_each_is_looked_at_once_a_round_and_some_in_each_turn(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    monkeypatch.setattr(rounds, "end_idle", lambda session, *_: seen.append(session))
    sessions = {stage.client().session for _ in range(7)}
    found, counts = Rounds(stage.plane, stage.process, 3), []
    for _ in range(6):
        before = len(seen)
        found.look(0.0)
        counts.append(len(seen) - before)
    assert counts == [3, 3, 1, 3, 3, 1]
    assert set(seen[:7]) == set(seen[7:]) == sessions
    stage.leave()


def test_those_that_have_left_meanwhile_are_passed_over(stage: Stage) -> None:
    clients = [stage.client() for _ in range(4)]
    found = Rounds(stage.plane, stage.process, 2)
    found.look(monotonic())
    for client in clients:
        client.session.limits = replace(client.session.limits, client_idle_timeout=1.0)
    stage.plane.sessions -= {client.session for client in clients[:3]}
    found.look(monotonic() + 5.0)
    found.look(monotonic() + 5.0)
    assert [sqlstates(client.reads()) for client in clients] == [[], [], [], ["57P05"]]
    stage.plane.sessions |= {client.session for client in clients[:3]}
    stage.leave()


def test_who_is_idle_follows_what_has_changed(stage: Stage) -> None:
    client = stage.client()
    before = client.session.epoch
    stage.registry.epoch += 1
    Rounds(stage.plane, stage.process, 20).look(monotonic())
    assert client.session.epoch == stage.registry.epoch != before
    stage.leave()
