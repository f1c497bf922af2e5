"""A batch that is taken up as one is what its messages are one by one: for the server, the client, and what comes next."""

from __future__ import annotations

import pytest

from proxy.protocol.pipeline import BATCH
from proxy.protocol.statements import Statement
from proxy.wire import encode
from tests.client.stage import Client, Stage, frames
from tests.rawclient import Frame
from tests.transports import Transport

TEXT = b"SELECT abalance FROM accounts WHERE aid = $1"
PARSE, SYNC, EXECUTE = encode.parse(b"", TEXT), encode.SYNC, encode.execute()
PORTAL = encode.describe(b"P", b"")
BIND, BIND_NAMED = encode.bind(b"", b"", [b"7"]), encode.bind(b"", b"s", [b"7"])
ERROR = encode.error("no", "22P02")
FORMS = {
    "all": (PARSE, BIND, PORTAL, EXECUTE, SYNC),
    "undescribed": (PARSE, BIND, EXECUTE, SYNC),
    "another text": (encode.parse(b"", TEXT + b" "), BIND, PORTAL, EXECUTE, SYNC),
    "other types": (encode.parse(b"", TEXT, b"\0\1\0\0\0\x17"), BIND, EXECUTE, SYNC),
    "named": (BIND_NAMED, PORTAL, EXECUTE, SYNC),
    "named, undescribed": (BIND_NAMED, EXECUTE, SYNC),
}
ANSWERS = {
    "P": encode.PARSE_COMPLETE,
    "B": encode.BIND_COMPLETE,
    "D": encode.row_description([("abalance", 23, 4)]),
    "E": encode.data_row(["1"]) + encode.command_complete("SELECT 1"),
    "C": encode.CLOSE_COMPLETE,
    "S": encode.ready_for_query(),
    "Q": encode.command_complete("SELECT 1") + encode.ready_for_query(),
}


def answered(sent: bytes, failing: int | None = None) -> bytes:
    """What a server says to it, which fails the message of that number (from the end of the list if negative)."""
    asked = [frame.kind for frame in frames(sent)]
    if failing is None:
        return b"".join(ANSWERS[kind] for kind in asked)
    behind = asked[failing + 1 :]
    return (
        b"".join(ANSWERS[kind] for kind in asked[:failing])
        + ERROR
        + (b"".join(ANSWERS[kind] for kind in behind[behind.index("S") :]) if "S" in behind else ANSWERS["S"])
    )


