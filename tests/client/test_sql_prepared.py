"""Statements prepared in SQL: who has them where, what is sent ahead, and what becomes of a request if that fails."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from proxy.client import sql_prepared
from proxy.model import PinReason, ServerOptions, SqlPolicy
from proxy.protocol.lifecycle import SessionState
from proxy.server.connection import ServerConnection
from proxy.wire import encode
from tests.client.simulated import LOOK, SimulatedServer
from tests.client.stage import DIRECTORY, Client, Stage, done
from tests.rawclient import Frame, errors, kinds, row_values
from tests.transports import Transport

PREPARE = b"PREPARE p AS SELECT 1"


class Scene:
    """Clients of a stage whose servers are simulated; what each server is sent is kept."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.simulated: dict[Transport, SimulatedServer] = {}
        self.sent: dict[Transport, bytes] = {}

    def settle(self) -> None:
        moves = True
        while moves:
            moves = False
            self.stage.pools.step()
            for server in self.stage.network.servers:
                sent = server.take()
                self.sent[server] = self.sent.get(server, b"") + sent
                said = self.simulated.setdefault(server, SimulatedServer()).feed(sent)
                if said:
                    moves = True
                    server.say(said)

    def asks(self, client: Client, *data: bytes) -> list[Frame]:
        client.says(b"".join(data))
        self.settle()
        return client.reads()

    def query(self, client: Client, text: bytes) -> list[Frame]:
        return self.asks(client, encode.query(text))

    def sent_now(self, number: int = 0) -> bytes:
        self.settle()
        return self.sent.pop(self.stage.server(number), b"")

    def elsewhere(self, client: Client, blocker: Client) -> None:
        """The connection that was used last is somebody else's now."""
        assert client.session.server is None
        self.query(blocker, b"BEGIN")


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    scene = Scene(Stage(monkeypatch))
    yield scene
    scene.stage.leave()


def connection(client: Client) -> ServerConnection:
    assert client.session.server is not None
    return client.session.server


def test_it_pins_nobody_and_is_prepared_again_where_it_is_needed(scene: Scene) -> None:
    client, other = scene.stage.client(), scene.stage.client()
    assert kinds(scene.query(client, PREPARE)) == "CZ"
    assert client.state is SessionState.IDLE
    assert client.session.pins == set()
    scene.elsewhere(client, other)
    assert kinds(scene.query(client, b"SELECT 2")) == "TDCZ"
    assert b"PREPARE" not in scene.sent_now(1), "not before it is needed"
    assert kinds(scene.query(client, b"EXECUTE p")) == "TDCZ"
    assert scene.sent_now(1).count(PREPARE) == 1
    assert kinds(scene.query(client, b"EXECUTE p")) == "TDCZ"
    assert PREPARE not in scene.sent_now(1), "it stays there"


def test_what_the_rules_do_not_allow_any_more_is_not_executed(scene: Scene) -> None:
    client = scene.stage.client()
    scene.query(client, b"PREPARE p AS SELECT 1 WHERE 1 < (SELECT 2)")
    assert kinds(scene.query(client, b"EXECUTE p")) == "TDCZ"
    registry, options = scene.stage.registry, scene.stage.plane.options
    policy = SqlPolicy(max_statement_size=30)
    tiers = {name: replace(tier, policy=policy) for name, tier in DIRECTORY.tiers.items()}
    registry.replace(replace(DIRECTORY, tiers=tiers), options)
    (refused,) = errors(scene.query(client, b"EXECUTE p"))
    assert refused["C"] == "0A000"
    registry.replace(DIRECTORY, options)
    assert kinds(scene.query(client, b"EXECUTE p")) == "TDCZ"


