"""The small steps of a session that need nothing else: when it rests, its permits, and which pool counts it."""

from __future__ import annotations

import pytest

from proxy.model import PoolKey, PoolMode
from proxy.protocol.lifecycle import LifecycleError, SessionState
from proxy.wire import encode
from tests.client.stage import COMMIT, SHARED, Stage, done, inquired


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def test_it_rests_where_nothing_is_asked_and_no_transaction_open(stage: Stage) -> None:
    client, server = stage.linked()
    assert not client.session.rests
    client.says(COMMIT)
    assert not client.session.rests
    server.say(done("COMMIT"))
    assert client.session.rests
    client.says(encode.query(b"LISTEN x"))
    server.say(done("LISTEN"))
    server.say(inquired(left="t"))
    assert client.session.rests, "pinned, but it asks nothing"
    client.says(encode.parse(b"", b"SELECT 1") + encode.FLUSH)
    server.say(encode.PARSE_COMPLETE)
    assert not client.session.rests, "its batch has no Sync yet"
    stage.leave()


def test_permits_are_given_back_once(stage: Stage) -> None:
    session = stage.client().session
    assert stage.plane.clients.used == 1
    assert session.pool.sessions == 1
    session.release_permits()
    session.release_permits()
    assert stage.plane.clients.used == 0
    assert session.pool.sessions == 0


def test_a_session_counts_in_the_pool_it_will_come_to(stage: Stage) -> None:
    session = stage.client().session
    first = session.pool
    second = stage.pools.pool(PoolKey("shared", "other", "app"), SHARED, PoolMode.TRANSACTION, "secret")
    session.use_pool(second)
    session.use_pool(second)
    assert (first.sessions, second.sessions) == (0, 1)


@pytest.mark.parametrize(
    ("mode", "statements", "maps"),
    [
        (PoolMode.TRANSACTION, 200, True),
        (PoolMode.STATEMENT, 200, True),
        (PoolMode.TRANSACTION, 0, False),
        (PoolMode.SESSION, 200, False),
    ],
)
def test_statements_are_mapped_where_connections_are_shared(
    monkeypatch: pytest.MonkeyPatch, mode: PoolMode, statements: int, maps: bool
) -> None:
    stage = Stage(monkeypatch, max_prepared_statements=statements)
    session = stage.client().session
    session.use_pool(stage.pools.pool(PoolKey("shared", "x", "app"), SHARED, mode, "secret"))
    assert session.mode is mode
    assert session.maps_statements is maps


def test_a_step_that_the_table_does_not_have_is_a_bug(stage: Stage) -> None:
    session = stage.client().session
    with pytest.raises(LifecycleError):
        session.step("unlink")
    assert session.state is SessionState.IDLE


def test_nothing_is_written_to_a_client_that_has_gone(stage: Stage) -> None:
    client = stage.client()
    client.session.gone = True
    client.session.write(b"data")
    assert client.transport.take() == b""