class Played:
    """A client that has a named statement and an unnamed one, and all that has been sent since, either way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
        self.stage = Stage(monkeypatch)
        self.whole = whole
        self.client: Client
        self.server: Transport
        self.client, self.server = self.stage.unlinked()
        self.log: list[bytes | list[Frame] | list[str]] = []
        self.one_by_one(encode.parse(b"s", TEXT), BIND_NAMED, EXECUTE, PARSE, BIND, EXECUTE, SYNC)
        self.server.say(answered(self.server.take()))
        self.client.reads()

    def one_by_one(self, *messages: bytes) -> None:
        for message in messages:
            self.client.says(message)

    def asks(self, *messages: bytes, as_one: bool = True) -> bytes:
        if self.whole:
            self.client.says(b"".join(messages))
            server = self.client.session.server
            assert server is not None
            assert (server.pipeline.entries[0].kind == BATCH) == as_one
        else:
            self.one_by_one(*messages)
        sent = self.server.take()
        self.log.append(sent)
        return sent

    def hears(self, said: bytes, bytewise: bool = False) -> None:
        for piece in [said[at : at + 1] for at in range(len(said))] if bytewise else [said]:
            self.server.say(piece)
        self.log.append(self.client.reads())

    def goes_on(self) -> None:
        """With what shows what is believed of the statements."""
        for messages in (
            (BIND, EXECUTE, SYNC),
            (BIND_NAMED, PORTAL, EXECUTE, SYNC),
            (PARSE, BIND, EXECUTE, SYNC),
        ):
            self.one_by_one(*messages)
            sent = self.server.take()
            self.log.append(sent)
            self.hears(answered(sent))
        self.stage.leave()


def both(monkeypatch: pytest.MonkeyPatch) -> tuple[Played, Played]:
    return Played(monkeypatch, True), Played(monkeypatch, False)


@pytest.mark.parametrize("bytewise", [False, True])
@pytest.mark.parametrize(
    ("form", "failing"), [(form, at) for form in FORMS for at in (None, *range(len(FORMS[form])))]
)
def test_it_is_answered_the_same_wherever_it_fails(
    monkeypatch: pytest.MonkeyPatch, form: str, failing: int | None, bytewise: bool
) -> None:
    logs = []
    for played in both(monkeypatch):
        sent = played.asks(*FORMS[form])
        played.hears(answered(sent, failing), bytewise)
        played.goes_on()
        logs.append(played.log)
    assert logs[0] == logs[1]


@pytest.mark.parametrize("failing", [None, 0, 1, 3])
@pytest.mark.parametrize("form", FORMS)
def test_what_is_asked_behind_it_is_answered_the_same(
    monkeypatch: pytest.MonkeyPatch, form: str, failing: int | None
) -> None:
    logs = []
    for played in both(monkeypatch):
        sent = played.asks(*FORMS[form], encode.query(b"SELECT 1"))
        played.hears(answered(sent, failing))
        played.goes_on()
        logs.append(played.log)
    assert logs[0] == logs[1]


def test_a_copy_that_it_begins_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    logs = []
    for played in both(monkeypatch):
        played.asks(*FORMS["all"])
        played.hears(ANSWERS["P"] + ANSWERS["B"] + encode.NO_DATA + encode.frame(b"G", b"\0\0\0"))
        played.one_by_one(encode.frame(b"d", b"1\n"), encode.frame(b"c", b""), SYNC)
        played.log.append(played.server.take())
        played.hears(encode.command_complete("COPY 1") + ANSWERS["S"])
        played.goes_on()
        logs.append(played.log)
    assert logs[0] == logs[1]


def test_what_a_server_says_aside_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    aside = encode.notice("well") + encode.parameter_status(b"TimeZone", b"UTC")
    logs = []
    for played in both(monkeypatch):
        played.asks(*FORMS["named"])
        played.hears(
            aside + ANSWERS["B"] + ANSWERS["D"] + aside + ANSWERS["E"] + aside + ANSWERS["S"], bytewise=True
        )
        played.goes_on()
        logs.append(played.log)
    assert logs[0] == logs[1]


@pytest.mark.parametrize("said", ["BES", "BDEES", "BDDES", "DES", "PBDES", "S", "BDCES"])
def test_a_server_that_answers_something_else_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    played = Played(monkeypatch, True)
    played.asks(*FORMS["named"])
    played.server.say(b"".join(ANSWERS[kind] for kind in said))
    assert played.server.closed
    assert [frame.kind for frame in played.client.reads()][-1] == "E"
    played.stage.network.hang_ups()
    played.stage.leave()


@pytest.mark.parametrize(
    "messages",
    [
        (encode.parse(b"", b"EXPLAIN SELECT 1"), BIND, EXECUTE, SYNC),
        (encode.parse(b"", TEXT, b"\0\2\0\0\0\x17"), BIND, EXECUTE, SYNC),
        (encode.parse(b"t", TEXT), encode.bind(b"", b"t", [b"7"]), EXECUTE, SYNC),
        (PARSE, BIND_NAMED, EXECUTE, SYNC),
        (PARSE, encode.bind(b"p", b"", [b"7"]), encode.execute(b"p"), SYNC),
        (encode.bind(b"p", b"s", [b"7"]), encode.execute(b"p"), SYNC),
        (encode.bind(b"", b"nobody", [b"7"]), EXECUTE, SYNC),
        (BIND, EXECUTE, SYNC),
        (BIND_NAMED, EXECUTE, EXECUTE, SYNC),
        (BIND_NAMED, EXECUTE, encode.FLUSH, SYNC),
        (BIND_NAMED, EXECUTE),
        (PARSE, BIND, PORTAL),
        (PARSE,),
    ],
)
def test_another_form_is_left_to_its_messages(
    monkeypatch: pytest.MonkeyPatch, messages: tuple[bytes, ...]
) -> None:
    logs = []
    for played in both(monkeypatch):
        sent = played.asks(*messages, as_one=False)
        end = b"" if SYNC in messages else SYNC
        played.one_by_one(end)
        played.hears(answered(sent.replace(encode.FLUSH, b"") + end))
        played.log.append(played.server.take())
        played.goes_on()
        logs.append(played.log)
    assert logs[0] == logs[1]


def test_it_is_no_one_while_something_is_owed(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(monkeypatch, True)
    played.client.says(encode.query(b"SELECT 1"))
    played.client.says(b"".join(FORMS["named"]))
    server = played.client.session.server
    assert server is not None
    assert BATCH not in [entry.kind for entry in server.pipeline.entries]
    played.hears(answered(played.server.take()))
    played.stage.leave()


def test_the_statement_that_is_parsed_again_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has been told of the last one has not been told of it."""
    played = Played(monkeypatch, True)
    before: Statement | None = played.client.session.unnamed
    played.hears(answered(played.asks(*FORMS["all"])))
    after = played.client.session.unnamed
    assert before is not None
    assert after is not None
    assert after is not before
    assert after.text == before.text
    played.stage.leave()