def test_somebody_else_on_its_connection_does_not_have_it(scene: Scene) -> None:
    client, other = scene.stage.client(), scene.stage.client("beta")
    scene.query(client, PREPARE)
    scene.query(client, b"PREPARE q AS SELECT 2")
    scene.sent_now()
    assert kinds(scene.query(other, b"SELECT 1")) == "TDCZ"
    sent = scene.sent_now()
    assert encode.close(b"S", b"p") in sent
    assert encode.close(b"S", b"q") in sent
    assert errors(scene.query(other, b"EXECUTE p"))[0]["C"] == "26000"
    assert kinds(scene.query(other, PREPARE)) == "CZ"
    assert kinds(scene.query(client, b"EXECUTE p; EXECUTE q")) == "TDCTDCZ"


def test_its_own_client_finds_it_where_it_left_it(scene: Scene) -> None:
    client = scene.stage.client()
    scene.query(client, PREPARE)
    scene.sent_now()
    scene.query(client, b"SELECT 1")
    assert scene.query(client, b"EXECUTE p")[1].kind == "D"
    sent = scene.sent_now()
    assert PREPARE not in sent
    assert encode.close(b"S", b"p") not in sent


def test_clients_alike_share_what_they_prepare_alike(scene: Scene) -> None:
    first, second, other = scene.stage.client(), scene.stage.client(), scene.stage.client("beta")
    scene.query(first, PREPARE)
    scene.query(second, PREPARE)
    scene.sent_now()
    for _ in range(2):
        assert kinds(scene.query(first, b"EXECUTE p")) == kinds(scene.query(second, b"EXECUTE p")) == "TDCZ"
    sent = scene.sent_now()
    assert sent.count(encode.query(b"EXECUTE p")) == 4
    assert PREPARE not in sent
    assert encode.close(b"S", b"p") not in sent
    scene.query(other, PREPARE)
    assert encode.close(b"S", b"p") in scene.sent_now()
    scene.query(second, b"DEALLOCATE p")
    assert kinds(scene.query(first, b"EXECUTE p")) == "TDCZ"
    assert kinds(scene.query(second, b"EXECUTE p")) == "EZ"


def test_but_not_if_they_were_told_otherwise(scene: Scene) -> None:
    first, second = scene.stage.client(), scene.stage.client()
    scene.query(first, PREPARE)
    second.says(encode.query(PREPARE))
    server = scene.stage.server()
    server.take()
    server.say(encode.CLOSE_COMPLETE, done("PREPARE"))
    assert server.take() == encode.describe(b"S", b"p") + encode.SYNC
    server.say(columns("one", "two"), encode.ready_for_query())
    assert first.session.by_sql is not None
    assert second.session.by_sql is not None
    assert first.session.by_sql[b"p"] is not second.session.by_sql[b"p"]
    assert first.session.by_sql[b"p"].told is not second.session.by_sql[b"p"].told
    scene.sent_now()
    scene.query(first, b"EXECUTE p")
    assert PREPARE in scene.sent_now()


def test_one_that_fails_or_is_deallocated_is_not_there(scene: Scene) -> None:
    client = scene.stage.client()
    assert kinds(scene.query(client, b"PREPARE p AS TABLE nothing")) == "CZ"
    assert kinds(scene.query(client, PREPARE)) == "EZ"
    assert client.session.by_sql is not None
    assert client.session.by_sql[b"p"].text == b"PREPARE p AS TABLE nothing"
    assert kinds(scene.query(client, b"DEALLOCATE p")) == "CZ"
    assert client.session.by_sql == {}
    scene.query(client, PREPARE)
    assert kinds(scene.query(client, b"DEALLOCATE ALL")) == "CZ"
    assert client.session.by_sql is None


def test_what_was_prepared_in_a_text_before_its_error_stays(scene: Scene) -> None:
    client = scene.stage.client()
    said = scene.query(
        client, b"PREPARE p AS SELECT 1; DEALLOCATE p; PREPARE q AS SELECT 2; CLOSE x; PREPARE r AS SELECT 3"
    )
    assert kinds(said) == "CCCEZ"
    assert client.session.by_sql is not None
    assert {name: statement.text for name, statement in client.session.by_sql.items()} == {
        b"q": b"PREPARE q AS SELECT 2"
    }


