"""Which requests of a session that may choose its tenant its chooser hears: none that is for a server at first sight."""

from __future__ import annotations

import pytest

from proxy.protocol.lifecycle import SessionState
from proxy.protocol.pipeline import BATCH
from proxy.wire import encode
from tests.client.stage import BEGIN, COMMIT, Client, Stage, done, frames
from tests.transports import Transport

ONE = encode.query(b"SELECT 1")
NAMED = encode.bind(b"", b"s", []) + encode.execute() + encode.SYNC
ANSWERED = encode.BIND_COMPLETE + done()
ANSWERS = {
    "P": encode.PARSE_COMPLETE,
    "B": encode.BIND_COMPLETE,
    "D": encode.row_description([("?column?", 23, 4)]),
    "E": encode.command_complete("SELECT 1"),
    "C": encode.CLOSE_COMPLETE,
    "S": encode.ready_for_query(),
}


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def settled(stage: Stage) -> tuple[Client, Transport]:
    """Its tenant's state has been taken by a server, which has prepared a statement for it."""
    client = stage.chooser("acme")
    client.says(encode.parse(b"s", b"SELECT 1") + NAMED)
    stage.pools.step()
    server = stage.server()
    while sent := server.take():  # the change of state, with what was asked or ahead of it
        server.say(b"".join(ANSWERS[frame.kind] for frame in frames(sent)))
    assert client.kinds() == "12CZ"
    return client, server


def heard(client: Client) -> bool:
    """What is under way was: so its chooser knows that a server has it."""
    chooser = client.session.chooser
    assert chooser is not None
    return bool(chooser._served)


def test_the_first_request_is_heard(stage: Stage) -> None:
    client = stage.chooser("acme")
    client.says(ONE)
    stage.pools.step()
    assert heard(client)
    stage.leave()


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(ONE, id="a Query"),
        pytest.param(encode.query(b"select settings from accounts"), id="of a column like set_config"),
        pytest.param(encode.parse(b"", b"INSERT INTO t VALUES (1)"), id="a Parse"),
        pytest.param(NAMED, id="a Bind of what has been prepared"),
    ],
)
def test_what_is_for_a_server_at_first_sight_is_not(stage: Stage, asked: bytes) -> None:
    client, server = settled(stage)
    client.says(asked)
    assert server.take()
    assert client.session.server is not None
    assert not heard(client)
    stage.leave()


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(encode.query(b"SELECT set_config('a.b', 'x', false)"), id="what may name a tenant"),
        pytest.param(encode.query(b"/* x */ SELECT 1"), id="what a comment stands before"),
        pytest.param(encode.bind(b"", b"t", []) + encode.SYNC, id="a Bind of what nobody has prepared"),
    ],
)
def test_what_may_be_an_opening_is(stage: Stage, asked: bytes) -> None:
    client, server = settled(stage)
    client.says(asked)
    assert server.take()
    assert heard(client)
    stage.leave()


def test_a_bind_of_what_names_the_tenant_is_answered_without_a_server(stage: Stage) -> None:
    client, server = settled(stage)
    client.says(encode.parse(b"n", b"SET app.tenant_id = 'beta'") + encode.SYNC)
    client.reads()
    client.says(encode.bind(b"", b"n", []) + encode.execute() + encode.SYNC)
    assert client.kinds() == "2CZ"
    assert not server.take()
    assert client.session.speaks_for.name == "beta"
    stage.leave()


def test_a_bind_that_is_malformed_is_for_the_server_to_refuse(stage: Stage) -> None:
    client, server = settled(stage)
    malformed = encode.frame(b"B", b"\0s")
    client.says(malformed)
    assert malformed in server.take()
    stage.leave()


def test_within_a_transaction_nothing_is(stage: Stage) -> None:
    client, server = settled(stage)
    client.says(encode.query(b"INSERT INTO t VALUES (1)"))
    server.say(done(status=b"T"))
    server.take()
    client.says(COMMIT)
    assert server.take() == COMMIT
    stage.leave()


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(NAMED, id="of a named statement"),
        pytest.param(
            encode.parse(b"", b"SELECT 1") + encode.bind(b"", b"", []) + encode.execute() + encode.SYNC,
            id="with a Parse",
        ),
    ],
)
def test_a_batch_of_the_usual_form_is_taken_up_as_one(stage: Stage, asked: bytes) -> None:
    client, server = settled(stage)
    for _ in range(2):
        client.says(asked)
        assert client.session.server is not None
        assert client.session.server.pipeline.entries[0].kind == BATCH
        server.take()
        server.say((encode.PARSE_COMPLETE if asked is not NAMED else b"") + ANSWERED)
        assert client.kinds().endswith("2CZ")
        assert client.session.server is None
    stage.leave()


def test_but_not_in_a_transaction_that_has_a_tenant_of_its_own(stage: Stage) -> None:
    client, _ = settled(stage)
    client.says(encode.query(b"BEGIN"))
    client.says(encode.query(b"SET LOCAL app.tenant_id = 'beta'"))
    client.says(NAMED)
    held = client.session.server
    assert held is not None
    assert BATCH not in [entry.kind for entry in held.pipeline.entries]
    stage.leave()


def test_a_begin_that_has_waited_for_a_connection_keeps_it(stage: Stage) -> None:
    """It was held back then, and the connection given back to whoever waits next."""
    client, server = settled(stage)
    chooser = client.session.chooser
    assert chooser is not None
    chooser.quiet = 8  # blocks that have named no tenant
    others = [stage.client(), stage.client()]
    for other in others:
        other.says(ONE)
    stage.pools.step()
    for turn in range(2):
        client.says(BEGIN)
        assert client.state is SessionState.WAITING
        server.take()
        server.say(done())
        assert server.take() == BEGIN
        server.say(done("BEGIN", b"T"))
        assert client.kinds() == "CZ"
        client.says(COMMIT)
        assert server.take() == COMMIT
        if turn == 0:
            others[0].says(ONE)
        server.say(done("COMMIT"))
        assert client.kinds() == "CZ"
    stage.leave()
