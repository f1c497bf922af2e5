"""What is to be asked begins as nothing, and remembers against which error it began."""

from __future__ import annotations

import pytest

from proxy.client.doubts import Doubts
from tests.client.stage import Stage


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def test_nothing_is_doubted_at_first() -> None:
    doubts = Doubts(b"error")
    assert not any(
        (doubts.sets, doubts.resets, doubts.causes, doubts.stopgap, doubts.sequences, doubts.numbered)
    )
    assert doubts.certain
    assert (doubts.last_error, doubts.failed_at) == (b"error", -1)


def test_a_session_has_the_same_doubts_until_it_has_asked(stage: Stage) -> None:
    client, _ = stage.linked()
    assert client.session.doubts is None
    found = client.session.doubted()
    assert client.session.server is not None
    assert found.last_error is client.session.server.last_error
    assert client.session.doubted() is found
    stage.leave()