def test_a_text_waits_for_what_is_prepared_ahead_and_fails_with_it(scene: Scene) -> None:
    client, other = scene.stage.client(), scene.stage.client()
    scene.query(client, b"PREPARE p AS SELECT 1")
    scene.elsewhere(client, other)
    client.says(encode.query(b"SELECT 2"))
    scene.settle()
    client.reads()
    client.says(encode.query(b"EXECUTE p") + encode.query(b"SELECT 3"))
    server = scene.stage.server(1)
    sent = server.take()
    assert PREPARE in sent
    assert sent.endswith(encode.SYNC)
    assert b"EXECUTE" not in sent
    prepared = encode.CLOSE_COMPLETE * 2 + encode.PARSE_COMPLETE + encode.BIND_COMPLETE
    server.say(prepared, encode.error("no such table", "42P01"), encode.ready_for_query())
    said = client.reads()
    assert kinds(said) == "EZ"
    assert errors(said)[0]["C"] == "42P01"
    assert server.take() == encode.query(b"SELECT 3")
    server.say(done("SELECT 3"))
    assert client.kinds() == "CZ"
    assert client.state is SessionState.IDLE
    client.says(encode.query(b"EXECUTE p"))
    assert PREPARE in server.take(), "it is tried again"


def test_it_fails_with_its_batch(scene: Scene) -> None:
    client, other = scene.stage.client(), scene.stage.client()
    scene.query(client, PREPARE)
    scene.elsewhere(client, other)
    scene.query(client, b"SELECT 2")
    client.says(encode.parse(b"", b"EXECUTE p") + encode.bind(b"", b"", []) + encode.execute() + encode.SYNC)
    server = scene.stage.server(1)
    sent = server.take()
    assert PREPARE in sent
    assert encode.SYNC not in sent
    assert sent.endswith(encode.FLUSH)
    prepared = encode.CLOSE_COMPLETE * 2 + encode.PARSE_COMPLETE + encode.BIND_COMPLETE
    server.say(prepared, encode.error("no such table", "42P01"))
    assert client.kinds() == "E"
    assert server.take().endswith(encode.SYNC)
    server.say(encode.ready_for_query())
    assert client.kinds() == "Z"
    assert client.session.unnamed is None
    assert client.state is SessionState.IDLE


def columns(*names: str) -> bytes:
    return encode.frame(b"t", b"\0\0") + encode.row_description([(name, 23, 0) for name in names])


@pytest.mark.parametrize("way", ["simple", "extended", "by message"])
def test_one_that_has_other_columns_now_is_refused_in_the_words_of_postgresql(scene: Scene, way: str) -> None:
    client, other = scene.stage.client(), scene.stage.client()
    scene.query(client, PREPARE)
    assert client.session.by_sql is not None
    told = client.session.by_sql[b"p"].told
    assert told is not None
    scene.elsewhere(client, other)
    scene.query(client, b"SELECT 2")
    server = scene.stage.server(1)
    run = encode.bind(b"", b"", []) + encode.execute() + encode.SYNC
    asked = {
        "simple": encode.query(b"EXECUTE p"),
        "extended": encode.parse(b"", b"EXECUTE p") + run,
        "by message": encode.bind(b"", b"p", []) + encode.execute() + encode.SYNC,
    }[way]
    client.says(asked)
    server.take()
    server.say(
        encode.CLOSE_COMPLETE * 2,
        encode.PARSE_COMPLETE,
        encode.BIND_COMPLETE,
        encode.command_complete("PREPARE"),
        columns("one", "two"),
        encode.CLOSE_COMPLETE * 2,
        encode.ready_for_query() if way == "simple" else b"",
    )
    assert b"EXECUTE" not in server.take()
    server.say(encode.error("whatever the refused request makes", "42601"), encode.ready_for_query())
    said = client.reads()
    assert kinds(said) == "EZ"
    assert errors(said)[0]["C"] == "0A000"
    assert errors(said)[0]["M"] == "cached plan must not change result type"
    scene.simulated.pop(server)
    assert kinds(scene.query(client, b"EXECUTE p")) == "TDCZ", "it is as it was, and prepared again"


