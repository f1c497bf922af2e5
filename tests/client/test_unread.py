"""What no parser of ours reads is said to be wrong by the server, and is never run."""

from __future__ import annotations

import pytest

from proxy.wire import encode
from tests.client.stage import Client, Stage
from tests.rawclient import errors
from tests.transports import Transport

TEXT = b"EXECUTE nothing WITHOUT DOUBT"
ERROR = encode.error("syntax error", "42601")
READY = encode.ready_for_query()


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    stage = Stage(monkeypatch)
    stage.pools.servers.limit = 1
    return stage


@pytest.fixture
def both(stage: Stage) -> tuple[Client, Transport]:
    return stage.unlinked("acme")


def test_a_query_is_parsed_and_no_more(stage: Stage, both: tuple[Client, Transport]) -> None:
    client, server = both
    client.says(encode.query(TEXT))
    asked = server.take()
    assert asked.startswith(encode.parse(b"tiergate_unread", TEXT))
    assert asked.endswith(encode.SYNC)
    assert encode.execute() not in asked
    assert encode.query(TEXT) not in asked
    server.say(ERROR + READY)
    assert [error["M"] for error in errors(client.reads())] == ["syntax error"]
    stage.leave()


def test_where_the_server_reads_it_the_rule_is_told(stage: Stage, both: tuple[Client, Transport]) -> None:
    client, server = both
    for again in (False, True):
        client.says(encode.query(TEXT))
        asked = server.take()
        assert asked.startswith(encode.close(b"S", b"tiergate_unread")) == again
        closed = encode.CLOSE_COMPLETE if again else b""
        server.say(closed + encode.PARSE_COMPLETE + encode.error("no such statement", "26000") + READY)
        (error,) = errors(client.reads())
        assert error["C"] == "42501"
    stage.leave()


def test_so_it_is_within_a_batch(stage: Stage, both: tuple[Client, Transport]) -> None:
    client, server = both
    client.says(encode.parse(b"", TEXT) + encode.bind(b"", b"", []) + encode.execute() + encode.SYNC)
    assert server.take().startswith(encode.parse(b"tiergate_unread", TEXT))
    server.say(ERROR + READY)
    assert client.kinds() == "EZ"
    stage.leave()
