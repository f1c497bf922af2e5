"""A statement that has been described to its client answers as it was told, or not at all."""

from __future__ import annotations

import pytest

from proxy.client.told import CHANGED_ERROR
from proxy.wire import encode
from tests.client.stage import Client, Stage, settings_taken
from tests.rawclient import errors, kinds
from tests.transports import Transport

PARSED, BOUND, CLOSED = encode.PARSE_COMPLETE, encode.BIND_COMPLETE, encode.CLOSE_COMPLETE
READY = encode.ready_for_query()
SELECTED = encode.command_complete("SELECT 1")
FAILED = encode.error("no", "42601")
TEXT = b"SELECT * FROM t WHERE a = $1"
INT, BIGINT = b"\0\1\0\0\0\x17", b"\0\1\0\0\0\x14"  # as a Parse or a ParameterDescription has them


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def use(name: bytes = b"") -> bytes:
    return encode.bind(b"", name, []) + encode.execute() + encode.SYNC


def described(*columns: str, parameters: bytes = INT) -> bytes:
    row = encode.row_description([(name, 25, -1) for name in columns]) if columns else encode.NO_DATA
    return encode.frame(b"t", parameters) + row


def prepared(stage: Stage, name: bytes, *columns: str, parameters: bytes = INT) -> tuple[Client, bytes]:
    """A client that has had its statement described, and the server's name of that; its connection is gone."""
    client, server = stage.unlinked()
    client.says(encode.parse(name, TEXT) + encode.describe(b"S", name) + encode.SYNC)
    asked = server.take()
    server.say(PARSED, described(*columns, parameters=parameters), READY)
    assert client.kinds() == ("1tTZ" if columns else "1tnZ")
    stage.pools.reconnect()
    stage.network.hang_ups()
    return client, asked[5 : asked.index(b"\0", 5)]


def uses(client: Client, *requests: bytes) -> Transport:
    """The new connection, which has taken the session's state, before it has answered anything else."""
    client.says(*requests)
    client.stage.pools.step()
    server = client.stage.network.servers[-1]
    server.say(settings_taken())
    client.reads()
    return server


def test_where_it_is_prepared_anew_it_is_described_first(stage: Stage) -> None:
    client, name = prepared(stage, b"s", "a", "b")
    server = uses(client, use(b"s"))
    assert server.take().endswith(encode.parse(name, TEXT) + encode.describe(b"S", name) + encode.FLUSH)
    server.say(PARSED, described("a", "b"))
    assert server.take() == use(name)
    assert client.reads() == []
    server.say(BOUND, SELECTED, READY)
    assert client.kinds() == "2CZ"
    client.says(use(b"s") + encode.describe(b"S", b"s") + encode.SYNC)
    assert server.take() == use(name) + encode.describe(b"S", name) + encode.SYNC, "once"
    stage.leave()


@pytest.mark.parametrize("columns", [("a", "b", "c"), ("a",), ("a", "c"), ()])
def test_where_it_has_become_another_it_is_refused_in_its_place(
    stage: Stage, columns: tuple[str, ...]
) -> None:
    client, _name = prepared(stage, b"s", "a", "b")
    first = encode.parse(b"x", b"SELECT 1") + encode.bind(b"", b"x", []) + encode.execute()
    server = uses(client, first, use(b"s"))
    assert server.take().endswith(encode.FLUSH)
    server.say(PARSED, BOUND, SELECTED, PARSED, described(*columns))
    assert client.kinds() == "12C", "what stood before it is done"
    sent = server.take()
    assert sent.endswith(encode.execute() + encode.SYNC)
    server.say(encode.error("there is no such statement", "26000"), READY)
    said = client.reads()
    assert kinds(said) == "EZ"
    assert errors(said) == errors([said[0]])
    assert encode.frame(b"E", said[0].body) == CHANGED_ERROR
    client.says(encode.describe(b"S", b"s") + encode.SYNC)
    assert b"tiergate_changed" not in server.take(), "it is asked again whether it still is"
    stage.leave()


def test_a_client_that_was_told_nothing_waits_for_nothing(stage: Stage) -> None:
    _client, name = prepared(stage, b"s", "a")
    other = stage.client()
    server = uses(other, encode.parse(b"mine", TEXT) + use(b"mine"))
    assert server.take().endswith(encode.parse(name, TEXT) + use(name))
    server.say(PARSED, BOUND, SELECTED, READY)
    other.says(use(b"mine"))
    assert server.take() == use(name)
    stage.leave()


def test_what_it_describes_as_is_known_for_all(stage: Stage) -> None:
    client, name = prepared(stage, b"s", "a")
    other = stage.client()
    server = uses(other, encode.parse(b"mine", TEXT) + encode.describe(b"S", b"mine") + encode.SYNC)
    server.take()
    server.say(PARSED, described("a"), READY)
    client.says(use(b"s"))
    assert server.take() == use(name)
    stage.leave()


