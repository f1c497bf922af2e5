"""What asks the server nothing costs no token, whole and by itself only; the end of a block passes."""

from __future__ import annotations

import pytest

from proxy.client import blanks
from proxy.client.blanks import COUNTS, FREE, FREE_EXECUTE, PASSES
from proxy.wire import encode
from tests.client.stage import BEGIN, done
from tests.client.test_throttling import ONE, WORK, WORKED, Scene, over_the_rate
from tests.rawclient import sqlstates

EMPTY = encode.parse(b"", b";") + encode.bind(b"", b"", []) + encode.execute()
PING = encode.query(b"-- ping")
NOTHING = encode.frame(b"I", b"") + encode.ready_for_query()
PREPARE = encode.parse(b"s", b"-- ping") + encode.describe(b"S", b"s") + encode.SYNC
SKIPPED = encode.bind(b"", b"s", []) + encode.execute() + encode.SYNC


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (PING, FREE),
        (encode.query(b""), FREE),
        (PING[:-2], COUNTS),
        (ONE, COUNTS),
        (encode.query(b"ROLLBACK"), PASSES),
        (EMPTY + encode.SYNC, FREE_EXECUTE),
        (EMPTY + encode.SYNC + WORK + encode.SYNC, FREE_EXECUTE),
        (PREPARE, FREE),
        (encode.parse(b"s", b"") + encode.bind(b"", b"s", []) + encode.execute() + encode.SYNC, FREE_EXECUTE),
        (EMPTY, COUNTS),
        (EMPTY + encode.SYNC[:-1], COUNTS),
        (EMPTY + WORK + encode.SYNC, COUNTS),
        (EMPTY + encode.execute() + encode.SYNC, COUNTS),
        (EMPTY + PING, COUNTS),
        (encode.parse(b"", b"") + encode.execute() + encode.SYNC, COUNTS),
        (encode.parse(b"", b"") + encode.bind(b"", b"other", []) + encode.execute() + encode.SYNC, COUNTS),
        (encode.parse(b"", b"") + encode.bind(b"p", b"", []) + encode.execute() + encode.SYNC, COUNTS),
        (encode.bind(b"", b"", []) + encode.execute() + encode.SYNC, COUNTS),
        (encode.execute() + encode.SYNC, COUNTS),
        (encode.parse(b"", b"") + encode.frame(b"B", b""), COUNTS),
        (encode.parse(b"", b"") + encode.bind(b"", b"", []) + encode.frame(b"E", b""), COUNTS),
        (encode.SYNC, COUNTS),
    ],
)  # fmt: skip
def test_what_is_blank(scene: Scene, data: bytes, found: int) -> None:
    session = scene.stage.client().session
    session.scanner.feed(data)
    session.scanner.start = 0
    assert blanks.blank(session, data[0]) == found
    session.scanner.forget()


def test_nothing_is_never_refused_nor_counted(scene: Scene) -> None:
    client, other = over_the_rate(scene)
    server = scene.stage.server()
    for asks, answers, heard in (
        (PING, NOTHING, "IZ"),
        (EMPTY + encode.SYNC, encode.PARSE_COMPLETE + encode.BIND_COMPLETE + NOTHING, "12IZ"),
    ):
        client.says(asks)
        assert server.take() == asks
        server.say(answers)
        assert client.kinds() == heard
    client.says(encode.parse(b"s", b"") + encode.SYNC)
    assert server.take().endswith(encode.SYNC)
    server.say(encode.PARSE_COMPLETE + encode.ready_for_query())
    client.says(SKIPPED)
    assert server.take().endswith(encode.SYNC)
    server.say(encode.BIND_COMPLETE + NOTHING)
    assert client.kinds() == "1Z2IZ"
    assert client.session.account.stats.throttled == 0
    assert client.session.account.gate is not None
    assert client.session.account.gate.due(scene.now) == pytest.approx(0.1), "as before"
    client.says(WORK + encode.SYNC)
    assert server.take() == b"", "but what follows waits"
    scene.passes(0.1)
    assert server.take() == WORK + encode.SYNC
    server.say(WORKED + encode.ready_for_query())
    assert client.kinds() == "12CZ"
    other.says(PING * 2)
    assert server.take() == PING * 2, "and it is no end of what is asked together"
    server.say(NOTHING * 2)
    assert other.kinds() == "IZIZ"
    scene.leave()


def test_the_end_of_a_block_passes_outside_of_one_and_is_counted(scene: Scene) -> None:
    """Who was refused a BEGIN rolls back."""
    client, other = over_the_rate(scene)
    server = scene.stage.server()
    for number, text in enumerate((b"ROLLBACK", b"commit;"), 2):
        client.says(encode.query(text))
        assert server.take() == encode.query(text)
        server.say(done("ROLLBACK"))
        assert client.kinds() == "CZ"
        assert client.session.account.gate is not None
        assert client.session.account.gate.due(scene.now) == pytest.approx(0.1 * number)
    other.says(encode.query(b"ROLLBACK TO a"))
    assert sqlstates(other.reads()) == ["53400"]
    scene.leave()


def test_in_a_block_it_is_not_counted_either(scene: Scene) -> None:
    client, _ = over_the_rate(scene)
    server = scene.stage.server()
    scene.passes(0.1)
    client.says(BEGIN)
    server.say(done("BEGIN", b"T"))
    server.take()
    client.says(PING + EMPTY + encode.SYNC)
    assert server.take() == PING + EMPTY + encode.SYNC
    assert client.session.account.gate is not None
    assert client.session.account.gate.due(scene.now) == pytest.approx(0.1), "for the BEGIN"
    in_block = encode.ready_for_query(b"T")
    server.say(
        encode.frame(b"I", b"")
        + in_block
        + encode.PARSE_COMPLETE
        + encode.BIND_COMPLETE
        + encode.frame(b"I", b"")
        + in_block
    )
    client.says(encode.query(b"COMMIT"))
    server.say(done("COMMIT"))
    scene.leave()


def test_what_was_skipped_pays_for_nothing(scene: Scene) -> None:
    """A blank batch that the server never sees leaves no token behind for what follows."""
    client, _ = over_the_rate(scene)
    session = client.session
    session.answer = encode.error("an error of ours", "53300")
    client.says(EMPTY + encode.SYNC)
    assert sqlstates(client.reads()) == ["53300"]
    client.says(WORK + encode.SYNC)
    assert scene.stage.server().take() == b""
    scene.leave()
