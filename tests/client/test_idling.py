"""Who is idle, and which limit ends it."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic

import pytest

from proxy.client.idling import end_idle
from proxy.wire import encode
from tests.client.stage import BEGIN, Client, Stage
from tests.rawclient import sqlstates

LIMITS = {"client_idle_timeout": 5.0, "idle_transaction_timeout": 1.0}


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def after(stage: Stage, client: Client, seconds: float) -> list[str]:
    client.session.limits = replace(client.session.limits, **LIMITS)
    end_idle(client.session, stage.process, monotonic() + seconds)
    return sqlstates(client.reads())


def test_between_transactions(stage: Stage) -> None:
    client = stage.chooser("acme")
    assert after(stage, client, 4) == []
    assert after(stage, client, 6) == ["57P05"]
    stage.leave()


@pytest.mark.parametrize("fails", [False, True])
def test_in_a_block_that_no_server_has(stage: Stage, fails: bool) -> None:
    client = stage.chooser("acme")
    client.says(BEGIN)
    if fails:
        client.says(encode.query(b"RELEASE nothing"))
    client.reads()
    assert after(stage, client, 0.5) == []
    assert after(stage, client, 2) == ["25P03"]
    assert stage.process.timeouts["idle_transaction_timeout"] == 1
    stage.leave()


def test_a_block_that_a_server_has_is_not_looked_at(stage: Stage) -> None:
    client, _ = stage.linked()
    assert after(stage, client, 60) == []
    stage.leave()