def test_one_that_was_described_otherwise_is_prepared_anew(stage: Stage) -> None:
    """It may be older than what the client was told."""
    client, name = prepared(stage, b"s", "a", "b")
    other = stage.client()
    server = uses(other, encode.parse(b"mine", TEXT) + encode.describe(b"S", b"mine") + encode.SYNC)
    server.take()
    server.say(PARSED, described("a"), READY)
    client.says(use(b"s"))
    again = encode.close(b"S", name) + encode.parse(name, TEXT) + encode.describe(b"S", name)
    assert server.take() == again + encode.FLUSH
    server.say(CLOSED, PARSED, described("a", "b"))
    assert server.take() == use(name)
    stage.leave()


def test_parameters_keep_the_types_that_the_client_knows(stage: Stage) -> None:
    client, name = prepared(stage, b"s", "a")
    server = uses(client, use(b"s"))
    server.take()
    server.say(PARSED, described("a", parameters=BIGINT))
    sent = server.take()
    typed = sent[5 : sent.index(b"\0", 5)]
    assert typed != name
    assert sent == encode.parse(typed, TEXT, INT) + encode.describe(b"S", typed) + encode.FLUSH
    server.say(PARSED, described("a"))
    assert server.take() == use(typed)
    stage.leave()


def test_what_cannot_be_prepared_any_more_fails_for_the_client(stage: Stage) -> None:
    client, _name = prepared(stage, b"s", "a")
    server = uses(client, use(b"s"))
    server.take()
    server.say(encode.error('relation "t" does not exist', "42P01"))
    assert [error["C"] for error in errors(client.reads())] == ["42P01"]
    server.say(READY)
    assert client.kinds() == "Z"
    stage.leave()


def test_in_a_failed_transaction_nothing_is_asked(stage: Stage) -> None:
    client, name = prepared(stage, b"s", "a")
    server = uses(client, encode.query(b"BEGIN"))
    server.take()
    server.say(encode.command_complete("BEGIN"), encode.ready_for_query(b"T"))
    client.says(encode.query(b"FAIL"))
    server.take()
    server.say(FAILED, encode.ready_for_query(b"E"))
    client.says(use(b"s"))
    assert server.take() == encode.parse(name, TEXT) + use(name)
    stage.leave()


def test_a_new_statement_of_that_name_has_not_been_told(stage: Stage) -> None:
    client, _name = prepared(stage, b"s", "a")
    again = encode.close(b"S", b"s") + encode.parse(b"s", b"SELECT 2") + use(b"s")
    server = uses(client, again)
    sent = server.take()
    assert encode.FLUSH not in sent
    assert b"SELECT 2" in sent
    stage.leave()


def test_one_that_is_longer_than_there_are_columns_ends_the_connection(stage: Stage) -> None:
    client, _name = prepared(stage, b"s", "a")
    server = uses(client, use(b"s"))
    server.take()
    server.say(PARSED, described("x" * 1_100_000)[:20_000])
    assert server.aborted
    stage.leave()


# --- the unnamed one --------------------------------------------------------------------------------


def test_the_unnamed_one_is_described_first_too(stage: Stage) -> None:
    client, _ = prepared(stage, b"", "a")
    server = uses(client, use())
    assert server.take().endswith(encode.parse(b"", TEXT) + encode.describe(b"S", b"") + encode.FLUSH)
    server.say(PARSED, described("a"))
    assert server.take() == use()
    server.say(BOUND, SELECTED, READY)
    client.says(use())
    assert server.take() == use(), "once"
    stage.leave()


def test_and_refused(stage: Stage) -> None:
    client, _ = prepared(stage, b"", "a")
    server = uses(client, use())
    server.take()
    server.say(PARSED, described("a", "b"))
    assert server.take() != use()
    server.say(encode.error("there is no such statement", "26000"), READY)
    assert [error["C"] for error in errors(client.reads())] == ["0A000"]
    stage.leave()


def test_and_keeps_the_types_of_its_parameters(stage: Stage) -> None:
    client, _ = prepared(stage, b"", "a")
    server = uses(client, use())
    server.take()
    server.say(PARSED, described("a", parameters=BIGINT))
    assert server.take() == encode.parse(b"", TEXT, INT) + encode.describe(b"S", b"") + encode.FLUSH
    server.say(PARSED, described("a"))
    assert server.take() == use()
    stage.leave()


def test_where_it_was_described_nothing_is_asked(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(encode.parse(b"", TEXT) + encode.describe(b"S", b"") + encode.SYNC)
    server.take()
    server.say(PARSED, described("a"), READY)
    client.says(use())
    assert server.take() == use()
    stage.leave()