def test_a_cancel_strikes_what_is_prepared_ahead(scene: Scene) -> None:
    client, other = scene.stage.client(), scene.stage.client()
    scene.query(client, PREPARE)
    scene.elsewhere(client, other)
    scene.query(client, b"SELECT 2")
    client.says(encode.query(b"EXECUTE p"))
    client.session.cancel()
    assert not client.session.cancel_wanted
    assert connection(client).cancels == 1
    scene.stage.server(1).take()
    scene.stage.server(1).say(
        encode.CLOSE_COMPLETE * 2, encode.error("canceling", "57014"), encode.ready_for_query()
    )
    assert errors(client.reads())[0]["C"] == "57014"


def names(frames: list[Frame]) -> list[bytes]:
    (row,) = [row_values(frame.body) for frame in frames if frame.kind == "D"]
    return [value.partition(b":")[0] for value in row if value is not None]


def test_a_look_sees_what_the_client_has_and_nothing_else(scene: Scene) -> None:
    client, other = scene.stage.client(), scene.stage.client()
    for session in (client, other):
        for name in (b"a", b"b"):
            scene.asks(session, encode.parse(name, b"SELECT 1 -- " + name), encode.SYNC)
    scene.query(other, PREPARE)
    assert names(scene.query(client, LOOK.encode())) == [b"a", b"b"]
    scene.query(client, b"PREPARE c AS SELECT 3")
    assert names(scene.query(client, LOOK.encode())) == [b"a", b"b", b"c"]
    assert names(scene.query(other, LOOK.encode())) == [b"a", b"b", b"p"]
    assert kinds(scene.asks(client, encode.bind(b"", b"a", []), encode.execute(), encode.SYNC)) == "2DCZ"


@pytest.mark.parametrize("asked", [LOOK.encode(), b"SELECT dblink_connect('x')"])
def test_what_a_request_only_may_need_does_not_fail_it(scene: Scene, asked: bytes) -> None:
    client, other = scene.stage.client("big"), scene.stage.client("big")
    scene.query(client, PREPARE)
    scene.query(client, b"PREPARE q AS SELECT 2")
    scene.elsewhere(client, other)
    scene.query(client, b"SELECT 2")
    client.says(encode.query(asked))
    server = scene.stage.server(1)
    sent = server.take()
    assert sent.count(encode.SYNC) == 3
    group = encode.CLOSE_COMPLETE + encode.PARSE_COMPLETE + encode.BIND_COMPLETE
    other_columns = encode.command_complete("PREPARE") + columns("one", "two") + encode.CLOSE_COMPLETE * 2
    ready = encode.ready_for_query()
    server.say(
        encode.CLOSE_COMPLETE * 2,
        group,
        encode.error("gone", "42P01"),
        ready,
        group,
        other_columns,
        ready * 2,
    )
    assert server.take() == encode.query(asked)
    server.say(done("SELECT 1"))
    assert client.kinds() == "CZ"
    if asked == LOOK.encode():
        assert server.take() == encode.query(b"DISCARD ALL"), "what failed there may be there or not"
        server.say(done("DISCARD ALL"))
    assert kinds(scene.query(client, b"EXECUTE q")) == "TDCZ"
    assert b"PREPARE q" in scene.sent_now(1), "what is named is tried again"


def test_names_of_ours_are_not_the_clients(scene: Scene) -> None:
    client, other = scene.stage.client(), scene.stage.client()
    scene.asks(other, encode.parse(b"a", b"SELECT 1"), encode.SYNC)
    ours = next(iter(other.session.statements.values())).name
    assert errors(scene.query(client, b"EXECUTE " + ours))[0]["C"] == "26000"
    assert errors(scene.query(client, b"DEALLOCATE " + ours))[0]["C"] == "26000"
    assert kinds(scene.query(client, b"PREPARE " + ours + b" AS SELECT 2")) == "CZ"
    assert kinds(scene.asks(other, encode.bind(b"", b"a", []), encode.execute(), encode.SYNC)) == "2DCZ"
    assert row_values(scene.query(client, b"EXECUTE " + ours)[1].body)[0].startswith(b"SELECT 2")  # type: ignore[union-attr]


