"""When numbers are a session's own, and what is sent where nobody knows."""

from __future__ import annotations

import pytest

from proxy.model import PinReason
from proxy.wire import encode
from tests.client.stage import Client, Stage, done, frames
from tests.rawclient import sqlstates
from tests.transports import Transport

ONE = encode.query(b"SELECT 1")
ASKS = encode.query(b"SELECT currval('s')")
FORGOTTEN = (
    encode.PARSE_COMPLETE + encode.BIND_COMPLETE + encode.command_complete("DISCARD SEQUENCES")
    + encode.CLOSE_COMPLETE * 2 + encode.ready_for_query()
)  # fmt: skip


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """One server connection for everybody."""
    stage = Stage(monkeypatch)
    stage.pools.servers.limit = 1
    return stage


def answered(drawn: str) -> bytes:
    """Of the question whether a number was drawn."""
    asked = encode.PARSE_COMPLETE + encode.BIND_COMPLETE
    return (
        asked + encode.command_complete("DO") + encode.CLOSE_COMPLETE
        + asked + encode.data_row([drawn]) + encode.command_complete("SELECT 1") + encode.CLOSE_COMPLETE
        + encode.ready_for_query()
    )  # fmt: skip


def one(client: Client, server: Transport, text: bytes = ONE) -> None:
    client.says(text)
    server.take()
    server.say(done())
    client.reads()


def texts(data: bytes) -> list[bytes]:
    return [body.split(b"\0")[1] for kind, body in frames(data) if kind == "P"]


def test_alone_on_a_new_connection_it_asks_at_once(stage: Stage) -> None:
    client, server = stage.unlinked()
    one(client, server)
    client.says(ASKS)
    assert server.take() == ASKS
    server.say(done())
    client.reads()
    assert [text[:2] for text in texts(server.take())] == [b"DO", b"SE"]
    server.say(answered("yes"))
    assert client.session.pins == {PinReason.SEQUENCE}
    assert client.session.keeps_sequences
    stage.leave()


def test_where_others_have_drawn_the_connection_forgets_first(stage: Stage) -> None:
    other, server = stage.unlinked()
    one(other, server)
    client = stage.client()
    one(client, server)
    client.says(ASKS)
    sent = server.take()
    assert texts(sent) == [b"DISCARD SEQUENCES"]
    assert sent.endswith(ASKS)
    server.say(FORGOTTEN + done())
    client.reads()
    server.take()
    server.say(answered("no"))
    assert not client.session.pins
    assert other.session.keeps_sequences
    client.says(ONE)
    assert server.take() == ONE  # nobody has drawn since
    server.say(done())
    server.take()
    server.say(answered("no"))
    stage.leave()


def test_within_a_transaction_nothing_can_be_forgotten(stage: Stage) -> None:
    other, server = stage.unlinked()
    one(other, server)
    client = stage.client()
    client.says(encode.query(b"BEGIN"))
    server.take()
    server.say(done("BEGIN", b"T"))
    client.reads()
    client.says(ASKS)
    assert server.take() != ASKS
    server.say(encode.error("syntax error", "42601") + encode.ready_for_query(b"E"))
    assert sqlstates(client.reads()) == ["55000"]
    stage.leave()


def test_what_could_not_be_forgotten_is_not_alone(stage: Stage) -> None:
    other, server = stage.unlinked()
    one(other, server)
    client = stage.client()
    one(client, server)
    client.says(ASKS)
    server.take()
    server.say(encode.error("canceled", "57014") + encode.ready_for_query())
    assert not client.session.draws_alone
    server.say(done())
    stage.leave()