def test_deallocate_of_one_prepared_by_message(scene: Scene) -> None:
    client, other = scene.stage.client(), scene.stage.client()
    scene.asks(client, encode.parse(b"s", b"SELECT 1"), encode.SYNC)
    assert kinds(scene.query(client, b"SELECT 1; DEALLOCATE s")) == "TDCCZ"
    assert client.session.statements == {}
    scene.asks(client, encode.parse(b"s", b"SELECT 1"), encode.SYNC)
    scene.elsewhere(client, other)
    assert kinds(scene.query(client, b"DEALLOCATE s")) == "CZ"
    assert client.session.statements == {}
    assert kinds(scene.asks(client, encode.bind(b"", b"s", []), encode.SYNC)) == "EZ"


def test_an_execute_never_does_unseen_what_its_statement_would_do(scene: Scene) -> None:
    client = scene.stage.client()
    scene.asks(client, encode.parse(b"s", b"SET application_name = 'x'"), encode.SYNC)
    assert errors(scene.query(client, b"EXECUTE s"))[0]["C"] == "26000"
    assert b"application_name = 'x'" not in scene.sent_now().partition(b"EXECUTE")[0].partition(b"\0s\0")[2]


def test_a_very_long_text_finds_what_is_prepared_too(scene: Scene) -> None:
    client, other = scene.stage.client("big"), scene.stage.client("big")
    scene.query(client, PREPARE)
    scene.elsewhere(client, other)
    scene.query(client, b"BEGIN")
    long = encode.query(b"EXECUTE p -- " + b"x" * 1_100_000)
    client.says(long[:30_000])
    scene.settle()
    client.says(long[30_000:])
    scene.settle()
    sent = scene.sent_now(1)
    assert sent.index(PREPARE) < sent.index(b"EXECUTE p")
    assert sent.endswith(long)
    assert client.session.pins == {PinReason.UNINSPECTED}


def test_a_long_execute_on_a_shared_cluster_is_neither_refused_nor_pinned(scene: Scene) -> None:
    client, other = scene.stage.client(), scene.stage.client()
    scene.query(client, PREPARE)
    scene.elsewhere(client, other)
    scene.query(client, b"EXECUTE p('" + b"x" * 100_000 + b"')")
    sent = scene.sent_now(1)
    assert sent.index(PREPARE) < sent.index(b"EXECUTE p")
    assert client.session.pins == set()


def test_more_than_is_carried_pins(scene: Scene) -> None:
    client = scene.stage.client()
    for number in range(sql_prepared.MOST):
        scene.query(client, b"PREPARE p%d AS SELECT 1" % number)
    assert client.session.pins == set()
    scene.query(client, b"PREPARE more AS SELECT 1")
    assert client.session.pins == {PinReason.SQL_PREPARE}
    assert client.session.by_sql is not None
    assert len(client.session.by_sql) == sql_prepared.MOST
    assert kinds(scene.query(client, b"EXECUTE more")) == "TDCZ"
    assert kinds(scene.query(client, b"EXECUTE p0")) == "TDCZ"
    assert kinds(scene.query(client, b"DEALLOCATE more")) == "CZ"


def test_too_many_bytes_of_it_pin(scene: Scene) -> None:
    client = scene.stage.client()
    for number in range(5):
        assert client.session.pins == set()
        scene.query(client, b"PREPARE p%d AS SELECT 1 -- " % number + b"x" * 60_000)
    assert client.session.pins == {PinReason.SQL_PREPARE}


def test_where_names_are_not_mapped_it_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(Stage(monkeypatch, options=ServerOptions(max_prepared_statements=0)))
    client = scene.stage.client()
    assert kinds(scene.query(client, PREPARE)) == "CZ"
    assert client.session.pins == {PinReason.SQL_PREPARE}
    assert client.session.by_sql is None
    assert kinds(scene.query(client, b"EXECUTE p")) == "TDCZ"
    scene.stage.leave()
